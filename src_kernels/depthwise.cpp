// Depthwise convolution: every channel with its own M = O/C filters.
//
//   out[n, c*M + m, i, j] = sum_{a,b} x[n, c, i*s - p + a*d, j*s - p + b*d] * weight[c*M + m, a, b]
//
// A strip of rows of one channel lies in the first-level cache, padded (strip.h), so no tap meets an
// edge. The microkernel sums a block of kRows rows by two vectors of the output. One column of taps
// at a time is in registers, and a vector of the strip serves every row of the block that reads it:
//
//   strip row r, column b of the taps:  x ---> out row r     with weight[0, b]
//                                         ---> out row r - 1 with weight[1, b]
//                                         ---> out row r - 2 with weight[2, b]
//
// The input gradient is the same sum over the output's gradient with the filter turned around; with
// a stride s, one such sum for each of the s*s phases of the pixels, with the taps that meet them.
// The weight gradient keeps a few taps' sums in registers, with the same reuse of vectors.
//
// Wide rows go by depthwise_planes.cpp, small planes by depthwise_lanes.cpp.
#include "depthwise.h"

#include "algorithm.h"
#include "families.h"
#include "phase_axis.h"
#include "results.h"
#include "strip.h"
#include "vector_math.h"

namespace fastdl::FASTDL_ISA {

namespace {

// Output rows of a block.
constexpr int kRows = 4;
// Products that a single-precision sum takes before it goes into a double.
constexpr int64_t kLongestSum = 64;

// The taps of a sum: a rectangle in each of `sources` strips that lie one behind the other.
struct Taps {
  int64_t sources, rows, columns;
  int64_t source_step, row_step;                    // elements of the strip
  const int64_t* column_offsets;
  int64_t weight_source, weight_row, weight_column; // elements of the weight
};

// A rectangle of sums: where they go, what they start with.
template <class T>
struct Sums {
  T* to;
  int64_t pitch, rows, width;
  T bias;
  bool rectify;
  const T* ahead;      // what the next strip will be filled from, fetched meanwhile,
  int64_t ahead_row;   // so many elements with each row
};

// sum[i][v] += all taps of row i, vector v of a block; `rows` rows of taps lie next to each other.
template <class T, int rows, int stride, int block, int vectors>
FASTDL_INLINE void sum_taps(const Taps& taps, const T* weight, const T* strip, int64_t pitch,
                            Vector<T> (&sum)[block][vectors]) {
  for (int64_t source = 0; source < taps.sources; ++source) {
    for (int64_t b = 0; b < taps.columns; ++b) {
      Vector<T> w[rows];
#pragma GCC unroll 8
      for (int a = 0; a < rows; ++a)
        w[a] = splat(weight[a * taps.weight_row + b * taps.weight_column]);
      const T* x = strip + taps.column_offsets[b];
#pragma GCC unroll 16
      for (int r = 0; r < (block - 1) * stride + rows; ++r) {
#pragma GCC unroll 2
        for (int v = 0; v < vectors; ++v) {
          Vector<T> value = load(x + v * kLanes<T>);
#pragma GCC unroll 8
          for (int a = 0; a < rows; ++a)
            if (r >= a && (r - a) % stride == 0 && (r - a) / stride < block)
              sum[(r - a) / stride][v] += w[a] * value;
        }
        x += pitch;
      }
    }
    strip += taps.source_step;
    weight += taps.weight_source;
  }
}

// The same for one row of the output, and any number and step of rows of taps.
template <class T, int vectors>
FASTDL_INLINE void sum_any_taps(const Taps& taps, const T* weight, const T* strip,
                                Vector<T> (&sum)[1][vectors]) {
  for (int64_t source = 0; source < taps.sources; ++source) {
    for (int64_t a = 0; a < taps.rows; ++a)
      for (int64_t b = 0; b < taps.columns; ++b) {
        Vector<T> w = splat(weight[a * taps.weight_row + b * taps.weight_column]);
        const T* x = strip + a * taps.row_step + taps.column_offsets[b];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) sum[0][v] += w * load(x + v * kLanes<T>);
      }
    strip += taps.source_step;
    weight += taps.weight_source;
  }
}

// A block of sums, stored. `rows` 0 stands for any taps.
template <class T, int rows, int stride, int block, int vectors>
FASTDL_INLINE void sum_block(const Taps& taps, const T* weight, const T* strip, int64_t pitch,
                             const Sums<T>& sums, T* to) {
  Vector<T> sum[block][vectors];
#pragma GCC unroll 4
  for (int i = 0; i < block; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) sum[i][v] = splat(sums.bias);
  if constexpr (rows == 0) sum_any_taps<T, vectors>(taps, weight, strip, sum);
  else sum_taps<T, rows, stride, block, vectors>(taps, weight, strip, pitch, sum);
#pragma GCC unroll 4
  for (int i = 0; i < block; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v)
      store(to + i * sums.pitch + v * kLanes<T>, sums.rectify ? relu<T>(sum[i][v]) : sum[i][v]);
}

// `block` rows of sums. The last block of a row reaches back over the one before it; sums narrower
// than a vector run over into the next rows, which are stored after them.
template <class T, int rows, int stride, int block>
void sum_rows(const Taps& taps, const T* weight, const T* strip, int64_t pitch,
              const Sums<T>& sums, T* to) {
  constexpr int64_t lanes = kLanes<T>;
  int64_t j = 0;
  for (; j + 2 * lanes <= sums.width; j += 2 * lanes)
    sum_block<T, rows, stride, block, 2>(taps, weight, strip + j, pitch, sums, to + j);
  const int64_t left = sums.width - j;
  if (left > lanes && j > 0) {
    j = sums.width - 2 * lanes;
    sum_block<T, rows, stride, block, 2>(taps, weight, strip + j, pitch, sums, to + j);
  } else if (left > 0) {
    if (left > lanes)
      sum_block<T, rows, stride, block, 1>(taps, weight, strip + j, pitch, sums, to + j);
    j = max(0, sums.width - lanes);
    sum_block<T, rows, stride, block, 1>(taps, weight, strip + j, pitch, sums, to + j);
  }
}

// Asks for memory to be brought into the second-level cache.
template <class T>
FASTDL_INLINE void fetch(const T* from, int64_t size) {
  constexpr int64_t line = kLine / sizeof(T);
  for (int64_t i = 0; i < size; i += line) __builtin_prefetch(from + i, 0, 2);
}

// All rows of sums; the last block reaches back over the one before it.
template <class T, int rows, int stride>
void sum_strip(const Taps& taps, const T* weight, const T* strip, int64_t pitch, int64_t stride_h,
               const Sums<T>& sums) {
  constexpr int block = rows ? kRows : 1;
  if (sums.rows >= block) {
    for (int64_t i = 0;; i = min(i + block, sums.rows - block)) {
      fetch(sums.ahead + i * sums.ahead_row, block * sums.ahead_row);
      sum_rows<T, rows, stride, block>(taps, weight, strip + i * stride_h * pitch, pitch, sums,
                                       sums.to + i * sums.pitch);
      if (i + block >= sums.rows) break;
    }
  } else {
    for (int64_t i = 0; i < sums.rows; ++i)
      sum_rows<T, rows, stride, 1>(taps, weight, strip + i * stride_h * pitch, pitch, sums,
                                   sums.to + i * sums.pitch);
  }
}

template <class T>
using SumStrip = void (*)(const Taps&, const T*, const T*, int64_t, int64_t, const Sums<T>&);

// The kernel for `rows` rows of taps, one buffer row apart where `adjacent`.
template <class T>
SumStrip<T> pick_sum(int64_t rows, bool adjacent, int64_t stride) {
  if (rows == 1 || adjacent) {
    if (stride == 1) switch (rows) {
      case 1: return sum_strip<T, 1, 1>;
      case 2: return sum_strip<T, 2, 1>;
      case 3: return sum_strip<T, 3, 1>;
      case 4: return sum_strip<T, 4, 1>;
      case 5: return sum_strip<T, 5, 1>;
      case 7: return sum_strip<T, 7, 1>;
    }
    if (stride == 2) switch (rows) {
      case 3: return sum_strip<T, 3, 2>;
      case 5: return sum_strip<T, 5, 2>;
      case 7: return sum_strip<T, 7, 2>;
    }
  }
  return sum_strip<T, 0, 1>;
}

int64_t work_of(const ConvGeometry& g) {
  return max(1, g.kernel_h * g.kernel_w * g.out_h * g.out_w * (g.filters / g.groups));
}

}  // namespace

