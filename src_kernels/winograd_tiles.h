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
#include "winograd_axis.h"

namespace fastdl::FASTDL_ISA {

// The register tile of the products: kRows rows by 2 vectors, a broadcast element times 2 vectors a
// row, which fills the registers.
#if FASTDL_VECTOR_BYTES == 64
constexpr int kRows = 14;
#elif defined(__aarch64__)
constexpr int kRows = 12;
#elif defined(__AVX2__)
constexpr int kRows = 6;
#else
constexpr int kRows = 4;
#endif

// Planes of an image, (N, C, H, W), of which a group's channels are read.
template <class T>
struct Planes {
  const T* first;  // the group's first channel of image 0
  const T* end;    // of all the array
  int64_t channels, image;  // of the group; elements from image to image
  int64_t height, width;
  int64_t plane, pixel;  // elements from channel to channel, from pixel to pixel of a row
  bool channels_last;    // (N, H, W, C) in memory

  static Planes of(const T* x, int64_t batch, int64_t all_channels, int64_t groups, int64_t height,
                   int64_t width, bool channels_last) {
    const int64_t size = height * width, image = all_channels * size;
    return {x, x + batch * image, all_channels / groups, image, height, width,
            channels_last ? 1 : size, channels_last ? all_channels : 1, channels_last};
  }
};

// How the output is tiled: image by image, phase by phase (winograd_axis.h), row by row.
struct TileGrid {
  int tile;  // outputs of a tile, each way
  int most;  // tiles of a run
  int64_t rows, columns, row_phases, column_phases;  // in one phase; of one image
  int64_t all;  // in the batch

  TileGrid(int64_t batch, const WinogradAxis& row, const WinogradAxis& column)
      : tile(7 - row.part[0].taps), most((kRunColumns - kTileIn) / tile + 1), rows(row.tiles),
        columns(column.tiles), row_phases(row.phases), column_phases(column.phases),
        all(batch * row_phases * column_phases * rows * columns) {}

