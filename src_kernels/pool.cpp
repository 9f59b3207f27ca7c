// Pools: max, average, adaptive average, and their gradients.
//
// The value pools work in two steps, on as many columns as a buffer takes: down, the rows of a
// window to one row, then across, the columns of each window:
//
//   rows of the window   ->  buffer, with its padding   ->  a row of the output
//
// Both steps take whole vectors. Columns with stride 2 come by splitting two vectors into their even
// and odd elements. With indices, the rows are copied into the buffer and each element of the window
// is compared in turn, for a vector of windows at once. The average's gradient goes the other way.
#include "families.h"
#include "parallel.h"
#include "stream.h"
#include "vector_math.h"

namespace fastdl::FASTDL_ISA {

namespace {

constexpr int64_t kBuffer = 2048;      // columns of the buffer
constexpr int64_t kGrain = 32 * 1024;  // elements that are worth a thread
static_assert(kBuffer <= RowWriter<float>::kLongest, "a row fits the writer");

// Positions of a window that lie in [0, size): kernel elements [begin, end).
struct Clip {
  int64_t begin, end;
  Clip(int64_t start, int64_t kernel, int64_t dilation, int64_t size)
      : begin(max(0, steps(-start, dilation))),
        end(max(begin, min(kernel, steps(size - start, dilation)))) {}

