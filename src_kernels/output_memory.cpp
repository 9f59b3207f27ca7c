// Memory of results. A block that an array has done with is kept for the next array of its size, as
// pages that the system hands out anew cost more than most kernels: it clears each of them first.
//
// Blocks come in eight sizes an octave. What is kept stays below a limit: the block that has waited
// longest goes first.
#include <pthread.h>
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <vector>

#include "fastdl_kernels.h"

namespace fastdl {

namespace {

// In front of each block, and as long as its alignment.
struct alignas(64) Header {
  size_t capacity;
};

constexpr size_t kPage = 4096;
constexpr size_t kHugePage = 2 << 20;
// From here on a block is made of huge pages where the system has some.
constexpr size_t kHugeBlock = 4 << 20;

std::mutex guard;
// The one that has waited longest first. Never destroyed: an array may die later than that.
std::vector<Header*>& kept = *new std::vector<Header*>;
OutputMemory state = {256 << 20, 0, 0, 0, 0};

// The smallest of the block sizes that holds a header and `bytes`; 0 if there is none.
size_t block_size(size_t bytes) {
  if (bytes > SIZE_MAX / 2) return 0;
  const size_t needed = bytes + sizeof(Header);
  size_t step = kPage;
  while (needed / step >= 16) step *= 2;
  return (needed + step - 1) / step * step;
}

Header* new_block(size_t size) {
  void* memory = nullptr;
  if (posix_memalign(&memory, size >= kHugeBlock ? kHugePage : kPage, size)) return nullptr;
#if defined(MADV_HUGEPAGE)
  if (size >= kHugeBlock) madvise(memory, size, MADV_HUGEPAGE);
#endif
  return new (memory) Header{size};
}

// With the guard held.
void shrink_to(int64_t bytes) {
  size_t freed = 0;
  while (state.kept_bytes > bytes) {
    state.kept_bytes -= static_cast<int64_t>(kept[freed]->capacity);
    std::free(kept[freed++]);
  }
  kept.erase(kept.begin(), kept.begin() + static_cast<std::ptrdiff_t>(freed));
}

// The child of a fork shares its pages with the parent until one of them writes: to take over what
// is kept would copy it, page by page.
void before_fork() { guard.lock(); }
void after_fork_in_parent() { guard.unlock(); }
void after_fork_in_child() {
  shrink_to(0);
  guard.unlock();
}

}  // namespace

void* take_output(size_t bytes) {
  const size_t size = block_size(bytes);
  if (size == 0) return nullptr;
  Header* block = nullptr;
  {
    std::lock_guard<std::mutex> lock(guard);
    for (size_t i = kept.size(); i-- > 0 && !block;)
      if (kept[i]->capacity == size) {
        block = kept[i];
        kept.erase(kept.begin() + static_cast<std::ptrdiff_t>(i));
        state.kept_bytes -= static_cast<int64_t>(size);
        ++state.reused;
      }
    state.used_bytes += static_cast<int64_t>(size);
    if (!block) ++state.made;
  }
  if (!block) block = new_block(size);
  if (!block) {
    empty_output_memory();
    block = new_block(size);
  }
  if (block) return block + 1;
  std::lock_guard<std::mutex> lock(guard);
  state.used_bytes -= static_cast<int64_t>(size);
  return nullptr;
}

void give_back_output(void* memory) {
  if (!memory) return;
  Header* block = static_cast<Header*>(memory) - 1;
  const auto size = static_cast<int64_t>(block->capacity);
  std::lock_guard<std::mutex> lock(guard);
  state.used_bytes -= size;
  if (size > state.limit_bytes) return std::free(block);
  try {
    kept.push_back(block);
  } catch (const std::bad_alloc&) {
    return std::free(block);
  }
  state.kept_bytes += size;
  shrink_to(state.limit_bytes);
}

void* resize_output(void* memory, size_t bytes) {
  if (!memory) return take_output(bytes);
  const size_t capacity = (static_cast<Header*>(memory) - 1)->capacity - sizeof(Header);
  void* larger = take_output(bytes);
  if (!larger) return nullptr;
  std::memcpy(larger, memory, bytes < capacity ? bytes : capacity);
  give_back_output(memory);
  return larger;
}

OutputMemory output_memory() {
  std::lock_guard<std::mutex> lock(guard);
  return state;
}

void limit_output_memory(int64_t bytes) {
  std::lock_guard<std::mutex> lock(guard);
  state.limit_bytes = bytes;
  shrink_to(bytes);
}

void empty_output_memory() {
  std::lock_guard<std::mutex> lock(guard);
  shrink_to(0);
}

void install_output_fork_handler() {
  pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

}  // namespace fastdl
