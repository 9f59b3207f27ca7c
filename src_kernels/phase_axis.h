// One axis of the input gradient of a strided depthwise convolution.
#pragma once

#include "isa.h"

namespace fastdl::FASTDL_ISA {

FASTDL_INLINE int64_t common_divisor(int64_t a, int64_t b) {
  while (b) {
    const int64_t rest = a % b;
    a = b, b = rest;
  }
  return a;
}

// Pixel y, in the padded plane y + pad = q*s + r, is met by the taps a with a*d % s == r, each through
// gradient i = q - a*d/s. In the gradient padded by `pad`, whose row 0 is the first that pixel row
// q = `first` reads, tap a stands at `reach - a*d/s`.
struct PhaseAxis {
  int64_t size, pad_before, stride, dilation, taps;
  int64_t first, count;  // q of the plane's first row; how many q
  int64_t reach;         // of the last tap, in q
  int64_t pad;
  int64_t weight_step, step;  // from one tap of a phase to the next before it, in taps and in q

  PhaseAxis(int64_t size, int64_t pad_before, int64_t stride, int64_t dilation, int64_t taps)
      : size(size), pad_before(pad_before), stride(stride), dilation(dilation), taps(taps),
        first(pad_before / stride), count((pad_before + size - 1) / stride - first + 1),
        reach((taps - 1) * dilation / stride), pad(reach - first),
        weight_step(stride / common_divisor(stride, dilation)),
        step(dilation / common_divisor(stride, dilation)) {}

  // The last tap of a phase; -1 if it has none.
  int64_t last(int64_t phase) const {
    int64_t a = taps - 1;
    while (a >= 0 && a * dilation % stride != phase) --a;
    return a;
  }
  int64_t taps_of(int64_t last) const { return last < 0 ? 0 : last / weight_step + 1; }
  int64_t place(int64_t a) const { return reach - a * dilation / stride; }

  // Which of the `count` q of a phase are pixels of the plane.
  struct Range {
    int64_t begin, size;
  };
  Range inside(int64_t phase) const {
    const int64_t begin = first * stride + phase < pad_before ? 1 : 0;
    const int64_t end = (first + count - 1) * stride + phase < pad_before + size ? count : count - 1;
    return {begin, max(0, end - begin)};
  }
};

}  // namespace fastdl::FASTDL_ISA
