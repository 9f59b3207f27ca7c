// A product of matrices in memory. matrix_product.cpp
#pragma once

#include "isa.h"

namespace fastdl::FASTDL_ISA {

// c(i, j) = bias(j) + sum over pieces p and k < depth of a(p, i, k) * b(p, k, j)
//
// The sum may be cut into slices, of which each is written by itself: c(slice, i, j).
template <class T>
struct MatrixProduct {
  int64_t rows, columns, depth;
  const T* a;
  int64_t a_row, a_term;  // a(p, i, k) at p * a_piece + i * a_row + k * a_term; of the two one is 1
  const T* b;
  int64_t b_term, b_column;  // b(p, k, j) at p * b_piece + k * b_term + j * b_column, likewise
  const T* bias;             // or null
  T* c;                      // dense, row by row
  int64_t pieces = 1, a_piece = 0, b_piece = 0, slices = 1;
};

// Returns kNoMemory where there is none.
template <class T>
int matrix_product(const MatrixProduct<T>& product, int threads);

}  // namespace fastdl::FASTDL_ISA
