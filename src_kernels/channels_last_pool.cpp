// Pools of channels-last images, in vectors of channels: a window's elements are whole vectors, which
// are joined as they come. The average's gradient gathers, for each pixel, the windows that it is in.
#include "channels_last.h"
#include "families.h"

namespace fastdl::FASTDL_ISA {

namespace {

// Terms of a sum in single precision.
constexpr int64_t kLongestSum = 256, kGroup = 16;
// Channels whose sums in double precision are kept.
constexpr int64_t kSums = 256;
// Windows of a row, and rows of windows over a pixel, whose numbers are kept.
constexpr int64_t kWindows = 1024, kRows = 64;

// Windows along one axis of an average pool.
struct PoolAxis {
  int64_t kernel, stride, pad, size, out;
  bool include_pad;
  int64_t fixed;  // what windows divide by, if not their size

  int64_t begin(int64_t i) const { return max(0, i * stride - pad); }
  int64_t end(int64_t i) const { return min(size, i * stride - pad + kernel); }
  int64_t divisor(int64_t i) const {
    if (fixed) return fixed;
    if (!include_pad) return end(i) - begin(i);
    const int64_t start = i * stride - pad;
    return min(start + kernel, size + pad) - start;
  }
  // The windows [first, last) that element y is in.
  int64_t first(int64_t y) const { return max(0, ceil_div(y + pad - kernel + 1, stride)); }
  int64_t last(int64_t y) const { return min(out, (y + pad) / stride + 1); }
};

// Windows along one axis of an adaptive pool.
struct AdaptiveAxis {
  int64_t size, out;

  int64_t begin(int64_t i) const { return i * size / out; }
  int64_t end(int64_t i) const { return ceil_div((i + 1) * size, out); }
  int64_t divisor(int64_t i) const { return end(i) - begin(i); }
  int64_t first(int64_t y) const {
    int64_t i = y * out / size;
    while (i > 0 && end(i - 1) > y) --i;
    return i;
  }
  int64_t last(int64_t y) const {
    int64_t i = y * out / size;
    while (i < out && begin(i) <= y) ++i;
    return i;
  }
};

// The rectangle of pixels that a window is, and their elements.
template <class T>
struct Window {
  const T* first;
  int64_t rows, columns, row, column;  // elements from one to the next

