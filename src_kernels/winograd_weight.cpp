// The weight gradient of a 3x3 convolution of stride 1 by Winograd's algorithm, transposed:
//
//   dW = G^T [ sum over tiles of (A dY A^T) * (B^T d B) ] G
//
// (winograd.h has the matrices.) For each of the 36 elements e the sum is a product of matrices,
//
//   S_e (O x C) = Z_e^T (O x tiles) * V_e (tiles x C),    Z = A dY A^T, V = B^T d B
//
//   task: a block of filters by a block of channels, and a part of the tiles
//     for each block of kTiles tiles
//       Z of the filters, V of the channels                        second-level cache
//       for each element: S_e += Z_e^T V_e                         registers
//     dW of the block = G^T S G
//
// Sums run over kTiles terms in registers, over kSumBlocks blocks in S, and beyond that in double
// precision. Blocks and parts are the same whatever the number of threads.
#include "algorithm.h"
#include "parallel.h"
#include "winograd_tiles.h"

namespace fastdl::FASTDL_ISA {

namespace {

// The register tile: kRows filters by 2 vectors of channels.
#if defined(__AVX512F__)
constexpr int kRows = 14;
#elif defined(__aarch64__)
constexpr int kRows = 12;
#elif defined(__AVX2__)
constexpr int kRows = 6;
#else
constexpr int kRows = 4;
#endif

constexpr int64_t kTiles = 64, kSumBlocks = 32, kMostBlock = 64;
// Tasks that there should be, and parts of the tiles at most, to give every thread its share.
constexpr int64_t kTasks = 8, kMostParts = 8;

// s[filter][channel] (+)= sum over tiles of z[tile][filter] * v[channel block][tile][lane]
template <class T, int rows, int vectors>
void multiply(int64_t tiles, const T* z, int64_t z_tile, const T* v, int64_t v_block, T* s,
              int64_t s_row, bool accumulate) {
  constexpr int lanes = kLanes<T>;
  Vector<T> sum[rows][vectors] = {};
  for (int64_t t = 0; t < tiles; ++t, z += z_tile, v += lanes) {
    Vector<T> input[vectors];
#pragma GCC unroll 2
    for (int b = 0; b < vectors; ++b) input[b] = load(v + b * v_block);
#pragma GCC unroll 14
    for (int r = 0; r < rows; ++r) {
      Vector<T> grad = splat(z[r]);
#pragma GCC unroll 2
      for (int b = 0; b < vectors; ++b) sum[r][b] += grad * input[b];
    }
  }
#pragma GCC unroll 14
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 2
    for (int b = 0; b < vectors; ++b) {
      T* at = s + r * s_row + b * lanes;
      store(at, accumulate ? load(at) + sum[r][b] : sum[r][b]);
    }
}

template <class T>
using Multiply = void (*)(int64_t, const T*, int64_t, const T*, int64_t, T*, int64_t, bool);

template <class T, int vectors, int... row>
FASTDL_INLINE Multiply<T> choose_multiply(int rows, std::integer_sequence<int, row...>) {
  static constexpr Multiply<T> kernels[] = {multiply<T, row + 1, vectors>...};
  return kernels[rows - 1];
}

template <class T>
struct WeightGradient {
  Planes<T> grads, inputs;
  TileGrid grid;
  const ConvGeometry& g;
  int64_t filters, channels;  // of a group
  // How it is divided.
  int64_t filter_block, channel_block, filter_blocks, channel_blocks, part, parts;
};

// `size` in blocks of at most kMostBlock, whole vectors and much the same.
template <class T>
int64_t even_block(int64_t size) {
  return ceil_div(ceil_div(size, ceil_div(size, kMostBlock)), kLanes<T>) * kLanes<T>;
}

template <class T>
void divide(WeightGradient<T>& w) {
  w.filter_block = even_block<T>(w.filters);
  w.channel_block = even_block<T>(w.channels);
  w.filter_blocks = ceil_div(w.filters, w.filter_block);
  w.channel_blocks = ceil_div(w.channels, w.channel_block);
  int64_t tasks = w.filter_blocks * w.channel_blocks * w.g.groups;
  int64_t tile_blocks = ceil_div(w.grid.all, kTiles);
  int64_t parts = min(min(kMostParts, tile_blocks), ceil_div(kTasks, tasks));
  w.part = ceil_div(tile_blocks, parts) * kTiles;
  w.parts = ceil_div(w.grid.all, w.part);
}

template <class T>
struct GradientMemory {
  double* total;  // [filter][channel block][tap][lane]
  T *z, *v, *s;
};

template <class T>
int64_t lay_out(const WeightGradient<T>& w, char* base, GradientMemory<T>& memory) {
  const int64_t size = static_cast<int64_t>(sizeof(T));
  char* p = base;
  memory.z = reinterpret_cast<T*>(p);
  p += kTileElements * element_stride(kTiles * w.filter_block) * size;
  memory.v = reinterpret_cast<T*>(p);
  p += kTileElements * element_stride(kTiles * w.channel_block) * size;
  memory.s = reinterpret_cast<T*>(p);
  p += kTileElements * element_stride(w.filter_block * w.channel_block) * size;
  memory.total = reinterpret_cast<double*>(p);
  p += w.filter_block * w.channel_block * 9 * 8;
  return p - base;
}

// total += G^T S G
template <class T>
void add_filters(const WeightGradient<T>& w, int64_t filters, int64_t channels,
                 const GradientMemory<T>& memory) {
  constexpr int lanes = kLanes<T>;
  const int64_t stride = element_stride(w.filter_block * w.channel_block);
  for (int64_t f = 0; f < filters; ++f)
    for (int64_t c = 0; c < channels; c += lanes) {
      const T* at = memory.s + f * w.channel_block + c;
      Vector<T> columns[3][6];
#pragma GCC unroll 6
      for (int j = 0; j < 6; ++j) {
        Vector<T> column[6], t[3];
#pragma GCC unroll 6
        for (int i = 0; i < 6; ++i) column[i] = load(at + (i * 6 + j) * stride);
        transform_filter_grad<T>(column, t);
#pragma GCC unroll 3
        for (int i = 0; i < 3; ++i) columns[i][j] = t[i];
      }
      double* total = memory.total + (f * w.channel_block + c) * 9;
      for (int i = 0; i < 3; ++i) {
        Vector<T> t[3];
        transform_filter_grad<T>(columns[i], t);
        for (int j = 0; j < 3; ++j)
          for (int l = 0; l < lanes; ++l)
            total[(i * 3 + j) * lanes + l] += static_cast<double>(t[j][l]);
      }
    }
}

// One task's share of the gradient into `out` (filters x channels x taps of all groups).
template <class T>
void run_task(const WeightGradient<T>& w, int64_t task, const GradientMemory<T>& memory, T* out) {
  constexpr int lanes = kLanes<T>;
  int64_t channel = task % w.channel_blocks * w.channel_block;
  int64_t filter = task / w.channel_blocks % w.filter_blocks * w.filter_block;
  int64_t group = task / w.channel_blocks / w.filter_blocks % w.g.groups;
  int64_t part = task / w.channel_blocks / w.filter_blocks / w.g.groups;
  int64_t filters = min(w.filter_block, w.filters - filter);
  int64_t channels = min(w.channel_block, w.channels - channel);

  Planes<T> grads = w.grads, inputs = w.inputs;
  grads.first += (group * w.filters + filter) * grads.height * grads.width;
  grads.channels = filters;
  inputs.first += (group * w.channels + channel) * inputs.height * inputs.width;
  inputs.channels = channels;
  const int64_t z_stride = element_stride(kTiles * w.filter_block);
  const int64_t v_stride = element_stride(kTiles * w.channel_block);
  const int64_t s_stride = element_stride(w.filter_block * w.channel_block);
  const int row_blocks = static_cast<int>(ceil_div(filters, kRows));

  for (int64_t i = 0; i < w.filter_block * w.channel_block * 9; ++i) memory.total[i] = 0;
  int64_t begin = part * w.part, end = min(w.grid.all, begin + w.part), summed = 0;
  for (; begin < end; begin += kTiles) {
    int count = static_cast<int>(min(kTiles, end - begin));
    transform_grad_tiles(grads, w.grid, begin, count, {z_stride, w.filter_block, lanes},
                         memory.z);
    transform_input_tiles(inputs, w.grid, w.g.pad_top, w.g.pad_left, begin, count,
                          {v_stride, lanes, kTiles * lanes}, memory.v);
    for (int e = 0; e < kTileElements; ++e)
      for (int64_t c = 0; c < channels; c += 2 * lanes)
        for (int r = 0; r < row_blocks; ++r) {
          int first = static_cast<int>(filters * r / row_blocks);
          int rows = static_cast<int>(filters * (r + 1) / row_blocks) - first;
          auto sequence = std::make_integer_sequence<int, kRows>{};
          auto kernel = channels - c > lanes ? choose_multiply<T, 2>(rows, sequence)
                                             : choose_multiply<T, 1>(rows, sequence);
          kernel(count, memory.z + e * z_stride + first, w.filter_block,
                 memory.v + e * v_stride + c * kTiles, kTiles * lanes,
                 memory.s + e * s_stride + first * w.channel_block + c, w.channel_block,
                 summed > 0);
        }
    if (++summed == kSumBlocks || begin + kTiles >= end) {
      add_filters(w, filters, channels, memory);
      summed = 0;
    }
  }

  for (int64_t f = 0; f < filters; ++f)
    for (int64_t c = 0; c < channels; ++c) {
      const double* total =
          memory.total + (f * w.channel_block + c / lanes * lanes) * 9 + c % lanes;
      T* to = out + ((group * w.filters + filter + f) * w.channels + channel + c) * 9;
      for (int tap = 0; tap < 9; ++tap) to[tap] = static_cast<T>(total[tap * lanes]);
    }
}

// out = the sum of the parts, in order; false if it is not finite.
template <class T>
bool add_parts(const T* shares, int64_t parts, int64_t size, T* out, int threads) {
  bool finite = true;
  parallel_range(size, 1 << 14, threads, [&](int64_t begin, int64_t end) {
    T not_finite = 0;
    for (int64_t i = begin; i < end; ++i) {
      double sum = 0;
      for (int64_t part = 0; part < parts; ++part)
        sum += static_cast<double>(shares[part * size + i]);
      out[i] = static_cast<T>(sum);
      not_finite += out[i] * T(0);
    }
    if (not_finite != 0) __atomic_store_n(&finite, false, __ATOMIC_RELAXED);
  });
  return finite;
}

template <class T>
int grad_weight(const T* grad, const T* x, const ConvGeometry& g, T* out, int threads) {
  int64_t filters = g.filters / g.groups, channels = g.channels / g.groups;
  Planes<T> grads = {grad,    grad + g.batch * g.filters * g.out_h * g.out_w,
                     filters, g.filters * g.out_h * g.out_w,
                     g.out_h, g.out_w};
  Planes<T> inputs = {x,        x + g.batch * g.channels * g.height * g.width,
                      channels, g.channels * g.height * g.width,
                      g.height, g.width};
  WeightGradient<T> w{grads, inputs, TileGrid::of(g.batch, g.out_h, g.out_w),
                      g,     filters, channels, 0, 0, 0, 0, 0, 0};
  const int64_t size = g.filters * channels * 9;
  if (w.grid.all == 0) {
    for (int64_t i = 0; i < size; ++i) out[i] = 0;
    return kDone;
  }
  divide(w);
  T* shares = out;
  if (w.parts > 1) {
    shares = static_cast<T*>(
        shared_workspace(w.parts * size * static_cast<int64_t>(sizeof(T))));
    if (!shares) return kNoMemory;
  }
  GradientMemory<T> sizes;
  const int64_t bytes = lay_out<T>(w, nullptr, sizes);
  const int64_t blocks = w.filter_blocks * w.channel_blocks * g.groups;
  int result = kDone;
  parallel_for(blocks * w.parts, threads, [&](int64_t task) {
    auto* base = static_cast<char*>(workspace(bytes));
    if (!base) return note(&result, kNoMemory);
    GradientMemory<T> memory;
    lay_out(w, base, memory);
    run_task(w, task, memory, shares + task / blocks * size);
  });
  if (result == kDone && !add_parts(shares, w.parts, size, out, threads)) return kNotFinite;
  return result;
}

}  // namespace

int winograd_grad_weight(Dtype dtype, const void* grad, const void* x, const ConvGeometry& g,
                         void* out, int threads) {
  if (dtype == kFloat32)
    return grad_weight(static_cast<const float*>(grad), static_cast<const float*>(x), g,
                       static_cast<float*>(out), threads);
  return grad_weight(static_cast<const double*>(grad), static_cast<const double*>(x), g,
                     static_cast<double*>(out), threads);
}

}  // namespace fastdl::FASTDL_ISA
