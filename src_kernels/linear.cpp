// The fully connected layer: y = x W^T + b and its gradients. x is (N, I), W (O, I), y and g (N, O).
//
// Of few rows of x, W is far larger than the rest, and is read from memory (or written to it) once. So
// nothing is packed, and every loop goes through a few rows of W at a time, along them:
//
//   forward       y[n,o]  = sum_i x[n,i] W[o,i]   a tile of 4 rows of W and 3 of x: dot products
//   grad_input    gx[n,i] = sum_o g[n,o] W[o,i]   16 rows of W are added to a tile of gx
//   grad_weight   gW[o,i] = sum_n g[n,o] x[n,i]   a tile of gW is summed in registers
//
// Of many rows they are products of packed matrices (matrix_product.h).
//
// Sums are of partial sums of at most a few hundred terms, which keeps the rounding error of long
// ones small.
#include <type_traits>

#include "algorithm.h"
#include "families.h"
#include "matrix_product.h"
#include "parallel.h"
#include "stream.h"
#include "vector_math.h"

namespace fastdl::FASTDL_ISA {

namespace {

constexpr int64_t kGrain = 128 * 1024;  // multiplications that are worth a thread

// --- forward ----------------------------------------------------------------------

// A tile: 4 x 3 sums fill the registers of AVX2, and leave some for a vector of each row. With one row
// of x, 8 of W.
constexpr int kRowsW = 4, kRowsX = 3, kRowsAlone = 8;
constexpr int64_t kTaskRows = 16;  // rows of W of a task
constexpr int64_t kDepth = 512;    // terms of a partial sum: a vector has kDepth / lanes of them
constexpr int64_t kBatch = 128;    // rows of x that meet a row of W while it is in a cache

// sums[w][x] += the dot products of `depth` elements of rows of W, of which `count` are there, and of
// rows of x.
template <class T, int rows_w, int rows_x>
FASTDL_INLINE void dot_tile(const T* weight, const T* x, int64_t pitch, int64_t count, int64_t depth,
                            double (*sums)[kBatch]) {
  // At an edge the last row takes part more than once, and counts once.
  const T* w[rows_w];
  for (int o = 0; o < rows_w; ++o) w[o] = weight + min(o, count - 1) * pitch;
  Vector<T> tile[rows_w][rows_x] = {};
  auto add = [&](int64_t i, auto loaded) {
    Vector<T> of_x[rows_x];
#pragma GCC unroll 4
    for (int n = 0; n < rows_x; ++n) of_x[n] = loaded(x + n * pitch + i);
#pragma GCC unroll 8
    for (int o = 0; o < rows_w; ++o) {
      const Vector<T> of_w = loaded(w[o] + i);
#pragma GCC unroll 4
      for (int n = 0; n < rows_x; ++n) tile[o][n] += of_w * of_x[n];
    }
  };
  int64_t i = 0;
  for (; i + kLanes<T> <= depth; i += kLanes<T>) add(i, [](const T* p) { return load(p); });
  if (i < depth) add(i, [&](const T* p) { return load_part(p, depth - i, T(0)); });
#pragma GCC unroll 8
  for (int o = 0; o < rows_w; ++o) {
    if (o >= count) continue;
#pragma GCC unroll 4
    for (int n = 0; n < rows_x; ++n) sums[o][n] += horizontal_sum<T>(tile[o][n]);
  }
}

template <class T>
void forward(const T* x, const T* weight, const T* bias, const LinearGeometry& g, T* out,
             int threads) {
  const int64_t N = g.batch, I = g.inputs, O = g.outputs;
  parallel_for(ceil_div(O, kTaskRows), threads, [&](int64_t task) {
    const int64_t first = task * kTaskRows, rows = min(kTaskRows, O - first);
    for (int64_t start = 0; start < N; start += kBatch) {
      const int64_t batch = min(kBatch, N - start);
      double sums[kTaskRows][kBatch];
      for (int64_t o = 0; o < rows; ++o)
        for (int64_t n = 0; n < batch; ++n) sums[o][n] = 0;
      for (int64_t i = 0; i < I; i += kDepth) {
        const int64_t depth = min(kDepth, I - i);
        const T *of_w = weight + first * I + i, *of_x = x + start * I + i;
        if (batch == 1) {
          for (int64_t o = 0; o < rows; o += kRowsAlone)
            dot_tile<T, kRowsAlone, 1>(of_w + o * I, of_x, I, rows - o, depth, sums + o);
          continue;
        }
        for (int64_t o = 0; o < rows; o += kRowsW) {
          int64_t n = 0;
          auto tile = [&](auto rows_x) {
            auto at = reinterpret_cast<double(*)[kBatch]>(sums[o] + n);
            dot_tile<T, kRowsW, rows_x.value>(of_w + o * I, of_x + n * I, I, rows - o, depth, at);
          };
          for (; n + kRowsX <= batch; n += kRowsX) tile(std::integral_constant<int, kRowsX>{});
          if (batch - n == 2) tile(std::integral_constant<int, 2>{});
          if (batch - n == 1) tile(std::integral_constant<int, 1>{});
        }
      }
      for (int64_t n = 0; n < batch; ++n)
        for (int64_t o = 0; o < rows; ++o)
          out[(start + n) * O + first + o] =
              static_cast<T>(sums[o][n] + (bias ? static_cast<double>(bias[first + o]) : 0));
    }
  });
}

// --- gradients ----------------------------------------------------------------------

// A tile: kTile rows of two vectors, summed in registers.
#if FASTDL_VECTOR_BYTES == 64
constexpr int kTile = 12;
#elif defined(__AVX2__) || defined(__aarch64__)
constexpr int kTile = 6;
#else
constexpr int kTile = 4;
#endif
constexpr int64_t kColumns = 256;  // of a block, in which all reading is along rows
constexpr int64_t kTerms = 16;     // rows of W that are added to gx at a time
constexpr int64_t kSamples = 256;  // terms of a sum over the batch

// tile[k] = sum over t of a(k, t) * row(t)[0 .. 2 lanes), of which `count` are there.
template <class T, bool whole, class A, class Row>
FASTDL_INLINE void outer_tile(int64_t terms, int64_t count, A a, Row row,
                              Vector<T> (&tile)[kTile][2]) {
#pragma GCC unroll 16
  for (int k = 0; k < kTile; ++k) tile[k][0] = tile[k][1] = Vector<T>{};
  for (int64_t t = 0; t < terms; ++t) {
    const T* p = row(t);
    const Vector<T> b0 = whole ? load(p) : load_some(p, count, T(0));
    Vector<T> b1{};
    if (whole) b1 = load(p + kLanes<T>);
    else if (count > kLanes<T>) b1 = load_part(p + kLanes<T>, count - kLanes<T>, T(0));
#pragma GCC unroll 16
    for (int k = 0; k < kTile; ++k) {
      const Vector<T> factor = splat(a(k, t));
      tile[k][0] += factor * b0;
      tile[k][1] += factor * b1;
    }
  }
}

// use(i, count) for each pair of vectors of columns [begin, end).
template <class T, class Use>
FASTDL_INLINE void each_pair(int64_t begin, int64_t end, Use use) {
  int64_t i = begin;
  for (; i + 2 * kLanes<T> <= end; i += 2 * kLanes<T>)
    use(i, int64_t{2 * kLanes<T>});
  if (i < end) use(i, end - i);
}

template <class T>
FASTDL_INLINE void add_to_row(T* p, int64_t count, Vector<T> a, Vector<T> b) {
  store_some<T>(p, count, load_some(p, count, T(0)) + a);
  if (count > kLanes<T>)
    store_some<T>(p + kLanes<T>, count - kLanes<T>,
                  load_some(p + kLanes<T>, count - kLanes<T>, T(0)) + b);
}

template <class T>
void grad_input(const T* grad, const T* weight, const LinearGeometry& g, T* out, int threads) {
  const int64_t N = g.batch, I = g.inputs, O = g.outputs;
  parallel_for(ceil_div(I, kColumns), threads, [&](int64_t task) {
    const int64_t begin = task * kColumns, end = min(I, begin + kColumns);
    for (int64_t n = 0; n < N; ++n)
      memset(out + n * I + begin, 0, static_cast<size_t>(end - begin) * sizeof(T));
    for (int64_t o = 0; o < O; o += kTerms) {
      const int64_t terms = min(kTerms, O - o);
      for (int64_t n = 0; n < N; n += kTile) {
        const T* factors[kTile];
        for (int k = 0; k < kTile; ++k) factors[k] = grad + min(n + k, N - 1) * O + o;
        each_pair<T>(begin, end, [&](int64_t i, int64_t count) {
          Vector<T> tile[kTile][2];
          auto a = [&](int k, int64_t t) { return factors[k][t]; };
          auto row = [&](int64_t t) { return weight + (o + t) * I + i; };
          if (count == 2 * kLanes<T>) outer_tile<T, true>(terms, count, a, row, tile);
          else outer_tile<T, false>(terms, count, a, row, tile);
#pragma GCC unroll 16
          for (int k = 0; k < kTile; ++k)
            if (n + k < N) add_to_row(out + (n + k) * I + i, count, tile[k][0], tile[k][1]);
        });
      }
    }
  });
}

template <class T>
void grad_weight(const T* grad, const T* x, const LinearGeometry& g, T* out, int threads) {
  const int64_t N = g.batch, I = g.inputs, O = g.outputs;
  const bool past_caches = N <= kSamples && I * sizeof(T) % kLine == 0 &&
                           to_next_line(out) == 0 && goes_past_caches(O * I * sizeof(T));
  parallel_for(ceil_div(O, kTile), threads, [&](int64_t task) {
    const int64_t o = task * kTile, rows = min(kTile, O - o);
    if (N == 0) memset(out + o * I, 0, static_cast<size_t>(rows * I) * sizeof(T));
    for (int64_t n = 0; n < N; n += kSamples) {
      const int64_t terms = min(kSamples, N - n);
      each_pair<T>(0, I, [&](int64_t i, int64_t count) {
        Vector<T> tile[kTile][2];
        const T* factors[kTile];
        for (int k = 0; k < kTile; ++k) factors[k] = grad + n * O + min(o + k, O - 1);
        auto a = [&](int k, int64_t t) { return factors[k][t * O]; };
        auto row = [&](int64_t t) { return x + (n + t) * I + i; };
        if (count == 2 * kLanes<T>) outer_tile<T, true>(terms, count, a, row, tile);
        else outer_tile<T, false>(terms, count, a, row, tile);
#pragma GCC unroll 16
        for (int k = 0; k < kTile; ++k) {
          if (k >= rows) continue;
          T* to = out + (o + k) * I + i;
          if (past_caches) {
            stream<T>(to, tile[k][0]);
            stream<T>(to + kLanes<T>, tile[k][1]);
          } else if (n == 0) {
            store_some<T>(to, count, tile[k][0]);
            if (count > kLanes<T>) store_some<T>(to + kLanes<T>, count - kLanes<T>, tile[k][1]);
          } else {
            add_to_row(to, count, tile[k][0], tile[k][1]);
          }
        }
      });
    }
    if (past_caches) end_of_stream();
  });
}

int threads_for(const LinearGeometry& g, int threads) {
  return worth_threads(g.batch * g.inputs * g.outputs, kGrain, threads);
}

// --- many rows -----------------------------------------------------------------------

// Rows of x from which W's packing pays, and in its gradient x's.
constexpr int64_t kManyRows = 16, kManyTerms = 8;

// Whether the product was computed packed: there must be enough of it, and memory to pack it in.
template <class T>
bool packed(const MatrixProduct<T>& product, bool many, int threads) {
  return many && product.columns > 0 && product.depth > 0 &&
         matrix_product(product, threads) == kDone;
}

template <class T>
void run(const T* x, const T* weight, const T* bias, const LinearGeometry& g, T* out, int threads) {
  threads = threads_for(g, threads);
  if (!packed<T>({g.batch, g.outputs, g.inputs, x, g.inputs, 1, weight, 1, g.inputs, bias, out},
                 g.batch >= kManyRows, threads))
    forward(x, weight, bias, g, out, threads);
}

template <class T>
void run_grad_input(const T* grad, const T* weight, const LinearGeometry& g, T* out, int threads) {
  threads = threads_for(g, threads);
  if (!packed<T>({g.batch, g.inputs, g.outputs, grad, g.outputs, 1, weight, g.inputs, 1, nullptr, out},
                 g.batch >= kManyRows, threads))
    grad_input(grad, weight, g, out, threads);
}

template <class T>
void run_grad_weight(const T* grad, const T* x, const LinearGeometry& g, T* out, int threads) {
  threads = threads_for(g, threads);
  if (!packed<T>({g.outputs, g.inputs, g.batch, grad, 1, g.outputs, x, g.inputs, 1, nullptr, out},
                 g.batch >= kManyTerms, threads))
    grad_weight(grad, x, g, out, threads);
}

}  // namespace

void linear(Dtype dtype, const void* x, const void* weight, const void* bias,
            const LinearGeometry* g, void* out, int threads) {
  const FloatMode mode(dtype);
  if (dtype == kFloat32)
    run(static_cast<const float*>(x), static_cast<const float*>(weight),
        static_cast<const float*>(bias), *g, static_cast<float*>(out), threads);
  else
    run(static_cast<const double*>(x), static_cast<const double*>(weight),
        static_cast<const double*>(bias), *g, static_cast<double*>(out), threads);
}

void linear_grad_input(Dtype dtype, const void* grad, const void* weight, const LinearGeometry* g,
                       void* out, int threads) {
  const FloatMode mode(dtype);
  if (dtype == kFloat32)
    run_grad_input(static_cast<const float*>(grad), static_cast<const float*>(weight), *g,
                   static_cast<float*>(out), threads);
  else
    run_grad_input(static_cast<const double*>(grad), static_cast<const double*>(weight), *g,
                   static_cast<double*>(out), threads);
}

void linear_grad_weight(Dtype dtype, const void* grad, const void* x, const LinearGeometry* g,
                        void* out, int threads) {
  const FloatMode mode(dtype);
  if (dtype == kFloat32)
    run_grad_weight(static_cast<const float*>(grad), static_cast<const float*>(x), *g,
                    static_cast<float*>(out), threads);
  else
    run_grad_weight(static_cast<const double*>(grad), static_cast<const double*>(x), *g,
                    static_cast<double*>(out), threads);
}

}  // namespace fastdl::FASTDL_ISA
