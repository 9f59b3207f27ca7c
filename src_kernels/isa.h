// Vectors of the instruction set that this file is being compiled for.
//
// FASTDL_ISA names the namespace. Everything a kernel file defines stands in
// fastdl::FASTDL_ISA (or is static there), and no kernel file instantiates a
// template of the standard library: two instruction sets must never define one
// symbol, or the linker could keep the wrong one.
#pragma once

#include "fastdl_kernels.h"

// A width given to the compiler instead lets a narrower processor run a wider one's loops.
#if defined(FASTDL_VECTOR_BYTES)
#elif defined(__AVX512F__)
#define FASTDL_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define FASTDL_VECTOR_BYTES 32
#else
#define FASTDL_VECTOR_BYTES 16
#endif

#define FASTDL_INLINE static inline __attribute__((always_inline))

namespace fastdl::FASTDL_ISA {

template <class T>
struct VectorOf {
  typedef T type __attribute__((vector_size(FASTDL_VECTOR_BYTES)));
  typedef T unaligned __attribute__((vector_size(FASTDL_VECTOR_BYTES), aligned(sizeof(T)), may_alias));
};
template <class T>
using Vector = typename VectorOf<T>::type;

// Elements of a vector.
template <class T>
constexpr int kLanes = FASTDL_VECTOR_BYTES / static_cast<int>(sizeof(T));

template <class T>
constexpr Dtype kDtype = sizeof(T) == sizeof(float) ? kFloat32 : kFloat64;

template <class T>
FASTDL_INLINE Vector<T> load(const T* p) {
  return *reinterpret_cast<const typename VectorOf<T>::unaligned*>(p);
}
template <class T>
FASTDL_INLINE void store(T* p, Vector<T> v) {
  *reinterpret_cast<typename VectorOf<T>::unaligned*>(p) = v;
}
template <class T>
FASTDL_INLINE Vector<T> splat(T value) {
  return value - Vector<T>{};
}
// value < 0 ? 0 : value, so that NaN passes.
template <class T>
FASTDL_INLINE Vector<T> relu(Vector<T> value) {
  return value < 0 ? Vector<T>{} : value;
}

FASTDL_INLINE int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
FASTDL_INLINE int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }
// ceil(a / b) for b > 0 and any a.
FASTDL_INLINE int64_t ceil_div(int64_t a, int64_t b) { return a > 0 ? (a - 1) / b + 1 : -(-a / b); }

}  // namespace fastdl::FASTDL_ISA
