// Blocks of the im2col matrix, written where and when the microkernel needs them.
//
// The im2col matrix of one group has a row for each k = (channel, kernel row, kernel column) and a
// column for each output pixel p, counted through the whole batch. It is never built: a PixelBlock
// stands for `count` neighbouring pixels, and `pack` writes rows [k_begin, k_end) of it.
//
//   pixels of a block:  | end of row i | row i+1 ...  | start of row i+2 |     <- runs
//
// Within a run (one output row) a tap (kernel row and column) reads every stride-th pixel of a row
// of x. So that this is a plain copy, the rows of a channel that the block sees are staged first:
// with zeros where padding is, and the columns divided by their remainder modulo the stride (phase).
//
//   stage row:  | columns 0, s, 2s, ... | columns 1, s+1, ... | ...            <- phases
//
// A staged element is copied by up to KH * KW / (s * s) taps. Kernels of one tap go without.
#pragma once

#include "microkernel.h"
#include "vector_math.h"

namespace fastdl::FASTDL_ISA {

// Neighbouring pixels of one output row.
struct Run {
  int64_t image, row, column;
  int64_t source;         // where its first tap reads: in the stage, or in x from image 0's channel
  int32_t first, length;  // where in the block
  int32_t left, right;    // without stage: pixels in the padding at either end
};

// Rows of a channel that are staged together: rows row, row + step, ... of x, from output column
// `column` on.
struct Strip {
  int64_t image, row, column, rows;
  static constexpr int kPhases = 4;          // of which it is remembered
  int32_t left[kPhases], right[kPhases];     // where a phase enters x and leaves it
};

// Elements of a channel that a block reads, as cache lines.
struct Stretch {
  int64_t offset;  // from image 0's channel
  int64_t lines;
};

// Elements before `size` of the sequence start, start + stride, ...
FASTDL_INLINE int64_t count_below(int64_t size, int64_t start, int64_t stride, int64_t length) {
  return max(0, min(length, ceil_div(size - start, stride)));
}

// to[i] = from[i * stride]
template <class T, int stride>
FASTDL_INLINE void copy_each(const T* __restrict from, int64_t count, T* __restrict to) {
  int64_t i = 0;
  for (; i + kLanes<T> <= count; i += kLanes<T>)
    for (int j = 0; j < kLanes<T>; ++j) to[i + j] = from[(i + j) * stride];
  for (; i < count; ++i) to[i] = from[i * stride];
}

template <class T>
FASTDL_INLINE void copy_strided(const T* from, int64_t stride, int64_t count, T* to) {
  switch (stride) {
    case 1: return copy_each<T, 1>(from, count, to);
    case 2: return copy_each<T, 2>(from, count, to);
    case 3: return copy_each<T, 3>(from, count, to);
    case 4: return copy_each<T, 4>(from, count, to);
    default:
      for (int64_t i = 0; i < count; ++i) to[i] = from[i * stride];
  }
}

// Whole vectors: up to a vector more than `count` elements are read and written.
template <class T>
FASTDL_INLINE void copy_vectors(const T* from, int64_t count, T* to) {
  for (int64_t i = 0; i < count; i += kLanes<T>) store(to + i, load(from + i));
}

template <class T>
class PixelBlock {
 public:
  // Bytes of memory that blocks of at most `count` pixels need.
  static int64_t bytes(const ConvGeometry& g, int64_t count) {
    constexpr int64_t run_bytes = sizeof(Run) + sizeof(Strip) + sizeof(Stretch);
    return most_runs(g, count) * run_bytes +
           g.kernel_h * g.kernel_w * static_cast<int64_t>(sizeof(int64_t)) +
           (stage_size(g, most_runs(g, count) * g.kernel_h, min(g.out_w, count)) + kLanes<T>) *
               static_cast<int64_t>(sizeof(T));
  }

