// The weight gradient of a convolution by Winograd's algorithm, transposed:
//
//   dW = G^T [ sum over tiles of (A dY A^T) * (B^T d B) ] G
//
// for each part of the filters (winograd.h has the matrices, winograd_axis.h the parts). For each of
// the 36 elements e the sum is a product of matrices,
//
//   S_e (O x C) = Z_e^T (O x tiles) * V_e (tiles x C),    Z = A dY A^T, V = B^T d B
//
//   task: a part, a block of filters by a block of channels, a share of the tiles
//     for each block of kTiles tiles
//       Z of the filters, V of the channels                        second-level cache
//       for each element: S_e += Z_e^T V_e                         registers
//     dW of the block = G^T S G
//
// Where the share is one block, each register tile goes through all elements and becomes its dW at
// once; S then is only as large as the first-level cache holds.
//
// Sums run over kTiles terms in registers, over kSumBlocks blocks in S, and beyond that in double
// precision. Blocks and shares are the same whatever the number of threads.
#include "algorithm.h"
#include "parallel.h"
#include "winograd_tiles.h"

namespace fastdl::FASTDL_ISA {

namespace {

constexpr int64_t kTiles = 64, kSumBlocks = 32, kMostTiles = 128, kMostBlock = 128;
// Tasks that there should be, and shares of the tiles at most, to give every thread its own.
constexpr int64_t kTasks = 8, kMostShares = 8;

// What parts of all filters may take before they are put together.
constexpr int64_t kGatheredBytes = 4 << 20;

// Matrices of the elements, `element` apart; within one, rows `row` apart.
template <class T>
struct Elements {
  T* data;
  int64_t element, row;
};

// For the first `elements` of the 36:
//   s[filter][channel] (+)= sum over tiles of z[tile][filter] * v[channel block][tile][lane]
// The rows of z and s are tiles and filters, those of v blocks of channels.
template <class T, int rows, int vectors>
void multiply(int elements, int64_t tiles, Elements<const T> z, Elements<const T> v, Elements<T> s,
              bool accumulate) {
  constexpr int lanes = kLanes<T>;
  for (; elements > 0; --elements) {
    Vector<T> sum[rows][vectors] = {};
    const T *z_tile = z.data, *v_tile = v.data;
    for (int64_t t = 0; t < tiles; ++t, z_tile += z.row, v_tile += lanes) {
      Vector<T> input[vectors];
#pragma GCC unroll 2
      for (int b = 0; b < vectors; ++b) input[b] = load(v_tile + b * v.row);
#pragma GCC unroll 14
      for (int r = 0; r < rows; ++r) {
        Vector<T> grad = splat(z_tile[r]);
#pragma GCC unroll 2
        for (int b = 0; b < vectors; ++b) sum[r][b] += grad * input[b];
      }
    }
#pragma GCC unroll 14
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 2
      for (int b = 0; b < vectors; ++b) {
        T* at = s.data + r * s.row + b * lanes;
        store(at, accumulate ? load(at) + sum[r][b] : sum[r][b]);
      }
    z.data += z.element;
    v.data += v.element;
    s.data += s.element;
  }
}

template <class T>
using Multiply = void (*)(int, int64_t, Elements<const T>, Elements<const T>, Elements<T>, bool);

template <class T, int... row>
FASTDL_INLINE Multiply<T> choose_multiply(int rows, int vectors,
                                          std::integer_sequence<int, row...>) {
  static constexpr Multiply<T> kernels[2][kRows] = {{multiply<T, row + 1, 1>...},
                                                    {multiply<T, row + 1, 2>...}};
  return kernels[vectors - 1][rows - 1];
}

template <class T>
struct WeightGradient {
  Planes<T> grads, inputs;
  WinogradAxis rows, columns;
  WinogradParts parts;
  TileGrid grid;
  const ConvGeometry& g;
  int64_t filters, channels;  // of a group
  // How it is divided.
  int64_t filter_block, channel_block, filter_blocks, channel_blocks, share, shares, tiles;