// How the forward pass is divided, and the memory of a task.
template <class T>
struct Division {
  Strip<T> strip;
  int64_t halo;
  Cut cut;
  int64_t buffer, slots;
  Route<T> route;

  explicit Division(const ConvGeometry& g)
      : strip(g), halo((g.kernel_h - 1) * g.dilation_h + 1 - g.stride_h),
        cut(g.batch * g.channels, g.out_h, g.stride_h, halo, strip.row * int64_t{sizeof(T)}, kRows),
        buffer((cut.rows * g.stride_h + max(0, halo)) * strip.row),
        slots(strips_at_once(buffer * int64_t{sizeof(T)})),
        route(g.out_w, g.batch * g.filters * g.out_h * g.out_w, cut.rows * g.out_w) {}

  int64_t elements() const { return slots * buffer + route.room(); }
};

template <class T>
int64_t depthwise_workspace_bytes(const ConvGeometry& g, int threads) {
  if (planes_serve<T>(g)) return 0;
  if (const int64_t bytes = lanes_workspace_bytes<T>(g, threads)) return bytes;
  const Division<T> division(g);
  return (g.kernel_w * 8 + division.elements() * int64_t{sizeof(T)}) *
         min(threads, division.cut.units);
}

template <class T>
int depthwise(const T* x, const T* weight, const T* bias, const ConvGeometry& g,
              Activation activation, T* out, int threads) {
  const FloatMode mode(kDtype<T>);
  int served = planes_forward(x, weight, bias, g, activation, out, threads);
  if (served != kNotServed) return served;
  served = lanes_forward(x, weight, bias, g, activation, out, threads);
  if (served != kNotServed) return served;
  const Division<T> division(g);
  const Strip<T>& strip = division.strip;
  const Cut& cut = division.cut;
  const Route<T>& route = division.route;
  const int64_t buffer = division.buffer, slots = division.slots;
  const int64_t taps = g.kernel_h * g.kernel_w, per_channel = g.filters / g.groups;
  const int64_t plane_size = g.height * g.width;
  const SumStrip<T> sum = pick_sum<T>(g.kernel_h, g.dilation_h == 1, g.stride_h);
  int result = kDone;
  parallel_units(cut.units, work_of(g) / cut.strips, threads, [&](int64_t begin, int64_t stop) {
    const TaskMemory<T> memory(g.kernel_w, division.elements());
    if (!memory) return note(&result, kNoMemory);
    for (int64_t b = 0; b < g.kernel_w; ++b) memory.integers[b] = strip.place(b * g.dilation_w);
    Results<T> results(route, memory.elements + slots * buffer);
    const Taps window{1, g.kernel_h, g.kernel_w, 0, g.dilation_h * strip.row, memory.integers, 0,
                      g.kernel_w, 1};
    auto fill = [&](int64_t unit, int64_t slot) {
      const int64_t plane = unit / cut.strips, first = unit % cut.strips * cut.rows;
      const int64_t rows = min(cut.rows, g.out_h - first);
      strip.fill(x + plane * plane_size, first * g.stride_h,
                 (rows - 1) * g.stride_h + (g.kernel_h - 1) * g.dilation_h + 1,
                 memory.elements + slot * buffer);
    };
    auto compute = [&](int64_t unit, int64_t slot) {
      const int64_t plane = unit / cut.strips, first = unit % cut.strips * cut.rows;
      const int64_t rows = min(cut.rows, g.out_h - first);
      for (int64_t m = 0; m < per_channel; ++m) {
        const int64_t filter = plane % g.channels * per_channel + m;
        T* to = results.next(out + ((plane * per_channel + m) * g.out_h + first) * g.out_w,
                             rows * g.out_w);
        const Sums<T> sums{to, g.out_w, rows, g.out_w, bias ? bias[filter] : T(0),
                           activation == kRelu,
                           x + plane * plane_size + (first + slots * rows) * g.stride_h * g.width,
                           m ? 0 : g.stride_h * g.width};
        sum(window, weight + filter * taps, memory.elements + slot * buffer, strip.row, g.stride_h,
            sums);
        if (activation == kSigmoid || activation == kTanh)
          activate(kDtype<T>, activation, to, rows * g.out_w, to, 1);
        results.done(rows * g.out_w);
      }
    };
    fill_and_compute(begin, stop, slots, fill, compute);
  });
  return result;
}