 private:
  // As ceil_div: a division would cost as much as a short row of windows.
  static int64_t steps(int64_t distance, int64_t dilation) {
    return dilation == 1 ? distance : ceil_div(distance, dilation);
  }
};

// body(begin, end) for ranges of planes, `work` elements each.
template <class Body>
FASTDL_INLINE void each_planes(int64_t planes, int64_t work, int threads, Body body) {
  parallel_range(planes, ceil_div(kGrain, max(work, 1)), threads, body);
}

template <class T>
FASTDL_INLINE bool planes_go_past_caches(int64_t planes, int64_t size) {
  return goes_past_caches(planes * size * static_cast<int64_t>(sizeof(T)));
}

// --- values: down, then across ---

template <class T>
struct MaxStep {
  static constexpr T neutral = -static_cast<T>(__builtin_inf());
  // The larger one; NaN if one of them is. Of vectors, best is kept where value is not larger.
  template <class V>
  static V join(V best, V value) {
    V larger = value > best ? value : best;
    return value != value ? value : larger;
  }
};
template <class T>
struct SumStep {
  static constexpr T neutral = 0;
  template <class V>
  static V join(V a, V b) {
    return a + b;
  }
};

// to[q] = the join of `rows` rows, and of to[q] where there were rows before.
template <class T, class Step, int rows, bool joined>
FASTDL_INLINE void join_rows(const T* from, int64_t pitch, int64_t size, T* to) {
  for (int64_t q = 0; q < size; q += kLanes<T>) {
    Vector<T> v;
    if (joined) v = Step::join(load(to + q), load_some(from + q, size - q, T(0)));
    else v = load_some(from + q, size - q, T(0));
    for (int row = 1; row < rows; ++row)
      v = Step::join(v, load_some(from + row * pitch + q, size - q, T(0)));
    store(to + q, v);
  }
}
template <class T, class Step>
void join_column(const T* from, int64_t pitch, int64_t rows, int64_t size, T* to) {
  if (rows == 2) join_rows<T, Step, 2, false>(from, pitch, size, to);
  else if (rows == 3) join_rows<T, Step, 3, false>(from, pitch, size, to);
  else {
    join_rows<T, Step, 1, false>(from, pitch, size, to);
    for (int64_t row = 1; row < rows; ++row)
      join_rows<T, Step, 1, true>(from + row * pitch, 0, size, to);
  }
}

// Elements 0, stride, 2 stride, ... from p on.
template <int stride, class T>
FASTDL_INLINE Vector<T> load_strided(const T* p, int64_t stride_if_any) {
  if constexpr (stride == 1) return load(p);
  else if constexpr (stride == 2) return even_lanes<T>(load(p), load(p + kLanes<T>));
  else {
    Vector<T> v{};
    for (int lane = 0; lane < kLanes<T>; ++lane) v[lane] = p[lane * stride_if_any];
    return v;
  }
}

// The join over each of `count` windows of the buffer, whole vectors of them: finish(q, join) goes to
// to[q]. `kernel` is 0 where it is known only at run time.
template <class T, class Step, int kernel, int stride, class Finish>
FASTDL_INLINE void join_windows(const PoolGeometry& g, const T* buffer, int64_t count,
                                Finish finish, T* to) {
  const int64_t taps = kernel ? kernel : g.kernel_w, dilation = kernel ? 1 : g.dilation_w;
  for (int64_t q = 0; q < count; q += kLanes<T>) {
    const T* window = buffer + q * (stride ? stride : g.stride_w);
    Vector<T> v;
    int64_t tap = 1;
    if constexpr (stride == 2 && kernel >= 2) {
      const Vector<T> a = load(window), b = load(window + kLanes<T>);
      v = Step::join(even_lanes<T>(a, b), odd_lanes<T>(a, b));
      tap = 2;
    } else {
      v = load_strided<stride>(window, g.stride_w);
    }
    for (; tap < taps; ++tap)
      v = Step::join(v, load_strided<stride>(window + tap * dilation, g.stride_w));
    store(to + q, finish(q, v));
  }
}

FASTDL_INLINE int64_t extent_w(const PoolGeometry& g) {
  return (g.kernel_w - 1) * g.dilation_w + 1;
}

constexpr int64_t kLongestStride = 16;
// A vector of windows may begin at the last one, and so read this far beyond the buffer's columns.
template <class T>
constexpr int64_t kBeyond = (kLongestStride + 2) * kLanes<T>;

FASTDL_INLINE bool fits_buffer(const PoolGeometry& g) {
  return extent_w(g) <= kBuffer && g.stride_w <= kLongestStride;
}

// Rows of narrow planes that go down before they go across. A vector that is read from where two stores
// wrote parts of it waits until both have left for the cache; meanwhile others are made.
constexpr int64_t kRowsDown = 8, kNarrow = 64;

// The join over each of a vector of square windows with stride 2, side by side from `rows` on,
// straight from the plane. What lies beyond the last window of a row is read too.
template <class T, class Step, int kernel>
FASTDL_INLINE Vector<T> join_in_plane(const T* rows, int64_t width) {
  auto column = [&](int64_t b) {
    Vector<T> v = load(rows + b);
    for (int a = 1; a < kernel; ++a) v = Step::join(v, load(rows + a * width + b));
    return v;
  };
  Vector<T> joined = splat(Step::neutral);
#pragma GCC unroll 2
  for (int b = 0; b < kernel; b += 2) {
    const Vector<T> low = column(b), high = column(b + kLanes<T>);
    const Vector<T> even = even_lanes<T>(low, high);
    joined = b ? Step::join(joined, even) : even;
    if (b + 1 < kernel) joined = Step::join(joined, odd_lanes<T>(low, high));
  }
  return joined;
}

// Planes [begin, end) of the output: finish(i)(j, join) of the joins of windows (i, j), (i, j + 1), ...
template <class T, class Step, int kernel, int stride, class Finish>
void pool_planes(const PoolGeometry& g, const T* x, int64_t begin, int64_t end, Finish finish,
                 RowWriter<T>& writer) {
  const int64_t extent = extent_w(g);
  T buffer[kBuffer + kBeyond<T>] = {};
  const int64_t columns = min(g.out_w, (kBuffer - extent) / g.stride_w + 1);
  const int64_t pitch = (columns - 1) * g.stride_w + extent;
  // The buffer holds columns [left, left + wide) of the padded input, x those of [from, to).
  auto down = [&](int64_t plane, int64_t i, int64_t j, T* row) {
    const int64_t count = min(columns, g.out_w - j), top = i * g.stride_h - g.pad_h;
    const int64_t left = j * g.stride_w - g.pad_w, wide = (count - 1) * g.stride_w + extent;
    const int64_t from = max(0, min(wide, -left)), to = max(from, min(wide, g.width - left));
    const Clip rows(top, g.kernel_h, g.dilation_h, g.height);
    for (int64_t q = 0; q < from; ++q) row[q] = Step::neutral;
    if (rows.begin < rows.end)
      join_column<T, Step>(
          x + (plane * g.height + top + rows.begin * g.dilation_h) * g.width + left + from,
          g.dilation_h * g.width, rows.end - rows.begin, to - from, row + from);
    else
      for (int64_t q = from; q < to; ++q) row[q] = Step::neutral;
    for (int64_t q = to; q < wide; ++q) row[q] = Step::neutral;
  };
  auto across = [&](int64_t i, int64_t j, const T* row) {
    const int64_t count = min(columns, g.out_w - j);
    const auto finish_row = finish(i);
    T* out = writer.next(count, kLanes<T>);
    join_windows<T, Step, kernel, stride>(
        g, row, count, [&](int64_t q, Vector<T> v) { return finish_row(j + q, v); }, out);
    writer.done(count);
  };
  const bool reads_parts = g.pad_w > 0 || g.kernel_w > g.stride_w;
  const bool together = reads_parts && columns == g.out_w && pitch <= kNarrow;
  // Rows of windows that are taken straight from the plane: no column is joined downwards twice, or
  // the few that are cost less than the buffer.
  constexpr bool is_known = kernel > 0 && stride == 2;
  const bool straight = is_known && g.pad_w == 0 && (together || !reads_parts) &&
                        (g.out_w - 1) * stride + kernel <= g.width && g.kernel_h == kernel &&
                        g.stride_h == stride && g.dilation_h == 1 && columns == g.out_w &&
                        g.out_w <= RowWriter<T>::kLongest;
  const int64_t elements = g.batch * g.channels * g.height * g.width;
  // False where its windows reach over the plane, or what is read with them over the array.
  auto take_row = [&](int64_t plane, int64_t i) {
    const int64_t top = i * stride - g.pad_h;
    const int64_t at = (plane * g.height + top) * g.width;
    const int64_t reach = (kernel - 1) * g.width + (g.out_w + kLanes<T>) * stride + kernel;
    if (top < 0 || top + kernel > g.height || at + reach > elements) return false;
    if constexpr (is_known) {
      const auto finish_row = finish(i);
      T* out = writer.next(g.out_w, kLanes<T>);
      for (int64_t j = 0; j < g.out_w; j += kLanes<T>)
        store(out + j,
              finish_row(j, join_in_plane<T, Step, kernel>(x + at + j * stride, g.width)));
      writer.done(g.out_w);
    }
    return true;
  };
  for (int64_t plane = begin; plane < end; ++plane) {
    for (int64_t i = 0; i < g.out_h && straight; ++i)
      if (!take_row(plane, i)) down(plane, i, 0, buffer), across(i, 0, buffer);
    if (straight) continue;
    for (int64_t i = 0; i < g.out_h && !together; ++i)
      for (int64_t j = 0; j < g.out_w; j += columns) down(plane, i, j, buffer), across(i, j, buffer);
    for (int64_t first = 0; first < g.out_h && together; first += kRowsDown) {
      const int64_t last = min(g.out_h, first + kRowsDown);
      for (int64_t i = first; i < last; ++i) down(plane, i, 0, buffer + (i - first) * pitch);
      for (int64_t i = first; i < last; ++i) across(i, 0, buffer + (i - first) * pitch);
    }
  }
}

template <class T, class Step, class Finish>
void pool(const PoolGeometry& g, const T* x, T* out, int threads, Finish finish) {
  const int64_t planes = g.batch * g.channels, size = g.out_h * g.out_w;
  const bool past_caches = planes_go_past_caches<T>(planes, size);
  each_planes(planes, g.height * g.width + 2 * size, threads, [&](int64_t begin, int64_t end) {
    RowWriter<T> writer(past_caches);
    writer.start(out + begin * size, (end - begin) * size);
    const bool near = g.dilation_w == 1;
    if (near && g.kernel_w == 2 && g.stride_w == 2)
      pool_planes<T, Step, 2, 2>(g, x, begin, end, finish, writer);
    else if (near && g.kernel_w == 3 && g.stride_w == 2)
      pool_planes<T, Step, 3, 2>(g, x, begin, end, finish, writer);
    else if (near && g.kernel_w == 3 && g.stride_w == 1)
      pool_planes<T, Step, 3, 1>(g, x, begin, end, finish, writer);
    else if (g.stride_w == 1) pool_planes<T, Step, 0, 1>(g, x, begin, end, finish, writer);
    else if (g.stride_w == 2) pool_planes<T, Step, 0, 2>(g, x, begin, end, finish, writer);
    else pool_planes<T, Step, 0, 0>(g, x, begin, end, finish, writer);
  });
}

// --- max ---

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

// Any geometry; indices may be null.
template <class T>
void max_pool_by_element(const T* x, const PoolGeometry& g, T* out, int64_t* indices,
                         int threads) {
  const int64_t size = g.out_h * g.out_w;
  each_planes(g.batch * g.channels, size * g.kernel_h * g.kernel_w, threads,
              [&](int64_t begin, int64_t end) {
                for (int64_t plane = begin; plane < end; ++plane)
                  for (int64_t i = 0; i < g.out_h; ++i)
                    for (int64_t j = 0; j < g.out_w; ++j) {
                      const int64_t at = plane * size + i * g.out_w + j;
                      int64_t position;
                      out[at] = largest_of_window(g, x + plane * g.height * g.width, i, j,
                                                  &position);
                      if (indices) indices[at] = position;
                    }
              });
}

// Elements of the buffer for the rows of a window, so that they stay in the first-level cache.
constexpr int64_t kRowsBuffer = 4096;

FASTDL_INLINE int64_t rows_pitch(const PoolGeometry& g) {
  return min(kBuffer, kRowsBuffer / g.kernel_h);
}

// Whether vectors of windows serve: rows fit the buffer, and positions fit a vector's integers.
template <class T>
bool fits_rows_buffer(const PoolGeometry& g) {
  return extent_w(g) <= rows_pitch(g) && g.stride_w <= kLongestStride &&
         (sizeof(T) == 8 || (g.height + g.kernel_h) * g.width < int64_t{1} << 31);
}

// to[i] = v[i]
template <class T>
FASTDL_INLINE void store_positions(int64_t* to, IntegerVector<T> v) {
  if constexpr (sizeof(T) == 8) store(to, (Vector<int64_t>)v);
  else {
    VectorOfLanes<int32_t, kLanes<T> / 2> half[2];
    memcpy(half, &v, sizeof v);
    for (int h = 0; h < 2; ++h)
      store(to + h * kLanes<int64_t>, __builtin_convertvector(half[h], Vector<int64_t>));
  }
}

// Planes [begin, end) with positions. Each row of a window stands in the buffer, padding included;
// lanes are windows next to each other.
template <class T, int stride>
void max_pool_planes(const T* x, const PoolGeometry& g, int64_t begin, int64_t end,
                     RowWriter<T>& values, RowWriter<int64_t>& positions) {
  constexpr T none = -static_cast<T>(__builtin_inf());
  const int64_t extent = extent_w(g), pitch = rows_pitch(g);
  const int64_t columns = (pitch - extent) / g.stride_w + 1;
  T buffer[kRowsBuffer + kBeyond<T>] = {};
  for (int64_t plane = begin; plane < end; ++plane)
    for (int64_t i = 0; i < g.out_h; ++i) {
      const int64_t top = i * g.stride_h - g.pad_h;
      const Clip rows(top, g.kernel_h, g.dilation_h, g.height);
      const int64_t first = top + rows.begin * g.dilation_h, step = g.dilation_h * g.width;
      for (int64_t j = 0; j < g.out_w; j += columns) {
        const int64_t count = min(columns, g.out_w - j);
        const int64_t left = j * g.stride_w - g.pad_w, wide = (count - 1) * g.stride_w + extent;
        const int64_t from = max(0, min(wide, -left)), to = max(from, min(wide, g.width - left));
        const T* row = x + (plane * g.height + first) * g.width + left;
        for (int64_t a = 0; a < rows.end - rows.begin; ++a, row += step) {
          T* copy = buffer + a * pitch;
          for (int64_t q = 0; q < from; ++q) copy[q] = none;
          for (int64_t q = from; q < to; q += kLanes<T>)
            store_some(copy + q, to - q, load_some(row + q, to - q, none));
          for (int64_t q = to; q < wide; ++q) copy[q] = none;
        }
        T* value = values.next(count, kLanes<T>);
        int64_t* position = positions.next(count, kLanes<T>);
        for (int64_t q = 0; q < count; q += kLanes<T>) {
          // Where each window begins, and its first element that is no padding.
          const IntegerVector<T> start =
              iota<T>() * static_cast<Integer<T>>(g.stride_w) +
              static_cast<Integer<T>>(left + q * g.stride_w);
          IntegerVector<T> at = start;
          for (int64_t b = 1; b < g.kernel_w && left + q * g.stride_w < 0; ++b)
            at = at < 0 ? at + static_cast<Integer<T>>(g.dilation_w) : at;
          at += static_cast<Integer<T>>(first * g.width);
          Vector<T> best = splat(none);
          for (int64_t a = 0; a < rows.end - rows.begin; ++a) {
            const T* window = buffer + a * pitch + q * g.stride_w;
            const IntegerVector<T> of_row =
                start + static_cast<Integer<T>>(first * g.width + a * step);
            for (int64_t b = 0; b < g.kernel_w; ++b) {
              const Vector<T> v = load_strided<stride>(window + b * g.dilation_w, g.stride_w);
              const IntegerVector<T> taken = (v > best) | (v != v);
              best = taken ? v : best;
              at = taken ? of_row + static_cast<Integer<T>>(b * g.dilation_w) : at;
            }
          }
          store(value + q, best);
          store_positions<T>(position + q, at);
        }
        values.done(count);
        positions.done(count);
      }
    }
}

template <class T>
void max_pool(const T* x, const PoolGeometry& g, T* out, int64_t* indices, int threads) {
  if (!indices && fits_buffer(g)) {
    pool<T, MaxStep<T>>(g, x, out, threads,
                        [](int64_t) { return [](int64_t, Vector<T> v) { return v; }; });
    return;
  }
  if (!indices || !fits_rows_buffer<T>(g)) {
    max_pool_by_element(x, g, out, indices, threads);
    return;
  }
  const int64_t planes = g.batch * g.channels, size = g.out_h * g.out_w;
  const bool past_caches = planes_go_past_caches<int64_t>(planes, size);
  each_planes(planes, g.height * g.width + size * g.kernel_h * g.kernel_w, threads,
              [&](int64_t begin, int64_t end) {
                RowWriter<T> values(past_caches);
                RowWriter<int64_t> positions(past_caches);
                values.start(out + begin * size, (end - begin) * size);
                positions.start(indices + begin * size, (end - begin) * size);
                if (g.stride_w == 1) max_pool_planes<T, 1>(x, g, begin, end, values, positions);
                else if (g.stride_w == 2)
                  max_pool_planes<T, 2>(x, g, begin, end, values, positions);
                else max_pool_planes<T, 0>(x, g, begin, end, values, positions);
              });
}

// --- the gradient of max ---
//
// Where the indices are those of windows 2x2 or 3x3 with stride 2, the usual ones, each element of the
// result is a sum over the windows that hold it, and is written once, in order:
//
//   out[y, x] = sum over i, j, a, b of grad[i, j] if index[i, j] = y W + x else 0
//               with 2i - p + a = y and 2j - p + b = x
//
// All others are added where they say.

// Up to a vector of indices, as integers of the size of T; `beyond` gathers what those cannot hold.
template <class T>
FASTDL_INLINE IntegerVector<T> load_indices(const int64_t* at, int64_t count,
                                            Vector<int64_t>* beyond) {
  const Vector<int64_t> low = load_some(at, count, int64_t{0});
  *beyond |= low;
  if constexpr (sizeof(T) == 8) return low;
  else {
    Vector<int64_t> high{};
    if (count > kLanes<int64_t>)
      high = load_some(at + kLanes<int64_t>, count - kLanes<int64_t>, int64_t{0});
    *beyond |= high;
    return (IntegerVector<T>)even_lanes<T>((Vector<T>)low, (Vector<T>)high);
  }
}
// Whether all of them were numbers of 31 bits.
FASTDL_INLINE bool are_held(Vector<int64_t> beyond) {
  bool held = true;
  for (int lane = 0; lane < kLanes<int64_t>; ++lane) held &= beyond[lane] >> 31 == 0;
  return held;
}

// Whether windows of 2x2 side by side may have made an output of this size, in rows of a vector at
// least that the writer takes in pairs.
template <class T>
FASTDL_INLINE bool may_be_pairs(const AdaptiveGeometry& g) {
  return g.out_h == g.height / 2 && g.out_w == g.width / 2 && g.out_w >= kLanes<T> &&
         2 * g.width <= RowWriter<T>::kLongest && g.height * g.width < int64_t{1} << 31;
}

// The two rows under a row of windows; whether all indices are in their windows.
//
//   out[2i + a, 2j + b] = grad[i, j] if index[i, j] = (2i + a) W + 2j + b else 0
template <class T>
bool spread_pairs(const AdaptiveGeometry& g, const T* grad, const int64_t* indices, int64_t i,
                  T* out) {
  const auto width = static_cast<Integer<T>>(g.width);
  IntegerVector<T> inside = iota<T>() >= 0;
  Vector<int64_t> beyond{};
  for (int64_t j = 0; j < g.out_w; j += kLanes<T>) {
    j = min(j, g.out_w - kLanes<T>);
    const IntegerVector<T> place =
        load_indices<T>(indices + j, kLanes<T>, &beyond) -
        (iota<T>() * 2 + static_cast<Integer<T>>(2 * (i * g.width + j)));
    const Vector<T> value = load(grad + j);
    IntegerVector<T> found{};
    T* to = out + 2 * j;
    for (int a = 0; a < 2; ++a, to += g.width) {
      const IntegerVector<T> left = place == a * width, right = place == a * width + 1;
      const Vector<T> even = left ? value : Vector<T>{}, odd = right ? value : Vector<T>{};
      store(to, low_pairs<T>(even, odd));
      store(to + kLanes<T>, high_pairs<T>(even, odd));
      found |= left | right;
    }
    inside &= found;
  }
  for (int a = 0; a < 2 && g.width % 2; ++a) out[(a + 1) * g.width - 1] = 0;
  bool all = are_held(beyond);
  for (int lane = 0; lane < kLanes<T>; ++lane) all &= inside[lane] != 0;
  return all;
}

// Planes from `begin` on; ends before `end` at one where an index is not in its window.
template <class T>
int64_t max_pairs_backward(const T* grad, const int64_t* indices, const AdaptiveGeometry& g,
                           int64_t begin, int64_t end, bool past_caches, T* out) {
  const int64_t size = g.height * g.width;
  RowWriter<T> writer(past_caches);
  writer.start(out + begin * size, (end - begin) * size);
  for (int64_t plane = begin; plane < end; ++plane) {
    for (int64_t i = 0; i < g.out_h; ++i) {
      const int64_t row = (plane * g.out_h + i) * g.out_w;
      if (!spread_pairs(g, grad + row, indices + row, i, writer.next(2 * g.width, 0)))
        return plane;
      writer.done(2 * g.width);
    }
    if (g.height % 2) {
      memset(writer.next(g.width, 0), 0, static_cast<size_t>(g.width) * sizeof(T));
      writer.done(g.width);
    }
  }
  return end;
}
// Lanes 1, 2, ... of a, and lane 0 of b.
template <class T>
FASTDL_INLINE Vector<T> next_lanes(Vector<T> a, Vector<T> b) {
  if constexpr (kLanes<T> == 2) return FASTDL_SHUFFLE(T, a, b, 1, 2);
  else if constexpr (kLanes<T> == 4) return FASTDL_SHUFFLE(T, a, b, 1, 2, 3, 4);
  else if constexpr (kLanes<T> == 8) return FASTDL_SHUFFLE(T, a, b, 1, 2, 3, 4, 5, 6, 7, 8);
  else
    return FASTDL_SHUFFLE(T, a, b, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16);
}

// Planes whose windows are 3x3 with stride 2 and padding pad. Down first, then across: where t[a][b][j]
// is what window j gives its tap (a, b), 0 but for one of them, and tap[b][j] a row's sum of such,
//
//   row 2i - p:      tap[b] = t[0][b] of windows i + t[2][b] of windows i - 1
//   row 2i - p + 1:  tap[b] = t[1][b] of windows i
//   columns 2j - p + 1, 2j - p + 2 of both:  tap[1][j], tap[2][j] + tap[0][j + 1]
template <class T, int pad>
class SpreadWindows {
 public:
  explicit SpreadWindows(const AdaptiveGeometry& g)
      : g_(g),
        width_(splat_integer(g.width)),
        row_1_(splat_integer(g.width - 1)),
        row_2_(splat_integer(2 * g.width - 1)) {}