  // `group` is the group's first channel of image 0, `end` the end of all of x.
  PixelBlock(const ConvGeometry& g, const T* group, const T* end, char* memory, int64_t most)
      : g(g), group(group), end(end), taps(g.kernel_h * g.kernel_w), phase_count(phases(g)) {
    const int64_t most_run = most_runs(g, most);
    runs = reinterpret_cast<Run*>(memory);
    strips = reinterpret_cast<Strip*>(runs + most_run);
    stretches = reinterpret_cast<Stretch*>(strips + most_run);
    tap_source = reinterpret_cast<int64_t*>(stretches + most_run);
    stage = reinterpret_cast<T*>(tap_source + taps);
  }

  // The block of pixels [begin, begin + count).
  void set(int64_t begin, int64_t count) {
    find_runs(begin, count);
    if (taps > 1) {
      set_strips(count);
      set_taps();
      staged_channel = -1;
    } else {
      for (int r = 0; r < run_count; ++r) set_source(runs[r]);
    }
    set_stretches();
  }

  // Rows [k_begin, k_end), `pitch` elements apart; up to a vector after each is overwritten.
  void pack(int64_t k_begin, int64_t k_end, int64_t pitch, T* to) {
    int64_t channel = k_begin / taps, tap = k_begin % taps;
    for (int64_t k = k_begin; k < k_end; ++k, to += pitch) {
      if (taps > 1) pack_tap(channel, tap, to);
      else pack_channel(channel, to);
      if (++tap == taps) tap = 0, ++channel;
    }
  }

  // What rows [k_begin, k_end) are packed from, line by line, to be asked for in time.
  class Lines {
   public:
    Lines() = default;
    Lines(const PixelBlock& block, int64_t k_begin, int64_t k_end)
        : block(&block), channel(k_begin / block.taps), last(ceil_div(k_end, block.taps)) {
      for (int i = 0; i < block.stretch_count; ++i) count += block.stretches[i].lines;
      count *= last - channel;
    }
    int64_t count = 0;
    void prefetch(int64_t lines) {
      for (; lines > 0 && channel < last; --lines) {
        const Stretch& stretch = block->stretches[index];
        __builtin_prefetch(block->group + channel * block->g.height * block->g.width +
                           stretch.offset + line * kLineLength<T>);
        if (++line < stretch.lines) continue;
        line = 0;
        if (++index < block->stretch_count) continue;
        index = 0;
        ++channel;
      }
    }

   private:
    const PixelBlock* block = nullptr;
    int64_t channel = 0, last = 0, line = 0;
    int index = 0;
  };

 private:
  const ConvGeometry& g;
  const T *group, *end;
  int64_t taps, phase_count;
  Run* runs;
  int run_count = 0;
  Strip* strips;
  int strip_count = 0;
  Stretch* stretches;
  int stretch_count = 0;
  int64_t* tap_source;  // where each tap reads, from where the first one does
  T* stage;
  int64_t staged_channel = -1;
  // Input rows between the rows of a strip; stage rows between a kernel's rows; elements of a
  // phase.
  int64_t row_step = 0, tap_step = 0, phase_pitch = 0;

  static int64_t most_runs(const ConvGeometry& g, int64_t count) {
    return min(count, (count - 1) / g.out_w + 2);
  }
  // Phases that a kernel's columns fall into.
  static int64_t phases(const ConvGeometry& g) {
    if (g.dilation_w % g.stride_w == 0) return 1;
    return min(g.stride_w, (g.kernel_w - 1) * g.dilation_w + 1);
  }
  static int64_t phase_size(const ConvGeometry& g, int64_t columns) {
    return columns + (g.kernel_w - 1) * g.dilation_w / g.stride_w;
  }
  static int64_t stage_size(const ConvGeometry& g, int64_t rows, int64_t columns) {
    return rows * phases(g) * phase_size(g, columns);
  }

