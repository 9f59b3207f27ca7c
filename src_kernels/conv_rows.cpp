// Convolution by rows of the result, for few channels or few filters, where packing an im2col matrix
// would take longer than to multiply it.
//
//   task: some rows of an image's result, some filters
//     for all channels that fit, or as many as kKC taps have
//       copy the rows of x that the task sees              strip.h: padded, sorted by phase
//       for each row, each tile of kMR filters             registers
//         for each tile of pixels: row_microkernel, at most kKC taps at a time
//
// Tap k reads a vector of neighbouring pixels at a place of its own: B(k, j) = x[offset(k) + j].
#include <cstring>
#include <utility>

#include "algorithm.h"
#include "direct.h"
#include "families.h"
#include "microkernel.h"
#include "strip.h"
#include "transpose_matrix.h"

namespace fastdl::FASTDL_ISA {

namespace {

// Multiplications that are worth another thread.
constexpr int64_t kWorth = 1 << 18;

// Bytes of a task's rows of x, of its sums, and of its weights, whose taps are few chunks.
constexpr int64_t kMostRows = 96 << 10, kMostSums = 192 << 10, kMostWeights = 256 << 10;
constexpr int64_t kMostChunks = 8;

// Vectors of a tile: fewer filters leave registers for more.
constexpr int kFewRows = 3, kFewRowsVectors = 4;
constexpr int kThreeVectorsRows = kMR * kNRVectors / 3;
constexpr int tile_vectors(int rows) {
  if (rows <= kFewRows) return kFewRowsVectors;
  return rows <= kThreeVectorsRows && kNRVectors < 3 ? 3 : kNRVectors;
}

// As `microkernel`, with row k of B at b + offsets[k], its vectors `step` apart.
template <class T, int rows, int vectors>
static void row_microkernel(int64_t depth, const T* a, const T* b, int64_t step,
                            const int32_t* offsets, T* c, int64_t ldc, const Finish<T>& finish) {
  Vector<T> sum[rows][vectors] = {};
#pragma GCC unroll 3
  for (int64_t k = 0; k < depth; ++k, ++a) {
    const T* panel = b + offsets[k];
    if constexpr (vectors > rows) {
      Vector<T> element[rows];
#pragma GCC unroll 4
      for (int r = 0; r < rows; ++r) element[r] = splat(a[r * kAPitch<T>]);
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) {
        const Vector<T> of_b = load(panel + v * step);
#pragma GCC unroll 4
        for (int r = 0; r < rows; ++r) sum[r][v] += element[r] * of_b;
      }
    } else {
      Vector<T> of_b[vectors];
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) of_b[v] = load(panel + v * step);
#pragma GCC unroll 14
      for (int r = 0; r < rows; ++r) {
        const Vector<T> element = splat(a[r * kAPitch<T>]);
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) sum[r][v] += element * of_b[v];
      }
    }
  }
  finish_tile<T, rows, vectors>(sum, c, ldc, finish);
}

template <class T>
using RowMicrokernel = void (*)(int64_t, const T*, const T*, int64_t, const int32_t*, T*, int64_t,
                                const Finish<T>&);

// The kernel of a tile of rows (1 to kMR) by vectors (1 to tile_vectors(rows)).
template <class T, class Rows>
struct RowMicrokernels;
template <class T, int... row>
struct RowMicrokernels<T, std::integer_sequence<int, row...>> {
  template <int rows, int vectors>
  static constexpr RowMicrokernel<T> one =
      row_microkernel<T, rows, (vectors < tile_vectors(rows) ? vectors : tile_vectors(rows))>;
  static constexpr RowMicrokernel<T> of[][kFewRowsVectors] = {
      {one<row + 1, 1>, one<row + 1, 2>, one<row + 1, 3>, one<row + 1, 4>}...};
};

template <class T>
class RowProduct {
 public:
  RowProduct(const DirectConvolution<T>& conv, int threads) : conv(conv), g(conv.g), strip(conv.g) {
    filters = g.filters / g.groups;
    channels = g.channels / g.groups;
    taps = g.kernel_h * g.kernel_w;
    width = ceil_div(g.out_w, kLanes<T>) * kLanes<T>;
    splits = ceil_div(filters, kNC<T>);
    passes = 1;
    if (!fits(min(g.out_h, 8), false) || chunks_of(channels) > kMostChunks)
      passes = ceil_div(channels, max(1, kKC / taps));
    buffered = passes > 1 || conv.column != 1 || narrow();
    divide(worth(threads));
  }

