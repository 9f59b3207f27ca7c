// C (MR x NR) = A (MR x depth) * B (depth x NR), the inner loop of every convolution.
//
// The letters are those of the BLIS paper (Van Zee and van de Geijn, "BLIS: A Framework for
// Rapidly Instantiating BLAS Functionality", ACM TOMS 41(3), 2015):
//
//          NR = 2 vectors             A: rows kAPitch apart, each element broadcast
//        +--------------+             B: rows kBPitch apart, of which a panel of NR columns is read;
//   MR   |  C: MR * 2   |                the panel stays in the first-level cache
//        |  registers   |             C: summed in registers from zero over at most kKC terms
//        +--------------+
//
// A and B are packed. Their pitches are constants, so that every address is one register and a
// constant; and odd numbers of cache lines, or next to each other, so that rows do not meet in one
// cache set.
//
// A sum over more than kKC terms is a sum of such partial sums, which keeps the rounding error of
// long sums small (blocked summation).
#pragma once

#include "isa.h"

namespace fastdl::FASTDL_ISA {

// The tile fills the registers: 28 of 32 with AVX-512 (2 vectors of B and a broadcast beside it),
// 12 of 16 with AVX2, 8 of 16 without FMA (whose products need registers too).
#if FASTDL_VECTOR_BYTES == 64
constexpr int kMR = 14, kNRVectors = 2;
#elif defined(__AVX2__)
constexpr int kMR = 6, kNRVectors = 2;
#elif defined(__aarch64__)
constexpr int kMR = 6, kNRVectors = 4;
#else
constexpr int kMR = 4, kNRVectors = 2;
#endif

template <class T>
constexpr int kNR = kNRVectors * kLanes<T>;

template <class T>
constexpr int kLineLength = 64 / static_cast<int>(sizeof(T));

// Rows of B, and so terms of one running sum: a panel of at most 24 KiB; few enough for the
// rounding error of one sum.
constexpr int kKC = 192;
// Columns of B: its block of at most 200 KiB stays in the second-level cache.
template <class T>
constexpr int kNC = 1024 / static_cast<int>(sizeof(T));

template <class T>
constexpr int kAPitch = kKC + kLineLength<T>;
template <class T>
constexpr int kBPitch = kNC<T> + kLineLength<T>;

// How a packed A and B lie: element (r, k) of A at r * row + k * term, row k of B at k * panel.
template <class T>
struct RowsByBlock {  // A: rows; B: a panel of a block
  static constexpr int row = kAPitch<T>, term = 1, panel = kBPitch<T>;
};
template <class T>
struct RowsByPanel {  // A: rows; B: a panel by itself
  static constexpr int row = kAPitch<T>, term = 1, panel = kNR<T>;
};
template <class T>
struct BlockByPanel {  // A: columns of a block; B: a panel by itself
  static constexpr int row = 1, term = kBPitch<T>, panel = kNR<T>;
};
template <class T>
struct PlanesByPanel {  // A: pixels of planes where they lie; B: a panel by itself
  static constexpr int row = 1, panel = kNR<T>;
  int64_t term;  // elements of a plane
};

// What happens to a tile when its sum is done.
template <class T>
struct Finish {
  const T* bias;    // an element a row of C, or null
  bool accumulate;  // add to what C holds
  bool relu;
};

// Row r of C starts at c + r * ldc.
template <class T, int rows, int vectors>
FASTDL_INLINE void finish_tile(Vector<T> (&sum)[rows][vectors], T* c, int64_t ldc,
                               const Finish<T>& finish) {
  // One stage at a time, so that each question is asked once a tile.
  if (finish.accumulate) {
#pragma GCC unroll 14
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) sum[r][v] += load(c + r * ldc + v * kLanes<T>);
  }
  if (finish.bias) {
#pragma GCC unroll 14
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) sum[r][v] += splat(finish.bias[r]);
  }
  if (finish.relu) {
#pragma GCC unroll 14
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) sum[r][v] = relu<T>(sum[r][v]);
  }
#pragma GCC unroll 14
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) store(c + r * ldc + v * kLanes<T>, sum[r][v]);
}

template <class T, class Layout, int rows, int vectors>
static void microkernel(int64_t depth, const T* a, const T* b, T* c, int64_t ldc,
                        const Finish<T>& finish, Layout layout) {
  // C is needed last: ask for it first.
#pragma GCC unroll 14
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) __builtin_prefetch(c + r * ldc + v * kLanes<T>, 1);
  Vector<T> sum[rows][vectors] = {};
  for (int64_t k = 0; k < depth; ++k, a += layout.term, b += Layout::panel) {
    Vector<T> panel[vectors];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) panel[v] = load(b + v * kLanes<T>);
#pragma GCC unroll 14
    for (int r = 0; r < rows; ++r) {
      Vector<T> element = splat(a[r * Layout::row]);
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) sum[r][v] += element * panel[v];
    }
  }
  finish_tile<T, rows, vectors>(sum, c, ldc, finish);
}

template <class T, class Layout>
using Microkernel = void (*)(int64_t, const T*, const T*, T*, int64_t, const Finish<T>&, Layout);

template <class T, class Layout, int rows>
static constexpr Microkernel<T, Layout> microkernel_row[] = {
    microkernel<T, Layout, rows, 1>,
    microkernel<T, Layout, rows, 2>,
#if defined(__aarch64__)
    microkernel<T, Layout, rows, 3>,
    microkernel<T, Layout, rows, 4>,
#endif
};

// The microkernel of a tile of rows (1 to kMR) by vectors (1 to kNRVectors).
template <class T, class Layout = RowsByBlock<T>, int most_rows = kMR>
FASTDL_INLINE Microkernel<T, Layout> choose_microkernel(int rows, int vectors) {
  if constexpr (most_rows > 1)
    if (rows < most_rows) return choose_microkernel<T, Layout, most_rows - 1>(rows, vectors);
  return microkernel_row<T, Layout, most_rows>[vectors - 1];
}

// `size` rows divided into tiles of at most `most`, as even as can be.
struct Tiles {
  int64_t count;
  int least;
  int64_t larger;  // so many of the tiles have a row more
  explicit Tiles(int64_t size, int most = kMR)
      : count((size - 1) / most + 1), least(static_cast<int>(size / count)), larger(size % count) {}
  int rows(int64_t tile) const { return least + (tile < larger); }
};

// [0, size) divided into `parts` as even as can be: where part `i` begins.
FASTDL_INLINE int64_t part(int64_t size, int64_t parts, int64_t i) { return size * i / parts; }

}  // namespace fastdl::FASTDL_ISA
