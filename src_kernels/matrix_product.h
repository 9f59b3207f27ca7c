// A product of matrices in memory. matrix_product.cpp
#pragma once

#include "isa.h"

namespace fastdl::FASTDL_ISA {

// c(i, j) = bias(j) + sum over k of a(i, k) * b(k, j)
template <class T>
struct MatrixProduct {
  int64_t rows, columns, depth;
  const T* a;
  int64_t a_row, a_term;  // a(i, k) at i * a_row + k * a_term; one of the two is 1
  const T* b;
  int64_t b_term, b_column;  // b(k, j) at k * b_term + j * b_column; one of the two is 1
  const T* bias;             // or null
  T* c;                      // dense, row by row
};

// Returns kNoMemory where there is none.
template <class T>
int matrix_product(const MatrixProduct<T>& product, int threads);

}  // namespace fastdl::FASTDL_ISA
