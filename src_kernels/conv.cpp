// Convolution as an implicit matrix product:
//
//   out (O x pixels) = weight (O x K) * im2col(x) (K x pixels),   K = C/G * KH * KW
//
// for each group, with the pixels of the whole batch side by side. The im2col matrix is packed
// block by block where it is used, so that what exists of it fits the caches:
//
//   task: a block of kNC pixels, some filters
//     for each chunk of K                                   kKC rows
//       pack the chunk of the block and of the weights      second-level cache
//       for each panel of the block, kNR pixels wide        first-level cache
//         for each tile of kMR filters: microkernel         registers
//
// A tile goes straight into the result where its pixels are whole vectors of one image, and else
// into memory of the task, from where it is copied when the sum is complete. Where few pixels leave
// vectors empty, filter_lanes.cpp does the same with filters in the lanes; where packing would take
// longer than the products, conv_rows.cpp does without.
#include <cstring>

#include "algorithm.h"
#include "depthwise.h"
#include "direct.h"
#include "families.h"
#include "microkernel.h"
#include "panel.h"
#include "parallel.h"
#include "transpose_matrix.h"

namespace fastdl::FASTDL_ISA {

namespace {

// Filters of a task: their chunk of the weights stays in the second-level cache, beside the block.
constexpr int64_t kMC = 256;

// Chunks up to which a tile is added to the result in place; with more, memory of the task that is
// smaller and nearer pays for the copy at the end.
constexpr int64_t kFewChunks = 3;

// Multiplications that are worth another thread.
constexpr int64_t kWorth = 1 << 18;

// Where a panel lies in its block.
struct PanelRange {
  int32_t first, count, vectors;
  bool whole;  // whole vectors of one image
};

template <class T>
class Product {
 public:
  Product(const DirectConvolution<T>& conv, int threads) : conv(conv), g(conv.g) {
    filters = g.filters / g.groups;
    depth = g.channels / g.groups * g.kernel_h * g.kernel_w;
    chunks = ceil_div(depth, kKC);
    plane = g.out_h * g.out_w;
    pixels = g.batch * plane;
    vectors = ceil_div(pixels, kLanes<T>);
    contiguous = conv.column == 1 && conv.row == g.out_w;
    divide(threads);
  }

  // How many threads the work is worth.
  int worth(int threads) const {
    return static_cast<int>(min(threads, pixels * filters * depth * g.groups / kWorth + 1));
  }

  // Memory of all threads together.
  int64_t workspace_bytes(int threads) const {
    return memory_of(nullptr).bytes * min(worth(threads), g.groups * parts * splits);
  }

  int run(int threads) {
    threads = worth(threads);
    return parallel_in_workspace(
        g.groups * parts * splits, threads, memory_of(nullptr).bytes,
        [&](int64_t task, char* memory) { run_task(task, memory_of(memory)); });
  }

 private:
  struct Memory {
    T *a, *b, *c;
    char* block;
    int64_t bytes;
  };

  struct Task {
    int64_t group, filter, filters;  // filters [filter, filter + filters) of the group
    int64_t block, end_block;
  };

  struct Block {
    int64_t pixel, count;
    int panels;
    PanelRange panel[kNC<T> / kLanes<T>];
  };

  using Lines = typename PixelBlock<T>::Lines;

  const DirectConvolution<T>& conv;
  const ConvGeometry& g;
  int64_t filters, depth, chunks, plane, pixels, vectors;
  int64_t blocks, splits, parts;
  bool contiguous;

