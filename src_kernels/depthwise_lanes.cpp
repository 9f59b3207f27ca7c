// Depthwise convolution of small planes: a vector is one pixel of kLanes neighbouring channels.
//
//   planes of the channels   --turned over-->   source[row][column][lane], padded with zeros
//   result[pixel][lane] = bias + sum over the taps of weight[tap][lane] * source[pixel + tap][lane]
//   result                   --turned over-->   planes of the result
//
// Rows that are no multiple of a vector, strides, gaps between taps: nothing of it costs a lane. What
// is paid is the turning over in registers, about as much as a 3x3 sum. The input gradient is the same
// sum over the padded gradient, of other taps for each phase of the pixels; the weight gradient keeps
// the sums of a few taps in registers.
//
#include "algorithm.h"
#include "depthwise.h"
#include "families.h"
#include "phase_axis.h"
#include "results.h"
#include "transpose.h"
#include "vector_math.h"

namespace fastdl::FASTDL_ISA {

namespace {

// Limits of the tables that a call makes for its tasks.
constexpr int64_t kMostPixels = 1024, kMostTaps = 64, kMostStride = 2;
// Bytes of a task's source and result, which go through them twice.
constexpr int64_t kMostBytes = 64 * 1024;
// Pixels of a row that are summed together, taps of the weight gradient.
constexpr int kPixels = 8, kTaps = 9;
// Products that a single-precision sum takes, in planes that have as many, before it goes into a
// double.
constexpr int64_t kLongestSum = 128;

// The first of some taps on neighbouring pixels of the source.
struct Tap {
  int64_t weight, source;  // elements
};

// Pixels of the result with the same taps, and where they and the source of their first tap stand.
struct Grid {
  int64_t rows, columns;
  int64_t source, source_row, source_column;  // elements
  int64_t target, target_row, target_column;
  const Tap* taps;
  int64_t tap_count, across, weight_step;  // of each tap, so many neighbours, elements apart
};

// Whether there is a kernel for so many neighbours.
constexpr bool summed_at_once(int64_t across) { return across == 2 || across == 3 || across == 5; }

// Where the pixels of a plane stand in the padded source: row y, column x at (y + top, x + left), in
// rows of `pitch`; those that nothing reads, behind it.
template <class T>
struct Source {
  int64_t height, width, pitch, elements;
  int32_t place[kMostPixels];