  int64_t workspace_bytes(int threads) const {
    return memory_of(nullptr).bytes * min(worth(threads), tasks());
  }

  int run(int threads) {
    return parallel_in_workspace(
        tasks(), worth(threads), memory_of(nullptr).bytes,
        [&](int64_t task, char* memory) { run_task(task, memory_of(memory)); });
  }

 private:
  struct Memory {
    T *a, *rows, *sums;
    int32_t* offsets;
    int64_t bytes;
  };

  struct Task {
    int64_t group, image, row, rows, filter, filters;
  };

  // Channels that are copied and multiplied together, and where chunks of their taps begin.
  struct Pass {
    int64_t channel, channels, chunks, tap[kMostChunks + 1];
    bool first, last;
  };

  const DirectConvolution<T>& conv;
  const ConvGeometry& g;
  const Strip<T> strip;
  int64_t filters, channels, taps, width, passes, bands, splits;
  bool buffered;

  int worth(int threads) const {
    return static_cast<int>(min(
        threads, g.batch * g.out_h * g.out_w * filters * channels * taps * g.groups / kWorth + 1));
  }

  int64_t tasks() const { return g.groups * g.batch * bands * splits; }

  // Rows of x under `rows` of the result.
  int64_t rows_under(int64_t rows) const {
    return (rows - 1) * g.stride_h + (g.kernel_h - 1) * g.dilation_h + 1;
  }

  // Rows of one vector: a tile has several rows.
  bool narrow() const { return width == kLanes<T>; }

  int64_t pass_channels() const { return ceil_div(channels, passes); }
  int64_t chunks_of(int64_t channels) const { return ceil_div(channels * taps, kKC); }

  // Whether a task of so many rows fits the caches.
  bool fits(int64_t rows, bool sums) const {
    constexpr int64_t size = sizeof(T);
    const int64_t share = ceil_div(filters, splits), depth = chunks_of(pass_channels()) * kAPitch<T>;
    return pass_channels() * rows_under(rows) * strip.row * size <= kMostRows &&
           share * depth * size <= kMostWeights && (!sums || share * rows * width * size <= kMostSums);
  }

  // As many rows of the result as the caches take, and tasks for all threads.
  void divide(int threads) {
    int64_t rows = g.out_h;
    while (rows > 1 && !fits(rows, buffered)) rows = ceil_div(rows, 2);
    bands = ceil_div(g.out_h, rows);
    if (threads > 1)
      while (tasks() < 2 * threads && bands < g.out_h) bands = min(g.out_h, 2 * bands);
  }

  Memory memory_of(char* base) const {
    const int64_t rows = ceil_div(g.out_h, bands), share = ceil_div(filters, splits);
    T* t = reinterpret_cast<T*>(base);
    Memory memory;
    memory.a = t;
    memory.rows = t += chunks_of(pass_channels()) * share * kAPitch<T>;
    memory.sums = t += pass_channels() * rows_under(rows) * strip.row;
    memory.offsets = reinterpret_cast<int32_t*>(t += buffered ? share * rows * width : 0);
    memory.bytes = reinterpret_cast<char*>(memory.offsets + pass_channels() * taps) - base;
    return memory;
  }

  Task task_of(int64_t index) const {
    const int64_t split = index % splits, band = index / splits % bands;
    const int64_t image = index / splits / bands % g.batch;
    Task task;
    task.group = index / splits / bands / g.batch;
    task.image = image;
    task.row = part(g.out_h, bands, band);
    task.rows = part(g.out_h, bands, band + 1) - task.row;
    task.filter = part(filters, splits, split);
    task.filters = part(filters, splits, split + 1) - task.filter;
    return task;
  }