  // body(pixel) for all pixels.
  template <class Body>
  void each(Body body) const {
    const T* line = first;
    for (int64_t a = 0; a < rows; ++a, line += row) {
      const T* at = line;
      for (int64_t b = 0; b < columns; ++b, at += column) body(at);
    }
  }
};

// ---- maximum ----

// The first and the number of a window's elements that lie in [0, size).
struct Inside {
  int64_t first, count;
  Inside(int64_t start, int64_t kernel, int64_t dilation, int64_t size)
      : first(start >= 0 ? 0 : ceil_div(-start, dilation)),
        count(max(first, min(kernel, ceil_div(size - start, dilation))) - first) {}
};

// The larger one, NaN if value is or best was.
template <class T>
FASTDL_INLINE Vector<T> join_max(Vector<T> best, Vector<T> value) {
  const Vector<T> larger = value > best ? value : best;
  return value != value ? value : larger;
}

template <class T>
void max_pool(const T* x, const PoolGeometry& g, T* out, int64_t* indices, int threads) {
  constexpr int64_t lanes = kLanes<T>;
  const int64_t channels = g.channels;
  const ChannelWriter<T> writer(out, g.batch * g.out_h * g.out_w * channels, channels);
  each_row(g.batch, g.out_h, channels, g.out_w * g.kernel_h * g.kernel_w, threads,
           [&](int64_t image, int64_t i, int64_t begin, int64_t end) {
    const int64_t top = i * g.stride_h - g.pad_h;
    const Inside rows(top, g.kernel_h, g.dilation_h, g.height);
    const int64_t y = top + rows.first * g.dilation_h;
    for (int64_t j = 0; j < g.out_w; ++j) {
      const int64_t left = j * g.stride_w - g.pad_w;
      const Inside columns(left, g.kernel_w, g.dilation_w, g.width);
      const int64_t position = y * g.width + left + columns.first * g.dilation_w;
      const Window<T> window = {x + (image * g.height * g.width + position) * channels, rows.count,
                                columns.count, g.dilation_h * g.width * channels,
                                g.dilation_w * channels};
      const int64_t to = ((image * g.out_h + i) * g.out_w + j) * channels;
      if (!indices) {
        int64_t c = begin;
        for (; c + 2 * lanes <= end; c += 2 * lanes) {
          Vector<T> best[2] = {load(window.first + c), load(window.first + c + lanes)};
          window.each([&](const T* at) {
            best[0] = join_max<T>(best[0], load(at + c));
            best[1] = join_max<T>(best[1], load(at + c + lanes));
          });
          writer.put(out + to + c, lanes, best[0]);
          writer.put(out + to + c + lanes, lanes, best[1]);
        }
        if (c < end)
          each_channels<T>(c, end, [&](int64_t c, int64_t count) {
            Vector<T> best = load_some(window.first + c, count, T(0));
            window.each([&](const T* at) {
              best = join_max<T>(best, load_some(at + c, count, T(0)));
            });
            writer.put(out + to + c, count, best);
          });
        continue;
      }
      each_channels<T>(begin, end, [&](int64_t c, int64_t count) __attribute__((always_inline)) {
        Vector<T> best = load_some(window.first + c, count, T(0));
        IntegerVector<T> place{}, here{};  // counted from the first
        const T* line = window.first + c;
        for (int64_t a = 0; a < window.rows; ++a, line += window.row) {
          here = IntegerVector<T>{} + static_cast<Integer<T>>(a * g.dilation_h * g.width);
          const T* at = line;
          for (int64_t b = 0; b < window.columns; ++b, at += window.column) {
            const Vector<T> value = load_some(at, count, T(0));
            const auto takes = (value > best) | (value != value);
            best = takes ? value : best;
            place = takes ? here : place;
            here += static_cast<Integer<T>>(g.dilation_w);
          }
        }
        writer.put(out + to + c, count, best);
        Integer<T> places[lanes];
        memcpy(places, &place, sizeof place);
        for (int64_t lane = 0; lane < count; ++lane) indices[to + c + lane] = position + places[lane];
      });
    }
    writer.finish();
  });
}

// Adds each element to where its index says. Rows of the result are cleared as far as an index has been
// seen, so that they are in the caches when they are added to.
template <class T>
bool max_pool_backward(const T* grad, const int64_t* indices, int64_t batch, int64_t channels,
                       const AdaptiveGeometry& g, T* out, int threads) {
  const int64_t size = g.height * g.width, windows = g.out_h * g.out_w;
  const int64_t block = channel_block(batch, channels, threads), blocks = ceil_div(channels, block);
  threads = worth_threads(batch * size * channels, kGrain, threads);
  bool all_inside = true;
  parallel_for(batch * blocks, threads, [&](int64_t task) {
    const int64_t image = task / blocks, c = task % blocks * block, count = min(block, channels - c);
    T* to = out + image * size * channels + c;
    int64_t cleared = 0;
    auto clear_until = [&](int64_t pixel) {
      if (count == channels) {
        memset(to + cleared * channels, 0, static_cast<size_t>((pixel - cleared) * channels) * sizeof(T));
        cleared = pixel;
      }
      for (; cleared < pixel; ++cleared)
        memset(to + cleared * channels, 0, static_cast<size_t>(count) * sizeof(T));
    };
    for (int64_t window = 0; window < windows; ++window) {
      const int64_t at = (image * windows + window) * channels + c;
      for (int64_t lane = 0; lane < count; ++lane) {
        const int64_t index = indices[at + lane];
        if (static_cast<uint64_t>(index) >= static_cast<uint64_t>(cleared)) {
          if (index < 0 || index >= size) {
            __atomic_store_n(&all_inside, false, __ATOMIC_RELAXED);
            return;
          }
          clear_until(min(size, index + g.width));
        }
        to[index * channels + lane] += grad[at + lane];
      }
    }
    clear_until(size);
  });
  return all_inside;
}

// ---- average ----

// Sums of a window's pixels over the channels [c, c + count) in double precision.
template <class T>
void sum_window(const Window<T>& window, int64_t c, int64_t count, double* sums) {
  constexpr int64_t lanes = kLanes<T>;
  for (int64_t lane = 0; lane < count; ++lane) sums[lane] = 0;
  auto add = [&](int64_t at, int64_t few, auto vectors) __attribute__((always_inline)) {
    constexpr int many = decltype(vectors)::value;
    // The last vector begins anew what it shares with the one before.
    for (int64_t lane = 0; lane < few; ++lane) sums[at + lane] = 0;
    const T* line = window.first + c + at;
    for (int64_t a = 0; a < window.rows; ++a, line += window.row) {
      const T* pixel = line;
      for (int64_t b = 0; b < window.columns; b += kGroup) {
        Vector<T> sum[many] = {};
        const int64_t group = min(kGroup, window.columns - b);
        for (int64_t i = 0; i < group; ++i, pixel += window.column)
#pragma GCC unroll 4
          for (int v = 0; v < many; ++v) sum[v] += load_some(pixel + v * lanes, few, T(0));
#pragma GCC unroll 4
        for (int v = 0; v < many; ++v) add_to<T>(sums + at + v * lanes, sum[v]);
      }
    }
  };
  int64_t at = 0;
  for (; at + 4 * lanes <= count; at += 4 * lanes) add(at, lanes, Vectors<4>{});
  if (at < count)
    each_channels<T>(at, count, [&](int64_t from, int64_t few) {
      add(from, few, Vectors<1>{});
    });
}

template <class T, class Axis>
void average(const T* x, int64_t batch, int64_t channels, const Axis& down, const Axis& across, T* out,
             int threads) {
  constexpr int64_t lanes = kLanes<T>;
  const ChannelWriter<T> writer(out, batch * down.out * across.out * channels, channels);
  each_row(batch, down.out, channels, ceil_div(down.size * across.size, down.out), threads,
           [&](int64_t image, int64_t i, int64_t begin, int64_t end) {
    for (int64_t j = 0; j < across.out; ++j) {
      const int64_t y = down.begin(i), left = across.begin(j);
      const Window<T> window = {x + ((image * down.size + y) * across.size + left) * channels,
                                max(0, down.end(i) - y), max(0, across.end(j) - left),
                                across.size * channels, channels};
      T* to = out + ((image * down.out + i) * across.out + j) * channels;
      const double divisor = static_cast<double>(down.divisor(i) * across.divisor(j));
      if (window.rows * window.columns > kLongestSum) {
        double sums[kSums + lanes];
        for (int64_t c = begin; c < end; c += kSums) {
          const int64_t count = min(kSums, end - c);
          sum_window(window, c, count, sums);
          for (int64_t lane = 0; lane < count; ++lane)
            to[c + lane] = static_cast<T>(sums[lane] / divisor);
        }
        continue;
      }
      const Vector<T> share = splat(static_cast<T>(1 / divisor));
      int64_t c = begin;
      for (; c + 4 * lanes <= end; c += 4 * lanes) {
        Vector<T> sum[4] = {};
        window.each([&](const T* at) {
#pragma GCC unroll 4
          for (int v = 0; v < 4; ++v) sum[v] += load(at + c + v * lanes);
        });
#pragma GCC unroll 4
        for (int v = 0; v < 4; ++v) writer.put(to + c + v * lanes, lanes, sum[v] * share);
      }
      if (c < end)
        each_channels<T>(c, end, [&](int64_t c, int64_t count) {
          Vector<T> sum{};
          window.each([&](const T* at) { sum += load_some(at + c, count, T(0)); });
          writer.put(to + c, count, sum * share);
        });
    }
    writer.finish();
  });
}

// The gradient of a pixel: the sum of the shares of the windows that it is in.
template <class T, class Axis>
void average_backward(const T* grad, int64_t batch, int64_t channels, const Axis& down,
                      const Axis& across, T* out, int threads) {
  const ChannelWriter<T> writer(out, batch * down.size * across.size * channels, channels);
  // A window's share is a number of its row times one of its column.
  auto share_of = [](const Axis& axis, int64_t i) {
    return static_cast<T>(1 / static_cast<double>(axis.divisor(i)));
  };
  // The numbers of the columns and which windows they are in, where there are not too many.
  T shares[kWindows];
  int32_t firsts[kWindows], lasts[kWindows];
  const bool known = max(across.out, across.size) <= kWindows;
  for (int64_t j = 0; known && j < across.out; ++j) shares[j] = share_of(across, j);
  for (int64_t column = 0; known && column < across.size; ++column) {
    firsts[column] = static_cast<int32_t>(across.first(column));
    lasts[column] = static_cast<int32_t>(across.last(column));
  }
  each_row(batch, down.size, channels, across.size, threads,
           [&](int64_t image, int64_t y, int64_t begin, int64_t end) {
    // Copies, which need not be read again after each store.
    const ChannelWriter<T> put = writer;
    const T* const share_at = shares;
    const int64_t first = down.first(y), rows = down.last(y) - first, row = across.out * channels;
    T row_shares[kRows];
    for (int64_t i = 0; i < min(rows, kRows); ++i) row_shares[i] = share_of(down, first + i);
    const T* const row_share_at = row_shares;
    const T* from = grad + (image * down.out + first) * row;
    T* to = out + (image * down.size + y) * across.size * channels;
    for (int64_t column = 0; column < across.size; ++column, to += channels) {
      const int64_t left = known ? firsts[column] : across.first(column);
      const int64_t right = known ? lasts[column] : across.last(column);
      if (rows == 1 && right - left == 1) {
        const T share = row_shares[0] * (known ? share_at[left] : share_of(across, left));
        const T* at = from + left * channels;
        each_channels<T>(begin, end, [=](int64_t c, int64_t count) __attribute__((always_inline)) {
          put.put(to + c, count, load_some(at + c, count, T(0)) * share);
        });
        continue;
      }
      auto sum = [=, &down, &across](int64_t c, auto many, int64_t count)
                     __attribute__((always_inline)) {
        constexpr int vectors = decltype(many)::value;
        Vector<T> sum[vectors] = {};
        for (int64_t i = 0; i < rows; ++i) {
          const T* at = from + i * row + left * channels + c;
          const T row_share = i < kRows ? row_share_at[i] : share_of(down, first + i);
          for (int64_t j = left; j < right; ++j, at += channels) {
            const T share = row_share * (known ? share_at[j] : share_of(across, j));
#pragma GCC unroll 4
            for (int v = 0; v < vectors; ++v)
              sum[v] += load_some(at + v * kLanes<T>, count, T(0)) * share;
          }
        }
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) put.put(to + c + v * kLanes<T>, count, sum[v]);
      };
      int64_t c = begin;
      for (; c + 4 * kLanes<T> <= end; c += 4 * kLanes<T>) sum(c, Vectors<4>{}, int64_t{kLanes<T>});
      if (c < end)
        each_channels<T>(c, end, [=](int64_t c, int64_t count) __attribute__((always_inline)) {
          sum(c, Vectors<1>{}, count);
        });
    }
    put.finish();
  });
}

// The axes of a pool. Only one of them divides where the divisor is given.
struct PoolAxes {
  PoolAxis down, across;
  PoolAxes(const PoolGeometry& g, bool include_pad, int64_t divisor)
      : down{g.kernel_h, g.stride_h, g.pad_h, g.height, g.out_h, include_pad, divisor},
        across{g.kernel_w, g.stride_w, g.pad_w, g.width, g.out_w, include_pad, divisor ? 1 : 0} {}
};

}  // namespace

