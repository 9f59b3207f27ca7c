// Batch normalisation: sums over a channel, then one pass over its elements. Also the bias gradient
// of a convolution, which is such a sum.
//
// x is (N, C, S). A task owns a block of neighbouring channels, a run of elements in each image, and
// makes both passes while they are in the second-level cache:
//
//   image 0   [ . . . . |=====| . . . ]
//   image 1   [ . . . . |=====| . . . ]    ===  block channels of S elements
//   image 2   [ . . . . |=====| . . . ]
//
// Where there are few blocks, several tasks share one, each some of its images, and their sums are
// joined in order before the second pass. Rows of S elements that are shorter than a vector or two
// are taken a run at a time, each element with its channel's numbers (`Expanded`).
//
// The statistics of long rows read their channel once: a piece that fits the first-level cache gives its
// mean and the squares of its deviations from that. Pieces are joined as in Chan, Golub and LeVeque,
// "Updating formulae and a pairwise algorithm for computing sample variances" (1979):
//
//   mean = mean_a + d n_b / n,  squares = squares_a + squares_b + d^2 n_a n_b / n,
//   d = mean_b - mean_a,  n = n_a + n_b
//
#include <cmath>

#include "algorithm.h"
#include "families.h"
#include "parallel.h"
#include "stream.h"
#include "vector_math.h"

