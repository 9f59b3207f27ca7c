// Batch normalisation of channels-last images: x is (M, C), M the pixels of the batch. Also the bias
// gradient of a convolution, a sum over them.
//
// The statistics are sums down the pixels in vectors of channels. A unit is some channels of a part of
// the pixels, which stays in the second-level cache; parts are joined in order (as in norm.cpp, Chan,
// Golub and LeVeque 1979). How the work is cut depends on the sizes alone, so that sums are the same
// whatever the number of threads.
//
// What is written goes through memory in order: the numbers of the channels stand in tables that are
// repeated until they are whole vectors.
#include <cmath>

#include "algorithm.h"
#include "channels_last.h"
#include "families.h"

namespace fastdl::FASTDL_ISA {

namespace {

constexpr int64_t kBlock = 256;        // channels of a unit
constexpr int64_t kPiece = 16 * 1024;  // elements of a unit that are taken at once
constexpr int64_t kGroup = 16;         // terms that are added in single precision
constexpr int64_t kMaxParts = 16;
constexpr int64_t kTable = 2048;       // elements of a table of repeated channels at most

struct Split {
  int64_t pixels, channels, blocks, parts;
  int threads;

  Split(const NormGeometry& g, int wanted)
      : pixels(g.batch * g.size), channels(g.channels), blocks(ceil_div(g.channels, kBlock)),
        parts(max(1, min(kMaxParts, pixels * channels / kGrain / blocks))),
        threads(worth_threads(pixels * channels, kGrain, wanted)) {}

  // body(part, its pixels [begin, end), channels [first, last)) for every unit
  template <class Body>
  void each(Body body) const {
    parallel_for(parts * blocks, threads, [&](int64_t unit) {
      const int64_t part = unit / blocks, first = unit % blocks * kBlock;
      body(part, pixels * part / parts, pixels * (part + 1) / parts, first,
           min(channels, first + kBlock));
    });
  }
};

// totals[term][c - first] = the sums over the pixels [begin, end) of body(element, count, channel).
template <class T, int terms, class Body>
void sum_pixels(int64_t begin, int64_t end, int64_t first, int64_t last, int64_t channels, Body body,
                double (*totals)[kBlock]) {
  constexpr int64_t lanes = kLanes<T>;
  auto sum = [&](int64_t c, int64_t count, auto vectors) __attribute__((always_inline)) {
    constexpr int many = decltype(vectors)::value;
    double local[terms][many][lanes] = {};
    for (int64_t p = begin; p < end; p += kGroup) {
      Vector<T> sums[terms][many] = {};
      const int64_t until = min(end, p + kGroup);
      for (int64_t pixel = p; pixel < until; ++pixel)
#pragma GCC unroll 4
        for (int v = 0; v < many; ++v) {
          const int64_t at = c + v * lanes;
          const Terms<T, terms> more = body(pixel * channels + at, count, at);
#pragma GCC unroll 2
          for (int t = 0; t < terms; ++t) sums[t][v] += more.term[t];
        }
#pragma GCC unroll 2
      for (int t = 0; t < terms; ++t)
#pragma GCC unroll 4
        for (int v = 0; v < many; ++v) add_to<T>(local[t][v], sums[t][v]);
    }
    for (int t = 0; t < terms; ++t)
      memcpy(totals[t] + c - first, local[t],
             static_cast<size_t>((many - 1) * lanes + count) * sizeof(double));
  };
  int64_t c = first;
  for (; c + 4 * lanes <= last; c += 4 * lanes) sum(c, lanes, Vectors<4>{});
  if (c < last)
    each_channels<T>(c, last, [&](int64_t c, int64_t count) {
      sum(c, count, Vectors<1>{});
    });
}

// Numbers of the channels, each table repeated `repeats` times.
template <class T, int numbers>
struct Tables {
  int64_t period;  // elements of a table
  T* values;

  static int64_t period_of(int64_t channels) {
    int64_t repeats = 1;
    while (channels * repeats % kLanes<T> != 0) ++repeats;
    while (channels * repeats < kTable / 4) repeats *= 2;
    return channels * repeats <= kTable ? channels * repeats : channels;
  }
  static int64_t elements(int64_t channels) { return numbers * period_of(channels); }