template <class T>
int depthwise_grad_input(const T* grad, const T* weight, const ConvGeometry& g, T* out,
                         int threads) {
  const FloatMode mode(kDtype<T>);
  int served = planes_grad_input(grad, weight, g, out, threads);
  if (served != kNotServed) return served;
  served = lanes_grad_input(grad, weight, g, out, threads);
  if (served != kNotServed) return served;
  const PhaseAxis down(g.height, g.pad_top, g.stride_h, g.dilation_h, g.kernel_h);
  const PhaseAxis across(g.width, g.pad_left, g.stride_w, g.dilation_w, g.kernel_w);
  // The padded gradient, and the image with its columns sorted by phase.
  const Strip<T> strip(g.out_h, g.out_w, down.pad, across.pad, 1, across.count + across.reach);
  const Strip<T> image(g.height, g.width, g.pad_top, g.pad_left, g.stride_w, g.width + g.pad_left);
  const int64_t taps = g.kernel_h * g.kernel_w, per_channel = g.filters / g.groups;
  const Cut cut(g.batch * g.channels, down.count, 1, down.reach,
                per_channel * strip.row * int64_t{sizeof(T)}, kRows);
  const int64_t source = (cut.rows + down.reach) * strip.row, buffer = per_channel * source;
  const int64_t slots = strips_at_once(buffer * int64_t{sizeof(T)});
  const bool strided = g.stride_h > 1 || g.stride_w > 1;
  const Route<T> route(g.width, g.batch * g.channels * g.height * g.width,
                       cut.rows * g.stride_h * g.width);
  // Rows of the image that are still sorted by phase.
  const int64_t sorted_size = strided ? cut.rows * image.row : 0;
  int result = kDone;
  parallel_units(cut.units, work_of(g) / cut.strips, threads, [&](int64_t begin, int64_t stop) {
    const TaskMemory<T> memory(g.kernel_w, slots * buffer + sorted_size + route.room());
    if (!memory) return note(&result, kNoMemory);
    T* sorted = memory.elements + slots * buffer;
    Results<T> results(route, sorted + sorted_size);
    auto fill = [&](int64_t unit, int64_t slot) {
      const int64_t plane = unit / cut.strips, q = unit % cut.strips * cut.rows;
      for (int64_t m = 0; m < per_channel; ++m)
        strip.fill(grad + (plane * per_channel + m) * g.out_h * g.out_w, q,
                   min(cut.rows, down.count - q) + down.reach,
                   memory.elements + slot * buffer + m * source);
    };
    auto compute = [&](int64_t unit, int64_t slot) {
      const int64_t plane = unit / cut.strips, q = unit % cut.strips * cut.rows;
      const int64_t rows = min(cut.rows, down.count - q);
      const int64_t filter = plane % g.channels * per_channel;
      // The image's rows of this strip.
      const int64_t begin_y = max(0, (down.first + q) * g.stride_h - g.pad_top);
      const int64_t end_y = min(g.height, (down.first + q + rows) * g.stride_h - g.pad_top);
      T* to = results.next(out + (plane * g.height + begin_y) * g.width,
                           (end_y - begin_y) * g.width);
      for (int64_t phase_h = 0; phase_h < g.stride_h; ++phase_h) {
        const int64_t last_a = down.last(phase_h), tap_rows = down.taps_of(last_a);
        const SumStrip<T> sum = pick_sum<T>(tap_rows, down.step == 1, 1);
        for (int64_t phase_w = 0; phase_w < g.stride_w; ++phase_w) {
          const int64_t last_b = across.last(phase_w), tap_columns = across.taps_of(last_b);
          for (int64_t k = 0; k < tap_columns; ++k)
            memory.integers[k] = across.place(last_b) + k * across.step;
          const Taps window{per_channel, tap_rows, tap_columns, source, down.step * strip.row,
                            memory.integers, taps, -down.weight_step * g.kernel_w,
                            -across.weight_step};
          Sums<T> sums{to, g.width, rows, across.count, T(0), false,
                       grad + plane * per_channel * g.out_h * g.out_w + (q + slots * rows) * g.out_w,
                       phase_h || phase_w ? 0 : g.out_w};
          if (strided) sums.to = sorted + phase_w * image.phase + across.first, sums.pitch = image.row;
          sum(window, weight + filter * taps + max(0, last_a) * g.kernel_w + max(0, last_b),
              memory.elements + slot * buffer + down.place(max(0, last_a)) * strip.row, strip.row,
              1, sums);
        }
        for (int64_t i = 0; strided && i < rows; ++i) {
          const int64_t y = (down.first + q + i) * g.stride_h + phase_h - g.pad_top;
          if (y >= begin_y && y < end_y)
            image.collect_row(sorted + i * image.row, to + (y - begin_y) * g.width);
        }
      }
      results.done((end_y - begin_y) * g.width);
    };
    fill_and_compute(begin, stop, slots, fill, compute);
  });
  return result;
}

