// A panel of B by itself: rows of kNR elements next to each other, at most kKC of them, so that it
// stays in the first-level cache while every tile of A meets it.
#pragma once

#include "microkernel.h"
#include "transpose.h"

namespace fastdl::FASTDL_ISA {

// Elements of a panel.
template <class T>
constexpr int kPanelSize = kKC * kNR<T>;

// to[k, j] = from[j * pitch + k] for k < terms, j < columns; the other columns are zero.
template <class T>
FASTDL_INLINE void pack_turned(const T* from, int64_t pitch, int64_t terms, int64_t columns, T* to) {
  constexpr int64_t lanes = kLanes<T>, wide = kNR<T>;
  for (int64_t j = 0; j < wide; j += lanes) {
    int64_t k = 0;
    if (j + lanes <= columns)
      for (; k + lanes <= terms; k += lanes) {
        Vector<T> square[lanes];
        load_transposed<T>(from + j * pitch + k, pitch, square);
#pragma GCC unroll 16
        for (int i = 0; i < lanes; ++i) store(to + (k + i) * wide + j, square[i]);
      }
    for (; k < terms; ++k)
      for (int64_t i = j; i < j + lanes; ++i) to[k * wide + i] = i < columns ? from[i * pitch + k] : 0;
  }
}

// to[k, j] = from[k * pitch + j] for k < terms, j < columns; the other columns are zero.
template <class T>
FASTDL_INLINE void pack_copied(const T* from, int64_t pitch, int64_t terms, int64_t columns, T* to) {
  constexpr int64_t lanes = kLanes<T>, wide = kNR<T>;
  for (int64_t k = 0; k < terms; ++k, from += pitch, to += wide) {
    if (columns == wide) {
#pragma GCC unroll 4
      for (int64_t j = 0; j < wide; j += lanes) store(to + j, load(from + j));
    } else {
      for (int64_t j = 0; j < wide; ++j) to[j] = j < columns ? from[j] : 0;
    }
  }
}

}  // namespace fastdl::FASTDL_ISA