void channels_last_max_pool2d(Dtype dtype, const void* x, const PoolGeometry* g, void* out,
                              int64_t* indices, int threads) {
  if (dtype == kFloat32)
    max_pool(static_cast<const float*>(x), *g, static_cast<float*>(out), indices, threads);
  else
    max_pool(static_cast<const double*>(x), *g, static_cast<double*>(out), indices, threads);
}

bool channels_last_max_pool2d_backward(Dtype dtype, const void* grad, const int64_t* indices,
                                       int64_t channels, const AdaptiveGeometry* g, void* out,
                                       int threads) {
  const FloatMode mode(dtype);
  const int64_t batch = g->planes / channels;
  if (dtype == kFloat32)
    return max_pool_backward(static_cast<const float*>(grad), indices, batch, channels, *g,
                             static_cast<float*>(out), threads);
  return max_pool_backward(static_cast<const double*>(grad), indices, batch, channels, *g,
                           static_cast<double*>(out), threads);
}

void channels_last_avg_pool2d(Dtype dtype, const void* x, const PoolGeometry* g,
                              bool count_include_pad, int64_t divisor, void* out, int threads) {
  const FloatMode mode(dtype);
  const PoolAxes axes(*g, count_include_pad, divisor);
  if (dtype == kFloat32)
    average(static_cast<const float*>(x), g->batch, g->channels, axes.down, axes.across,
            static_cast<float*>(out), threads);
  else
    average(static_cast<const double*>(x), g->batch, g->channels, axes.down, axes.across,
            static_cast<double*>(out), threads);
}

