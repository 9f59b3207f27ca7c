// Convolution with 3x3 filters and stride 1 by Winograd's F(4x4, 3x3), see winograd.h:
//
//   for each of the 36 elements e:   M_e (tiles x O) = V_e (tiles x C) * U_e (C x O)
//
// with V = B^T d B of all input tiles and U = G g G^T of all filters. Neither exists as a whole:
//
//   task: a block of tiles (and, where there are few, a part of the filters)
//     V of the block                                              second-level cache
//     for each few panels of 2 vectors of filters
//       for each chunk of kChunk channels
//         U of the panels and chunk: transformed here, or once before all tasks, or long ago
//         for each element, each panel, each kRows tiles: multiply   registers
//       Y = A^T M A, bias and activation, into the output
//
// Sums run over at most kChunk terms in registers and are then added to M (blocked summation).
// The input gradient is the convolution of the gradient with the filters turned around and their
// roles exchanged: only the reading of the weights differs.
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
constexpr int64_t kChunk = 128;

// A share of the second-level cache, for each of V, U and M; what V may take where it must be
// larger; and what the filters that all tasks read may take, a thread.
constexpr int64_t kCacheBytes = 384 << 10, kTaskBytes = 5 << 20, kSharedBytes = 5 << 20;

// The filters of one group as the transforms see them: filter f, channel k, tap t of a 3x3 window
// at [f * filter_stride + k * channel_stride + (turned ? 8 - t : t)].
template <class T>
struct Filters {
  const T *first, *end;
  int64_t filters, channels, filter_stride, channel_stride, group_stride;
  bool turned;

  // A panel of all channels, as conv2d_pack leaves it: 36 elements, `panel_stride()` a panel.
  int64_t packed_stride() const { return element_stride(channels * kPanel<T>); }
  int64_t panels() const { return ceil_div(filters, kPanel<T>); }
  int64_t panel_elements() const { return kTileElements * packed_stride(); }
};

template <class T>
Filters<T> filters_of(const T* weight, const ConvGeometry& g, bool turned) {
  int64_t filters = g.filters / g.groups, channels = g.channels / g.groups;
  const T* end = weight + (g.filters * channels) * 9;
  // In a turned convolution the weights lie (channel, filter, tap).
  if (turned) return {weight, end, filters, channels, 9, filters * 9, filters * channels * 9, true};
  return {weight, end, filters, channels, channels * 9, 9, filters * channels * 9, false};
}

// ---- U ----

template <class T, int... lane>
FASTDL_INLINE Vector<T> strided(const T* from, int64_t stride, std::integer_sequence<int, lane...>) {
  return Vector<T>{from[lane * stride]...};
}

// The nine taps of `lanes` filters, as vectors over the filters. `whole`: what is loaded beyond the
// taps is memory of the weights too.
template <class T>
FASTDL_INLINE void load_taps(const T* from, int64_t stride, bool whole, Vector<T> (&taps)[9]) {
  constexpr int lanes = kLanes<T>;
  Vector<T> square[lanes];
  if constexpr (lanes <= 8) {
#pragma GCC unroll 4
    for (int done = 0; done < 8; done += lanes) {
#pragma GCC unroll 8
      for (int l = 0; l < lanes; ++l) square[l] = load(from + l * stride + done);
      transpose<T>(square);
#pragma GCC unroll 8
      for (int l = 0; l < lanes; ++l) taps[done + l] = square[l];
    }
    taps[8] = strided<T>(from + 8, stride, std::make_integer_sequence<int, lanes>{});
  } else {
    if (whole)
#pragma GCC unroll 16
      for (int l = 0; l < lanes; ++l) square[l] = load(from + l * stride);
    else
      for (int l = 0; l < lanes; ++l) {
        square[l] = Vector<T>{};
        memcpy(&square[l], from + l * stride, 9 * sizeof(T));
      }
    transpose<T>(square);
#pragma GCC unroll 9
    for (int tap = 0; tap < 9; ++tap) taps[tap] = square[tap % lanes];
  }
}

// The same of fewer filters than lanes; the others are zero.
template <class T>
void load_few_taps(const T* from, int64_t stride, int used, Vector<T> (&taps)[9]) {
  for (int tap = 0; tap < 9; ++tap) {
    taps[tap] = Vector<T>{};
    for (int l = 0; l < used; ++l) taps[tap][l] = from[l * stride + tap];
  }
}