  // Whether the first rows of windows are such, in an output whose rows fit.
  static bool serves(const AdaptiveGeometry& g, const int64_t* indices) {
    auto fits = [](int64_t size, int64_t windows) {
      return size > 3 && 2 * (windows - 1) - pad < size && size + pad <= 2 * windows + 2;
    };
    if (!fits(g.height, g.out_h) || !fits(g.width, g.out_w) || g.out_w < 2 * kLanes<T> ||
        g.height * g.width >= int64_t{1} << 30 || g.width > kWidest)
      return false;
    bool inside = true;
    for (int64_t i = 0; i < min(g.out_h, 2); ++i)
      for (int64_t j = 0; j < g.out_w; ++j) {
        const int64_t column = tap_column(g, indices[i * g.out_w + j] - corner(g, i) - 2 * j);
        inside &= 0 <= column && column < 3;
      }
    return inside;
  }

  // False, and nothing of use is written, where an index is not in its window.
  bool run(const T* grad, const int64_t* indices, RowWriter<T>& writer) {
    inside_ = iota<T>() >= 0, beyond_ = Vector<int64_t>{};
    bool all = true;
    for (int64_t i = 0; i <= g_.out_h; ++i, grad += g_.out_w, indices += g_.out_w) {
      const int64_t y = 2 * i - pad;
      const bool has_upper = y >= 0 && y < g_.height, has_lower = y + 1 < g_.height;
      const int64_t size = (has_upper + has_lower) * g_.width;
      if (size == 0) continue;
      T* to = writer.next(size, kSlack);
      T* upper = has_upper ? to : unseen_;
      T* lower = has_lower ? to + size - g_.width : unseen_;
      if (i == g_.out_h) {
        spread<false>(grad, indices, i, upper, lower);
      } else {
        spread<true>(grad, indices, i, upper, lower);
        all &= ends_are_inside(indices, i);
      }
      writer.done(size);
    }
    for (int lane = 0; lane < kLanes<T>; ++lane) all &= inside_[lane] != 0;
    return all && are_held(beyond_);
  }