  int64_t taps() const { return g.kernel_h * g.kernel_w; }
  // Taps of a part at most.
  int64_t part_taps() const { return parts.part[0].row.taps * parts.part[0].column.taps; }
  int64_t blocks_of_channels() const { return ceil_div(channels, kLanes<T>); }
  // Elements of all windows, each tap a vector of channels.
  int64_t windows() const { return g.filters * blocks_of_channels() * kLanes<T> * taps(); }
  // Whether windows are put together, from several shares or for the stores of parts to be whole.
  bool gathered() const {
    return shares > 1 || (parts.count > 1 && windows() * int64_t{sizeof(T)} <= kGatheredBytes);
  }
  // Tasks for one share of the tiles.
  int64_t blocks() const { return filter_blocks * channel_blocks * g.groups * parts.count; }
};

// `size` in blocks of at most `most`, whole vectors and much the same.
template <class T>
int64_t even_block(int64_t size, int64_t most) {
  return ceil_div(ceil_div(size, ceil_div(size, most)), kLanes<T>) * kLanes<T>;
}

template <class T>
void divide(WeightGradient<T>& w) {
  w.filter_block = even_block<T>(w.filters, kMostBlock);
  w.channel_block = even_block<T>(w.channels, kMostBlock);
  w.filter_blocks = ceil_div(w.filters, w.filter_block);
  w.channel_blocks = ceil_div(w.channels, w.channel_block);
  int64_t shares = min(min(kMostShares, ceil_div(w.grid.all, 16)), ceil_div(kTasks, w.blocks()));
  w.share = ceil_div(w.grid.all, shares);
  w.shares = ceil_div(w.grid.all, w.share);
  w.tiles = w.share <= kMostTiles ? w.share : kTiles;
}

// Whether each register tile is finished at once.
template <class T>
bool at_once(const WeightGradient<T>& w) {
  return w.share == w.tiles;
}

template <class T>
bool in_doubles(const WeightGradient<T>& w) {
  return w.share > w.tiles * kSumBlocks;
}

// S of one element: of a register tile, or of the block.
template <class T>
int64_t s_row(const WeightGradient<T>& w) {
  return at_once(w) ? 2 * kLanes<T> : w.channel_block;
}
template <class T>
int64_t s_stride(const WeightGradient<T>& w) {
  return element_stride(at_once(w) ? kRows * 2 * kLanes<T> : w.filter_block * w.channel_block);
}

template <class T>
struct GradientMemory {
  double* total;  // [filter][channel block][tap][lane], where S alone is not enough
  T *z, *v, *s;
};

template <class T>
int64_t lay_out(const WeightGradient<T>& w, char* base, GradientMemory<T>& memory) {
  const int64_t size = static_cast<int64_t>(sizeof(T));
  char* p = base;
  memory.z = reinterpret_cast<T*>(p);
  p += kTileElements * element_stride(w.tiles * w.filter_block) * size;
  memory.v = reinterpret_cast<T*>(p);
  p += kTileElements * element_stride(w.tiles * w.channel_block) * size;
  memory.s = reinterpret_cast<T*>(p);
  p += kTileElements * s_stride(w) * size;
  memory.total = reinterpret_cast<double*>(p);
  if (in_doubles(w)) p += w.filter_block * w.channel_block * w.part_taps() * 8;
  return p - base;
}

// body(f, c, taps) with G^T S G, the r x r taps of filter f and the channels from c, a lane each. Of
// a part with fewer taps the last ones mean nothing.
template <class T, int r, class Body>
FASTDL_INLINE void each_filter(const WinogradParts::Part& part, Elements<const T> s,
                               int64_t filters, int64_t channels, Body body) {
  const int64_t stride = s.element;
  for (int64_t f = 0; f < filters; ++f)
    for (int64_t c = 0; c < channels; c += kLanes<T>) {
      const T* at = s.data + f * s.row + c;
      Vector<T> rows[6][r], taps[r * r];
#pragma GCC unroll 1  // six addresses at a time, not 36
      for (int i = 0; i < 6; ++i, at += 6 * stride) {
        if (i == part.rows) {
          for (int j = 0; j < r; ++j) rows[5][j] = Vector<T>{};
          break;
        }
        Vector<T> row[6];
#pragma GCC unroll 5
        for (int j = 0; j < 5; ++j) row[j] = load(at + j * stride);
        row[5] = part.columns > 5 ? load(at + 5 * stride) : Vector<T>{};
        gather<T, r>(row, rows[i]);
      }
#pragma GCC unroll 4
      for (int j = 0; j < r; ++j) {
        Vector<T> column[6], t[r];
#pragma GCC unroll 6
        for (int i = 0; i < 6; ++i) column[i] = rows[i][j];
        gather<T, r>(column, t);
#pragma GCC unroll 4
        for (int i = 0; i < r; ++i) taps[i * r + j] = t[i];
      }
      body(f, c, taps);
    }
}

// The taps of `used` channels, a lane each, to their windows of `count` neighbours.
template <class T>
FASTDL_INLINE void store_windows(const Vector<T>* taps, int count, int used, T* to) {
  constexpr int lanes = kLanes<T>;
  if (count < lanes) {
    for (int tap = 0; tap < count; ++tap)
      for (int l = 0; l < used; ++l) to[l * count + tap] = taps[tap][l];
    return;
  }
  for (int done = 0; done < count; done += lanes) {
    // The last square begins earlier, so as to be whole.
    done = static_cast<int>(min(done, count - lanes));
    Vector<T> square[lanes];
#pragma GCC unroll 16
    for (int l = 0; l < lanes; ++l) square[l] = taps[done + l];
    transpose<T>(square);
    if (used == lanes)
#pragma GCC unroll 16
      for (int l = 0; l < lanes; ++l) store(to + l * count + done, square[l]);
    else
      for (int l = 0; l < used; ++l) store(to + l * count + done, square[l]);
  }
}

// The taps of a part among those of their window, a vector each.
template <class T, int r>
FASTDL_INLINE void place_taps(const WeightGradient<T>& w, const WinogradParts::Part& part,
                              const Vector<T> (&taps)[r * r], T* to) {
  to += (part.row.first * w.g.kernel_w + part.column.first) * kLanes<T>;
#pragma GCC unroll 4
  for (int a = 0; a < r; ++a) {
    if (a == part.row.taps) break;
    T* at = to + a * part.row.step * w.g.kernel_w * kLanes<T>;
#pragma GCC unroll 4
    for (int b = 0; b < r; ++b, at += part.column.step * kLanes<T>)
      if (b < part.column.taps) store(at, taps[a * r + b]);
  }
}

// The same into windows of `used` channels.
template <class T, int r>
void scatter_taps(const WeightGradient<T>& w, const WinogradParts::Part& part,
                  const Vector<T> (&taps)[r * r], int used, T* to) {
  to += part.row.first * w.g.kernel_w + part.column.first;
  for (int a = 0; a < part.row.taps; ++a)
    for (int b = 0; b < part.column.taps; ++b) {
      T* at = to + a * part.row.step * w.g.kernel_w + b * part.column.step;
      for (int l = 0; l < used; ++l) at[l * w.taps()] = taps[a * r + b][l];
    }
}

// One task's share of the gradient into `out`: the result or, where windows are put together,
// [filter][channel block][tap][lane]; false if it is not finite.
template <class T, int r>
bool run_task(const WeightGradient<T>& w, int64_t task, const GradientMemory<T>& memory, T* out) {
  constexpr int lanes = kLanes<T>, part_taps = r * r;
  int64_t channel = task % w.channel_blocks * w.channel_block;
  int64_t filter = task / w.channel_blocks % w.filter_blocks * w.filter_block;
  int64_t group = task / w.channel_blocks / w.filter_blocks % w.g.groups;
  const auto& part = w.parts.part[task / w.channel_blocks / w.filter_blocks / w.g.groups %
                                  w.parts.count];
  int64_t share = task / w.blocks();
  int64_t filters = min(w.filter_block, w.filters - filter);
  int64_t channels = min(w.channel_block, w.channels - channel);

  Planes<T> grads = w.grads, inputs = w.inputs;
  grads.first += (group * w.filters + filter) * grads.plane;
  grads.channels = filters;
  inputs.first += (group * w.channels + channel) * inputs.plane;
  inputs.channels = channels;
  const Elements<const T> z = {memory.z, element_stride(w.tiles * w.filter_block), w.filter_block};
  const Elements<const T> v = {memory.v, element_stride(w.tiles * w.channel_block),
                               w.tiles * lanes};
  const Elements<T> s = {memory.s, s_stride(w), s_row(w)};
  const Elements<const T> s_done = {memory.s, s_stride(w), s_row(w)};
  const int row_blocks = static_cast<int>(ceil_div(filters, kRows));
  // body(first filter, filters, first channel, channels, kernel) for each register tile.
  auto each_tile = [&](auto body) {
    for (int64_t c = 0; c < channels; c += 2 * lanes)
      for (int block = 0; block < row_blocks; ++block) {
        int64_t first = filters * block / row_blocks;
        int64_t rows = filters * (block + 1) / row_blocks - first;
        auto kernel = choose_multiply<T>(static_cast<int>(rows), channels - c > lanes ? 2 : 1,
                                         std::make_integer_sequence<int, kRows>{});
        body(first, rows, c, min(2 * lanes, channels - c), kernel);
      }
  };
  auto transform = [&](int64_t begin, int count) {
    transform_grad_tiles(grads, w.grid, {0, 0, w.rows.write_step, w.columns.write_step}, begin,
                         count, {z.element, w.filter_block, lanes, 1}, memory.z);
    transform_input_tiles(
        inputs, w.grid,
        {part.row.read, part.column.read, w.rows.read_step, w.columns.read_step}, begin, count,
        {v.element, 0, v.row, static_cast<int>(w.tiles)}, memory.v);
  };

  Vector<T> not_finite = {};
  auto finish = [&](int64_t f, int64_t c, const Vector<T>(&taps)[part_taps]) {
#pragma GCC unroll 16
    for (int tap = 0; tap < part_taps; ++tap) not_finite += taps[tap] * T(0);
    const int64_t of = group * w.filters + filter + f, at = channel + c;
    const int used = static_cast<int>(min(lanes, channels - c));
    T* windows = out + (of * w.channels + at) * w.taps();
    T* vectors = out + (of * w.blocks_of_channels() + at / lanes) * lanes * w.taps();
    if (w.gathered()) place_taps<T, r>(w, part, taps, vectors);
    else if (w.parts.count > 1) scatter_taps<T, r>(w, part, taps, used, windows);
    else store_windows<T>(taps, part_taps, used, windows);
  };
  int64_t begin = share * w.share, end = min(w.grid.all, begin + w.share), summed = 0;

  if (at_once(w)) {
    int count = static_cast<int>(end - begin);
    transform(begin, count);
    each_tile([&](int64_t first, int64_t rows, int64_t c, int64_t columns, Multiply<T> kernel) {
      for (int i = 0; i < part.rows; ++i) {
        const int64_t e = i * kTileIn;
        kernel(part.columns, count, {z.data + e * z.element + first, z.element, z.row},
               {v.data + e * v.element + c * w.tiles, v.element, v.row},
               {s.data + e * s.element, s.element, s.row}, false);
      }
      each_filter<T, r>(part, s_done, rows, columns,
                        [&](int64_t f, int64_t extra, const Vector<T>(&taps)[part_taps]) {
                          finish(first + f, c + extra, taps);
                        });
    });
    return all_zero<T>(not_finite);
  }

  const bool more = in_doubles(w);
  if (more)
    for (int64_t i = 0; i < w.filter_block * w.channel_block * part_taps; ++i) memory.total[i] = 0;
  auto add_to_total = [&] {
    each_filter<T, r>(part, s_done, filters, channels,
                      [&](int64_t f, int64_t c, const Vector<T>(&taps)[part_taps]) {
                        double* total = memory.total + (f * w.channel_block + c) * part_taps;
                        for (int tap = 0; tap < part_taps; ++tap)
                          for (int l = 0; l < lanes; ++l)
                            total[tap * lanes + l] += static_cast<double>(taps[tap][l]);
                      });
  };
  for (; begin < end; begin += w.tiles, ++summed) {
    if (summed == kSumBlocks) {
      add_to_total();
      summed = 0;
    }
    int count = static_cast<int>(min(w.tiles, end - begin));
    transform(begin, count);
    for (int index = 0; index < part.elements(); ++index) {
      const int e = part.element(index);
      each_tile([&](int64_t first, int64_t, int64_t c, int64_t, Multiply<T> kernel) {
        kernel(1, count, {z.data + e * z.element + first, 0, z.row},
               {v.data + e * v.element + c * w.tiles, 0, v.row},
               {s.data + e * s.element + first * s.row + c, 0, s.row}, summed > 0);
      });
    }
  }
  if (!more) {
    each_filter<T, r>(part, s_done, filters, channels, finish);
  } else {
    add_to_total();
    for (int64_t f = 0; f < filters; ++f)
      for (int64_t c = 0; c < channels; c += lanes) {
        const double* total = memory.total + (f * w.channel_block + c) * part_taps;
        Vector<T> taps[part_taps];
        for (int tap = 0; tap < part_taps; ++tap)
          for (int l = 0; l < lanes; ++l) taps[tap][l] = static_cast<T>(total[tap * lanes + l]);
        finish(f, c, taps);
      }
  }
  return all_zero<T>(not_finite);
}

// out = the sum of the shares, in order.
template <class T>
void add_shares(const WeightGradient<T>& w, const T* shares, T* out, int threads) {
  constexpr int lanes = kLanes<T>, most_taps = 4 * kMostTaps * kMostTaps;
  const int64_t windows = w.g.filters * w.blocks_of_channels(), window = w.taps() * lanes;
  parallel_range(windows, max(1, (1 << 14) / window), threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      Vector<T> taps[most_taps];
      for (int64_t tap = 0; tap < w.taps(); ++tap) {
        const T* at = shares + i * window + tap * lanes;
        taps[tap] = load(at);
        for (int64_t share = 1; share < w.shares; ++share)
          taps[tap] += load(at + share * windows * window);
      }
      const int64_t filter = i / w.blocks_of_channels();
      const int64_t channel = i % w.blocks_of_channels() * lanes;
      store_windows<T>(taps, static_cast<int>(w.taps()),
                       static_cast<int>(min(lanes, w.channels - channel)),
                       out + (filter * w.channels + channel) * w.taps());
    }
  });
}

