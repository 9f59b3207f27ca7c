// Convolution as an implicit matrix product, turned over:
//
//   out^T (pixels x O) = im2col(x)^T (pixels x K) * weight^T (K x O)
//
// conv.cpp has pixels in the lanes, and copies its weights. Here filters are: a vector is full
// whatever the number of pixels is, and of the weights only a panel exists, in the first-level cache,
// turned over where few pixels read it.
//
//   task: a block of at most kNC pixels, some panels of filters
//     for each chunk of K                                    kKC rows
//       pack the chunk of the block                          second-level cache
//       for each panel of filters, kNR wide: turn it over    first-level cache
//         for each tile of kMR pixels: microkernel           registers
//     turn the sums over, into the result
#include "algorithm.h"
#include "direct.h"
#include "families.h"
#include "narrow_panel.h"
#include "panel.h"
#include "vector_math.h"

namespace fastdl::FASTDL_ISA {

namespace {

// Multiplications that are worth another thread.
constexpr int64_t kWorth = 1 << 18;

// A task's sums, beside its block in the second-level cache.
template <class T>
constexpr int64_t kMostSums = (256 << 10) / static_cast<int64_t>(sizeof(T));

template <class T>
class TurnedProduct {
 public:
  TurnedProduct(const DirectConvolution<T>& conv, int threads) : conv(conv), g(conv.g) {
    filters = g.filters / g.groups;
    depth = g.channels / g.groups * g.kernel_h * g.kernel_w;
    chunks = ceil_div(depth, kKC);
    pixels = g.batch * g.out_h * g.out_w;
    panels = ceil_div(filters, kNR<T>);
    // Pixels of planes up to a block are read where they lie. Not of small planes, whose neighbours the
    // processor fetches in vain, nor where all planes' pixels are at one place in the cache.
    in_place = g.kernel_h * g.kernel_w * g.stride_w == 1 && g.height * g.out_h == 1 &&
               g.width == g.out_w && g.pad_left == 0 && g.width >= 8 * kLineLength<T> &&
               g.width <= kNC<T> && g.width % kLineLength<T> != 0;
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
    T *panels, *block, *sums;
    char* pixels;
    int64_t bytes;
  };

  struct Task {
    int64_t group, panel, end_panel, pixel, count;
  };

  const DirectConvolution<T>& conv;
  const ConvGeometry& g;
  int64_t filters, depth, chunks, pixels, panels, blocks, splits;
  bool in_place;

  int worth(int threads) const {
    return static_cast<int>(min(threads, pixels * filters * depth * g.groups / kWorth + 1));
  }

  int64_t tasks() const { return g.groups * blocks * splits; }

  void divide(int threads) {
    blocks = ceil_div(pixels, kNC<T>);
    // Every block's weights are turned over, every split's pixels packed: tasks are made of what is
    // cheaper, as measured, and are few where packing is more than a copy.
    const bool windows = g.kernel_h * g.kernel_w > 1;
    if (threads > 1 && windows)
      while (g.groups * blocks < threads && 2 * most_pixels() > filters) blocks *= 2;
    const int64_t most = max(1, kMostSums<T> / (most_pixels() * kNR<T>));
    splits = panel_shares(panels, ceil_div(panels, most), g.groups * blocks, threads, windows ? 1 : 2);
  }

  // Panels that are packed together: of weights as they lie, so many that a row of them is more than
  // a cache line.
  int64_t at_once() const { return conv.turned ? 4 : 1; }

  int64_t most_pixels() const { return ceil_div(pixels, blocks); }

  Memory memory_of(char* base) const {
    T* t = reinterpret_cast<T*>(base);
    Memory memory;
    memory.panels = t;
    memory.block = t += at_once() * kPanelSize<T>;
    memory.sums = t += in_place ? 0 : min(kKC, depth) * kBPitch<T>;
    memory.pixels = reinterpret_cast<char*>(
        t += (ceil_div(panels, splits) * most_pixels() + kLanes<T>) * kNR<T>);
    memory.bytes = memory.pixels - base + PixelBlock<T>::bytes(g, kNC<T>);
    return memory;
  }

