// The direct convolution, as the forward pass and the input gradient call it. conv.cpp
#pragma once

#include "isa.h"

namespace fastdl::FASTDL_ISA {

template <class T>
struct DirectConvolution {
  const T *x, *weight, *bias;  // bias may be null
  T* out;  // element (n, o, i, j) at n * image + o * plane + i * row + j * column
  int64_t image, plane, row, column;
  ConvGeometry g;  // padding may be negative
  Activation activation;
  bool turned = false;  // whether a group's weights lie as K x O, not as O x K
};

// Returns 1 where there is no memory.
template <class T>
int direct_convolution(const DirectConvolution<T>& conv, int threads);

// The same with filters in the lanes, and whether it takes less time. filter_lanes.cpp
template <class T>
bool filter_lanes_pay(const DirectConvolution<T>& conv);
template <class T>
int filter_lanes(const DirectConvolution<T>& conv, int threads);
template <class T>
int64_t filter_lanes_workspace_bytes(const DirectConvolution<T>& conv, int threads);

// The same without an im2col matrix, for few channels or filters, and whether it takes less time.
// conv_rows.cpp
template <class T>
bool rows_pay(const DirectConvolution<T>& conv);
template <class T>
int conv_rows(const DirectConvolution<T>& conv, int threads);
template <class T>
int64_t conv_rows_workspace_bytes(const DirectConvolution<T>& conv, int threads);

// body(offset in a filter's plane of image 0, position, length) for each stretch of the pixels
// [pixel, pixel + count) that is one in the result. `position` counts from the first of them.
template <class T, class Body>
FASTDL_INLINE void each_stretch(const DirectConvolution<T>& conv, int64_t pixel, int64_t count,
                                Body body) {
  const ConvGeometry& g = conv.g;
  const int64_t plane = g.out_h * g.out_w;
  const int64_t width = conv.column == 1 && conv.row == g.out_w ? plane : g.out_w;
  for (int64_t position = 0; position < count;) {
    const int64_t image = (pixel + position) / plane, offset = (pixel + position) % plane;
    const int64_t length = min(count - position, width - offset % width);
    body(image * conv.image + offset / g.out_w * conv.row + offset % g.out_w * conv.column,
         position, length);
    position += length;
  }
}

// 1x1 filters of stride 1, all channels of a pixel alone.
FASTDL_INLINE bool is_pointwise(const ConvGeometry& g) {
  return g.kernel_h == 1 && g.kernel_w == 1 && g.stride_h == 1 && g.stride_w == 1 &&
         g.pad_top == 0 && g.pad_left == 0 && g.height == g.out_h && g.width == g.out_w &&
         g.groups == 1;
}

// A window that is the whole image makes one output of a filter: the layer is a linear one.
FASTDL_INLINE bool is_linear(const ConvGeometry& g) {
  return g.out_h == 1 && g.out_w == 1 && g.kernel_h == g.height && g.kernel_w == g.width &&
         g.pad_top == 0 && g.pad_left == 0 && g.groups == 1 &&
         (g.dilation_h == 1 || g.kernel_h == 1) && (g.dilation_w == 1 || g.kernel_w == 1);
}
FASTDL_INLINE LinearGeometry linear_geometry(const ConvGeometry& g) {
  return {g.batch, g.channels * g.height * g.width, g.filters};
}

}  // namespace fastdl::FASTDL_ISA