namespace {

// Products of output rows with what some taps read: `columns` columns of `rows` rows of taps.
//
//   sum[a][b] += grad[i, j] * strip[i*stride + a, offset[b] + j]  over `blocks` blocks of rows
template <class T>
struct Products {
  const T *grad, *strip;
  int64_t width, pitch;
  const int64_t* column_offsets;
  Vector<T>* sums;  // of the first tap, rows of `sums_pitch`
  int64_t sums_pitch;
};

template <class T, int rows, int stride, int columns, int block, bool part>
FASTDL_INLINE void multiply_block(const Products<T>& p, const T* grad, const T* strip, int64_t j,
                                  Vector<T> (&sum)[rows][columns]) {
  const int64_t left = p.width - j;
  const IntegerVector<T> mask = iota<T>() < static_cast<Integer<T>>(left);
  Vector<T> g[block];
#pragma GCC unroll 4
  for (int i = 0; i < block; ++i) {
    const T* from = grad + i * p.width + j;
    g[i] = part ? load_part(from, left, T(0)) : load(from);
  }
#pragma GCC unroll 4
  for (int b = 0; b < columns; ++b) {
    const T* x = strip + p.column_offsets[b] + j;
#pragma GCC unroll 16
    for (int r = 0; r < (block - 1) * stride + rows; ++r) {
      // Beyond the row stand numbers that belong to other taps: infinite, perhaps.
      Vector<T> value = part ? (Vector<T>)((IntegerVector<T>)load(x) & mask) : load(x);
#pragma GCC unroll 8
      for (int a = 0; a < rows; ++a)
        if (r >= a && (r - a) % stride == 0 && (r - a) / stride < block)
          sum[a][b] += g[(r - a) / stride] * value;
      x += p.pitch;
    }
  }
}

template <class T, int rows, int stride, int columns, int block>
FASTDL_INLINE void multiply_blocks(const Products<T>& p, int64_t begin, int64_t end,
                                   int64_t stride_h, Vector<T> (&sum)[rows][columns]) {
  for (int64_t i = begin; i + block <= end; i += block) {
    const T *grad = p.grad + i * p.width, *strip = p.strip + i * stride_h * p.pitch;
    int64_t j = 0;
    for (; j + kLanes<T> <= p.width; j += kLanes<T>)
      multiply_block<T, rows, stride, columns, block, false>(p, grad, strip, j, sum);
    if (j < p.width) multiply_block<T, rows, stride, columns, block, true>(p, grad, strip, j, sum);
  }
}

// Output rows [begin, end) of some columns of taps.
template <class T, int rows, int stride, int columns>
void multiply_rows(const Products<T>& p, int64_t begin, int64_t end, int64_t stride_h) {
  Vector<T> sum[rows][columns];
#pragma GCC unroll 8
  for (int a = 0; a < rows; ++a)
#pragma GCC unroll 4
    for (int b = 0; b < columns; ++b) sum[a][b] = p.sums[a * p.sums_pitch + b];
  const int64_t whole = begin + (end - begin) / kRows * kRows;
  multiply_blocks<T, rows, stride, columns, kRows>(p, begin, whole, stride_h, sum);
  multiply_blocks<T, rows, stride, columns, 1>(p, whole, end, stride_h, sum);
#pragma GCC unroll 8
  for (int a = 0; a < rows; ++a)
#pragma GCC unroll 4
    for (int b = 0; b < columns; ++b) p.sums[a * p.sums_pitch + b] = sum[a][b];
}

// All columns of taps, as many at a time as leave registers for a block of the gradient.
template <class T, int rows, int stride>
void multiply_taps(Products<T> p, int64_t tap_columns, int64_t begin, int64_t end,
                   int64_t stride_h) {
  constexpr int columns = rows == 3 ? 3 : rows <= 5 ? 2 : 1;
  int64_t b = 0;
  for (; b + columns <= tap_columns; b += columns) {
    multiply_rows<T, rows, stride, columns>(p, begin, end, stride_h);
    p.column_offsets += columns, p.sums += columns;
  }
  for (; b < tap_columns; ++b, ++p.column_offsets, ++p.sums)
    multiply_rows<T, rows, stride, 1>(p, begin, end, stride_h);
}

template <class T>
using MultiplyTaps = void (*)(Products<T>, int64_t, int64_t, int64_t, int64_t);

// The kernel that takes all rows of taps at once, where there is one.
template <class T>
MultiplyTaps<T> pick_multiply(const ConvGeometry& g) {
  if (g.dilation_h == 1 && g.stride_h == 1) switch (g.kernel_h) {
    case 2: return multiply_taps<T, 2, 1>;
    case 3: return multiply_taps<T, 3, 1>;
    case 5: return multiply_taps<T, 5, 1>;
    case 7: return multiply_taps<T, 7, 1>;
  }
  if (g.dilation_h == 1 && g.stride_h == 2) switch (g.kernel_h) {
    case 3: return multiply_taps<T, 3, 2>;
    case 5: return multiply_taps<T, 5, 2>;
    case 7: return multiply_taps<T, 7, 2>;
  }
  return nullptr;
}

// The sums of a channel's taps, in single precision for a while and then in double.
template <class T>
struct TapSums {
  Vector<T>* sums;
  double* totals;  // a vector for each tap
  int64_t taps, terms = 0;

