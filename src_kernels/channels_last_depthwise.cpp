// Depthwise convolution of channels-last images, a filter a channel, in vectors of channels:
//
//   out[pixel][c] = bias[c] + sum over the taps of weight[tap][c] * x[pixel + tap][c]
//
// Some neighbouring pixels are summed together, so that what they both see is loaded once, and the
// weights for all of them; their channels come one vector after the other. Where a window hangs over
// the left or right side of the image, its pixel is summed by itself.
#include "algorithm.h"
#include "channels_last_conv.h"
#include "families.h"

namespace fastdl::FASTDL_ISA {

namespace {

// Pixels of a row that are summed together, at most.
constexpr int kPixels = 6;

// What the sums of a row of pixels share.
template <class T>
struct Row {
  const T *weight, *bias;  // bias may be null
  int64_t rows, row, weight_row;  // of taps; elements from one to the next
  int64_t channels, begin, end;   // in all; which to sum
  bool relu;
  ChannelWriter<T> writer;
};

// `pixels` neighbours whose windows of `across` taps begin at x and `step` further each, to `out`.
template <class T, int across, int step, int pixels>
void sum_pixels(const Row<T>& row, const T* x, T* out) {
  const int64_t channels = row.channels;
  each_channels<T>(row.begin, row.end, [&](int64_t c, int64_t count) __attribute__((always_inline)) {
    Vector<T> sum[pixels];
    const Vector<T> bias = row.bias ? load_some(row.bias + c, count, T(0)) : Vector<T>{};
#pragma GCC unroll 8
    for (int i = 0; i < pixels; ++i) sum[i] = bias;
    const T *at = x + c, *weight = row.weight + c;
    for (int64_t a = 0; a < row.rows; ++a, at += row.row, weight += row.weight_row) {
      Vector<T> w[across];
#pragma GCC unroll 8
      for (int b = 0; b < across; ++b) w[b] = load_some(weight + b * channels, count, T(0));
#pragma GCC unroll 24
      for (int e = 0; e < (pixels - 1) * step + across; ++e) {
        const Vector<T> value = load_some(at + e * channels, count, T(0));
#pragma GCC unroll 8
        for (int b = 0; b < across; ++b)
          if (e >= b && (e - b) % step == 0 && (e - b) / step < pixels)
            sum[(e - b) / step] += w[b] * value;
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < pixels; ++i)
      row.writer.put(out + i * channels + c, count, row.relu ? relu<T>(sum[i]) : sum[i]);
  });
}

template <class T>
using SumPixels = void (*)(const Row<T>&, const T*, T*);

template <class T, int across, int step, int most = kPixels>
SumPixels<T> choose_pixels(int64_t pixels) {
  if constexpr (most > 1)
    if (pixels < most) return choose_pixels<T, across, step, most - 1>(pixels);
  return sum_pixels<T, across, step, most>;
}

// The kernels for windows of neighbouring taps; null for others.
template <class T>
SumPixels<T> choose(const ConvGeometry& g, int64_t pixels) {
  if (g.dilation_w != 1) return nullptr;
  if (g.kernel_w == 3 && g.stride_w == 1) return choose_pixels<T, 3, 1>(pixels);
  if (g.kernel_w == 3 && g.stride_w == 2) return choose_pixels<T, 3, 2>(pixels);
  if (g.kernel_w == 5 && g.stride_w == 1) return choose_pixels<T, 5, 1>(pixels);
  if (g.kernel_w == 5 && g.stride_w == 2) return choose_pixels<T, 5, 2>(pixels);
  return nullptr;
}

// One pixel, `taps` of each row, `step` elements apart.
template <class T>
void sum_pixel(const Row<T>& row, const T* x, int64_t taps, int64_t step, int64_t first_tap, T* out) {
  each_channels<T>(row.begin, row.end, [&](int64_t c, int64_t count) {
    Vector<T> sum = row.bias ? load_some(row.bias + c, count, T(0)) : Vector<T>{};
    const T *line = x + c, *weight = row.weight + first_tap * row.channels + c;
    for (int64_t a = 0; a < row.rows; ++a, line += row.row, weight += row.weight_row)
      for (int64_t b = 0; b < taps; ++b)
        sum += load_some(weight + b * row.channels, count, T(0)) * load_some(line + b * step, count, T(0));
    row.writer.put(out + c, count, row.relu ? relu<T>(sum) : sum);
  });
}

// The taps [first, last) of a window that begins at `start` that lie in [0, size).
struct Taps {
  int64_t first, last;
  Taps(int64_t start, int64_t kernel, int64_t dilation, int64_t size)
      : first(start >= 0 ? 0 : min(kernel, ceil_div(-start, dilation))),
        last(max(first, min(kernel, ceil_div(size - start, dilation)))) {}
};

template <class T>
int convolve(const T* x, const T* weight, const T* bias, const ConvGeometry& g,
             Activation activation, bool turned, T* out, int threads) {
  const int64_t channels = g.channels, taps = g.kernel_h * g.kernel_w;
  auto* packed = static_cast<T*>(shared_workspace(taps * channels * static_cast<int64_t>(sizeof(T))));
  if (!packed) return kNoMemory;
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t tap = 0; tap < taps; ++tap)
      packed[tap * channels + c] = weight[c * taps + (turned ? taps - 1 - tap : tap)];
  const bool curved = activation == kSigmoid || activation == kTanh;
  const int64_t size = g.batch * g.out_h * g.out_w * channels;
  const ChannelWriter<T> writer(out, curved ? 0 : size, channels);
  // Columns of the result whose windows lie in the rows of x.
  const int64_t reach = (g.kernel_w - 1) * g.dilation_w + 1;
  const int64_t left = min(g.out_w, max(0, ceil_div(g.pad_left, g.stride_w)));
  const int64_t last = g.width + g.pad_left - reach;
  const int64_t right = max(left, min(g.out_w, last < 0 ? 0 : last / g.stride_w + 1));
  const bool together = choose<T>(g, 1);
  const int64_t runs = together ? ceil_div(right - left, kPixels) : 0;
  each_row(g.batch, g.out_h, channels, g.out_w * taps / 2, threads,
           [&](int64_t image, int64_t i, int64_t begin, int64_t end) {
    const int64_t top = i * g.stride_h - g.pad_top;
    const Taps down(top, g.kernel_h, g.dilation_h, g.height);
    const T* from = x + (image * g.height + top + down.first * g.dilation_h) * g.width * channels;
    T* to = out + (image * g.out_h + i) * g.out_w * channels;
    const Row<T> row = {packed + down.first * g.kernel_w * channels, bias,
                        down.last - down.first, g.dilation_h * g.width * channels,
                        g.kernel_w * channels, channels, begin, end, activation == kRelu, writer};
    auto one_by_one = [&](int64_t j, int64_t until) {
      for (; j < until; ++j) {
        const int64_t start = j * g.stride_w - g.pad_left;
        const Taps across(start, g.kernel_w, g.dilation_w, g.width);
        sum_pixel(row, from + (start + across.first * g.dilation_w) * channels,
                  across.last - across.first, g.dilation_w * channels, across.first, to + j * channels);
      }
    };
    one_by_one(0, together ? left : g.out_w);
    for (int64_t run = 0; run < runs; ++run) {
      const int64_t j = left + (right - left) * run / runs;
      const int64_t pixels = left + (right - left) * (run + 1) / runs - j;
      // The processor itself does not see that rows which come one pixel's vector here, one there are
      // read in order.
      const T* ahead = from + ((j + pixels - 1) * g.stride_w - g.pad_left + reach) * channels;
      for (int64_t a = max(0, row.rows - g.stride_h); end - begin == channels && a < row.rows; ++a)
        prefetch_all(ahead + a * row.row, kPixels * g.stride_w * channels);
      choose<T>(g, pixels)(row, from + (j * g.stride_w - g.pad_left) * channels, to + j * channels);
    }
    if (together) one_by_one(right, g.out_w);
    writer.finish();
    if (curved)
      for (int64_t j = 0; j < g.out_w; ++j)
        activate(kDtype<T>, activation, to + j * channels + begin, end - begin,
                 to + j * channels + begin, 1);
  });
  return kDone;
}

// ---- weight gradient ----

// Taps of a row that are summed together at most; products that are added in single precision.
constexpr int kTaps = 5;
constexpr int64_t kLongestSum = 128;
// Parts of the rows, whose sums are joined in order whatever the number of threads.
constexpr int64_t kMaxParts = 16;

// totals[b * channels + c] += the sum over the pixels of grad * x, x a tap further for each b.
// `whole`: all of the lanes have a channel, not `part` of one vector's.
template <class T, int taps, int vectors, bool whole>
void add_products(const T* grad, const T* x, int64_t pixels, int64_t step, int64_t tap_step,
                  int64_t channels, int64_t part, double* totals) {
  constexpr int64_t lanes = kLanes<T>;
  const int64_t count = whole ? lanes : part;
  for (int64_t done = 0; done < pixels; done += kLongestSum) {
    Vector<T> sum[taps][vectors] = {};
    const int64_t until = min(pixels, done + kLongestSum);
    for (int64_t pixel = done; pixel < until; ++pixel, grad += channels, x += step)
#pragma GCC unroll 2
      for (int v = 0; v < vectors; ++v) {
        const Vector<T> g = load_some(grad + v * lanes, count, T(0));
#pragma GCC unroll 5
        for (int b = 0; b < taps; ++b)
          sum[b][v] += g * load_some(x + b * tap_step + v * lanes, count, T(0));
      }
#pragma GCC unroll 5
    for (int b = 0; b < taps; ++b)
#pragma GCC unroll 2
      for (int v = 0; v < vectors; ++v) {
        double* to = totals + b * channels + v * lanes;
        if (whole) {
          add_to<T>(to, sum[b][v]);
          continue;
        }
        for (int64_t lane = 0; lane < count; ++lane) to[lane] += static_cast<double>(sum[b][v][lane]);
      }
  }
}

template <class T, int vectors, bool whole, int most = kTaps>
FASTDL_INLINE auto choose_products(int64_t taps) {
  if constexpr (most > 1)
    if (taps < most) return choose_products<T, vectors, whole, most - 1>(taps);
  return add_products<T, most, vectors, whole>;
}

// The pixels [begin, end) of a row of the gradient, for neighbouring taps of all channels.
template <class T>
void add_row(const T* grad, const T* x, int64_t pixels, int64_t taps, int64_t step, int64_t tap_step,
             int64_t channels, double* totals) {
  constexpr int64_t lanes = kLanes<T>;
  if (pixels <= 0) return;
  int64_t c = 0;
  for (; c + 2 * lanes <= channels; c += 2 * lanes)
    choose_products<T, 2, true>(taps)(grad + c, x + c, pixels, step, tap_step, channels, lanes, totals + c);
  if (c + lanes <= channels) {
    choose_products<T, 1, true>(taps)(grad + c, x + c, pixels, step, tap_step, channels, lanes, totals + c);
    c += lanes;
  }
  if (c < channels)
    choose_products<T, 1, false>(taps)(grad + c, x + c, pixels, step, tap_step, channels, channels - c,
                                       totals + c);
}

template <class T>
int weight_gradient(const T* grad, const T* x, const ConvGeometry& g, T* out, int threads) {
  const int64_t channels = g.channels, taps = g.kernel_h * g.kernel_w, rows = g.batch * g.out_h;
  const int64_t work = rows * g.out_w * channels * taps;
  const int64_t parts = max(1, min(min(kMaxParts, rows), work / (4 * kGrain)));
  auto* totals = static_cast<double*>(
      shared_workspace(parts * taps * channels * static_cast<int64_t>(sizeof(double))));
  if (!totals) return kNoMemory;
  const int64_t step = g.stride_w * channels, tap_step = g.dilation_w * channels;
  // The pixels of a row for which tap b is in the image: [first, last).
  auto first_of = [&](int64_t b) {
    return min(g.out_w, max(0, ceil_div(g.pad_left - b * g.dilation_w, g.stride_w)));
  };
  auto last_of = [&](int64_t b) {
    return max(0, min(g.out_w, ceil_div(g.width + g.pad_left - b * g.dilation_w, g.stride_w)));
  };
  parallel_for(parts, worth_threads(work, kGrain, threads), [&](int64_t part) {
    double* sums = totals + part * taps * channels;
    for (int64_t i = 0; i < taps * channels; ++i) sums[i] = 0;
    for (int64_t row = rows * part / parts; row < rows * (part + 1) / parts; ++row) {
      const int64_t image = row / g.out_h, top = row % g.out_h * g.stride_h - g.pad_top;
      const Taps down(top, g.kernel_h, g.dilation_h, g.height);
      const T* from_grad = grad + row * g.out_w * channels;
      for (int64_t a = down.first; a < down.last; ++a) {
        // Pixel j of tap b is j * step + b * tap_step further.
        const T* from = x + ((image * g.height + top + a * g.dilation_h) * g.width - g.pad_left) * channels;
        auto add = [&](int64_t begin, int64_t end, int64_t b, int64_t count) {
          add_row(from_grad + begin * channels, from + begin * step + b * tap_step, end - begin, count,
                  step, tap_step, channels, sums + (a * g.kernel_w + b) * channels);
        };
        for (int64_t b = 0; b < g.kernel_w; b += kTaps) {
          const int64_t count = min(kTaps, g.kernel_w - b);
          // Where all of these taps are in the image, and then what each has beyond that.
          const int64_t begin = first_of(b), end = max(begin, last_of(b + count - 1));
          add(begin, end, b, count);
          for (int64_t tap = b; tap < b + count; ++tap) {
            add(first_of(tap), min(begin, last_of(tap)), tap, 1);
            add(max(end, first_of(tap)), last_of(tap), tap, 1);
          }
        }
      }
    }
  });
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t tap = 0; tap < taps; ++tap) {
      double total = 0;
      for (int64_t part = 0; part < parts; ++part) total += totals[(part * taps + tap) * channels + c];
      out[c * taps + tap] = static_cast<T>(total);
    }
  return kDone;
}

}  // namespace

