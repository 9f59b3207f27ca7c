// A product of matrices in memory, C (M x N) = A (M x K) * B (K x N), either of them as it lies or
// transposed.
//
//   task: at most kNC rows, at most kPanels panels of columns
//     for each chunk of K                                  kKC terms
//       pack the rows' chunk of A, the panels' of B        second-level cache
//       for each panel, kNR columns wide                   first-level cache
//         for each tile of kMR rows: microkernel           registers
//     copy the sums to C
#include "matrix_product.h"

#include <cstring>

#include "algorithm.h"
#include "narrow_panel.h"
#include "stream.h"

namespace fastdl::FASTDL_ISA {

namespace {

// A task's panels of B take at most 200 KiB of the second-level cache, as its rows of A do.
template <class T>
constexpr int64_t kPanels = (200 << 10) / (kPanelSize<T> * static_cast<int64_t>(sizeof(T)));

template <class T>
class PackedProduct {
 public:
  PackedProduct(const MatrixProduct<T>& product, int threads) : m(product) {
    terms = m.pieces * m.depth;
    chunks = ceil_div(terms, kKC);
    panels = ceil_div(m.columns, kNR<T>);
    blocks = ceil_div(m.rows, kNC<T>);
    if (threads > 1 && m.slices * blocks * panels < 2 * threads)
      blocks = min(2 * threads, ceil_div(m.rows, 4 * kMR));
    shares = panel_shares(panels, ceil_div(panels, kPanels<T>), m.slices * blocks, threads);
    past_caches = m.columns % kNR<T> == 0 && kNR<T> % kLineLength<T> == 0 && to_next_line(m.c) == 0 &&
                  goes_past_caches(m.rows * m.columns * static_cast<int64_t>(sizeof(T)));
  }

  int run(int threads) {
    return parallel_in_workspace(
        m.slices * blocks * shares, threads, memory_of(nullptr).bytes,
        [&](int64_t task, char* memory) { run_task(task, memory_of(memory)); });
  }

 private:
  struct Memory {
    T *a, *b, *sums;
    int64_t bytes;
  };

  struct Task {
    int64_t row, rows, column, columns, chunk, end_chunk;
    T* c;
  };

  const MatrixProduct<T>& m;
  int64_t terms, chunks, panels, blocks, shares;
  bool past_caches;

  bool a_lies_in_rows() const { return m.a_term == 1; }

  Memory memory_of(char* base) const {
    const int64_t tall = ceil_div(m.rows, blocks), wide = ceil_div(panels, shares);
    T* t = reinterpret_cast<T*>(base);
    Memory memory;
    memory.a = t;
    memory.b = t += a_lies_in_rows() ? tall * kAPitch<T> : min(kKC, terms) * kBPitch<T>;
    memory.sums = t += wide * kPanelSize<T>;
    memory.bytes = reinterpret_cast<char*>(t + wide * tall * kNR<T>) - base;
    return memory;
  }

  Task task_of(int64_t index) const {
    const int64_t share = index % shares, block = index / shares % blocks;
    const int64_t slice = index / shares / blocks;
    Task task;
    task.row = part(m.rows, blocks, block);
    task.rows = part(m.rows, blocks, block + 1) - task.row;
    task.column = part(panels, shares, share) * kNR<T>;
    task.columns = min(m.columns, part(panels, shares, share + 1) * kNR<T>) - task.column;
    task.chunk = part(chunks, m.slices, slice);
    task.end_chunk = part(chunks, m.slices, slice + 1);
    task.c = m.c + (slice * m.rows + task.row) * m.columns + task.column;
    return task;
  }

  void run_task(int64_t index, const Memory& memory) const {
    const Task task = task_of(index);
    for (int64_t chunk = task.chunk; chunk < task.end_chunk; ++chunk) {
      const int64_t k = part(terms, chunks, chunk), end = part(terms, chunks, chunk + 1);
      for (int64_t done = k; done < end;) {
        const int64_t piece = done / m.depth, from = done % m.depth;
        const int64_t count = min(end - done, m.depth - from);
        pack_rows(task, piece, from, count, done - k, memory.a);
        pack_panels(task, piece, from, count, done - k, memory.b);
        done += count;
      }
      const bool accumulate = chunk > task.chunk;
      if (a_lies_in_rows()) multiply<RowsByPanel<T>>(task, end - k, accumulate, memory);
      else multiply<BlockByPanel<T>>(task, end - k, accumulate, memory);
    }
    deliver(task, memory.sums);
  }