  Task task_of(int64_t index) const {
    const int64_t split = index % splits, block = index / splits % blocks;
    const int64_t first = part(pixels, blocks, block);
    return {index / splits / blocks, part(panels, splits, split), part(panels, splits, split + 1),
            first, part(pixels, blocks, block + 1) - first};
  }

  void run_task(int64_t index, const Memory& memory) const {
    const Task task = task_of(index);
    const int64_t channels = g.channels / g.groups, size = g.height * g.width;
    PixelBlock<T> block(g, conv.x + task.group * channels * size,
                        conv.x + g.batch * g.channels * size, memory.pixels, kNC<T>);
    if (!in_place) block.set(task.pixel, task.count);
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const int64_t k = part(depth, chunks, chunk), k_end = part(depth, chunks, chunk + 1);
      if (!in_place) block.pack(k, k_end, kBPitch<T>, memory.block);
      multiply(task, k, k_end, memory);
    }
  }

  void multiply(const Task& task, int64_t k, int64_t k_end, const Memory& memory) const {
    T* c = memory.sums;
    for (int64_t p = task.panel; p < task.end_panel; ++p) {
      const int64_t filter = p * kNR<T>, packed = (p - task.panel) % at_once();
      if (packed == 0) {
        const int64_t end = min(filters, min(task.end_panel, p + at_once()) * kNR<T>);
        const T* weight = conv.weight + task.group * filters * depth;
        if (conv.turned)
          pack_copied(weight + k * filters + filter, filters, k_end - k, end - filter, memory.panels);
        else
          pack_turned(weight + filter * depth + k, depth, k_end - k, end - filter, memory.panels);
      }
      const int vectors = static_cast<int>(ceil_div(min(kNR<T>, filters - filter), kLanes<T>));
      const T* b = memory.panels + packed * kPanelSize<T>;
      if (in_place) {
        const int64_t plane = g.width, channels = g.channels / g.groups;
        for (int64_t done = 0; done < task.count;) {
          const int64_t image = (task.pixel + done) / plane, offset = (task.pixel + done) % plane;
          const int64_t length = min(task.count - done, plane - offset);
          const T* a = conv.x + (image * g.channels + task.group * channels + k) * plane + offset;
          multiply_panel<PlanesByPanel<T>>({plane}, length, vectors, k, k_end, a, b, c);
          c += length * kNR<T>;
          done += length;
        }
      } else {
        multiply_panel<BlockByPanel<T>>({}, task.count, vectors, k, k_end, memory.block, b, c);
        c += task.count * kNR<T>;
      }
      if (k_end == depth) deliver(task, p, memory);
    }
  }

  // `count` pixels, of which a holds the first term, by a panel.
  template <class Layout>
  static void multiply_panel(Layout layout, int64_t count, int vectors, int64_t k, int64_t k_end,
                             const T* a, const T* b, T* c) {
    const Tiles tiles(count);
    for (int64_t tile = 0; tile < tiles.count; ++tile) {
      const int tall = tiles.rows(tile);
      choose_microkernel<T, Layout>(tall, vectors)(k_end - k, a, b, c, kNR<T>, {nullptr, k > 0, false},
                                                   layout);
      a += tall;
      c += tall * kNR<T>;
    }
  }