void channels_last_avg_pool2d_backward(Dtype dtype, const void* grad, const PoolGeometry* g,
                                       bool count_include_pad, int64_t divisor, void* out,
                                       int threads) {
  const FloatMode mode(dtype);
  const PoolAxes axes(*g, count_include_pad, divisor);
  if (dtype == kFloat32)
    average_backward(static_cast<const float*>(grad), g->batch, g->channels, axes.down, axes.across,
                     static_cast<float*>(out), threads);
  else
    average_backward(static_cast<const double*>(grad), g->batch, g->channels, axes.down,
                     axes.across, static_cast<double*>(out), threads);
}

void channels_last_adaptive_avg_pool2d(Dtype dtype, const void* x, int64_t channels,
                                       const AdaptiveGeometry* g, void* out, int threads) {
  const FloatMode mode(dtype);
  const AdaptiveAxis down = {g->height, g->out_h}, across = {g->width, g->out_w};
  const int64_t batch = g->planes / channels;
  if (dtype == kFloat32)
    average(static_cast<const float*>(x), batch, channels, down, across, static_cast<float*>(out),
            threads);
  else
    average(static_cast<const double*>(x), batch, channels, down, across,
            static_cast<double*>(out), threads);
}

void channels_last_adaptive_avg_pool2d_backward(Dtype dtype, const void* grad, int64_t channels,
                                                const AdaptiveGeometry* g, void* out,
                                                int threads) {
  const FloatMode mode(dtype);
  const AdaptiveAxis down = {g->height, g->out_h}, across = {g->width, g->out_w};
  const int64_t batch = g->planes / channels;
  if (dtype == kFloat32)
    average_backward(static_cast<const float*>(grad), batch, channels, down, across,
                     static_cast<float*>(out), threads);
  else
    average_backward(static_cast<const double*>(grad), batch, channels, down, across,
                     static_cast<double*>(out), threads);
}

}  // namespace fastdl::FASTDL_ISA