template <class T>
int grad_weight(const T* grad, const T* x, const ConvGeometry& g, T* out, int threads,
                bool channels_last) {
  int64_t filters = g.filters / g.groups, channels = g.channels / g.groups;
  const auto grads =
      Planes<T>::of(grad, g.batch, g.filters, g.groups, g.out_h, g.out_w, channels_last);
  const auto inputs =
      Planes<T>::of(x, g.batch, g.channels, g.groups, g.height, g.width, channels_last);
  const WinogradAxis rows =
      forward_axis(g.out_h, g.kernel_h, g.stride_h, g.dilation_h, g.pad_top);
  const WinogradAxis columns =
      forward_axis(g.out_w, g.kernel_w, g.stride_w, g.dilation_w, g.pad_left);
  WeightGradient<T> w{grads, inputs, rows, columns, {rows, columns},
                      TileGrid(g.batch, rows, columns), g, filters, channels, 0, 0, 0, 0, 0, 0, 0};
  const int64_t size = g.filters * channels * w.taps();
  if (w.grid.all == 0) {
    for (int64_t i = 0; i < size; ++i) out[i] = 0;
    return kDone;
  }
  divide(w);
  T* shares = out;
  const int64_t share = w.windows();
  if (w.gathered()) {
    shares =
        static_cast<T*>(shared_workspace(w.shares * share * static_cast<int64_t>(sizeof(T))));
    if (!shares) return kNoMemory;
  }
  GradientMemory<T> sizes;
  const int64_t bytes = lay_out<T>(w, nullptr, sizes);
  const int largest = rows.part[0].taps;
  auto run = largest == 2 ? run_task<T, 2> : largest == 3 ? run_task<T, 3> : run_task<T, 4>;
  int result = kDone;
  parallel_for(w.blocks() * w.shares, threads, [&](int64_t task) {
    auto* base = static_cast<char*>(workspace(bytes));
    if (!base) return note(&result, kNoMemory);
    GradientMemory<T> memory;
    lay_out(w, base, memory);
    if (!run(w, task, memory, shares + task / w.blocks() * share)) note(&result, kNotFinite);
  });
  if (result == kDone && w.gathered()) add_shares(w, shares, out, threads);
  return result;
}

}  // namespace

int winograd_grad_weight(Dtype dtype, const void* grad, const void* x, const ConvGeometry& g,
                         void* out, int threads, bool channels_last) {
  if (dtype == kFloat32)
    return grad_weight(static_cast<const float*>(grad), static_cast<const float*>(x), g,
                       static_cast<float*>(out), threads, channels_last);
  return grad_weight(static_cast<const double*>(grad), static_cast<const double*>(x), g,
                     static_cast<double*>(out), threads, channels_last);
}

}  // namespace fastdl::FASTDL_ISA
