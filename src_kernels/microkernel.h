// C (MR x NR) = A (MR x depth) * B (depth x NR), the inner loop of every convolution.
//
// The letters are those of the BLIS paper (Van Zee and van de Geijn, "BLIS: A Framework for
// Rapidly Instantiating BLAS Functionality", ACM TOMS 41(3), 2015):
//
//          NR = 3 vectors                A: MR rows of the caller's matrix, read in place,
//        +--------------+                   each element broadcast
//   MR   |  C: MR * 3   |                B: a packed panel, `depth` rows of NR elements,
//        |  registers   |                   small enough to stay in the first-level cache
//        +--------------+                C: summed in registers from zero over one panel
//
// A sum over more than one panel is a sum of such partial sums, which keeps the rounding error of
// long sums small (blocked summation).
#pragma once

#include "isa.h"

namespace fastdl::FASTDL_ISA {

// The tile fills the registers: 24 of 32 with AVX-512 (3 vectors of B and a broadcast beside it),
// 12 of 16 with AVX2, 8 of 16 without FMA (whose products need registers too).
#if defined(__AVX512F__)
constexpr int kMR = 8, kNRVectors = 3;
#elif defined(__AVX2__)
constexpr int kMR = 4, kNRVectors = 3;
#elif defined(__aarch64__)
constexpr int kMR = 6, kNRVectors = 4;
#else
constexpr int kMR = 4, kNRVectors = 2;
#endif

template <class T>
constexpr int kNR = kNRVectors * kLanes<T>;

// Rows of a panel, and so terms of one running sum: at most 36 KiB, which a first-level
// cache of 48 KiB holds; few enough for the rounding error of one sum.
constexpr int kKC = 192;

// What happens to a tile when its sum is done.
template <class T>
struct Finish {
  const T* bias;    // an element a row of C, or null
  bool accumulate;  // add to what C holds
  bool relu;
};

// Row r of A starts at a + r * lda, row r of C at c + r * ldc; B's rows are `vectors` vectors long.
template <class T, int rows, int vectors>
static void microkernel(int64_t depth, const T* a, int64_t lda, const T* b, T* c, int64_t ldc,
                        const Finish<T>& finish) {
  // C is needed last: ask for it first.
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) __builtin_prefetch(c + r * ldc + v * kLanes<T>, 1);
  Vector<T> sum[rows][vectors] = {};
  for (int64_t k = 0; k < depth; ++k) {
    Vector<T> panel[vectors];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) panel[v] = load(b + (k * vectors + v) * kLanes<T>);
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) {
      Vector<T> element = splat(a[r * lda + k]);
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) sum[r][v] += element * panel[v];
    }
  }
  // One stage at a time, so that each question is asked once a tile.
  if (finish.accumulate) {
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) sum[r][v] += load(c + r * ldc + v * kLanes<T>);
  }
  if (finish.bias) {
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) sum[r][v] += splat(finish.bias[r]);
  }
  if (finish.relu) {
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) sum[r][v] = relu<T>(sum[r][v]);
  }
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) store(c + r * ldc + v * kLanes<T>, sum[r][v]);
}

template <class T>
using Microkernel = void (*)(int64_t, const T*, int64_t, const T*, T*, int64_t, const Finish<T>&);

template <class T, int rows>
static constexpr Microkernel<T> microkernel_row[4] = {
    microkernel<T, rows, 1>, microkernel<T, rows, 2>,
#if defined(__aarch64__)
    microkernel<T, rows, 3>, microkernel<T, rows, 4>,
#elif defined(__AVX2__)
    microkernel<T, rows, 3>,
#endif
};

// The microkernel of a tile of rows (1 to kMR) by vectors (1 to kNRVectors).
template <class T>
FASTDL_INLINE Microkernel<T> choose_microkernel(int rows, int vectors) {
  switch (rows) {
    case 1: return microkernel_row<T, 1>[vectors - 1];
    case 2: return microkernel_row<T, 2>[vectors - 1];
    case 3: return microkernel_row<T, 3>[vectors - 1];
#if defined(__AVX512F__)
    case 4: return microkernel_row<T, 4>[vectors - 1];
    case 5: return microkernel_row<T, 5>[vectors - 1];
    case 6: return microkernel_row<T, 6>[vectors - 1];
    case 7: return microkernel_row<T, 7>[vectors - 1];
#elif defined(__aarch64__)
    case 4: return microkernel_row<T, 4>[vectors - 1];
    case 5: return microkernel_row<T, 5>[vectors - 1];
#endif
    default: return microkernel_row<T, kMR>[vectors - 1];
  }
}

}  // namespace fastdl::FASTDL_ISA