bool channels_last_depthwise_serves(const ConvGeometry& g) {
  return g.channels == g.groups && g.filters == g.groups;
}

int channels_last_depthwise(Dtype dtype, const void* x, const void* weight, const void* bias,
                            const ConvGeometry& g, Activation activation, bool turned, void* out,
                            int threads) {
  const FloatMode mode(dtype);
  if (dtype == kFloat32)
    return convolve(static_cast<const float*>(x), static_cast<const float*>(weight),
                    static_cast<const float*>(bias), g, activation, turned,
                    static_cast<float*>(out), threads);
  return convolve(static_cast<const double*>(x), static_cast<const double*>(weight),
                  static_cast<const double*>(bias), g, activation, turned,
                  static_cast<double*>(out), threads);
}

int channels_last_depthwise_grad_weight(Dtype dtype, const void* grad, const void* x,
                                        const ConvGeometry& g, void* out, int threads) {
  const FloatMode mode(dtype);
  if (dtype == kFloat32)
    return weight_gradient(static_cast<const float*>(grad), static_cast<const float*>(x), g,
                           static_cast<float*>(out), threads);
  return weight_gradient(static_cast<const double*>(grad), static_cast<const double*>(x), g,
                         static_cast<double*>(out), threads);
}

}  // namespace fastdl::FASTDL_ISA