 private:
  static constexpr int64_t kWidest = RowWriter<T>::kLongest / 2;
  static constexpr int64_t kSlack = 2 * kLanes<T>;  // a row ends with two whole vectors

  // Of each window's taps in a row, or of two rows' sum.
  struct Taps {
    Vector<T> tap[3];
  };

  // The index of tap (0, 0) of windows i, before the first column's step.
  static int64_t corner(const AdaptiveGeometry& g, int64_t i) {
    return (2 * i - pad) * g.width - pad;
  }
  // The column of the tap at a W + b from the window's corner.
  static int64_t tap_column(const AdaptiveGeometry& g, int64_t place) {
    return place - (place >= g.width ? g.width : 0) - (place >= 2 * g.width ? g.width : 0);
  }

  static IntegerVector<T> splat_integer(int64_t value) {
    return static_cast<Integer<T>>(value) - IntegerVector<T>{};
  }
  // Whether the taps of a row's first and last window are in the plane.
  bool ends_are_inside(const int64_t* indices, int64_t i) const {
    const int64_t first = corner(g_, i), end = g_.out_w - 1;
    return tap_column(g_, indices[0] - first) >= pad &&
           2 * end - pad + tap_column(g_, indices[end] - first - 2 * end) < g_.width;
  }

  // Writes the two rows from 2i - pad on, from windows i if there are any, and what windows i - 1 left
  // for the upper one.
  template <bool has_windows>
  void spread(const T* grad, const int64_t* indices, int64_t i, T* upper, T* lower) {
    const int64_t first = corner(g_, i), top = 2 * i - pad;
    const auto low = static_cast<Integer<T>>(max(0, -top) * g_.width);
    const auto high = static_cast<Integer<T>>(min(3, g_.height - top) * g_.width);
    const bool is_cut = top < 0 || top + 3 > g_.height;
    Vector<int64_t> beyond = beyond_;
    IntegerVector<T> inside = inside_;
    Taps above{}, below{}, begin{};  // the vector before this one, and the lower row's first
    Vector<T> begin_next{};
    T corners[2] = {};
    upper += 1 - pad, lower += 1 - pad;
    for (int64_t j = 0; j < g_.out_w; j += kLanes<T>) {
      Taps taps[3] = {};
      if constexpr (has_windows) {
        const int64_t left = g_.out_w - j;
        IntegerVector<T> place = load_indices<T>(indices + j, left, &beyond) -
                                 (iota<T>() * 2 + static_cast<Integer<T>>(first + 2 * j));
        if (left < kLanes<T>) place = iota<T>() < static_cast<Integer<T>>(left) ? place : low;
        if (is_cut) inside &= (place >= low) & (place < high);
        find_taps(place, load_some(grad + j, left, T(0)), taps, &inside);
      }
      Taps sum;
      for (int b = 0; b < 3; ++b) {
        sum.tap[b] = taps[0].tap[b] + load(left_[b] + j);
        store(left_[b] + j, taps[2].tap[b]);
      }
      if (j == 0) {
        corners[0] = sum.tap[0][0], corners[1] = taps[1].tap[0][0];
      } else {
        if (j == kLanes<T>) begin = below, begin_next = taps[1].tap[0];
        write_pairs(above, sum.tap[0], upper + 2 * (j - kLanes<T>));
        write_pairs(below, taps[1].tap[0], lower + 2 * (j - kLanes<T>));
      }
      above = sum, below = taps[1];
    }
    const int64_t last = (g_.out_w - 1) / kLanes<T> * kLanes<T>;
    write_pairs(above, Vector<T>{}, upper + 2 * last);
    write_pairs(below, Vector<T>{}, lower + 2 * last);
    // The upper row's last vectors may have gone over the lower row's first.
    if (last > 0) write_pairs(begin, begin_next, lower);
    if (pad == 0) upper[-1] = corners[0], lower[-1] = corners[1];
    const int64_t held = 2 * g_.out_w + 1 - pad;  // columns that windows hold; one more at most
    if (held < g_.width) upper[held - (1 - pad)] = lower[held - (1 - pad)] = 0;
    beyond_ = beyond, inside_ = inside;
  }