  void run_task(int64_t index, const Memory& memory) const {
    const Task task = task_of(index);
    const int64_t under = rows_under(task.rows);
    set_offsets(under, memory.offsets);
    memset(memory.rows, 0,
           static_cast<size_t>(pass_channels() * under * strip.row) * sizeof(T));
    for (int64_t i = 0; i < passes; ++i) {
      Pass pass;
      pass.channel = part(channels, passes, i);
      pass.channels = part(channels, passes, i + 1) - pass.channel;
      pass.chunks = chunks_of(pass.channels);
      for (int64_t chunk = 0; chunk <= pass.chunks; ++chunk)
        pass.tap[chunk] = part(pass.channels * taps, pass.chunks, chunk);
      pass.first = i == 0;
      pass.last = i + 1 == passes;
      pack(task, pass, memory);
      if (narrow()) multiply_row(task, pass, 0, task.rows, g.stride_h * strip.row, memory);
      else
        for (int64_t row = 0; row < task.rows; ++row)
          multiply_row(task, pass, row, width / kLanes<T>, kLanes<T>, memory);
    }
    if (buffered) deliver(task, memory.sums);
    if (conv.activation == kSigmoid || conv.activation == kTanh) activate_rows(task);
  }

  void set_offsets(int64_t under, int32_t* offsets) const {
    for (int64_t b = 0; b < g.kernel_w; ++b)
      offsets[b] = static_cast<int32_t>(strip.place(b * g.dilation_w));
    for (int64_t c = 0, k = 0; c < pass_channels(); ++c)
      for (int64_t a = 0; a < g.kernel_h; ++a)
        for (int64_t b = 0; b < g.kernel_w; ++b, ++k)
          offsets[k] = offsets[b] +
                       static_cast<int32_t>((c * under + a * g.dilation_h) * strip.row);
  }

  T* result(const Task& task, int64_t filter, int64_t row) const {
    return conv.out + task.image * conv.image +
           (task.group * filters + task.filter + filter) * conv.plane + (task.row + row) * conv.row;
  }

  // The rows of x and the weights of a pass.
  void pack(const Task& task, const Pass& pass, const Memory& memory) const {
    const int64_t plane = g.height * g.width, under = rows_under(task.rows);
    const T* x = conv.x + (task.image * g.channels + task.group * channels + pass.channel) * plane;
    for (int64_t c = 0; c < pass.channels; ++c)
      strip.fill(x + c * plane, task.row * g.stride_h, under, memory.rows + c * under * strip.row);
    const int64_t depth = channels * taps;
    const T* weight = conv.weight + task.group * filters * depth;
    T* a = memory.a;
    for (int64_t i = 0; i < pass.chunks; ++i, a += task.filters * kAPitch<T>) {
      const int64_t k = pass.channel * taps + pass.tap[i], count = pass.tap[i + 1] - pass.tap[i];
      if (conv.turned)
        transpose(weight + k * filters + task.filter, filters, count, task.filters, a, kAPitch<T>);
      else
        for (int64_t o = 0; o < task.filters; ++o)
          memcpy(a + o * kAPitch<T>, weight + (task.filter + o) * depth + k,
                 static_cast<size_t>(count) * sizeof(T));
    }
  }

  // Vectors [begin, end) of a row, `step` apart in a row of x, and the largest tile.
  struct Columns {
    int64_t row, begin, end, step;
    int vectors, rows;
  };

  void multiply_row(const Task& task, const Pass& pass, int64_t row, int64_t vectors, int64_t step,
                    const Memory& memory) const {
    // Three vectors at the end where two would leave one over.
    const bool few = task.filters <= kFewRows;
    const bool odd = !few && kNRVectors == 2 && vectors > 1 && vectors % 2;
    const int64_t three = odd ? vectors - 3 : vectors;
    const int wide = few ? kFewRowsVectors : kNRVectors;
    multiply_columns(task, pass, {row, 0, three, step, wide, kMR}, memory);
    multiply_columns(task, pass, {row, three, vectors, step, 3, kThreeVectorsRows}, memory);
  }

