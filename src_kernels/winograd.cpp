// Convolution by Winograd's algorithm, see winograd.h and winograd_axis.h:
//
//   for each of the 36 elements e:   M_e (tiles x O) = sum of V_e (tiles x C) * U_e (C x O) over parts
//
// with V = B^T d B of all input tiles and U = G g G^T of all filters. Neither exists as a whole:
//
//   task: a block of tiles (and, where there are few, a part of the filters)
//     V of the block, of each part                                second-level cache
//     for each few panels of 2 vectors of filters
//       for each chunk of kChunk channels
//         U of the panels and chunk: transformed here, or once before all tasks, or long ago
//         for each part, each element, each panel, each kRows tiles: multiply   registers
//       Y = A^T M A, bias and activation, into the output
//
// Sums run over at most kChunk terms in registers and are then added to M (blocked summation).
// The input gradient is the convolution of the gradient with the filters turned around and their
// roles exchanged: only the reading of the weights differs. With stride 2 all of its parts share one
// V, and each has an M and pixels of its own.
//
// An infinity or NaN spreads over its tile in the transforms, and so does an overflow there. Where
// an output is not finite, the call ends with kNotFinite, for another algorithm to do it all.
#include "algorithm.h"
#include "families.h"
#include "parallel.h"
#include "winograd_tiles.h"

namespace fastdl::FASTDL_ISA {

namespace {

template <class T>
constexpr int kPanel = 2 * kLanes<T>;
// Terms of a sum in registers; of filters that are cut into many elements half as many, so that a
// panel's U stays in the cache.
constexpr int64_t kChunk = 128;
constexpr int kFewElements = 49;

// A share of the second-level cache, for each of V, U and M; what V may take where it must be
// larger; and what the filters that all tasks read may take, a thread.
constexpr int64_t kCacheBytes = 384 << 10, kTaskBytes = 5 << 20, kSharedBytes = 5 << 20;

// The filters of one group as the transforms see them: filter f, channel k, tap t of the window
// at [f * filter_stride + k * channel_stride + t].
template <class T>
struct Filters {
  const T *first, *end;
  int64_t filters, channels, filter_stride, channel_stride, group_stride;
  int taps, width;  // of a window, of its rows
  bool turned;