  // Terms [k, k + count) of a piece, as the terms of the chunk from `at` on.
  void pack_rows(const Task& task, int64_t piece, int64_t k, int64_t count, int64_t at, T* to) const {
    const T* from = m.a + piece * m.a_piece + task.row * m.a_row + k * m.a_term;
    if (a_lies_in_rows()) {
      to += at;
      for (int64_t i = 0; i < task.rows; ++i, from += m.a_row, to += kAPitch<T>)
        memcpy(to, from, static_cast<size_t>(count) * sizeof(T));
    } else {
      to += at * kBPitch<T>;
      for (int64_t i = 0; i < count; ++i, from += m.a_term, to += kBPitch<T>)
        memcpy(to, from, static_cast<size_t>(task.rows) * sizeof(T));
    }
  }

  void pack_panels(const Task& task, int64_t piece, int64_t k, int64_t count, int64_t at, T* to) const {
    const T* from = m.b + piece * m.b_piece + k * m.b_term + task.column * m.b_column;
    to += at * kNR<T>;
    if (m.b_column == 1) pack_copied(from, m.b_term, count, task.columns, to);
    else pack_turned(from, m.b_column, count, task.columns, to);
  }

  template <class Layout>
  void multiply(const Task& task, int64_t depth, bool accumulate, const Memory& memory) const {
    const Tiles tiles(task.rows);
    const T* b = memory.b;
    for (int64_t j = 0; j < task.columns; j += kNR<T>, b += kPanelSize<T>) {
      T* c = memory.sums + j * task.rows;
      int64_t ldc = kNR<T>;
      if (in_place(task, j)) c = task.c + j, ldc = m.columns;
      const int vectors =
          static_cast<int>(ceil_div(min(kNR<T>, task.columns - j), kLanes<T>));
      const T* a = memory.a;
      for (int64_t tile = 0; tile < tiles.count; ++tile) {
        const int tall = tiles.rows(tile);
        choose_microkernel<T, Layout>(tall, vectors)(depth, a, b, c, ldc,
                                                     {nullptr, accumulate, false}, {});
        a += tall * Layout::row;
        c += tall * ldc;
      }
    }
  }

  // Whether a panel is summed in the result.
  bool in_place(const Task& task, int64_t column) const {
    return !m.bias && !past_caches && column + kNR<T> <= task.columns;
  }

  void deliver(const Task& task, const T* sums) const {
    const int64_t done = in_place(task, 0) ? task.columns / kNR<T> * kNR<T> : 0;
    if (done == task.columns) return;
    sums += done * task.rows;
    for (int64_t i = 0; i < task.rows; ++i) {
      T* to = task.c + i * m.columns;
      const T* from = sums + i * kNR<T>;
      for (int64_t j = done; j < task.columns; j += kNR<T>, from += task.rows * kNR<T>)
#pragma GCC unroll 4
        for (int64_t v = 0; v < kNR<T>; v += kLanes<T>) {
          const int64_t at = j + v, count = min(kLanes<T>, task.columns - at);
          if (count <= 0) break;
          Vector<T> value = load(from + v);
          if (m.bias) value += load_some(m.bias + task.column + at, count, T(0));
          if (past_caches) stream<T>(to + at, value);
          else store_some<T>(to + at, count, value);
        }
    }
    if (past_caches) end_of_stream();
  }
};

}  // namespace

template <class T>
int matrix_product(const MatrixProduct<T>& product, int threads) {
  return PackedProduct<T>(product, threads).run(threads);
}

template int matrix_product(const MatrixProduct<float>&, int);
template int matrix_product(const MatrixProduct<double>&, int);

}  // namespace fastdl::FASTDL_ISA