  // Each value at the tap that `place` = a W + b means.
  inline __attribute__((always_inline)) void find_taps(IntegerVector<T> place, Vector<T> value,
                                                       Taps (&taps)[3],
                                                       IntegerVector<T>* inside) const {
    const IntegerVector<T> from_1 = place > row_1_, from_2 = place > row_2_;
    const IntegerVector<T> column = place - (from_1 & width_) - (from_2 & width_);
    const auto bits = (IntegerVector<T>)value;
    const IntegerVector<T> rows[3] = {bits & ~from_1, bits & (from_1 ^ from_2), bits & from_2};
    IntegerVector<T> found{};
    for (int b = 0; b < 3; ++b) {
      const IntegerVector<T> is_column = column == b;
      found |= is_column;
      for (int a = 0; a < 3; ++a) taps[a].tap[b] = (Vector<T>)(rows[a] & is_column);
    }
    *inside &= found;
  }

  // Columns of windows side by side: the middle one of each, and what it shares with the next.
  FASTDL_INLINE void write_pairs(const Taps& row, Vector<T> next, T* to) {
    const Vector<T> shared = row.tap[2] + next_lanes<T>(row.tap[0], next);
    store(to, low_pairs<T>(row.tap[1], shared));
    store(to + kLanes<T>, high_pairs<T>(row.tap[1], shared));
  }

  const AdaptiveGeometry& g_;
  const IntegerVector<T> width_, row_1_, row_2_;  // W; a place beyond is in row 1, in row 2
  IntegerVector<T> inside_{};  // whether all indices of a lane were in their windows
  Vector<int64_t> beyond_{};
  T left_[3][kWidest + kLanes<T>] = {};  // t[2] of the windows before
  T unseen_[kWidest + kSlack + 1];       // for rows beyond the plane
};

// Planes from `begin` on; ends before `end` at one where an index is not in its window.
template <class T, int pad>
int64_t spread_planes(const T* grad, const int64_t* indices, const AdaptiveGeometry& g,
                      int64_t begin, int64_t end, bool past_caches, T* out) {
  const int64_t size = g.height * g.width, windows = g.out_h * g.out_w;
  SpreadWindows<T, pad> spread(g);
  RowWriter<T> writer(past_caches);
  writer.start(out + begin * size, (end - begin) * size);
  for (int64_t plane = begin; plane < end; ++plane)
    if (!spread.run(grad + plane * windows, indices + plane * windows, writer)) return plane;
  return end;
}

// The one of `spread_planes` that serves windows like those of the first plane, or null.
template <class T>
auto pick_spread(const int64_t* indices, const AdaptiveGeometry& g) {
  if (SpreadWindows<T, 1>::serves(g, indices)) return spread_planes<T, 1>;
  if (SpreadWindows<T, 0>::serves(g, indices)) return spread_planes<T, 0>;
  return static_cast<decltype(&spread_planes<T, 0>)>(nullptr);
}

// A buffer in the first-level cache over a part of an output that begins as zeros. It moves down the
// output, and what it leaves behind is written once.
template <class T>
class MovingWindow {
 public:
  MovingWindow(T* out, bool past_caches) : out_(out), past_caches_(past_caches) {}

  // Whether elements [first, last] can be added to; those before `first` will not be any more.
  bool reach(int64_t first, int64_t last) {
    if (last >= base_ + kRoom) move_to(first - past_line(out_ + first));
    return first >= base_ && last < base_ + kRoom;
  }
  // Where the output would begin if all of it were here.
  T* origin() { return buffer_ - base_; }
  // Elements up to `end` are complete.
  void finish(int64_t end) { move_to(end); }

 private:
  static constexpr int64_t kRoom = 4096;

  // Elements from the beginning of p's line up to p.
  static int64_t past_line(const T* p) {
    return static_cast<int64_t>(reinterpret_cast<uintptr_t>(p) % kLine / sizeof(T));
  }

  void move_to(int64_t base) {
    while (base_ < base) {
      const int64_t size = min(kRoom, base - base_);
      map(buffer_, size, out_ + base_, past_caches_, [](Vector<T> v) { return v; });
      for (int64_t i = size; i < kRoom; i += kLanes<T>)
        store(buffer_ + i - size, load_some(buffer_ + i, kRoom - i, T(0)));
      for (int64_t i = kRoom - size; i < kRoom; i += kLanes<T>) store(buffer_ + i, Vector<T>{});
      base_ += size;
    }
  }

  T* const out_;
  const bool past_caches_;
  int64_t base_ = 0;
  alignas(64) T buffer_[kRoom + kLanes<T>] = {};
};

// Indices of one plane, a chunk at a time: whether all of them are in [0, size), and what they reach.
class IndexChunks {
 public:
  explicit IndexChunks(int64_t count)
      : count_(count), chunks_(ceil_div(count, max(kShortest, ceil_div(count, kMost)))) {}

