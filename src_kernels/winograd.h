// The Winograd algorithm: m x m outputs of an r x r filter, m + r = 7, from 36 products.
//
//   Y = A^T [ (G g G^T) * (B^T d B) ] A      d: 6x6 inputs, g: r x r filter, Y: m x m outputs
//
// (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section 4.)
// The polynomials are interpolated at 0, +-3/4, +-3/2 and infinity, which keep the error of
// float32 at half of that of the usual 0, +-1, +-2. With a = 3/4, b = 3/2:
//
//   row of B^T for 0:    (x^2 - a^2)(x^2 - b^2)          scale 1 / (a^2 b^2)
//              for +-a:  x (x +- a)(x^2 - b^2)                 1 / (2 a^2 (a^2 - b^2))
//              for +-b:  x (x +- b)(x^2 - a^2)                 1 / (2 b^2 (b^2 - a^2))
//              for inf:  x (x^2 - a^2)(x^2 - b^2)              1
//   row of G and of A: (1, point, point^2, ...), and for infinity (0, ..., 0, 1)
//
// Only G and A know r and m, so that one B serves F(5x5, 2x2), F(4x4, 3x3) and F(3x3, 4x4). The
// scale may go to any one of the three matrices. The convolution gives it to A^T, so that few tiles
// do not pay for it with every filter; the weight gradient to G^T, which it applies once. The
// functions below are the one-dimensional transforms, of a vector of lanes each.
//
// A filter of r - 1 taps is one of r taps whose last is 0: its row for infinity is 0, which leaves 5
// products. One of a single tap has that tap in every row. winograd_axis.h cuts filters into such.
#pragma once

#include "isa.h"

namespace fastdl::FASTDL_ISA {

// Inputs of a tile, the most outputs and taps, elements of the transformed tile.
constexpr int kTileIn = 6, kMostTile = 5, kMostTaps = 4, kTileElements = 36;

template <class T>
struct Points {
  static constexpr T a = T(0.75), b = T(1.5), a2 = a * a, b2 = b * b;
  static constexpr T product = a2 * b2, sum = a2 + b2;
  static constexpr T s0 = 1 / product, sa = 1 / (2 * a2 * (a2 - b2)), sb = 1 / (2 * b2 * (b2 - a2));
};

// B^T d
template <class T>
FASTDL_INLINE void transform_input(const Vector<T> (&d)[6], Vector<T> (&v)[6]) {
  using P = Points<T>;
  Vector<T> even_a = d[4] - P::b2 * d[2], odd_a = d[3] - P::b2 * d[1];
  Vector<T> even_b = d[4] - P::a2 * d[2], odd_b = d[3] - P::a2 * d[1];
  v[0] = P::product * d[0] + (d[4] - P::sum * d[2]);
  v[1] = even_a + P::a * odd_a;
  v[2] = even_a - P::a * odd_a;
  v[3] = even_b + P::b * odd_b;
  v[4] = even_b - P::b * odd_b;
  v[5] = P::product * d[1] + (d[5] - P::sum * d[3]);
}

// G c or A c, without the scale: the polynomial of n coefficients at the six points.
template <class T, int n>
FASTDL_INLINE void evaluate(const Vector<T> (&c)[n], Vector<T> (&at)[6]) {
  using P = Points<T>;
  Vector<T> even_a = c[0], even_b = c[0], odd_a = c[1], odd_b = c[1];
  if constexpr (n == 3) even_a += P::a2 * c[2], even_b += P::b2 * c[2];
  if constexpr (n == 4)
    even_a += P::a2 * c[2], even_b += P::b2 * c[2], odd_a += P::a2 * c[3], odd_b += P::b2 * c[3];
  if constexpr (n == 5) {
    even_a += P::a2 * (c[2] + P::a2 * c[4]), even_b += P::b2 * (c[2] + P::b2 * c[4]);
    odd_a += P::a2 * c[3], odd_b += P::b2 * c[3];
  }
  at[0] = c[0];
  at[1] = even_a + P::a * odd_a;
  at[2] = even_a - P::a * odd_a;
  at[3] = even_b + P::b * odd_b;
  at[4] = even_b - P::b * odd_b;
  at[5] = c[n - 1];
}

// The first n rows of A^T v or G^T v, with the scale. Infinity counts in the last of them.
template <class T, int n>
FASTDL_INLINE void gather(const Vector<T> (&v)[6], Vector<T> (&y)[n]) {
  using P = Points<T>;
  Vector<T> even_a = v[1] + v[2], odd_a = v[1] - v[2];
  Vector<T> even_b = v[3] + v[4], odd_b = v[3] - v[4];
  T a = P::sa, b = P::sb;
#pragma GCC unroll 5
  for (int k = 0; k < n; ++k, a *= P::a, b *= P::b) {
    Vector<T> last = k == 0 ? P::s0 * v[0] : k == n - 1 ? v[5] : Vector<T>{};
    Vector<T> rest = k % 2 ? b * odd_b : b * even_b;
    if (k == 0 || k == n - 1) rest += last;
    y[k] = (k % 2 ? a * odd_a : a * even_a) + rest;
  }
}

// Whether all lanes are zero, and so none is NaN.
template <class T>
FASTDL_INLINE bool all_zero(Vector<T> v) {
  bool zero = true;
  for (int l = 0; l < kLanes<T>; ++l) zero &= v[l] == 0;
  return zero;
}

}  // namespace fastdl::FASTDL_ISA
