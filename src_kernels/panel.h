// Panels: pieces of the im2col matrix, written where and when a microkernel needs them.
//
// The im2col matrix of one group has a row for each k = (channel, kernel row, kernel column) and a
// column for each output pixel p, counted through the whole batch. It is never built: a Panel
// stands for `count` neighbouring pixels, and `pack` writes rows [k_begin, k_end) of it.
//
//   pixels of a panel:  | end of row i | row i+1 ...  | start of row i+2 |     <- runs
//
// Within a run (one output row), a tap (kernel row and column) reads consecutive pixels of x for
// stride 1, else every stride-th. So each (tap, run) is one copy, the same for every channel: a
// Copy says from where, and how much of it hangs over the left and right edge.
#pragma once

#include <cstring>

#include "isa.h"

namespace fastdl::FASTDL_ISA {

// Neighbouring pixels of one output row.
struct Run {
  int64_t image, row, column;
  int32_t first, length;  // where in the panel
};

struct Copy {
  int64_t source;                // from the group's first element of image 0
  int32_t first, length;         // where in the panel's row
  int32_t left, right;           // elements outside x at either end; left == length: all
  int32_t vectors;               // that it takes to hold `length` elements
};

// Runs that `count` pixels can fall into.
FASTDL_INLINE int64_t most_runs(const ConvGeometry& g, int64_t count) {
  return min(count, (count - 1) / g.out_w + 2);
}

FASTDL_INLINE int find_runs(const ConvGeometry& g, int64_t pixel, int64_t count, Run* runs) {
  int found = 0;
  int64_t column = pixel % g.out_w, row = pixel / g.out_w % g.out_h;
  int64_t image = pixel / g.out_w / g.out_h;
  for (int64_t done = 0; done < count;) {
    int64_t length = min(count - done, g.out_w - column);
    runs[found++] = {image, row, column, static_cast<int32_t>(done), static_cast<int32_t>(length)};
    done += length;
    column = 0;
    if (++row == g.out_h) row = 0, ++image;
  }
  return found;
}

// Elements before `size` of the sequence start, start + stride, ...
FASTDL_INLINE int64_t count_below(int64_t size, int64_t start, int64_t stride, int64_t length) {
  return max(0, min(length, ceil_div(size - start, stride)));
}

FASTDL_INLINE Copy find_copy(const ConvGeometry& g, const Run& run, int64_t tap) {
  int64_t row = run.row * g.stride_h - g.pad_top + tap / g.kernel_w * g.dilation_h;
  int64_t column = run.column * g.stride_w - g.pad_left + tap % g.kernel_w * g.dilation_w;
  Copy copy;
  copy.source = (run.image * g.channels * g.height + row) * g.width + column;
  copy.first = run.first;
  copy.length = run.length;
  int64_t left = count_below(0, column, g.stride_w, run.length);
  int64_t right = run.length - count_below(g.width, column, g.stride_w, run.length);
  if (row < 0 || row >= g.height || left + right >= run.length) left = run.length, right = 0;
  copy.left = static_cast<int32_t>(left);
  copy.right = static_cast<int32_t>(right);
  copy.vectors = 0;
  return copy;
}

// The piece of x that one group's panels are packed from.
template <class T>
struct Source {
  const T* group;         // the group's first channel of image 0
  const T *begin, *end;   // all of x
};

// kLanes elements from every `stride`-th of `from`; the loop's constant length lets it become
// vector loads and shuffles.
template <class T, int stride>
FASTDL_INLINE void copy_lanes(const T* __restrict from, T* __restrict to) {
  for (int i = 0; i < kLanes<T>; ++i) to[i] = from[i * stride];
}

// One copy of one channel. Where x allows the reading of whole vectors (`safe`) it writes whole
// vectors: what runs over its end is overwritten by the next copy, or falls into slack at the
// panel's end. Then it zeroes the padding, which is less work than to leave it out.
template <class T>
FASTDL_INLINE void run_copy(const Copy& copy, const T* from, int64_t stride, bool safe, T* row) {
  T* to = row + copy.first;
  if (copy.left == copy.length) {
    for (int32_t v = 0; v < copy.vectors; ++v) store(to + v * kLanes<T>, Vector<T>{});
    return;
  }
  if (safe && stride == 1) {
    for (int32_t v = 0; v < copy.vectors; ++v) store(to + v * kLanes<T>, load(from + v * kLanes<T>));
  } else if (safe && stride == 2) {
    for (int32_t v = 0; v < copy.vectors; ++v)
      copy_lanes<T, 2>(from + 2 * v * kLanes<T>, to + v * kLanes<T>);
  } else {
    for (int32_t i = copy.left; i < copy.length - copy.right; ++i) to[i] = from[i * stride];
  }
  if (copy.left | copy.right) {
    for (int32_t i = 0; i < copy.left; ++i) to[i] = 0;
    for (int32_t i = copy.length - copy.right; i < copy.length; ++i) to[i] = 0;
  }
}

// A panel and the copies of its taps [tap_begin, tap_end).
struct Panel {
  Run* runs;
  Copy* copies;
  int run_count;
  int64_t tap_begin, tap_end;
  int64_t lowest, highest;  // all that the copies read, as whole vectors, from the channel's start
};

template <class T>
FASTDL_INLINE void set_taps(const ConvGeometry& g, Panel& panel, int64_t begin, int64_t end) {
  panel.tap_begin = begin;
  panel.tap_end = end;
  panel.lowest = panel.highest = 0;
  Copy* copy = panel.copies;
  for (int64_t tap = begin; tap < end; ++tap)
    for (int r = 0; r < panel.run_count; ++r, ++copy) {
      *copy = find_copy(g, panel.runs[r], tap);
      copy->vectors = static_cast<int32_t>(ceil_div(copy->length, kLanes<T>));
      if (copy->left == copy->length) continue;
      panel.lowest = min(panel.lowest, copy->source);
      panel.highest =
          max(panel.highest, copy->source + copy->vectors * kLanes<T> * g.stride_w);
    }
}

// Rows [k_begin, k_end) of the panel, `stride` elements apart, which may overrun the last by a
// vector. The taps among them must be set.
template <class T>
static void pack(const ConvGeometry& g, const Panel& panel, const Source<T>& source,
                 int64_t k_begin, int64_t k_end, int64_t stride, T* to) {
  int64_t taps = g.kernel_h * g.kernel_w, plane = g.height * g.width;
  int64_t channel = k_begin / taps, tap = k_begin % taps;
  for (int64_t k = k_begin; k < k_end; ++k, to += stride) {
    const T* from = source.group + channel * plane;
    const bool safe = from + panel.lowest >= source.begin && from + panel.highest <= source.end;
    const Copy* copy = panel.copies + (tap - panel.tap_begin) * panel.run_count;
    for (int r = 0; r < panel.run_count; ++r)
      run_copy(copy[r], from + copy[r].source, g.stride_w, safe, to);
    if (++tap == taps) tap = 0, ++channel;
  }
}

// Where the chunk of a long sum that starts at k ends: after at most `most` rows, and, where a
// channel has more taps than that, within the channel.
FASTDL_INLINE int64_t chunk_end(const ConvGeometry& g, int64_t k, int64_t most) {
  int64_t taps = g.kernel_h * g.kernel_w, all = taps * (g.channels / g.groups);
  if (taps > most) return min(k + most, (k / taps + 1) * taps);
  return min(k + most, all);
}

// Copies that a panel of `count` pixels needs room for.
FASTDL_INLINE int64_t most_copies(const ConvGeometry& g, int64_t count, int64_t most) {
  return min(g.kernel_h * g.kernel_w, most) * most_runs(g, count);
}

// Sets the taps of chunk [k, ...) if there are too many to keep all.
template <class T>
FASTDL_INLINE void set_chunk_taps(const ConvGeometry& g, Panel& panel, int64_t k, int64_t k_end,
                                  int64_t most) {
  int64_t taps = g.kernel_h * g.kernel_w;
  if (taps > most) set_taps<T>(g, panel, k % taps, k % taps + (k_end - k));
}

}  // namespace fastdl::FASTDL_ISA
