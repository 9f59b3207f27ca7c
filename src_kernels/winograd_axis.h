// How Winograd's algorithm sees one axis of a convolution: cut into parts of few taps.
//
// An axis of K taps is one part, or two of which the second has as many taps as the first or one
// less; r are the taps of the first. Together they are at most 11 products for m = 7 - r outputs:
//
//   stride 1:  K <= 4  one part                        dilation d: d interleaved images (phases)
//              K <= 8  taps 0..r-1 and r..K-1                        with outputs and inputs d apart
//   stride 2:  K <= 8  taps 0, 2, ... and 1, 3, ...    each reads every other pixel
//
//   K, stride     r, m    products for an output, both axes; of the direct sum
//   3, 1          3, 4    2.25 of 9
//   5, 1 or 2     3, 4    7.56 of 25
//   7, 1 or 2     4, 3    13.4 of 49
//   3, 2          2, 5    4.84 of 9
//
// In a convolution the parts of an axis are summed up. In the input gradient of one with stride 2,
// each part makes the pixels of its own parity, from the same tiles of the output's gradient.
#pragma once

#include "winograd.h"

namespace fastdl::FASTDL_ISA {

// The taps first, first + step, ... of an axis; what is added to where tiles read and write.
struct AxisPart {
  int taps;
  int64_t first, step, read, write;
};

struct WinogradAxis {
  // Tile t of phase q reads pixels q + read + read_step * (m * t + 0..5), and writes
  // q + write + write_step * (m * t + 0..m-1) of `size`.
  int64_t phases, read_step, write_step, size, tiles;
  int parts;
  AxisPart part[2];
};

// Taps of the largest part of an axis; 0 where the algorithm does not serve.
FASTDL_INLINE int largest_part(int64_t taps, int64_t stride, int64_t dilation) {
  if (stride == 1 && taps >= 2 && taps <= 4) return static_cast<int>(taps);
  const bool cut = stride == 1 ? taps >= 5 : stride == 2 && dilation == 1 && taps >= 3;
  return cut && taps <= 2 * kMostTaps ? static_cast<int>(taps + 1) / 2 : 0;
}

// The axis of a convolution of `in` pixels to `out`.
FASTDL_INLINE WinogradAxis forward_axis(int64_t out, int64_t taps, int64_t stride, int64_t dilation,
                                        int64_t pad) {
  const int largest = largest_part(taps, stride, dilation);
  WinogradAxis axis = {};
  axis.size = out;
  axis.parts = taps > largest ? 2 : 1;
  axis.phases = min(dilation, out);
  axis.read_step = stride * dilation;
  axis.write_step = dilation;
  axis.tiles = ceil_div(ceil_div(out, dilation), 7 - largest);
  for (int p = 0; p < axis.parts; ++p) {
    AxisPart& part = axis.part[p];
    part.taps = p == 0 ? largest : static_cast<int>(taps) - largest;
    part.first = stride == 1 ? p * largest : p;
    part.step = stride;
    part.read = part.first * dilation - pad;
  }
  return axis;
}

// The same of the input gradient, from the gradient of the outputs to that of `in` pixels.
FASTDL_INLINE WinogradAxis turned_axis(int64_t in, int64_t taps, int64_t stride, int64_t dilation,
                                       int64_t pad) {
  if (stride == 1) {
    WinogradAxis axis = forward_axis(in, taps, 1, dilation, dilation * (taps - 1) - pad);
    for (AxisPart& part : axis.part) {
      part.first = taps - 1 - part.first;
      part.step = -1;
    }
    return axis;
  }
  // Pixel y = 2 q + p - pad meets the taps p, p + 2, ... through gradients q, q - 1, ...
  const int largest = largest_part(taps, stride, dilation);
  WinogradAxis axis = {};
  axis.size = in;
  axis.parts = 2;
  axis.phases = axis.read_step = 1;
  axis.write_step = 2;
  int64_t read = 0;
  for (int p = 0; p < 2; ++p) {
    AxisPart& part = axis.part[p];
    part.taps = p == 0 ? largest : static_cast<int>(taps) - largest;
    part.first = p + 2 * (part.taps - 1);
    part.step = -2;
    part.write = 2 * (part.taps - 1) + p - pad;
    // Tiles of both parts begin at one gradient, the last that leaves out no pixel.
    const int64_t most = -ceil_div(part.write - 1, 2);
    read = p == 0 ? most : min(read, most);
  }
  for (AxisPart& part : axis.part) {
    part.read = read;
    part.write += 2 * read;
    axis.tiles = max(axis.tiles, ceil_div(ceil_div(in - part.write, 2), 7 - largest));
  }
  return axis;
}

// A filter as parts of both axes.
struct WinogradParts {
  // Of one part: elements with products (the first 5 or 6 of a row or column), and those that the
  // transformed filter has, of which it has 1 where all are the same.
  struct Part {
    AxisPart row, column;
    int rows, columns, u_rows, u_columns;
    int u_first;  // elements of the parts before it

    int elements() const { return rows * columns; }
    int element(int index) const { return index / columns * kTileIn + index % columns; }
    int u_element(int index) const {
      const int row = u_rows > 1 ? index / columns : 0, column = u_columns > 1 ? index % columns : 0;
      return u_first + row * u_columns + column;
    }
  };
  int count, u_elements;
  Part part[4];

  WinogradParts(const WinogradAxis& rows, const WinogradAxis& columns)
      : count(rows.parts * columns.parts), u_elements(0) {
    const int largest = rows.part[0].taps;
    auto products = [&](int taps) { return taps == largest ? 6 : 5; };
    for (int p = 0; p < count; ++p) {
      Part& part = this->part[p];
      part.row = rows.part[p / columns.parts];
      part.column = columns.part[p % columns.parts];
      part.rows = products(part.row.taps);
      part.columns = products(part.column.taps);
      part.u_rows = part.row.taps == 1 ? 1 : part.rows;
      part.u_columns = part.column.taps == 1 ? 1 : part.columns;
      part.u_first = u_elements;
      u_elements += part.u_rows * part.u_columns;
    }
  }
};

}  // namespace fastdl::FASTDL_ISA
