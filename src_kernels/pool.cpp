// Pools: max, average, adaptive average, and their gradients. A task owns a plane (image, channel).
//
// The value pools work in two steps, on as many columns as a buffer takes: down, the rows of a
// window to one row (whole vectors), then across, the columns of each window:
//
//   rows of the window   ->  buffer, with its padding   ->  a row of the output
//
#include <cstring>

#include "families.h"
#include "parallel.h"
#include "vector_math.h"

namespace fastdl::FASTDL_ISA {

namespace {

constexpr int64_t kBuffer = 1024;  // columns of the buffer

// a or b, whichever is larger; NaN if one of them is.
template <class T>
FASTDL_INLINE T larger(T best, T value) {
  return (value > best) | (value != value) ? value : best;
}

// Positions of a window that lie in [0, size): kernel elements [begin, end).
struct Clip {
  int64_t begin, end;
  Clip(int64_t start, int64_t kernel, int64_t dilation, int64_t size)
      : begin(max(0, ceil_div(-start, dilation))),
        end(max(begin, min(kernel, ceil_div(size - start, dilation)))) {}
};

// Elements of window `index` that an average divides by, along one axis: clipped to the padded
// input, or to the input.
FASTDL_INLINE int64_t counted(int64_t index, int64_t kernel, int64_t stride, int64_t pad,
                              int64_t size, bool include_pad) {
  int64_t start = index * stride - pad, end = min(start + kernel, size + pad);
  return include_pad ? end - start : min(end, size) - max(start, 0);
}

struct MaxStep {
  template <class T>
  static T neutral() {
    return -static_cast<T>(__builtin_inf());
  }
  template <class T>
  static T join(T a, T b) {
    return larger(a, b);
  }
};
struct SumStep {
  template <class T>
  static T neutral() {
    return 0;
  }
  template <class T>
  static T join(T a, T b) {
    return a + b;
  }
};

template <class Step, int stride, class T>
FASTDL_INLINE void join_strided(const T* __restrict from, int64_t count, T* __restrict to) {
  for (int64_t j = 0; j < count; ++j) to[j] = Step::join(to[j], from[j * stride]);
}

// Row i of the output: Step over each window, NaN and all.
template <class Step, class T>
void pool_row(const PoolGeometry& g, const T* plane, int64_t i, T* out) {
  const T neutral = Step::template neutral<T>();
  const int64_t top = i * g.stride_h - g.pad_h;
  const Clip rows(top, g.kernel_h, g.dilation_h, g.height);
  const int64_t extent = (g.kernel_w - 1) * g.dilation_w + 1;
  T buffer[kBuffer];
  const int64_t columns = (kBuffer - extent) / g.stride_w + 1;
  for (int64_t j = 0; j < g.out_w; j += columns) {
    const int64_t count = min(columns, g.out_w - j);
    // The buffer holds columns [left, left + wide) of the padded input, x those of [begin, end).
    const int64_t left = j * g.stride_w - g.pad_w, wide = (count - 1) * g.stride_w + extent;
    const int64_t begin = max(0, min(wide, -left)), end = max(begin, min(wide, g.width - left));
    for (int64_t q = 0; q < begin; ++q) buffer[q] = neutral;
    for (int64_t q = end; q < wide; ++q) buffer[q] = neutral;
    const T* from = plane + (top + rows.begin * g.dilation_h) * g.width + left;
    for (int64_t a = rows.begin; a < rows.end; ++a, from += g.dilation_h * g.width)
      if (a == rows.begin)
        for (int64_t q = begin; q < end; ++q) buffer[q] = from[q];
      else
        for (int64_t q = begin; q < end; ++q) buffer[q] = Step::join(buffer[q], from[q]);
    if (rows.begin == rows.end)
      for (int64_t q = begin; q < end; ++q) buffer[q] = neutral;

    T* to = out + j;
    for (int64_t q = 0; q < count; ++q) to[q] = buffer[q * g.stride_w];
    for (int64_t b = 1; b < g.kernel_w; ++b) {
      const T* column = buffer + b * g.dilation_w;
      if (g.stride_w == 1) join_strided<Step, 1>(column, count, to);
      else if (g.stride_w == 2) join_strided<Step, 2>(column, count, to);
      else
        for (int64_t q = 0; q < count; ++q) to[q] = Step::join(to[q], column[q * g.stride_w]);
    }
  }
}

FASTDL_INLINE bool fits_buffer(const PoolGeometry& g) {
  return (g.kernel_w - 1) * g.dilation_w + 1 <= kBuffer;
}

// The window at (i, j), element by element, with the position of the largest.
template <class T>
T largest_of_window(const PoolGeometry& g, const T* plane, int64_t i, int64_t j,
                    int64_t* position) {
  const int64_t top = i * g.stride_h - g.pad_h, left = j * g.stride_w - g.pad_w;
  const Clip rows(top, g.kernel_h, g.dilation_h, g.height);
  const Clip columns(left, g.kernel_w, g.dilation_w, g.width);
  int64_t best_at = (top + rows.begin * g.dilation_h) * g.width + left + columns.begin * g.dilation_w;
  T best = -static_cast<T>(__builtin_inf());
  for (int64_t a = rows.begin; a < rows.end; ++a)
    for (int64_t b = columns.begin; b < columns.end; ++b) {
      int64_t at = (top + a * g.dilation_h) * g.width + left + b * g.dilation_w;
      T value = plane[at];
      if (value > best || value != value) best = value, best_at = at;
    }
  *position = best_at;
  return best;
}

template <class T>
void max_pool(const T* x, const PoolGeometry& g, T* out, int64_t* indices, int threads) {
  const int64_t in = g.height * g.width, size = g.out_h * g.out_w;
  parallel_for(g.batch * g.channels, threads, [&](int64_t plane) {
    const T* from = x + plane * in;
    for (int64_t i = 0; i < g.out_h; ++i) {
      const int64_t row = plane * size + i * g.out_w;
      if (!indices && fits_buffer(g)) {
        pool_row<MaxStep>(g, from, i, out + row);
        continue;
      }
      for (int64_t j = 0; j < g.out_w; ++j) {
        int64_t position;
        out[row + j] = largest_of_window(g, from, i, j, &position);
        if (indices) indices[row + j] = position;
      }
    }
  });
}

template <class T>
void max_pool_backward(const T* grad, const int64_t* indices, int64_t planes, int64_t grad_size,
                       int64_t size, T* out, int threads) {
  parallel_for(planes, threads, [&](int64_t plane) {
    T* to = out + plane * size;
    memset(to, 0, static_cast<size_t>(size) * sizeof(T));
    for (int64_t i = plane * grad_size; i < (plane + 1) * grad_size; ++i)
      to[indices[i]] += grad[i];
  });
}

// The sum of a rectangle, in double precision.
template <class T>
double sum_rectangle(const T* plane, int64_t width, int64_t top, int64_t bottom, int64_t left,
                     int64_t right) {
  double sum = 0;
  for (int64_t row = top; row < bottom; ++row)
    sum += sum_of(plane + row * width + left, right - left);
  return sum;
}

template <class T>
void add_rectangle(T value, int64_t width, int64_t top, int64_t bottom, int64_t left,
                   int64_t right, T* plane) {
  for (int64_t row = top; row < bottom; ++row)
    for (int64_t column = left; column < right; ++column) plane[row * width + column] += value;
}

// What each window of an average pool divides by.
struct Divisors {
  const PoolGeometry& g;
  bool include_pad;
  int64_t divisor;
  int64_t rows(int64_t i) const {
    return counted(i, g.kernel_h, g.stride_h, g.pad_h, g.height, include_pad);
  }
  int64_t of(int64_t rows, int64_t j) const {
    if (divisor) return divisor;
    return rows * counted(j, g.kernel_w, g.stride_w, g.pad_w, g.width, include_pad);
  }
};

template <class T>
void avg_pool(const T* x, const PoolGeometry& g, bool include_pad, int64_t divisor, T* out,
              int threads) {
  const Divisors divisors{g, include_pad, divisor};
  // Sums over larger windows are left to double precision.
  const bool small = fits_buffer(g) && g.kernel_h * g.kernel_w <= 256;
  parallel_for(g.batch * g.channels, threads, [&](int64_t plane) {
    const T* from = x + plane * g.height * g.width;
    for (int64_t i = 0; i < g.out_h; ++i) {
      T* to = out + (plane * g.out_h + i) * g.out_w;
      const int64_t top = i * g.stride_h - g.pad_h, rows = divisors.rows(i);
      if (small) {
        pool_row<SumStep>(g, from, i, to);
        for (int64_t j = 0; j < g.out_w; ++j) to[j] /= static_cast<T>(divisors.of(rows, j));
        continue;
      }
      for (int64_t j = 0; j < g.out_w; ++j) {
        const int64_t left = j * g.stride_w - g.pad_w;
        double sum = sum_rectangle(from, g.width, max(0, top), min(g.height, top + g.kernel_h),
                                   max(0, left), min(g.width, left + g.kernel_w));
        to[j] = static_cast<T>(sum / static_cast<double>(divisors.of(rows, j)));
      }
    }
  });
}

template <class T>
void avg_pool_backward(const T* grad, const PoolGeometry& g, bool include_pad, int64_t divisor,
                       T* out, int threads) {
  const Divisors divisors{g, include_pad, divisor};
  const int64_t size = g.height * g.width;
  parallel_for(g.batch * g.channels, threads, [&](int64_t plane) {
    T* to = out + plane * size;
    memset(to, 0, static_cast<size_t>(size) * sizeof(T));
    const T* from = grad + plane * g.out_h * g.out_w;
    for (int64_t i = 0; i < g.out_h; ++i) {
      const int64_t top = i * g.stride_h - g.pad_h, rows = divisors.rows(i);
      for (int64_t j = 0; j < g.out_w; ++j) {
        const int64_t left = j * g.stride_w - g.pad_w;
        add_rectangle(*from++ / static_cast<T>(divisors.of(rows, j)), g.width, max(0, top),
                      min(g.height, top + g.kernel_h), max(0, left),
                      min(g.width, left + g.kernel_w), to);
      }
    }
  });
}

// body(output element, top, bottom, left, right) for each window of an adaptive pool's plane.
template <class Body>
FASTDL_INLINE void each_window(const AdaptiveGeometry& g, Body body) {
  for (int64_t i = 0; i < g.out_h; ++i)
    for (int64_t j = 0; j < g.out_w; ++j)
      body(i * g.out_w + j, i * g.height / g.out_h, ceil_div((i + 1) * g.height, g.out_h),
           j * g.width / g.out_w, ceil_div((j + 1) * g.width, g.out_w));
}

template <class T>
void adaptive(const T* x, const AdaptiveGeometry& g, T* out, int threads) {
  parallel_for(g.planes, threads, [&](int64_t plane) {
    const T* from = x + plane * g.height * g.width;
    T* to = out + plane * g.out_h * g.out_w;
    if (g.out_h == 1 && g.out_w == 1) {
      const int64_t size = g.height * g.width;
      *to = static_cast<T>(sum_of(from, size) / static_cast<double>(size));
      return;
    }
    each_window(g, [&](int64_t at, int64_t top, int64_t bottom, int64_t left, int64_t right) {
      double sum = sum_rectangle(from, g.width, top, bottom, left, right);
      to[at] = static_cast<T>(sum / static_cast<double>((bottom - top) * (right - left)));
    });
  });
}

template <class T>
void adaptive_backward(const T* grad, const AdaptiveGeometry& g, T* out, int threads) {
  parallel_for(g.planes, threads, [&](int64_t plane) {
    const T* from = grad + plane * g.out_h * g.out_w;
    T* to = out + plane * g.height * g.width;
    memset(to, 0, static_cast<size_t>(g.height * g.width) * sizeof(T));
    each_window(g, [&](int64_t at, int64_t top, int64_t bottom, int64_t left, int64_t right) {
      add_rectangle(from[at] / static_cast<T>((bottom - top) * (right - left)), g.width, top,
                    bottom, left, right, to);
    });
  });
}

}  // namespace

void max_pool2d(Dtype dtype, const void* x, const PoolGeometry* g, void* out, int64_t* indices,
                int threads) {
  if (dtype == kFloat32)
    max_pool(static_cast<const float*>(x), *g, static_cast<float*>(out), indices, threads);
  else
    max_pool(static_cast<const double*>(x), *g, static_cast<double*>(out), indices, threads);
}

void max_pool2d_backward(Dtype dtype, const void* grad, const int64_t* indices, int64_t planes,
                         int64_t grad_size, int64_t size, void* out, int threads) {
  if (dtype == kFloat32)
    max_pool_backward(static_cast<const float*>(grad), indices, planes, grad_size, size,
                      static_cast<float*>(out), threads);
  else
    max_pool_backward(static_cast<const double*>(grad), indices, planes, grad_size, size,
                      static_cast<double*>(out), threads);
}

void avg_pool2d(Dtype dtype, const void* x, const PoolGeometry* g, bool count_include_pad,
                int64_t divisor, void* out, int threads) {
  if (dtype == kFloat32)
    avg_pool(static_cast<const float*>(x), *g, count_include_pad, divisor,
             static_cast<float*>(out), threads);
  else
    avg_pool(static_cast<const double*>(x), *g, count_include_pad, divisor,
             static_cast<double*>(out), threads);
}

void avg_pool2d_backward(Dtype dtype, const void* grad, const PoolGeometry* g,
                         bool count_include_pad, int64_t divisor, void* out, int threads) {
  if (dtype == kFloat32)
    avg_pool_backward(static_cast<const float*>(grad), *g, count_include_pad, divisor,
                      static_cast<float*>(out), threads);
  else
    avg_pool_backward(static_cast<const double*>(grad), *g, count_include_pad, divisor,
                      static_cast<double*>(out), threads);
}

void adaptive_avg_pool2d(Dtype dtype, const void* x, const AdaptiveGeometry* g, void* out,
                         int threads) {
  if (dtype == kFloat32)
    adaptive(static_cast<const float*>(x), *g, static_cast<float*>(out), threads);
  else
    adaptive(static_cast<const double*>(x), *g, static_cast<double*>(out), threads);
}

void adaptive_avg_pool2d_backward(Dtype dtype, const void* grad, const AdaptiveGeometry* g,
                                  void* out, int threads) {
  if (dtype == kFloat32)
    adaptive_backward(static_cast<const float*>(grad), *g, static_cast<float*>(out), threads);
  else
    adaptive_backward(static_cast<const double*>(grad), *g, static_cast<double*>(out), threads);
}

}  // namespace fastdl::FASTDL_ISA
