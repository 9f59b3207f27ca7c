// Depthwise convolution in lanes of channels: a vector is one pixel of kLanes neighbouring channels.
//
//   some rows of their planes   --turned over-->   source[row][column][lane], padded with zeros
//   result[pixel][lane] = bias + sum over the taps of weight[tap][lane] * source[pixel + tap][lane]
//   result   --turned over-->   the same rows of the result's planes
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
constexpr int64_t kMostPixels = 2048, kMostTaps = 64, kMostStride = 2;
// Bytes of a strip's source and result together: from the second-level cache they come in time.
constexpr int64_t kMostBytes = 64 * 1024;
// Pixels of a plane up to which this is the faster way for every pass, as measured. The gradient of a
// strided convolution has its pixels in phases, which here cost nothing: it always comes this way.
constexpr int64_t kSmallPlane = 1024;
// Pixels of a row that are summed together, taps of the weight gradient.
constexpr int kPixels = 8, kTaps = 9;
// Products that a single-precision sum takes, in planes that have as many, before it goes into a
// double.
constexpr int64_t kLongestSum = 128;

// The first of some taps on neighbouring pixels of the source.
struct Tap {
  int64_t weight, source;  // elements
};

// Pixels of a strip's result with the same taps, and where they and the source of their first tap
// stand.
struct Grid {
  int64_t rows, columns;
  int64_t source, source_row, source_column;  // elements
  int64_t target, target_row, target_column;
  const Tap* taps;
  int64_t tap_count, across, weight_step;  // of each tap, so many neighbours, elements apart
};

// Whether there is a kernel for so many neighbours.
constexpr bool summed_at_once(int64_t across) { return across == 2 || across == 3 || across == 5; }

// The last vector of a run of elements reaches back over the one before it.
template <class T>
FASTDL_INLINE int64_t next_vector(int64_t i, int64_t size) {
  return i + kLanes<T> < size ? min(i + kLanes<T>, size - kLanes<T>) : size;
}

// to[place[i] + lane] = from[lane][i], in order where `place` is null, for `size` elements of the
// first `count` planes, which lie `pitch` apart.
template <class T>
void turn_in(const T* from, int64_t pitch, int64_t size, int64_t count, const int32_t* place, T* to) {
  constexpr int lanes = kLanes<T>;
  if (size < lanes || count < lanes) {
    for (int64_t lane = 0; lane < min(count, lanes); ++lane)
      for (int64_t i = 0; i < size; ++i)
        to[(place ? place[i] : i * lanes) + lane] = from[lane * pitch + i];
    return;
  }
  for (int64_t i = 0; i < size; i = next_vector<T>(i, size)) {
    Vector<T> v[lanes];
    load_transposed(from + i, pitch, v);
#pragma GCC unroll 16
    for (int l = 0; l < lanes; ++l) store(place ? to + place[i + l] : to + (i + l) * lanes, v[l]);
  }
}

