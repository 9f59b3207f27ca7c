// Convolution of channels-last images, (N, H, W, C) in memory:
//
//   out (pixels x O) = window (pixels x K) * weight (K x O),   K = KH * KW * C/G
//
// for each group. The channels of a pixel are neighbours, and with them those of the taps of one row: a
// window is KH runs of memory, the same ones from every pixel on. So x is read where it lies, element by
// element, and only the weights are packed, a vector over the filters:
//
//   pack the weights     panel[k][2 vectors of filters], k = (row, column, channel)
//   task: some rows of pixels (and, where there are few, some panels)
//     stage: the rows that their windows see, with zeros around, where x has padding
//     for each chunk of K                                     kChunk terms
//       for each panel                                        first-level cache
//         for each kRows<2> pixels: multiply                  registers
//
// A sum over more than kChunk terms is a sum of such partial sums (blocked summation), in the result.
// Windows that are all in the image are not staged. Where all pixels are one block, each task packs its
// panels for itself, just before they are read.
#include <cstring>

#include "algorithm.h"
#include "channels_last_conv.h"
#include "families.h"
#include "parallel.h"
#include "transpose.h"
#include "vector_math.h"

namespace fastdl::FASTDL_ISA {

namespace {

// Pixels of a register tile with so many vectors of filters.
#if FASTDL_VECTOR_BYTES == 64 || defined(__aarch64__)
template <int vectors>
constexpr int kRows = vectors == 1 ? 14 : vectors == 2 ? 12 : 8;
#elif defined(__AVX2__)
template <int vectors>
constexpr int kRows = vectors == 1 ? 8 : vectors == 2 ? 6 : 4;
#else
template <int vectors>
constexpr int kRows = vectors == 1 ? 6 : vectors == 2 ? 4 : 2;
#endif

constexpr int64_t kChunk = 192;
// Pixels of a block, whose chunk stays in the second-level cache; bytes of its stage at most, unless one
// row of windows is more.
constexpr int64_t kPixels = 256, kStageBytes = 384 << 10;
// Packed weights that all tasks read at once, a thread.
constexpr int64_t kSharedBytes = 4 << 20;
// Multiplications that are worth another thread.
constexpr int64_t kWorth = 1 << 18;

// A run of a window's elements, from its pixel on.
struct Run {
  int64_t offset, count;
};

// What happens to a tile when its sum is done.
template <class T>
struct Finish {
  const T* bias;     // of the panel's filters, or null
  int64_t filters;   // of the panel
  bool accumulate, relu;
};

// The end of a tile whose last vector has lanes without a filter.
template <class T>
__attribute__((noinline)) void finish_part(const T* tile, int rows, int vectors, T* const* target,
                                           int64_t to, const Finish<T>& finish) {
  constexpr int lanes = kLanes<T>;
  for (int r = 0; r < rows; ++r)
    for (int v = 0; v < vectors; ++v, tile += lanes) {
      T* at = target[r] + to + v * lanes;
      const int64_t count = finish.filters - v * lanes;
      Vector<T> sum = load(tile);
      if (finish.accumulate) sum += load_some(at, count, T(0));
      if (finish.bias) sum += load_some(finish.bias + v * lanes, count, T(0));
      store_some(at, count, finish.relu ? relu<T>(sum) : sum);
    }
}

// target[r][to + filter] (+)= sum over the runs of base[r][k] * panel[k][filter]
template <class T, int rows, int vectors>
void multiply(const T* const* base, const Run* run, const Run* end, const T* panel, T* const* target,
              int64_t to, const Finish<T>& finish) {
  constexpr int lanes = kLanes<T>;
  Vector<T> sum[rows][vectors] = {};
  for (; run < end; ++run) {
    const T* x[rows];
#pragma GCC unroll 14
    for (int r = 0; r < rows; ++r) x[r] = base[r] + run->offset;
    const int64_t count = run->count;
    for (int64_t k = 0; k < count; ++k, panel += vectors * lanes) {
      Vector<T> w[vectors];
#pragma GCC unroll 3
      for (int v = 0; v < vectors; ++v) w[v] = load(panel + v * lanes);
#pragma GCC unroll 14
      for (int r = 0; r < rows; ++r) {
        const Vector<T> element = splat(x[r][k]);
#pragma GCC unroll 3
        for (int v = 0; v < vectors; ++v) sum[r][v] += element * w[v];
      }
    }
  }
  if (finish.filters < vectors * lanes) {
    T tile[rows * vectors * lanes];
#pragma GCC unroll 14
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 3
      for (int v = 0; v < vectors; ++v) store(tile + (r * vectors + v) * lanes, sum[r][v]);
    return finish_part(tile, rows, vectors, target, to, finish);
  }
  // One stage at a time, so that each question is asked once a tile.
  if (finish.accumulate)
#pragma GCC unroll 14
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 3
      for (int v = 0; v < vectors; ++v) sum[r][v] += load(target[r] + to + v * lanes);
  if (finish.bias)
#pragma GCC unroll 3
    for (int v = 0; v < vectors; ++v) {
      const Vector<T> bias = load(finish.bias + v * lanes);
#pragma GCC unroll 14
      for (int r = 0; r < rows; ++r) sum[r][v] += bias;
    }
  if (finish.relu)
#pragma GCC unroll 14
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 3
      for (int v = 0; v < vectors; ++v) sum[r][v] = relu<T>(sum[r][v]);
#pragma GCC unroll 14
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 3
    for (int v = 0; v < vectors; ++v) store(target[r] + to + v * lanes, sum[r][v]);
}

template <class T>
using Multiply = void (*)(const T* const*, const Run*, const Run*, const T*, T* const*, int64_t,
                          const Finish<T>&);

template <class T, int vectors, int most = kRows<vectors>>
FASTDL_INLINE Multiply<T> choose_rows(int rows) {
  if constexpr (most > 1)
    if (rows < most) return choose_rows<T, vectors, most - 1>(rows);
  return multiply<T, most, vectors>;
}

template <class T>
class PixelConvolution {
 public:
  PixelConvolution(const T* x, const T* weight, const T* bias, const ConvGeometry& g,
                   Activation activation, T* out, int threads)
      : x(x), weight(weight), bias(bias), out(out), g(g), activation(activation) {
    channels = g.channels / g.groups, filters = g.filters / g.groups;
    taps = g.kernel_h * g.kernel_w, depth = channels * taps;
    vectors = ceil_div(filters, lanes);
    panels = vectors / 2 + (vectors == 1);
    chunks = ceil_div(depth, kChunk);
    const bool inside =
        g.pad_top <= 0 && g.pad_left <= 0 &&
        (g.out_h - 1) * g.stride_h - g.pad_top + (g.kernel_h - 1) * g.dilation_h < g.height &&
        (g.out_w - 1) * g.stride_w - g.pad_left + (g.kernel_w - 1) * g.dilation_w < g.width;
    staged = !inside || (g.groups > 1 && g.kernel_w > 1);
    pixel = staged ? channels : g.channels;
    divide(threads);
  }