  void multiply_columns(const Task& task, const Pass& pass, const Columns& columns,
                        const Memory& memory) const {
    if (columns.begin == columns.end) return;
    const int64_t row = columns.row, step = columns.step;
    const Tiles tiles(task.filters, columns.rows), parts(columns.end - columns.begin, columns.vectors);
    const T* b = memory.rows + row * g.stride_h * strip.row;
    // What is too much at the end of a row is overwritten by the next one.
    const bool run_over =
        buffered || (conv.row == g.out_w && row + 1 < task.rows && 2 * g.out_w >= width);
    for (int64_t tile = 0, filter = 0; tile < tiles.count; filter += tiles.rows(tile++)) {
      const int tall = tiles.rows(tile);
      T* c = buffered ? memory.sums + (filter * task.rows + row) * width : result(task, filter, row);
      const int64_t ldc = buffered ? task.rows * width : conv.plane;
      int64_t vector = columns.begin;
      for (int64_t i = 0; i < parts.count; vector += parts.rows(i++)) {
        const int wide = parts.rows(i);
        const int64_t at = vector * kLanes<T>;
        if (run_over || at + wide * kLanes<T> <= g.out_w) {
          multiply_tile(task, pass, filter, tall, wide, b + vector * step, step, c + at, ldc, memory);
          continue;
        }
        Vector<T> rest[kMR * kFewRowsVectors];
        multiply_tile(task, pass, filter, tall, wide, b + vector * step, step,
                      reinterpret_cast<T*>(rest), wide * kLanes<T>, memory);
        for (int r = 0; r < tall; ++r)
          for (int64_t v = 0; v < wide; ++v)
            store_some<T>(c + r * ldc + at + v * kLanes<T>, g.out_w - at - v * kLanes<T>,
                          rest[r * wide + v]);
      }
    }
  }

  const T* bias_of(const Task& task, int64_t filter) const {
    return conv.bias ? conv.bias + task.group * filters + task.filter + filter : nullptr;
  }

  void multiply_tile(const Task& task, const Pass& pass, int64_t filter, int tall, int wide, const T* b,
                     int64_t step, T* c, int64_t ldc, const Memory& memory) const {
    const auto kernel =
        RowMicrokernels<T, std::make_integer_sequence<int, kMR>>::of[tall - 1][wide - 1];
    const T* a = memory.a + filter * kAPitch<T>;
    for (int64_t i = 0; i < pass.chunks; ++i, a += task.filters * kAPitch<T>) {
      const bool last = pass.last && i + 1 == pass.chunks;
      const T* bias = last ? bias_of(task, filter) : nullptr;
      kernel(pass.tap[i + 1] - pass.tap[i], a, b, step, memory.offsets + pass.tap[i], c, ldc,
             {bias, !pass.first || i > 0, last && conv.activation == kRelu});
    }
  }

  void deliver(const Task& task, const T* from) const {
    for (int64_t o = 0; o < task.filters; ++o)
      for (int64_t row = 0; row < task.rows; ++row, from += width) {
        T* to = result(task, o, row);
        if (conv.column == 1) memcpy(to, from, static_cast<size_t>(g.out_w) * sizeof(T));
        else
          for (int64_t i = 0; i < g.out_w; ++i) to[i * conv.column] = from[i];
      }
  }

  void activate_rows(const Task& task) const {
    for (int64_t o = 0; o < task.filters; ++o)
      for (int64_t row = 0; row < task.rows; ++row) {
        T* out = result(task, o, row);
        activate(kDtype<T>, conv.activation, out, g.out_w, out, 1);
      }
  }
};

}  // namespace

// Cycles of a tap of a pixel: what is lost at the end of a row here, what the other way takes to pack it
// (more where rows are short), as measured.
template <class T>
bool rows_pay(const DirectConvolution<T>& conv) {
  const ConvGeometry& g = conv.g;
  const int64_t taps = g.kernel_h * g.kernel_w;
  if (taps == 1 || taps > kKC) return false;
  const double lanes = 2 * kLanes<T>;
  const double filters = static_cast<double>(g.filters / g.groups);
  const double whole = static_cast<double>(ceil_div(g.out_w, kLanes<T>) * kLanes<T>);
  const double here = filters / lanes * whole / static_cast<double>(g.out_w);
  return here < filters / lanes + (g.out_w > kLanes<T> ? 0.4 : 1);
}

template <class T>
int conv_rows(const DirectConvolution<T>& conv, int threads) {
  return RowProduct<T>(conv, threads).run(threads);
}

template <class T>
int64_t conv_rows_workspace_bytes(const DirectConvolution<T>& conv, int threads) {
  return RowProduct<T>(conv, threads).workspace_bytes(threads);
}

#define FASTDL_INSTANTIATE(T)                             \
  template bool rows_pay(const DirectConvolution<T>&);    \
  template int conv_rows(const DirectConvolution<T>&, int); \
  template int64_t conv_rows_workspace_bytes(const DirectConvolution<T>&, int);
FASTDL_INSTANTIATE(float)
FASTDL_INSTANTIATE(double)
#undef FASTDL_INSTANTIATE

}  // namespace fastdl::FASTDL_ISA
