// A square of vectors turned over its diagonal, in registers.
#pragma once

#include <utility>

#include "isa.h"

namespace fastdl::FASTDL_ISA {

// Exchanges the blocks of `size` lanes that stand off the diagonal:
//   a = a0 a1 a2 a3 ..., b = b0 b1 b2 b3 ...  ->  a = a0 b0 a2 b2 ..., b = a1 b1 a3 b3 ...
template <class T, int size, int... lane>
FASTDL_INLINE void exchange(Vector<T>& a, Vector<T>& b, std::integer_sequence<int, lane...>) {
  constexpr int lanes = kLanes<T>;
#if defined(__clang__) || __GNUC__ >= 12
  Vector<T> first =
      __builtin_shufflevector(a, b, (lane & size ? lanes + lane - size : lane)...);
  b = __builtin_shufflevector(a, b, (lane & size ? lanes + lane : lane + size)...);
#else
  typedef decltype(a < b) Mask;
  Vector<T> first = __builtin_shuffle(a, b, Mask{(lane & size ? lanes + lane - size : lane)...});
  b = __builtin_shuffle(a, b, Mask{(lane & size ? lanes + lane : lane + size)...});
#endif
  a = first;
}

// A fold, not a loop: what is not unrolled from the start would go through memory.
template <class T, int size, int... pair>
FASTDL_INLINE void exchange_all(Vector<T> (&v)[kLanes<T>], std::integer_sequence<int, pair...>) {
  (exchange<T, size>(v[pair / size * 2 * size + pair % size],
                     v[pair / size * 2 * size + pair % size + size],
                     std::make_integer_sequence<int, kLanes<T>>{}),
   ...);
  if constexpr (size > 1)
    exchange_all<T, size / 2>(v, std::make_integer_sequence<int, kLanes<T> / 2>{});
}

// v[i][j] <- v[j][i]
template <class T>
FASTDL_INLINE void transpose(Vector<T> (&v)[kLanes<T>]) {
  exchange_all<T, kLanes<T> / 2>(v, std::make_integer_sequence<int, kLanes<T> / 2>{});
}

}  // namespace fastdl::FASTDL_ISA
