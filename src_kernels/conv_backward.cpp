// The gradients of a convolution, as products of matrices.
//
// Input: x[y] was read by tap a for output i where y + p = i*s + a*d. The rows y of one remainder
//   modulo s (a phase) meet only the taps a whose a*d has the remainder of y + p, so each of the
//   s*s phases is a convolution of stride 1 of the gradient, with those taps turned around and with
//   filters and channels exchanged. conv.cpp does it.
// Weight: weight_grad^T (K x O) = im2col(x) (K x pixels) * grad^T (pixels x O).
//
//   task: some rows, some filters, a slice of the pixels
//     for each chunk of kKC pixels
//       pack the rows' im2col, transpose the filters' gradient     second-level cache
//       for each panel of the filters, kNR wide                    first-level cache
//         for each tile of kMR rows: microkernel                   registers
#include <cstring>

#include "algorithm.h"
#include "depthwise.h"
#include "direct.h"
#include "families.h"
#include "matrix_product.h"
#include "microkernel.h"
#include "panel.h"
#include "parallel.h"
#include "transpose_matrix.h"

namespace fastdl::FASTDL_ISA {

namespace {

template <class T>
FASTDL_INLINE T* shared_elements(int64_t count) {
  return static_cast<T*>(shared_workspace(count * static_cast<int64_t>(sizeof(T))));
}

// ---- input ----

// One axis of one phase: rows y = phase, phase + s, ... of x, and the taps first, first + step, ...
// that reach them. The m-th of these taps, from the last to the first, reads the gradient's row
// t - pad + m * dilation for the t-th row of the phase.
struct Phase {
  int64_t phase, size, first, step, taps, dilation, pad;