// to[lane][i] = from[i][lane], likewise.
template <class T>
void turn_out(const T* from, int64_t size, int64_t count, T* to, int64_t pitch) {
  constexpr int lanes = kLanes<T>;
  if (size < lanes || count < lanes) {
    for (int64_t lane = 0; lane < min(count, lanes); ++lane)
      for (int64_t i = 0; i < size; ++i) to[lane * pitch + i] = from[i * lanes + lane];
    return;
  }
  for (int64_t i = 0; i < size; i = next_vector<T>(i, size)) {
    Vector<T> v[lanes];
    load_transposed(from + i * lanes, lanes, v);
#pragma GCC unroll 16
    for (int l = 0; l < lanes; ++l) store(to + l * pitch + i, v[l]);
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

// One phase of a result's pixels: row q of its grid is row q * step + first of the result's plane.
struct Phase {
  Grid grid;  // from the first row of a strip on
  int64_t first, begin, end;  // q of the rows that are in the plane
};

// Whether these kernels are made for g: most lanes have a channel, the tables suffice.
template <class T>
bool serves(const ConvGeometry& g) {
  return g.filters == g.channels && 2 * g.channels > kLanes<T> && g.stride_h <= kMostStride &&
         g.stride_w <= kMostStride && g.kernel_h * g.kernel_w <= kMostTaps;
}

// What every task of a call reads: how the planes lie in strips, the taps, the phases.
template <class T>
struct Sums {
  int64_t height, width, top;  // of the source's plane; zeros above it
  int64_t pitch, halo, source_step;  // elements of a source row; rows for a strip of none; for each q
  int64_t out_height, out_width, step, first;  // of the result's plane; rows for each q; of q = 0
  int64_t count;         // how many q
  int64_t rows, strips;  // q of a strip
  Phase phases[kMostStride * kMostStride];
  int phase_count = 0;
  Tap taps[kMostTaps];
  // Where element i of a strip's source rows goes. Columns that nothing reads go behind the row.
  int32_t place[kMostPixels];

  int64_t source_rows() const { return rows * source_step + halo; }
  int64_t source_elements() const { return source_rows() * pitch; }
  int64_t result_elements() const { return rows * step * out_width * kLanes<T>; }

  // out = conv(x), by kernels for neighbouring taps or each tap by itself. These two are false for
  // what is not served.
  bool set_forward(const ConvGeometry& g, bool neighbours = true) {
    if (!serves<T>(g) || g.height * g.width > kSmallPlane) return false;
    constexpr int64_t lanes = kLanes<T>;
    height = g.height, width = g.width, top = g.pad_top;
    halo = max(0, (g.kernel_h - 1) * g.dilation_h + 1 - g.stride_h), source_step = g.stride_h;
    out_height = count = g.out_h, out_width = g.out_w, step = 1, first = 0;
    if (!set_strips(g.pad_left, (g.out_w - 1) * g.stride_w + (g.kernel_w - 1) * g.dilation_w + 1))
      return false;
    const bool at_once = neighbours && g.dilation_w == 1 && summed_at_once(g.kernel_w);
    const int64_t across = at_once ? g.kernel_w : 1;
    Tap* tap = taps;
    for (int64_t a = 0; a < g.kernel_h; ++a)
      for (int64_t b = 0; b < g.kernel_w; b += across)
        *tap++ = {(a * g.kernel_w + b) * lanes, a * g.dilation_h * pitch + b * g.dilation_w * lanes};
    phases[phase_count++] = {{0, g.out_w, 0, g.stride_h * pitch, g.stride_w * lanes, 0,
                              g.out_w * lanes, lanes, taps, tap - taps, across, lanes},
                             0, 0, count};
    return true;
  }

  // x's gradient from out's, of the taps that meet each phase.
  bool set_grad_input(const ConvGeometry& g) {
    const bool strided = g.stride_h * g.stride_w > 1;
    if (!serves<T>(g) || (!strided && g.height * g.width > kSmallPlane)) return false;
    constexpr int64_t lanes = kLanes<T>;
    const PhaseAxis down(g.height, g.pad_top, g.stride_h, g.dilation_h, g.kernel_h);
    const PhaseAxis across(g.width, g.pad_left, g.stride_w, g.dilation_w, g.kernel_w);
    height = g.out_h, width = g.out_w, top = down.pad;
    halo = down.reach, source_step = 1;
    out_height = g.height, out_width = g.width, step = g.stride_h;
    first = down.first * g.stride_h - g.pad_top, count = down.count;
    if (!set_strips(across.pad, across.count + across.reach)) return false;
    Tap* tap = taps;
    for (int64_t phase_h = 0; phase_h < g.stride_h; ++phase_h)
      for (int64_t phase_w = 0; phase_w < g.stride_w; ++phase_w) {
        const Tap* begin = tap;
        const int64_t columns_of_taps = across.taps_of(across.last(phase_w));
        const bool at_once = across.step == 1 && summed_at_once(columns_of_taps);
        const int64_t next = at_once ? columns_of_taps : 1;
        for (int64_t a = down.last(phase_h); a >= 0; a -= down.weight_step)
          for (int64_t b = across.last(phase_w); b >= 0; b -= next * across.weight_step)
            *tap++ = {(a * g.kernel_w + b) * lanes, down.place(a) * pitch + across.place(b) * lanes};
        const auto [row, rows_inside] = down.inside(phase_h);
        const auto [column, columns] = across.inside(phase_w);
        const int64_t x = (across.first + column) * g.stride_w + phase_w - g.pad_left;
        phases[phase_count++] = {{0, columns, column * lanes, pitch, lanes, x * lanes,
                                  g.stride_h * g.width * lanes, g.stride_w * lanes, begin, tap - begin,
                                  next, -across.weight_step * lanes},
                                 first + phase_h, row, row + rows_inside};
      }
    return true;
  }

  // Strips of as many rows as fit, of a plane whose padded rows have `columns` columns, `left` of them
  // before the plane's. False if not one row fits.
  bool set_strips(int64_t left, int64_t columns) {
    constexpr int64_t lanes = kLanes<T>, size = sizeof(T);
    pitch = (columns + 1) * lanes;
    rows = (kMostBytes - halo * pitch * size) / (source_step * pitch + step * out_width * lanes) / size;
    rows = min(rows, (kMostPixels / width - halo) / source_step);
    if (rows < 1) return false;
    strips = ceil_div(count, rows);
    rows = ceil_div(count, strips);
    strips = ceil_div(count, rows);
    int32_t* to = place;
    for (int64_t y = 0; y < min(height, source_rows()); ++y)
      for (int64_t x = left; x < left + width; ++x)
        *to++ = static_cast<int32_t>(y * pitch + (x >= 0 && x < columns ? x : columns) * lanes);
    return true;
  }
};

// A strip: its rows of the source's planes and of the result's.
template <class T>
struct Strip {
  const Sums<T>& sums;
  int64_t begin, end;          // q
  int64_t source_row;          // the plane's row that is the first of the source, perhaps above it
  int64_t from, until;         // rows of the source's plane that are in it
  int64_t out_from, out_until; // rows of the result's plane

  Strip(const Sums<T>& sums, int64_t index)
      : sums(sums), begin(index * sums.rows), end(min(sums.count, begin + sums.rows)),
        source_row(begin * sums.source_step - sums.top),
        from(max(0, min(sums.height, source_row))),
        until(max(from, min(sums.height, source_row + (end - begin) * sums.source_step + sums.halo))),
        out_from(max(0, begin * sums.step + sums.first)),
        out_until(min(sums.out_height, end * sums.step + sums.first)) {}

  int64_t result_size() const { return (out_until - out_from) * sums.out_width; }

  // The rows of `count` planes to the source. A buffer holds zeros, or another strip of the call.
  void fill(const T* planes, int64_t count, T* source) const {
    const int64_t above = (from - source_row) * sums.pitch, all = sums.source_elements();
    const int64_t below = (until - source_row) * sums.pitch;
    for (int64_t i = 0; i < min(all, above); i += kLanes<T>) store(source + i, Vector<T>{});
    for (int64_t i = max(0, below); i < all; i += kLanes<T>) store(source + i, Vector<T>{});
    turn_in<T>(planes + from * sums.width, sums.height * sums.width, (until - from) * sums.width, count,
               sums.place, source + above);
  }

  Grid grid(const Phase& phase) const {
    const int64_t first = max(begin, phase.begin), last = max(first, min(end, phase.end));
    Grid grid = phase.grid;
    grid.rows = last - first;
    grid.source += (first - begin) * grid.source_row;
    grid.target += (first * sums.step + phase.first - out_from) * sums.out_width * kLanes<T>;
    return grid;
  }
};

// Elements of a task: the source, the result, the weights.
template <class T>
struct Sizes {
  int64_t source, result, weights;

  Sizes(const Sums<T>& sums, const ConvGeometry& g)
      : source(sums.source_elements()), result(sums.result_elements()),
        weights(g.kernel_h * g.kernel_w * kLanes<T>) {}
  int64_t all() const { return source + result + weights; }
};

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
  const Sizes<T> sizes(sums, g);
  const int64_t taps = g.kernel_h * g.kernel_w, units = g.batch * channel.blocks * sums.strips;
  const int64_t plane = sums.height * sums.width, out_plane = sums.out_height * sums.out_width;
  int result = kDone;
  parallel_units(units, max(1, channel.work / sums.strips), threads, [&](int64_t unit, int64_t last) {
    const TaskMemory<T> memory(0, sizes.all());
    if (!memory) return note(&result, kNoMemory);
    T *source = memory.elements, *to = source + sizes.source, *weights = to + sizes.result;
    for (; unit < last; ++unit) {
      const int64_t block = unit / sums.strips, c = block % channel.blocks * lanes;
      const int64_t count = min(lanes, g.channels - c);
      const int64_t first = block / channel.blocks * g.channels + c;
      const Strip<T> strip(sums, unit % sums.strips);
      turn_in<T>(weight + c * taps, taps, taps, count, nullptr, weights);
      strip.fill(x + first * plane, count, source);
      const Vector<T> start = bias ? load_some(bias + c, count, T(0)) : Vector<T>{};
      for (int i = 0; i < sums.phase_count; ++i)
        sum_grid<T>(strip.grid(sums.phases[i]), weights, source, start, activation == kRelu, to);
      if (activation == kSigmoid || activation == kTanh)
        activate(kDtype<T>, activation, to, strip.result_size() * lanes, to, 1);
      turn_out<T>(to, strip.result_size(), count,
                  out + first * out_plane + strip.out_from * sums.out_width, out_plane);
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
int64_t lanes_workspace_bytes(const ConvGeometry& g, int threads) {
  Sums<T> sums;
  if (!sums.set_forward(g)) return 0;
  return Sizes<T>(sums, g).all() * static_cast<int64_t>(sizeof(T)) *
         min(threads, g.batch * ChannelBlocks<T>(g).blocks * sums.strips);
}

template <class T>
int lanes_forward(const T* x, const T* weight, const T* bias, const ConvGeometry& g,
                  Activation activation, T* out, int threads) {
  Sums<T> sums;
  if (!sums.set_forward(g)) return kNotServed;
  return run_sums(sums, x, weight, bias, g, activation, out, threads);
}

template <class T>
int lanes_grad_input(const T* grad, const T* weight, const ConvGeometry& g, T* out, int threads) {
  Sums<T> sums;
  if (!sums.set_grad_input(g)) return kNotServed;
  return run_sums<T>(sums, grad, weight, nullptr, g, kIdentity, out, threads);
}

template <class T>
int lanes_grad_weight(const T* grad, const T* x, const ConvGeometry& g, T* out, int threads) {
  constexpr int64_t lanes = kLanes<T>;
  Sums<T> sums;
  if (!sums.set_forward(g, false)) return kNotServed;
  const ChannelBlocks<T> channel(g);
  const Sizes<T> sizes(sums, g);
  const int64_t taps = g.kernel_h * g.kernel_w;
  const int64_t plane = g.height * g.width, out_plane = g.out_h * g.out_w;
  const int64_t doubles = taps * lanes * int64_t{sizeof(double) / sizeof(T)};
  int result = kDone;
  // A task owns its channels' weights, so that the order of the sum is always the same.
  parallel_units(channel.blocks, channel.work * g.batch, threads, [&](int64_t begin, int64_t end) {
    const TaskMemory<T> memory(0, doubles + sizes.all());
    if (!memory) return note(&result, kNoMemory);
    double* totals = reinterpret_cast<double*>(memory.elements);
    T *source = memory.elements + doubles, *gradient = source + sizes.source;
    T* tap_sums = gradient + sizes.result;
    for (int64_t block = begin; block < end; ++block) {
      const int64_t c = block * lanes, count = min(lanes, g.channels - c);
      for (int64_t unit = 0; unit < g.batch * sums.strips; ++unit) {
        const int64_t first = unit / sums.strips * g.channels + c;
        const Strip<T> strip(sums, unit % sums.strips);
        strip.fill(x + first * plane, count, source);
        turn_in<T>(grad + first * out_plane + strip.out_from * g.out_w, out_plane, strip.result_size(),
                   count, nullptr, gradient);
        multiply_grid<T>(strip.grid(sums.phases[0]), gradient, source, tap_sums, totals);
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
  template int64_t lanes_workspace_bytes<T>(const ConvGeometry&, int);                           \
  template int lanes_forward(const T*, const T*, const T*, const ConvGeometry&, Activation, T*,  \
                             int);                                                               \
  template int lanes_grad_input(const T*, const T*, const ConvGeometry&, T*, int);               \
  template int lanes_grad_weight(const T*, const T*, const ConvGeometry&, T*, int);
FASTDL_LANES(float)
FASTDL_LANES(double)
#undef FASTDL_LANES

}  // namespace fastdl::FASTDL_ISA
