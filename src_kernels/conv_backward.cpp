// The gradients of a convolution, as products of matrices.
//
// Input, stride 1: the convolution of the gradient with the weights, turned around and with filters
//   and channels exchanged. conv.cpp does it.
// Input, longer strides: col (K x pixels) = weight^T (K x O) * grad (O x pixels), each column element
//   then added to the input it came from. A task owns a few channels of one image.
// Weight: weight_grad^T (K x O) = im2col(x) (K x pixels) * grad^T (pixels x O). A task owns a few
//   rows and runs through all pixels, so that the sum's order never changes.
#include <cstdlib>
#include <cstring>

#include "algorithm.h"
#include "depthwise.h"
#include "families.h"
#include "microkernel.h"
#include "panel.h"
#include "parallel.h"

namespace fastdl::FASTDL_ISA {

namespace {

void note_failure(bool* failed) { __atomic_store_n(failed, true, __ATOMIC_RELAXED); }

// Memory that all threads share during one call.
template <class T>
struct Shared {
  T* data;
  explicit Shared(int64_t elements)
      : data(static_cast<T*>(std::malloc(static_cast<size_t>(elements) * sizeof(T)))) {}
  ~Shared() { std::free(data); }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;
};

// ---- input, stride 1 ----

// turned[g, c, o, a, b] = weight[g, o, c, KH-1-a, KW-1-b]
template <class T>
void turn_weights(const ConvGeometry& g, const T* weight, T* turned, int threads) {
  int64_t filters = g.filters / g.groups, channels = g.channels / g.groups;
  int64_t taps = g.kernel_h * g.kernel_w;
  parallel_for(g.channels, threads, [&](int64_t channel) {
    int64_t group = channel / channels, c = channel % channels;
    for (int64_t o = 0; o < filters; ++o) {
      const T* from = weight + ((group * filters + o) * channels + c) * taps;
      T* to = turned + (channel * filters + o) * taps;
      for (int64_t tap = 0; tap < taps; ++tap) to[tap] = from[taps - 1 - tap];
    }
  });
}

template <class T>
int turned_convolution(const T* grad, const T* weight, const ConvGeometry& g, int algorithm,
                       T* out, int threads) {
  ConvGeometry turned = turned_geometry(g);
  if (conv2d_algorithm(kDtype<T>, &turned, algorithm, false, threads) == kWinograd) {
    int result = winograd(kDtype<T>, grad, weight, nullptr, nullptr, turned, kIdentity, true, out,
                          threads);
    if (result != kNotFinite) return result;
  }
  Shared<T> weights(g.filters * (g.channels / g.groups) * g.kernel_h * g.kernel_w);
  if (!weights.data) return 1;
  turn_weights(g, weight, weights.data, threads);
  return conv2d(kDtype<T>, grad, weights.data, nullptr, nullptr, &turned, kIdentity, kDirect, out,
                threads);
}

// ---- input, any stride ----

// transposed[g, k, o] = weight[g, o, k]
template <class T>
void transpose_weights(const ConvGeometry& g, const T* weight, T* transposed) {
  int64_t filters = g.filters / g.groups;
  int64_t depth = g.channels / g.groups * g.kernel_h * g.kernel_w;
  for (int64_t group = 0; group < g.groups; ++group)
    for (int64_t o = 0; o < filters; ++o)
      for (int64_t k = 0; k < depth; ++k)
        transposed[(group * depth + k) * filters + o] = weight[(group * filters + o) * depth + k];
}

// The gradient seen as the input of a 1x1 convolution, whose im2col it is.
ConvGeometry as_columns(const ConvGeometry& g) {
  ConvGeometry flat = g;
  flat.channels = g.filters;
  flat.height = g.out_h;
  flat.width = g.out_w;
  flat.kernel_h = flat.kernel_w = flat.stride_h = flat.stride_w = 1;
  flat.dilation_h = flat.dilation_w = 1;
  flat.pad_top = flat.pad_left = 0;
  return flat;
}

// Adds `columns` (channels * taps rows, `stride` apart) to where the panel's taps read.
template <class T>
void scatter(const ConvGeometry& g, const Panel& panel, int64_t channels, const T* columns,
             int64_t stride, T* out) {
  int64_t taps = g.kernel_h * g.kernel_w, plane = g.height * g.width;
  for (int64_t tap = 0; tap < taps; ++tap)
    for (int r = 0; r < panel.run_count; ++r) {
      Copy copy = find_copy(g, panel.runs[r], tap);
      for (int64_t c = 0; c < channels; ++c) {
        const T* from = columns + (c * taps + tap) * stride + copy.first;
        T* to = out + c * plane + copy.source;
        for (int32_t i = copy.left; i < copy.length - copy.right; ++i)
          to[i * g.stride_w] += from[i];
      }
    }
}

template <class T>
int scattered_product(const T* grad, const T* weight, const ConvGeometry& g, T* out,
                      int threads) {
  const ConvGeometry flat = as_columns(g);
  const int64_t filters = g.filters / g.groups, channels = g.channels / g.groups;
  const int64_t taps = g.kernel_h * g.kernel_w, plane = g.height * g.width;
  const int64_t pixels = g.out_h * g.out_w, runs = most_runs(g, kNR<T>);

  // About 256 rows of columns a task, fewer if that leaves threads without one.
  int64_t share = max(1, min(channels, 256 / taps));
  while (share > 1 && g.batch * g.groups * ceil_div(channels, share) < 2 * threads) share /= 2;
  const int64_t shares = ceil_div(channels, share);

  Shared<T> weights(g.filters * channels * taps);
  if (!weights.data) return 1;
  transpose_weights(g, weight, weights.data);

  const int64_t size = static_cast<int64_t>(sizeof(T));
  const int64_t panel_bytes = (kKC * kNR<T> + kLanes<T>) * size;
  const int64_t column_bytes = share * taps * kNR<T> * size;
  const int64_t run_bytes = runs * static_cast<int64_t>(sizeof(Run));
  const int64_t bytes =
      panel_bytes + column_bytes + run_bytes + runs * static_cast<int64_t>(sizeof(Copy));
  bool failed = false;
  parallel_for(g.batch * g.groups * shares, threads, [&](int64_t task) {
    char* memory = static_cast<char*>(workspace(bytes));
    if (!memory) return note_failure(&failed);
    T* packed = reinterpret_cast<T*>(memory);
    T* columns = reinterpret_cast<T*>(memory + panel_bytes);
    Panel panel{};
    panel.runs = reinterpret_cast<Run*>(memory + panel_bytes + column_bytes);
    panel.copies = reinterpret_cast<Copy*>(memory + panel_bytes + column_bytes + run_bytes);

    int64_t first = task % shares * share, group = task / shares % g.groups;
    int64_t image = task / shares / g.groups, count = min(share, channels - first);
    T* mine = out + (group * channels + first) * plane;
    memset(mine + image * g.channels * plane, 0, static_cast<size_t>(count * plane) * sizeof(T));
    const T* a = weights.data + (group * channels + first) * taps * filters;
    Source<T> source = {grad + group * filters * pixels, grad, grad + g.batch * g.filters * pixels};

    for (int64_t pixel = 0; pixel < pixels; pixel += kNR<T>) {
      int64_t width = min(kNR<T>, pixels - pixel);
      int vectors = static_cast<int>(ceil_div(width, kLanes<T>));
      int64_t stride = vectors * kLanes<T>;
      panel.run_count = find_runs(g, image * pixels + pixel, width, panel.runs);
      set_taps<T>(flat, panel, 0, 1);
      for (int64_t o = 0, o_end; o < filters; o = o_end) {
        o_end = chunk_end(flat, o, kKC);
        pack(flat, panel, source, o, o_end, stride, packed);
        for (int64_t k = 0; k < count * taps; k += kMR) {
          auto kernel = choose_microkernel<T>(static_cast<int>(min(kMR, count * taps - k)), vectors);
          kernel(o_end - o, a + k * filters + o, filters, packed, columns + k * stride, stride,
                 {nullptr, o > 0, false});
        }
      }
      scatter(g, panel, count, columns, stride, mine);
    }
  });
  return failed;
}

template <class T>
int grad_input(const T* grad, const T* weight, const ConvGeometry& g, int algorithm, T* out,
               int threads) {
  if (g.batch * g.height * g.width == 0) return 0;
  if (is_depthwise(g)) return depthwise_grad_input(grad, weight, g, out, threads);
  if (g.stride_h == 1 && g.stride_w == 1)
    return turned_convolution(grad, weight, g, algorithm, out, threads);
  return scattered_product(grad, weight, g, out, threads);
}

// ---- weight ----

// Partial sums in the working precision reach over this many chunks of kKC pixels; longer ones are
// in double precision.
constexpr int64_t kChunksPerSum = 16;

// The filters of a group, divided into panels of at most kNRVectors vectors.
template <class T>
struct FilterPanels {
  int64_t filters, vectors, panels;
  explicit FilterPanels(int64_t filters)
      : filters(filters), vectors(ceil_div(filters, kLanes<T>)),
        panels(ceil_div(vectors, kNRVectors)) {}
  int64_t first(int64_t panel) const { return vectors * panel / panels * kLanes<T>; }
  int64_t width() const { return vectors * kLanes<T>; }
};

// Panel by panel, the gradient with its filters innermost: [group][panel][pixel][filter].
template <class T>
void transpose_grad(const ConvGeometry& g, const FilterPanels<T>& panels, const T* grad,
                    T* transposed, int threads) {
  constexpr int64_t strip = 64;
  int64_t plane = g.out_h * g.out_w, strips = ceil_div(plane, strip);
  parallel_for(g.groups * g.batch * strips, threads, [&](int64_t task) {
    int64_t begin = task % strips * strip, end = min(plane, begin + strip);
    int64_t image = task / strips % g.batch, group = task / strips / g.batch;
    for (int64_t p = 0; p < panels.panels; ++p) {
      int64_t first = panels.first(p), width = panels.first(p + 1) - first;
      T* to = transposed + (group * panels.width() + first) * g.batch * plane +
              (image * plane + begin) * width;
      for (int64_t o = 0; o < width; ++o) {
        bool real = first + o < panels.filters;
        const T* from = grad + (image * g.filters + group * panels.filters + first + o) * plane;
        for (int64_t i = begin; i < end; ++i) to[(i - begin) * width + o] = real ? from[i] : T(0);
      }
    }
  });
}

// How the rows k of a group's weights are divided: blocks that hold whole channels, or, where a
// channel has more taps than a block has rows, lie within one.
struct RowBlocks {
  int64_t taps, rows, depth, per_channel, blocks;
  RowBlocks(const ConvGeometry& g, int64_t rows)
      : taps(g.kernel_h * g.kernel_w), rows(rows), depth(g.channels / g.groups * taps),
        per_channel(ceil_div(taps, rows)),
        blocks(taps > rows ? g.channels / g.groups * per_channel : ceil_div(depth, rows)) {}
  int64_t begin(int64_t block) const {
    return taps > rows ? block / per_channel * taps + block % per_channel * rows : block * rows;
  }
};

template <class T>
int grad_weight(const T* grad, const T* x, const ConvGeometry& g, T* out, int threads) {
  const int64_t filters = g.filters / g.groups, pixels = g.batch * g.out_h * g.out_w;
  const int64_t depth = g.channels / g.groups * g.kernel_h * g.kernel_w;
  if (is_depthwise(g)) return depthwise_grad_weight(grad, x, g, out, threads);
  const FilterPanels<T> panels(filters);

  // Rows of a task: sums of at most half a megabyte, and a task for every thread.
  int64_t rows = max(kMR, min(64, (512 * 1024 / 12) / panels.width()) / kMR * kMR);
  while (rows > kMR && g.groups * ceil_div(depth, rows) < 2 * threads) rows -= kMR;
  const RowBlocks blocks(g, rows);

  Shared<T> transposed(g.groups * panels.width() * pixels);
  if (!transposed.data && pixels) return 1;
  transpose_grad(g, panels, grad, transposed.data, threads);

  const int64_t size = static_cast<int64_t>(sizeof(T)), chunk = kKC;
  // A vector more than the chunk, so that the rows do not all fall into the same cache sets.
  const int64_t lda = chunk + kLanes<T>, ldc = panels.width();
  const int64_t runs = pixels ? most_runs(g, chunk) : 0;
  const int64_t total_bytes = rows * ldc * 8, sum_bytes = rows * ldc * size;
  const int64_t column_bytes = (rows * lda + kLanes<T>) * size;
  const int64_t run_bytes = runs * static_cast<int64_t>(sizeof(Run));
  const int64_t copy_bytes = runs * min(blocks.taps, rows) * static_cast<int64_t>(sizeof(Copy));
  const int64_t bytes = total_bytes + sum_bytes + column_bytes + run_bytes + copy_bytes;
  bool failed = false;
  parallel_for(g.groups * blocks.blocks, threads, [&](int64_t task) {
    char* memory = static_cast<char*>(workspace(bytes));
    if (!memory) return note_failure(&failed);
    double* total = reinterpret_cast<double*>(memory);
    T* sum = reinterpret_cast<T*>(memory += total_bytes);
    T* columns = reinterpret_cast<T*>(memory += sum_bytes);
    Panel panel{};
    panel.runs = reinterpret_cast<Run*>(memory += column_bytes);
    panel.copies = reinterpret_cast<Copy*>(memory += run_bytes);

    int64_t group = task / blocks.blocks, k = blocks.begin(task % blocks.blocks);
    int64_t k_end = chunk_end(g, k, rows), count = k_end - k;
    const T* b = transposed.data + group * panels.width() * pixels;
    int64_t plane = g.height * g.width;
    Source<T> source = {x + group * (g.channels / g.groups) * plane, x,
                        x + g.batch * g.channels * plane};
    for (int64_t i = 0; i < count * ldc; ++i) total[i] = 0;

    int64_t summed = 0;
    for (int64_t pixel = 0; pixel < pixels; pixel += chunk) {
      int64_t width = min(chunk, pixels - pixel);
      panel.run_count = find_runs(g, pixel, width, panel.runs);
      if (blocks.taps > rows) set_chunk_taps<T>(g, panel, k, k_end, rows);
      else set_taps<T>(g, panel, 0, blocks.taps);
      pack(g, panel, source, k, k_end, lda, columns);
      for (int64_t p = 0; p < panels.panels; ++p) {
        int64_t first = panels.first(p), wide = panels.first(p + 1) - first;
        for (int64_t r = 0; r < count; r += kMR) {
          auto kernel = choose_microkernel<T>(static_cast<int>(min(kMR, count - r)),
                                              static_cast<int>(wide / kLanes<T>));
          kernel(width, columns + r * lda, lda, b + first * pixels + pixel * wide,
                 sum + r * ldc + first, ldc, {nullptr, summed > 0, false});
        }
      }
      if (++summed == kChunksPerSum || pixel + chunk >= pixels) {
        for (int64_t i = 0; i < count * ldc; ++i) total[i] += static_cast<double>(sum[i]);
        summed = 0;
      }
    }
    for (int64_t o = 0; o < filters; ++o)
      for (int64_t r = 0; r < count; ++r)
        out[(group * filters + o) * depth + k + r] = static_cast<T>(total[r * ldc + o]);
  });
  return failed;
}

}  // namespace

ConvGeometry turned_geometry(const ConvGeometry& g) {
  ConvGeometry turned = g;
  turned.channels = g.filters;
  turned.filters = g.channels;
  turned.height = g.out_h;
  turned.width = g.out_w;
  turned.out_h = g.height;
  turned.out_w = g.width;
  turned.pad_top = g.dilation_h * (g.kernel_h - 1) - g.pad_top;
  turned.pad_left = g.dilation_w * (g.kernel_w - 1) - g.pad_left;
  return turned;
}

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
  if (conv2d_algorithm(dtype, g, algorithm, false, threads) == kWinograd) {
    int result = winograd_grad_weight(dtype, grad, x, *g, out, threads);
    if (result != kNotFinite) return result;
  }
  if (dtype == kFloat32)
    return grad_weight(static_cast<const float*>(grad), static_cast<const float*>(x), *g,
                       static_cast<float*>(out), threads);
  return grad_weight(static_cast<const double*>(grad), static_cast<const double*>(x), *g,
                     static_cast<double*>(out), threads);
}

}  // namespace fastdl::FASTDL_ISA
