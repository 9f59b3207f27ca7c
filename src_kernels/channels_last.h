// What the kernels for channels-last images, (N, H, W, C) in memory, share: vectors run over the
// channels of a pixel.
#pragma once

#include "parallel.h"
#include "stream.h"
#include "vector_math.h"

namespace fastdl::FASTDL_ISA {

constexpr int64_t kGrain = 32 * 1024;  // elements that are worth a thread

// body(c, count) for the channels [begin, end), a vector at a time. The last one reaches back over those
// before it, where there are enough channels: the body must not mind to be asked twice.
template <class T, class Body>
FASTDL_INLINE void each_channels(int64_t begin, int64_t end, Body body) {
  constexpr int64_t lanes = kLanes<T>;
  if (end - begin < lanes) return body(begin, end - begin);
  int64_t c = begin;
  for (; c + lanes <= end; c += lanes) body(c, lanes);
  if (c < end) body(end - lanes, lanes);
}

// How many vectors are taken at once, as a type.
template <int n>
struct Vectors {
  static constexpr int value = n;
};

// Writes an array of `size` elements in units of `unit`, as vectors of theirs: past the caches where the
// array is large and its units are whole vectors.
template <class T>
class ChannelWriter {
 public:
  ChannelWriter(const T* out, int64_t size, int64_t unit)
      : past_caches_(unit % kLanes<T> == 0 &&
                     reinterpret_cast<uintptr_t>(out) % sizeof(Vector<T>) == 0 &&
                     goes_past_caches(size * static_cast<int64_t>(sizeof(T)))) {}
  bool past_caches() const { return past_caches_; }
  void put(T* to, int64_t count, Vector<T> v) const {
    if (past_caches_) stream<T>(to, v);
    else store_some(to, count, v);
  }
  // At the end of a thread's work.
  void finish() const {
    if (past_caches_) end_of_stream();
  }

 private:
  bool past_caches_;
};

// Channels of each image's row that a task takes: all of them, unless there are too few rows for all
// threads.
FASTDL_INLINE int64_t channel_block(int64_t rows, int64_t channels, int threads) {
  constexpr int64_t least = 64;
  if (threads == 1 || rows >= 4 * threads) return channels;
  const int64_t blocks = max(1, min(channels / least, ceil_div(4 * threads, rows)));
  return ceil_div(ceil_div(channels, blocks), least) * least;
}

// body(image, row, first channel, end) for all rows of all images, each `row_work` elements of work a
// channel.
template <class Body>
void each_row(int64_t images, int64_t rows, int64_t channels, int64_t row_work, int threads, Body body) {
  const int64_t block = channel_block(images * rows, channels, threads);
  const int64_t blocks = ceil_div(channels, block);
  parallel_range(images * rows * blocks, ceil_div(kGrain * blocks, max(1, row_work * channels)), threads,
                 [&](int64_t begin, int64_t end) {
                   for (int64_t unit = begin; unit < end; ++unit) {
                     const int64_t row = unit / blocks, c = unit % blocks * block;
                     body(row / rows, row % rows, c, min(channels, c + block));
                   }
                 });
}

}  // namespace fastdl::FASTDL_ISA