  Tables(int64_t channels, T* memory) : period(period_of(channels)), values(memory) {}

  T& number(int k, int64_t c) { return values[k * period + c]; }
  // Once the first of each are there.
  void repeat(int64_t channels) {
    for (int k = 0; k < numbers; ++k)
      for (int64_t i = channels; i < period; ++i) number(k, i) = number(k, i - channels);
  }
};

// out = body(element, count, numbers) for all elements.
template <class T, int numbers, class Body>
void write_all(const Split& split, const Tables<T, numbers>& tables, T* out, Body body) {
  constexpr int64_t lanes = kLanes<T>;
  const int64_t size = split.pixels * split.channels, runs = ceil_div(size, tables.period);
  const ChannelWriter<T> writer(out, size, tables.period);
  parallel_range(runs, ceil_div(kGrain, tables.period), split.threads,
                 [&](int64_t begin, int64_t end) {
    // Copies, which need not be read again after each store.
    const Body vector_of = body;
    const T* const values = tables.values;
    const int64_t period = tables.period;
    auto vector = [=](int64_t first, int64_t i, int64_t count) __attribute__((always_inline)) {
      Vector<T> number[numbers];
#pragma GCC unroll 4
      for (int k = 0; k < numbers; ++k) number[k] = load_some(values + k * period + i, count, T(0));
      return vector_of(first + i, count, number);
    };
    for (int64_t first = begin * period; first < min(size, end * period); first += period) {
      T* const to = out + first;
      const int64_t many = min(period, size - first);
      int64_t i = 0;
      if (writer.past_caches() && many == period)
        for (; i < many; i += lanes) stream<T>(to + i, vector(first, i, lanes));
      else
        for (; i + lanes <= many; i += lanes) store(to + i, vector(first, i, lanes));
      if (i < many) store_part(to + i, many - i, vector(first, i, many - i));
    }
    writer.finish();
  });
}

template <class T, class Body>
FASTDL_INLINE void with_activation(Activation activation, Body body) {
  if (activation == kIdentity) body([](Vector<T> v) { return v; });
  else if (activation == kRelu) body([](Vector<T> v) { return relu<T>(v); });
  else body([=](Vector<T> v) { return apply<T>(activation, v); });
}

// out = f((x - center) * scale + shift)
template <class T>
void write_normalized(const Split& split, const Tables<T, 3>& tables, const T* x,
                      Activation activation, T* out) {
  with_activation<T>(activation, [&](auto f) {
    write_all<T, 3>(split, tables, out, [=](int64_t at, int64_t count, const Vector<T>* number)
                        __attribute__((always_inline)) {
      return f((load_some(x + at, count, T(0)) - number[0]) * number[1] + number[2]);
    });
  });
}

// weight / sqrt(var + eps)
template <class T>
FASTDL_INLINE double slope_of(const T* weight, int64_t c, double var, double eps) {
  return (weight ? static_cast<double>(weight[c]) : 1) / std::sqrt(var + eps);
}

template <class T>
int normalize_all(const T* x, const T* mean, const T* var, const T* weight, const T* bias,
                  double eps, const NormGeometry& g, Activation activation, T* out, int threads) {
  if (g.batch * g.channels * g.size == 0) return kDone;
  auto* memory = static_cast<T*>(
      shared_workspace(Tables<T, 3>::elements(g.channels) * static_cast<int64_t>(sizeof(T))));
  if (!memory) return kNoMemory;
  Tables<T, 3> tables(g.channels, memory);
  for (int64_t c = 0; c < g.channels; ++c) {
    tables.number(0, c) = mean[c];
    tables.number(1, c) = static_cast<T>(slope_of(weight, c, static_cast<double>(var[c]), eps));
    tables.number(2, c) = bias ? bias[c] : T(0);
  }
  tables.repeat(g.channels);
  write_normalized(Split(g, threads), tables, x, activation, out);
  return kDone;
}

// Means and sums of squared deviations of a part, joined to those before it.
struct Moments {
  double count, mean[kBlock], squares[kBlock];