  // A panel of all channels, as conv2d_pack leaves it: the elements of its parts.
  int64_t packed_stride() const { return element_stride(channels * kPanel<T>); }
  int64_t panels() const { return ceil_div(filters, kPanel<T>); }
  int64_t panel_elements(const WinogradParts& parts) const {
    return parts.u_elements * packed_stride();
  }
};

template <class T>
Filters<T> filters_of(const T* weight, const ConvGeometry& g, bool turned) {
  int64_t filters = g.filters / g.groups, channels = g.channels / g.groups;
  int64_t taps = g.kernel_h * g.kernel_w;
  const int all = static_cast<int>(taps), width = static_cast<int>(g.kernel_w);
  const T* end = weight + g.filters * channels * taps;
  // In a turned convolution filters and channels change their roles.
  if (turned)
    return {weight, end, channels, filters, taps, channels * taps, filters * channels * taps,
            all, width, true};
  return {weight, end, filters, channels, channels * taps, taps, filters * channels * taps,
          all, width, false};
}

// ---- U ----

// The taps of `lanes` filters, as vectors over the filters.
template <class T>
FASTDL_INLINE void load_taps(const T* from, int64_t stride, int count, const T* end,
                             Vector<T>* taps) {
  constexpr int lanes = kLanes<T>;
  for (int done = 0; done < count; done += lanes) {
    if (count - done == 1) {
      taps[done] = strided<T>(from + done, stride, std::make_integer_sequence<int, lanes>{});
      return;
    }
    // The last square begins earlier, so as to be whole.
    if (count >= lanes) done = static_cast<int>(min(done, count - lanes));
    Vector<T> square[lanes];
    if (count >= lanes || from + (lanes - 1) * stride + lanes <= end)
#pragma GCC unroll 16
      for (int l = 0; l < lanes; ++l) square[l] = load(from + l * stride + done);
    else
      for (int l = 0; l < lanes; ++l) {
        square[l] = Vector<T>{};
        memcpy(&square[l], from + l * stride, static_cast<size_t>(count) * sizeof(T));
      }
    transpose<T>(square);
    const int used = static_cast<int>(min(lanes, count));
    if (used == lanes)
#pragma GCC unroll 16
      for (int l = 0; l < lanes; ++l) taps[done + l] = square[l];
    else
      for (int l = 0; l < used; ++l) taps[done + l] = square[l];
  }
}

// The same of fewer filters than lanes; the others are zero.
template <class T>
void load_few_taps(const T* from, int64_t stride, int count, int used, Vector<T>* taps) {
  for (int tap = 0; tap < count; ++tap) {
    taps[tap] = Vector<T>{};
    for (int l = 0; l < used; ++l) taps[tap][l] = from[l * stride + tap];
  }
}

// The taps of kLanes filters and as many channels, where a filter's channels are neighbours: turned
// over square by square, so that every filter is read as one stream.
template <class T>
FASTDL_INLINE void load_tap_block(const T* from, int64_t stride, int count, Vector<T>* taps) {
  constexpr int lanes = kLanes<T>;
  for (int square = 0; square < count; ++square, from += lanes, taps += lanes) {
    Vector<T> v[lanes];
#pragma GCC unroll 16
    for (int l = 0; l < lanes; ++l) v[l] = load(from + l * stride);
    transpose<T>(v);
#pragma GCC unroll 16
    for (int l = 0; l < lanes; ++l) taps[l] = v[l];
  }
}

// Taps of a part within the window of a filter.
struct TapGrid {
  int first, row_step, column_step;
};

// G g G^T of kLanes filters of rows x columns taps, `stride` elements from one to the next.
template <class T, int largest, int rows, int columns>
void transform_taps(const Vector<T>* taps, const TapGrid& grid, int64_t stride, T* u) {
  Vector<T> across[6][largest];
#pragma GCC unroll 4
  for (int b = 0; b < largest; ++b) {
    Vector<T> column[largest], t[6];
#pragma GCC unroll 4
    for (int a = 0; a < largest; ++a)
      column[a] = a < rows && b < columns
                      ? taps[grid.first + a * grid.row_step + b * grid.column_step]
                      : Vector<T>{};
    evaluate<T, largest>(column, t);
#pragma GCC unroll 6
    for (int i = 0; i < 6; ++i) across[i][b] = t[i];
  }
  constexpr int u_rows = rows == 1 ? 1 : rows == largest ? 6 : 5;
  constexpr int u_columns = columns == 1 ? 1 : columns == largest ? 6 : 5;
#pragma GCC unroll 1  // six addresses at a time, not 36
  for (int i = 0; i < u_rows; ++i, u += u_columns * stride) {
    Vector<T> t[6];
    evaluate<T, largest>(across[i], t);
#pragma GCC unroll 6
    for (int j = 0; j < u_columns; ++j) store(u + j * stride, t[j]);
  }
}

template <class T>
using TransformTaps = void (*)(const Vector<T>*, const TapGrid&, int64_t, T*);

template <class T, int largest>
FASTDL_INLINE TransformTaps<T> choose_transform(bool whole_rows, bool whole_columns) {
  constexpr int less = largest - 1;
  if (whole_rows)
    return whole_columns ? transform_taps<T, largest, largest, largest>
                         : transform_taps<T, largest, largest, less>;
  return whole_columns ? transform_taps<T, largest, less, largest>
                       : transform_taps<T, largest, less, less>;
}

// The taps of kLanes filters, `used` of them there, and some channels: taps[channel][tap].
template <class T>
void load_all_taps(const Filters<T>& w, const T* from, int used, int channels, Vector<T>* taps) {
  constexpr int lanes = kLanes<T>;
  if (used == lanes && channels == lanes && !w.turned)
    return load_tap_block(from, w.filter_stride, w.taps, taps);
  for (int c = 0; c < channels; ++c, from += w.channel_stride, taps += w.taps)
    if (used == lanes) load_taps(from, w.filter_stride, w.taps, w.end, taps);
    else load_few_taps(from, w.filter_stride, w.taps, used, taps);
}

// What a panel reads for kLanes channels is many short runs, far apart: asks for them ahead.
template <class T>
FASTDL_INLINE void prefetch_taps(const Filters<T>& w, const T* from) {
  constexpr int line = 64 / static_cast<int>(sizeof(T));
  const int runs = w.turned ? kLanes<T> : kPanel<T>, length = w.turned ? kPanel<T> : kLanes<T>;
  const int64_t stride = w.turned ? w.channel_stride : w.filter_stride;
  for (int run = 0; run < runs; ++run, from += stride)
    for (int i = 0; i < length * w.taps; i += line) __builtin_prefetch(from + i);
}

// U of a panel and the channels [begin, end): u[element][channel][filter].
template <class T>
void transform_filters(const Filters<T>& w, const WinogradParts& parts, int64_t group,
                       int64_t panel, int64_t begin, int64_t end, int64_t stride, T* u) {
  constexpr int lanes = kLanes<T>;
  constexpr int most_taps = 4 * kMostTaps * kMostTaps;
  const int largest = parts.part[0].row.taps;
  auto choose = largest == 2   ? choose_transform<T, 2>
                : largest == 3 ? choose_transform<T, 3>
                               : choose_transform<T, 4>;
  const int64_t left = w.filters - panel * kPanel<T>;
  const T* from = w.first + group * w.group_stride + panel * kPanel<T> * w.filter_stride +
                  begin * w.channel_stride;
  Vector<T> taps[2][lanes * most_taps];
  for (int64_t k = begin; k < end; k += lanes, u += lanes * kPanel<T>) {
    const int channels = static_cast<int>(min(lanes, end - k));
    prefetch_taps(w, from + lanes * w.channel_stride);
    for (int half = 0; half < 2; ++half)
      load_all_taps(w, from + half * lanes * w.filter_stride,
                    static_cast<int>(max(0, min(lanes, left - half * lanes))), channels, taps[half]);
    from += lanes * w.channel_stride;
    for (int p = 0; p < parts.count; ++p) {
      const auto& part = parts.part[p];
      const TapGrid grid = {
          static_cast<int>(part.row.first) * w.width + static_cast<int>(part.column.first),
          static_cast<int>(part.row.step) * w.width, static_cast<int>(part.column.step)};
      auto transform = choose(part.row.taps == largest, part.column.taps == largest);
      T* to = u + part.u_first * stride;
      // Both halves of a cache line one after the other: all elements are more than the first cache
      // holds.
      for (int c = 0; c < channels; ++c, to += kPanel<T>)
        for (int half = 0; half < 2; ++half)
          transform(taps[half] + c * w.taps, grid, stride, to + half * lanes);
    }
  }
}

// ---- M ----

// m[tile][filter] (+)= sum over k of v[k / lanes][tile][k % lanes] * u[k][filter]; v has room for
// `v_rows` tiles. What the next calls read comes from the second- or third-level cache, and is asked
// for here: next_v all of it, next_u a share.
template <class T, int rows>
void multiply(int64_t depth, const T* v, int64_t v_rows, const T* u, T* m, bool accumulate,
              const T* next_v, const T* next_u) {
  constexpr int lanes = kLanes<T>, panel = kPanel<T>, line = 64 / static_cast<int>(sizeof(T));
#pragma GCC unroll 14
  for (int r = 0; r < rows; ++r) __builtin_prefetch(m + r * panel, 1);
  Vector<T> sum[rows][2] = {};
  auto add = [&](int k) __attribute__((always_inline)) {
    Vector<T> u0 = load(u + k * panel), u1 = load(u + k * panel + lanes);
#pragma GCC unroll 14
    for (int r = 0; r < rows; ++r) {
      Vector<T> element = splat(v[r * lanes + k]);
      sum[r][0] += element * u0;
      sum[r][1] += element * u1;
    }
  };
  for (; depth >= lanes; depth -= lanes) {
#pragma GCC unroll 16
    for (int k = 0; k < lanes; ++k) add(k);
#pragma GCC unroll 14
    for (int i = 0; i < rows * lanes; i += line) __builtin_prefetch(next_v + i);
    __builtin_prefetch(next_u, 0, 2);
    v += v_rows * lanes;
    next_v += v_rows * lanes;
    u += lanes * panel;
    next_u += line;
  }
  for (int k = 0; k < depth; ++k) add(k);
  if (accumulate)
#pragma GCC unroll 14
    for (int r = 0; r < rows; ++r)
      for (int h = 0; h < 2; ++h) sum[r][h] += load(m + r * panel + h * lanes);
#pragma GCC unroll 14
  for (int r = 0; r < rows; ++r)
    for (int h = 0; h < 2; ++h) store(m + r * panel + h * lanes, sum[r][h]);
}

template <class T>
using Multiply = void (*)(int64_t, const T*, int64_t, const T*, T*, bool, const T*, const T*);

template <class T, int... row>
FASTDL_INLINE Multiply<T> choose_multiply(int rows, std::integer_sequence<int, row...>) {
  static constexpr Multiply<T> kernels[] = {multiply<T, row + 1>...};
  return kernels[rows - 1];
}

// ---- the whole ----

template <class T>
struct Winograd {
  Filters<T> filters;
  Planes<T> planes;
  WinogradAxis rows, columns;
  WinogradParts parts;
  TileGrid grid;
  int v_sets, m_sets;  // one for each part, or one for all
  int64_t groups;
  const T *bias, *packed;
  T* out;
  Activation activation;
  // How it is divided.
  int64_t blocks_of_channels, tiles, tile_rows, tile_blocks, panels, splits, together, chunk;
  bool transform_here;

