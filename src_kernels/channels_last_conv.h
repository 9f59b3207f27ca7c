// Convolutions of channels-last images. channels_last_conv.cpp picks one.
#pragma once

#include "channels_last.h"

namespace fastdl::FASTDL_ISA {

// channels_last_depthwise.cpp: a channel a group, and a filter. `turned` takes the last tap for the first.
// Returns 1 where there is no memory.
bool channels_last_depthwise_serves(const ConvGeometry& g);
int channels_last_depthwise(Dtype, const void* x, const void* weight, const void* bias,
                            const ConvGeometry& g, Activation, bool turned, void* out,
                            int threads);
int channels_last_depthwise_grad_weight(Dtype, const void* grad, const void* x,
                                        const ConvGeometry& g, void* out, int threads);

}  // namespace fastdl::FASTDL_ISA
