// im2col and col2im: copies, and sums, of rows of pixels. Limited by memory.
//
//   out[n, (c*KH + a)*KW + b, i*OW + j] = x[n, c, i*s - p + a*d, j*s - p + b*d]
#include <cstring>

#include "families.h"
#include "parallel.h"

namespace fastdl::FASTDL_ISA {

namespace {

// Output columns [begin, end) whose column of x, start + j*stride, lies in [0, width).
struct Inside {
  int64_t start, begin, end;
  Inside(const ConvGeometry& g, int64_t b) : start(b * g.dilation_w - g.pad_left) {
    begin = min(g.out_w, max(0, ceil_div(-start, g.stride_w)));
    end = max(begin, min(g.out_w, ceil_div(g.width - start, g.stride_w)));
  }
};

template <class T>
void im2col_plane(const ConvGeometry& g, const T* plane, T* out) {
  for (int64_t a = 0; a < g.kernel_h; ++a)
    for (int64_t b = 0; b < g.kernel_w; ++b) {
      const Inside inside(g, b);
      for (int64_t i = 0; i < g.out_h; ++i, out += g.out_w) {
        int64_t row = i * g.stride_h - g.pad_top + a * g.dilation_h;
        if (row < 0 || row >= g.height) {
          memset(out, 0, static_cast<size_t>(g.out_w) * sizeof(T));
          continue;
        }
        const T* from = plane + row * g.width + inside.start;
        for (int64_t j = 0; j < inside.begin; ++j) out[j] = 0;
        if (g.stride_w == 1)
          memcpy(out + inside.begin, from + inside.begin,
                 static_cast<size_t>(inside.end - inside.begin) * sizeof(T));
        else
          for (int64_t j = inside.begin; j < inside.end; ++j) out[j] = from[j * g.stride_w];
        for (int64_t j = inside.end; j < g.out_w; ++j) out[j] = 0;
      }
    }
}

template <class T>
void col2im_plane(const ConvGeometry& g, const T* col, T* plane) {
  memset(plane, 0, static_cast<size_t>(g.height * g.width) * sizeof(T));
  for (int64_t a = 0; a < g.kernel_h; ++a)
    for (int64_t b = 0; b < g.kernel_w; ++b) {
      const Inside inside(g, b);
      for (int64_t i = 0; i < g.out_h; ++i, col += g.out_w) {
        int64_t row = i * g.stride_h - g.pad_top + a * g.dilation_h;
        if (row < 0 || row >= g.height) continue;
        T* to = plane + row * g.width + inside.start;
        if (g.stride_w == 1)
          for (int64_t j = inside.begin; j < inside.end; ++j) to[j] += col[j];
        else
          for (int64_t j = inside.begin; j < inside.end; ++j) to[j * g.stride_w] += col[j];
      }
    }
}

template <class T>
void im2col_all(const T* x, const ConvGeometry& g, T* out, int threads) {
  int64_t rows = g.kernel_h * g.kernel_w * g.out_h * g.out_w;
  parallel_for(g.batch * g.channels, threads, [&](int64_t plane) {
    im2col_plane(g, x + plane * g.height * g.width, out + plane * rows);
  });
}

template <class T>
void col2im_all(const T* col, const ConvGeometry& g, T* out, int threads) {
  int64_t rows = g.kernel_h * g.kernel_w * g.out_h * g.out_w;
  parallel_for(g.batch * g.channels, threads, [&](int64_t plane) {
    col2im_plane(g, col + plane * rows, out + plane * g.height * g.width);
  });
}

}  // namespace

void im2col(Dtype dtype, const void* x, const ConvGeometry* g, void* out, int threads) {
  if (dtype == kFloat32)
    im2col_all(static_cast<const float*>(x), *g, static_cast<float*>(out), threads);
  else
    im2col_all(static_cast<const double*>(x), *g, static_cast<double*>(out), threads);
}

void col2im(Dtype dtype, const void* col, const ConvGeometry* g, void* out, int threads) {
  if (dtype == kFloat32)
    col2im_all(static_cast<const float*>(col), *g, static_cast<float*>(out), threads);
  else
    col2im_all(static_cast<const double*>(col), *g, static_cast<double*>(out), threads);
}

}  // namespace fastdl::FASTDL_ISA
