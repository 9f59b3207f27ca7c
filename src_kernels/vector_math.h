// Functions of a whole vector: parts of one, exp and what is made of it, and sums over an array.
//
// exp follows Cody and Waite, "Software Manual for the Elementary Functions" (1980), chapter 6:
//   x = n ln 2 + r, |r| <= ln 2 / 2;  exp(x) = 2^n exp(r), exp(r) by its Taylor polynomial.
#pragma once

#include <cstring>

#include "isa.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace fastdl::FASTDL_ISA {

template <size_t bytes>
struct IntegerOf {
  using type = int64_t;
};
template <>
struct IntegerOf<4> {
  using type = int32_t;
};
// The integer as large as T.
template <class T>
using Integer = typename IntegerOf<sizeof(T)>::type;
template <class T>
using IntegerVector = Vector<Integer<T>>;

template <class T>
struct ExpTraits;

template <>
struct ExpTraits<float> {
  static constexpr int kMantissa = 23, kExponentBias = 127;
  // Adding this rounds to an integer and leaves it in the low bits.
  static constexpr float kRound = 0x1.8p23f;
  static constexpr float kLog2E = 0x1.715476p+0f;
  static constexpr float kLn2High = 0x1.62e4p-1f, kLn2Low = 0x1.7f7d1cp-20f;
  // Beyond these exp is 0 or infinity, expm1(2x) / (expm1(2x) + 2) is 1.
  static constexpr float kLowest = -105.0f, kHighest = 89.0f, kTanhIsOne = 10.0f;
  static constexpr int kTerms = 7;
  static constexpr float kOneOverFactorial[] = {1, 1, 1 / 2.0f, 1 / 6.0f, 1 / 24.0f, 1 / 120.0f,
                                                1 / 720.0f, 1 / 5040.0f};
};

template <>
struct ExpTraits<double> {
  static constexpr int kMantissa = 52, kExponentBias = 1023;
  static constexpr double kRound = 0x1.8p52;
  static constexpr double kLog2E = 0x1.71547652b82fep+0;
  static constexpr double kLn2High = 0x1.62e42fee00000p-1, kLn2Low = 0x1.a39ef35793c76p-33;
  static constexpr double kLowest = -746.0, kHighest = 710.0, kTanhIsOne = 20.0;
  static constexpr int kTerms = 13;
  static constexpr double kOneOverFactorial[] = {
      1, 1, 1 / 2.0, 1 / 6.0, 1 / 24.0, 1 / 120.0, 1 / 720.0, 1 / 5040.0, 1 / 40320.0,
      1 / 362880.0, 1 / 3628800.0, 1 / 39916800.0, 1 / 479001600.0, 1 / 6227020800.0};
};


// --- parts of a vector ---

template <class T, int lanes>
struct Lanes {
  typedef T type __attribute__((vector_size(lanes * sizeof(T))));
};
// Vectors of `lanes` elements.
template <class T, int lanes>
using VectorOfLanes = typename Lanes<T, lanes>::type;

// 0, 1, 2, ...
template <class T>
FASTDL_INLINE IntegerVector<T> iota() {
  alignas(64) static constexpr Integer<T> kNumbers[16] = {0, 1, 2,  3,  4,  5,  6,  7,
                                                       8, 9, 10, 11, 12, 13, 14, 15};
  return load(kNumbers);
}

// The first `count` lanes of v, and zeros.
template <class T>
FASTDL_INLINE Vector<T> first_lanes(Vector<T> v, int64_t count) {
  if (count >= kLanes<T>) return v;
  return iota<T>() < static_cast<Integer<T>>(count) ? v : Vector<T>{};
}

// Lanes of a and b by number, those of b from `lanes` on; the numbers are constants.
#if defined(__clang__)
#define FASTDL_SHUFFLE(T, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define FASTDL_SHUFFLE(T, a, b, ...) __builtin_shuffle(a, b, IntegerVector<T>{__VA_ARGS__})
#endif