  void add_terms(int64_t more) {
    if ((terms += more) >= kLongestSum) flush();
  }
  void flush() {
    for (int64_t t = 0; t < taps; ++t) {
      add_to<T>(totals + t * kLanes<T>, sums[t]);
      sums[t] = Vector<T>{};
    }
    terms = 0;
  }
  T total(int64_t tap) const {
    double total = 0;
    for (int lane = 0; lane < kLanes<T>; ++lane) total += totals[tap * kLanes<T> + lane];
    return static_cast<T>(total);
  }
};

}  // namespace

template <class T>
int depthwise_grad_weight(const T* grad, const T* x, const ConvGeometry& g, T* out, int threads) {
  const FloatMode mode(kDtype<T>);
  const int served = lanes_grad_weight(grad, x, g, out, threads);
  if (served != kNotServed) return served;
  const Strip<T> strip(g);
  const int64_t halo = (g.kernel_h - 1) * g.dilation_h + 1 - g.stride_h;
  const Cut cut(1, g.out_h, g.stride_h, halo, strip.row * int64_t{sizeof(T)}, kRows);
  const int64_t buffer = (cut.rows * g.stride_h + max(0, halo)) * strip.row;
  const int64_t slots = strips_at_once(buffer * int64_t{sizeof(T)});
  const int64_t taps = g.kernel_h * g.kernel_w, per_channel = g.filters / g.groups;
  const int64_t sums = per_channel * taps * kLanes<T>;
  const int64_t plane_size = g.height * g.width;
  const MultiplyTaps<T> multiply = pick_multiply<T>(g);
  // Output rows that fill a sum in single precision.
  const int64_t vectors = ceil_div(g.out_w, kLanes<T>);
  const int64_t chunk = max(1, kLongestSum / vectors / kRows) * kRows;
  int result = kDone;
  // A range owns its channels' weights, so that the order of the sum is always the same.
  parallel_units(g.channels, g.batch * work_of(g), threads, [&](int64_t begin, int64_t stop) {
    const TaskMemory<T> memory(g.kernel_w + sums, sums + slots * buffer);
    if (!memory) return note(&result, kNoMemory);
    for (int64_t b = 0; b < g.kernel_w; ++b) memory.integers[b] = strip.place(b * g.dilation_w);
    TapSums<T> total{reinterpret_cast<Vector<T>*>(memory.elements),
                     reinterpret_cast<double*>(memory.integers + g.kernel_w), per_channel * taps};
    T* padded = memory.elements + sums;
    for (int64_t channel = begin; channel < stop; ++channel) {
      memset(total.totals, 0, static_cast<size_t>(sums) * sizeof(double));
      auto fill = [&](int64_t unit, int64_t slot) {
        const int64_t image = unit / cut.strips, first = unit % cut.strips * cut.rows;
        const int64_t rows = min(cut.rows, g.out_h - first);
        strip.fill(x + (image * g.channels + channel) * plane_size, first * g.stride_h,
                   (rows - 1) * g.stride_h + (g.kernel_h - 1) * g.dilation_h + 1,
                   padded + slot * buffer);
      };
      auto compute = [&](int64_t unit, int64_t slot) {
        const int64_t image = unit / cut.strips, first = unit % cut.strips * cut.rows;
        const int64_t rows = min(cut.rows, g.out_h - first);
        const int64_t next = unit + slots, next_first = next % cut.strips * cut.rows;
        const int64_t next_plane = next / cut.strips * g.channels + channel;
        for (int64_t row = 0; row < rows; row += chunk) {
          const int64_t until = min(rows, row + chunk);
          if (next < g.batch * cut.strips) {
            fetch(x + next_plane * plane_size + (next_first + row) * g.stride_h * g.width,
                  (until - row) * g.stride_h * g.width);
            fetch(grad + (next_plane * per_channel * g.out_h + next_first + row) * g.out_w,
                  (until - row) * g.out_w);
          }
          for (int64_t m = 0; m < per_channel; ++m) {
            const int64_t filter = channel * per_channel + m;
            Products<T> p{grad + ((image * g.filters + filter) * g.out_h + first) * g.out_w,
                          padded + slot * buffer,
                          g.out_w,
                          strip.row,
                          memory.integers,
                          total.sums + m * taps,
                          g.kernel_w};
            if (multiply) {
              multiply(p, g.kernel_w, row, until, g.stride_h);
            } else {
              // Row by row of taps; to each the rows of the strip that it reads are all there are.
              p.pitch *= g.stride_h;
              for (int64_t a = 0; a < g.kernel_h; ++a) {
                multiply_taps<T, 1, 1>(p, g.kernel_w, row, until, 1);
                p.strip += g.dilation_h * strip.row, p.sums += g.kernel_w;
              }
            }
          }
          total.add_terms((until - row) * vectors);
        }
      };
      fill_and_compute(0, g.batch * cut.strips, slots, fill, compute);
      total.flush();
      for (int64_t w = 0; w < per_channel * taps; ++w)
        out[channel * per_channel * taps + w] = total.total(w);
    }
  });
  return result;
}

template int depthwise(const float*, const float*, const float*, const ConvGeometry&, Activation,
                       float*, int);
template int depthwise(const double*, const double*, const double*, const ConvGeometry&,
                       Activation, double*, int);
template int64_t depthwise_workspace_bytes<float>(const ConvGeometry&, int);
template int64_t depthwise_workspace_bytes<double>(const ConvGeometry&, int);
template int depthwise_grad_input(const float*, const float*, const ConvGeometry&, float*, int);
template int depthwise_grad_input(const double*, const double*, const ConvGeometry&, double*, int);
template int depthwise_grad_weight(const float*, const float*, const ConvGeometry&, float*, int);
template int depthwise_grad_weight(const double*, const double*, const ConvGeometry&, double*,
                                   int);

}  // namespace fastdl::FASTDL_ISA