  int run(int limit) const {
    const int threads = worth(limit);
    if (pack_here) return run_tasks(nullptr, 0, panels, threads);
    const int64_t at_once = panels_at_once(limit);
    auto* packed = static_cast<T*>(shared_workspace(packed_elements(at_once) * size));
    if (!packed) return kNoMemory;
    int result = kDone;
    for (int64_t first = 0; first < panels && result == kDone; first += at_once) {
      const int64_t last = min(panels, first + at_once);
      parallel_for(g.groups * (last - first), threads, [&](int64_t task) {
        const int64_t group = task / (last - first), panel = first + task % (last - first);
        pack(group, panel, packed + packed_at(group, panel, first, last));
      });
      result = run_tasks(packed, first, last, threads);
    }
    return result;
  }

 private:
  static constexpr int lanes = kLanes<T>;
  static constexpr int64_t size = sizeof(T);

  const T *x, *weight, *bias;
  T* out;
  const ConvGeometry& g;
  Activation activation;
  int64_t channels, filters, taps, depth, vectors, panels, chunks;
  bool staged, pack_here;
  int64_t pixel;  // elements from one pixel of a row to the next
  // A block is some columns of some rows of the result; rows are counted through the batch.
  int64_t columns, column_parts, rows, row_parts, splits;
  int64_t stage_columns, stage_elements, bytes;

  int worth(int threads) const {
    return static_cast<int>(
        min(threads, g.batch * g.out_h * g.out_w * g.filters * depth / kWorth + 1));
  }