// Every second element of a and b, from the first on or from the second on.
template <class T>
FASTDL_INLINE Vector<T> even_lanes(Vector<T> a, Vector<T> b) {
  if constexpr (kLanes<T> == 2) return FASTDL_SHUFFLE(T, a, b, 0, 2);
  else if constexpr (kLanes<T> == 4) return FASTDL_SHUFFLE(T, a, b, 0, 2, 4, 6);
  else if constexpr (kLanes<T> == 8)
    return FASTDL_SHUFFLE(T, a, b, 0, 2, 4, 6, 8, 10, 12, 14);
  else
    return FASTDL_SHUFFLE(T, a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
}
template <class T>
FASTDL_INLINE Vector<T> odd_lanes(Vector<T> a, Vector<T> b) {
  if constexpr (kLanes<T> == 2) return FASTDL_SHUFFLE(T, a, b, 1, 3);
  else if constexpr (kLanes<T> == 4) return FASTDL_SHUFFLE(T, a, b, 1, 3, 5, 7);
  else if constexpr (kLanes<T> == 8)
    return FASTDL_SHUFFLE(T, a, b, 1, 3, 5, 7, 9, 11, 13, 15);
  else
    return FASTDL_SHUFFLE(T, a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
}
// a[0], b[0], a[1], b[1], ...: the first vector of it, or the second.
template <class T>
FASTDL_INLINE Vector<T> low_pairs(Vector<T> a, Vector<T> b) {
  if constexpr (kLanes<T> == 2) return FASTDL_SHUFFLE(T, a, b, 0, 2);
  else if constexpr (kLanes<T> == 4) return FASTDL_SHUFFLE(T, a, b, 0, 4, 1, 5);
  else if constexpr (kLanes<T> == 8)
    return FASTDL_SHUFFLE(T, a, b, 0, 8, 1, 9, 2, 10, 3, 11);
  else
    return FASTDL_SHUFFLE(T, a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
template <class T>
FASTDL_INLINE Vector<T> high_pairs(Vector<T> a, Vector<T> b) {
  if constexpr (kLanes<T> == 2) return FASTDL_SHUFFLE(T, a, b, 1, 3);
  else if constexpr (kLanes<T> == 4) return FASTDL_SHUFFLE(T, a, b, 2, 6, 3, 7);
  else if constexpr (kLanes<T> == 8)
    return FASTDL_SHUFFLE(T, a, b, 4, 12, 5, 13, 6, 14, 7, 15);
  else
    return FASTDL_SHUFFLE(T, a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}

// The first `count` (fewer than a vector) elements from p on, the rest filled up.
template <class T>
FASTDL_INLINE Vector<T> load_part(const T* p, int64_t count, T fill) {
#if defined(__AVX512F__)
  const unsigned mask = (1u << count) - 1;
  if constexpr (sizeof(T) == 4)
    return (Vector<T>)_mm512_mask_loadu_ps((__m512)splat(fill), static_cast<__mmask16>(mask), p);
  else return (Vector<T>)_mm512_mask_loadu_pd((__m512d)splat(fill), static_cast<__mmask8>(mask), p);
#elif defined(__AVX2__) && FASTDL_VECTOR_BYTES == 32
  const IntegerVector<T> mask = iota<T>() < static_cast<Integer<T>>(count);
  Vector<T> v;
  if constexpr (sizeof(T) == 4) v = (Vector<T>)_mm256_maskload_ps((const float*)p, (__m256i)mask);
  else v = (Vector<T>)_mm256_maskload_pd((const double*)p, (__m256i)mask);
  return mask ? v : splat(fill);
#else
  Vector<T> v = splat(fill);
  for (int i = 0; i < kLanes<T> - 1; ++i)
    if (i < count) v[i] = p[i];
  return v;
#endif
}

// Stores the first `count` (fewer than a vector) elements: a half of the vector, a quarter, ...
template <class T>
FASTDL_INLINE void store_part(T* p, int64_t count, Vector<T> v) {
  T elements[kLanes<T>];
  memcpy(elements, &v, sizeof v);
  int64_t i = 0;
#pragma GCC unroll 4
  for (int half = kLanes<T> / 2; half > 0; half /= 2)
    if (count & half) {
      memcpy(p + i, elements + i, static_cast<size_t>(half) * sizeof(T));
      i += half;
    }
}

// The first `count` elements from p on: all of a vector, or a part of it.
template <class T>
FASTDL_INLINE Vector<T> load_some(const T* p, int64_t count, T fill) {
  return count >= kLanes<T> ? load(p) : load_part(p, count, fill);
}
template <class T>
FASTDL_INLINE void store_some(T* p, int64_t count, Vector<T> v) {
  if (count >= kLanes<T>) store(p, v);
  else store_part(p, count, v);
}

// One element from all lanes, halves joined to halves: join(a, b) of vectors and of elements.
template <class T, int lanes, class Join>
FASTDL_INLINE T reduce_lanes(VectorOfLanes<T, lanes> v, Join join) {
  if constexpr (lanes == 2) return join(v[0], v[1]);
  else {
    VectorOfLanes<T, lanes / 2> half[2];
    memcpy(half, &v, sizeof v);
    return reduce_lanes<T, lanes / 2>(join(half[0], half[1]), join);
  }
}

// The sum of all lanes, in double precision.
template <class T>
FASTDL_INLINE double horizontal_sum(Vector<T> v) {
  auto add = [](auto a, auto b) { return a + b; };
  if constexpr (sizeof(T) == 8) return reduce_lanes<T, kLanes<T>>(v, add);
  else {
    VectorOfLanes<T, kLanes<T> / 2> half[2];
    memcpy(half, &v, sizeof v);
    return reduce_lanes<double, kLanes<double>>(
        __builtin_convertvector(half[0], Vector<double>) +
            __builtin_convertvector(half[1], Vector<double>),
        add);
  }
}

// to[i] += v[i], in double precision.
template <class T>
FASTDL_INLINE void add_to(double* to, Vector<T> v) {
  if constexpr (sizeof(T) == 8) store(to, load(to) + v);
  else {
    VectorOfLanes<T, kLanes<T> / 2> half[2];
    memcpy(half, &v, sizeof v);
    for (int h = 0; h < 2; ++h) {
      double* part = to + h * kLanes<double>;
      store(part, load(part) + __builtin_convertvector(half[h], Vector<double>));
    }
  }
}

// --- exp ---

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
  // r + r^2 (1/2! + r/3! + r^2 (1/4! + r/5! + ...)): pairs of terms need not wait for each other.
  const Vector<T> square = r * r;
  Vector<T> p = splat(E::kOneOverFactorial[E::kTerms - 1]) + r * E::kOneOverFactorial[E::kTerms];
#pragma GCC unroll 6
  for (int i = E::kTerms - 2; i > 2; i -= 2)
    p = p * square + (r * E::kOneOverFactorial[i] + E::kOneOverFactorial[i - 1]);
  return {(IntegerVector<T>)shifted - (IntegerVector<T>)splat(E::kRound), p * square + r};
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

// exp(x) of x <= 0. In float32 what would be denormal is zero, and one step is enough.
template <class T>
FASTDL_INLINE Vector<T> exp_nonpositive(Vector<T> x) {
  if constexpr (sizeof(T) == 8) return exp<T>(x);
  else {
    constexpr T kLowestNormal = -87.33654f;
    Reduced<T> reduced = reduce_exp<T>(x);
    Vector<T> scale = power_of_two<T>(reduced.n);
    return x < kLowestNormal ? Vector<T>{} : reduced.expm1 * scale + scale;
  }
}

template <class T>
FASTDL_INLINE Vector<T> absolute(Vector<T> x) {
  return (Vector<T>)((IntegerVector<T>)x & ~(IntegerVector<T>)splat(T(-0.0)));
}

// Of each lane; rounded as IEEE 754 says.
template <class T>
FASTDL_INLINE Vector<T> square_root(Vector<T> x) {
#if defined(__AVX512F__)
  // With a mask of ones: what has none makes GCC 12 warn of its own headers.
  if constexpr (sizeof(T) == 4) return (Vector<T>)_mm512_maskz_sqrt_ps(0xffff, (__m512)x);
  else return (Vector<T>)_mm512_maskz_sqrt_pd(0xff, (__m512d)x);
#elif defined(__AVX2__) && FASTDL_VECTOR_BYTES == 32
  if constexpr (sizeof(T) == 4) return (Vector<T>)_mm256_sqrt_ps((__m256)x);
  else return (Vector<T>)_mm256_sqrt_pd((__m256d)x);
#else
  for (int lane = 0; lane < kLanes<T>; ++lane)
    x[lane] = sizeof(T) == 4 ? __builtin_sqrtf(x[lane]) : __builtin_sqrt(x[lane]);
  return x;
#endif
}

// 1 / (1 + exp(-x)), from exp(-|x|), which cannot overflow.
template <class T>
FASTDL_INLINE Vector<T> sigmoid(Vector<T> x) {
  Vector<T> e = exp_nonpositive<T>(-absolute<T>(x));
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

// --- loops over an array ---

// What is summed at once: one term or several.
template <class T, int terms>
struct Terms {
  Vector<T> term[terms];
};

// totals[t] += the sum of term t of body(position, count) for positions 0, lanes, 2 lanes, ... below
// size, where count is `lanes` but at the end. A running sum takes about 16 vectors at most before it
// goes into a double.
template <class T, int terms, class Body>
FASTDL_INLINE void add_vectors(int64_t size, Body body, double* totals) {
  constexpr int sums = terms < 4 ? 4 / terms : 1;  // of a term, to hide an addition's latency
  constexpr int64_t step = sums * kLanes<T>, stretch = 16 * step;
  for (int64_t i = 0; i < size;) {
    const int64_t end = min(size, i + stretch);
    Vector<T> sum[sums][terms] = {};
    auto add = [&](int to, int64_t position, int64_t count) {
      const Terms<T, terms> more = body(position, count);
      for (int t = 0; t < terms; ++t) sum[to][t] += more.term[t];
    };
    for (; i + step <= end; i += step)
      for (int v = 0; v < sums; ++v) add(v, i + v * kLanes<T>, int64_t{kLanes<T>});
    for (; i + kLanes<T> <= end; i += kLanes<T>) add(0, i, int64_t{kLanes<T>});
    if (i < end) add(sums - 1, i, end - i);
    i = end;
    for (int t = 0; t < terms; ++t) {
      for (int v = 1; v < sums; ++v) sum[0][t] += sum[v][t];
      totals[t] += horizontal_sum<T>(sum[0][t]);
    }
  }
}

// The sum of body(position, count).
template <class T, class Body>
FASTDL_INLINE double sum_vectors(int64_t size, Body body) {
  double total = 0;
  add_vectors<T, 1>(
      size, [&](int64_t i, int64_t n) { return Terms<T, 1>{{body(i, n)}}; }, &total);
  return total;
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
