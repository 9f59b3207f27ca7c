// Where results go: arrays written element by element or row by row, into the caches or past them.
//
// A store to memory that no cache holds first reads the line that it is part of, so writing costs
// twice its bytes. A non-temporal store writes whole lines without reading them, and leaves the
// caches to others. It serves where an output is too large to be found in a cache when it is read.
#pragma once

#include "isa.h"
#include "vector_math.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace fastdl::FASTDL_ISA {

// Whether an output of `bytes` should go past the caches: with an input of its size it would not fit.
FASTDL_INLINE bool goes_past_caches(int64_t bytes) { return bytes > last_level_cache() / 2; }

constexpr int64_t kLine = 64;  // bytes of a cache line

// Asks for the first kibibyte of a row that will be read soon. The processor itself notices a row
// only after its first lines have come, and stops at the end of a page.
template <class T>
FASTDL_INLINE void prefetch_row(const T* row) {
  for (int64_t at = 0; at < 1024; at += kLine)
    __builtin_prefetch(reinterpret_cast<const char*>(row) + at);
}

// Asks for all of a short row.
template <class T>
FASTDL_INLINE void prefetch_all(const T* row, int64_t size) {
  const char* from = reinterpret_cast<const char*>(row);
  for (int64_t at = 0; at < size * static_cast<int64_t>(sizeof(T)); at += kLine)
    __builtin_prefetch(from + at);
}

// Asks for the lines of `count` elements from p on, in a loop over a row that goes on to the next.
template <int64_t count, class T>
FASTDL_INLINE void prefetch_next(const T* p) {
#pragma GCC unroll 8
  for (int64_t at = 0; at < count * static_cast<int64_t>(sizeof(T)); at += kLine)
    __builtin_prefetch(reinterpret_cast<const char*>(p) + at);
}

// A non-temporal store to an aligned address, where there is one.
template <class T>
FASTDL_INLINE void stream(T* p, Vector<T> v) {
#if defined(__AVX512F__)
  _mm512_stream_si512(reinterpret_cast<__m512i*>(p), (__m512i)v);
#elif defined(__AVX2__) && FASTDL_VECTOR_BYTES == 32
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p), (__m256i)v);
#elif defined(__SSE2__) && FASTDL_VECTOR_BYTES == 16
  _mm_stream_si128(reinterpret_cast<__m128i*>(p), (__m128i)v);
#else
  store(p, v);
#endif
}

// Non-temporal stores are not ordered: the end of a thread's work waits for them.
FASTDL_INLINE void end_of_stream() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

// Elements from p up to the next line.
template <class T>
FASTDL_INLINE int64_t to_next_line(const T* p) {
  return static_cast<int64_t>(-reinterpret_cast<uintptr_t>(p) % kLine / sizeof(T));
}

// out[i] = body(i, count) for i in [0, size), a vector at a time: `count` of its elements are
// wanted. With `past_caches` whole lines are streamed.
template <class T, class Body>
FASTDL_INLINE void write(T* out, int64_t size, bool past_caches, Body body) {
  int64_t i = 0;
  if (past_caches) {
    const int64_t head = min(size, to_next_line(out));
    for (; i < head; i += kLanes<T>)
      store_some<T>(out + i, min(head - i, kLanes<T>), body(i, min(head - i, kLanes<T>)));
    i = head;
    for (; i + kLanes<T> <= size; i += kLanes<T>) stream<T>(out + i, body(i, int64_t{kLanes<T>}));
    end_of_stream();
  } else {
    for (; i + kLanes<T> <= size; i += kLanes<T>) store<T>(out + i, body(i, int64_t{kLanes<T>}));
  }
  if (i < size) store_part<T>(out + i, size - i, body(i, size - i));
}

// out[i] = body(x[i])
template <class T, class Body>
FASTDL_INLINE void map(const T* x, int64_t size, T* out, bool past_caches, Body body) {
  write<T>(out, size, past_caches,
           [&](int64_t i, int64_t n) { return body(load_some(x + i, n, T(0))); });
}
// out[i] = body(x[i], y[i])
template <class T, class Body>
FASTDL_INLINE void map(const T* x, const T* y, int64_t size, T* out, bool past_caches, Body body) {
  write<T>(out, size, past_caches, [&](int64_t i, int64_t n) {
    return body(load_some(x + i, n, T(0)), load_some(y + i, n, T(0)));
  });
}

// Writes rows that follow each other in memory: ask for the next row's place, fill it, say so.
//
// Rows are any length, and start and end within a line. Those that go past the caches are therefore
// gathered in a buffer, from which whole lines are streamed.
template <class T>
class RowWriter {
 public:
  static constexpr int64_t kLongest = 2048;  // elements of a row at most

  explicit RowWriter(bool past_caches) : past_caches_(past_caches) {}
  ~RowWriter() { finish(); }
  RowWriter(const RowWriter&) = delete;
  RowWriter& operator=(const RowWriter&) = delete;

  bool past_caches() const { return past_caches_; }

  // The next rows are `size` elements from `out` on.
  void start(T* out, int64_t size) {
    if (out != out_ + filled_) {
      flush(0);
      out_ = out;
    }
    end_ = out + size;
  }

  // Where the next `count` elements go. Up to `slack` (two vectors at most) beyond them may be
  // overwritten.
  T* next(int64_t count, int64_t slack) {
    if (past_caches_) {
      if (filled_ + count > kRoom) flush(kLine / static_cast<int64_t>(sizeof(T)));
      return buffer_ + filled_;
    }
    in_place_ = count + slack <= end_ - out_;
    return in_place_ ? out_ : buffer_;
  }

  // That they are there.
  void done(int64_t count) {
    if (past_caches_) {
      filled_ += count;
      return;
    }
    if (!in_place_) memcpy(out_, buffer_, static_cast<size_t>(count) * sizeof(T));
    out_ += count;
  }

 private:
  static constexpr int64_t kRoom = kLongest + kLine / static_cast<int64_t>(sizeof(T));

  // Write what is in the buffer, and keep what fills no unit of `unit` elements; 0 keeps nothing.
  void flush(int64_t unit) {
    int64_t size = filled_;
    if (unit) {
      const int64_t head = to_next_line(out_);
      size = size < head ? 0 : head + (size - head) / unit * unit;
    }
    const T* from = buffer_;
    write<T>(out_, size, true, [&](int64_t i, int64_t n) { return load_some(from + i, n, T(0)); });
    out_ += size;
    filled_ -= size;
    memmove(buffer_, buffer_ + size, static_cast<size_t>(filled_) * sizeof(T));
  }
  void finish() { flush(0); }

  const bool past_caches_;
  T* out_ = nullptr;
  T* end_ = nullptr;
  bool in_place_ = false;
  int64_t filled_ = 0;  // elements in the buffer, that follow out_
  alignas(64) T buffer_[kRoom + 128 / sizeof(T)];
};

}  // namespace fastdl::FASTDL_ISA
