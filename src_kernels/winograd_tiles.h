// Winograd's tiles: where they lie in an image, and their way into the transformed domain.
//
// The tiles of a batch are counted through: image by image, row by row. Vectors run over channels,
// so that a tile may lie anywhere and every transform is plain arithmetic; the way from NCHW planes
// to lanes of channels is a transposition in registers. Transformed tiles are kept as
//
//   v[element][channel block][tile][lane]        36 elements, kLanes channels a block
#pragma once

#include <cstring>

#include "transpose.h"
#include "winograd.h"

namespace fastdl::FASTDL_ISA {

// The register tile of the products: kRows rows by 2 vectors, a broadcast element times 2 vectors a
// row, which fills the registers.
#if defined(__AVX512F__)
constexpr int kRows = 14;
#elif defined(__aarch64__)
constexpr int kRows = 12;
#elif defined(__AVX2__)
constexpr int kRows = 6;
#else
constexpr int kRows = 4;
#endif

// Planes of an image: (N, C, H, W), of which a group's channels are read.
template <class T>
struct Planes {
  const T* first;  // the group's first channel of image 0
  const T* end;    // of all the array
  int64_t channels, image;  // of the group; elements from image to image
  int64_t height, width;
};

// How the output is tiled.
struct TileGrid {
  int64_t rows, columns, all;  // in one image, in one image, in the batch

  static TileGrid of(int64_t batch, int64_t out_h, int64_t out_w) {
    TileGrid grid = {ceil_div(out_h, kTileOut), ceil_div(out_w, kTileOut), 0};
    grid.all = batch * grid.rows * grid.columns;
    return grid;
  }
};

// Neighbouring tiles of one row of tiles.
struct TileRun {
  int64_t image, row, column;
  int first, count;  // in the block
};

// So many at once fit, with the rows that they are made of, the first-level cache.
constexpr int kRunTiles = 8;

// body(run) for all of the tiles [begin, begin + count).
template <class Body>
FASTDL_INLINE void each_run(const TileGrid& grid, int64_t begin, int count, Body body) {
  int64_t column = begin % grid.columns, row = begin / grid.columns % grid.rows;
  int64_t image = begin / grid.columns / grid.rows;
  for (int done = 0; done < count;) {
    int length = static_cast<int>(min(min(kRunTiles, count - done), grid.columns - column));
    body(TileRun{image, row, column, done, length});
    done += length;
    column += length;
    if (column == grid.columns) {
      column = 0;
      if (++row == grid.rows) row = 0, ++image;
    }
  }
}

// Elements of a staged row: the columns of a run, and a vector more that loads may overrun.
template <class T>
constexpr int kStageRow = (kTileOut * kRunTiles + 2 + kLanes<T>) * kLanes<T>;

// stage[row][column][lane] = planes[image][channel + lane][y + row][x + column], zero outside.
template <class T>
static void stage_rows(const Planes<T>& planes, int64_t image, int64_t channel, int64_t y,
                       int64_t x, int rows, int columns, T* stage) {
  constexpr int lanes = kLanes<T>;
  const int64_t plane = planes.height * planes.width;
  const int used = static_cast<int>(min(lanes, planes.channels - channel));
  const int first = static_cast<int>(max(0, min(columns, -x)));
  const int last = static_cast<int>(max(first, min(columns, planes.width - x)));
  const T* origin = planes.first + image * planes.image + channel * plane;
  for (int row = 0; row < rows; ++row, stage += kStageRow<T>, ++y) {
    int begin = first, end = last;
    if (y < 0 || y >= planes.height) begin = end = 0;
    for (int column = begin; column < end; column += lanes) {
      const T* from = origin + y * planes.width + x + column;
      Vector<T> v[lanes];
      if (used == lanes && from + (lanes - 1) * plane + lanes <= planes.end) {
#pragma GCC unroll 16
        for (int l = 0; l < lanes; ++l) v[l] = load(from + l * plane);
      } else {
        auto count = static_cast<size_t>(min(lanes, end - column));
        for (int l = 0; l < lanes; ++l) {
          v[l] = Vector<T>{};
          if (l < used) memcpy(&v[l], from + l * plane, count * sizeof(T));
        }
      }
      transpose<T>(v);
#pragma GCC unroll 16
      for (int l = 0; l < lanes; ++l) store(stage + (column + l) * lanes, v[l]);
    }
    for (int column = 0; column < begin; ++column) store(stage + column * lanes, Vector<T>{});
    for (int column = end; column < columns; ++column) store(stage + column * lanes, Vector<T>{});
  }
}

// Elements of v between one of the 36 and the next: a cache line more than they take, so that they
// do not all fall into one set of the cache.
FASTDL_INLINE int64_t element_stride(int64_t size) { return (size + 15) / 16 * 16 + 16; }

// Where transformed tiles are put. Tiles stand in groups of `rows`, and with them each block of
// channels:  out[element][t / rows][channel block][t % rows][lane]
struct TileLayout {
  int64_t element, group, block;  // strides
  int rows;

