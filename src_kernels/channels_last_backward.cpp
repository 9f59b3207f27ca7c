// Gradients of a convolution of channels-last images.
//
// Winograd's tiles are read and written as they lie, a 1x1 convolution is a linear layer of the pixels,
// and a depthwise one has its own sums (where it strides, only for the weights). What is left is copied to planes and back,
// square by square: the direct sums of conv_backward.cpp take many times as long as that.
#include "algorithm.h"
#include "channels_last_conv.h"
#include "families.h"
#include "transpose_matrix.h"

namespace fastdl::FASTDL_ISA {

namespace {

// Pixels that are turned over at once.
constexpr int64_t kStrip = 256;

// Images (N, C, size), in planes or pixel by pixel.
struct Images {
  int64_t batch, channels, size;
  int64_t elements() const { return batch * channels * size; }
};

// body(image, first pixel, count) for all strips of all images.
template <class Body>
void each_strip(const Images& images, int threads, Body body) {
  const int64_t strips = ceil_div(images.size, kStrip);
  parallel_for(images.batch * strips, worth_threads(images.elements(), kGrain, threads),
               [&](int64_t task) {
                 const int64_t first = task % strips * kStrip;
                 body(task / strips, first, min(kStrip, images.size - first));
               });
}

template <class T>
void to_planes(const T* pixels, const Images& images, T* planes, int threads) {
  each_strip(images, threads, [&](int64_t image, int64_t first, int64_t count) {
    const int64_t at = image * images.channels * images.size;
    transpose(pixels + at + first * images.channels, images.channels, count, images.channels,
              planes + at + first, images.size);
  });
}

template <class T>
void to_pixels(const T* planes, const Images& images, T* pixels, int threads) {
  each_strip(images, threads, [&](int64_t image, int64_t first, int64_t count) {
    const int64_t at = image * images.channels * images.size;
    transpose(planes + at + first, images.size, images.channels, count,
              pixels + at + first * images.channels, images.channels);
  });
}

// Memory of such a copy, from that of results.
template <class T>
class Copy {
 public:
  explicit Copy(const Images& images)
      : planes(static_cast<T*>(
            take_output(static_cast<size_t>(max(1, images.elements())) * sizeof(T)))) {}
  ~Copy() {
    if (planes) give_back_output(planes);
  }
  Copy(const Copy&) = delete;
  Copy& operator=(const Copy&) = delete;

  T* const planes;
};

Images inputs_of(const ConvGeometry& g) { return {g.batch, g.channels, g.height * g.width}; }
Images outputs_of(const ConvGeometry& g) { return {g.batch, g.filters, g.out_h * g.out_w}; }

// Whether every pixel by itself is a sample of a linear layer.
bool is_pointwise(const ConvGeometry& g) {
  return g.kernel_h == 1 && g.kernel_w == 1 && g.stride_h == 1 && g.stride_w == 1 &&
         g.groups == 1 && g.height == g.out_h && g.width == g.out_w && g.pad_top == 0 &&
         g.pad_left == 0;
}
LinearGeometry pixels_as_samples(const ConvGeometry& g) {
  return {g.batch * g.height * g.width, g.channels, g.filters};
}

// The convolution of the gradient, of stride 1, that is the input gradient; its weights are turned.
ConvGeometry turned_geometry(const ConvGeometry& g) {
  ConvGeometry turned = g;
  turned.height = g.out_h;
  turned.width = g.out_w;
  turned.out_h = g.height;
  turned.out_w = g.width;
  turned.pad_top = g.dilation_h * (g.kernel_h - 1) - g.pad_top;
  turned.pad_left = g.dilation_w * (g.kernel_w - 1) - g.pad_left;
  return turned;
}

template <class T>
int grad_input(const T* grad, const T* weight, const ConvGeometry& g, int algorithm, T* out,
               int threads) {
  const Copy<T> grads(outputs_of(g)), result(inputs_of(g));
  if (!grads.planes || !result.planes) return kNoMemory;
  to_planes(grad, outputs_of(g), grads.planes, threads);
  if (conv2d_grad_input(kDtype<T>, grads.planes, weight, &g, algorithm, result.planes, threads))
    return kNoMemory;
  to_pixels(result.planes, inputs_of(g), out, threads);
  return kDone;
}

template <class T>
int grad_weight(const T* grad, const T* x, const ConvGeometry& g, int algorithm, T* out,
                int threads) {
  const Copy<T> grads(outputs_of(g)), inputs(inputs_of(g));
  if (!grads.planes || !inputs.planes) return kNoMemory;
  to_planes(grad, outputs_of(g), grads.planes, threads);
  to_planes(x, inputs_of(g), inputs.planes, threads);
  return conv2d_grad_weight(kDtype<T>, grads.planes, inputs.planes, &g, algorithm, out, threads);
}

}  // namespace

int channels_last_conv2d_grad_input(Dtype dtype, const void* grad, const void* weight,
                                    const ConvGeometry* g, int algorithm, void* out, int threads) {
  if (g->batch * g->height * g->width == 0) return kDone;
  algorithm = gradient_algorithm(dtype, *g, algorithm, kGradInput);
  if (algorithm == kWinograd) {
    const FloatMode mode(dtype);
    const int result = winograd(dtype, grad, weight, nullptr, nullptr, *g, kIdentity, true, out,
                                threads, true);
    if (result != kNotFinite) return result;
    algorithm = kDirect;
  }
  if (is_pointwise(*g)) {
    const LinearGeometry linear = pixels_as_samples(*g);
    linear_grad_input(dtype, grad, weight, &linear, out, threads);
    return kDone;
  }
  if (channels_last_depthwise_serves(*g) && g->stride_h == 1 && g->stride_w == 1)
    return channels_last_depthwise(dtype, grad, weight, nullptr, turned_geometry(*g), kIdentity,
                                   true, out, threads);
  if (dtype == kFloat32)
    return grad_input(static_cast<const float*>(grad), static_cast<const float*>(weight), *g,
                      algorithm, static_cast<float*>(out), threads);
  return grad_input(static_cast<const double*>(grad), static_cast<const double*>(weight), *g,
                    algorithm, static_cast<double*>(out), threads);
}

int channels_last_conv2d_grad_weight(Dtype dtype, const void* grad, const void* x,
                                     const ConvGeometry* g, int algorithm, void* out,
                                     int threads) {
  algorithm = gradient_algorithm(dtype, *g, algorithm, kGradWeight);
  const bool empty = g->batch * g->out_h * g->out_w == 0;
  if (algorithm == kWinograd && !empty) {
    const FloatMode mode(dtype);
    const int result = winograd_grad_weight(dtype, grad, x, *g, out, threads, true);
    if (result != kNotFinite) return result;
    algorithm = kDirect;
  }
  if (is_pointwise(*g) && !empty) {
    const LinearGeometry linear = pixels_as_samples(*g);
    linear_grad_weight(dtype, grad, x, &linear, out, threads);
    return kDone;
  }
  if (channels_last_depthwise_serves(*g) && !empty)
    return channels_last_depthwise_grad_weight(dtype, grad, x, *g, out, threads);
  if (dtype == kFloat32)
    return grad_weight(static_cast<const float*>(grad), static_cast<const float*>(x), *g,
                       algorithm, static_cast<float*>(out), threads);
  return grad_weight(static_cast<const double*>(grad), static_cast<const double*>(x), *g,
                     algorithm, static_cast<double*>(out), threads);
}

}  // namespace fastdl::FASTDL_ISA
