// Threads: one loop over tasks, the only place where kernels meet OpenMP.
#pragma once

#include <omp.h>

#include "isa.h"

namespace fastdl::FASTDL_ISA {

// body(task) for every task in [0, tasks), on at most `threads` threads. Which thread runs a task
// must not change its result.
template <class Body>
FASTDL_INLINE void parallel_for(int64_t tasks, int threads, Body body) {
  if (threads > tasks) threads = static_cast<int>(tasks);
  if (threads <= 1) {
    for (int64_t task = 0; task < tasks; ++task) body(task);
    return;
  }
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
  for (int64_t task = 0; task < tasks; ++task) body(task);
}

// body(begin, end) over [0, size) in ranges of at least `grain`: for loops that cost about the
// same an element. `grain` keeps small calls on the calling thread.
template <class Body>
FASTDL_INLINE void parallel_range(int64_t size, int64_t grain, int threads, Body body) {
  int64_t ranges = min(threads, ceil_div(size, grain));
  if (ranges <= 1) {
    if (size > 0) body(int64_t{0}, size);
    return;
  }
#pragma omp parallel for schedule(static, 1) num_threads(static_cast<int>(ranges))
  for (int64_t range = 0; range < ranges; ++range)
    body(size / ranges * range + min(range, size % ranges),
         size / ranges * (range + 1) + min(range + 1, size % ranges));
}

}  // namespace fastdl::FASTDL_ISA