  int64_t v_stride() const {
    return element_stride(blocks_of_channels * ceil_div(tiles, tile_rows) * tile_rows * kLanes<T>);
  }
  int64_t m_stride() const { return element_stride(tiles * kPanel<T>); }
};

// The task's memory.
template <class T>
struct WinogradMemory {
  T *v, *u, *m;
};

template <class T>
int64_t lay_out(const Winograd<T>& conv, T* base, WinogradMemory<T>& memory) {
  T* p = base;
  memory.v = p;
  p += conv.v_sets * kTileElements * conv.v_stride();
  memory.m = p;
  p += conv.together * conv.m_sets * kTileElements * conv.m_stride();
  memory.u = p;
  if (conv.transform_here)
    p += conv.together * conv.parts.u_elements * element_stride(conv.chunk * kPanel<T>);
  return (p - base) * static_cast<int64_t>(sizeof(T));
}

template <class T>
int64_t packed_elements(const Filters<T>& w, const WinogradParts& parts, int64_t groups) {
  return groups * w.panels() * w.panel_elements(parts);
}

template <class T>
void divide(Winograd<T>& conv, int threads) {
  conv.blocks_of_channels = ceil_div(conv.filters.channels, kLanes<T>);
  const int64_t size = static_cast<int64_t>(sizeof(T)), element = kTileElements * size;
  int64_t panels = conv.filters.panels(), groups = conv.groups;
  int64_t v_bytes = conv.v_sets * element * conv.blocks_of_channels * kLanes<T>;
  int64_t m_bytes = conv.m_sets * element * kPanel<T>;
  int64_t shared = packed_elements(conv.filters, conv.parts, groups) * size;

  // Tiles: few enough for V to stay in the cache, but enough to make the reading of U, or its
  // making, worth its while.
  constexpr int64_t least = 24 / kRows * kRows, fit = 60 / kRows * kRows, many = 128 / kRows * kRows;
  int64_t most = min(fit, max(least, 2 * kCacheBytes / v_bytes));
  most = max(1, min(most, kTaskBytes / 2 / v_bytes));
  conv.transform_here = !conv.packed && (shared > kSharedBytes * threads ||
                                         conv.grid.all * groups <= 2 * most * threads);
  if (conv.transform_here) most = max(1, min(many, kTaskBytes / v_bytes));
  // Blocks of equal size, for every thread the same number, unless there are only few tiles.
  int64_t blocks = ceil_div(conv.grid.all, most);
  if (blocks > 1 || panels == 1) blocks = ceil_div(blocks, threads) * threads;
  conv.tiles = ceil_div(conv.grid.all, min(blocks, ceil_div(conv.grid.all, kRows)));
  conv.tile_rows = ceil_div(conv.tiles, ceil_div(conv.tiles, kRows));
  conv.tile_blocks = ceil_div(conv.grid.all, conv.tiles);
  // Few blocks: each task takes a part of the filters, and transforms the tiles for itself.
  int64_t tasks = conv.tile_blocks * groups;
  conv.splits = threads == 1 || tasks >= threads ? 1 : min(panels, ceil_div(threads, tasks));
  conv.panels = ceil_div(panels, conv.splits);
  conv.splits = ceil_div(panels, conv.panels);

  // Chunks do not depend on the division into tasks, and so on threads: they make the sums' order.
  conv.chunk = min(conv.parts.u_elements > kFewElements ? kChunk / 2 : kChunk,
                   conv.filters.channels);
  conv.together = conv.transform_here
                      ? 1
                      : max(1, min(min(4, conv.panels), kCacheBytes / (m_bytes * conv.tiles)));
}

// stage[row][column][lane] of a run into the planes of `used` filters, whose rows and columns are
// `row` and `step` elements apart. Where filters are neighbours, a vector of them goes as it is.
template <class T>
void write_rows(const T* stage, int64_t rows, int64_t columns, int used, int64_t row, int64_t step,
                int64_t plane, T* out) {
  constexpr int lanes = kLanes<T>;
  for (int64_t i = 0; i < rows; ++i, stage += kStageRow<T>, out += row) {
    if (plane == 1 && step > 1) {
      const auto bytes = static_cast<size_t>(used) * sizeof(T);
      for (int64_t j = 0; j < columns; ++j)
        if (used == lanes) store(out + j * step, load(stage + j * lanes));
        else memcpy(out + j * step, stage + j * lanes, bytes);
      continue;
    }
    if (step > 1) {
      for (int64_t j = 0; j < columns; ++j)
        for (int l = 0; l < used; ++l) out[l * plane + j * step] = stage[j * lanes + l];
      continue;
    }
    for (int64_t j = 0; j < columns; j += lanes) {
      // The last vector starts earlier, so as to be whole.
      int64_t column = columns >= lanes ? min(j, columns - lanes) : 0;
      auto count = static_cast<size_t>(min(lanes, columns)) * sizeof(T);
      Vector<T> v[lanes];
#pragma GCC unroll 16
      for (int l = 0; l < lanes; ++l) v[l] = load(stage + (column + l) * lanes);
      transpose<T>(v);
      if (used == lanes && columns >= lanes)
#pragma GCC unroll 16
        for (int l = 0; l < lanes; ++l) store(out + l * plane + column, v[l]);
      else
        for (int l = 0; l < used; ++l) memcpy(out + l * plane + column, &v[l], count);
    }
  }
}

// Rows or columns of a run that are in the image, the first at pixel `at`.
struct Inside {
  int64_t begin, count, at;

