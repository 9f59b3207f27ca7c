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

#if defined(__clang__) || __GNUC__ >= 12
// Four rows: each block of four lanes turned over, by interleaving and by pairs, a shuffle each.
template <class T, int... lane>
FASTDL_INLINE void turn_fours(Vector<T>& a, Vector<T>& b, Vector<T>& c, Vector<T>& d,
                              std::integer_sequence<int, lane...>) {
  constexpr int lanes = kLanes<T>;
  // a0 b0 a1 b1, a2 b2 a3 b3 of each block; then ab0 cd0, ab1 cd1.
  constexpr auto interleaved = [](int i, int half) {
    return i / 4 * 4 + half * 2 + i % 4 / 2 + i % 2 * lanes;
  };
  constexpr auto paired = [](int i, int half) {
    return i / 4 * 4 + half * 2 + i % 2 + i % 4 / 2 * lanes;
  };
  const Vector<T> ab = __builtin_shufflevector(a, b, interleaved(lane, 0)...);
  const Vector<T> ab2 = __builtin_shufflevector(a, b, interleaved(lane, 1)...);
  const Vector<T> cd = __builtin_shufflevector(c, d, interleaved(lane, 0)...);
  const Vector<T> cd2 = __builtin_shufflevector(c, d, interleaved(lane, 1)...);
  a = __builtin_shufflevector(ab, cd, paired(lane, 0)...);
  b = __builtin_shufflevector(ab, cd, paired(lane, 1)...);
  c = __builtin_shufflevector(ab2, cd2, paired(lane, 0)...);
  d = __builtin_shufflevector(ab2, cd2, paired(lane, 1)...);
}
template <class T, int... four>
FASTDL_INLINE void turn_all_fours(Vector<T> (&v)[kLanes<T>], std::integer_sequence<int, four...>) {
  (turn_fours<T>(v[4 * four], v[4 * four + 1], v[4 * four + 2], v[4 * four + 3],
                 std::make_integer_sequence<int, kLanes<T>>{}),
   ...);
}
#endif

// A fold, not a loop: what is not unrolled from the start would go through memory.
template <class T, int size, int... pair>
FASTDL_INLINE void exchange_all(Vector<T> (&v)[kLanes<T>], std::integer_sequence<int, pair...>) {
#if defined(__clang__) || __GNUC__ >= 12
  if constexpr (size == 2)
    return turn_all_fours<T>(v, std::make_integer_sequence<int, kLanes<T> / 4>{});
#endif
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

#if defined(__clang__) || __GNUC__ >= 12
template <class T, int... lane>
FASTDL_INLINE Vector<T> load_halves(const T* low, const T* high,
                                    std::integer_sequence<int, lane...>) {
  typedef T Half __attribute__((vector_size(sizeof(Vector<T>) / 2), aligned(sizeof(T)), may_alias));
  return __builtin_shufflevector(*reinterpret_cast<const Half*>(low),
                                 *reinterpret_cast<const Half*>(high), lane...);
}
template <class T, int... row>
FASTDL_INLINE void load_square(const T* from, int64_t pitch, Vector<T> (&v)[kLanes<T>],
                               std::integer_sequence<int, row...>) {
  constexpr int half = kLanes<T> / 2;
  constexpr std::make_integer_sequence<int, kLanes<T>> all{};
  ((v[row] = load_halves(from + row * pitch, from + (row + half) * pitch, all),
    v[row + half] = load_halves(from + row * pitch + half, from + (row + half) * pitch + half, all)),
   ...);
  exchange_all<T, half / 2>(v, std::make_integer_sequence<int, half>{});
}
#endif

// v[i][j] = from[j * pitch + i]. The first of the exchanges is done by loading: a half of a vector goes
// where it belongs without the unit that shuffles.
template <class T>
FASTDL_INLINE void load_transposed(const T* from, int64_t pitch, Vector<T> (&v)[kLanes<T>]) {
#if defined(__clang__) || __GNUC__ >= 12
  if constexpr (kLanes<T> > 2)
    return load_square(from, pitch, v, std::make_integer_sequence<int, kLanes<T> / 2>{});
#endif
#pragma GCC unroll 16
  for (int i = 0; i < kLanes<T>; ++i) v[i] = load(from + i * pitch);
  transpose<T>(v);
}

}  // namespace fastdl::FASTDL_ISA