  void join(double other, const double* other_mean, const double* other_squares, int64_t channels) {
    const double total = count + other, share = other / total, both = count * share;
    for (int64_t c = 0; c < channels; ++c) {
      const double d = other_mean[c] - mean[c];
      mean[c] += d * share;
      squares[c] += other_squares[c] + d * d * both;
    }
    count = total;
  }
};

template <class T>
void find_moments(const T* x, int64_t begin, int64_t end, int64_t first, int64_t last,
                  int64_t channels, Moments& moments) {
  const int64_t many = last - first, piece = max(kGroup, kPiece / many);
  moments.count = 0;
  for (int64_t c = 0; c < many; ++c) moments.mean[c] = moments.squares[c] = 0;
  for (int64_t p = begin; p < end; p += piece) {
    const int64_t until = min(end, p + piece);
    const double count = static_cast<double>(until - p);
    double mean[1][kBlock], squares[1][kBlock];
    T rounded[kBlock];
    sum_pixels<T, 1>(p, until, first, last, channels,
                     [=](int64_t at, int64_t n, int64_t) __attribute__((always_inline)) {
                       return Terms<T, 1>{{load_some(x + at, n, T(0))}};
                     },
                     mean);
    for (int64_t c = 0; c < many; ++c) {
      mean[0][c] /= count;
      rounded[c] = static_cast<T>(mean[0][c]);
    }
    const T* center = rounded - first;
    sum_pixels<T, 1>(p, until, first, last, channels,
                     [=](int64_t at, int64_t n, int64_t c) __attribute__((always_inline)) {
                       const Vector<T> d =
                           load_some(x + at, n, T(0)) - load_some(center + c, n, T(0));
                       return Terms<T, 1>{{d * d}};
                     },
                     squares);
    for (int64_t c = 0; c < many; ++c) {
      const double lost = mean[0][c] - static_cast<double>(rounded[c]);
      squares[0][c] = squares[0][c] - count * lost * lost;
      if (squares[0][c] < 0) squares[0][c] = 0;
    }
    moments.join(count, mean[0], squares[0], many);
  }
}

template <class T>
int train(const T* x, const T* weight, const T* bias, double eps, const NormGeometry& g,
          Activation activation, T* out, T* mean, T* var, int threads) {
  const Split split(g, threads);
  const int64_t units = split.parts * split.blocks;
  const int64_t head = units * static_cast<int64_t>(sizeof(Moments));
  char* memory = static_cast<char*>(shared_workspace(
      head + Tables<T, 3>::elements(g.channels) * static_cast<int64_t>(sizeof(T))));
  if (!memory) return kNoMemory;
  auto* moments = reinterpret_cast<Moments*>(memory);  // [block][part]
  split.each([&](int64_t part, int64_t begin, int64_t end, int64_t first, int64_t last) {
    find_moments(x, begin, end, first, last, g.channels,
                 moments[first / kBlock * split.parts + part]);
  });
  Tables<T, 3> tables(g.channels, reinterpret_cast<T*>(memory + head));
  for (int64_t block = 0; block < split.blocks; ++block) {
    Moments* all = moments + block * split.parts;
    const int64_t first = block * kBlock, many = min(kBlock, g.channels - first);
    for (int64_t part = 1; part < split.parts; ++part)
      all->join(all[part].count, all[part].mean, all[part].squares, many);
    for (int64_t i = 0, c = first; i < many; ++i, ++c) {
      const double variance = all->squares[i] / all->count;
      const double slope = slope_of(weight, c, variance, eps);
      mean[c] = static_cast<T>(all->mean[i]);
      var[c] = static_cast<T>(variance);
      tables.number(0, c) = mean[c];
      tables.number(1, c) = static_cast<T>(slope);
      // With what the mean lost when it was rounded.
      tables.number(2, c) =
          static_cast<T>((bias ? static_cast<double>(bias[c]) : 0) +
                         (static_cast<double>(mean[c]) - all->mean[i]) * slope);
    }
  }
  tables.repeat(g.channels);
  write_normalized(split, tables, x, activation, out);
  return kDone;
}

// body(grad_at), where grad_at(offset, count) loads elements of grad: zero where y = relu(...) is, if
// there is a y.
template <class T, class Body>
FASTDL_INLINE void with_gradient(const T* grad, const T* y, Body body) {
  auto of_output = [=](int64_t at, int64_t n) __attribute__((always_inline)) {
    return load_some(grad + at, n, T(0));
  };
  if (!y) body(of_output);
  else
    body([=](int64_t at, int64_t n) __attribute__((always_inline)) {
      return load_some(y + at, n, T(0)) <= 0 ? Vector<T>{} : of_output(at, n);
    });
}

template <class T>
int backward(const T* grad, const T* x, const T* mean, const T* inv_std, const T* weight,
             bool training, const T* y, const NormGeometry& g, T* grad_x, T* grad_weight,
             T* grad_bias, int threads) {
  struct Sums {
    double of[2][kBlock];  // the gradient, and its products with x - mean
  };
  const Split split(g, threads);
  const double count = static_cast<double>(split.pixels);
  const int64_t head = split.parts * split.blocks * static_cast<int64_t>(sizeof(Sums));
  char* memory = static_cast<char*>(shared_workspace(
      head + Tables<T, 4>::elements(g.channels) * static_cast<int64_t>(sizeof(T))));
  if (!memory) return kNoMemory;
  auto* sums = reinterpret_cast<Sums*>(memory);  // [block][part]
  with_gradient(grad, y, [&](auto grad_at) {
    split.each([&](int64_t part, int64_t begin, int64_t end, int64_t first, int64_t last) {
      sum_pixels<T, 2>(begin, end, first, last, g.channels,
                       [=](int64_t at, int64_t n, int64_t c) __attribute__((always_inline)) {
                         const Vector<T> d = grad_at(at, n);
                         return Terms<T, 2>{
                             {d, d * (load_some(x + at, n, T(0)) - load_some(mean + c, n, T(0)))}};
                       },
                       sums[first / kBlock * split.parts + part].of);
    });
    // grad_x = factor * grad - slope * (x - mean) - shift
    Tables<T, 4> tables(g.channels, reinterpret_cast<T*>(memory + head));
    for (int64_t c = 0; c < g.channels; ++c) {
      double total[2] = {};
      for (int64_t part = 0; part < split.parts; ++part)
        for (int t = 0; t < 2; ++t)
          total[t] += sums[c / kBlock * split.parts + part].of[t][c % kBlock];
      const double deviation = static_cast<double>(inv_std[c]);
      const double scale = (weight ? static_cast<double>(weight[c]) : 1) * deviation;
      const double sum = total[1] * deviation;
      grad_bias[c] = static_cast<T>(total[0]);
      grad_weight[c] = static_cast<T>(sum);
      tables.number(0, c) = static_cast<T>(scale);
      tables.number(1, c) = static_cast<T>(scale * deviation * (sum / count));
      tables.number(2, c) = static_cast<T>(scale * (total[0] / count));
      tables.number(3, c) = mean[c];
    }
    tables.repeat(g.channels);
    if (training)
      write_all<T, 4>(split, tables, grad_x, [=](int64_t at, int64_t n, const Vector<T>* number)
                          __attribute__((always_inline)) {
        return number[0] * grad_at(at, n) -
               (number[1] * (load_some(x + at, n, T(0)) - number[3]) + number[2]);
      });
    else
      write_all<T, 4>(split, tables, grad_x, [=](int64_t at, int64_t n, const Vector<T>* number)
                          __attribute__((always_inline)) {
        return number[0] * grad_at(at, n);
      });
  });
  return kDone;
}

// The bias gradient of a convolution. In double precision throughout: it may be one sum that cancels.
template <class T>
int sum_bias(const T* grad, const NormGeometry& g, T* out, int threads) {
  const Split split(g, threads);
  auto* totals = static_cast<double*>(shared_workspace(
      split.parts * split.blocks * kBlock * static_cast<int64_t>(sizeof(double))));
  if (!totals) return kNoMemory;
  split.each([&](int64_t part, int64_t begin, int64_t end, int64_t first, int64_t last) {
    double sums[kBlock + kLanes<T>] = {};
    for (int64_t pixel = begin; pixel < end; ++pixel) {
      const T* row = grad + pixel * g.channels;
      int64_t c = first;
      for (; c + kLanes<T> <= last; c += kLanes<T>) add_to<T>(sums + c - first, load(row + c));
      if (c < last) add_to<T>(sums + c - first, load_some(row + c, last - c, T(0)));
    }
    memcpy(totals + (first / kBlock * split.parts + part) * kBlock, sums, sizeof(double) * kBlock);
  });
  for (int64_t c = 0; c < g.channels; ++c) {
    double total = 0;
    for (int64_t part = 0; part < split.parts; ++part)
      total += totals[(c / kBlock * split.parts + part) * kBlock + c % kBlock];
    out[c] = static_cast<T>(total);
  }
  return kDone;
}

}  // namespace

int channels_last_conv2d_grad_bias(Dtype dtype, const void* grad, const NormGeometry* g, void* out,
                                   int threads) {
  const FloatMode mode(dtype);
  if (dtype == kFloat32)
    return sum_bias(static_cast<const float*>(grad), *g, static_cast<float*>(out), threads);
  return sum_bias(static_cast<const double*>(grad), *g, static_cast<double*>(out), threads);
}

int channels_last_batch_norm_train(Dtype dtype, const void* x, const void* weight, const void* bias,
                                   double eps, const NormGeometry* g, Activation activation,
                                   void* out, void* mean, void* var, int threads) {
  const FloatMode mode(dtype);
  if (dtype == kFloat32)
    return train(static_cast<const float*>(x), static_cast<const float*>(weight),
                 static_cast<const float*>(bias), eps, *g, activation, static_cast<float*>(out),
                 static_cast<float*>(mean), static_cast<float*>(var), threads);
  return train(static_cast<const double*>(x), static_cast<const double*>(weight),
               static_cast<const double*>(bias), eps, *g, activation, static_cast<double*>(out),
               static_cast<double*>(mean), static_cast<double*>(var), threads);
}

int channels_last_normalize(Dtype dtype, const void* x, const void* mean, const void* var,
                            const void* weight, const void* bias, double eps,
                            const NormGeometry* g, Activation activation, void* out, int threads) {
  const FloatMode mode(dtype);
  if (dtype == kFloat32)
    return normalize_all(static_cast<const float*>(x), static_cast<const float*>(mean),
                         static_cast<const float*>(var), static_cast<const float*>(weight),
                         static_cast<const float*>(bias), eps, *g, activation,
                         static_cast<float*>(out), threads);
  return normalize_all(static_cast<const double*>(x), static_cast<const double*>(mean),
                       static_cast<const double*>(var), static_cast<const double*>(weight),
                       static_cast<const double*>(bias), eps, *g, activation,
                       static_cast<double*>(out), threads);
}

int channels_last_batch_norm_backward(Dtype dtype, const void* grad, const void* x,
                                      const void* mean, const void* inv_std, const void* weight,
                                      bool training, const void* y, const NormGeometry* g,
                                      void* grad_x, void* grad_weight, void* grad_bias,
                                      int threads) {
  const FloatMode mode(dtype);
  if (dtype == kFloat32)
    return backward(static_cast<const float*>(grad), static_cast<const float*>(x),
                    static_cast<const float*>(mean), static_cast<const float*>(inv_std),
                    static_cast<const float*>(weight), training, static_cast<const float*>(y), *g,
                    static_cast<float*>(grad_x), static_cast<float*>(grad_weight),
                    static_cast<float*>(grad_bias), threads);
  return backward(static_cast<const double*>(grad), static_cast<const double*>(x),
                  static_cast<const double*>(mean), static_cast<const double*>(inv_std),
                  static_cast<const double*>(weight), training, static_cast<const double*>(y), *g,
                  static_cast<double*>(grad_x), static_cast<double*>(grad_weight),
                  static_cast<double*>(grad_bias), threads);
}

}  // namespace fastdl::FASTDL_ISA