  int64_t place(int tile, int lanes) const { return tile / rows * group + tile % rows * lanes; }
};

// Tiles [begin, begin + count) of `size` x `size` pixels into the transformed domain, by
// `transform` of columns and then of rows. Tile (0, 0) begins `pad_top` above and `pad_left` left of
// the image.
template <class T, int size, class Transform>
FASTDL_INLINE void transform_tiles(const Planes<T>& planes, const TileGrid& grid, int64_t pad_top,
                                   int64_t pad_left, int64_t begin, int count,
                                   const TileLayout& layout, T* out, Transform transform) {
  constexpr int lanes = kLanes<T>;
  alignas(64) T stage[kTileIn * kStageRow<T>];
  each_run(grid, begin, count, [&](const TileRun& run) {
    const int columns = kTileOut * run.count + size - kTileOut;
    int64_t place[kRunTiles];
    for (int tile = 0; tile < run.count; ++tile) place[tile] = layout.place(run.first + tile, lanes);
    T* block = out;
    for (int64_t channel = 0; channel < planes.channels; channel += lanes, block += layout.block) {
      stage_rows(planes, run.image, channel, run.row * kTileOut - pad_top,
                 run.column * kTileOut - pad_left, size, columns, stage);
      for (int column = 0; column < columns; ++column) {
        T* at = stage + column * lanes;
        Vector<T> pixels[size], t[6];
#pragma GCC unroll 6
        for (int i = 0; i < size; ++i) pixels[i] = load(at + i * kStageRow<T>);
        transform(pixels, t);
#pragma GCC unroll 6
        for (int i = 0; i < 6; ++i) store(at + i * kStageRow<T>, t[i]);
      }
      for (int i = 0; i < 6; ++i) {
        const T* at = stage + i * kStageRow<T>;
        for (int tile = 0; tile < run.count; ++tile, at += kTileOut * lanes) {
          Vector<T> pixels[size], t[6];
#pragma GCC unroll 6
          for (int j = 0; j < size; ++j) pixels[j] = load(at + j * lanes);
          transform(pixels, t);
          T* to = block + i * 6 * layout.element + place[tile];
#pragma GCC unroll 6
          for (int j = 0; j < 6; ++j) store(to + j * layout.element, t[j]);
        }
      }
    }
  });
}

// V = B^T d B of input tiles.
template <class T>
static void transform_input_tiles(const Planes<T>& planes, const TileGrid& grid, int64_t pad_top,
                                  int64_t pad_left, int64_t begin, int count,
                                  const TileLayout& layout, T* v) {
  transform_tiles<T, kTileIn>(
      planes, grid, pad_top, pad_left, begin, count, layout, v,
      [](const Vector<T>(&d)[6], Vector<T>(&t)[6]) __attribute__((always_inline)) {
        transform_input<T>(d, t);
      });
}

// Z = A dY A^T of a gradient's tiles.
template <class T>
static void transform_grad_tiles(const Planes<T>& planes, const TileGrid& grid, int64_t begin,
                                 int count, const TileLayout& layout, T* z) {
  transform_tiles<T, kTileOut>(
      planes, grid, 0, 0, begin, count, layout, z,
      [](const Vector<T>(&y)[4], Vector<T>(&t)[6]) __attribute__((always_inline)) {
        transform_grad<T>(y, t);
      });
}

}  // namespace fastdl::FASTDL_ISA