  // Every panel has two vectors of filters, but the last one three where their number is odd.
  int64_t panel_vectors(int64_t panel) const {
    return panel + 1 < panels ? 2 : vectors - 2 * (panels - 1);
  }
  int64_t packed_elements(int64_t of_panels) const {
    return g.groups * (2 * of_panels + 1) * lanes * depth;
  }
  int64_t packed_at(int64_t group, int64_t panel, int64_t first, int64_t last) const {
    return (group * (2 * (last - first) + 1) + 2 * (panel - first)) * lanes * depth;
  }
  int64_t panels_at_once(int threads) const {
    return max(1, min(panels, kSharedBytes * threads / (g.groups * 2 * lanes * depth * size)));
  }

  int64_t rows_of_windows(int64_t of_rows) const {
    return (of_rows - 1) * g.stride_h + (g.kernel_h - 1) * g.dilation_h + 1;
  }
  int64_t columns_of_windows(int64_t of_columns) const {
    return (of_columns - 1) * g.stride_w + (g.kernel_w - 1) * g.dilation_w + 1;
  }

  void divide(int threads) {
    threads = worth(threads);
    const int64_t all_rows = g.batch * g.out_h, all_pixels = all_rows * g.out_w;
    int64_t wanted = kPixels;
    const int64_t fair = ceil_div(all_pixels * g.groups, 4 * threads);
    if (threads > 1) wanted = max(4 * kRows<2>, min(wanted, fair));
    column_parts = ceil_div(g.out_w, wanted);
    if (staged) {
      const int64_t row = g.kernel_h * pixel * size;
      while (column_parts < g.out_w &&
             row * columns_of_windows(ceil_div(g.out_w, column_parts)) > 2 * kStageBytes)
        ++column_parts;
    }
    columns = ceil_div(g.out_w, column_parts);
    column_parts = ceil_div(g.out_w, columns);
    rows = max(1, wanted / columns);
    if (staged)
      while (rows > 1 && stage_of(rows) * size > kStageBytes) --rows;
    row_parts = ceil_div(all_rows, rows);
    rows = ceil_div(all_rows, row_parts);
    row_parts = ceil_div(all_rows, rows);
    const int64_t blocks = row_parts * column_parts;
    splits = 1;
    if (threads > 1 && blocks * g.groups < 4 * threads)
      splits = min(panels, ceil_div(2 * threads, blocks * g.groups));
    pack_here = blocks == 1;
    stage_columns = columns_of_windows(columns);
    stage_elements = staged ? (stage_of(rows) + 15) / 16 * 16 : 0;
    bytes = (stage_elements + (pack_here ? 3 * lanes * depth : 0)) * size;
  }

  // Elements of a stage: a block of rows may lie in several images, each with rows of its own.
  int64_t stage_of(int64_t of_rows) const {
    const int64_t images = min(of_rows, (of_rows + g.out_h - 2) / g.out_h + 1);
    const int64_t halo = max(0, (g.kernel_h - 1) * g.dilation_h + 1 - g.stride_h);
    return (of_rows * g.stride_h + images * halo) * columns_of_windows(columns) * pixel;
  }

  // The weights of a panel: to[k][filter].
  void pack(int64_t group, int64_t panel, T* to) const {
    const int64_t width = panel_vectors(panel) * lanes, first = panel * 2 * lanes;
    for (int64_t filter = 0; filter < width; filter += lanes) {
      const T* from = weight + (group * filters + first + filter) * depth;
      const int64_t count = min(lanes, filters - first - filter);
      T* column = to + filter;
      int64_t c = 0, tap = 0;
      auto place = [&] { return column + (tap * channels + c) * width; };
      auto next = [&] {
        if (++tap == taps) tap = 0, ++c;
      };
      int64_t k = 0;
      if (count == lanes)
        for (; k + lanes <= depth; k += lanes) {
          Vector<T> v[lanes];
          load_transposed(from + k, depth, v);
#pragma GCC unroll 16
          for (int l = 0; l < lanes; ++l, next()) store(place(), v[l]);
        }
      for (; k < depth; ++k, next()) {
        Vector<T> v = {};
        for (int64_t l = 0; l < count; ++l) v[l] = from[l * depth + k];
        store(place(), v);
      }
    }
  }

