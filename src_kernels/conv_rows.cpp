// Convolution by rows of the result, for few channels or few filters, where packing an im2col matrix
// would take longer than to multiply it.
//
//   task: some rows of an image's result, some filters
//     for each chunk of channels                           at most kKC taps
//       copy the rows of x that the task sees              strip.h: padded, sorted by phase
//       for each row, each tile of kMR filters             registers
//         for each tile of pixels: row_microkernel
//
// Tap k reads a vector of neighbouring pixels at a place of its own: B(k, j) = x[offset(k) + j].
#include <cstring>

#include "algorithm.h"
#include "direct.h"
#include "families.h"
#include "microkernel.h"
#include "parallel.h"
#include "strip.h"

namespace fastdl::FASTDL_ISA {

namespace {

// Multiplications that are worth another thread.
constexpr int64_t kWorth = 1 << 18;

// Bytes of a task's rows of x, and of its sums.
constexpr int64_t kMostRows = 96 << 10, kMostSums = 192 << 10;

// Vectors of a tile: fewer filters leave registers for more.
constexpr int kFewRows = 3, kFewRowsVectors = 4;
constexpr int kThreeVectorsRows = kMR * kNRVectors / 3;
constexpr int tile_vectors(int rows) {
  if (rows <= kFewRows) return kFewRowsVectors;
  return rows <= kThreeVectorsRows && kNRVectors < 3 ? 3 : kNRVectors;
}

// As `microkernel`, with row k of B at b + offsets[k].
template <class T, int rows, int vectors>
static void row_microkernel(int64_t depth, const T* a, const T* b, const int32_t* offsets, T* c,
                            int64_t ldc, const Finish<T>& finish) {
  Vector<T> sum[rows][vectors] = {};
  for (int64_t k = 0; k < depth; ++k, ++a) {
    const T* panel = b + offsets[k];
    if constexpr (vectors > rows) {
      Vector<T> element[rows];
#pragma GCC unroll 4
      for (int r = 0; r < rows; ++r) element[r] = splat(a[r * kAPitch<T>]);
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) {
        const Vector<T> of_b = load(panel + v * kLanes<T>);
#pragma GCC unroll 4
        for (int r = 0; r < rows; ++r) sum[r][v] += element[r] * of_b;
      }
    } else {
      Vector<T> of_b[vectors];
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) of_b[v] = load(panel + v * kLanes<T>);
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
using RowMicrokernel = void (*)(int64_t, const T*, const T*, const int32_t*, T*, int64_t,
                                const Finish<T>&);

template <class T, int rows>
FASTDL_INLINE RowMicrokernel<T> row_kernel_of(int vectors) {
  switch (vectors) {
    case 1: return row_microkernel<T, rows, 1>;
    case 2: return row_microkernel<T, rows, 2>;
    case 3: return row_microkernel<T, rows, tile_vectors(rows) < 3 ? 1 : 3>;
    default: return row_microkernel<T, rows, tile_vectors(rows) < 4 ? 1 : 4>;
  }
}

template <class T, int most_rows = kMR>
FASTDL_INLINE RowMicrokernel<T> choose_row_microkernel(int rows, int vectors) {
  if constexpr (most_rows > 1)
    if (rows < most_rows) return choose_row_microkernel<T, most_rows - 1>(rows, vectors);
  return row_kernel_of<T, most_rows>(vectors);
}

template <class T>
class RowProduct {
 public:
  RowProduct(const DirectConvolution<T>& conv, int threads) : conv(conv), g(conv.g), strip(conv.g) {
    filters = g.filters / g.groups;
    channels = g.channels / g.groups;
    taps = g.kernel_h * g.kernel_w;
    chunks = ceil_div(channels, max(1, kKC / taps));
    chunk_channels = ceil_div(channels, chunks);
    width = ceil_div(g.out_w, kLanes<T>) * kLanes<T>;
    buffered = chunks > 1 || conv.column != 1;
    splits = ceil_div(filters, kNC<T>);
    divide(worth(threads));
  }

  int64_t workspace_bytes(int threads) const {
    return memory_of(nullptr).bytes * min(worth(threads), tasks());
  }

  int run(int threads) {
    const int64_t bytes = memory_of(nullptr).bytes;
    int result = kDone;
    parallel_for(tasks(), worth(threads), [&](int64_t task) {
      char* memory = static_cast<char*>(workspace(bytes));
      if (memory) run_task(task, memory_of(memory));
      else note(&result, kNoMemory);
    });
    return result;
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

  const DirectConvolution<T>& conv;
  const ConvGeometry& g;
  const Strip<T> strip;
  int64_t filters, channels, taps, chunks, chunk_channels, width, bands, splits;
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

  // As many rows of the result as the caches take, and tasks for all threads.
  void divide(int threads) {
    constexpr int64_t size = sizeof(T);
    auto fits = [&](int64_t rows) {
      return chunk_channels * rows_under(rows) * strip.row * size <= kMostRows &&
             (!buffered || ceil_div(filters, splits) * rows * width * size <= kMostSums);
    };
    int64_t rows = g.out_h;
    while (rows > 1 && !fits(rows)) rows = ceil_div(rows, 2);
    bands = ceil_div(g.out_h, rows);
    if (threads > 1)
      while (tasks() < 2 * threads && bands < g.out_h) bands = min(g.out_h, 2 * bands);
  }

  Memory memory_of(char* base) const {
    const int64_t rows = ceil_div(g.out_h, bands), share = ceil_div(filters, splits);
    T* t = reinterpret_cast<T*>(base);
    Memory memory;
    memory.a = t;
    memory.rows = t += share * kAPitch<T>;
    memory.sums = t += chunk_channels * rows_under(rows) * strip.row;
    memory.offsets = reinterpret_cast<int32_t*>(t += buffered ? share * rows * width : 0);
    memory.bytes = reinterpret_cast<char*>(memory.offsets + chunk_channels * taps) - base;
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
    const int64_t under = rows_under(task.rows), depth = channels * taps;
    set_offsets(under, memory.offsets);
    memset(memory.rows, 0, static_cast<size_t>(chunk_channels * under * strip.row) * sizeof(T));
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const int64_t c = part(channels, chunks, chunk), end = part(channels, chunks, chunk + 1);
      const T* plane =
          conv.x + (task.image * g.channels + task.group * channels + c) * g.height * g.width;
      for (int64_t i = 0; i < end - c; ++i, plane += g.height * g.width)
        strip.fill(plane, task.row * g.stride_h, under, memory.rows + i * under * strip.row);
      const T* weight = conv.weight + (task.group * filters + task.filter) * depth + c * taps;
      for (int64_t o = 0; o < task.filters; ++o)
        memcpy(memory.a + o * kAPitch<T>, weight + o * depth,
               static_cast<size_t>((end - c) * taps) * sizeof(T));
      multiply(task, (end - c) * taps, chunk == 0, chunk + 1 == chunks, memory);
    }
    if (buffered) deliver(task, memory.sums);
    if (conv.activation == kSigmoid || conv.activation == kTanh) activate_rows(task);
  }

  void set_offsets(int64_t under, int32_t* offsets) const {
    for (int64_t b = 0; b < g.kernel_w; ++b)
      offsets[b] = static_cast<int32_t>(strip.place(b * g.dilation_w));
    for (int64_t c = 0, k = 0; c < chunk_channels; ++c)
      for (int64_t a = 0; a < g.kernel_h; ++a)
        for (int64_t b = 0; b < g.kernel_w; ++b, ++k)
          offsets[k] = offsets[b] +
                       static_cast<int32_t>((c * under + a * g.dilation_h) * strip.row);
  }

  T* result(const Task& task, int64_t filter, int64_t row) const {
    return conv.out + task.image * conv.image +
           (task.group * filters + task.filter + filter) * conv.plane + (task.row + row) * conv.row;
  }

  void multiply(const Task& task, int64_t depth, bool first, bool last, const Memory& memory) const {
    // Three vectors at the end where two would leave one over.
    const int64_t vectors = width / kLanes<T>;
    const bool few = task.filters <= kFewRows;
    const int64_t three = !few && kNRVectors == 2 && vectors > 1 && vectors % 2 ? vectors - 3 : vectors;
    for (int64_t row = 0; row < task.rows; ++row) {
      const Columns pairs = {row, 0, three, few ? kFewRowsVectors : kNRVectors, kMR};
      multiply_columns(task, depth, first, last, pairs, memory);
      const Columns rest = {row, three, vectors, 3, kThreeVectorsRows};
      multiply_columns(task, depth, first, last, rest, memory);
    }
  }

  // Vectors [begin, end) of a row, and the largest tile.
  struct Columns {
    int64_t row, begin, end;
    int vectors, rows;
  };

  void multiply_columns(const Task& task, int64_t depth, bool first, bool last,
                        const Columns& columns, const Memory& memory) const {
    if (columns.begin == columns.end) return;
    const Tiles tiles(task.filters, columns.rows), parts(columns.end - columns.begin, columns.vectors);
    const T* bias = last && conv.bias ? conv.bias + task.group * filters + task.filter : nullptr;
    const T* b = memory.rows + columns.row * g.stride_h * strip.row;
    // What is too much at the end of a row is overwritten by the next one.
    const bool run_over = buffered || (conv.row == g.out_w && columns.row + 1 < task.rows &&
                                       2 * g.out_w >= width);
    for (int64_t tile = 0, filter = 0; tile < tiles.count; filter += tiles.rows(tile++)) {
      const int tall = tiles.rows(tile);
      const Finish<T> finish = {bias ? bias + filter : nullptr, !first,
                                last && conv.activation == kRelu};
      const T* a = memory.a + filter * kAPitch<T>;
      T* c = buffered ? memory.sums + (filter * task.rows + columns.row) * width
                      : result(task, filter, columns.row);
      const int64_t ldc = buffered ? task.rows * width : conv.plane;
      int64_t at = columns.begin * kLanes<T>;
      for (int64_t i = 0; i < parts.count; at += parts.rows(i++) * kLanes<T>) {
        const int wide = parts.rows(i);
        const auto kernel = choose_row_microkernel<T>(tall, wide);
        if (run_over || at + wide * kLanes<T> <= g.out_w) {
          kernel(depth, a, b + at, memory.offsets, c + at, ldc, finish);
          continue;
        }
        Vector<T> rest[kMR * kFewRowsVectors];
        kernel(depth, a, b + at, memory.offsets, reinterpret_cast<T*>(rest), wide * kLanes<T>, finish);
        for (int r = 0; r < tall; ++r)
          for (int64_t v = 0; v < wide; ++v)
            store_some<T>(c + r * ldc + at + v * kLanes<T>, g.out_w - at - v * kLanes<T>,
                          rest[r * wide + v]);
      }
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

// Cycles of a tap of a pixel: what is lost at the end of a row here, what the other way takes to pack it,
// as measured.
template <class T>
bool rows_pay(const DirectConvolution<T>& conv) {
  const ConvGeometry& g = conv.g;
  const int64_t taps = g.kernel_h * g.kernel_w;
  if (taps == 1 || taps > kKC) return false;
  const double lanes = 2 * kLanes<T>;
  const double filters = static_cast<double>(g.filters / g.groups);
  const double whole = static_cast<double>(ceil_div(g.out_w, kLanes<T>) * kLanes<T>);
  const double here = filters / lanes * whole / static_cast<double>(g.out_w);
  return here < filters / lanes + 0.4;
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