namespace fastdl::FASTDL_ISA {

namespace {

constexpr int64_t kGrain = 32 * 1024;  // elements that are worth a thread
constexpr int64_t kShortRow = 16;      // rows below this are taken a run at a time
constexpr int64_t kRun = 1024;         // elements of a run, where a channel has fewer
constexpr int64_t kPiece = 2048;       // elements of a long row that are taken at once
constexpr int64_t kLongRow = 512;      // rows that are worth a start of their own
constexpr int64_t kManyBlocks = 8;     // blocks that keep threads busy
constexpr int64_t kMaxParts = 16;      // tasks that share a block
// Channels where blocks are shared: fewer than kManyBlocks blocks of at least 64 elements.
constexpr int64_t kMaxShared = kManyBlocks * 64;

// How the work is cut. It depends on the sizes alone, so that sums are joined in the same order
// whatever the number of threads.
struct Split {
  int64_t block, blocks, parts;
  int threads;
  Split(const NormGeometry& g, int wanted) {
    const int64_t size = max(1, g.size), work = g.batch * g.channels * size;
    block = max(ceil_div(g.channels, 2 * kManyBlocks), ceil_div(64, size));
    block = max(1, min(min(block, kRun / size), g.channels));
    blocks = ceil_div(g.channels, block);
    const bool few = blocks < kManyBlocks && work >= 2 * kGrain;
    parts = few ? max(1, min(kMaxParts, g.batch)) : 1;
    threads = worth_threads(work, kGrain, wanted);
  }
};

// Channels [first, end) of images [begin, last).
struct Share {
  int64_t first, end, begin, last;
};

FASTDL_INLINE Share share_of(const NormGeometry& g, const Split& split, int64_t block,
                             int64_t part) {
  const int64_t first = block * split.block;
  return {first, min(g.channels, first + split.block), part * g.batch / split.parts,
          (part + 1) * g.batch / split.parts};
}

// Two passes over every channel: sum(share, values) finds a Value for each of the share's channels,
// join(value, other) adds what another task found, use(share, values, is_first) makes the second
// pass; the first task of a block also writes what there is one of for each channel.
template <class Value, class Sum, class Join, class Use>
void two_passes(const NormGeometry& g, int threads, Sum sum, Join join, Use use) {
  const Split split(g, threads);
  if (split.parts == 1) {
    parallel_apart(split.blocks, split.threads, [&](int64_t block) {
      const Share share = share_of(g, split, block, 0);
      Value values[kRun];
      sum(share, values);
      use(share, values, true);
    });
    return;
  }
  Value values[kMaxParts][kMaxShared];
  auto each = [&](auto body) {
    parallel_for(split.blocks * split.parts, split.threads, [&](int64_t task) {
      const int64_t part = task % split.parts;
      body(share_of(g, split, task / split.parts, part), part);
    });
  };
  each([&](const Share& share, int64_t part) { sum(share, values[part] + share.first); });
  for (int64_t part = 1; part < split.parts; ++part)
    for (int64_t c = 0; c < g.channels; ++c) join(values[0][c], values[part][c]);
  each([&](const Share& share, int64_t part) { use(share, values[0] + share.first, part == 0); });
}

// Numbers of a channel, one for each of a run's elements; zeros for a null pointer.
template <class T, int numbers>
struct Expanded {
  T values[numbers][kRun + kLanes<T>];
  Expanded(const T* const (&of_channel)[numbers], int64_t channels, int64_t size) {
    for (int k = 0; k < numbers; ++k) {
      T* to = values[k];
      for (int64_t c = 0; c < channels; ++c)
        for (int64_t s = 0; s < size; ++s) *to++ = of_channel[k] ? of_channel[k][c] : T(0);
      for (int lane = 0; lane < kLanes<T>; ++lane) *to++ = 0;
    }
  }
};

// Offset of the row that a sum over the share's rows reads after row c of image n.
FASTDL_INLINE int64_t following_row(const NormGeometry& g, const Share& share, int64_t n,
                                    int64_t c) {
  const bool same_image = share.first + c + 1 < share.end;
  const int64_t row = same_image ? n * g.channels + share.first + c + 1
                                 : min(n + 1, share.last - 1) * g.channels + share.first;
  return row * g.size;
}

// As `sum_channels`, of rows of a few vectors: a row is summed lane by lane in single precision, rows
// in double, and only the channel's lanes are joined.
template <class T, int terms, int arrays, class Body>
void sum_middling_rows(const NormGeometry& g, const Share& share, const T* const (&inputs)[arrays],
                       const T* middle, Body body, double* totals) {
  constexpr int sums = 4 / terms;  // of a term, to hide an addition's latency
  const int64_t channels = share.end - share.first;
  double lanes[kRun / kShortRow * terms][kLanes<T>];
  for (int64_t i = 0; i < channels * terms; ++i)
    for (int lane = 0; lane < kLanes<T>; ++lane) lanes[i][lane] = 0;
  // What fills no vector of a row: the last lanes of its last vector.
  const int64_t rest = g.size % kLanes<T>, whole = g.size - rest;
  const IntegerVector<T> is_rest = iota<T>() >= static_cast<Integer<T>>(kLanes<T> - rest);
  for (int64_t n = share.begin; n < share.last; ++n)
    for (int64_t c = 0; c < channels; ++c) {
      const int64_t row = (n * g.channels + share.first + c) * g.size;
      const int64_t ahead = n + 1 < share.last ? row + g.channels * g.size : row;
      const Vector<T> center = splat(middle ? middle[c] : T(0));
      Vector<T> sum[sums][terms] = {};
      auto add = [&](int to, int64_t i) {
        const Terms<T, terms> more = body(row + i, kLanes<T>, center);
        for (int t = 0; t < terms; ++t) sum[to][t] += more.term[t];
      };
      int64_t i = 0;
      for (; i + sums * kLanes<T> <= whole; i += sums * kLanes<T>) {
        for (const T* input : inputs) prefetch_next<sums * kLanes<T>>(input + ahead + i);
        for (int v = 0; v < sums; ++v) add(v, i + v * kLanes<T>);
      }
      for (; i < whole; i += kLanes<T>) add(0, i);
      if (rest) {
        const Terms<T, terms> more = body(row + g.size - kLanes<T>, kLanes<T>, center);
        for (int t = 0; t < terms; ++t)
          sum[sums - 1][t] += (Vector<T>)((IntegerVector<T>)more.term[t] & is_rest);
      }
      for (int t = 0; t < terms; ++t) {
        for (int v = 1; v < sums; ++v) sum[0][t] += sum[v][t];
        add_to<T>(lanes[c * terms + t], sum[0][t]);
      }
    }
  for (int64_t i = 0; i < channels * terms; ++i)
    for (int lane = 0; lane < kLanes<T>; ++lane) totals[i] += lanes[i][lane];
}

// totals[c * terms + t] = the sum over channel first + c of term t of body(offset, count, middle),
// with middle[c] in every lane (zero for a null pointer). The terms are of elements of `inputs`.
template <class T, int terms, int arrays, class Body>
void sum_channels(const NormGeometry& g, const Share& share, const T* const (&inputs)[arrays],
                  const T* middle, Body body, double* totals) {
  const int64_t channels = share.end - share.first;
  for (int64_t i = 0; i < channels * terms; ++i) totals[i] = 0;
  if (g.size >= kLongRow) {
    for (int64_t n = share.begin; n < share.last; ++n)
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t row = (n * g.channels + share.first + c) * g.size;
        const Vector<T> center = splat(middle ? middle[c] : T(0));
        for (const T* input : inputs) prefetch_row(input + following_row(g, share, n, c));
        add_vectors<T, terms>(
            g.size, [&](int64_t i, int64_t count) { return body(row + i, count, center); },
            totals + c * terms);
      }
    return;
  }
  if (g.size >= kShortRow) {
    sum_middling_rows<T, terms>(g, share, inputs, middle, body, totals);
    return;
  }
  // A group of images is summed in single precision, element by element of the run.
  constexpr int64_t group = 8;
  const Expanded<T, 1> centers({middle}, channels, g.size);
  const int64_t run = channels * g.size;
  double sums[terms][kRun + kLanes<T>] = {};
  for (int64_t n = share.begin; n < share.last; n += group) {
    auto add = [&](int64_t i, int64_t count) {
      const Vector<T> center = load(centers.values[0] + i);
      Vector<T> sum[terms] = {};
      for (int64_t image = n; image < min(share.last, n + group); ++image) {
        const int64_t at = (image * g.channels + share.first) * g.size + i;
        const Terms<T, terms> more = body(at, count, center);
        for (int t = 0; t < terms; ++t) sum[t] += more.term[t];
      }
      for (int t = 0; t < terms; ++t) add_to<T>(sums[t] + i, sum[t]);
    };
    int64_t i = 0;
    for (; i + kLanes<T> <= run; i += kLanes<T>) add(i, int64_t{kLanes<T>});
    if (i < run) add(i, run - i);
  }
  for (int64_t i = 0; i < run; ++i)
    for (int t = 0; t < terms; ++t) totals[i / g.size * terms + t] += sums[t][i];
}

// out = body(offset, count, numbers) for each element of the share, where numbers[k] is
// of_channel[k][c] in every lane. Images come in falling order: the last ones are in the caches.
template <class T, int numbers, class Body>
FASTDL_INLINE void write_channels(const NormGeometry& g, const Share& share,
                                  const T* const (&of_channel)[numbers], Body body, T* out,
                                  RowWriter<T>& writer) {
  const int64_t channels = share.end - share.first, run = channels * g.size;
  Vector<T> number[numbers];
  if (g.size >= kShortRow) {
    for (int64_t n = share.last; n-- > share.begin;) {
      int64_t at = (n * g.channels + share.first) * g.size;
      if (g.size < kLongRow) writer.start(out + at, run);
      for (int64_t c = 0; c < channels; ++c, at += g.size) {
        for (int k = 0; k < numbers; ++k) number[k] = splat(of_channel[k][c]);
        auto vector = [&](int64_t i, int64_t count) { return body(at + i, count, number); };
        if (g.size >= kLongRow) {
          write<T>(out + at, g.size, writer.past_caches(), vector);
          continue;
        }
        T* to = writer.next(g.size, 0);
        const int64_t ahead = n > share.begin ? at - g.channels * g.size : at;
        int64_t i = 0;
        for (; i + 2 * kLanes<T> <= g.size; i += 2 * kLanes<T>) {
          prefetch_next<2 * kLanes<T>>(out + ahead + i);
          store(to + i, vector(i, kLanes<T>));
          store(to + i + kLanes<T>, vector(i + kLanes<T>, kLanes<T>));
        }
        if (i + kLanes<T> <= g.size) store(to + i, vector(i, kLanes<T>));
        // What fills no vector is in the last one that does.
        i = g.size - kLanes<T>;
        store(to + i, vector(i, kLanes<T>));
        writer.done(g.size);
      }
    }
    return;
  }
  const Expanded<T, numbers> expanded(of_channel, channels, g.size);
  for (int64_t n = share.last; n-- > share.begin;) {
    const int64_t at = (n * g.channels + share.first) * g.size;
    writer.start(out + at, run);
    T* to = writer.next(run, kLanes<T>);
    auto write = [&](int64_t i, int64_t count) {
      for (int k = 0; k < numbers; ++k) number[k] = load(expanded.values[k] + i);
      store(to + i, body(at + i, count, number));
    };
    int64_t i = 0;
    for (; i + kLanes<T> <= run; i += kLanes<T>) write(i, int64_t{kLanes<T>});
    if (i < run) write(i, run - i);
    writer.done(run);
  }
}

template <class T, class Body>
FASTDL_INLINE void with_activation(Activation activation, Body body) {
  if (activation == kIdentity) body([](Vector<T> v) { return v; });
  else if (activation == kRelu) body([](Vector<T> v) { return relu<T>(v); });
  else body([=](Vector<T> v) { return apply<T>(activation, v); });
}

// out = f((x - center) * scale + shift)
template <class T>
void write_normalized(const NormGeometry& g, const Share& share, const T* x, const T* center,
                      const T* scale, const T* shift, Activation activation, T* out,
                      RowWriter<T>& writer) {
  with_activation<T>(activation, [&](auto f) {
    write_channels<T, 3>(
        g, share, {center, scale, shift},
        [&](int64_t at, int64_t count, const Vector<T>* number) {
          return f((load_some(x + at, count, T(0)) - number[0]) * number[1] + number[2]);
        },
        out, writer);
  });
}

template <class T>
FASTDL_INLINE bool output_goes_past_caches(const NormGeometry& g) {
  return goes_past_caches(g.batch * g.channels * g.size * static_cast<int64_t>(sizeof(T)));
}

// How many values of a channel were seen, their mean, and the sum of squared deviations from it.
struct Moments {
  double count, mean, squares;
  void join(const Moments& other) {
    const double total = count + other.count, d = other.mean - mean;
    if (other.count == 0) return;
    mean += d * (other.count / total);
    squares += other.squares + d * d * (count * other.count / total);
    count = total;
  }
};

// The squares of deviations from the mean, from those from a rounded mean.
FASTDL_INLINE Moments moments_of(double count, double mean, double rounded, double squares) {
  squares -= count * (mean - rounded) * (mean - rounded);
  return {count, mean, squares < 0 ? 0 : squares};
}

template <class T>
Moments moments_of_piece(const T* x, int64_t size) {
  const double mean = sum_of(x, size) / static_cast<double>(size);
  const T rounded = static_cast<T>(mean);
  const double squares = sum_vectors<T>(size, [&](int64_t i, int64_t n) {
    const Vector<T> d = load_some(x + i, n, rounded) - rounded;
    return d * d;
  });
  return moments_of(static_cast<double>(size), mean, rounded, squares);
}

template <class T>
void find_moments(const NormGeometry& g, const Share& share, const T* x, Moments* moments) {
  const int64_t channels = share.end - share.first;
  if (g.size >= kLongRow) {
    const int64_t pieces = ceil_div(g.size, kPiece);
    for (int64_t c = 0; c < channels; ++c) moments[c] = {};
    for (int64_t n = share.begin; n < share.last; ++n)
      for (int64_t c = 0; c < channels; ++c) {
        const T* row = x + (n * g.channels + share.first + c) * g.size;
        prefetch_row(x + following_row(g, share, n, c));
        for (int64_t piece = 0; piece < pieces; ++piece) {
          const int64_t begin = piece * g.size / pieces, end = (piece + 1) * g.size / pieces;
          moments[c].join(moments_of_piece(row + begin, end - begin));
        }
      }
    return;
  }
  const double count = static_cast<double>((share.last - share.begin) * g.size);
  double sums[kRun], squares[kRun];
  T rounded[kRun];
  sum_channels<T, 1>(
      g, share, {x}, nullptr,
      [&](int64_t at, int64_t n, Vector<T>) {
        return Terms<T, 1>{{load_some(x + at, n, T(0))}};
      },
      sums);
  for (int64_t c = 0; c < channels; ++c) rounded[c] = static_cast<T>(sums[c] / count);
  sum_channels<T, 1>(
      g, share, {x}, rounded,
      [&](int64_t at, int64_t n, Vector<T> center) {
        const Vector<T> d = load_some(x + at, n, T(0)) - center;
        return Terms<T, 1>{{first_lanes<T>(d * d, n)}};
      },
      squares);
  for (int64_t c = 0; c < channels; ++c)
    moments[c] = moments_of(count, sums[c] / count, rounded[c], squares[c]);
}

// weight / sqrt(var + eps)
template <class T>
FASTDL_INLINE double slope_of(const T* weight, int64_t c, double var, double eps) {
  return (weight ? static_cast<double>(weight[c]) : 1) / std::sqrt(var + eps);
}

template <class T>
void train(const T* x, const T* weight, const T* bias, double eps, const NormGeometry& g,
           Activation activation, T* out, T* mean, T* var, int threads) {
  const bool past_caches = output_goes_past_caches<T>(g);
  two_passes<Moments>(
      g, threads,
      [&](const Share& share, Moments* moments) { find_moments(g, share, x, moments); },
      [](Moments& moments, const Moments& more) { moments.join(more); },
      [&](const Share& share, const Moments* moments, bool is_first) {
        T center[kRun], scale[kRun], shift[kRun];
        for (int64_t i = 0, c = share.first; c < share.end; ++i, ++c) {
          const double variance = moments[i].squares / moments[i].count;
          const double slope = slope_of(weight, c, variance, eps);
          center[i] = static_cast<T>(moments[i].mean);
          scale[i] = static_cast<T>(slope);
          // With what the mean lost when it was rounded.
          shift[i] = static_cast<T>((bias ? static_cast<double>(bias[c]) : 0) +
                                    (static_cast<double>(center[i]) - moments[i].mean) * slope);
          if (is_first) {
            mean[c] = center[i];
            var[c] = static_cast<T>(variance);
          }
        }
        RowWriter<T> writer(past_caches);
        write_normalized(g, share, x, center, scale, shift, activation, out, writer);
      });
}

template <class T>
int normalize_all(const T* x, const T* mean, const T* var, const T* weight, const T* bias,
                  double eps, const NormGeometry& g, Activation activation, T* out, int threads) {
  if (g.batch * g.channels * g.size == 0) return kDone;
  T* scale = static_cast<T*>(shared_workspace(2 * g.channels * static_cast<int64_t>(sizeof(T))));
  if (!scale) return kNoMemory;
  T* shift = scale + g.channels;
  for (int64_t c = 0; c < g.channels; ++c) {
    scale[c] = static_cast<T>(slope_of(weight, c, static_cast<double>(var[c]), eps));
    shift[c] = bias ? bias[c] : T(0);
  }
  const Split split(g, threads);
  const bool past_caches = output_goes_past_caches<T>(g);
  auto write = [&](const Share& share, RowWriter<T>& writer) {
    write_normalized(g, share, x, mean + share.first, scale + share.first, shift + share.first,
                     activation, out, writer);
  };
  if (g.size < kShortRow) {
    parallel_apart(split.blocks * split.parts, split.threads, [&](int64_t task) {
      RowWriter<T> writer(past_caches);
      write(share_of(g, split, task / split.parts, task % split.parts), writer);
    });
    return kDone;
  }
  // Through memory in order.
  parallel_range(g.batch * g.channels, 1, split.threads, [&](int64_t begin, int64_t end) {
    RowWriter<T> writer(past_caches);
    while (begin < end) {
      const int64_t n = begin / g.channels, first = begin % g.channels;
      const int64_t rows = min(end - begin, g.channels - first);
      write({first, first + rows, n, n + 1}, writer);
      begin += rows;
    }
  });
  return kDone;
}

// Sums over a channel: of the gradient, and of its products with x - mean.
struct Sums {
  double grad, product;
};

// body(grad_at), where grad_at(offset, count) loads elements of grad: zero where y = relu(...) is, if
// there is a y.
template <class T, class Body>
FASTDL_INLINE void with_gradient(const T* grad, const T* y, Body body) {
  auto of_output = [=](int64_t at, int64_t n) { return load_some(grad + at, n, T(0)); };
  if (!y) body(of_output);
  else
    body([=](int64_t at, int64_t n) {
      return load_some(y + at, n, T(0)) <= 0 ? Vector<T>{} : of_output(at, n);
    });
}

template <class T>
void backward(const T* grad, const T* x, const T* mean, const T* inv_std, const T* weight,
              bool training, const T* y, const NormGeometry& g, T* grad_x, T* grad_weight,
              T* grad_bias, int threads) {
  const double count = static_cast<double>(g.batch * g.size);
  const bool past_caches = output_goes_past_caches<T>(g);
  with_gradient(grad, y, [&](auto grad_at) {
    two_passes<Sums>(
        g, threads,
        [&](const Share& share, Sums* sums) {
          double totals[2 * kRun];
          sum_channels<T, 2>(
              g, share, {grad, x, y ? y : x}, mean + share.first,
              [&](int64_t at, int64_t n, Vector<T> center) {
                const Vector<T> d = grad_at(at, n);
                return Terms<T, 2>{{d, d * (load_some(x + at, n, T(0)) - center)}};
              },
              totals);
          for (int64_t i = 0; i < share.end - share.first; ++i)
            sums[i] = {totals[2 * i], totals[2 * i + 1]};
        },
        [](Sums& sums, const Sums& more) {
          sums.grad += more.grad;
          sums.product += more.product;
        },
        [&](const Share& share, const Sums* sums, bool is_first) {
          // grad_x = factor * grad - slope * (x - mean) - shift
          T factor[kRun], slope[kRun], shift[kRun];
          for (int64_t i = 0, c = share.first; c < share.end; ++i, ++c) {
            const double deviation = static_cast<double>(inv_std[c]);
            const double scale = (weight ? static_cast<double>(weight[c]) : 1) * deviation;
            const double sum = sums[i].product * deviation;
            factor[i] = static_cast<T>(scale);
            slope[i] = static_cast<T>(scale * deviation * (sum / count));
            shift[i] = static_cast<T>(scale * (sums[i].grad / count));
            if (is_first) {
              grad_bias[c] = static_cast<T>(sums[i].grad);
              grad_weight[c] = static_cast<T>(sum);
            }
          }
          RowWriter<T> writer(past_caches);
          if (training)
            write_channels<T, 4>(
                g, share, {factor, slope, shift, mean + share.first},
                [&](int64_t at, int64_t n, const Vector<T>* number) {
                  return number[0] * grad_at(at, n) -
                         (number[1] * (load_some(x + at, n, T(0)) - number[3]) + number[2]);
                },
                grad_x, writer);
          else
            write_channels<T, 1>(
                g, share, {factor},
                [&](int64_t at, int64_t n, const Vector<T>* number) {
                  return number[0] * grad_at(at, n);
                },
                grad_x, writer);
        });
  });
}

// As many elements as a vector holds doubles.
template <class T>
struct AsDoubles {
  typedef T type __attribute__((vector_size(kLanes<double> * sizeof(T)), aligned(sizeof(T)), may_alias));
};

// The sum of a row in double precision throughout: a bias may be one sum that cancels.
template <class T>
double sum_in_double(const T* x, int64_t size) {
  constexpr int lanes = kLanes<double>;
  Vector<double> sum[4] = {};
  int64_t i = 0;
  for (; i + 4 * lanes <= size; i += 4 * lanes)
    for (int v = 0; v < 4; ++v)
      sum[v] += __builtin_convertvector(
          *reinterpret_cast<const typename AsDoubles<T>::type*>(x + i + v * lanes), Vector<double>);
  double total = horizontal_sum<double>((sum[0] + sum[1]) + (sum[2] + sum[3]));
  for (; i < size; ++i) total += static_cast<double>(x[i]);
  return total;
}

template <class T>
void sum_bias(const T* grad, const NormGeometry& g, T* out, int threads) {
  two_passes<double>(
      g, threads,
      [&](const Share& share, double* sums) {
        for (int64_t c = share.first; c < share.end; ++c) {
          double& sum = sums[c - share.first] = 0;
          for (int64_t n = share.begin; n < share.last; ++n)
            sum += sum_in_double(grad + (n * g.channels + c) * g.size, g.size);
        }
      },
      [](double& sum, double more) { sum += more; },
      [&](const Share& share, const double* sums, bool is_first) {
        for (int64_t c = share.first; is_first && c < share.end; ++c)
          out[c] = static_cast<T>(sums[c - share.first]);
      });
}

}  // namespace

