// Depthwise convolution: every channel with its own M = O/C filters.
//
//   out[n, c*M + m, i, j] = sum_{a,b} x[n, c, i*s - p + a*d, j*s - p + b*d] * weight[c*M + m, a, b]
//
// A strip of rows of one channel is copied into a small buffer that holds its padding as zeros and
// its columns sorted by phase (column modulo stride), so that every tap reads, and its gradient
// writes, a row of neighbouring elements:
//
//   column of the padded input: q = j*s + b*d     buffer: [row][q mod s][q div s]
//
#include "depthwise.h"

#include <cstring>

#include "families.h"
#include "parallel.h"
#include "vector_math.h"

namespace fastdl::FASTDL_ISA {

namespace {

// Vectors of an output row that are summed side by side.
constexpr int kBlock = 4;
// What a strip's buffer should not exceed: it shares the second-level cache with its output.
constexpr int64_t kStripBytes = 128 * 1024;

// The buffer of a strip of `rows` rows of the padded input.
template <class T>
struct Strip {
  int64_t columns;  // of the padded input that some tap reads
  int64_t phase;    // elements of one phase, with slack for whole vectors
  int64_t row;      // elements of a row: all phases

  explicit Strip(const ConvGeometry& g)
      : columns((g.out_w - 1) * g.stride_w + (g.kernel_w - 1) * g.dilation_w + 1),
        phase(ceil_div(columns, g.stride_w) + kBlock * kLanes<T>),
        row(phase * g.stride_w) {}

  // Where tap (0, b) starts in a row.
  int64_t tap(const ConvGeometry& g, int64_t b) const {
    return b * g.dilation_w % g.stride_w * phase + b * g.dilation_w / g.stride_w;
  }