  void find_runs(int64_t pixel, int64_t count) {
    int64_t column = pixel % g.out_w, row = pixel / g.out_w % g.out_h;
    int64_t image = pixel / g.out_w / g.out_h;
    run_count = 0;
    for (int64_t done = 0; done < count;) {
      int64_t length = min(count - done, g.out_w - column);
      runs[run_count++] = {image, row, column, 0, static_cast<int32_t>(done),
                           static_cast<int32_t>(length), 0, 0};
      done += length;
      column = 0;
      if (++row == g.out_h) row = 0, ++image;
    }
  }

  void add_stretch(int64_t offset, int64_t length) {
    if (length > 0) stretches[stretch_count++] = {offset, length / kLineLength<T> + 1};
  }

  void set_stretches() {
    stretch_count = 0;
    if (taps == 1)
      for (int r = 0; r < run_count; ++r)
        add_stretch(runs[r].source + runs[r].left * g.stride_w,
                    (runs[r].length - runs[r].left - runs[r].right) * g.stride_w);
    else
      for (int s = 0; s < strip_count; ++s) {
        int64_t first = max(strips[s].row, 0);
        int64_t last = min(strips[s].row + (strips[s].rows - 1) * row_step + 1, g.height);
        add_stretch((strips[s].image * g.channels * g.height + first) * g.width,
                    (last - first) * g.width);
      }
  }

  // ---- without stage ----

  void set_source(Run& run) {
    int64_t row = run.row * g.stride_h - g.pad_top;
    int64_t column = run.column * g.stride_w - g.pad_left;
    run.source = (run.image * g.channels * g.height + row) * g.width + column;
    run.left = static_cast<int32_t>(count_below(0, column, g.stride_w, run.length));
    run.right = static_cast<int32_t>(
        run.length - count_below(g.width, column, g.stride_w, run.length));
    if (row < 0 || row >= g.height || run.left + run.right >= run.length)
      run.left = run.length, run.right = 0;
  }

  void pack_channel(int64_t channel, T* row) {
    for (int r = 0; r < run_count; ++r) {
      const Run& run = runs[r];
      const T* from = group + channel * g.height * g.width + run.source;
      T* to = row + run.first;
      for (int32_t i = 0; i < run.left; ++i) to[i] = 0;
      for (int32_t i = run.length - run.right; i < run.length; ++i) to[i] = 0;
      int32_t count = run.length - run.left - run.right;
      if (g.stride_w == 1 && from + run.length + kLanes<T> <= end && !run.left && !run.right)
        copy_vectors(from, count, to);
      else
        copy_strided(from + run.left * g.stride_w, g.stride_w, count, to + run.left);
    }
  }

  // ---- with stage ----

  // Strips are either the rows that an image's runs share, or each run's own, whichever are less.
  void set_strips(int64_t count) {
    int64_t shared_rows = 0;
    for (int r = 0, first = 0; r < run_count; ++r)
      if (r + 1 == run_count || runs[r + 1].image != runs[r].image) {
        shared_rows += (r - first) * g.stride_h + (g.kernel_h - 1) * g.dilation_h + 1;
        first = r + 1;
      }
    const bool share = stage_size(g, shared_rows, g.out_w) <
                       stage_size(g, run_count * g.kernel_h, min(g.out_w, count));
    row_step = share ? 1 : g.dilation_h;
    tap_step = share ? g.dilation_h : 1;
    phase_pitch = phase_size(g, share ? g.out_w : min(g.out_w, count));

    strip_count = 0;
    int64_t rows = 0;
    for (int r = 0; r < run_count; ++r) {
      Run& run = runs[r];
      if (share && r > 0 && runs[r - 1].image == run.image) {
        run.source = runs[r - 1].source + g.stride_h * phase_count * phase_pitch;
        if (r == 1) run.source -= runs[0].column;
        strips[strip_count - 1].rows += g.stride_h;
        rows += g.stride_h;
        continue;
      }
      int64_t own = share ? (g.kernel_h - 1) * g.dilation_h + 1 : g.kernel_h;
      strips[strip_count] = {run.image, run.row * g.stride_h - g.pad_top, share ? 0 : run.column, own,
                             {}, {}};
      set_edges(strips[strip_count++]);
      run.source = rows * phase_count * phase_pitch + (share ? run.column : 0);
      rows += own;
    }
  }