  Phase(int64_t phase, int64_t size, int64_t kernel, int64_t stride, int64_t pad_before,
        int64_t dilation_x)
      : phase(phase), size(max(0, ceil_div(size - phase, stride))), first(0), step(1), taps(0),
        dilation(1), pad(0) {
    while (first < kernel && (phase + pad_before - first * dilation_x) % stride != 0) ++first;
    if (first >= kernel) return;
    while (step * dilation_x % stride != 0) ++step;
    taps = (kernel - 1 - first) / step + 1;
    dilation = step * dilation_x / stride;
    pad = (taps - 1) * dilation - (phase + pad_before - first * dilation_x) / stride;
  }
};

// turned[g, o, m, n, c] = weight[g, o, c, rows.first + (rows.taps-1-m) * rows.step, likewise n]
template <class T>
void turn_weights(const ConvGeometry& g, const Phase& rows, const Phase& columns, const T* weight,
                  T* turned, int threads) {
  const int64_t channels = g.channels / g.groups, taps = g.kernel_h * g.kernel_w;
  const int64_t kept = rows.taps * columns.taps;
  parallel_range(g.filters, ceil_div(1 << 15, channels * kept), threads,
                 [&](int64_t begin, int64_t end) {
    T* to = turned + begin * kept * channels;
    for (int64_t o = begin; o < end; ++o)
      for (int64_t m = rows.taps - 1; m >= 0; --m)
        for (int64_t n = columns.taps - 1; n >= 0; --n, to += channels) {
          const T* tap = weight + o * channels * taps + (rows.first + m * rows.step) * g.kernel_w +
                         columns.first + n * columns.step;
          for (int64_t c = 0; c < channels; ++c) to[c] = tap[c * taps];
        }
  });
}

template <class T>
int phase_convolution(const T* grad, const T* weight, const ConvGeometry& g, const Phase& rows,
                      const Phase& columns, T* turned, T* out, int threads) {
  DirectConvolution<T> conv{};
  conv.x = grad;
  conv.turned = true;
  conv.weight = weight;
  if (g.kernel_h * g.kernel_w > 1) {
    turn_weights(g, rows, columns, weight, turned, threads);
    conv.weight = turned;
  }
  conv.out = out + rows.phase * g.width + columns.phase;
  conv.plane = g.height * g.width;
  conv.image = g.channels * conv.plane;
  conv.row = g.stride_h * g.width;
  conv.column = g.stride_w;
  conv.g = g;
  conv.g.channels = g.filters;
  conv.g.filters = g.channels;
  conv.g.height = g.out_h;
  conv.g.width = g.out_w;
  conv.g.out_h = rows.size;
  conv.g.out_w = columns.size;
  conv.g.kernel_h = rows.taps;
  conv.g.kernel_w = columns.taps;
  conv.g.stride_h = conv.g.stride_w = 1;
  conv.g.dilation_h = rows.dilation;
  conv.g.dilation_w = columns.dilation;
  conv.g.pad_top = rows.pad;
  conv.g.pad_left = columns.pad;
  conv.activation = kIdentity;
  return direct_convolution(conv, threads);
}

template <class T>
int grad_input(const T* grad, const T* weight, const ConvGeometry& g, int algorithm, T* out,
               int threads) {
  if (g.batch * g.height * g.width == 0) return kDone;
  const FloatMode mode(kDtype<T>);
  algorithm = gradient_algorithm(kDtype<T>, g, algorithm, kGradInput);
  if (algorithm == kDepthwise) return depthwise_grad_input(grad, weight, g, out, threads);
  if (algorithm == kWinograd) {
    int result = winograd(kDtype<T>, grad, weight, nullptr, nullptr, g, kIdentity, true, out, threads);
    if (result != kNotFinite) return result;
  }
  if (is_linear(g)) {
    const LinearGeometry seen = linear_geometry(g);
    linear_grad_input(kDtype<T>, grad, weight, &seen, out, threads);
    return kDone;
  }
  const int64_t taps = g.kernel_h * g.kernel_w;
  T* turned = taps > 1 ? shared_elements<T>(g.filters * (g.channels / g.groups) * taps) : nullptr;
  if (taps > 1 && !turned) return kNoMemory;
  auto row_phase = [&](int64_t phase) {
    return Phase(phase, g.height, g.kernel_h, g.stride_h, g.pad_top, g.dilation_h);
  };
  auto column_phase = [&](int64_t phase) {
    return Phase(phase, g.width, g.kernel_w, g.stride_w, g.pad_left, g.dilation_w);
  };
  bool untouched = false;
  for (int64_t i = 0; i < g.stride_h; ++i) untouched |= row_phase(i).taps == 0;
  for (int64_t j = 0; j < g.stride_w; ++j) untouched |= column_phase(j).taps == 0;
  if (untouched)
    parallel_range(g.batch * g.channels * g.height * g.width, 1 << 15, threads,
                   [&](int64_t begin, int64_t end) {
                     memset(out + begin, 0, static_cast<size_t>(end - begin) * sizeof(T));
                   });
  for (int64_t i = 0; i < min(g.stride_h, g.height); ++i)
    for (int64_t j = 0; j < min(g.stride_w, g.width); ++j) {
      const Phase rows = row_phase(i), columns = column_phase(j);
      if (rows.taps * columns.taps == 0) continue;
      if (phase_convolution(grad, weight, g, rows, columns, turned, out, threads))
        return kNoMemory;
    }
  return 0;
}

// ---- weight ----

// Multiplications that are worth another thread.
constexpr int64_t kWorth = 1 << 18;

// Sums in the working precision reach over this many chunks of kKC pixels; longer ones are in
// double precision.
constexpr int64_t kChunksPerSum = 32;

// out[i] = the sum over slices of partial[slice, i], in double precision
template <class T>
void add_slices(const T* partial, int64_t size, int64_t slices, T* out, int threads) {
  parallel_range(size, 1 << 14, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      double sum = 0;
      for (int64_t slice = 0; slice < slices; ++slice)
        sum += static_cast<double>(partial[slice * size + i]);
      out[i] = static_cast<T>(sum);
    }
  });
}

template <class T>
class WeightGradient {
 public:
  WeightGradient(const T* grad, const T* x, const ConvGeometry& g, T* out)
      : grad(grad), x(x), out(out), g(g) {
    filters = g.filters / g.groups;
    taps = g.kernel_h * g.kernel_w;
    channels = g.channels / g.groups;
    depth = channels * taps;
    plane = g.out_h * g.out_w;
    pixels = g.batch * plane;
    chunks = ceil_div(pixels, kKC);
    divide();
  }

  int run(int threads) {
    const bool sliced = slices > 1;
    partial = sliced ? shared_elements<T>(slices * g.groups * depth * filters) : out;
    if (!partial) return kNoMemory;
    const int result = parallel_in_workspace(
        g.groups * row_parts * filter_parts * slices, threads, memory_of(nullptr).bytes,
        [&](int64_t task, char* memory) { run_task(task, memory_of(memory)); });
    if (sliced && result == kDone)
      add_slices(partial, g.groups * depth * filters, slices, out, threads);
    return result;
  }

 private:
  struct Memory {
    double* total;
    T *a, *b, *sum;
    char* block;
    int64_t bytes;
  };