  // Rows of which the buffer takes about kStripBytes, at least `least`.
  int64_t rows(int64_t least) const {
    return max(least, kStripBytes / (row * static_cast<int64_t>(sizeof(T))));
  }
};

// Row `y` of the plane, zero where it lies outside, sorted by phase.
template <class T>
void spread_row(const ConvGeometry& g, const Strip<T>& strip, const T* plane, int64_t y, T* to) {
  memset(to, 0, static_cast<size_t>(strip.row) * sizeof(T));
  if (y < 0 || y >= g.height) return;
  const T* from = plane + y * g.width;
  for (int64_t phase = 0; phase < g.stride_w; ++phase) {
    // Positions i whose column i*s + phase - pad lies in [0, width) and is read.
    int64_t begin = max(0, ceil_div(g.pad_left - phase, g.stride_w));
    int64_t end = ceil_div(min(g.width + g.pad_left, strip.columns) - phase, g.stride_w);
    T* row = to + phase * strip.phase;
    const T* source = from + phase - g.pad_left;
    if (g.stride_w == 1 && end > begin)
      memcpy(row + begin, source + begin, static_cast<size_t>(end - begin) * sizeof(T));
    else
      for (int64_t i = begin; i < end; ++i) row[i] = source[i * g.stride_w];
  }
}

// The reverse: a row of the buffer back into row `y` of the plane, zero where nothing was read.
template <class T>
void collect_row(const ConvGeometry& g, const Strip<T>& strip, const T* from, T* to) {
  int64_t phase = g.pad_left % g.stride_w, position = g.pad_left / g.stride_w;
  int64_t covered = max(0, min(g.width, strip.columns - g.pad_left));
  if (g.stride_w == 1) {
    memcpy(to, from + position, static_cast<size_t>(covered) * sizeof(T));
  } else {
    for (int64_t column = 0; column < covered; ++column) {
      to[column] = from[phase * strip.phase + position];
      if (++phase == g.stride_w) phase = 0, ++position;
    }
  }
  memset(to + covered, 0, static_cast<size_t>(g.width - covered) * sizeof(T));
}

// `vectors` vectors of an output row: the sum over all taps.
template <class T, int vectors>
void sum_taps(const ConvGeometry& g, const Strip<T>& strip, const T* buffer, const T* weight,
              const int64_t* taps, Vector<T>* out) {
  Vector<T> sum[vectors] = {};
  for (int64_t a = 0; a < g.kernel_h; ++a) {
    const T* row = buffer + a * g.dilation_h * strip.row;
    for (int64_t b = 0; b < g.kernel_w; ++b) {
      Vector<T> w = splat(weight[a * g.kernel_w + b]);
      for (int v = 0; v < vectors; ++v) sum[v] += w * load(row + taps[b] + v * kLanes<T>);
    }
  }
  for (int v = 0; v < vectors; ++v) out[v] = sum[v];
}

template <class T>
void forward_row(const ConvGeometry& g, const Strip<T>& strip, const T* buffer, const T* weight,
                 T bias, bool rectify, const int64_t* taps, T* out) {
  constexpr int64_t block = kBlock * kLanes<T>;
  for (int64_t j = 0; j < g.out_w; j += block) {
    Vector<T> sum[kBlock] = {};
    int64_t left = g.out_w - j;
    if (left > 3 * kLanes<T>) sum_taps<T, 4>(g, strip, buffer + j, weight, taps, sum);
    else if (left > 2 * kLanes<T>) sum_taps<T, 3>(g, strip, buffer + j, weight, taps, sum);
    else if (left > kLanes<T>) sum_taps<T, 2>(g, strip, buffer + j, weight, taps, sum);
    else sum_taps<T, 1>(g, strip, buffer + j, weight, taps, sum);
    for (int v = 0; v < kBlock && v * kLanes<T> < left; ++v) {
      Vector<T> value = sum[v] + splat(bias);
      if (rectify) value = relu<T>(value);
      if (left - v * kLanes<T> >= kLanes<T>)
        store(out + j + v * kLanes<T>, value);
      else
        memcpy(out + j + v * kLanes<T>, &value,
               static_cast<size_t>(left - v * kLanes<T>) * sizeof(T));
    }
  }
}

template <class T>
void add_scaled(T scale, const T* from, int64_t length, T* to) {
  int64_t i = 0;
  Vector<T> factor = splat(scale);
  for (; i + kLanes<T> <= length; i += kLanes<T>)
    store(to + i, load(to + i) + factor * load(from + i));
  for (; i < length; ++i) to[i] += scale * from[i];
}

// Output rows of a strip, and rows of the padded input that they read.
int64_t rows_read(const ConvGeometry& g, int64_t out_rows) {
  return (out_rows - 1) * g.stride_h + (g.kernel_h - 1) * g.dilation_h + 1;
}

template <class T>
int64_t strip_out_rows(const ConvGeometry& g, const Strip<T>& strip) {
  int64_t most = (strip.rows(rows_read(g, 1)) - rows_read(g, 1)) / g.stride_h + 1;
  return min(g.out_h, most);
}

template <class T>
void fill_strip(const ConvGeometry& g, const Strip<T>& strip, const T* plane, int64_t first_out_row,
                int64_t out_rows, T* buffer) {
  for (int64_t r = 0; r < rows_read(g, out_rows); ++r)
    spread_row(g, strip, plane, first_out_row * g.stride_h - g.pad_top + r,
               buffer + r * strip.row);
}

// Memory of a task: the taps' offsets, then `doubles` doubles, then the buffer.
template <class T>
struct TaskMemory {
  int64_t* taps;
  double* totals;
  T* buffer;
};

template <class T>
bool lay_out(const ConvGeometry& g, const Strip<T>& strip, int64_t doubles, int64_t rows,
             TaskMemory<T>& memory) {
  int64_t head = (g.kernel_w + doubles) * 8;
  char* base = static_cast<char*>(workspace(head + rows * strip.row * static_cast<int64_t>(sizeof(T))));
  if (!base) return false;
  memory.taps = reinterpret_cast<int64_t*>(base);
  memory.totals = reinterpret_cast<double*>(base + g.kernel_w * 8);
  memory.buffer = reinterpret_cast<T*>(base + head);
  for (int64_t b = 0; b < g.kernel_w; ++b) memory.taps[b] = strip.tap(g, b);
  return true;
}

void note_failure(bool* failed) { __atomic_store_n(failed, true, __ATOMIC_RELAXED); }

}  // namespace

template <class T>
int depthwise(const T* x, const T* weight, const T* bias, const ConvGeometry& g,
              Activation activation, T* out, int threads) {
  Strip<T> strip(g);
  int64_t rows = strip_out_rows(g, strip), strips = ceil_div(g.out_h, rows);
  int64_t taps = g.kernel_h * g.kernel_w, per_channel = g.filters / g.groups;
  bool failed = false;
  parallel_for(g.batch * g.channels * strips, threads, [&](int64_t task) {
    int64_t plane = task / strips, channel = plane % g.channels, image = plane / g.channels;
    int64_t first = task % strips * rows, count = min(rows, g.out_h - first);
    TaskMemory<T> memory;
    if (!lay_out(g, strip, 0, rows_read(g, rows), memory)) return note_failure(&failed);
    fill_strip(g, strip, x + plane * g.height * g.width, first, count, memory.buffer);
    for (int64_t filter = channel * per_channel; filter < (channel + 1) * per_channel; ++filter) {
      T* to = out + ((image * g.filters + filter) * g.out_h + first) * g.out_w;
      for (int64_t i = 0; i < count; ++i)
        forward_row(g, strip, memory.buffer + i * g.stride_h * strip.row, weight + filter * taps,
                    bias ? bias[filter] : T(0), activation == kRelu, memory.taps,
                    to + i * g.out_w);
      if (activation == kSigmoid || activation == kTanh)
        activate(kDtype<T>, activation, to, count * g.out_w, to, 1);
    }
  });
  return failed;
}

template <class T>
int64_t depthwise_workspace_bytes(const ConvGeometry& g, int threads) {
  Strip<T> strip(g);
  int64_t rows = strip_out_rows(g, strip);
  int64_t bytes = g.kernel_w * 8 + rows_read(g, rows) * strip.row * static_cast<int64_t>(sizeof(T));
  return bytes * min(threads, g.batch * g.channels * ceil_div(g.out_h, rows));
}

template <class T>
int depthwise_grad_input(const T* grad, const T* weight, const ConvGeometry& g, T* out,
                         int threads) {
  Strip<T> strip(g);
  int64_t rows = min(g.height, strip.rows(1)), strips = ceil_div(g.height, rows);
  int64_t taps = g.kernel_h * g.kernel_w, per_channel = g.filters / g.groups;
  bool failed = false;
  parallel_for(g.batch * g.channels * strips, threads, [&](int64_t task) {
    int64_t plane = task / strips, channel = plane % g.channels, image = plane / g.channels;
    int64_t first = task % strips * rows, count = min(rows, g.height - first);
    TaskMemory<T> memory;
    if (!lay_out(g, strip, 0, rows, memory)) return note_failure(&failed);
    memset(memory.buffer, 0, static_cast<size_t>(count * strip.row) * sizeof(T));
    for (int64_t filter = channel * per_channel; filter < (channel + 1) * per_channel; ++filter)
      for (int64_t a = 0; a < g.kernel_h; ++a) {
        // Output rows i whose tap row a reads a row of this strip: first <= i*s + shift < end.
        int64_t shift = a * g.dilation_h - g.pad_top;
        int64_t begin = max(0, ceil_div(first - shift, g.stride_h));
        int64_t end = min(g.out_h, ceil_div(first + count - shift, g.stride_h));
        for (int64_t i = begin; i < end; ++i) {
          const T* from = grad + ((image * g.filters + filter) * g.out_h + i) * g.out_w;
          T* row = memory.buffer + (i * g.stride_h + shift - first) * strip.row;
          for (int64_t b = 0; b < g.kernel_w; ++b)
            add_scaled(weight[filter * taps + a * g.kernel_w + b], from, g.out_w,
                       row + memory.taps[b]);
        }
      }
    for (int64_t r = 0; r < count; ++r)
      collect_row(g, strip, memory.buffer + r * strip.row,
                  out + (plane * g.height + first + r) * g.width);
  });
  return failed;
}

template <class T>
int depthwise_grad_weight(const T* grad, const T* x, const ConvGeometry& g, T* out, int threads) {
  Strip<T> strip(g);
  int64_t rows = strip_out_rows(g, strip);
  int64_t taps = g.kernel_h * g.kernel_w, per_channel = g.filters / g.groups;
  bool failed = false;
  // A task owns a channel's weights, so that the order of the sum is always the same.
  parallel_for(g.channels, threads, [&](int64_t channel) {
    TaskMemory<T> memory;
    if (!lay_out(g, strip, per_channel * taps, rows_read(g, rows), memory))
      return note_failure(&failed);
    for (int64_t w = 0; w < per_channel * taps; ++w) memory.totals[w] = 0;
    for (int64_t image = 0; image < g.batch; ++image)
      for (int64_t first = 0; first < g.out_h; first += rows) {
        int64_t count = min(rows, g.out_h - first);
        fill_strip(g, strip, x + (image * g.channels + channel) * g.height * g.width, first, count,
                   memory.buffer);
        for (int64_t m = 0; m < per_channel; ++m) {
          const T* from = grad + ((image * g.filters + channel * per_channel + m) * g.out_h + first) * g.out_w;
          for (int64_t tap = 0; tap < taps; ++tap) {
            const T* read = memory.buffer + tap / g.kernel_w * g.dilation_h * strip.row +
                            memory.taps[tap % g.kernel_w];
            double sum = 0;
            for (int64_t i = 0; i < count; ++i)
              sum += dot(from + i * g.out_w, read + i * g.stride_h * strip.row, g.out_w);
            memory.totals[m * taps + tap] += sum;
          }
        }
      }
    for (int64_t w = 0; w < per_channel * taps; ++w)
      out[channel * per_channel * taps + w] = static_cast<T>(memory.totals[w]);
  });
  return failed;
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
