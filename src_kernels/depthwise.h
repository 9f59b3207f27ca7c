// Convolutions whose filters see one channel each: no product of matrices in them, and limited by
// memory rather than arithmetic. depthwise.cpp
#pragma once

#include "isa.h"

namespace fastdl::FASTDL_ISA {

// From four filters a channel on, the matrix product is the faster one.
FASTDL_INLINE bool is_depthwise(const ConvGeometry& g) {
  return g.channels == g.groups && g.filters < 4 * g.groups;
}

// As the kernels of fastdl/backends/table.py, for geometries that are depthwise and not empty.
// They return 1 where there is no memory.
template <class T>
int depthwise(const T* x, const T* weight, const T* bias, const ConvGeometry& g,
              Activation activation, T* out, int threads);
template <class T>
int64_t depthwise_workspace_bytes(const ConvGeometry& g, int threads);
template <class T>
int depthwise_grad_input(const T* grad, const T* weight, const ConvGeometry& g, T* out,
                         int threads);
template <class T>
int depthwise_grad_weight(const T* grad, const T* x, const ConvGeometry& g, T* out, int threads);

// depthwise_lanes.cpp: the same where vectors of channels serve, which the functions above ask first.
// They return kNotServed, or 0 bytes, where not.
constexpr int kNotServed = -1;
template <class T>
int64_t lanes_workspace_bytes(const ConvGeometry& g, int threads);
template <class T>
int lanes_forward(const T* x, const T* weight, const T* bias, const ConvGeometry& g,
                  Activation activation, T* out, int threads);
template <class T>
int lanes_grad_input(const T* grad, const T* weight, const ConvGeometry& g, T* out, int threads);
template <class T>
int lanes_grad_weight(const T* grad, const T* x, const ConvGeometry& g, T* out, int threads);


// depthwise_planes.cpp: the same straight from the planes, without a workspace, asked before those.
template <class T>
bool planes_serve(const ConvGeometry& g);
template <class T>
int planes_forward(const T* x, const T* weight, const T* bias, const ConvGeometry& g,
                   Activation activation, T* out, int threads);
template <class T>
int planes_grad_input(const T* grad, const T* weight, const ConvGeometry& g, T* out, int threads);

}  // namespace fastdl::FASTDL_ISA
