// Elementwise kernels: out[i] = f(x[i]). Limited by memory (relu, dropout) or by exp.
#include "families.h"
#include "parallel.h"
#include "stream.h"
#include "vector_math.h"

namespace fastdl::FASTDL_ISA {

namespace {

// Elements that are worth a thread: about ten microseconds of work.
constexpr int64_t kCheapGrain = 64 * 1024, kExpGrain = 8 * 1024;

// body(begin, end, past caches) over an output of `size`; what is written in place is in the caches.
template <class T, class Body>
FASTDL_INLINE void each_range(const T* x, int64_t size, T* out, int64_t grain, int threads,
                              Body body) {
  const bool past_caches = out != x && goes_past_caches(size * static_cast<int64_t>(sizeof(T)));
  parallel_range(size, grain, threads,
                 [&](int64_t begin, int64_t end) { body(begin, end, past_caches); });
}

template <class T>
void activate_all(Activation kind, const T* x, int64_t size, T* out, int threads) {
  each_range(x, size, out, kind == kRelu ? kCheapGrain : kExpGrain, threads,
             [&](int64_t begin, int64_t end, bool past_caches) {
               auto each = [&](auto f) { map(x + begin, end - begin, out + begin, past_caches, f); };
               if (kind == kRelu) each([](Vector<T> v) { return relu<T>(v); });
               else if (kind == kSigmoid) each([](Vector<T> v) { return sigmoid<T>(v); });
               else each([](Vector<T> v) { return tanh<T>(v); });
             });
}

template <class T>
void add_all(Activation kind, const T* x, const T* y, int64_t size, T* out, int threads) {
  each_range(x, size, out, kCheapGrain, threads, [&](int64_t begin, int64_t end, bool past_caches) {
    auto each = [&](auto f) {
      map(x + begin, y + begin, end - begin, out + begin, past_caches, f);
    };
    if (kind == kRelu) each([](Vector<T> a, Vector<T> b) { return relu<T>(a + b); });
    else each([](Vector<T> a, Vector<T> b) { return a + b; });
  });
  if (kind != kIdentity && kind != kRelu) activate_all(kind, out, size, out, threads);
}

template <class T>
void activate_backward_all(Activation kind, const T* grad, const T* saved, int64_t size, T* out,
                           int threads) {
  each_range(
      grad, size, out, kCheapGrain, threads, [&](int64_t begin, int64_t end, bool past_caches) {
        auto each = [&](auto f) {
          map(grad + begin, saved + begin, end - begin, out + begin, past_caches, f);
        };
        if (kind == kRelu)
          each([](Vector<T> g, Vector<T> x) { return x <= 0 ? Vector<T>{} : g; });
        else if (kind == kSigmoid)
          each([](Vector<T> g, Vector<T> y) { return g * y * (T(1) - y); });
        else
          each([](Vector<T> g, Vector<T> y) { return g * (T(1) - y * y); });
      });
}

// All bits of the lanes whose byte of the mask is true.
template <class T>
FASTDL_INLINE IntegerVector<T> load_mask(const uint8_t* mask, int64_t count) {
  VectorOfLanes<uint8_t, kLanes<T>> bytes{};
  if (count == kLanes<T>) memcpy(&bytes, mask, sizeof bytes);
  else
    for (int lane = 0; lane < kLanes<T> - 1; ++lane)
      if (lane < count) bytes[lane] = mask[lane];
  return __builtin_convertvector(bytes, IntegerVector<T>) != 0;
}

template <class T>
void dropout_all(const T* x, const uint8_t* mask, T scale, int64_t size, T* out, int threads) {
  each_range(
      x, size, out, kCheapGrain, threads, [&](int64_t begin, int64_t end, bool past_caches) {
        write<T>(out + begin, end - begin, past_caches, [&](int64_t i, int64_t n) {
          Vector<T> v = load_some(x + begin + i, n, T(0)) * scale;
          return load_mask<T>(mask + begin + i, n) ? v : Vector<T>{};
        });
      });
}

}  // namespace

void activate(Dtype dtype, Activation kind, const void* x, int64_t size, void* out, int threads) {
  // relu compares, and keeps denormals.
  const FloatMode mode(kind == kRelu ? kFloat64 : dtype);
  if (dtype == kFloat32)
    activate_all(kind, static_cast<const float*>(x), size, static_cast<float*>(out), threads);
  else
    activate_all(kind, static_cast<const double*>(x), size, static_cast<double*>(out), threads);
}

void add(Dtype dtype, const void* x, const void* y, Activation kind, int64_t size, void* out,
         int threads) {
  const FloatMode mode(dtype);
  if (dtype == kFloat32)
    add_all(kind, static_cast<const float*>(x), static_cast<const float*>(y), size,
            static_cast<float*>(out), threads);
  else
    add_all(kind, static_cast<const double*>(x), static_cast<const double*>(y), size,
            static_cast<double*>(out), threads);
}

void activate_backward(Dtype dtype, Activation kind, const void* grad, const void* saved,
                       int64_t size, void* out, int threads) {
  const FloatMode mode(kind == kRelu ? kFloat64 : dtype);
  if (dtype == kFloat32)
    activate_backward_all(kind, static_cast<const float*>(grad), static_cast<const float*>(saved),
                          size, static_cast<float*>(out), threads);
  else
    activate_backward_all(kind, static_cast<const double*>(grad),
                          static_cast<const double*>(saved), size, static_cast<double*>(out),
                          threads);
}

void dropout(Dtype dtype, const void* x, const uint8_t* mask, double scale, int64_t size,
             void* out, int threads) {
  const FloatMode mode(dtype);
  if (dtype == kFloat32)
    dropout_all(static_cast<const float*>(x), mask, static_cast<float>(scale), size,
                static_cast<float*>(out), threads);
  else
    dropout_all(static_cast<const double*>(x), mask, scale, size, static_cast<double*>(out),
                threads);
}

}  // namespace fastdl::FASTDL_ISA
