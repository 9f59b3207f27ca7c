// Kernels for channels-last images, (N, H, W, C) in memory.
#pragma once

#include "isa.h"

namespace fastdl::FASTDL_ISA {

}  // namespace fastdl::FASTDL_ISA