// The taps of kLanes filters and as many channels, where a filter's channels are neighbours: turned
// over square by square, so that every filter is read as one stream.
template <class T>
FASTDL_INLINE void load_tap_block(const T* from, int64_t stride, Vector<T> (*taps)[9]) {
  constexpr int lanes = kLanes<T>;
  for (int square = 0; square < 9; ++square) {
    Vector<T> v[lanes];
#pragma GCC unroll 16
    for (int l = 0; l < lanes; ++l) v[l] = load(from + l * stride + square * lanes);
    transpose<T>(v);
    Vector<T>* to = &taps[0][0] + square * lanes;
#pragma GCC unroll 16
    for (int l = 0; l < lanes; ++l) to[l] = v[l];
  }
}

// G g G^T of kLanes filters, `stride` elements from one of the 36 to the next.
template <class T>
FASTDL_INLINE void transform_taps(const Vector<T> (&taps)[9], bool turned, int64_t stride, T* u) {
  Vector<T> columns[6][3];
#pragma GCC unroll 3
  for (int b = 0; b < 3; ++b) {
    Vector<T> column[3], t[6];
#pragma GCC unroll 3
    for (int a = 0; a < 3; ++a) column[a] = turned ? taps[8 - (3 * a + b)] : taps[3 * a + b];
    transform_filter<T>(column, t);
#pragma GCC unroll 6
    for (int i = 0; i < 6; ++i) columns[i][b] = t[i];
  }
#pragma GCC unroll 1  // six addresses at a time, not 36
  for (int i = 0; i < 6; ++i, u += 6 * stride) {
    Vector<T> t[6];
    transform_filter<T>(columns[i], t);
#pragma GCC unroll 6
    for (int j = 0; j < 6; ++j) store(u + j * stride, t[j]);
  }
}