  // The runs of the terms [k, k_end) of a window.
  int runs(int64_t k, int64_t k_end, Run* to) const {
    const bool whole_rows = g.dilation_w == 1 && pixel == channels;
    const int64_t length = whole_rows ? g.kernel_w * channels : channels;
    const int64_t row = row_elements();
    int count = 0;
    while (k < k_end) {
      const int64_t index = k / length, within = k % length;
      const int64_t a = whole_rows ? index : index / g.kernel_w, b = whole_rows ? 0 : index % g.kernel_w;
      const int64_t many = min(length - within, k_end - k);
      to[count++] = {a * g.dilation_h * row + b * g.dilation_w * pixel + within, many};
      k += many;
    }
    return count;
  }

  int64_t row_elements() const { return (staged ? stage_columns : g.width) * pixel; }

  // Where the windows of a block begin and where its results go, in order.
  struct Pixels {
    int64_t count;
    const T* base[kPixels];
    T* target[kPixels];
  };

  // A block's rows in one image: of the result, [row, row + count) from `column` on.
  template <class Body>
  void each_image(int64_t block, Body body) const {
    int64_t first = block / column_parts * rows;
    const int64_t last = min(g.batch * g.out_h, first + rows);
    const int64_t column = block % column_parts * columns, many = min(columns, g.out_w - column);
    for (int64_t count; first < last; first += count) {
      count = min(last - first, g.out_h - first % g.out_h);
      body(first / g.out_h, first % g.out_h, count, column, many);
    }
  }

  void set_pixels(int64_t block, int64_t group, T* stage, Pixels& pixels) const {
    pixels.count = 0;
    each_image(block, [&](int64_t image, int64_t row, int64_t count, int64_t column, int64_t many) {
      const T* base = stage;
      if (staged) {
        stage = fill_stage(image, group, row, count, column, stage);
      } else {
        const int64_t y = row * g.stride_h - g.pad_top, left = column * g.stride_w - g.pad_left;
        base = x + ((image * g.height + y) * g.width + left) * g.channels + group * channels;
      }
      T* target = out + ((image * g.out_h + row) * g.out_w + column) * g.filters + group * filters;
      for (int64_t i = 0; i < count; ++i)
        for (int64_t j = 0; j < many; ++j) {
          pixels.base[pixels.count] = base + i * g.stride_h * row_elements() + j * g.stride_w * pixel;
          pixels.target[pixels.count++] = target + (i * g.out_w + j) * g.filters;
        }
    });
  }

  // The rows that windows of `count` rows of the result see. Returns where they end.
  T* fill_stage(int64_t image, int64_t group, int64_t row, int64_t count, int64_t column,
                T* stage) const {
    const int64_t top = row * g.stride_h - g.pad_top, left = column * g.stride_w - g.pad_left;
    const int64_t before = max(0, min(stage_columns, -left));
    const int64_t until = max(before, min(stage_columns, g.width - left));
    const auto bytes_of = [](int64_t elements) { return static_cast<size_t>(elements) * sizeof(T); };
    for (int64_t y = top; y < top + rows_of_windows(count); ++y, stage += row_elements()) {
      if (y < 0 || y >= g.height) {
        memset(stage, 0, bytes_of(row_elements()));
        continue;
      }
      memset(stage, 0, bytes_of(before * pixel));
      const T* from = x + ((image * g.height + y) * g.width + left + before) * g.channels + group * channels;
      if (g.groups == 1) memcpy(stage + before * pixel, from, bytes_of((until - before) * pixel));
      else
        for (int64_t j = before; j < until; ++j, from += g.channels)
          memcpy(stage + j * pixel, from, bytes_of(pixel));
      memset(stage + until * pixel, 0, bytes_of((stage_columns - until) * pixel));
    }
    return stage;
  }

