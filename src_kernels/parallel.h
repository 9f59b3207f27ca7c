// Threads: one loop over tasks, the only place where kernels meet OpenMP, and the floating-point mode
// that they compute in.
#pragma once

#include <omp.h>

#include "isa.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace fastdl::FASTDL_ISA {

// The floating-point control word of the calling thread: rounding, what becomes of denormals (and,
// on x86, which exceptions were met).
#if defined(__SSE2__)
using FloatControl = uint32_t;
// Results that are denormal become zero (bit 15, flush to zero), operands are read as zero (bit 6,
// denormals are zero).
constexpr FloatControl kFlushDenormals = 1u << 15 | 1u << 6;
FASTDL_INLINE FloatControl float_control() { return _mm_getcsr(); }
FASTDL_INLINE void set_float_control(FloatControl control) { _mm_setcsr(control); }
#elif defined(__aarch64__)
using FloatControl = uint64_t;
constexpr FloatControl kFlushDenormals = 1u << 24;
FASTDL_INLINE FloatControl float_control() {
  FloatControl control;
  asm volatile("mrs %0, fpcr" : "=r"(control));
  return control;
}
FASTDL_INLINE void set_float_control(FloatControl control) {
  asm volatile("msr fpcr, %0" : : "r"(control));
}
#else
using FloatControl = uint32_t;
constexpr FloatControl kFlushDenormals = 0;
FASTDL_INLINE FloatControl float_control() { return 0; }
FASTDL_INLINE void set_float_control(FloatControl) {}
#endif

// Computes in mode `control` while it lives, then leaves the thread's control word as it was.
class FloatMode {
 public:
  explicit FloatMode(FloatControl control) : before_(float_control()) {
    set_float_control(control);
  }
  // The mode of kernels for this dtype: in float32 denormals count as zero, as a processor may take
  // a hundred times as long for them. float64 keeps the caller's mode.
  explicit FloatMode(Dtype dtype)
      : FloatMode(float_control() | (dtype == kFloat32 ? kFlushDenormals : 0)) {}
  ~FloatMode() { set_float_control(before_); }
  FloatMode(const FloatMode&) = delete;
  FloatMode& operator=(const FloatMode&) = delete;

 private:
  FloatControl before_;
};

// body(task) for every task in [0, tasks), on at most `threads` threads, all in the mode of the
// calling one. Which thread runs a task must not change its result.
template <class Body>
FASTDL_INLINE void parallel_for(int64_t tasks, int threads, Body body) {
  if (threads > tasks) threads = static_cast<int>(tasks);
  if (threads <= 1) {
    for (int64_t task = 0; task < tasks; ++task) body(task);
    return;
  }
  const FloatControl control = float_control();
  const Caller caller(threads);
#pragma omp parallel num_threads(threads)
  {
    caller.make_room();
    const FloatMode mode(control);
#pragma omp for schedule(dynamic, 1) nowait
    for (int64_t task = 0; task < tasks; ++task) body(task);
  }
}

// As `parallel_for`, but threads that work at the same time are far apart: neighbouring tasks that
// write to one cache line would take it from each other.
template <class Body>
FASTDL_INLINE void parallel_apart(int64_t tasks, int threads, Body body) {
  const int64_t run = ceil_div(tasks, threads);
  parallel_for(run * threads, threads, [&](int64_t turn) {
    const int64_t task = turn % threads * run + turn / threads;
    if (task < tasks) body(task);
  });
}

// Ranges that a loop is cut into for each thread: one that is held up leaves its rest to the others.
constexpr int kRangesPerThread = 8;

// body(begin, end) over [0, size) in ranges of at least `grain`: for loops that cost about the
// same an element. `grain` keeps small calls on the calling thread.
template <class Body>
FASTDL_INLINE void parallel_range(int64_t size, int64_t grain, int threads, Body body) {
  const int64_t ranges = min(int64_t{threads} * kRangesPerThread, size / max(grain, 1));
  if (threads <= 1 || ranges <= 1) {
    if (size > 0) body(int64_t{0}, size);
    return;
  }
  parallel_for(ranges, threads, [&](int64_t range) {
    body(size / ranges * range + min(range, size % ranges),
         size / ranges * (range + 1) + min(range + 1, size % ranges));
  });
}

// How many of `threads` are worth starting for `work`, where `grain` is worth one.
FASTDL_INLINE int worth_threads(int64_t work, int64_t grain, int threads) {
  return static_cast<int>(max(1, min(threads, work / grain)));
}

}  // namespace fastdl::FASTDL_ISA