  int64_t chunks() const { return chunks_; }
  int64_t begin(int64_t chunk) const { return chunk * count_ / chunks_; }
  // The smallest index of this chunk and all that follow; the largest one of this chunk.
  int64_t first(int64_t chunk) const { return first_[chunk]; }
  int64_t last(int64_t chunk) const { return last_[chunk]; }

  bool read(const int64_t* at, int64_t size) {
    int64_t first = size;
    for (int64_t chunk = chunks_; chunk-- > 0;) {
      int64_t smallest, largest;
      range_of(at + begin(chunk), begin(chunk + 1) - begin(chunk), &smallest, &largest);
      if (smallest < 0 || largest >= size) return false;
      first_[chunk] = first = min(first, smallest);
      last_[chunk] = largest;
    }
    return true;
  }

 private:
  static constexpr int64_t kShortest = 128, kMost = 1024;

  static void range_of(const int64_t* at, int64_t count, int64_t* smallest, int64_t* largest) {
    constexpr int lanes = kLanes<int64_t>;
    int64_t low = at[0], high = at[0], i = 0;
    if (count >= 2 * lanes) {
      Vector<int64_t> lows[2] = {load(at), load(at + lanes)}, highs[2] = {lows[0], lows[1]};
      for (; i + 2 * lanes <= count; i += 2 * lanes)
        for (int h = 0; h < 2; ++h) {
          const Vector<int64_t> v = load(at + i + h * lanes);
          lows[h] = v < lows[h] ? v : lows[h];
          highs[h] = v > highs[h] ? v : highs[h];
        }
      low = reduce_lanes<int64_t, lanes>(
          lows[0] < lows[1] ? lows[0] : lows[1], [](auto a, auto b) { return a < b ? a : b; });
      high = reduce_lanes<int64_t, lanes>(
          highs[0] > highs[1] ? highs[0] : highs[1], [](auto a, auto b) { return a > b ? a : b; });
    }
    for (; i < count; ++i) low = min(low, at[i]), high = max(high, at[i]);
    *smallest = low, *largest = high;
  }

  const int64_t count_, chunks_;
  int64_t first_[kMost], last_[kMost];
};

template <class T>
FASTDL_INLINE void scatter(const T* from, const int64_t* at, int64_t count, T* to) {
#pragma GCC unroll 4
  for (int64_t i = 0; i < count; ++i) to[at[i]] += from[i];
}

// Planes [begin, end); false if an index is not in [0, size), and nothing is written there.
//
// Windows come in order, so what an index reaches lies in a few rows, which move down the plane. Any
// other indices are right too.
template <class T>
bool max_pool_planes_backward(const T* grad, const int64_t* indices, int64_t grad_size,
                              int64_t size, int64_t begin, int64_t end, bool past_caches, T* out) {
  IndexChunks chunks(grad_size);
  MovingWindow<T> window(out + begin * size, past_caches);
  int64_t origin = 0;  // of the plane in the window's output
  for (int64_t plane = begin; plane < end; ++plane, origin += size) {
    const T* from = grad + plane * grad_size;
    const int64_t* at = indices + plane * grad_size;
    if (!chunks.read(at, size)) return false;
    for (int64_t chunk = 0; chunk < chunks.chunks(); ++chunk) {
      const int64_t first = chunks.begin(chunk), count = chunks.begin(chunk + 1) - first;
      if (window.reach(origin + chunks.first(chunk), origin + chunks.last(chunk))) {
        scatter(from + first, at + first, count, window.origin() + origin);
      } else {  // too far apart: the rest of the plane is added in place
        window.finish(origin + size);
        scatter(from + first, at + first, count, out + plane * size);
      }
    }
  }
  window.finish(origin);
  return true;
}

template <class T>
bool max_pool_backward(const T* grad, const int64_t* indices, const AdaptiveGeometry& g, T* out,
                       int threads) {
  const int64_t size = g.height * g.width, grad_size = g.out_h * g.out_w;
  const bool past_caches = planes_go_past_caches<T>(g.planes, size);
  const auto spread = g.planes ? pick_spread<T>(indices, g) : nullptr;
  bool in_range = true;
  each_planes(g.planes, size + 2 * grad_size, threads, [&](int64_t begin, int64_t end) {
    if (may_be_pairs<T>(g))
      begin = max_pairs_backward(grad, indices, g, begin, end, past_caches, out);
    if (spread) begin = spread(grad, indices, g, begin, end, past_caches, out);
    if (!max_pool_planes_backward(grad, indices, grad_size, size, begin, end, past_caches, out))
      __atomic_store_n(&in_range, false, __ATOMIC_RELAXED);
  });
  return in_range;
}

// --- gradients that add up in a plane ---

// make(plane, where) makes each plane of the output, in memory that holds zeros if `cleared`. Where
// planes go past the caches, that is a copy of one in the second-level cache.
template <class T, class Make>
void accumulate_planes(int64_t planes, int64_t size, int64_t work, bool cleared, T* out,
                       int threads, Make make) {
  constexpr int64_t largest = 1 << 19;  // bytes
  const int64_t bytes = size * static_cast<int64_t>(sizeof(T));
  const bool past_caches = goes_past_caches(planes * bytes) && bytes <= largest;
  each_planes(planes, size + work, threads, [&](int64_t begin, int64_t end) {
    T* copy = past_caches ? static_cast<T*>(workspace(bytes)) : nullptr;
    for (int64_t plane = begin; plane < end; ++plane) {
      T* to = copy ? copy : out + plane * size;
      if (cleared) memset(to, 0, static_cast<size_t>(bytes));
      make(plane, to);
      if (copy) map(copy, size, out + plane * size, true, [](Vector<T> v) { return v; });
    }
  });
}

// --- average ---

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

// Elements of window `index` that an average divides by, along one axis: clipped to the padded
// input, or to the input.
FASTDL_INLINE int64_t counted(int64_t index, int64_t kernel, int64_t stride, int64_t pad,
                              int64_t size, bool include_pad) {
  int64_t start = index * stride - pad, end = min(start + kernel, size + pad);
  return include_pad ? end - start : min(end, size) - max(start, 0);
}

// What the windows of an average pool divide by: a number of their row times one of their column.
template <class T>
class Divisors {
 public:
  Divisors(const PoolGeometry& g, bool include_pad, int64_t divisor)
      : g_(g), include_pad_(include_pad), divisor_(divisor) {
    for (int64_t j = 0; j < min(g.out_w, kBuffer) + kLanes<T>; ++j)
      columns_[j] = j < g.out_w ? static_cast<T>(column(j)) : T(1);
  }
  int64_t row(int64_t i) const {
    if (divisor_) return divisor_;
    return counted(i, g_.kernel_h, g_.stride_h, g_.pad_h, g_.height, include_pad_);
  }
  int64_t column(int64_t j) const {
    if (divisor_) return 1;
    return counted(j, g_.kernel_w, g_.stride_w, g_.pad_w, g_.width, include_pad_);
  }
  // column(j), column(j + 1), ...
  Vector<T> columns(int64_t j) const {
    if (j < kBuffer) return load(columns_ + j);
    Vector<T> v{};
    for (int lane = 0; lane < kLanes<T>; ++lane) v[lane] = static_cast<T>(column(j + lane));
    return v;
  }
  double of_window(int64_t i, int64_t j) const { return static_cast<double>(row(i) * column(j)); }

