// Memory that kernels work in, and what must happen when the process forks.
#include <omp.h>
#include <pthread.h>
#include <unistd.h>

#include <cstdio>
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

// Linux describes the caches of each processor in files, one a cache, the largest last. In a virtual
// machine they say more than sysconf, which asks the processor.
int64_t find_last_level_cache() {
  int64_t largest = 0;
  for (int cache = 0; cache < 8; ++cache) {
    char path[64];
    std::snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/size", cache);
    if (std::FILE* file = std::fopen(path, "r")) {
      long long kilobytes = 0;
      if (std::fscanf(file, "%lldK", &kilobytes) == 1 && kilobytes * 1024 > largest)
        largest = kilobytes * 1024;
      std::fclose(file);
    }
  }
#if defined(_SC_LEVEL3_CACHE_SIZE)
  if (!largest) largest = sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
  return largest > 0 ? largest : 8 << 20;
}

// The threads of an OpenMP pool do not follow the process into its child, where the next parallel
// loop would wait for them for ever. Without a pool the child starts its own, as does the parent.
void before_fork() { omp_pause_resource_all(omp_pause_hard); }

}  // namespace

void* workspace(int64_t bytes) { return at_least(mine, bytes); }

void* shared_workspace(int64_t bytes) { return at_least(shared, bytes); }

int64_t last_level_cache() {
  static const int64_t size = find_last_level_cache();
  return size;
}

void install_fork_handler() { pthread_atfork(before_fork, nullptr, nullptr); }

}  // namespace fastdl