  // Tasks: as square as can be, because a task packs its weights for each of its blocks, and its
  // block for its filters alone; enough of them for every thread, and as many for each.
  void divide(int threads) {
    constexpr int64_t most = kNC<T> / kLanes<T>;
    splits = ceil_div(filters, kMC);
    blocks = ceil_div(vectors, most);
    if (threads > 1) {
      const int64_t wanted = ceil_div(2 * threads, g.groups);
      while (blocks * splits < wanted) {
        bool more_splits = 2 * filters / splits > vectors * kLanes<T> / blocks;
        if (more_splits && filters / splits > kMR) splits *= 2;
        else if (vectors / blocks > 1) blocks *= 2;
        else break;
      }
      while (blocks * splits < 8 * wanted && g.groups * blocks * splits % threads != 0 &&
             blocks < vectors)
        ++blocks;
    }
    // Where weights are one chunk, a task packs them once for several blocks.
    parts = blocks * splits <= 24 * threads ? blocks : max(1, 16 * threads / splits);
  }

  Memory memory_of(char* base) const {
    const int64_t share = ceil_div(filters, splits);
    T* t = reinterpret_cast<T*>(base);
    Memory memory;
    memory.a = t;
    memory.b = t += share * kAPitch<T>;
    memory.c = t += kKC * kBPitch<T>;
    memory.block = reinterpret_cast<char*>(t += share * kBPitch<T>);
    memory.bytes = memory.block - base + 2 * block_bytes();
    return memory;
  }

  int64_t block_bytes() const { return ceil_div(PixelBlock<T>::bytes(g, kNC<T>), 64) * 64; }

  Task task_of(int64_t index) const {
    Task task;
    int64_t split = index % splits, share = index / splits % parts;
    task.group = index / splits / parts;
    task.filter = part(filters, splits, split);
    task.filters = part(filters, splits, split + 1) - task.filter;
    task.block = part(blocks, parts, share);
    task.end_block = part(blocks, parts, share + 1);
    return task;
  }

  Block block_of(int64_t index) const {
    Block block;
    int64_t first = part(vectors, blocks, index), wide = part(vectors, blocks, index + 1) - first;
    block.pixel = first * kLanes<T>;
    block.count = min(pixels - block.pixel, wide * kLanes<T>);
    block.panels = static_cast<int>(ceil_div(wide, kNRVectors));
    for (int p = 0; p < block.panels; ++p) {
      int64_t begin = part(wide, block.panels, p), end = part(wide, block.panels, p + 1);
      int64_t from = begin * kLanes<T>, count = min(block.count, end * kLanes<T>) - from;
      bool whole = chunks <= kFewChunks && contiguous && count % kLanes<T> == 0 &&
                   (block.pixel + from) % plane + count <= plane;
      block.panel[p] = {static_cast<int32_t>(from), static_cast<int32_t>(count),
                        static_cast<int32_t>(end - begin), whole};
    }
    return block;
  }

  void run_task(int64_t index, const Memory& memory) const {
    const Task task = task_of(index);
    const int64_t channels = g.channels / g.groups, size = g.height * g.width;
    const T* group = conv.x + task.group * channels * size;
    const T* end = conv.x + g.batch * g.channels * size;
    PixelBlock<T> one(g, group, end, memory.block, kNC<T>);
    PixelBlock<T> other(g, group, end, memory.block + block_bytes(), kNC<T>);
    PixelBlock<T> *source = &one, *ahead = &other;
    Block block = block_of(task.block);
    source->set(block.pixel, block.count);
    for (int64_t b = task.block; b < task.end_block; ++b) {
      Block next;
      if (b + 1 < task.end_block) {
        next = block_of(b + 1);
        ahead->set(next.pixel, next.count);
      }
      for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        int64_t k = part(depth, chunks, chunk), k_end = part(depth, chunks, chunk + 1);
        if (chunks > 1 || b == task.block) pack_weights(task, k, k_end, memory.a);
        source->pack(k, k_end, kBPitch<T>, memory.b);
        Lines lines;
        if (chunk + 1 < chunks) lines = Lines(*source, k_end, part(depth, chunks, chunk + 2));
        else if (b + 1 < task.end_block) lines = Lines(*ahead, 0, part(depth, chunks, 1));
        multiply(task, block, k, k_end, memory, lines);
      }
      deliver(task, block, memory.c);
      if (conv.activation == kSigmoid || conv.activation == kTanh) activate_block(task, block);
      block = next;
      PixelBlock<T>* done = source;
      source = ahead;
      ahead = done;
    }
  }

