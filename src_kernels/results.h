// Planes cut into tasks, the memory of a task, and the way of its results to their array.
#pragma once

#include <cstring>

#include "parallel.h"
#include "stream.h"

namespace fastdl::FASTDL_ISA {

// What a strip should not exceed: it shares the first-level cache with its results.
constexpr int64_t kStripBytes = 24 * 1024;
// Operations on an element that make a task, and those that are worth a thread.
constexpr int64_t kTaskWork = 200 * 1000, kThreadWork = 100 * 1000;

// Planes cut into strips of `rows` rows of results, a multiple of `block` where there are several,
// that read `stride` rows of `row_bytes` each and `halo` more.
struct Cut {
  int64_t rows, strips, units;

  Cut(int64_t planes, int64_t out_rows, int64_t stride, int64_t halo, int64_t row_bytes,
      int64_t block) {
    int64_t most = max(block, (kStripBytes / row_bytes - halo) / stride);
    strips = ceil_div(out_rows, most);
    rows = min(out_rows, ceil_div(ceil_div(out_rows, strips), block) * block);
    strips = ceil_div(out_rows, rows);
    units = planes * strips;
  }
};

// body(begin, end) over ranges of units that take `work` operations each.
template <class Body>
FASTDL_INLINE void parallel_units(int64_t units, int64_t work, int threads, Body body) {
  threads = static_cast<int>(max(1, min(threads, units * work / kThreadWork)));
  int64_t range = threads == 1 ? units : max(1, min(units / threads / 4, kTaskWork / work));
  parallel_for(ceil_div(units, range), threads, [&](int64_t task) {
    body(task * range, min(units, (task + 1) * range));
  });
}

// Small strips that are filled before the first of them is read: reading a vector across two stores
// that are still on their way to the cache takes as long as a small strip's sums.
FASTDL_INLINE int64_t strips_at_once(int64_t strip_bytes) {
  return max(1, kStripBytes / 2 / strip_bytes);
}
// fill(unit, slot) and then compute(unit, slot) for units [begin, end), in groups of `slots`.
template <class Fill, class Compute>
FASTDL_INLINE void fill_and_compute(int64_t begin, int64_t end, int64_t slots, Fill fill,
                                    Compute compute) {
  for (; begin < end; begin += slots) {
    const int64_t count = min(slots, end - begin);
    for (int64_t slot = 0; slot < count; ++slot) fill(begin + slot, slot);
    for (int64_t slot = 0; slot < count; ++slot) compute(begin + slot, slot);
  }
}

// Memory of a task: `integers` int64_t, then `elements` elements that are zero.
template <class T>
struct TaskMemory {
  int64_t* integers;
  T* elements;

  TaskMemory(int64_t integer_count, int64_t element_count) {
    const int64_t head = ceil_div(integer_count, 8) * 64;
    const int64_t size = element_count * static_cast<int64_t>(sizeof(T));
    char* base = static_cast<char*>(workspace(head + size));
    integers = reinterpret_cast<int64_t*>(base);
    elements = reinterpret_cast<T*>(base + head);
    if (base) memset(elements, 0, static_cast<size_t>(size));
  }
  explicit operator bool() const { return integers; }
};

// Whether rows of results go straight to their array: not where whole vectors would run over a narrow
// row's end, nor where they go past the caches.
template <class T>
struct Route {
  static constexpr int64_t kGathered = 16 * 1024 / sizeof(T);
  bool past_caches, direct;
  int64_t capacity;  // elements that are gathered before they are written

  Route(int64_t width, int64_t array_size, int64_t strip_size)
      : past_caches(goes_past_caches(array_size * static_cast<int64_t>(sizeof(T)))),
        direct(width >= kLanes<T> && !past_caches),
        capacity(direct ? 0 : max(kGathered, strip_size)) {}

  // Elements of the buffer, into which a vector may run over.
  int64_t room() const { return capacity + kLanes<T>; }
};

// The results of a task: ask where those for `at` are to be put, say that they are there. Results
// that follow each other in memory are written together.
template <class T>
class Results {
 public:
  Results(const Route<T>& route, T* buffer) : route_(route), buffer_(buffer) {}
  ~Results() { flush(); }
  Results(const Results&) = delete;
  Results& operator=(const Results&) = delete;

  T* next(T* at, int64_t size) {
    if (route_.direct) return at;
    if (at != out_ + filled_ || filled_ + size > route_.capacity) flush();
    if (!filled_) out_ = at;
    return buffer_ + filled_;
  }
  void done(int64_t size) {
    if (!route_.direct) filled_ += size;
  }

 private:
  void flush() {
    write<T>(out_, filled_, route_.past_caches,
             [&](int64_t i, int64_t count) { return load_some(buffer_ + i, count, T(0)); });
    filled_ = 0;
  }

  const Route<T> route_;
  T *buffer_, *out_ = nullptr;
  int64_t filled_ = 0;
};

}  // namespace fastdl::FASTDL_ISA
