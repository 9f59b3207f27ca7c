// The Winograd algorithm F(4x4, 3x3): sixteen outputs of a 3x3 filter from 36 products, not 144.
//
//   Y = A^T [ (G g G^T) * (B^T d B) ] A      d: 6x6 inputs, g: 3x3 filter, Y: 4x4 outputs
//
// (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section 4.)
// The polynomials are interpolated at 0, +-3/4, +-3/2 and infinity, which keep the error of
// float32 at half of that of the usual 0, +-1, +-2. With a = 3/4, b = 3/2:
//
//   row of B^T for 0:    (x^2 - a^2)(x^2 - b^2)        G: (1, 0, 0)      scale 1 / (a^2 b^2)
//              for +-a:  x (x +- a)(x^2 - b^2)             (1, +-a, a^2)       1 / (2 a^2 (a^2 - b^2))
//              for +-b:  x (x +- b)(x^2 - a^2)             (1, +-b, b^2)       1 / (2 b^2 (b^2 - a^2))
//              for inf:  x (x^2 - a^2)(x^2 - b^2)          (0, 0, 1)           1
//   A^T[k][i] = point_i^k, and for infinity (0, 0, 0, 1)
//
// The scale may go to any one of the three matrices. The convolution gives it to A^T, so that few
// tiles do not pay for it with every filter; the weight gradient to G^T, which it applies once. The
// functions below are the one-dimensional transforms, of a vector of lanes each.
#pragma once

#include "isa.h"

namespace fastdl::FASTDL_ISA {

constexpr int kTileOut = 4, kTileIn = 6, kTileElements = 36;

template <class T>
struct Points {
  static constexpr T a = T(0.75), b = T(1.5), a2 = a * a, b2 = b * b, a3 = a2 * a, b3 = b2 * b;
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

// G g, without the scale
template <class T>
FASTDL_INLINE void transform_filter(const Vector<T> (&g)[3], Vector<T> (&u)[6]) {
  using P = Points<T>;
  Vector<T> even_a = g[0] + P::a2 * g[2], even_b = g[0] + P::b2 * g[2];
  u[0] = g[0];
  u[1] = even_a + P::a * g[1];
  u[2] = even_a - P::a * g[1];
  u[3] = even_b + P::b * g[1];
  u[4] = even_b - P::b * g[1];
  u[5] = g[2];
}

// A^T m, with the scale
template <class T>
FASTDL_INLINE void transform_output(const Vector<T> (&m)[6], Vector<T> (&y)[4]) {
  using P = Points<T>;
  Vector<T> even_a = m[1] + m[2], odd_a = m[1] - m[2];
  Vector<T> even_b = m[3] + m[4], odd_b = m[3] - m[4];
  y[0] = P::s0 * m[0] + (P::sa * even_a + P::sb * even_b);
  y[1] = (P::sa * P::a) * odd_a + (P::sb * P::b) * odd_b;
  y[2] = (P::sa * P::a2) * even_a + (P::sb * P::b2) * even_b;
  y[3] = (P::sa * P::a3) * odd_a + ((P::sb * P::b3) * odd_b + m[5]);
}

// A y, without the scale, for the gradient of the filter
template <class T>
FASTDL_INLINE void transform_grad(const Vector<T> (&y)[4], Vector<T> (&z)[6]) {
  using P = Points<T>;
  Vector<T> even_a = y[0] + P::a2 * y[2], odd_a = P::a * y[1] + P::a3 * y[3];
  Vector<T> even_b = y[0] + P::b2 * y[2], odd_b = P::b * y[1] + P::b3 * y[3];
  z[0] = y[0];
  z[1] = even_a + odd_a;
  z[2] = even_a - odd_a;
  z[3] = even_b + odd_b;
  z[4] = even_b - odd_b;
  z[5] = y[3];
}

// G^T u, with the scale, for the gradient of the filter
template <class T>
FASTDL_INLINE void transform_filter_grad(const Vector<T> (&u)[6], Vector<T> (&g)[3]) {
  using P = Points<T>;
  Vector<T> even_a = u[1] + u[2], odd_a = u[1] - u[2];
  Vector<T> even_b = u[3] + u[4], odd_b = u[3] - u[4];
  g[0] = P::s0 * u[0] + (P::sa * even_a + P::sb * even_b);
  g[1] = (P::sa * P::a) * odd_a + (P::sb * P::b) * odd_b;
  g[2] = (P::sa * P::a2) * even_a + ((P::sb * P::b2) * even_b + u[5]);
}

// Whether all lanes are zero, and so none is NaN.
template <class T>
FASTDL_INLINE bool all_zero(Vector<T> v) {
  bool zero = true;
  for (int l = 0; l < kLanes<T>; ++l) zero &= v[l] == 0;
  return zero;
}

}  // namespace fastdl::FASTDL_ISA