  void set(int64_t plane_h, int64_t plane_w, int64_t top, int64_t left, int64_t rows,
           int64_t columns) {
    constexpr int64_t lanes = kLanes<T>;
    height = plane_h, width = plane_w, pitch = columns * lanes;
    elements = (rows * columns + 1) * lanes;
    int32_t* to = place;
    for (int64_t y = top; y < top + plane_h; ++y)
      for (int64_t x = left; x < left + plane_w; ++x)
        *to++ = static_cast<int32_t>(
            y >= 0 && y < rows && x >= 0 && x < columns ? y * pitch + x * lanes : elements - lanes);
  }
};

// The last vector of a plane reaches back over the one before it.
template <class T>
FASTDL_INLINE int64_t next_vector(int64_t i, int64_t size) {
  return i + kLanes<T> < size ? min(i + kLanes<T>, size - kLanes<T>) : size;
}

// The two functions below for planes that are fewer, or smaller, than a vector.
template <class T>
__attribute__((noinline)) void turn_few_in(const T* planes, int64_t size, int64_t count,
                                           const int32_t* place, T* to) {
  for (int64_t lane = 0; lane < min(count, kLanes<T>); ++lane)
    for (int64_t i = 0; i < size; ++i)
      to[(place ? place[i] : i * kLanes<T>) + lane] = planes[lane * size + i];
}
template <class T>
__attribute__((noinline)) void turn_few_out(const T* from, int64_t size, int64_t count, T* planes) {
  for (int64_t lane = 0; lane < min(count, kLanes<T>); ++lane)
    for (int64_t i = 0; i < size; ++i) planes[lane * size + i] = from[i * kLanes<T> + lane];
}

// to[place[pixel] + lane] = planes[lane][pixel], in order where `place` is null, of the first `count`
// planes.
template <class T>
void turn_in(const T* planes, int64_t size, int64_t count, const int32_t* place, T* to) {
  constexpr int lanes = kLanes<T>;
  if (size < lanes || count < lanes) return turn_few_in(planes, size, count, place, to);
  for (int64_t i = 0; i < size; i = next_vector<T>(i, size)) {
    Vector<T> v[lanes];
    load_transposed(planes + i, size, v);
#pragma GCC unroll 16
    for (int l = 0; l < lanes; ++l) store(place ? to + place[i + l] : to + (i + l) * lanes, v[l]);
  }
}

// planes[lane][pixel] = from[pixel][lane] for the first `count` lanes.
template <class T>
void turn_out(const T* from, int64_t size, int64_t count, T* planes) {
  constexpr int lanes = kLanes<T>;
  if (size < lanes || count < lanes) return turn_few_out(from, size, count, planes);
  for (int64_t i = 0; i < size; i = next_vector<T>(i, size)) {
    Vector<T> v[lanes];
    load_transposed(from + i * lanes, lanes, v);
#pragma GCC unroll 16
    for (int l = 0; l < lanes; ++l) store(planes + l * size + i, v[l]);
  }
}

// `pixels` neighbours of each row of a grid. A vector of the source serves all pixels that read it.
template <class T, int step, int across, int pixels>
void sum_pixels(const Grid& grid, const T* weight, const T* source, Vector<T> bias, bool rectify,
                T* to) {
  constexpr int64_t lanes = kLanes<T>;
  const Tap* end = grid.taps + grid.tap_count;
  for (int64_t row = 0; row < grid.rows; ++row) {
    Vector<T> sum[pixels];
#pragma GCC unroll 8
    for (int i = 0; i < pixels; ++i) sum[i] = bias;
    for (const Tap* tap = grid.taps; tap < end; ++tap) {
      Vector<T> w[across];
#pragma GCC unroll 8
      for (int b = 0; b < across; ++b) w[b] = load(weight + tap->weight + b * grid.weight_step);
      const T* x = source + tap->source;
#pragma GCC unroll 24
      for (int e = 0; e < (pixels - 1) * step + across; ++e) {
        const Vector<T> value = load(x + e * lanes);
#pragma GCC unroll 8
        for (int b = 0; b < across; ++b)
          if (e >= b && (e - b) % step == 0 && (e - b) / step < pixels)
            sum[(e - b) / step] += w[b] * value;
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < pixels; ++i)
      store(to + i * grid.target_column, rectify ? relu<T>(sum[i]) : sum[i]);
    source += grid.source_row, to += grid.target_row;
  }
}

template <class T>
using SumPixels = void (*)(const Grid&, const T*, const T*, Vector<T>, bool, T*);

template <class T, int step, int across, int most = kPixels>
FASTDL_INLINE SumPixels<T> choose_pixels(int64_t pixels) {
  if constexpr (most > 1)
    if (pixels < most) return choose_pixels<T, step, across, most - 1>(pixels);
  return sum_pixels<T, step, across, most>;
}
template <class T, int step>
FASTDL_INLINE SumPixels<T> choose_sum(int64_t across, int64_t pixels) {
  switch (across) {
    case 2: return choose_pixels<T, step, 2>(pixels);
    case 3: return choose_pixels<T, step, 3>(pixels);
    case 5: return choose_pixels<T, step, 5>(pixels);
    default: return choose_pixels<T, step, 1>(pixels);
  }
}

// All pixels of a grid, a row in runs as even as can be.
template <class T>
void sum_grid(const Grid& grid, const T* weight, const T* source, Vector<T> bias, bool rectify,
              T* to) {
  const int64_t runs = ceil_div(grid.columns, kPixels);
  for (int64_t run = 0; run < runs; ++run) {
    const int64_t begin = grid.columns * run / runs, pixels = grid.columns * (run + 1) / runs - begin;
    (grid.source_column == kLanes<T> ? choose_sum<T, 1>(grid.across, pixels)
                                     : choose_sum<T, 2>(grid.across, pixels))(
        grid, weight, source + grid.source + begin * grid.source_column, bias, rectify,
        to + grid.target + begin * grid.target_column);
  }
}

// What every task of a call reads: the source's layout, the taps, the grids.
template <class T>
struct Sums {
  Source<T> source;
  int64_t pixels;  // of the result
  Grid grids[kMostStride * kMostStride];
  int grid_count = 0;
  Tap taps[kMostTaps];

  // out = conv(x), with kernels for neighbouring taps or each tap by itself.
  void set_forward(const ConvGeometry& g, bool neighbours = true) {
    constexpr int64_t lanes = kLanes<T>;
    const int64_t rows = (g.out_h - 1) * g.stride_h + (g.kernel_h - 1) * g.dilation_h + 1;
    const int64_t columns = (g.out_w - 1) * g.stride_w + (g.kernel_w - 1) * g.dilation_w + 1;
    source.set(g.height, g.width, g.pad_top, g.pad_left, rows, columns);
    pixels = g.out_h * g.out_w;
    const bool at_once = neighbours && g.dilation_w == 1 && summed_at_once(g.kernel_w);
    const int64_t across = at_once ? g.kernel_w : 1;
    Tap* tap = taps;
    for (int64_t a = 0; a < g.kernel_h; ++a)
      for (int64_t b = 0; b < g.kernel_w; b += across)
        *tap++ = {(a * g.kernel_w + b) * lanes,
                  a * g.dilation_h * source.pitch + b * g.dilation_w * lanes};
    grids[grid_count++] = {g.out_h, g.out_w, 0, g.stride_h * source.pitch, g.stride_w * lanes, 0,
                           g.out_w * lanes, lanes, taps, tap - taps, across, lanes};
  }

  // x's gradient from out's, a grid for each phase.
  void set_grad_input(const ConvGeometry& g) {
    constexpr int64_t lanes = kLanes<T>;
    const PhaseAxis down(g.height, g.pad_top, g.stride_h, g.dilation_h, g.kernel_h);
    const PhaseAxis across(g.width, g.pad_left, g.stride_w, g.dilation_w, g.kernel_w);
    source.set(g.out_h, g.out_w, down.pad, across.pad, down.count + down.reach,
               across.count + across.reach);
    pixels = g.height * g.width;
    Tap* tap = taps;
    for (int64_t phase_h = 0; phase_h < g.stride_h; ++phase_h)
      for (int64_t phase_w = 0; phase_w < g.stride_w; ++phase_w) {
        const Tap* first = tap;
        const int64_t columns_of_taps = across.taps_of(across.last(phase_w));
        const bool at_once = across.step == 1 && summed_at_once(columns_of_taps);
        const int64_t step = at_once ? columns_of_taps : 1;
        for (int64_t a = down.last(phase_h); a >= 0; a -= down.weight_step)
          for (int64_t b = across.last(phase_w); b >= 0; b -= step * across.weight_step)
            *tap++ = {(a * g.kernel_w + b) * lanes,
                      down.place(a) * source.pitch + across.place(b) * lanes};
        const auto [row, rows] = down.inside(phase_h);
        const auto [column, columns] = across.inside(phase_w);
        const int64_t y = (down.first + row) * g.stride_h + phase_h - g.pad_top;
        const int64_t x = (across.first + column) * g.stride_w + phase_w - g.pad_left;
        grids[grid_count++] = {rows, columns, row * source.pitch + column * lanes, source.pitch, lanes,
                               (y * g.width + x) * lanes, g.stride_h * g.width * lanes,
                               g.stride_w * lanes, first, tap - first, step,
                               -across.weight_step * lanes};
      }
  }
};

// Elements of a task: the source, the result, the weights.
template <class T>
struct Sizes {
  int64_t source, result, weights;
  int64_t all() const { return source + result + weights; }
};
template <class T>
Sizes<T> sizes_of(const Sums<T>& sums, const ConvGeometry& g) {
  constexpr int64_t lanes = kLanes<T>;
  return {sums.source.elements, sums.pixels * lanes, g.kernel_h * g.kernel_w * lanes};
}

template <class T>
struct ChannelBlocks {
  int64_t blocks, work;  // of an image; multiplications of a block

  explicit ChannelBlocks(const ConvGeometry& g)
      : blocks(ceil_div(g.channels, kLanes<T>)),
        work(g.kernel_h * g.kernel_w * g.out_h * g.out_w * kLanes<T>) {}
};

template <class T>
int run_sums(const Sums<T>& sums, const T* x, const T* weight, const T* bias, const ConvGeometry& g,
             Activation activation, T* out, int threads) {
  constexpr int64_t lanes = kLanes<T>;
  const ChannelBlocks<T> channel(g);
  const Sizes<T> sizes = sizes_of(sums, g);
  const int64_t taps = g.kernel_h * g.kernel_w, plane = sums.source.height * sums.source.width;
  int result = kDone;
  parallel_units(g.batch * channel.blocks, channel.work, threads, [&](int64_t begin, int64_t end) {
    const TaskMemory<T> memory(0, sizes.all());
    if (!memory) return note(&result, kNoMemory);
    T *source = memory.elements, *to = source + sizes.source, *weights = to + sizes.result;
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t image = unit / channel.blocks, c = unit % channel.blocks * lanes;
      const int64_t count = min(lanes, g.channels - c), first = image * g.channels + c;
      turn_in<T>(weight + c * taps, taps, count, nullptr, weights);
      turn_in<T>(x + first * plane, plane, count, sums.source.place, source);
      const Vector<T> start = bias ? load_some(bias + c, count, T(0)) : Vector<T>{};
      for (int i = 0; i < sums.grid_count; ++i)
        sum_grid<T>(sums.grids[i], weights, source, start, activation == kRelu, to);
      if (activation == kSigmoid || activation == kTanh)
        activate(kDtype<T>, activation, to, sums.pixels * lanes, to, 1);
      turn_out<T>(to, sums.pixels, count, out + first * sums.pixels);
    }
  });
  return result;
}

// sums[t] += grad[i, j] * source[place of tap t + (i, j)] for `taps` taps.
template <class T, int step, int taps>
void multiply_taps(const Grid& grid, const Tap* tap, const T* grad, const T* source, T* sums) {
  constexpr int64_t lanes = kLanes<T>;
  Vector<T> sum[taps];
  int64_t offset[taps];
#pragma GCC unroll 9
  for (int t = 0; t < taps; ++t) sum[t] = load(sums + t * lanes), offset[t] = tap[t].source;
  for (int64_t row = 0; row < grid.rows; ++row, source += grid.source_row) {
    const T* x = source;
    for (int64_t j = 0; j < grid.columns; ++j, grad += lanes, x += step * lanes) {
      const Vector<T> g = load(grad);
#pragma GCC unroll 9
      for (int t = 0; t < taps; ++t) sum[t] += g * load(x + offset[t]);
    }
  }
#pragma GCC unroll 9
  for (int t = 0; t < taps; ++t) store(sums + t * lanes, sum[t]);
}

template <class T>
using MultiplyTaps = void (*)(const Grid&, const Tap*, const T*, const T*, T*);

template <class T, int step, int most = kTaps>
FASTDL_INLINE MultiplyTaps<T> choose_multiply(int64_t taps) {
  if constexpr (most > 1)
    if (taps < most) return choose_multiply<T, step, most - 1>(taps);
  return multiply_taps<T, step, most>;
}

// The sums of all taps of a grid, each by itself, into totals in double precision every few rows.
template <class T>
void multiply_grid(const Grid& grid, const T* grad, const T* source, T* sums, double* totals) {
  constexpr int64_t lanes = kLanes<T>;
  const int64_t runs = ceil_div(grid.tap_count, kTaps);
  const int64_t parts = ceil_div(grid.rows * grid.columns, kLongestSum);
  Grid rows = grid;
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t first = grid.rows * part / parts;
    rows.rows = grid.rows * (part + 1) / parts - first;
    for (int64_t run = 0; run < runs; ++run) {
      const int64_t begin = grid.tap_count * run / runs;
      const int64_t taps = grid.tap_count * (run + 1) / runs - begin;
      (grid.source_column == lanes ? choose_multiply<T, 1>(taps) : choose_multiply<T, 2>(taps))(
          rows, grid.taps + begin, grad + first * grid.columns * lanes,
          source + first * grid.source_row, sums + begin * lanes);
    }
    for (int64_t i = 0; i < grid.tap_count * lanes; i += lanes) {
      add_to<T>(totals + i, load(sums + i));
      store(sums + i, Vector<T>{});
    }
  }
}

}  // namespace

