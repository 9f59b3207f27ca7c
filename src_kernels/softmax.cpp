// softmax and log_softmax of each row, and their gradients.
#include <cmath>

#include "families.h"
#include "parallel.h"
#include "stream.h"
#include "vector_math.h"

namespace fastdl::FASTDL_ISA {

namespace {

constexpr int64_t kGrain = 8 * 1024;  // elements that are worth a thread
constexpr int64_t kLongRow = 256;    // columns from which on whole lines of a row are streamed

template <class T>
FASTDL_INLINE T largest(const T* x, int64_t size) {
  constexpr T lowest = -static_cast<T>(__builtin_inf());
  auto larger = [](auto a, auto b) { return a > b ? a : b; };
  Vector<T> best[2] = {splat(lowest), splat(lowest)};
  int64_t i = 0;
  for (; i + 2 * kLanes<T> <= size; i += 2 * kLanes<T>)
    for (int v = 0; v < 2; ++v) best[v] = larger(load(x + i + v * kLanes<T>), best[v]);
  for (; i < size; i += kLanes<T>) best[0] = larger(load_some(x + i, size - i, lowest), best[0]);
  return reduce_lanes<T, kLanes<T>>(larger(best[0], best[1]), larger);
}

template <class T>
FASTDL_INLINE void softmax_row(const T* x, int64_t columns, bool log, bool past_caches, T* out) {
  // A NaN is never the largest, but its own term makes the sum NaN.
  const T top = largest(x, columns);
  const T none = -static_cast<T>(__builtin_inf());
  if (log) {
    const double sum = sum_vectors<T>(columns, [&](int64_t i, int64_t n) {
      return exp_nonpositive<T>(load_some(x + i, n, none) - top);
    });
    // A full row of -infinity has no largest number to be subtracted: its sum is NaN.
    const T shift = std::log(static_cast<T>(sum));
    map(x, columns, out, past_caches, [&](Vector<T> v) { return (v - top) - shift; });
    return;
  }
  const double sum = sum_vectors<T>(columns, [&](int64_t i, int64_t n) {
    Vector<T> e = exp_nonpositive<T>(load_some(x + i, n, none) - top);
    store_some(out + i, n, e);
    return e;
  });
  const T scale = static_cast<T>(1 / sum);
  map(out, columns, out, false, [&](Vector<T> v) { return v * scale; });
}

// Rows of few vectors, which stay in registers.
template <class T, int vectors>
void softmax_short_rows(const T* x, int64_t rows, int64_t columns, bool log, T* out) {
  constexpr T none = -static_cast<T>(__builtin_inf());
  constexpr int last = (vectors - 1) * kLanes<T>;
  auto larger = [](auto a, auto b) { return a > b ? a : b; };
  for (int64_t row = 0; row < rows; ++row, x += columns, out += columns) {
    Vector<T> v[vectors];
    for (int k = 0; k < vectors - 1; ++k) v[k] = load(x + k * kLanes<T>);
    v[vectors - 1] = load_some(x + last, columns - last, none);
    Vector<T> best = splat(none);
    for (int k = 0; k < vectors; ++k) best = larger(v[k], best);
    const T top = reduce_lanes<T, kLanes<T>>(best, larger);
    Vector<T> e[vectors], sum{};
    for (int k = 0; k < vectors; ++k) sum += e[k] = exp_nonpositive<T>(v[k] - top);
    const T total = static_cast<T>(horizontal_sum<T>(sum));
    const T shift = log ? std::log(total) : T(0), scale = log ? T(1) : 1 / total;
    for (int k = 0; k < vectors; ++k) {
      const Vector<T> result = log ? (v[k] - top) - shift : e[k] * scale;
      if (k < vectors - 1) store(out + k * kLanes<T>, result);
      else store_some(out + last, columns - last, result);
    }
  }
}

// The rows of one thread.
template <class T>
void softmax_rows(const T* x, int64_t rows, int64_t columns, bool log, bool past_caches, T* out) {
  switch (ceil_div(columns, kLanes<T>)) {
    case 1: return softmax_short_rows<T, 1>(x, rows, columns, log, out);
    case 2: return softmax_short_rows<T, 2>(x, rows, columns, log, out);
    case 3: return softmax_short_rows<T, 3>(x, rows, columns, log, out);
    case 4: return softmax_short_rows<T, 4>(x, rows, columns, log, out);
  }
  for (int64_t row = 0; row < rows; ++row)
    softmax_row(x + row * columns, columns, log, past_caches, out + row * columns);
}

template <class T>
void softmax_all(const T* x, int64_t rows, int64_t columns, bool log, T* out, int threads) {
  const bool past_caches = goes_past_caches(rows * columns * static_cast<int64_t>(sizeof(T))) &&
                           columns >= kLongRow;
  parallel_range(rows, ceil_div(kGrain, columns), threads, [&](int64_t begin, int64_t end) {
    softmax_rows(x + begin * columns, end - begin, columns, log, past_caches,
                 out + begin * columns);
  });
}

template <class T>
void softmax_backward_all(const T* grad, const T* y, int64_t rows, int64_t columns, bool log,
                          T* out, int threads) {
  const bool past_caches = goes_past_caches(rows * columns * static_cast<int64_t>(sizeof(T))) &&
                           columns >= kLongRow;
  parallel_range(rows, ceil_div(kGrain, columns), threads, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const T *g = grad + row * columns, *p = y + row * columns;
      T* to = out + row * columns;
      if (log) {
        const T sum = static_cast<T>(sum_of(g, columns));
        map(g, p, columns, to, past_caches,
            [&](Vector<T> a, Vector<T> b) { return a - exp<T>(b) * sum; });
      } else {
        const T sum = static_cast<T>(dot(g, p, columns));
        map(g, p, columns, to, past_caches,
            [&](Vector<T> a, Vector<T> b) { return b * (a - sum); });
      }
    }
  });
}

}  // namespace

void softmax(Dtype dtype, const void* x, int64_t rows, int64_t columns, bool log, void* out,
             int threads) {
  const FloatMode mode(dtype);
  if (dtype == kFloat32)
    softmax_all(static_cast<const float*>(x), rows, columns, log, static_cast<float*>(out),
                threads);
  else
    softmax_all(static_cast<const double*>(x), rows, columns, log, static_cast<double*>(out),
                threads);
}

void softmax_backward(Dtype dtype, const void* grad, const void* y, int64_t rows, int64_t columns,
                      bool log, void* out, int threads) {
  const FloatMode mode(dtype);
  if (dtype == kFloat32)
    softmax_backward_all(static_cast<const float*>(grad), static_cast<const float*>(y), rows,
                         columns, log, static_cast<float*>(out), threads);
  else
    softmax_backward_all(static_cast<const double*>(grad), static_cast<const double*>(y), rows,
                         columns, log, static_cast<double*>(out), threads);
}

}  // namespace fastdl::FASTDL_ISA
