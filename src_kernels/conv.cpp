// Convolution as an implicit matrix product:
//
//   out (O x pixels) = weight (O x K) * im2col(x) (K x pixels),   K = C/G * KH * KW
//
// for each group, with the pixels of the whole batch side by side. The im2col matrix is packed
// panel by panel where it is used, so that what exists of it fits the caches:
//
//   task: a block of panels (and, where there are few, a part of the filters)
//     for each chunk of K that fits a panel                      kKC rows
//       pack the chunk of each panel                             second-level cache
//       for each panel                                           first-level cache
//         for each tile of kMR filters: microkernel              registers
//
// Weights are read where they lie: a tile's rows are streams that the chunk keeps short.
#include "algorithm.h"
#include "depthwise.h"
#include "families.h"
#include "microkernel.h"
#include "panel.h"
#include "parallel.h"

namespace fastdl::FASTDL_ISA {

namespace {

template <class T>
struct Convolution {
  const T *x, *weight, *bias;
  T* out;
  const ConvGeometry& g;
  Activation activation;
  // Sizes of the matrix product, and how it is divided.
  int64_t group_filters, depth, plane, pixels;
  int64_t vectors, panels, panels_per_block, blocks, split, splits;
  // Sizes of a task's memory.
  int64_t runs_per_panel, copies_per_panel;
};

// A block of 8 panels reuses a chunk of the weights that the second-level cache cannot keep whole.
constexpr int64_t kWeightsInCache = 1 << 20;
constexpr int64_t kPanelsPerBlock = 8;

template <class T>
void divide(Convolution<T>& conv, int threads) {
  const ConvGeometry& g = conv.g;
  conv.group_filters = g.filters / g.groups;
  conv.depth = g.channels / g.groups * g.kernel_h * g.kernel_w;
  conv.plane = g.out_h * g.out_w;
  conv.pixels = g.batch * conv.plane;
  conv.vectors = ceil_div(conv.pixels, kLanes<T>);
  conv.panels = ceil_div(conv.vectors, kNRVectors);

  int64_t weight_bytes = conv.group_filters * conv.depth * static_cast<int64_t>(sizeof(T));
  int64_t tasks = threads > 1 ? 4 * threads : 1;
  conv.panels_per_block = weight_bytes <= kWeightsInCache ? 1 : kPanelsPerBlock;
  while (conv.panels_per_block > 1 &&
         g.groups * ceil_div(conv.panels, conv.panels_per_block) < tasks)
    conv.panels_per_block /= 2;
  conv.blocks = ceil_div(conv.panels, conv.panels_per_block);

  int64_t tiles = ceil_div(conv.group_filters, kMR);
  int64_t splits = min(tiles, ceil_div(tasks, g.groups * conv.blocks));
  conv.split = ceil_div(tiles, splits) * kMR;
  conv.splits = ceil_div(conv.group_filters, conv.split);

  conv.runs_per_panel = most_runs(g, kNR<T>);
  conv.copies_per_panel = most_copies(g, kNR<T>, kKC);
}

template <class T>
struct TaskMemory {
  T *panels, *tile;
  Run* runs;
  Copy* copies;
};

template <class T>
int64_t lay_out(const Convolution<T>& conv, char* base, TaskMemory<T>& memory) {
  int64_t panels = conv.panels_per_block;
  char* p = base;
  memory.panels = reinterpret_cast<T*>(p);
  p += (panels * kKC * kNR<T> + kLanes<T>) * static_cast<int64_t>(sizeof(T));
  memory.tile = reinterpret_cast<T*>(p);
  p += kMR * kNR<T> * static_cast<int64_t>(sizeof(T));
  memory.runs = reinterpret_cast<Run*>(p);
  p += panels * conv.runs_per_panel * static_cast<int64_t>(sizeof(Run));
  memory.copies = reinterpret_cast<Copy*>(p);
  p += panels * conv.copies_per_panel * static_cast<int64_t>(sizeof(Copy));
  return p - base;
}

// Where the pixels of a panel lie in the output.
struct PixelRange {
  int64_t begin, count;
  int vectors;
};

template <class T>
PixelRange pixels_of(const Convolution<T>& conv, int64_t panel) {
  // Vectors are dealt out evenly: 4 of them make 2 and 2, not 3 and 1.
  int64_t first = conv.vectors * panel / conv.panels;
  int64_t last = conv.vectors * (panel + 1) / conv.panels;
  int64_t begin = first * kLanes<T>, end = min(conv.pixels, last * kLanes<T>);
  return {begin, end - begin, static_cast<int>(last - first)};
}

// copy(out, tile, length) for each stretch of a panel's pixels that is one in memory, in the plane
// of filter `filter`. `position` counts within the panel.
template <class T, class Body>
FASTDL_INLINE void each_stretch(const Convolution<T>& conv, const PixelRange& range,
                                int64_t filter, Body body) {
  int64_t image = range.begin / conv.plane, offset = range.begin % conv.plane;
  for (int64_t position = 0; position < range.count; ++image, offset = 0) {
    int64_t length = min(range.count - position, conv.plane - offset);
    body(conv.out + (image * conv.g.filters + filter) * conv.plane + offset, position, length);
    position += length;
  }
}

// One tile: straight into the output where the panel is whole vectors of one image, else by way
// of memory that is.
template <class T>
void multiply_tile(const Convolution<T>& conv, const PixelRange& range, int64_t filter, int rows,
                   int64_t depth, const T* weight, const T* panel, const Finish<T>& finish,
                   T* tile) {
  auto kernel = choose_microkernel<T>(rows, range.vectors);
  int64_t image = range.begin / conv.plane, offset = range.begin % conv.plane;
  bool whole = range.count % kLanes<T> == 0 && offset + range.count <= conv.plane;
  if (whole) {
    T* out = conv.out + (image * conv.g.filters + filter) * conv.plane + offset;
    kernel(depth, weight, conv.depth, panel, out, conv.plane, finish);
    return;
  }
  if (finish.accumulate)
    for (int r = 0; r < rows; ++r)
      each_stretch(conv, range, filter + r, [&](const T* out, int64_t position, int64_t length) {
        memcpy(tile + r * kNR<T> + position, out, static_cast<size_t>(length) * sizeof(T));
      });
  kernel(depth, weight, conv.depth, panel, tile, kNR<T>, finish);
  for (int r = 0; r < rows; ++r)
    each_stretch(conv, range, filter + r, [&](T* out, int64_t position, int64_t length) {
      memcpy(out, tile + r * kNR<T> + position, static_cast<size_t>(length) * sizeof(T));
    });
}

template <class T>
void run_task(const Convolution<T>& conv, int64_t task, const TaskMemory<T>& memory) {
  const ConvGeometry& g = conv.g;
  int64_t split = task % conv.splits, block = task / conv.splits % conv.blocks;
  int64_t group = task / conv.splits / conv.blocks;
  int64_t first_filter = split * conv.split;
  int64_t end_filter = min(conv.group_filters, first_filter + conv.split);
  int64_t first_panel = block * conv.panels_per_block;
  int panels = static_cast<int>(min(conv.panels_per_block, conv.panels - first_panel));
  const T* weight = conv.weight + group * conv.group_filters * conv.depth;
  int64_t group_channels = g.channels / g.groups;
  Source<T> source = {conv.x + group * group_channels * g.height * g.width, conv.x,
                      conv.x + g.batch * g.channels * g.height * g.width};

  Panel panel[kPanelsPerBlock];
  PixelRange range[kPanelsPerBlock];
  for (int p = 0; p < panels; ++p) {
    range[p] = pixels_of(conv, first_panel + p);
    panel[p].runs = memory.runs + p * conv.runs_per_panel;
    panel[p].copies = memory.copies + p * conv.copies_per_panel;
    panel[p].run_count = find_runs(g, range[p].begin, range[p].count, panel[p].runs);
    if (g.kernel_h * g.kernel_w <= kKC) set_taps<T>(g, panel[p], 0, g.kernel_h * g.kernel_w);
  }

  for (int64_t k = 0, k_end; k < conv.depth; k = k_end) {
    k_end = chunk_end(g, k, kKC);
    for (int p = 0; p < panels; ++p) {
      set_chunk_taps<T>(g, panel[p], k, k_end, kKC);
      pack(g, panel[p], source, k, k_end, range[p].vectors * kLanes<T>,
           memory.panels + p * kKC * kNR<T>);
    }
    bool last = k_end == conv.depth;
    for (int p = 0; p < panels; ++p)
      for (int64_t o = first_filter; o < end_filter; o += kMR) {
        int64_t filter = group * conv.group_filters + o;
        Finish<T> finish = {last && conv.bias ? conv.bias + filter : nullptr, k > 0,
                            last && conv.activation == kRelu};
        multiply_tile(conv, range[p], filter, static_cast<int>(min(kMR, end_filter - o)),
                      k_end - k, weight + o * conv.depth + k,
                      memory.panels + p * kKC * kNR<T>, finish, memory.tile);
      }
  }

  if (conv.activation == kSigmoid || conv.activation == kTanh)
    for (int p = 0; p < panels; ++p)
      for (int64_t o = first_filter; o < end_filter; ++o)
        each_stretch(conv, range[p], group * conv.group_filters + o,
                     [&](T* out, int64_t, int64_t length) {
                       activate(kDtype<T>, conv.activation, out, length, out, 1);
                     });
}

template <class T>
int convolve(const T* x, const T* weight, const T* bias, const ConvGeometry& g,
             Activation activation, T* out, int threads) {
  Convolution<T> conv{x, weight, bias, out, g, activation, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
  divide(conv, threads);
  TaskMemory<T> sizes;
  int64_t bytes = lay_out(conv, nullptr, sizes);
  bool failed = false;
  parallel_for(g.groups * conv.blocks * conv.splits, threads, [&](int64_t task) {
    TaskMemory<T> memory;
    char* base = static_cast<char*>(workspace(bytes));
    if (!base) {
      __atomic_store_n(&failed, true, __ATOMIC_RELAXED);
      return;
    }
    lay_out(conv, base, memory);
    run_task(conv, task, memory);
  });
  return failed;
}

template <class T>
int64_t workspace_bytes(const ConvGeometry& g, int threads) {
  Convolution<T> conv{nullptr, nullptr, nullptr, nullptr, g, kIdentity,
                      0,       0,       0,       0,       0, 0,
                      0,       0,       0,       0,       0, 0};
  divide(conv, threads);
  TaskMemory<T> sizes;
  return lay_out(conv, nullptr, sizes) * min(threads, g.groups * conv.blocks * conv.splits);
}

template <class T>
int run(const void* x, const void* weight, const void* packed, const void* bias,
        const ConvGeometry& g, Activation activation, int algorithm, void* out, int threads) {
  if (g.batch * g.out_h * g.out_w == 0) return kDone;
  algorithm = conv2d_algorithm(kDtype<T>, &g, algorithm, packed, threads);
  if (algorithm == kWinograd) {
    int result =
        winograd(kDtype<T>, x, weight, packed, bias, g, activation, false, out, threads);
    if (result != kNotFinite) return result;
  }
  return (algorithm == kDepthwise ? depthwise<T> : convolve<T>)(
      static_cast<const T*>(x), static_cast<const T*>(weight), static_cast<const T*>(bias), g,
      activation, static_cast<T*>(out), threads);
}

}  // namespace

int64_t direct_workspace_bytes(Dtype dtype, const ConvGeometry& g, int threads) {
  return (dtype == kFloat32 ? workspace_bytes<float> : workspace_bytes<double>)(g, threads);
}

int conv2d(Dtype dtype, const void* x, const void* weight, const void* packed, const void* bias,
           const ConvGeometry* g, Activation activation, int algorithm, void* out, int threads) {
  return (dtype == kFloat32 ? run<float> : run<double>)(x, weight, packed, bias, *g, activation,
                                                        algorithm, out, threads);
}

}  // namespace fastdl::FASTDL_ISA