// U of a panel and the channels [begin, end): u[element][channel][filter].
template <class T>
void transform_filters(const Filters<T>& w, int64_t group, int64_t panel, int64_t begin,
                       int64_t end, int64_t stride, T* u) {
  constexpr int lanes = kLanes<T>;
  const T* first = w.first + group * w.group_stride;
  for (int64_t k = begin; k < end; k += lanes, u += lanes * kPanel<T>) {
    int channels = static_cast<int>(min(lanes, end - k));
    if (w.turned) {
      // Each channel of a panel is a short run, far from the next: ask for them ahead.
      const T* ahead = first + panel * kPanel<T> * w.filter_stride + (k + lanes) * w.channel_stride;
      for (int c = 0; c < lanes; ++c, ahead += w.channel_stride)
        for (int i = 0; i < kPanel<T> * 9; i += 64 / static_cast<int>(sizeof(T)))
          __builtin_prefetch(ahead + i);
    }
    for (int half = 0; half < 2; ++half) {
      int64_t filter = panel * kPanel<T> + half * lanes;
      int used = static_cast<int>(max(0, min(lanes, w.filters - filter)));
      const T* from = first + filter * w.filter_stride + k * w.channel_stride;
      Vector<T> taps[lanes][9];
      if (used == lanes && channels == lanes && !w.turned) {
        load_tap_block(from, w.filter_stride, taps);
      } else {
        for (int c = 0; c < channels; ++c, from += w.channel_stride)
          if (used == lanes)
            load_taps(from, w.filter_stride, from + (lanes - 1) * w.filter_stride + lanes <= w.end,
                      taps[c]);
          else
            load_few_taps(from, w.filter_stride, used, taps[c]);
      }
      T* to = u + half * lanes;
      if (w.turned)
        for (int c = 0; c < channels; ++c) transform_taps(taps[c], true, stride, to + c * kPanel<T>);
      else
        for (int c = 0; c < channels; ++c) transform_taps(taps[c], false, stride, to + c * kPanel<T>);
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
  TileGrid grid;
  const T *bias, *packed;
  T* out;
  const ConvGeometry& g;
  Activation activation;
  // How it is divided.
  int64_t blocks_of_channels, tiles, rows, tile_blocks, panels, splits, together, chunk;
  bool transform_here;

  int64_t v_stride() const {
    return element_stride(blocks_of_channels * ceil_div(tiles, rows) * rows * kLanes<T>);
  }
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
  p += kTileElements * conv.v_stride();
  memory.m = p;
  p += conv.together * kTileElements * element_stride(conv.tiles * kPanel<T>);
  memory.u = p;
  if (conv.transform_here)
    p += conv.together * kTileElements * element_stride(conv.chunk * kPanel<T>);
  return (p - base) * static_cast<int64_t>(sizeof(T));
}

template <class T>
int64_t packed_elements(const Filters<T>& w, int64_t groups) {
  return groups * w.panels() * w.panel_elements();
}

template <class T>
void divide(Winograd<T>& conv, int threads) {
  conv.blocks_of_channels = ceil_div(conv.filters.channels, kLanes<T>);
  const int64_t size = static_cast<int64_t>(sizeof(T)), element = kTileElements * size;
  int64_t panels = conv.filters.panels(), groups = conv.g.groups;
  int64_t v_bytes = element * conv.blocks_of_channels * kLanes<T>, m_bytes = element * kPanel<T>;
  int64_t shared = packed_elements(conv.filters, groups) * size;

  // Tiles: few enough for V to stay in the cache, but enough to make the reading of U, or its
  // making, worth its while.
  constexpr int64_t least = 24 / kRows * kRows, fit = 60 / kRows * kRows, many = 128 / kRows * kRows;
  int64_t most = min(fit, max(least, 2 * kCacheBytes / v_bytes));
  conv.transform_here = !conv.packed && (shared > kSharedBytes * threads ||
                                         conv.grid.all * groups <= 2 * most * threads);
  if (conv.transform_here) most = min(many, max(fit, kTaskBytes / v_bytes));
  // Blocks of equal size, for every thread the same number, unless there are only few tiles.
  int64_t blocks = ceil_div(conv.grid.all, most);
  if (blocks > 1 || panels == 1) blocks = ceil_div(blocks, threads) * threads;
  conv.tiles = ceil_div(conv.grid.all, min(blocks, ceil_div(conv.grid.all, kRows)));
  conv.rows = ceil_div(conv.tiles, ceil_div(conv.tiles, kRows));
  conv.tile_blocks = ceil_div(conv.grid.all, conv.tiles);
  // Few blocks: each task takes a part of the filters, and transforms the tiles for itself.
  int64_t tasks = conv.tile_blocks * groups;
  conv.splits = threads == 1 || tasks >= threads ? 1 : min(panels, ceil_div(threads, tasks));
  conv.panels = ceil_div(panels, conv.splits);
  conv.splits = ceil_div(panels, conv.panels);

  // Chunks do not depend on the division into tasks, and so on threads: they make the sums' order.
  conv.chunk = min(kChunk, conv.filters.channels);
  conv.together = conv.transform_here
                      ? 1
                      : max(1, min(min(4, conv.panels), kCacheBytes / (m_bytes * conv.tiles)));
}

// stage[row][column][lane] of a run into the planes of `used` filters.
template <class T>
void write_rows(const T* stage, int64_t rows, int64_t columns, int used, int64_t width,
                int64_t plane, T* out) {
  constexpr int lanes = kLanes<T>;
  for (int64_t i = 0; i < rows; ++i, stage += kStageRow<T>, out += width)
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

// Y = A^T M A of a block of tiles and one panel, finished and written; false if some are not finite.
template <class T>
bool write_tiles(const Winograd<T>& conv, int64_t begin, int count, int64_t group, int64_t panel,
                 const T* m) {
  constexpr int lanes = kLanes<T>;
  const int64_t stride = element_stride(conv.tiles * kPanel<T>), plane = conv.g.out_h * conv.g.out_w;
  alignas(64) T stage[kTileOut * kStageRow<T>];
  Vector<T> not_finite = {};
  for (int half = 0; half < 2; ++half) {
    int64_t filter = panel * kPanel<T> + half * lanes;
    int used = static_cast<int>(min(lanes, conv.filters.filters - filter));
    if (used <= 0) break;
    Vector<T> bias = {};
    if (conv.bias)
      memcpy(&bias, conv.bias + group * conv.filters.filters + filter,
             static_cast<size_t>(used) * sizeof(T));
    each_run(conv.grid, begin, count, [&](const TileRun& run) {
      for (int tile = 0; tile < run.count; ++tile) {
        const T* at = m + (run.first + tile) * kPanel<T> + half * lanes;
        Vector<T> rows[6][4], corners = {};
#pragma GCC unroll 1  // six addresses at a time, not 36
        for (int i = 0; i < 6; ++i, at += 6 * stride) {
          Vector<T> row[6];
#pragma GCC unroll 6
          for (int j = 0; j < 6; ++j) row[j] = load(at + j * stride);
          transform_output<T>(row, rows[i]);
        }
        T* to = stage + tile * kTileOut * lanes;
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) {
          Vector<T> column[6], y[4];
#pragma GCC unroll 6
          for (int i = 0; i < 6; ++i) column[i] = rows[i][j];
          transform_output<T>(column, y);
          // The first and the last together hold every product of the tile.
          if (j == 0 || j == 3) corners += y[0] + y[3];
#pragma GCC unroll 4
          for (int i = 0; i < 4; ++i) {
            y[i] += bias;
            if (conv.activation == kRelu) y[i] = relu<T>(y[i]);
            store(to + i * kStageRow<T> + j * lanes, y[i]);
          }
        }
        not_finite += corners * T(0);
      }
      if (conv.activation == kSigmoid || conv.activation == kTanh)
        for (int i = 0; i < kTileOut; ++i) {
          T* row = stage + i * kStageRow<T>;
          activate(kDtype<T>, conv.activation, row, kTileOut * run.count * lanes, row, 1);
        }
      int64_t y = run.row * kTileOut, x = run.column * kTileOut;
      T* out = conv.out + run.image * conv.g.filters * plane +
               (group * conv.filters.filters + filter) * plane + y * conv.g.out_w + x;
      write_rows(stage, min(kTileOut, conv.g.out_h - y),
                 min(kTileOut * run.count, conv.g.out_w - x), used, conv.g.out_w, plane, out);
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
  const int64_t v_group = conv.blocks_of_channels * conv.rows * lanes;
  const int64_t v_stride = conv.v_stride();
  const int64_t m_stride = element_stride(conv.tiles * kPanel<T>);

  Planes<T> planes = conv.planes;
  planes.first += group * depth * planes.height * planes.width;
  transform_input_tiles(planes, conv.grid, conv.g.pad_top, conv.g.pad_left, begin, count,
                        {v_stride, v_group, conv.rows * lanes, static_cast<int>(conv.rows)}, memory.v);

  const int64_t all_panels = conv.filters.panels();
  const int64_t last = min(all_panels, (split + 1) * conv.panels);
  const int64_t m_panel = kTileElements * m_stride;
  int64_t u_stride = conv.filters.packed_stride(), u_panel = conv.filters.panel_elements();
  if (conv.transform_here) {
    u_stride = element_stride(conv.chunk * kPanel<T>);
    u_panel = kTileElements * u_stride;
  }
  for (int64_t panel = split * conv.panels; panel < last; panel += conv.together) {
    int64_t together = min(conv.together, last - panel);
    for (int64_t k = 0; k < depth; k += conv.chunk) {
      int64_t size = min(conv.chunk, depth - k);
      const T* u = memory.u;
      if (conv.transform_here)
        for (int64_t p = 0; p < together; ++p)
          transform_filters(conv.filters, group, panel + p, k, k + size, u_stride,
                            memory.u + p * u_panel);
      else
        u = conv.packed + (group * all_panels + panel) * u_panel + k * kPanel<T>;
      for (int e = 0; e < kTileElements; ++e)
        for (int64_t p = 0; p < together; ++p)
          for (int64_t first = 0; first < count; first += conv.rows) {
            int rows = static_cast<int>(min(conv.rows, count - first));
            bool last_rows = first + conv.rows >= count, last_panel = p + 1 == together;
            const T* v_here = memory.v + e * v_stride + first / conv.rows * v_group + k * conv.rows;
            const T* u_here = u + p * u_panel + e * u_stride;
            const T* next_v = last_rows ? v_here - first / conv.rows * v_group + (last_panel ? v_stride : 0)
                                        : v_here + v_group;
            const T* next_u = last_panel ? u + (e + 1) * u_stride : u_here + u_panel;
            choose_multiply<T>(rows, std::make_integer_sequence<int, kRows>{})(
                size, v_here, conv.rows, u_here,
                memory.m + p * m_panel + e * m_stride + first * kPanel<T>, k > 0, next_v,
                next_u + first / conv.rows * (size / lanes) * (64 / static_cast<int64_t>(sizeof(T))));
          }
    }
    for (int64_t p = 0; p < together; ++p)
      if (!write_tiles(conv, begin, count, group, panel + p, memory.m + p * m_panel)) return false;
  }
  return true;
}

template <class T>
void pack(const Filters<T>& filters, int64_t groups, T* packed, int threads) {
  parallel_for(groups * filters.panels(), threads, [&](int64_t task) {
    transform_filters(filters, task / filters.panels(), task % filters.panels(), 0,
                      filters.channels, filters.packed_stride(),
                      packed + task * filters.panel_elements());
  });
}

template <class T>
Winograd<T> plan(const T* x, const T* weight, const T* packed, const T* bias,
                 const ConvGeometry& g, Activation activation, bool turned, T* out, int threads) {
  Planes<T> planes = {x,
                      x + g.batch * g.channels * g.height * g.width,
                      g.channels / g.groups,
                      g.channels * g.height * g.width,
                      g.height,
                      g.width};
  Winograd<T> conv{filters_of(weight, g, turned),
                   planes,
                   TileGrid::of(g.batch, g.out_h, g.out_w),
                   bias, packed, out, g, activation, 0, 0, 0, 0, 0, 0, 0, 0, false};
  if (conv.grid.all > 0) divide(conv, threads);
  return conv;
}

template <class T>
int convolve(const T* x, const T* weight, const T* packed, const T* bias, const ConvGeometry& g,
             Activation activation, bool turned, T* out, int threads) {
  Winograd<T> conv = plan(x, weight, packed, bias, g, activation, turned, out, threads);
  if (conv.grid.all == 0) return kDone;
  if (!conv.packed && !conv.transform_here) {
    auto* shared = static_cast<T*>(shared_workspace(packed_elements(conv.filters, g.groups) *
                                                    static_cast<int64_t>(sizeof(T))));
    if (!shared) return kNoMemory;
    pack(conv.filters, g.groups, shared, threads);
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
                      nullptr, threads);
  if (conv.grid.all == 0) return 0;
  WinogradMemory<T> sizes;
  int64_t shared = conv.packed || conv.transform_here ? 0 : packed_elements(conv.filters, g.groups);
  return lay_out<T>(conv, nullptr, sizes) * min(threads, g.groups * conv.tile_blocks * conv.splits) +
         shared * static_cast<int64_t>(sizeof(T));
}

}  // namespace

int64_t winograd_workspace_bytes(Dtype dtype, const ConvGeometry& g, bool packed, int threads) {
  return (dtype == kFloat32 ? workspace_bytes<float> : workspace_bytes<double>)(g, packed, threads);
}

bool winograd_serves(const ConvGeometry& g) {
  return g.kernel_h == 3 && g.kernel_w == 3 && g.stride_h == 1 && g.stride_w == 1 &&
         g.dilation_h == 1 && g.dilation_w == 1 &&
         g.channels > 0 && g.filters > 0;
}

int64_t winograd_packed_bytes(Dtype dtype, const ConvGeometry& g) {
  if (dtype == kFloat32)
    return packed_elements(filters_of<float>(nullptr, g, false), g.groups) * 4;
  return packed_elements(filters_of<double>(nullptr, g, false), g.groups) * 8;
}

void winograd_pack(Dtype dtype, const void* weight, const ConvGeometry& g, void* packed,
                   int threads) {
  if (dtype == kFloat32)
    pack(filters_of(static_cast<const float*>(weight), g, false), g.groups,
         static_cast<float*>(packed), threads);
  else
    pack(filters_of(static_cast<const double*>(weight), g, false), g.groups,
         static_cast<double*>(packed), threads);
}

int winograd(Dtype dtype, const void* x, const void* weight, const void* packed, const void* bias,
             const ConvGeometry& g, Activation activation, bool turned, void* out, int threads) {
  if (dtype == kFloat32)
    return convolve(static_cast<const float*>(x), static_cast<const float*>(weight),
                    static_cast<const float*>(packed), static_cast<const float*>(bias), g,
                    activation, turned, static_cast<float*>(out), threads);
  return convolve(static_cast<const double*>(x), static_cast<const double*>(weight),
                  static_cast<const double*>(packed), static_cast<const double*>(bias), g,
                  activation, turned, static_cast<double*>(out), threads);
}

}  // namespace fastdl::FASTDL_ISA