  const T *grad, *x;
  T* out;
  const ConvGeometry& g;
  int64_t filters, taps, channels, depth, plane, pixels, chunks;
  int64_t rows, row_parts, filter_parts, slices;
  T* partial = nullptr;  // [slice][group][filter][k]

  // Never by the number of threads, so that sums do not depend on it.
  void divide() {
    constexpr int64_t most_rows = kKC;
    if (taps <= most_rows) {
      // Whole channels, so that each is staged once.
      row_parts = ceil_div(channels, most_rows / taps);
      rows = ceil_div(channels, row_parts) * taps;
      row_parts = ceil_div(depth, rows);
    } else {
      row_parts = channels * ceil_div(taps, most_rows);
      rows = ceil_div(taps, ceil_div(taps, most_rows));
    }
    filter_parts = ceil_div(filters, kNC<T>);
    const int64_t parts = g.groups * row_parts * filter_parts;
    slices = max(1, min(ceil_div(8, parts), chunks / 4));
  }

  int64_t row_begin(int64_t i) const {
    if (taps <= kKC) return min(depth, i * rows);
    const int64_t in_channel = row_parts / channels;
    return i / in_channel * taps + part(taps, in_channel, i % in_channel);
  }

  Memory memory_of(char* base) const {
    const int64_t height = min(depth, rows + kMR);
    Memory memory;
    memory.total = reinterpret_cast<double*>(base);
    T* t = reinterpret_cast<T*>(memory.total + height * kBPitch<T>);
    memory.a = t;
    memory.b = t += height * kAPitch<T>;
    memory.sum = t += kKC * kBPitch<T>;
    memory.block = reinterpret_cast<char*>(t += height * kBPitch<T>);
    memory.bytes = memory.block - base + PixelBlock<T>::bytes(g, kKC);
    return memory;
  }

  void run_task(int64_t task, const Memory& memory) const {
    const int64_t slice = task % slices, f = task / slices % filter_parts;
    const int64_t r = task / slices / filter_parts % row_parts;
    const int64_t group = task / slices / filter_parts / row_parts;
    const int64_t k = row_begin(r), height = row_begin(r + 1) - k;
    const int64_t o = part(filters, filter_parts, f);
    const int64_t width = part(filters, filter_parts, f + 1) - o;

    const int64_t size = g.height * g.width;
    PixelBlock<T> block(g, x + group * channels * size, x + g.batch * g.channels * size,
                        memory.block, kKC);
    int64_t summed = 0;
    const int64_t first = part(chunks, slices, slice), last = part(chunks, slices, slice + 1);
    const bool in_one = last - first <= kChunksPerSum;
    if (!in_one)
      for (int64_t i = 0; i < height * kBPitch<T>; ++i) memory.total[i] = 0;
    for (int64_t chunk = first; chunk < last; ++chunk) {
      const int64_t pixel = chunk * kKC, count = min(kKC, pixels - pixel);
      block.set(pixel, count);
      block.pack(k, k + height, kAPitch<T>, memory.a);
      transpose_grad(group * filters + o, width, pixel, count, memory.b);
      multiply(height, width, count, summed > 0, memory);
      if (in_one) summed = 1;
      else if (++summed == kChunksPerSum || chunk + 1 == last) {
        for (int64_t i = 0; i < height; ++i)
          for (int64_t j = i * kBPitch<T>; j < i * kBPitch<T> + width; ++j)
            memory.total[j] += static_cast<double>(memory.sum[j]);
        summed = 0;
      }
    }
    T* to = partial + ((slice * g.groups + group) * filters + o) * depth + k;
    if (in_one) return transpose(memory.sum, kBPitch<T>, height, width, to, depth);
    constexpr int64_t line = 8;  // of doubles
    for (int64_t begin = 0; begin < width; begin += line)
      for (int64_t j = 0; j < height; ++j)
        for (int64_t i = begin; i < min(width, begin + line); ++i)
          to[i * depth + j] = static_cast<T>(memory.total[j * kBPitch<T> + i]);
  }

  // to[i, j] = gradient of filter `filter` + j at pixel `pixel` + i
  void transpose_grad(int64_t filter, int64_t width, int64_t pixel, int64_t count, T* to) const {
    for (int64_t done = 0; done < count;) {
      const int64_t image = (pixel + done) / plane, offset = (pixel + done) % plane;
      const int64_t length = min(count - done, plane - offset);
      transpose(grad + (image * g.filters + filter) * plane + offset, plane, width, length,
                to + done * kBPitch<T>, kBPitch<T>);
      done += length;
    }
  }

