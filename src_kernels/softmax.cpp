// softmax and log_softmax of each row, and their gradients.
#include <cmath>

#include "families.h"
#include "parallel.h"
#include "vector_math.h"

namespace fastdl::FASTDL_ISA {

namespace {

constexpr int64_t kGrain = 8 * 1024;  // elements that are worth a thread

template <class T>
T largest(const T* x, int64_t size) {
  const T lowest = -static_cast<T>(__builtin_inf());
  Vector<T> best = splat(lowest);
  int64_t i = 0;
  for (; i + kLanes<T> <= size; i += kLanes<T>) {
    Vector<T> v = load(x + i);
    best = v > best ? v : best;
  }
  T result = lowest;
  for (int lane = 0; lane < kLanes<T>; ++lane)
    if (best[lane] > result) result = best[lane];
  for (; i < size; ++i)
    if (x[i] > result) result = x[i];
  return result;
}

template <class T>
void softmax_row(const T* x, int64_t columns, bool log, T* out) {
  // A NaN is never the largest, but its own term makes the sum NaN.
  const T top = largest(x, columns);
  const T none = -static_cast<T>(__builtin_inf());
  if (log) {
    double sum = sum_vectors<T>(columns, [&](int64_t i, int64_t n) {
      return exp<T>(load_some(x + i, n, none) - top);
    });
    // A full row of -infinity has no largest number to be subtracted: its sum is NaN.
    const T shift = static_cast<T>(std::log(sum));
    map(x, columns, out, [&](Vector<T> v) { return (v - top) - shift; });
    return;
  }
  double sum = sum_vectors<T>(columns, [&](int64_t i, int64_t n) {
    Vector<T> e = exp<T>(load_some(x + i, n, none) - top);
    if (n == kLanes<T>) store(out + i, e);
    else store_part<T>(out + i, n, e);
    return e;
  });
  const T scale = static_cast<T>(1 / sum);
  map(out, columns, out, [&](Vector<T> v) { return v * scale; });
}

template <class T>
void softmax_all(const T* x, int64_t rows, int64_t columns, bool log, T* out, int threads) {
  parallel_range(rows, ceil_div(kGrain, columns), threads, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      softmax_row(x + row * columns, columns, log, out + row * columns);
  });
}

template <class T>
void softmax_backward_all(const T* grad, const T* y, int64_t rows, int64_t columns, bool log,
                          T* out, int threads) {
  parallel_range(rows, ceil_div(kGrain, columns), threads, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const T *g = grad + row * columns, *p = y + row * columns;
      T* to = out + row * columns;
      if (log) {
        const T sum = static_cast<T>(sum_of(g, columns));
        map(g, p, columns, to, [&](Vector<T> a, Vector<T> b) { return a - exp<T>(b) * sum; });
      } else {
        const T sum = static_cast<T>(dot(g, p, columns));
        map(g, p, columns, to, [&](Vector<T> a, Vector<T> b) { return b * (a - sum); });
      }
    }
  });
}

}  // namespace

void softmax(Dtype dtype, const void* x, int64_t rows, int64_t columns, bool log, void* out,
             int threads) {
  if (dtype == kFloat32)
    softmax_all(static_cast<const float*>(x), rows, columns, log, static_cast<float*>(out),
                threads);
  else
    softmax_all(static_cast<const double*>(x), rows, columns, log, static_cast<double*>(out),
                threads);
}

void softmax_backward(Dtype dtype, const void* grad, const void* y, int64_t rows, int64_t columns,
                      bool log, void* out, int threads) {
  if (dtype == kFloat32)
    softmax_backward_all(static_cast<const float*>(grad), static_cast<const float*>(y), rows,
                         columns, log, static_cast<float*>(out), threads);
  else
    softmax_backward_all(static_cast<const double*>(grad), static_cast<const double*>(y), rows,
                         columns, log, static_cast<double*>(out), threads);
}

}  // namespace fastdl::FASTDL_ISA
