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
};

// Returns 1 where there is no memory.
template <class T>
int direct_convolution(const DirectConvolution<T>& conv, int threads);

}  // namespace fastdl::FASTDL_ISA
