// Batch normalisation: sums over a channel, then one pass over its elements. Also the bias gradient
// of a convolution, which is such a sum.
//
// x is (N, C, S). A task owns a channel (its N rows of S elements) where the rows are long, else a
// block of neighbouring channels, whose elements are then neighbours too. Either way one task sums
// a channel, in an order that never changes.
#include <cmath>

#include "families.h"
#include "parallel.h"
#include "vector_math.h"

namespace fastdl::FASTDL_ISA {

namespace {

constexpr int64_t kBlock = 64;  // channels of a task where rows are short

FASTDL_INLINE bool has_long_rows(const NormGeometry& g) { return g.size >= 16; }

// body(first, end) for blocks of channels: single ones where rows are long.
template <class Body>
void each_block(const NormGeometry& g, int threads, Body body) {
  int64_t block = has_long_rows(g) ? 1 : kBlock;
  parallel_for(ceil_div(g.channels, block), threads, [&](int64_t task) {
    body(task * block, min(g.channels, (task + 1) * block));
  });
}

// sums[c - first] = the sum over channel c of term(c, element), in double precision. `term` takes
// the offset of the first of a row's elements, and gives a vector or an element of terms.
template <class T, class VectorTerm, class Term>
void sum_channels(const NormGeometry& g, int64_t first, int64_t end, VectorTerm vector_term,
                  Term term, double* sums) {
  for (int64_t c = first; c < end; ++c) sums[c - first] = 0;
  if (has_long_rows(g)) {
    for (int64_t n = 0; n < g.batch; ++n) {
      int64_t row = (n * g.channels + first) * g.size;
      sums[0] += sum_vectors<T>(g.size, [&](int64_t i, int64_t count) {
        return vector_term(row + i, count);
      });
    }
    return;
  }
  for (int64_t n = 0; n < g.batch; ++n)
    for (int64_t c = first; c < end; ++c)
      for (int64_t s = 0; s < g.size; ++s)
        sums[c - first] += static_cast<double>(term(c, (n * g.channels + c) * g.size + s));
}

// Each row of the block's channels: body(channel, offset of the row).
template <class Body>
FASTDL_INLINE void each_row(const NormGeometry& g, int64_t first, int64_t end, Body body) {
  for (int64_t n = 0; n < g.batch; ++n)
    for (int64_t c = first; c < end; ++c) body(c, (n * g.channels + c) * g.size);
}

template <class T>
void normalize_row(const T* x, int64_t size, T mean, T scale, T shift, Activation activation,
                   T* out) {
  if (size == 1 && activation == kIdentity) {
    *out = (*x - mean) * scale + shift;
    return;
  }
  auto each = [&](auto f) {
    map(x, size, out, [&](Vector<T> v) { return f((v - mean) * scale + shift); });
  };
  if (activation == kIdentity) each([](Vector<T> v) { return v; });
  else if (activation == kRelu) each([](Vector<T> v) { return relu<T>(v); });
  else each([&](Vector<T> v) { return apply<T>(activation, v); });
}

template <class T>
void train(const T* x, const T* weight, const T* bias, double eps, const NormGeometry& g,
           Activation activation, T* out, T* mean, T* var, int threads) {
  const double count = static_cast<double>(g.batch * g.size);
  each_block(g, threads, [&](int64_t first, int64_t end) {
    double sums[kBlock];
    sum_channels<T>(
        g, first, end, [&](int64_t at, int64_t n) { return load_some(x + at, n, T(0)); },
        [&](int64_t, int64_t at) { return x[at]; }, sums);
    for (int64_t c = first; c < end; ++c) mean[c] = static_cast<T>(sums[c - first] / count);
    const T middle = mean[first];
    sum_channels<T>(
        g, first, end,
        [&](int64_t at, int64_t n) {
          Vector<T> d = load_some(x + at, n, middle) - middle;
          return d * d;
        },
        [&](int64_t c, int64_t at) { return (x[at] - mean[c]) * (x[at] - mean[c]); }, sums);
    T scale[kBlock];
    for (int64_t c = first; c < end; ++c) {
      double variance = sums[c - first] / count;
      var[c] = static_cast<T>(variance);
      double factor = weight ? static_cast<double>(weight[c]) : 1;
      scale[c - first] = static_cast<T>(factor / std::sqrt(variance + eps));
    }
    each_row(g, first, end, [&](int64_t c, int64_t row) {
      normalize_row(x + row, g.size, mean[c], scale[c - first], bias ? bias[c] : T(0), activation,
                    out + row);
    });
  });
}

template <class T>
void normalize_all(const T* x, const T* mean, const T* scale, const T* shift,
                   const NormGeometry& g, Activation activation, T* out, int threads) {
  each_block(g, threads, [&](int64_t first, int64_t end) {
    each_row(g, first, end, [&](int64_t c, int64_t row) {
      normalize_row(x + row, g.size, mean[c], scale[c], shift[c], activation, out + row);
    });
  });
}

template <class T>
void backward(const T* grad, const T* x, const T* mean, const T* inv_std, const T* weight,
              bool training, const NormGeometry& g, T* grad_x, T* grad_weight, T* grad_bias,
              int threads) {
  const double count = static_cast<double>(g.batch * g.size);
  each_block(g, threads, [&](int64_t first, int64_t end) {
    double bias_sums[kBlock], weight_sums[kBlock];
    const T middle = mean[first], spread = inv_std[first];
    sum_channels<T>(
        g, first, end, [&](int64_t at, int64_t n) { return load_some(grad + at, n, T(0)); },
        [&](int64_t, int64_t at) { return grad[at]; }, bias_sums);
    sum_channels<T>(
        g, first, end,
        [&](int64_t at, int64_t n) {
          return load_some(grad + at, n, T(0)) * ((load_some(x + at, n, T(0)) - middle) * spread);
        },
        [&](int64_t c, int64_t at) { return grad[at] * ((x[at] - mean[c]) * inv_std[c]); },
        weight_sums);
    for (int64_t c = first; c < end; ++c) {
      grad_bias[c] = static_cast<T>(bias_sums[c - first]);
      grad_weight[c] = static_cast<T>(weight_sums[c - first]);
    }
    each_row(g, first, end, [&](int64_t c, int64_t row) {
      // grad_x = factor * (grad - bias_mean - x_hat * weight_mean)
      const T factor = (weight ? weight[c] : T(1)) * inv_std[c];
      const T bias_mean = training ? static_cast<T>(bias_sums[c - first] / count) : T(0);
      const T slope =
          training ? static_cast<T>(weight_sums[c - first] / count) * inv_std[c] : T(0);
      const T center = mean[c];
      if (g.size == 1)
        grad_x[row] = factor * ((grad[row] - bias_mean) - (x[row] - center) * slope);
      else if (training)
        map(grad + row, x + row, g.size, grad_x + row, [&](Vector<T> d, Vector<T> v) {
          return factor * ((d - bias_mean) - (v - center) * slope);
        });
      else
        map(grad + row, g.size, grad_x + row, [&](Vector<T> d) { return factor * d; });
    });
  });
}

template <class T>
void sum_bias(const T* grad, const NormGeometry& g, T* out, int threads) {
  each_block(g, threads, [&](int64_t first, int64_t end) {
    double sums[kBlock];
    sum_channels<T>(
        g, first, end, [&](int64_t at, int64_t n) { return load_some(grad + at, n, T(0)); },
        [&](int64_t, int64_t at) { return grad[at]; }, sums);
    for (int64_t c = first; c < end; ++c) out[c] = static_cast<T>(sums[c - first]);
  });
}

}  // namespace

void conv2d_grad_bias(Dtype dtype, const void* grad, const NormGeometry* g, void* out,
                      int threads) {
  if (dtype == kFloat32)
    sum_bias(static_cast<const float*>(grad), *g, static_cast<float*>(out), threads);
  else
    sum_bias(static_cast<const double*>(grad), *g, static_cast<double*>(out), threads);
}

void batch_norm_train(Dtype dtype, const void* x, const void* weight, const void* bias, double eps,
                      const NormGeometry* g, Activation activation, void* out, void* mean,
                      void* var, int threads) {
  if (dtype == kFloat32)
    train(static_cast<const float*>(x), static_cast<const float*>(weight),
          static_cast<const float*>(bias), eps, *g, activation, static_cast<float*>(out),
          static_cast<float*>(mean), static_cast<float*>(var), threads);
  else
    train(static_cast<const double*>(x), static_cast<const double*>(weight),
          static_cast<const double*>(bias), eps, *g, activation, static_cast<double*>(out),
          static_cast<double*>(mean), static_cast<double*>(var), threads);
}

void normalize(Dtype dtype, const void* x, const void* mean, const void* scale, const void* shift,
               const NormGeometry* g, Activation activation, void* out, int threads) {
  if (dtype == kFloat32)
    normalize_all(static_cast<const float*>(x), static_cast<const float*>(mean),
                  static_cast<const float*>(scale), static_cast<const float*>(shift), *g,
                  activation, static_cast<float*>(out), threads);
  else
    normalize_all(static_cast<const double*>(x), static_cast<const double*>(mean),
                  static_cast<const double*>(scale), static_cast<const double*>(shift), *g,
                  activation, static_cast<double*>(out), threads);
}

void batch_norm_backward(Dtype dtype, const void* grad, const void* x, const void* mean,
                         const void* inv_std, const void* weight, bool training,
                         const NormGeometry* g, void* grad_x, void* grad_weight, void* grad_bias,
                         int threads) {
  if (dtype == kFloat32)
    backward(static_cast<const float*>(grad), static_cast<const float*>(x),
             static_cast<const float*>(mean), static_cast<const float*>(inv_std),
             static_cast<const float*>(weight), training, *g, static_cast<float*>(grad_x),
             static_cast<float*>(grad_weight), static_cast<float*>(grad_bias), threads);
  else
    backward(static_cast<const double*>(grad), static_cast<const double*>(x),
             static_cast<const double*>(mean), static_cast<const double*>(inv_std),
             static_cast<const double*>(weight), training, *g, static_cast<double*>(grad_x),
             static_cast<double*>(grad_weight), static_cast<double*>(grad_bias), threads);
}

}  // namespace fastdl::FASTDL_ISA