template <class T>
bool lanes_serve(const ConvGeometry& g) {
  const int64_t rows = max(g.height, g.out_h), columns = max(g.width, g.out_w);
  const int64_t halo_h = (g.kernel_h - 1) * g.dilation_h, halo_w = (g.kernel_w - 1) * g.dilation_w;
  return g.filters == g.channels && 2 * g.channels > kLanes<T> && g.stride_h <= kMostStride &&
         g.stride_w <= kMostStride && g.kernel_h * g.kernel_w <= kMostTaps &&
         rows * columns <= kMostPixels &&
         ((rows + halo_h) * (columns + halo_w) + rows * columns) * kLanes<T> *
                 static_cast<int64_t>(sizeof(T)) <=
             kMostBytes;
}

template <class T>
int64_t lanes_workspace_bytes(const ConvGeometry& g, int threads) {
  Sums<T> sums;
  sums.set_forward(g);
  return sizes_of(sums, g).all() * static_cast<int64_t>(sizeof(T)) *
         min(threads, g.batch * ChannelBlocks<T>(g).blocks);
}

template <class T>
int lanes_forward(const T* x, const T* weight, const T* bias, const ConvGeometry& g,
                  Activation activation, T* out, int threads) {
  Sums<T> sums;
  sums.set_forward(g);
  return run_sums(sums, x, weight, bias, g, activation, out, threads);
}

