// Keeping a helping thread off the processor of the thread that it helps, see fastdl_kernels.h.
#include "fastdl_kernels.h"

#include <omp.h>

#if defined(__linux__)
#include <sched.h>
#endif

namespace fastdl {

#if defined(__linux__)

Caller::Caller(int threads)
    : threads_(threads), processor_(sched_getcpu()), thread_(pthread_self()) {}

void Caller::make_room() const {
  if (processor_ < 0 || sched_getcpu() != processor_ || pthread_equal(thread_, pthread_self()) ||
      omp_get_proc_bind() != omp_proc_bind_false)
    return;
  cpu_set_t allowed;
  if (pthread_getaffinity_np(thread_, sizeof allowed, &allowed) || CPU_COUNT(&allowed) < threads_)
    return;
  CPU_CLR(processor_, &allowed);
  sched_setaffinity(0, sizeof allowed, &allowed);
}

#else

Caller::Caller(int threads) : threads_(threads), processor_(-1), thread_(pthread_self()) {}

void Caller::make_room() const {}

#endif

}  // namespace fastdl