 private:
  const PoolGeometry& g_;
  const bool include_pad_;
  const int64_t divisor_;
  T columns_[kBuffer + kLanes<T>];
};

template <class T>
void avg_pool(const T* x, const PoolGeometry& g, bool include_pad, int64_t divisor, T* out,
              int threads) {
  const Divisors<T> divisors(g, include_pad, divisor);
  // Sums over larger windows are left to double precision.
  if (fits_buffer(g) && g.kernel_h * g.kernel_w <= 256) {
    pool<T, SumStep<T>>(g, x, out, threads, [&](int64_t i) {
      const T row = static_cast<T>(divisors.row(i));
      return [&divisors, row](int64_t j, Vector<T> v) { return v / (divisors.columns(j) * row); };
    });
    return;
  }
  const int64_t size = g.out_h * g.out_w;
  each_planes(g.batch * g.channels, size * g.kernel_h * g.kernel_w / 8, threads,
              [&](int64_t begin, int64_t end) {
                for (int64_t plane = begin; plane < end; ++plane)
                  for (int64_t i = 0; i < g.out_h; ++i)
                    for (int64_t j = 0; j < g.out_w; ++j) {
                      const int64_t top = i * g.stride_h - g.pad_h, left = j * g.stride_w - g.pad_w;
                      const double sum = sum_rectangle(
                          x + plane * g.height * g.width, g.width, max(0, top),
                          min(g.height, top + g.kernel_h), max(0, left),
                          min(g.width, left + g.kernel_w));
                      out[plane * size + i * g.out_w + j] =
                          static_cast<T>(sum / divisors.of_window(i, j));
                    }
              });
}

// Spreads a row of shares, one a window, over the columns of their windows. Both stand in buffers
// with room around them: to[c] for c in [0, wide) of the padded input; from[j] is zero outside
// [0, out_w).
template <class T>
FASTDL_INLINE void spread_row(const PoolGeometry& g, const T* from, int64_t wide, T* to) {
  if (g.stride_w == 1) {
    for (int64_t c = 0; c < wide; c += kLanes<T>) {
      Vector<T> v = load(from + c);
      for (int64_t b = 1; b < g.kernel_w; ++b) v += load(from + c - b);
      store(to + c, v);
    }
  } else if (g.stride_w == 2) {
    for (int64_t c = 0; c < wide; c += 2 * kLanes<T>) {
      Vector<T> even = load(from + c / 2), odd = g.kernel_w > 1 ? even : Vector<T>{};
      for (int64_t b = 2; b < g.kernel_w; ++b) (b % 2 ? odd : even) += load(from + c / 2 - b / 2);
      store(to + c, low_pairs<T>(even, odd));
      store(to + c + kLanes<T>, high_pairs<T>(even, odd));
    }
  } else {
    for (int64_t c = 0; c < wide; ++c) to[c] = 0;
    for (int64_t j = 0; j < g.out_w; ++j)
      for (int64_t b = 0; b < g.kernel_w; ++b) to[j * g.stride_w + b] += from[j];
  }
}

// A plane that rows are added to from the top down. What no row was added to is zero.
template <class T>
class PlaneOfRows {
 public:
  PlaneOfRows(T* plane, int64_t height, int64_t width)
      : plane_(plane), height_(height), width_(width) {}

  // Adds a row to rows [first, last); `first` never falls.
  void add(const T* from, int64_t first, int64_t last) {
    clear_until(min(first, height_));
    for (int64_t r = first; r < last; ++r) {
      T* to = plane_ + r * width_;
      const bool adds = r < done_;
      int64_t c = 0;
      for (; c + kLanes<T> <= width_; c += kLanes<T>)
        store(to + c, adds ? load(to + c) + load(from + c) : load(from + c));
      if (c == width_) continue;
      const int64_t rest = width_ - c;
      Vector<T> v = load_part(from + c, rest, T(0));
      store_part(to + c, rest, adds ? v + load_part(to + c, rest, T(0)) : v);
    }
    done_ = max(done_, last);
  }
  void finish() { clear_until(height_); }

 private:
  void clear_until(int64_t row) {
    if (row <= done_) return;
    memset(plane_ + done_ * width_, 0, static_cast<size_t>((row - done_) * width_) * sizeof(T));
    done_ = row;
  }