  // The sums of a panel, turned over, to the result.
  void deliver(const Task& task, int64_t p, const Memory& memory) const {
    const T* sums = memory.sums + (p - task.panel) * task.count * kNR<T>;
    const int64_t end = min(filters, (p + 1) * kNR<T>);
    for (int64_t filter = p * kNR<T>; filter < end; filter += kLanes<T>, sums += kLanes<T>) {
      const int64_t first = task.group * filters + filter, count = min(kLanes<T>, end - filter);
      const T* bias = conv.bias ? conv.bias + first : nullptr;
      each_stretch(conv, task.pixel, task.count,
                   [&](int64_t offset, int64_t position, int64_t length) {
        T* out = conv.out + first * conv.plane + offset;
        const T* from = sums + position * kNR<T>;
        if (conv.column == 1) deliver_rows(from, length, count, bias, out);
        else
          for (int64_t i = 0; i < length; ++i)
            for (int64_t o = 0; o < count; ++o)
              out[o * conv.plane + i * conv.column] = from[i * kNR<T> + o];
      });
      if (conv.activation != kSigmoid && conv.activation != kTanh) continue;
      each_stretch(conv, task.pixel, task.count, [&](int64_t offset, int64_t, int64_t length) {
        for (int64_t o = 0; o < count; ++o) {
          T* out = conv.out + (first + o) * conv.plane + offset;
          activate(kDtype<T>, conv.activation, out, length, out, 1);
        }
      });
    }
  }

  // `length` pixels of at most a vector of filters, which has `count` of them.
  void deliver_rows(const T* from, int64_t length, int64_t count, const T* bias, T* out) const {
    constexpr int64_t lanes = kLanes<T>;
    for (int64_t done = 0; done < length; done += lanes) {
      // The last vector reaches back where it can.
      const int64_t i = length < lanes ? 0 : min(done, length - lanes);
      Vector<T> square[lanes];
      load_transposed<T>(from + i * kNR<T>, kNR<T>, square);
#pragma GCC unroll 16
      for (int o = 0; o < lanes; ++o) {
        if (o >= count) continue;
        Vector<T> value = square[o];
        if (bias) value += splat(bias[o]);
        if (conv.activation == kRelu) value = relu<T>(value);
        store_some<T>(out + o * conv.plane + i, length - i, value);
      }
    }
  }
};

}  // namespace

// Cycles of both ways, whose products differ in what is rounded up: a panel of one vector takes as
// long as 4/3 of one. What surrounds them is measured: of packing the weights, an element; of the
// results, an element, and the beginning of each image's.
template <class T>
bool filter_lanes_pay(const DirectConvolution<T>& conv) {
  const ConvGeometry& g = conv.g;
  auto vectors = [](double size) {
    const int64_t count = ceil_div(static_cast<int64_t>(size), kLanes<T>);
    return static_cast<double>(count) + (count % kNRVectors ? 1.0 / 3 : 0);
  };
  const double filters = static_cast<double>(g.filters / g.groups);
  const double depth = static_cast<double>(g.channels / g.groups * g.kernel_h * g.kernel_w);
  const double plane = static_cast<double>(g.out_h * g.out_w);
  const double all = static_cast<double>(g.batch) * plane;
  const double pixels = all / __builtin_ceil(all / kNC<T>), images = pixels / plane;
  const double here = depth * (pixels * vectors(filters) / 2 + (conv.turned ? 0.1 : 0.25) * filters) +
                      (conv.column == 1 ? 0.75 : 2) * filters * pixels;
  const double there = depth * filters * (vectors(pixels) / 2 + 0.3) +
                       filters * ((conv.column == 1 ? 0.25 : 2) * pixels + 10 * images);
  return here < there;
}

template <class T>
int filter_lanes(const DirectConvolution<T>& conv, int threads) {
  return TurnedProduct<T>(conv, threads).run(threads);
}

template <class T>
int64_t filter_lanes_workspace_bytes(const DirectConvolution<T>& conv, int threads) {
  return TurnedProduct<T>(conv, threads).workspace_bytes(threads);
}

#define FASTDL_INSTANTIATE(T)                                        \
  template bool filter_lanes_pay(const DirectConvolution<T>&); \
  template int filter_lanes(const DirectConvolution<T>&, int);       \
  template int64_t filter_lanes_workspace_bytes(const DirectConvolution<T>&, int);
FASTDL_INSTANTIATE(float)
FASTDL_INSTANTIATE(double)
#undef FASTDL_INSTANTIATE

}  // namespace fastdl::FASTDL_ISA
