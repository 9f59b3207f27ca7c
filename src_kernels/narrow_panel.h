// Panels of B by themselves: rows of kNR elements next to each other, at most kKC of them, so that
// one stays in the first-level cache while every tile of A meets it. Panels are kPanelSize apart.
#pragma once

#include "microkernel.h"
#include "transpose.h"

namespace fastdl::FASTDL_ISA {

// Elements of a panel.
template <class T>
constexpr int64_t kPanelSize = kKC * kNR<T>;

// Panels of B(k, j) = from[j * pitch + k] for k < terms, j < columns; other columns are zero.
template <class T>
FASTDL_INLINE void pack_turned(const T* from, int64_t pitch, int64_t terms, int64_t columns, T* to) {
  constexpr int64_t lanes = kLanes<T>, wide = kNR<T>;
  for (int64_t j = 0; j < columns; j += wide, to += kPanelSize<T>)
    for (int64_t v = 0; v < wide; v += lanes) {
      const int64_t count = min(lanes, columns - j - v);
      const T* row = from + (j + v) * pitch;
      int64_t k = 0;
      if (count == lanes && terms >= lanes)
        // The last square reaches back.
        for (; k < terms; k += lanes) {
          const int64_t first = min(k, terms - lanes);
          Vector<T> square[lanes];
          load_transposed<T>(row + first, pitch, square);
#pragma GCC unroll 16
          for (int i = 0; i < lanes; ++i) store(to + (first + i) * wide + v, square[i]);
        }
      for (; k < terms; ++k)
        for (int64_t i = 0; i < lanes; ++i) to[k * wide + v + i] = i < count ? row[i * pitch + k] : 0;
    }
}

// Panels of B(k, j) = from[k * pitch + j] for k < terms, j < columns; other columns are zero.
template <class T>
FASTDL_INLINE void pack_copied(const T* from, int64_t pitch, int64_t terms, int64_t columns, T* to) {
  constexpr int64_t lanes = kLanes<T>, wide = kNR<T>;
  for (int64_t k = 0; k < terms; ++k, from += pitch, to += wide) {
    T* row = to;
    int64_t j = 0;
    for (; j + wide <= columns; j += wide, row += kPanelSize<T>)
#pragma GCC unroll 4
      for (int64_t v = 0; v < wide; v += lanes) store(row + v, load(from + j + v));
    if (j < columns)
      for (int64_t i = 0; i < wide; ++i) row[i] = j + i < columns ? from[j + i] : 0;
  }
}

// Into how many shares panels are divided, at least `least`, where there are `others` tasks of each
// share: enough tasks for every thread, and as many for each.
FASTDL_INLINE int64_t panel_shares(int64_t panels, int64_t least, int64_t others, int threads) {
  int64_t shares = least;
  if (threads == 1) return shares;
  while (others * shares < 2 * threads && 2 * shares <= panels) shares *= 2;
  while (others * shares % threads != 0 && others * shares < 8 * threads && shares < panels)
    ++shares;
  return shares;
}

}  // namespace fastdl::FASTDL_ISA