  T* plane_;
  const int64_t height_, width_;
  int64_t done_ = 0;  // rows that hold something
};

// One plane's gradient: each row of shares is spread to a row of the input, which is added to every
// row of its windows.
template <class T>
void spread_plane(const PoolGeometry& g, const T* grad, const Divisors<T>& divisors, T* shares,
                  T* spread, T* out) {
  const int64_t wide = max(g.width + g.pad_w, (g.out_w - 1) * g.stride_w + g.kernel_w);
  PlaneOfRows<T> plane(out, g.height, g.width);
  for (int64_t i = 0; i < g.out_h; ++i) {
    const T* row = grad + i * g.out_w;
    const T divisor = static_cast<T>(divisors.row(i));
    for (int64_t j = 0; j < g.out_w; j += kLanes<T>)
      store_some(shares + j, g.out_w - j,
                 load_some(row + j, g.out_w - j, T(0)) / (divisors.columns(j) * divisor));
    spread_row(g, shares, wide, spread);
    const int64_t top = i * g.stride_h - g.pad_h;
    plane.add(spread + g.pad_w, max(0, top), min(g.height, top + g.kernel_h));
  }
  plane.finish();
}

template <class T>
void avg_pool_backward(const T* grad, const PoolGeometry& g, bool include_pad, int64_t divisor,
                       T* out, int threads) {
  const Divisors<T> divisors(g, include_pad, divisor);
  const int64_t planes = g.batch * g.channels, size = g.height * g.width;
  const int64_t grad_size = g.out_h * g.out_w;
  const int64_t wide = max(g.width + g.pad_w, g.out_w * g.stride_w + g.kernel_w) + g.pad_w;
  const bool fits = wide <= kBuffer;
  accumulate_planes(planes, size, grad_size, !fits, out, threads, [&](int64_t plane, T* to) {
    const T* from = grad + plane * grad_size;
    if (fits) {
      T shares[2 * kBuffer + 4 * kLanes<T>], spread[kBuffer + 4 * kLanes<T>];
      for (int64_t j = -g.kernel_w; j < wide / g.stride_w + 2 * kLanes<T>; ++j)
        shares[kBuffer + j] = 0;
      spread_plane(g, from, divisors, shares + kBuffer, spread, to);
      return;
    }
    for (int64_t i = 0; i < g.out_h; ++i)
      for (int64_t j = 0; j < g.out_w; ++j) {
        const int64_t top = i * g.stride_h - g.pad_h, left = j * g.stride_w - g.pad_w;
        add_rectangle(static_cast<T>(*from++ / divisors.of_window(i, j)), g.width, max(0, top),
                      min(g.height, top + g.kernel_h), max(0, left),
                      min(g.width, left + g.kernel_w), to);
      }
  });
}

// --- adaptive average ---

// Windows that all have one size are those of an average pool.
FASTDL_INLINE bool has_even_windows(const AdaptiveGeometry& g) {
  return g.height % g.out_h == 0 && g.width % g.out_w == 0;
}
FASTDL_INLINE PoolGeometry even_windows(const AdaptiveGeometry& g) {
  const int64_t kernel_h = g.height / g.out_h, kernel_w = g.width / g.out_w;
  return {1, g.planes, g.height, g.width, kernel_h, kernel_w, kernel_h, kernel_w,
          0, 0,        1,        1,       g.out_h,  g.out_w};
}

// Window `index` of `out` along an axis of `size`: [begin, end).
struct AdaptiveWindow {
  int64_t begin, end;
  AdaptiveWindow(int64_t index, int64_t size, int64_t out)
      : begin(index * size / out), end(ceil_div((index + 1) * size, out)) {}
  int64_t count() const { return end - begin; }
};

// A row of the output: the sums down the rows of its windows, then across.
template <class T>
void adaptive_row(const AdaptiveGeometry& g, const T* plane, int64_t i, T* out) {
  const AdaptiveWindow rows(i, g.height, g.out_h);
  double columns[kBuffer + kLanes<T>];
  const bool fits = g.width <= kBuffer;
  if (fits) {
    for (int64_t c = 0; c < g.width; ++c) columns[c] = 0;
    for (int64_t r = rows.begin; r < rows.end; ++r)
      for (int64_t c = 0; c < g.width; c += kLanes<T>)
        add_to<T>(columns + c, load_some(plane + r * g.width + c, g.width - c, T(0)));
  }
  for (int64_t j = 0; j < g.out_w; ++j) {
    const AdaptiveWindow window(j, g.width, g.out_w);
    double sum = 0;
    if (fits)
      for (int64_t c = window.begin; c < window.end; ++c) sum += columns[c];
    else
      sum = sum_rectangle(plane, g.width, rows.begin, rows.end, window.begin, window.end);
    out[j] = static_cast<T>(sum / static_cast<double>(rows.count() * window.count()));
  }
}

template <class T>
void adaptive(const T* x, const AdaptiveGeometry& g, T* out, int threads) {
  const int64_t size = g.height * g.width, out_size = g.out_h * g.out_w;
  if (size == 1) {
    parallel_range(g.planes, kGrain, threads, [&](int64_t begin, int64_t end) {
      map(x + begin, end - begin, out + begin, false, [](Vector<T> v) { return v; });
    });
    return;
  }
  if (out_size != 1 && has_even_windows(g)) {
    avg_pool(x, even_windows(g), true, 0, out, threads);
    return;
  }
  each_planes(g.planes, size + 8 * out_size, threads, [&](int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane) {
      const T* from = x + plane * size;
      T* to = out + plane * out_size;
      if (out_size == 1) {
        *to = static_cast<T>(sum_of(from, size) / static_cast<double>(size));
        continue;
      }
      for (int64_t i = 0; i < g.out_h; ++i) adaptive_row(g, from, i, to + i * g.out_w);
    }
  });
}

template <class T>
void adaptive_backward(const T* grad, const AdaptiveGeometry& g, T* out, int threads) {
  const int64_t size = g.height * g.width, out_size = g.out_h * g.out_w;
  if (out_size == 1) {
    const bool past_caches = planes_go_past_caches<T>(g.planes, size);
    each_planes(g.planes, size, threads, [&](int64_t begin, int64_t end) {
      RowWriter<T> writer(past_caches);
      writer.start(out + begin * size, (end - begin) * size);
      for (int64_t plane = begin; plane < end; ++plane) {
        const Vector<T> share = splat(grad[plane] / static_cast<T>(size));
        for (int64_t done = 0; done < size; done += kBuffer) {
          const int64_t count = min(kBuffer, size - done);
          T* to = writer.next(count, kLanes<T>);
          for (int64_t i = 0; i < count; i += kLanes<T>) store(to + i, share);
          writer.done(count);
        }
      }
    });
    return;
  }
  if (has_even_windows(g)) {
    avg_pool_backward(grad, even_windows(g), true, 0, out, threads);
    return;
  }
  const bool fits = g.width <= kBuffer;
  accumulate_planes(g.planes, size, 8 * out_size, !fits, out, threads, [&](int64_t at, T* to) {
    PlaneOfRows<T> plane(to, g.height, g.width);
    for (int64_t i = 0; i < g.out_h; ++i) {
      const AdaptiveWindow rows(i, g.height, g.out_h);
      T spread[kBuffer + kLanes<T>];
      for (int64_t c = 0; fits && c < g.width; ++c) spread[c] = 0;
      for (int64_t j = 0; j < g.out_w; ++j) {
        const AdaptiveWindow window(j, g.width, g.out_w);
        const T share = grad[at * out_size + i * g.out_w + j] /
                        static_cast<T>(rows.count() * window.count());
        if (fits)
          for (int64_t c = window.begin; c < window.end; ++c) spread[c] += share;
        else
          add_rectangle(share, g.width, rows.begin, rows.end, window.begin, window.end, to);
      }
      if (fits) plane.add(spread, rows.begin, rows.end);
    }
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

bool max_pool2d_backward(Dtype dtype, const void* grad, const int64_t* indices,
                         const AdaptiveGeometry* g, void* out, int threads) {
  if (dtype == kFloat32)
    return max_pool_backward(static_cast<const float*>(grad), indices, *g,
                             static_cast<float*>(out), threads);
  return max_pool_backward(static_cast<const double*>(grad), indices, *g,
                           static_cast<double*>(out), threads);
}

void avg_pool2d(Dtype dtype, const void* x, const PoolGeometry* g, bool count_include_pad,
                int64_t divisor, void* out, int threads) {
  const FloatMode mode(dtype);
  if (dtype == kFloat32)
    avg_pool(static_cast<const float*>(x), *g, count_include_pad, divisor,
             static_cast<float*>(out), threads);
  else
    avg_pool(static_cast<const double*>(x), *g, count_include_pad, divisor,
             static_cast<double*>(out), threads);
}

void avg_pool2d_backward(Dtype dtype, const void* grad, const PoolGeometry* g,
                         bool count_include_pad, int64_t divisor, void* out, int threads) {
  const FloatMode mode(dtype);
  if (dtype == kFloat32)
    avg_pool_backward(static_cast<const float*>(grad), *g, count_include_pad, divisor,
                      static_cast<float*>(out), threads);
  else
    avg_pool_backward(static_cast<const double*>(grad), *g, count_include_pad, divisor,
                      static_cast<double*>(out), threads);
}

void adaptive_avg_pool2d(Dtype dtype, const void* x, const AdaptiveGeometry* g, void* out,
                         int threads) {
  const FloatMode mode(dtype);
  if (dtype == kFloat32)
    adaptive(static_cast<const float*>(x), *g, static_cast<float*>(out), threads);
  else
    adaptive(static_cast<const double*>(x), *g, static_cast<double*>(out), threads);
}

void adaptive_avg_pool2d_backward(Dtype dtype, const void* grad, const AdaptiveGeometry* g,
                                  void* out, int threads) {
  const FloatMode mode(dtype);
  if (dtype == kFloat32)
    adaptive_backward(static_cast<const float*>(grad), *g, static_cast<float*>(out), threads);
  else
    adaptive_backward(static_cast<const double*>(grad), *g, static_cast<double*>(out), threads);
}

}  // namespace fastdl::FASTDL_ISA
