// Strips: some rows of an image's plane in a small buffer, with its padding as zeros and its columns
// sorted by phase (column modulo stride), so that every tap of a strided window reads, and every tap
// of its gradient writes, a row of neighbouring elements without a test for an edge.
//
//   column of the padded plane: q = j*s + b*d     buffer: [row][q mod s][q div s]
//
#pragma once

#include <cstring>

#include "isa.h"
#include "vector_math.h"

namespace fastdl::FASTDL_ISA {

// The buffer of a strip, and the plane that it shows.
template <class T>
struct Strip {
  int64_t height, width;  // of the plane
  int64_t pad_top, pad_left;  // negative where rows or columns are left out
  int64_t stride, columns;    // columns of the padded plane that are read
  int64_t used;               // columns of the plane among them, from max(0, -pad_left) on
  int64_t phase;              // elements of one phase, with a vector to spare
  int64_t row;                // elements of a row: all phases

  Strip(int64_t height, int64_t width, int64_t pad_top, int64_t pad_left, int64_t stride,
        int64_t columns)
      : height(height), width(width), pad_top(pad_top), pad_left(pad_left), stride(stride),
        columns(columns),
        used(max(0, min(width, columns - pad_left) - max(0, -pad_left))),
        phase((ceil_div(columns, stride) / kLanes<T> + 2) * kLanes<T>),
        row(phase * stride) {}

  // What the windows of g read of x.
  explicit Strip(const ConvGeometry& g)
      : Strip(g.height, g.width, g.pad_top, g.pad_left, g.stride_w,
              (g.out_w - 1) * g.stride_w + (g.kernel_w - 1) * g.dilation_w + 1) {}

  // Where column q stands in a row.
  int64_t place(int64_t q) const { return q % stride * phase + q / stride; }

  // Rows `first`, first + 1, ... of the padded plane to a buffer that was zero, or was filled with
  // other rows, before.
  void fill(const T* plane, int64_t first, int64_t rows, T* to) const {
    for (int64_t y = first - pad_top; rows > 0; --rows, ++y, to += row) {
      if (y < 0 || y >= height) {
        Vector<T> zero{};
        for (int64_t i = 0; i < row; i += kLanes<T>) store(to + i, zero);
      } else {
        fill_row(plane + y * width + max(0, -pad_left), to);
      }
    }
  }

  void fill_row(const T* from, T* to) const {
    constexpr int64_t lanes = kLanes<T>;
    const int64_t left = max(0, pad_left);
    int64_t i = 0;
    if (stride == 1) {
      to += left;
      for (; i + lanes <= used; i += lanes) store(to + i, load(from + i));
      if (i < used) store(to + i, load_some(from + i, used - i, T(0)));
    } else if (stride == 2) {
      T *even = to + place(left), *odd = to + place(left + 1);
      for (; i + 2 * lanes <= used; i += 2 * lanes) {
        Vector<T> a = load(from + i), b = load(from + i + lanes);
        store(even + i / 2, even_lanes<T>(a, b));
        store(odd + i / 2, odd_lanes<T>(a, b));
      }
      if (i < used) {
        Vector<T> a = load_some(from + i, used - i, T(0)), b{};
        if (used - i > lanes) b = load_part(from + i + lanes, used - i - lanes, T(0));
        store(even + i / 2, even_lanes<T>(a, b));
        store(odd + i / 2, odd_lanes<T>(a, b));
      }
    } else {
      for (int64_t q = left; q < left + min(stride, used); ++q) {
        T* row = to + place(q);
        for (i = 0; i * stride + q - left < used; ++i) row[i] = from[i * stride + q - left];
      }
    }
  }

  // The reverse: a row of the buffer to a row of the plane, zero where no window reads it.
  void collect_row(const T* from, T* to) const {
    constexpr int64_t lanes = kLanes<T>;
    const int64_t left = pad_left;
    int64_t i = 0;
    if (stride == 1) {
      memcpy(to, from + left, static_cast<size_t>(used) * sizeof(T));
    } else if (stride == 2) {
      const T *even = from + place(left), *odd = from + place(left + 1);
      for (; i + 2 * lanes <= used; i += 2 * lanes) {
        Vector<T> a = load(even + i / 2), b = load(odd + i / 2);
        store(to + i, low_pairs<T>(a, b));
        store(to + i + lanes, high_pairs<T>(a, b));
      }
      if (i < used) {
        Vector<T> a = load(even + i / 2), b = load(odd + i / 2);
        store_some(to + i, used - i, low_pairs<T>(a, b));
        if (used - i > lanes) store_part(to + i + lanes, used - i - lanes, high_pairs<T>(a, b));
      }
    } else {
      for (; i < used; ++i) to[i] = from[place(left + i)];
    }
    memset(to + used, 0, static_cast<size_t>(width - used) * sizeof(T));
  }
};

}  // namespace fastdl::FASTDL_ISA
