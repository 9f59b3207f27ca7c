// Functions of a whole vector: exp and what is made of it, and sums over an array.
//
// exp follows Cody and Waite, "Software Manual for the Elementary Functions" (1980), chapter 6:
//   x = n ln 2 + r, |r| <= ln 2 / 2;  exp(x) = 2^n exp(r), exp(r) by its Taylor polynomial.
#pragma once

#include <cstring>

#include "isa.h"

namespace fastdl::FASTDL_ISA {

template <class T>
struct ExpTraits;

template <>
struct ExpTraits<float> {
  using Integer = int32_t;
  static constexpr int kMantissa = 23, kExponentBias = 127;
  // Adding this rounds to an integer and leaves it in the low bits.
  static constexpr float kRound = 0x1.8p23f;
  static constexpr float kLog2E = 0x1.715476p+0f;
  static constexpr float kLn2High = 0x1.62e4p-1f, kLn2Low = 0x1.7f7d1cp-20f;
  // Beyond these exp is 0 or infinity, expm1(2x) / (expm1(2x) + 2) is 1.
  static constexpr float kLowest = -105.0f, kHighest = 89.0f, kTanhIsOne = 10.0f;
  static constexpr int kTerms = 7;
};

template <>
struct ExpTraits<double> {
  using Integer = int64_t;
  static constexpr int kMantissa = 52, kExponentBias = 1023;
  static constexpr double kRound = 0x1.8p52;
  static constexpr double kLog2E = 0x1.71547652b82fep+0;
  static constexpr double kLn2High = 0x1.62e42fee00000p-1, kLn2Low = 0x1.a39ef35793c76p-33;
  static constexpr double kLowest = -746.0, kHighest = 710.0, kTanhIsOne = 20.0;
  static constexpr int kTerms = 13;
};

template <class T>
using IntegerVector = Vector<typename ExpTraits<T>::Integer>;

// x = n ln 2 + r: the bits of n, and exp(r) - 1.
template <class T>
struct Reduced {
  IntegerVector<T> n;
  Vector<T> expm1;
};

template <class T>
FASTDL_INLINE Reduced<T> reduce_exp(Vector<T> x) {
  using E = ExpTraits<T>;
  Vector<T> shifted = x * E::kLog2E + E::kRound;
  Vector<T> n = shifted - E::kRound;
  Vector<T> r = (x - n * E::kLn2High) - n * E::kLn2Low;
  T factor = 1;
  for (int i = 2; i <= E::kTerms; ++i) factor /= static_cast<T>(i);
  // Horner from the highest term: p = 1/k! + r p.
  Vector<T> p = splat(factor);
#pragma GCC unroll 13
  for (int i = E::kTerms; i > 1; --i) p = p * r + (factor *= static_cast<T>(i));
  return {(IntegerVector<T>)shifted - (IntegerVector<T>)splat(E::kRound), p * r};
}

// 2^n for n within the exponent's range.
template <class T>
FASTDL_INLINE Vector<T> power_of_two(IntegerVector<T> n) {
  return (Vector<T>)((n + ExpTraits<T>::kExponentBias) << ExpTraits<T>::kMantissa);
}

template <class T>
FASTDL_INLINE Vector<T> exp(Vector<T> x) {
  using E = ExpTraits<T>;
  x = x < E::kLowest ? splat(E::kLowest) : x;
  x = x > E::kHighest ? splat(E::kHighest) : x;
  Reduced<T> reduced = reduce_exp<T>(x);
  // In two steps, as 2^n alone may be too large or too small to be a number.
  IntegerVector<T> half = reduced.n >> 1;
  return (reduced.expm1 + T(1)) * power_of_two<T>(half) * power_of_two<T>(reduced.n - half);
}

template <class T>
FASTDL_INLINE Vector<T> absolute(Vector<T> x) {
  return (Vector<T>)((IntegerVector<T>)x & ~(IntegerVector<T>)splat(T(-0.0)));
}

// 1 / (1 + exp(-x)), from exp(-|x|), which cannot overflow.
template <class T>
FASTDL_INLINE Vector<T> sigmoid(Vector<T> x) {
  Vector<T> e = exp<T>(-absolute<T>(x));
  return (x < 0 ? e : splat(T(1))) / (e + T(1));
}

// expm1(2|x|) / (expm1(2|x|) + 2) with the sign of x: exact near zero, where exp(2x) - 1 is not.
template <class T>
FASTDL_INLINE Vector<T> tanh(Vector<T> x) {
  using E = ExpTraits<T>;
  Vector<T> size = absolute<T>(x);
  size = size > E::kTanhIsOne ? splat(E::kTanhIsOne) : size;
  Reduced<T> reduced = reduce_exp<T>(size * T(2));
  Vector<T> scale = power_of_two<T>(reduced.n);
  Vector<T> expm1 = reduced.expm1 * scale + (scale - T(1));
  Vector<T> result = expm1 / (expm1 + T(2));
  IntegerVector<T> sign = (IntegerVector<T>)x & (IntegerVector<T>)splat(T(-0.0));
  return (Vector<T>)((IntegerVector<T>)result | sign);
}

template <class T>
FASTDL_INLINE Vector<T> apply(Activation activation, Vector<T> x) {
  switch (activation) {
    case kRelu: return relu<T>(x);
    case kSigmoid: return sigmoid<T>(x);
    case kTanh: return tanh<T>(x);
    default: return x;
  }
}

// The first `count` (fewer than a vector) elements from p on, the rest filled up.
template <class T>
FASTDL_INLINE Vector<T> load_part(const T* p, int64_t count, T fill) {
  Vector<T> v = splat(fill);
  memcpy(&v, p, static_cast<size_t>(count) * sizeof(T));
  return v;
}
template <class T>
FASTDL_INLINE void store_part(T* p, int64_t count, Vector<T> v) {
  memcpy(p, &v, static_cast<size_t>(count) * sizeof(T));
}

// out[i] = body(x[i]) for i in [0, size), a vector at a time.
template <class T, class Body>
FASTDL_INLINE void map(const T* x, int64_t size, T* out, Body body) {
  int64_t i = 0;
  for (; i + kLanes<T> <= size; i += kLanes<T>) store(out + i, body(load(x + i)));
  if (i < size) store_part<T>(out + i, size - i, body(load_part(x + i, size - i, T(0))));
}
// out[i] = body(x[i], y[i])
template <class T, class Body>
FASTDL_INLINE void map(const T* x, const T* y, int64_t size, T* out, Body body) {
  int64_t i = 0;
  for (; i + kLanes<T> <= size; i += kLanes<T>) store(out + i, body(load(x + i), load(y + i)));
  if (i < size)
    store_part<T>(out + i, size - i,
                  body(load_part(x + i, size - i, T(0)), load_part(y + i, size - i, T(0))));
}

template <class T>
FASTDL_INLINE double horizontal_sum(Vector<T> v) {
  double sum = 0;
  for (int i = 0; i < kLanes<T>; ++i) sum += static_cast<double>(v[i]);
  return sum;
}

// The sum of body(position, count) for positions 0, lanes, 2 lanes, ... below size, where count is
// `lanes` but at the end. Four running sums, each of at most 16 terms before they go into a double.
template <class T, class Body>
FASTDL_INLINE double sum_vectors(int64_t size, Body body) {
  constexpr int64_t step = 4 * kLanes<T>, stretch = 16 * step;
  double total = 0;
  int64_t i = 0;
  while (i + step <= size) {
    Vector<T> sum[4] = {};
    for (int64_t end = min(size - step, i + stretch - step); i <= end; i += step)
      for (int v = 0; v < 4; ++v) sum[v] += body(i + v * kLanes<T>, int64_t{kLanes<T>});
    total += horizontal_sum<T>((sum[0] + sum[1]) + (sum[2] + sum[3]));
  }
  Vector<T> rest{};
  for (; i < size; i += kLanes<T>) rest += body(i, min(size - i, kLanes<T>));
  return total + horizontal_sum<T>(rest);
}

template <class T>
FASTDL_INLINE Vector<T> load_some(const T* p, int64_t count, T fill) {
  return count == kLanes<T> ? load(p) : load_part(p, count, fill);
}

template <class T>
FASTDL_INLINE double sum_of(const T* x, int64_t size) {
  return sum_vectors<T>(size, [&](int64_t i, int64_t n) { return load_some(x + i, n, T(0)); });
}
template <class T>
FASTDL_INLINE double dot(const T* x, const T* y, int64_t size) {
  return sum_vectors<T>(size, [&](int64_t i, int64_t n) {
    return load_some(x + i, n, T(0)) * load_some(y + i, n, T(0));
  });
}

}  // namespace fastdl::FASTDL_ISA
