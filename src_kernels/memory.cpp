// Memory that kernels work in, and what must happen when the process forks.
#include <omp.h>
#include <pthread.h>

#include <cstdlib>

#include "fastdl_kernels.h"

namespace fastdl {

namespace {

struct Workspace {
  void* data = nullptr;
  int64_t bytes = 0;
  ~Workspace() { std::free(data); }
};

thread_local Workspace mine, shared;

void* at_least(Workspace& memory, int64_t bytes) {
  if (bytes > memory.bytes) {
    std::free(memory.data);
    memory.bytes = 0;
    memory.data = std::aligned_alloc(64, static_cast<size_t>((bytes + 63) / 64 * 64));
    if (memory.data) memory.bytes = bytes;
  }
  return memory.data;
}

// The threads of an OpenMP pool do not follow the process into its child, where the next parallel
// loop would wait for them for ever. Without a pool the child starts its own, as does the parent.
void before_fork() { omp_pause_resource_all(omp_pause_hard); }

}  // namespace

void* workspace(int64_t bytes) { return at_least(mine, bytes); }

void* shared_workspace(int64_t bytes) { return at_least(shared, bytes); }

void install_fork_handler() { pthread_atfork(before_fork, nullptr, nullptr); }

}  // namespace fastdl