template <class T>
int lanes_grad_input(const T* grad, const T* weight, const ConvGeometry& g, T* out, int threads) {
  Sums<T> sums;
  sums.set_grad_input(g);
  return run_sums<T>(sums, grad, weight, nullptr, g, kIdentity, out, threads);
}

template <class T>
int lanes_grad_weight(const T* grad, const T* x, const ConvGeometry& g, T* out, int threads) {
  constexpr int64_t lanes = kLanes<T>;
  Sums<T> sums;
  sums.set_forward(g, false);
  const ChannelBlocks<T> channel(g);
  const Sizes<T> sizes = sizes_of(sums, g);
  const int64_t taps = g.kernel_h * g.kernel_w, plane = g.height * g.width, pixels = sums.pixels;
  const int64_t doubles = taps * lanes * int64_t{sizeof(double) / sizeof(T)};
  int result = kDone;
  // A task owns its channels' weights, so that the order of the sum is always the same.
  parallel_units(channel.blocks, channel.work * g.batch, threads, [&](int64_t begin, int64_t end) {
    const TaskMemory<T> memory(0, sizes.all() + doubles);
    if (!memory) return note(&result, kNoMemory);
    double* totals = reinterpret_cast<double*>(memory.elements);
    T *source = memory.elements + doubles, *gradient = source + sizes.source;
    T* tap_sums = gradient + sizes.result;
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t c = unit * lanes, count = min(lanes, g.channels - c);
      for (int64_t image = 0; image < g.batch; ++image) {
        const int64_t first = image * g.channels + c;
        turn_in<T>(x + first * plane, plane, count, sums.source.place, source);
        turn_in<T>(grad + first * pixels, pixels, count, nullptr, gradient);
        multiply_grid<T>(sums.grids[0], gradient, source, tap_sums, totals);
      }
      for (int64_t lane = 0; lane < count; ++lane)
        for (int64_t tap = 0; tap < taps; ++tap)
          out[(c + lane) * taps + tap] = static_cast<T>(totals[tap * lanes + lane]);
      for (int64_t i = 0; i < taps * lanes; ++i) totals[i] = 0;
    }
  });
  return result;
}

#define FASTDL_LANES(T)                                                                          \
  template bool lanes_serve<T>(const ConvGeometry&);                                             \
  template int64_t lanes_workspace_bytes<T>(const ConvGeometry&, int);                           \
  template int lanes_forward(const T*, const T*, const T*, const ConvGeometry&, Activation, T*,  \
                             int);                                                               \
  template int lanes_grad_input(const T*, const T*, const ConvGeometry&, T*, int);               \
  template int lanes_grad_weight(const T*, const T*, const ConvGeometry&, T*, int);
FASTDL_LANES(float)
FASTDL_LANES(double)
#undef FASTDL_LANES

}  // namespace fastdl::FASTDL_ISA