  static void multiply(int64_t height, int64_t width, int64_t count, bool accumulate,
                       const Memory& memory) {
    const int64_t vectors = ceil_div(width, kLanes<T>), panels = ceil_div(vectors, kNRVectors);
    const Tiles tiles(height);
    for (int64_t p = 0; p < panels; ++p) {
      const int64_t first = part(vectors, panels, p), end = part(vectors, panels, p + 1);
      const T *a = memory.a, *b = memory.b + first * kLanes<T>;
      T* c = memory.sum + first * kLanes<T>;
      for (int64_t tile = 0; tile < tiles.count; ++tile) {
        const int tall = tiles.rows(tile);
        choose_microkernel<T>(tall, static_cast<int>(end - first))(count, a, b, c, kBPitch<T>,
                                                                   {nullptr, accumulate, false}, {});
        a += tall * kAPitch<T>;
        c += tall * kBPitch<T>;
      }
    }
  }

};

// The gradient of 1x1 filters is a product as the matrices lie: grad (O x pixels) * x^T (pixels x C).
template <class T>
int pointwise_grad_weight(const T* grad, const T* x, const ConvGeometry& g, T* out, int threads) {
  const int64_t plane = g.out_h * g.out_w, chunks = ceil_div(g.batch * plane, kKC);
  const int64_t parts = ceil_div(g.filters, kNC<T>) * ceil_div(g.channels, kNR<T>);
  const int64_t slices = max(ceil_div(chunks, kChunksPerSum), min(ceil_div(8, parts), chunks / 4));
  T* partial = slices > 1 ? shared_elements<T>(slices * g.filters * g.channels) : out;
  if (!partial) return kNoMemory;
  threads = worth_threads(g.batch * plane * g.filters * g.channels, kWorth, threads);
  const MatrixProduct<T> product = {g.filters, g.channels, plane, grad, plane, 1, x, 1, plane, nullptr,
                                    partial, g.batch, g.filters * plane, g.channels * plane, slices};
  const int result = matrix_product(product, threads);
  if (slices > 1 && result == kDone)
    add_slices(partial, g.filters * g.channels, slices, out, threads);
  return result;
}

template <class T>
int grad_weight(const T* grad, const T* x, const ConvGeometry& g, int algorithm, T* out,
                int threads) {
  if (g.batch * g.out_h * g.out_w == 0) {
    const int64_t size = g.filters * (g.channels / g.groups) * g.kernel_h * g.kernel_w;
    memset(out, 0, static_cast<size_t>(size) * sizeof(T));
    return kDone;
  }
  const FloatMode mode(kDtype<T>);
  algorithm = gradient_algorithm(kDtype<T>, g, algorithm, kGradWeight);
  if (algorithm == kDepthwise) return depthwise_grad_weight(grad, x, g, out, threads);
  if (algorithm == kWinograd) {
    int result = winograd_grad_weight(kDtype<T>, grad, x, g, out, threads);
    if (result != kNotFinite) return result;
  }
  if (is_linear(g)) {
    const LinearGeometry seen = linear_geometry(g);
    linear_grad_weight(kDtype<T>, grad, x, &seen, out, threads);
    return kDone;
  }
  if (is_pointwise(g)) return pointwise_grad_weight(grad, x, g, out, threads);
  return WeightGradient<T>(grad, x, g, out).run(threads);
}

}  // namespace

int conv2d_grad_input(Dtype dtype, const void* grad, const void* weight, const ConvGeometry* g,
                      int algorithm, void* out, int threads) {
  if (dtype == kFloat32)
    return grad_input(static_cast<const float*>(grad), static_cast<const float*>(weight), *g,
                      algorithm, static_cast<float*>(out), threads);
  return grad_input(static_cast<const double*>(grad), static_cast<const double*>(weight), *g,
                    algorithm, static_cast<double*>(out), threads);
}

int conv2d_grad_weight(Dtype dtype, const void* grad, const void* x, const ConvGeometry* g,
                       int algorithm, void* out, int threads) {
  if (dtype == kFloat32)
    return grad_weight(static_cast<const float*>(grad), static_cast<const float*>(x), *g,
                       algorithm, static_cast<float*>(out), threads);
  return grad_weight(static_cast<const double*>(grad), static_cast<const double*>(x), *g,
                     algorithm, static_cast<double*>(out), threads);
}

}  // namespace fastdl::FASTDL_ISA
