// Elementwise kernels: out[i] = f(x[i]). Limited by memory (relu, dropout) or by exp.
#include "families.h"
#include "parallel.h"
#include "vector_math.h"

namespace fastdl::FASTDL_ISA {

namespace {

// Elements that are worth a thread: about ten microseconds of work.
constexpr int64_t kCheapGrain = 64 * 1024, kExpGrain = 8 * 1024;

template <class T>
void activate_all(Activation kind, const T* x, int64_t size, T* out, int threads) {
  parallel_range(size, kind == kRelu ? kCheapGrain : kExpGrain, threads,
                 [&](int64_t begin, int64_t end) {
                   auto each = [&](auto f) { map(x + begin, end - begin, out + begin, f); };
                   if (kind == kRelu) each([](Vector<T> v) { return relu<T>(v); });
                   else if (kind == kSigmoid) each([](Vector<T> v) { return sigmoid<T>(v); });
                   else each([](Vector<T> v) { return tanh<T>(v); });
                 });
}

template <class T>
void activate_backward_all(Activation kind, const T* grad, const T* saved, int64_t size, T* out,
                           int threads) {
  parallel_range(size, kCheapGrain, threads, [&](int64_t begin, int64_t end) {
    auto each = [&](auto f) {
      map(grad + begin, saved + begin, end - begin, out + begin, f);
    };
    if (kind == kRelu)
      each([](Vector<T> g, Vector<T> x) { return x <= 0 ? Vector<T>{} : g; });
    else if (kind == kSigmoid)
      each([](Vector<T> g, Vector<T> y) { return g * y * (T(1) - y); });
    else
      each([](Vector<T> g, Vector<T> y) { return g * (T(1) - y * y); });
  });
}

template <class T>
void dropout_all(const T* x, const uint8_t* mask, T scale, int64_t size, T* out, int threads) {
  parallel_range(size, kCheapGrain, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) out[i] = mask[i] ? x[i] * scale : T(0);
  });
}

}  // namespace

void activate(Dtype dtype, Activation kind, const void* x, int64_t size, void* out, int threads) {
  if (dtype == kFloat32)
    activate_all(kind, static_cast<const float*>(x), size, static_cast<float*>(out), threads);
  else
    activate_all(kind, static_cast<const double*>(x), size, static_cast<double*>(out), threads);
}

void activate_backward(Dtype dtype, Activation kind, const void* grad, const void* saved,
                       int64_t size, void* out, int threads) {
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
  if (dtype == kFloat32)
    dropout_all(static_cast<const float*>(x), mask, static_cast<float>(scale), size,
                static_cast<float*>(out), threads);
  else
    dropout_all(static_cast<const double*>(x), mask, scale, size, static_cast<double*>(out),
                threads);
}

}  // namespace fastdl::FASTDL_ISA