  Inside(const WinogradAxis& axis, const AxisPart& part, int64_t phase, int64_t first,
         int64_t count) {
    const int64_t start = phase + part.write + axis.write_step * first;
    begin = min(count, ceil_div(max(0, -start), axis.write_step));
    const int64_t end = ceil_div(axis.size - start, axis.write_step);
    this->count = max(0, min(count, end) - begin);
    at = start + begin * axis.write_step;
  }
};

// Y = A^T M A of a block of tiles, one part and one panel, finished and written; false if some are
// not finite.
template <class T, int tile>
bool write_tiles(const Winograd<T>& conv, const WinogradParts::Part& part, int64_t begin, int count,
                 int64_t group, int64_t panel, const T* m) {
  constexpr int lanes = kLanes<T>;
  const int64_t stride = conv.m_stride(), size = conv.rows.size * conv.columns.size;
  const int64_t filters = conv.filters.filters, all_filters = conv.groups * filters;
  const bool channels_last = conv.planes.channels_last;
  const int64_t plane = channels_last ? 1 : size, pixel = channels_last ? all_filters : 1;
  alignas(64) T stage[tile * kStageRow<T>];
  Vector<T> not_finite = {};
  for (int half = 0; half < 2; ++half) {
    int64_t filter = panel * kPanel<T> + half * lanes;
    int used = static_cast<int>(min(lanes, filters - filter));
    if (used <= 0) break;
    Vector<T> bias = {};
    if (conv.bias)
      memcpy(&bias, conv.bias + group * filters + filter, static_cast<size_t>(used) * sizeof(T));
    each_run(conv.grid, begin, count, [&](const TileRun& run) {
      for (int t = 0; t < run.count; ++t) {
        const T* at = m + (run.first + t) * kPanel<T> + half * lanes;
        Vector<T> rows[6][tile], corners = {};
#pragma GCC unroll 1  // six addresses at a time, not 36
        for (int i = 0; i < 6; ++i, at += 6 * stride) {
          Vector<T> row[6];
#pragma GCC unroll 6
          for (int j = 0; j < 6; ++j) row[j] = load(at + j * stride);
          gather<T, tile>(row, rows[i]);
        }
        T* to = stage + t * tile * lanes;
#pragma GCC unroll 5
        for (int j = 0; j < tile; ++j) {
          Vector<T> column[6], y[tile];
#pragma GCC unroll 6
          for (int i = 0; i < 6; ++i) column[i] = rows[i][j];
          gather<T, tile>(column, y);
          // The first and the last together hold every product of the tile.
          if (j == 0 || j == tile - 1) corners += y[0] + y[tile - 1];
#pragma GCC unroll 5
          for (int i = 0; i < tile; ++i) {
            y[i] += bias;
            if (conv.activation == kRelu) y[i] = relu<T>(y[i]);
            store(to + i * kStageRow<T> + j * lanes, y[i]);
          }
        }
        not_finite += corners * T(0);
      }
      if (conv.activation == kSigmoid || conv.activation == kTanh)
        for (int i = 0; i < tile; ++i) {
          T* row = stage + i * kStageRow<T>;
          activate(kDtype<T>, conv.activation, row, tile * run.count * lanes, row, 1);
        }
      const Inside y(conv.rows, part.row, run.row_phase, run.row * tile, tile);
      const Inside x(conv.columns, part.column, run.column_phase, run.column * tile,
                     tile * run.count);
      T* out = conv.out + run.image * all_filters * size + (group * filters + filter) * plane +
               (y.at * conv.columns.size + x.at) * pixel;
      write_rows(stage + y.begin * kStageRow<T> + x.begin * lanes, y.count, x.count, used,
                 conv.rows.write_step * conv.columns.size * pixel, conv.columns.write_step * pixel,
                 plane, out);
    });
  }
  return all_zero<T>(not_finite);
}

// V is kept as v[element][tile / rows][channel block][tile % rows][lane], so that what a register
// tile reads is one stream, and a block's addresses in it are immediates.
template <class T>
bool run_task(const Winograd<T>& conv, int64_t task, const WinogradMemory<T>& memory) {
  constexpr int lanes = kLanes<T>;
  int64_t split = task % conv.splits, block = task / conv.splits % conv.tile_blocks;
  int64_t group = task / conv.splits / conv.tile_blocks;
  int64_t begin = block * conv.tiles;
  int count = static_cast<int>(min(conv.tiles, conv.grid.all - begin));
  const int64_t depth = conv.filters.channels;
  const int64_t v_group = conv.blocks_of_channels * conv.tile_rows * lanes;
  const int64_t v_stride = conv.v_stride(), v_set = kTileElements * v_stride;
  const int64_t m_stride = conv.m_stride(), m_set = kTileElements * m_stride;

  Planes<T> planes = conv.planes;
  planes.first += group * depth * planes.plane;
  for (int p = 0; p < conv.v_sets; ++p) {
    const auto& part = conv.parts.part[p];
    transform_input_tiles(
        planes, conv.grid,
        {part.row.read, part.column.read, conv.rows.read_step, conv.columns.read_step}, begin, count,
        {v_stride, v_group, conv.tile_rows * lanes, static_cast<int>(conv.tile_rows)},
        memory.v + p * v_set);
  }

  // Where a part has an M of its own, elements without products are zero.
  for (int set = 0; set < conv.m_sets; ++set) {
    const auto& part = conv.parts.part[set];
    for (int e = 0; e < kTileElements; ++e)
      if (e / kTileIn >= part.rows || e % kTileIn >= part.columns)
        for (int64_t p = 0; p < conv.together; ++p)
          memset(memory.m + (p * conv.m_sets + set) * m_set + e * m_stride, 0,
                 static_cast<size_t>(conv.tiles * kPanel<T>) * sizeof(T));
  }

  auto write = conv.grid.tile == 3   ? write_tiles<T, 3>
               : conv.grid.tile == 4 ? write_tiles<T, 4>
                                     : write_tiles<T, 5>;
  const int64_t all_panels = conv.filters.panels();
  const int64_t last = min(all_panels, (split + 1) * conv.panels);
  const int64_t m_panel = conv.m_sets * m_set;
  const int64_t u_stride = conv.transform_here ? element_stride(conv.chunk * kPanel<T>)
                                               : conv.filters.packed_stride();
  const int64_t u_panel = conv.parts.u_elements * u_stride;
  for (int64_t panel = split * conv.panels; panel < last; panel += conv.together) {
    int64_t together = min(conv.together, last - panel);
    for (int64_t k = 0; k < depth; k += conv.chunk) {
      int64_t size = min(conv.chunk, depth - k);
      // Of the next U that each register tile asks for.
      const int64_t u_share = size / lanes * (64 / static_cast<int64_t>(sizeof(T)));
      const T* u = memory.u;
      if (conv.transform_here)
        for (int64_t p = 0; p < together; ++p)
          transform_filters(conv.filters, conv.parts, group, panel + p, k, k + size, u_stride,
                            memory.u + p * u_panel);
      else
        u = conv.packed + (group * all_panels + panel) * u_panel + k * kPanel<T>;
      for (int set = 0; set < conv.parts.count; ++set) {
        const auto& part = conv.parts.part[set];
        const T* v = memory.v + (conv.v_sets > 1 ? set * v_set : 0) + k * conv.tile_rows;
        T* m = memory.m + (conv.m_sets > 1 ? set * m_set : 0);
        const bool accumulate = k > 0 || (conv.m_sets == 1 && set > 0);
        const int elements = part.elements();
        for (int index = 0; index < elements; ++index) {
          const T* v_here = v + part.element(index) * v_stride;
          const T* v_next = v + part.element(index + 1) * v_stride;
          const T* u_here = u + part.u_element(index) * u_stride;
          const T* u_next = u + part.u_element(index + 1) * u_stride;
          T* m_here = m + part.element(index) * m_stride;
          for (int64_t p = 0; p < together; ++p, u_here += u_panel, m_here += m_panel) {
            const bool last_panel = p + 1 == together;
            const T* next_u = last_panel ? u_next : u_here + u_panel;
            const T* v_rows = v_here;
            T* m_rows = m_here;
            for (int64_t left = count; left > 0; left -= conv.tile_rows) {
              const bool last_rows = left <= conv.tile_rows;
              const T* next_v = !last_rows ? v_rows + v_group : last_panel ? v_next : v_here;
              choose_multiply<T>(static_cast<int>(min(conv.tile_rows, left)),
                                 std::make_integer_sequence<int, kRows>{})(
                  size, v_rows, conv.tile_rows, u_here, m_rows, accumulate, next_v, next_u);
              v_rows += v_group;
              m_rows += conv.tile_rows * kPanel<T>;
              next_u += u_share;
            }
          }
        }
      }
    }
    for (int64_t p = 0; p < together; ++p)
      for (int set = 0; set < conv.m_sets; ++set)
        if (!write(conv, conv.parts.part[set], begin, count, group, panel + p,
                   memory.m + p * m_panel + set * m_set))
          return false;
  }
  return true;
}

template <class T>
void pack(const Filters<T>& filters, const WinogradParts& parts, int64_t groups, T* packed,
          int threads) {
  parallel_for(groups * filters.panels(), threads, [&](int64_t task) {
    transform_filters(filters, parts, task / filters.panels(), task % filters.panels(), 0,
                      filters.channels, filters.packed_stride(),
                      packed + task * filters.panel_elements(parts));
  });
}

WinogradAxis row_axis(const ConvGeometry& g, bool turned) {
  return turned ? turned_axis(g.height, g.kernel_h, g.stride_h, g.dilation_h, g.pad_top)
                : forward_axis(g.out_h, g.kernel_h, g.stride_h, g.dilation_h, g.pad_top);
}
WinogradAxis column_axis(const ConvGeometry& g, bool turned) {
  return turned ? turned_axis(g.width, g.kernel_w, g.stride_w, g.dilation_w, g.pad_left)
                : forward_axis(g.out_w, g.kernel_w, g.stride_w, g.dilation_w, g.pad_left);
}
WinogradParts parts_of(const ConvGeometry& g, bool turned) {
  return {row_axis(g, turned), column_axis(g, turned)};
}

template <class T>
Winograd<T> plan(const T* x, const T* weight, const T* packed, const T* bias,
                 const ConvGeometry& g, Activation activation, bool turned, T* out, int threads,
                 bool channels_last) {
  const int64_t channels = turned ? g.filters : g.channels;
  const int64_t height = turned ? g.out_h : g.height, width = turned ? g.out_w : g.width;
  const auto planes =
      Planes<T>::of(x, g.batch, channels, g.groups, height, width, channels_last);
  const WinogradAxis rows = row_axis(g, turned), columns = column_axis(g, turned);
  const WinogradParts parts(rows, columns);
  const bool own_pixels = turned && g.stride_h > 1;
  Winograd<T> conv{filters_of(weight, g, turned),
                   planes,
                   rows,
                   columns,
                   parts,
                   TileGrid(g.batch, rows, columns),
                   own_pixels ? 1 : parts.count,
                   own_pixels ? parts.count : 1,
                   g.groups,
                   bias, packed, out, activation, 0, 0, 0, 0, 0, 0, 0, 0, false};
  if (conv.grid.all > 0) divide(conv, threads);
  return conv;
}

template <class T>
int convolve(const T* x, const T* weight, const T* packed, const T* bias, const ConvGeometry& g,
             Activation activation, bool turned, T* out, int threads, bool channels_last) {
  Winograd<T> conv =
      plan(x, weight, packed, bias, g, activation, turned, out, threads, channels_last);
  if (conv.grid.all == 0) return kDone;
  if (!conv.packed && !conv.transform_here) {
    auto* shared = static_cast<T*>(
        shared_workspace(packed_elements(conv.filters, conv.parts, g.groups) *
                         static_cast<int64_t>(sizeof(T))));
    if (!shared) return kNoMemory;
    pack(conv.filters, conv.parts, g.groups, shared, threads);
    conv.packed = shared;
  }
  WinogradMemory<T> sizes;
  int64_t bytes = lay_out<T>(conv, nullptr, sizes);
  int result = kDone;
  parallel_for(g.groups * conv.tile_blocks * conv.splits, threads, [&](int64_t task) {
    if (__atomic_load_n(&result, __ATOMIC_RELAXED) != kDone) return;
    WinogradMemory<T> memory;
    auto* base = static_cast<T*>(workspace(bytes));
    if (!base) return note(&result, kNoMemory);
    lay_out(conv, base, memory);
    if (!run_task(conv, task, memory)) note(&result, kNotFinite);
  });
  return result;
}

template <class T>
int64_t workspace_bytes(const ConvGeometry& g, bool packed, int threads) {
  T any = 0;
  auto conv = plan<T>(nullptr, nullptr, packed ? &any : nullptr, nullptr, g, kIdentity, false,
                      nullptr, threads, false);
  if (conv.grid.all == 0) return 0;
  WinogradMemory<T> sizes;
  int64_t shared = conv.packed || conv.transform_here
                       ? 0
                       : packed_elements(conv.filters, conv.parts, g.groups);
  return lay_out<T>(conv, nullptr, sizes) * min(threads, g.groups * conv.tile_blocks * conv.splits) +
         shared * static_cast<int64_t>(sizeof(T));
}

}  // namespace

int64_t winograd_workspace_bytes(Dtype dtype, const ConvGeometry& g, bool packed, int threads) {
  return (dtype == kFloat32 ? workspace_bytes<float> : workspace_bytes<double>)(g, packed, threads);
}

bool winograd_serves(const ConvGeometry& g) {
  const int rows = largest_part(g.kernel_h, g.stride_h, g.dilation_h);
  return rows > 0 && rows == largest_part(g.kernel_w, g.stride_w, g.dilation_w) &&
         g.stride_h == g.stride_w && g.channels > 0 && g.filters > 0;
}

int64_t winograd_packed_bytes(Dtype dtype, const ConvGeometry& g) {
  const WinogradParts parts = parts_of(g, false);
  if (dtype == kFloat32)
    return packed_elements(filters_of<float>(nullptr, g, false), parts, g.groups) * 4;
  return packed_elements(filters_of<double>(nullptr, g, false), parts, g.groups) * 8;
}

void winograd_pack(Dtype dtype, const void* weight, const ConvGeometry& g, void* packed,
                   int threads) {
  const WinogradParts parts = parts_of(g, false);
  if (dtype == kFloat32)
    pack(filters_of(static_cast<const float*>(weight), g, false), parts, g.groups,
         static_cast<float*>(packed), threads);
  else
    pack(filters_of(static_cast<const double*>(weight), g, false), parts, g.groups,
         static_cast<double*>(packed), threads);
}

int winograd(Dtype dtype, const void* x, const void* weight, const void* packed, const void* bias,
             const ConvGeometry& g, Activation activation, bool turned, void* out, int threads,
             bool channels_last) {
  if (dtype == kFloat32)
    return convolve(static_cast<const float*>(x), static_cast<const float*>(weight),
                    static_cast<const float*>(packed), static_cast<const float*>(bias), g,
                    activation, turned, static_cast<float*>(out), threads, channels_last);
  return convolve(static_cast<const double*>(x), static_cast<const double*>(weight),
                  static_cast<const double*>(packed), static_cast<const double*>(bias), g,
                  activation, turned, static_cast<double*>(out), threads, channels_last);
}

}  // namespace fastdl::FASTDL_ISA