void conv2d_grad_bias(Dtype dtype, const void* grad, const NormGeometry* g, void* out,
                      int threads) {
  const FloatMode mode(dtype);
  if (dtype == kFloat32)
    sum_bias(static_cast<const float*>(grad), *g, static_cast<float*>(out), threads);
  else
    sum_bias(static_cast<const double*>(grad), *g, static_cast<double*>(out), threads);
}

void batch_norm_train(Dtype dtype, const void* x, const void* weight, const void* bias, double eps,
                      const NormGeometry* g, Activation activation, void* out, void* mean,
                      void* var, int threads) {
  const FloatMode mode(dtype);
  if (dtype == kFloat32)
    train(static_cast<const float*>(x), static_cast<const float*>(weight),
          static_cast<const float*>(bias), eps, *g, activation, static_cast<float*>(out),
          static_cast<float*>(mean), static_cast<float*>(var), threads);
  else
    train(static_cast<const double*>(x), static_cast<const double*>(weight),
          static_cast<const double*>(bias), eps, *g, activation, static_cast<double*>(out),
          static_cast<double*>(mean), static_cast<double*>(var), threads);
}

int normalize(Dtype dtype, const void* x, const void* mean, const void* var, const void* weight,
              const void* bias, double eps, const NormGeometry* g, Activation activation, void* out,
              int threads) {
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

void batch_norm_backward(Dtype dtype, const void* grad, const void* x, const void* mean,
                         const void* inv_std, const void* weight, bool training, const void* y,
                         const NormGeometry* g, void* grad_x, void* grad_weight, void* grad_bias,
                         int threads) {
  const FloatMode mode(dtype);
  if (dtype == kFloat32)
    backward(static_cast<const float*>(grad), static_cast<const float*>(x),
             static_cast<const float*>(mean), static_cast<const float*>(inv_std),
             static_cast<const float*>(weight), training, static_cast<const float*>(y), *g,
             static_cast<float*>(grad_x), static_cast<float*>(grad_weight),
             static_cast<float*>(grad_bias), threads);
  else
    backward(static_cast<const double*>(grad), static_cast<const double*>(x),
             static_cast<const double*>(mean), static_cast<const double*>(inv_std),
             static_cast<const double*>(weight), training, static_cast<const double*>(y), *g,
             static_cast<double*>(grad_x), static_cast<double*>(grad_weight),
             static_cast<double*>(grad_bias), threads);
}

}  // namespace fastdl::FASTDL_ISA