  void activate_block(const Task& task, const Block& block) const {
    each_stretch(conv, block.pixel, block.count, [&](int64_t offset, int64_t, int64_t length) {
      for (int64_t o = 0; o < task.filters; ++o) {
        T* out = filter_out(task, o) + offset;
        activate(kDtype<T>, conv.activation, out, length, out, 1);
      }
    });
  }

  T* filter_out(const Task& task, int64_t filter) const {
    return conv.out + (task.group * filters + task.filter + filter) * conv.plane;
  }

  void pack_weights(const Task& task, int64_t k, int64_t k_end, T* to) const {
    const T* from = conv.weight + task.group * filters * depth;
    if (conv.turned)
      return transpose(from + k * filters + task.filter, filters, k_end - k, task.filters, to,
                       kAPitch<T>);
    from += task.filter * depth + k;
    for (int64_t o = 0; o < task.filters; ++o, from += depth, to += kAPitch<T>)
      memcpy(to, from, static_cast<size_t>(k_end - k) * sizeof(T));
  }

  // What the next chunk of weights is packed from, row by row, to be asked for in time.
  struct WeightRows {
    const T* from;
    int64_t depth, elements, count;
    void prefetch(int64_t rows) {
      for (; rows > 0 && count > 0; --rows, --count, from += depth)
        for (int64_t i = 0; i < elements; i += kLineLength<T>) __builtin_prefetch(from + i);
    }
  };

  void multiply(const Task& task, const Block& block, int64_t k, int64_t k_end,
                const Memory& memory, Lines lines) const {
    const bool last = k_end == depth;
    const T* bias = last && conv.bias ? conv.bias + task.group * filters + task.filter : nullptr;
    const Tiles tiles(task.filters);
    const int64_t calls = tiles.count * block.panels;
    const int64_t lines_per_tile = ceil_div(lines.count, calls);
    const int64_t rows_per_tile = ceil_div(task.filters, calls);
    WeightRows weights = {conv.weight + (task.group * filters + task.filter) * depth + k_end, depth,
                          min(kKC, depth - k_end), last || conv.turned ? 0 : task.filters};
    for (int p = 0; p < block.panels; ++p) {
      const PanelRange& panel = block.panel[p];
      T* c = memory.c + panel.first;
      int64_t ldc = kBPitch<T>;
      if (panel.whole) {
        int64_t pixel = block.pixel + panel.first;
        c = filter_out(task, 0) + pixel / plane * conv.image + pixel % plane;
        ldc = conv.plane;
      }
      Finish<T> finish = {bias, k > 0, last && conv.activation == kRelu};
      const T* a = memory.a;
      for (int64_t tile = 0; tile < tiles.count; ++tile) {
        const int rows = tiles.rows(tile);
        lines.prefetch(lines_per_tile);
        weights.prefetch(rows_per_tile);
        choose_microkernel<T>(rows, panel.vectors)(k_end - k, a, memory.b + panel.first, c, ldc,
                                                   finish, {});
        a += rows * kAPitch<T>;
        c += rows * ldc;
        if (bias) finish.bias += rows;
      }
    }
  }