  // Columns that the tiles of a run span, so many that they fit, with the rows that they are made
  // of, the first-level cache; and tiles of a run at most, of 3 outputs.
  static constexpr int kRunColumns = 34, kMostRun = (kRunColumns - kTileIn) / 3 + 1;
};

// Neighbouring tiles of one row of tiles.
struct TileRun {
  int64_t image, row_phase, column_phase, row, column;
  int first, count;  // in the block
};

// body(run) for all of the tiles [begin, begin + count).
template <class Body>
FASTDL_INLINE void each_run(const TileGrid& grid, int64_t begin, int count, Body body) {
  int64_t column = begin % grid.columns, row = begin / grid.columns % grid.rows;
  int64_t phase = begin / grid.columns / grid.rows;  // and image
  for (int done = 0; done < count;) {
    int length = static_cast<int>(min(min(grid.most, count - done), grid.columns - column));
    const int64_t row_phase = phase / grid.column_phases;
    body(TileRun{row_phase / grid.row_phases, row_phase % grid.row_phases,
                 phase % grid.column_phases, row, column, done, length});
    done += length;
    column += length;
    if (column == grid.columns) {
      column = 0;
      if (++row == grid.rows) row = 0, ++phase;
    }
  }
}

// Elements of a staged row: the columns of a run, and a vector more that loads may overrun.
template <class T>
constexpr int kStageRow = (TileGrid::kRunColumns + kLanes<T>) * kLanes<T>;

template <class T, int... lane>
FASTDL_INLINE Vector<T> strided(const T* from, int64_t stride, std::integer_sequence<int, lane...>) {
  return Vector<T>{from[lane * stride]...};
}

// from[0], from[2], ...; nothing beyond the last of them is read.
template <class T, int... lane>
FASTDL_INLINE Vector<T> every_other(const T* from, std::integer_sequence<int, lane...>) {
  constexpr int lanes = kLanes<T>;
  const Vector<T> low = load(from), high = load(from + lanes - 1);
#if defined(__clang__) || __GNUC__ >= 12
  return __builtin_shufflevector(low, high, (2 * lane < lanes ? 2 * lane : 2 * lane + 1)...);
#else
  typedef decltype(low < high) Mask;
  return __builtin_shuffle(low, high, Mask{(2 * lane < lanes ? 2 * lane : 2 * lane + 1)...});
#endif
}

// stage[column][lane] = from[lane * plane + column * step] of `used` lanes and [begin, end).
template <class T, int step>
FASTDL_INLINE void stage_row(const T* from, const T* memory_end, int64_t plane, int used, int begin,
                             int end, T* stage) {
  constexpr int lanes = kLanes<T>;
  constexpr std::make_integer_sequence<int, lanes> all{};
  for (int column = begin; column < end; column += lanes) {
    const T* at = from + column * step;
    Vector<T> v[lanes];
    if (used == lanes && at + (lanes - 1) * (plane + step) < memory_end) {
#pragma GCC unroll 16
      for (int l = 0; l < lanes; ++l)
        if constexpr (step == 1) v[l] = load(at + l * plane);
        else v[l] = every_other<T>(at + l * plane, all);
    } else {
      const int count = static_cast<int>(min(lanes, end - column));
      for (int l = 0; l < lanes; ++l) {
        v[l] = Vector<T>{};
        if (l >= used) continue;
        const T* row = at + l * plane;
        if constexpr (step == 1) memcpy(&v[l], row, static_cast<size_t>(count) * sizeof(T));
        else for (int i = 0; i < count; ++i) v[l][i] = row[i * step];
      }
    }
    transpose<T>(v);
#pragma GCC unroll 16
    for (int l = 0; l < lanes; ++l) store(stage + (column + l) * lanes, v[l]);
  }
}

// The same for any step.
template <class T>
void stage_row_by_column(const T* from, int64_t step, int64_t plane, int used, int begin, int end,
                         T* stage) {
  constexpr int lanes = kLanes<T>;
  for (int column = begin; column < end; ++column) {
    const T* at = from + column * step;
    Vector<T> v = {};
    if (used == lanes) v = strided<T>(at, plane, std::make_integer_sequence<int, lanes>{});
    else
      for (int l = 0; l < used; ++l) v[l] = at[l * plane];
    store(stage + column * lanes, v);
  }
}

// The same where a pixel's channels are neighbours.
template <class T>
FASTDL_INLINE void stage_row_of_pixels(const T* from, int64_t step, int used, int begin, int end,
                                       T* stage) {
  constexpr int lanes = kLanes<T>;
  const auto bytes = static_cast<size_t>(used) * sizeof(T);
  for (int column = begin; column < end; ++column) {
    Vector<T> v = {};
    if (used == lanes) v = load(from + column * step);
    else memcpy(&v, from + column * step, bytes);
    store(stage + column * lanes, v);
  }
}

// Where the tiles of an image lie: pixel (i, j) of tile (row, column) of phase (0, 0) at
// (y + y_step * (tile * row + i), x + x_step * (tile * column + j)).
struct TileWindow {
  int64_t y, x, y_step, x_step;
};

// stage[i][j][lane] = pixel (i, j) of a run of channel + lane, zero outside the image.
template <class T>
static void stage_rows(const Planes<T>& planes, const TileGrid& grid, const TileWindow& window,
                       const TileRun& run, int64_t channel, int rows, int columns, T* stage) {
  constexpr int lanes = kLanes<T>;
  const int64_t plane = planes.plane, step = window.x_step;
  const int used = static_cast<int>(min(lanes, planes.channels - channel));
  int64_t y = run.row_phase + window.y + window.y_step * grid.tile * run.row;
  const int64_t x = run.column_phase + window.x + step * grid.tile * run.column;
  const int first = static_cast<int>(max(0, min(columns, ceil_div(-x, step))));
  const int last = static_cast<int>(max(first, min(columns, ceil_div(planes.width - x, step))));
  const T* origin = planes.first + run.image * planes.image + channel * plane + x * planes.pixel;
  for (int row = 0; row < rows; ++row, stage += kStageRow<T>, y += window.y_step) {
    int begin = first, end = last;
    if (y < 0 || y >= planes.height) begin = end = 0;
    const T* from = origin + y * planes.width * planes.pixel;
    if (planes.channels_last) stage_row_of_pixels(from, step * planes.pixel, used, begin, end, stage);
    else if (step == 1) stage_row<T, 1>(from, planes.end, plane, used, begin, end, stage);
    else if (step == 2) stage_row<T, 2>(from, planes.end, plane, used, begin, end, stage);
    else stage_row_by_column(from, step, plane, used, begin, end, stage);
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
// `transform` of columns and then of rows.
template <class T, int size, class Transform>
FASTDL_INLINE void transform_tiles(const Planes<T>& planes, const TileGrid& grid,
                                   const TileWindow& window, int64_t begin, int count,
                                   const TileLayout& layout, T* out, Transform transform) {
  constexpr int lanes = kLanes<T>;
  alignas(64) T stage[kTileIn * kStageRow<T>];
  each_run(grid, begin, count, [&](const TileRun& run) {
    const int columns = grid.tile * (run.count - 1) + size;
    int64_t place[TileGrid::kMostRun];
    for (int tile = 0; tile < run.count; ++tile) place[tile] = layout.place(run.first + tile, lanes);
    T* block = out;
    for (int64_t channel = 0; channel < planes.channels; channel += lanes, block += layout.block) {
      stage_rows(planes, grid, window, run, channel, size, columns, stage);
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
        for (int tile = 0; tile < run.count; ++tile, at += grid.tile * lanes) {
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
static void transform_input_tiles(const Planes<T>& planes, const TileGrid& grid,
                                  const TileWindow& window, int64_t begin, int count,
                                  const TileLayout& layout, T* v) {
  transform_tiles<T, kTileIn>(
      planes, grid, window, begin, count, layout, v,
      [](const Vector<T>(&d)[6], Vector<T>(&t)[6]) __attribute__((always_inline)) {
        transform_input<T>(d, t);
      });
}

// Z = A dY A^T of a gradient's tiles.
template <class T, int tile>
static void transform_grad_tiles_of(const Planes<T>& planes, const TileGrid& grid,
                                    const TileWindow& window, int64_t begin, int count,
                                    const TileLayout& layout, T* z) {
  transform_tiles<T, tile>(
      planes, grid, window, begin, count, layout, z,
      [](const Vector<T>(&y)[tile], Vector<T>(&t)[6]) __attribute__((always_inline)) {
        evaluate<T, tile>(y, t);
      });
}
template <class T>
static void transform_grad_tiles(const Planes<T>& planes, const TileGrid& grid,
                                 const TileWindow& window, int64_t begin, int count,
                                 const TileLayout& layout, T* z) {
  auto transform = grid.tile == 3   ? transform_grad_tiles_of<T, 3>
                   : grid.tile == 4 ? transform_grad_tiles_of<T, 4>
                                    : transform_grad_tiles_of<T, 5>;
  transform(planes, grid, window, begin, count, layout, z);
}

}  // namespace fastdl::FASTDL_ISA