  void set_taps() {
    int64_t* source = tap_source;
    for (int64_t a = 0; a < g.kernel_h; ++a)
      for (int64_t b = 0; b < g.kernel_w; ++b) {
        int64_t column = b * g.dilation_w;
        *source++ = (a * tap_step * phase_count + column % g.stride_w) * phase_pitch +
                    column / g.stride_w;
      }
  }

  // The first column of x that a phase of a strip reads, maybe in the padding.
  int64_t first_column(const Strip& strip, int64_t phase) const {
    return strip.column * g.stride_w + phase - g.pad_left;
  }
  int64_t enters(const Strip& strip, int64_t phase) const {
    return count_below(0, first_column(strip, phase), g.stride_w, phase_pitch);
  }
  int64_t leaves(const Strip& strip, int64_t phase) const {
    return max(enters(strip, phase),
               count_below(g.width, first_column(strip, phase), g.stride_w, phase_pitch));
  }

  void set_edges(Strip& strip) const {
    for (int64_t phase = 0; phase < min(phase_count, Strip::kPhases); ++phase) {
      strip.left[phase] = static_cast<int32_t>(enters(strip, phase));
      strip.right[phase] = static_cast<int32_t>(leaves(strip, phase));
    }
  }

  static void zero_vectors(T* to, T* to_end) {
    for (; to < to_end; to += kLanes<T>) store(to, Vector<T>{});
  }

  // to[i] = x[column + i * stride] of a row of x, zero outside it. Up to a vector after it is
  // overwritten.
  void stage_phase(const Strip& strip, int64_t phase, const T* row, T* to) const {
    const bool known = phase < Strip::kPhases;
    const int64_t left = known ? strip.left[phase] : enters(strip, phase);
    const int64_t right = known ? strip.right[phase] : leaves(strip, phase);
    const T* from = row + first_column(strip, phase) + left * g.stride_w;
    const int64_t count = right - left, rounded = count + kLanes<T> - 1;
    zero_vectors(to, to + left);
    if (g.stride_w == 1 && from + rounded <= end) {
      copy_vectors(from, count, to + left);
    } else if (g.stride_w == 2 && from + 2 * rounded + 1 <= end) {
      for (int64_t i = 0; i < count; i += kLanes<T>)
        store(to + left + i, even_lanes<T>(load(from + 2 * i), load(from + 2 * i + kLanes<T>)));
    } else {
      copy_strided(from, g.stride_w, count, to + left);
    }
    zero_vectors(to + right, to + phase_pitch);
  }

  // Row by row, phase by phase, so that what is overwritten is written after.
  void stage_channel(int64_t channel) {
    T* to = stage;
    for (int s = 0; s < strip_count; ++s) {
      const Strip& strip = strips[s];
      const T* image = group + (strip.image * g.channels + channel) * g.height * g.width;
      for (int64_t r = 0; r < strip.rows; ++r) {
        const int64_t row = strip.row + r * row_step;
        if (row < 0 || row >= g.height) {
          zero_vectors(to, to + phase_count * phase_pitch);
          to += phase_count * phase_pitch;
          continue;
        }
        for (int64_t phase = 0; phase < phase_count; ++phase, to += phase_pitch)
          stage_phase(strip, phase, image + row * g.width, to);
      }
    }
    staged_channel = channel;
  }

  void pack_tap(int64_t channel, int64_t tap, T* row) {
    if (channel != staged_channel) stage_channel(channel);
    const T* from = stage + tap_source[tap];
    for (int r = 0; r < run_count; ++r)
      copy_vectors(from + runs[r].source, runs[r].length, row + runs[r].first);
  }
};

}  // namespace fastdl::FASTDL_ISA