  int run_tasks(const T* packed, int64_t first, int64_t last, int threads) const {
    const int64_t parts = min(splits, last - first), blocks = row_parts * column_parts;
    int result = kDone;
    parallel_for(g.groups * blocks * parts, threads, [&](int64_t task) {
      auto* memory = static_cast<T*>(workspace(bytes));
      if (bytes && !memory) return note(&result, kNoMemory);
      const int64_t split = task % parts, block = task / parts % blocks, group = task / parts / blocks;
      const int64_t begin = first + (last - first) * split / parts;
      const int64_t end = first + (last - first) * (split + 1) / parts;
      Pixels pixels;
      set_pixels(block, group, memory, pixels);
      if (packed) {
        for (int64_t chunk = 0; chunk < chunks; ++chunk)
          for (int64_t panel = begin; panel < end; ++panel)
            multiply_chunk(pixels, group, panel, chunk, packed + packed_at(group, panel, first, last));
      } else {
        T* own = memory + stage_elements;
        for (int64_t panel = begin; panel < end; ++panel) {
          pack(group, panel, own);
          for (int64_t chunk = 0; chunk < chunks; ++chunk)
            multiply_chunk(pixels, group, panel, chunk, own);
        }
      }
      if (activation == kSigmoid || activation == kTanh) {
        const int64_t to = begin * 2 * lanes, count = min(filters, end * 2 * lanes + (end == panels) * lanes) - to;
        for (int64_t i = 0; i < pixels.count; ++i)
          activate(kDtype<T>, activation, pixels.target[i] + to, count, pixels.target[i] + to, 1);
      }
    });
    return result;
  }

  void multiply_chunk(const Pixels& pixels, int64_t group, int64_t panel, int64_t chunk,
                      const T* packed) const {
    const int64_t k = depth * chunk / chunks, k_end = depth * (chunk + 1) / chunks;
    Run run[kChunk + 1];
    const Run* end = run + runs(k, k_end, run);
    const int64_t to = panel * 2 * lanes, wide = panel_vectors(panel);
    const bool last = k_end == depth;
    const Finish<T> finish = {last && bias ? bias + group * filters + to : nullptr,
                              min(filters - to, wide * lanes), k > 0, last && activation == kRelu};
    const T* at = packed + k * wide * lanes;
    const int64_t most = wide == 1 ? kRows<1> : wide == 2 ? kRows<2> : kRows<3>;
    const int64_t tiles = ceil_div(pixels.count, most);
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t first = pixels.count * tile / tiles;
      const int count = static_cast<int>(pixels.count * (tile + 1) / tiles - first);
      (wide == 1   ? choose_rows<T, 1>(count)
       : wide == 2 ? choose_rows<T, 2>(count)
                   : choose_rows<T, 3>(count))(pixels.base + first, run, end, at,
                                               pixels.target + first, to, finish);
    }
  }
};

// A 1x1 convolution of stride 1 sees the batch as one row.
FASTDL_INLINE ConvGeometry flattened(ConvGeometry g) {
  if (g.kernel_h == 1 && g.kernel_w == 1 && g.stride_h == 1 && g.stride_w == 1 &&
      g.height == g.out_h && g.width == g.out_w && g.pad_top == 0 && g.pad_left == 0) {
    g.width = g.out_w = g.batch * g.height * g.width;
    g.batch = g.height = g.out_h = 1;
  }
  return g;
}

template <class T>
int run(const void* x, const void* weight, const void* bias, const ConvGeometry& g,
        Activation activation, void* out, int threads) {
  const FloatMode mode(kDtype<T>);
  const ConvGeometry seen = flattened(g);
  return PixelConvolution<T>(static_cast<const T*>(x), static_cast<const T*>(weight),
                             static_cast<const T*>(bias), seen, activation, static_cast<T*>(out),
                             threads)
      .run(threads);
}

}  // namespace

int channels_last_conv2d(Dtype dtype, const void* x, const void* weight, const void* packed,
                         const void* bias, const ConvGeometry* g, Activation activation,
                         int algorithm, void* out, int threads) {
  if (g->batch * g->out_h * g->out_w * g->filters == 0) return kDone;
  if (channels_last_depthwise_serves(*g))
    return channels_last_depthwise(dtype, x, weight, bias, *g, activation, false, out, threads);
  algorithm = conv2d_algorithm(dtype, g, algorithm, packed, threads);
  if (algorithm == kWinograd) {
    const FloatMode mode(dtype);
    const int result = winograd(dtype, x, weight, packed, bias, *g, activation, false, out, threads,
                                true);
    if (result != kNotFinite) return result;
  }
  return (dtype == kFloat32 ? run<float> : run<double>)(x, weight, bias, *g, activation, out,
                                                        threads);
}

}  // namespace fastdl::FASTDL_ISA
