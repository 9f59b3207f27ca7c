// The algorithms of a convolution, as conv.cpp and conv_backward.cpp call them.
#pragma once

#include "isa.h"
#include "parallel.h"

namespace fastdl::FASTDL_ISA {

// How a call ended. After kNotFinite the output holds nothing of use.
enum Result { kDone = 0, kNoMemory = 1, kNotFinite = 2 };

// Noted by one of many threads.
FASTDL_INLINE void note(int* result, Result what) {
  __atomic_store_n(result, static_cast<int>(what), __ATOMIC_RELAXED);
}

// body(task, memory) for every task, where each thread has `bytes` of its own; kNoMemory if one had not.
template <class Body>
FASTDL_INLINE int parallel_in_workspace(int64_t tasks, int threads, int64_t bytes, const Body& body) {
  int result = kDone;
  parallel_for(tasks, threads, [&](int64_t task) {
    char* memory = static_cast<char*>(workspace(bytes));
    if (memory) body(task, memory);
    else note(&result, kNoMemory);
  });
  return result;
}

// algorithm.cpp: what a pass of a convolution takes, where it wants `algorithm`.
enum Pass { kForward = 0, kGradInput = 1, kGradWeight = 2 };
int gradient_algorithm(Dtype, const ConvGeometry& g, int algorithm, Pass pass);

// winograd.cpp, winograd_weight.cpp: what winograd_axis.h says. `turned`: the input gradient of g,
// from the gradient x of its output. `channels_last`: images are (N, H, W, C) in memory.
bool winograd_serves(const ConvGeometry& g);
int64_t winograd_packed_bytes(Dtype, const ConvGeometry& g);
void winograd_pack(Dtype, const void* weight, const ConvGeometry& g, void* packed, int threads);
int64_t winograd_workspace_bytes(Dtype, const ConvGeometry& g, bool packed, int threads);
int winograd(Dtype, const void* x, const void* weight, const void* packed, const void* bias,
             const ConvGeometry& g, Activation, bool turned, void* out, int threads,
             bool channels_last = false);
int winograd_grad_weight(Dtype, const void* grad, const void* x, const ConvGeometry& g, void* out,
                         int threads, bool channels_last = false);

// conv.cpp
int64_t direct_workspace_bytes(Dtype, const ConvGeometry& g, int threads);

}  // namespace fastdl::FASTDL_ISA
