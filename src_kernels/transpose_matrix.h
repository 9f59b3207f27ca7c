// Transposition of a matrix, in squares that vectors of 16 bytes hold.
#pragma once

#include "isa.h"

namespace fastdl::FASTDL_ISA {

// The shuffles of every instruction set work on 16 bytes without crossing lanes.
template <class T>
struct Quad {
  typedef T type __attribute__((vector_size(16)));
  typedef T unaligned __attribute__((vector_size(16), aligned(sizeof(T)), may_alias));
};

// to[j, i] = from[i, j] for a square of 4 floats or 2 doubles.
FASTDL_INLINE void transpose_square(const float* from, int64_t from_pitch, float* to,
                                    int64_t to_pitch) {
  typedef Quad<float>::type F;
  typedef Quad<float>::unaligned Unaligned;
  auto row = [&](int i) { return *reinterpret_cast<const Unaligned*>(from + i * from_pitch); };
  auto put = [&](int i, F v) { *reinterpret_cast<Unaligned*>(to + i * to_pitch) = v; };
  F a = row(0), b = row(1), c = row(2), d = row(3);
#if defined(__clang__)
  F ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab2 = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  F cd = __builtin_shufflevector(c, d, 0, 4, 1, 5), cd2 = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  put(0, __builtin_shufflevector(ab, cd, 0, 1, 4, 5));
  put(1, __builtin_shufflevector(ab, cd, 2, 3, 6, 7));
  put(2, __builtin_shufflevector(ab2, cd2, 0, 1, 4, 5));
  put(3, __builtin_shufflevector(ab2, cd2, 2, 3, 6, 7));
#else
  typedef int32_t I __attribute__((vector_size(16)));
  const I low = {0, 4, 1, 5}, high = {2, 6, 3, 7}, first = {0, 1, 4, 5}, second = {2, 3, 6, 7};
  F ab = __builtin_shuffle(a, b, low), ab2 = __builtin_shuffle(a, b, high);
  F cd = __builtin_shuffle(c, d, low), cd2 = __builtin_shuffle(c, d, high);
  put(0, __builtin_shuffle(ab, cd, first));
  put(1, __builtin_shuffle(ab, cd, second));
  put(2, __builtin_shuffle(ab2, cd2, first));
  put(3, __builtin_shuffle(ab2, cd2, second));
#endif
}
FASTDL_INLINE void transpose_square(const double* from, int64_t from_pitch, double* to,
                                    int64_t to_pitch) {
  typedef Quad<double>::type D;
  D a = *reinterpret_cast<const Quad<double>::unaligned*>(from);
  D b = *reinterpret_cast<const Quad<double>::unaligned*>(from + from_pitch);
  *reinterpret_cast<Quad<double>::unaligned*>(to) = D{a[0], b[0]};
  *reinterpret_cast<Quad<double>::unaligned*>(to + to_pitch) = D{a[1], b[1]};
}

// to[j * to_pitch + i] = from[i * from_pitch + j] for i < rows, j < columns. Strips of a cache line
// each way: lines are read once and written whole.
template <class T>
static void transpose(const T* from, int64_t from_pitch, int64_t rows, int64_t columns, T* to,
                      int64_t to_pitch) {
  constexpr int64_t side = 16 / static_cast<int64_t>(sizeof(T)), line = 4 * side;
  const int64_t full_rows = rows / side * side, full_columns = columns / side * side;
  for (int64_t i0 = 0; i0 < full_rows; i0 += line)
    for (int64_t j0 = 0; j0 < full_columns; j0 += line)
      for (int64_t i = i0; i < min(full_rows, i0 + line); i += side)
        for (int64_t j = j0; j < min(full_columns, j0 + line); j += side)
          transpose_square(from + i * from_pitch + j, from_pitch, to + j * to_pitch + i, to_pitch);
  for (int64_t i = 0; i < full_rows; ++i)
    for (int64_t j = full_columns; j < columns; ++j)
      to[j * to_pitch + i] = from[i * from_pitch + j];
  for (int64_t i = full_rows; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j) to[j * to_pitch + i] = from[i * from_pitch + j];
}

}  // namespace fastdl::FASTDL_ISA