  // Copies what the task has in its own memory to the result.
  void deliver(const Task& task, const Block& block, const T* c) const {
    for (int p = 0, next; p < block.panels; p = next) {
      const int64_t first = block.panel[p].first;
      int64_t count = 0;
      for (next = p; next < block.panels && !block.panel[next].whole; ++next)
        count += block.panel[next].count;
      each_stretch(conv, block.pixel + first, count,
                   [&](int64_t offset, int64_t position, int64_t length) {
        for (int64_t o = 0; o < task.filters; ++o) {
          const T* from = c + o * kBPitch<T> + first + position;
          T* to = filter_out(task, o) + offset;
          if (conv.column == 1) copy_each<T, 1>(from, length, to);
          else for (int64_t i = 0; i < length; ++i) to[i * conv.column] = from[i];
        }
      });
      if (next == p) ++next;
    }
  }
};

template <class T>
int convolve(const T* x, const T* weight, const T* bias, const ConvGeometry& g,
             Activation activation, T* out, int threads) {
  const int64_t plane = g.out_h * g.out_w;
  return direct_convolution<T>(
      {x, weight, bias, out, g.filters * plane, plane, g.out_w, 1, g, activation}, threads);
}

template <class T>
int run(const void* x, const void* weight, const void* packed, const void* bias,
        const ConvGeometry& g, Activation activation, int algorithm, void* out, int threads) {
  if (g.batch * g.out_h * g.out_w == 0) return kDone;
  const FloatMode mode(kDtype<T>);
  algorithm = conv2d_algorithm(kDtype<T>, &g, algorithm, packed, threads);
  if (algorithm == kWinograd) {
    int result =
        winograd(kDtype<T>, x, weight, packed, bias, g, activation, false, out, threads);
    if (result != kNotFinite) return result;
  }
  if (algorithm != kDepthwise && is_linear(g)) {
    const LinearGeometry seen = linear_geometry(g);
    linear(kDtype<T>, x, weight, bias, &seen, out, threads);
    if (activation != kIdentity)
      activate(kDtype<T>, activation, out, g.batch * g.filters, out, threads);
    return kDone;
  }
  return (algorithm == kDepthwise ? depthwise<T> : convolve<T>)(
      static_cast<const T*>(x), static_cast<const T*>(weight), static_cast<const T*>(bias), g,
      activation, static_cast<T*>(out), threads);
}

// A 1x1 convolution of stride 1 sees an image as one row.
template <class T>
DirectConvolution<T> flattened(DirectConvolution<T> conv) {
  ConvGeometry& g = conv.g;
  if (g.kernel_h == 1 && g.kernel_w == 1 && g.stride_h == 1 && g.stride_w == 1 &&
      g.height == g.out_h && g.width == g.out_w && g.pad_top == 0 && g.pad_left == 0 &&
      conv.column == 1 && conv.row == g.out_w) {
    g.width = g.out_w = g.height * g.width;
    g.height = g.out_h = 1;
    conv.row = g.out_w;
  }
  return conv;
}

template <class T>
int64_t workspace_bytes(const ConvGeometry& g, int threads) {
  const int64_t plane = g.out_h * g.out_w;
  DirectConvolution<T> conv = flattened<T>({nullptr, nullptr, nullptr, nullptr, g.filters * plane,
                                            plane, g.out_w, 1, g, kIdentity});
  if (rows_pay(conv)) return conv_rows_workspace_bytes(conv, threads);
  if (filter_lanes_pay(conv)) return filter_lanes_workspace_bytes(conv, threads);
  return Product<T>(conv, threads).workspace_bytes(threads);
}

}  // namespace

template <class T>
int direct_convolution(const DirectConvolution<T>& conv, int threads) {
  DirectConvolution<T> seen = flattened(conv);
  if (rows_pay(seen)) return conv_rows(seen, threads);
  if (filter_lanes_pay(seen)) return filter_lanes(seen, threads);
  return Product<T>(seen, threads).run(threads);
}

template int direct_convolution(const DirectConvolution<float>&, int);
template int direct_convolution(const DirectConvolution<double>&, int);

int64_t direct_workspace_bytes(Dtype dtype, const ConvGeometry& g, int threads) {
  return (dtype == kFloat32 ? workspace_bytes<float> : workspace_bytes<double>)(g, threads);
}

int conv2d(Dtype dtype, const void* x, const void* weight, const void* packed, const void* bias,
           const ConvGeometry* g, Activation activation, int algorithm, void* out, int threads) {
  return (dtype == kFloat32 ? run<float> : run<double>)(x, weight, packed, bias, *g, activation,
                                                        algorithm, out, threads);
}

}  // namespace fastdl::FASTDL_ISA
