// Depthwise convolution straight from the planes: 3x3, 5x5 and 7x7, rows of more than two vectors.
//
// Nothing is copied first. A block is kRows rows by one vector of the output; a vector of a plane
// serves every row of the block that reads it, and with stride 2, two vectors serve two columns of
// taps:
//
//   x[2j], x[2j + 1], ...   --even lanes--> column b of the taps    --odd lanes--> column b + 1
//
// The first and the last vector of a row may reach into the padding: what they read beyond the
// row's ends is taken for zero. Last vectors and last blocks reach back over those before them. The
// few rows whose windows reach over the upper or lower edge are summed one at a time, without the
// taps beyond.
//
// The input gradient of stride 1 is the same sum over the padded gradient with the filter turned.
#include "depthwise.h"

#include "algorithm.h"
#include "families.h"
#include "results.h"
#include "vector_math.h"

namespace fastdl::FASTDL_ISA {

namespace {

// Output rows of a block.
template <int size>
constexpr int kRows = size == 3 ? 4 : 6;

// What reads a window of `size` columns: with stride 2, pairs of neighbouring vectors.
template <int size, int stride>
constexpr int kLoads = (size + stride - 1) / stride * stride;

// Every second of the elements of two vectors, from the first or the second on, in an order that
// takes one instruction, and back from it.
template <class T>
FASTDL_INLINE Vector<T> even_of(Vector<T> a, Vector<T> b) {
  if constexpr (kLanes<T> == 8) return FASTDL_SHUFFLE(T, a, b, 0, 2, 8, 10, 4, 6, 12, 14);
  else return even_lanes<T>(a, b);
}
template <class T>
FASTDL_INLINE Vector<T> odd_of(Vector<T> a, Vector<T> b) {
  if constexpr (kLanes<T> == 8) return FASTDL_SHUFFLE(T, a, b, 1, 3, 9, 11, 5, 7, 13, 15);
  else return odd_lanes<T>(a, b);
}
template <class T, int stride>
FASTDL_INLINE Vector<T> in_order(Vector<T> v) {
  if constexpr (kLanes<T> == 8 && stride == 2)
    return FASTDL_SHUFFLE(T, v, v, 0, 1, 4, 5, 2, 3, 6, 7);
  else return v;
}

// The lanes of `mask` from p on, zeros for the others, whose memory is not touched.
template <class T>
FASTDL_INLINE Vector<T> load_lanes(const T* p, IntegerVector<T> mask) {
#if FASTDL_VECTOR_BYTES == 64 && defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    const __mmask16 lanes = _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask);
    return (Vector<T>)_mm512_maskz_loadu_ps(lanes, p);
  } else {
    const __mmask8 lanes = _mm512_test_epi64_mask((__m512i)mask, (__m512i)mask);
    return (Vector<T>)_mm512_maskz_loadu_pd(lanes, p);
  }
#elif FASTDL_VECTOR_BYTES == 32 && defined(__AVX2__)
  if constexpr (sizeof(T) == 4)
    return (Vector<T>)_mm256_maskload_ps((const float*)p, (__m256i)mask);
  else return (Vector<T>)_mm256_maskload_pd((const double*)p, (__m256i)mask);
#else
  Vector<T> v{};
  for (int lane = 0; lane < kLanes<T>; ++lane)
    if (mask[lane]) v[lane] = p[lane];
  return v;
#endif
}

// A sum of windows: a plane, its result, and how they lie to each other.
template <class T>
struct Windows {
  const T *x, *weight;
  T* out;
  int64_t height, width, out_h, out_w, pad_top, pad_left;
  T bias;
  bool rectify;
  int64_t before, after;  // elements of the array before the plane's first, and from that on
  // The last column from which a whole vector of windows is inside of the plane.
  int64_t last_inside;
};

// Which lanes of each load of a vector of windows are in the plane.
template <class T, int size, int stride>
struct Masks {
  IntegerVector<T> load[kLoads<size, stride>];

  Masks(const Windows<T>& w, int64_t column) {
    for (int i = 0; i < kLoads<size, stride>; ++i) {
      const int64_t first = column * stride - w.pad_left + offset(i);
      const IntegerVector<T> lane = iota<T>();
      load[i] = (lane >= static_cast<Integer<T>>(-first)) &
                (lane < static_cast<Integer<T>>(w.width - first));
    }
  }
  static constexpr int offset(int i) {
    return stride == 1 ? i : i / stride * stride + i % stride * kLanes<T>;
  }
};

// The elements from p on, in a register: GCC would load them anew for each use.
template <class T>
FASTDL_INLINE Vector<T> load_once(const T* p) {
  Vector<T> v = load(p);
#if FASTDL_VECTOR_BYTES == 64 && defined(__AVX512F__)
  asm("" : "+v"(v));
#elif FASTDL_VECTOR_BYTES == 32 && defined(__AVX2__)
  asm("" : "+x"(v));
#endif
  return v;
}

// `block` rows of the output from `row` on.
template <class T, int size, int stride, int block>
void sum_block(const Windows<T>& w, const Masks<T, size, stride> (&edges)[2], int64_t row) {
  constexpr int64_t lanes = kLanes<T>;
  const T* weight = w.weight;
  const T* x = w.x + (row * stride - w.pad_top) * w.width - w.pad_left;
  T* out = w.out + row * w.out_w;
  const int64_t pitch = w.width, out_pitch = w.out_w, last_inside = w.last_inside;
  const bool rectify = w.rectify;
  const Vector<T> bias = splat(w.bias);
  // Nine taps stay in registers.
  Vector<T> kept[size == 3 ? 9 : 1];
  if constexpr (size == 3) {
#pragma GCC unroll 9
    for (int i = 0; i < 9; ++i) kept[i] = splat(weight[i]);
  }
  auto tap_at = [&](int i) { return size == 3 ? kept[i] : splat(weight[i]); };
  auto sum_vector = [&](int64_t j, auto masks) __attribute__((always_inline)) {
    Vector<T> sum[block];
#pragma GCC unroll 8
    for (int i = 0; i < block; ++i) sum[i] = bias;
    // From column b on `stride` columns of the taps; of them rows phase, phase + stride, ..., which
    // meet every stride-th row of the plane.
#pragma GCC unroll 8
    for (int b = 0; b < size; b += stride) {
#pragma GCC unroll 2
      for (int phase = 0; phase < stride; ++phase) {
        constexpr int most = (size + stride - 1) / stride;
        const int taps = (size - phase + stride - 1) / stride;
        Vector<T> tap[most][stride];
#pragma GCC unroll 8
        for (int k = 0; k < taps; ++k)
#pragma GCC unroll 2
          for (int s = 0; s < stride; ++s)
            if (b + s < size) tap[k][s] = tap_at((phase + k * stride) * size + b + s);
        const T* from = x + phase * pitch + j * stride + b;
#pragma GCC unroll 16
        for (int r = 0; r < block - 1 + taps; ++r, from += stride * pitch) {
          Vector<T> value[stride];
#pragma GCC unroll 2
          for (int s = 0; s < stride; ++s) value[s] = masks(load_once(from + s * lanes), b + s);
          if constexpr (stride == 2) {
            const Vector<T> low = value[0], high = value[1];
            value[0] = even_of<T>(low, high), value[1] = odd_of<T>(low, high);
          }
#pragma GCC unroll 2
          for (int s = 0; s < stride; ++s)
#pragma GCC unroll 8
            for (int k = 0; k < taps; ++k)
              if (b + s < size && r >= k && r - k < block) sum[r - k] += tap[k][s] * value[s];
        }
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < block; ++i) {
      const Vector<T> value = in_order<T, stride>(sum[i]);
      store(out + i * out_pitch + j, rectify ? relu<T>(value) : value);
    }
  };
  const int masked = last_inside < out_pitch - lanes ? 2 : 1;
  for (int e = 0; e < masked; ++e)
    sum_vector(e * (out_pitch - lanes), [&](Vector<T> v, int i) {
      return (Vector<T>)((IntegerVector<T>)v & edges[e].load[i]);
    });
  const int64_t end = masked == 2 ? out_pitch - lanes : out_pitch;
  for (int64_t j = lanes; j < end; j += lanes)
    sum_vector(min(j, last_inside), [](Vector<T> v, int) { return v; });
}

// One row of the output, with the rows of taps [first, end).
template <class T, int size, int stride>
void sum_row(const Windows<T>& w, const Masks<T, size, stride> (&edges)[2], int64_t row,
             int64_t first, int64_t end) {
  constexpr int64_t lanes = kLanes<T>;
  const int64_t y = row * stride - w.pad_top;
  T* out = w.out + row * w.out_w;
  // Taps beyond the plane meet zeros, as those beyond a row's ends: infinite ones give NaN.
  T start = w.bias;
  for (int64_t i = 0; i < size * size; ++i)
    if (i < first * size || i >= end * size) start += T(0) * w.weight[i];
  auto sum_vector = [&](int64_t j, auto load_at) {
    Vector<T> sum = splat(start);
    const T* from = w.x + (y + first) * w.width - w.pad_left + j * stride;
    for (int64_t a = first; a < end; ++a, from += w.width) {
      const T* weight = w.weight + a * size;
#pragma GCC unroll 8
      for (int b = 0; b < size; b += stride) {
        if constexpr (stride == 1) sum += splat(weight[b]) * load_at(from + b, b);
        else {
          const Vector<T> low = load_at(from + b, b), high = load_at(from + b + lanes, b + 1);
          sum += splat(weight[b]) * even_of<T>(low, high);
          if (b + 1 < size) sum += splat(weight[b + 1]) * odd_of<T>(low, high);
        }
      }
    }
    sum = in_order<T, stride>(sum);
    store(out + j, w.rectify ? relu<T>(sum) : sum);
  };
  for (int e = 0; e < 2; ++e)
    sum_vector(e * (w.out_w - lanes),
               [&](const T* p, int i) { return load_lanes(p, edges[e].load[i]); });
  for (int64_t j = lanes; j < w.out_w - lanes; j += lanes)
    sum_vector(min(j, w.last_inside + 1 - stride), [](const T* p, int) { return load(p); });
}

// Rows [begin, stop) of the output.
template <class T, int size, int stride>
void sum_plane(const Windows<T>& w, int64_t begin, int64_t stop) {
  const Masks<T, size, stride> edges[2] = {{w, 0}, {w, w.out_w - kLanes<T>}};
  auto one_row = [&](int64_t row) {
    const int64_t y = row * stride - w.pad_top;
    sum_row<T, size, stride>(w, edges, row, min(size, max(0, -y)),
                             max(0, min(size, w.height - y)));
  };
  // Rows whose windows are inside of the plane from top to bottom. As blocks read beyond the ends
  // of rows, without the first and last of the whole array.
  const int64_t beyond = w.out_w * stride + size - w.pad_left - w.width;
  const bool is_first = w.before < w.pad_left, is_last = w.after < w.height * w.width + beyond;
  int64_t inside = ceil_div(w.pad_top + is_first, stride);
  int64_t after = ceil_div(w.height - size + w.pad_top + !is_last, stride);
  inside = min(stop, max(begin, inside)), after = max(inside, min(stop, after));
  constexpr int block = kRows<size>;
  for (int64_t row = begin; row < inside; ++row) one_row(row);
  if (after - inside >= block) {
    for (int64_t row = inside;; row = min(row + block, after - block)) {
      sum_block<T, size, stride, block>(w, edges, row);
      if (row + block >= after) break;
    }
  } else {
    for (int64_t row = inside; row < after; ++row) one_row(row);
  }
  for (int64_t row = after; row < stop; ++row) one_row(row);
}

template <class T>
using SumPlane = void (*)(const Windows<T>&, int64_t, int64_t);

// The kernel for windows of `size`, if there is one.
template <class T>
SumPlane<T> choose(int64_t size, int64_t stride) {
  switch (size * 2 + stride) {
    case 7: return sum_plane<T, 3, 1>;
    case 8: return sum_plane<T, 3, 2>;
    case 11: return sum_plane<T, 5, 1>;
    case 12: return sum_plane<T, 5, 2>;
    case 15: return sum_plane<T, 7, 1>;
    case 16: return sum_plane<T, 7, 2>;
    default: return nullptr;
  }
}

// Sums of windows over the planes of a batch: the forward pass, or the gradient of one of stride 1.
template <class T>
struct Planes {
  Windows<T> windows;
  SumPlane<T> sum;

  // Whether these kernels serve: the windows lie as the masks expect them.
  bool set(const ConvGeometry& g, int64_t height, int64_t width, int64_t out_h, int64_t out_w,
           int64_t pad_top, int64_t pad_left) {
    constexpr int64_t lanes = kLanes<T>;
    if (g.kernel_h != g.kernel_w || g.stride_h != g.stride_w || g.stride_h > 2 ||
        g.dilation_h != 1 || g.dilation_w != 1 || g.filters != g.channels)
      return false;
    const int64_t stride = g.stride_h;
    sum = choose<T>(g.kernel_h, stride);
    // The first column from which a whole vector is inside, and the last.
    const int64_t inside = ceil_div(pad_left, stride);
    const int64_t last = (width - g.kernel_w - stride * (lanes - 1) + pad_left) / stride;
    if (!sum || out_w <= 2 * lanes || pad_left < 0) return false;
    if (inside > lanes || last < max(inside, out_w - 2 * lanes) + stride) return false;
    windows = {nullptr, nullptr, nullptr, height, width, out_h, out_w, pad_top, pad_left,
               0,       false,   0,       0,      min(last, out_w - lanes)};
    return true;
  }

  bool set_forward(const ConvGeometry& g) {
    return set(g, g.height, g.width, g.out_h, g.out_w, g.pad_top, g.pad_left);
  }
  bool set_grad_input(const ConvGeometry& g) {
    return g.stride_h == 1 && g.stride_w == 1 &&
           set(g, g.out_h, g.out_w, g.height, g.width, g.kernel_h - 1 - g.pad_top,
               g.kernel_w - 1 - g.pad_left);
  }
};

template <class T>
int run_planes(const Planes<T>& planes, const T* x, const T* weight, const T* bias, bool turned,
               const ConvGeometry& g, Activation activation, T* out, int threads) {
  const Windows<T>& all = planes.windows;
  const Cut cut(g.batch * g.channels, all.out_h, g.stride_h, g.kernel_h - g.stride_h,
                all.width * int64_t{sizeof(T)}, kRows<3>);
  const int64_t taps = g.kernel_h * g.kernel_w, work = taps * cut.rows * all.out_w;
  parallel_units(cut.units, work, threads, [&](int64_t unit, int64_t end) {
    for (; unit < end; ++unit) {
      const int64_t plane = unit / cut.strips, c = plane % g.channels;
      const int64_t first = unit % cut.strips * cut.rows;
      const int64_t last = min(all.out_h, first + cut.rows);
      T filter[7 * 7];
      for (int64_t i = 0; i < taps; ++i) filter[i] = weight[c * taps + (turned ? taps - 1 - i : i)];
      Windows<T> w = all;
      w.before = plane * w.height * w.width, w.x = x + w.before;
      w.after = (g.batch * g.channels - plane) * w.height * w.width;
      w.weight = filter, w.bias = bias ? bias[c] : T(0);
      w.out = out + plane * w.out_h * w.out_w, w.rectify = activation == kRelu;
      planes.sum(w, first, last);
      T* to = w.out + first * w.out_w;
      if (activation == kSigmoid || activation == kTanh)
        activate(kDtype<T>, activation, to, (last - first) * w.out_w, to, 1);
    }
  });
  return kDone;
}

}  // namespace

template <class T>
bool planes_serve(const ConvGeometry& g) {
  return Planes<T>().set_forward(g);
}

template <class T>
int planes_forward(const T* x, const T* weight, const T* bias, const ConvGeometry& g,
                   Activation activation, T* out, int threads) {
  Planes<T> planes;
  if (!planes.set_forward(g)) return kNotServed;
  return run_planes(planes, x, weight, bias, false, g, activation, out, threads);
}

template <class T>
int planes_grad_input(const T* grad, const T* weight, const ConvGeometry& g, T* out, int threads) {
  Planes<T> planes;
  if (!planes.set_grad_input(g)) return kNotServed;
  return run_planes<T>(planes, grad, weight, nullptr, true, g, kIdentity, out, threads);
}

#define FASTDL_PLANES(T)                                                                          \
  template bool planes_serve<T>(const ConvGeometry&);                                             \
  template int planes_forward(const T*, const T*, const T*, const ConvGeometry&, Activation, T*,  \
                              int);                                                               \
  template int planes_grad_input(const T*, const T*, const ConvGeometry&, T*, int);
FASTDL_PLANES(float)
FASTDL_PLANES(double)
#undef FASTDL_PLANES

}  // namespace fastdl::FASTDL_ISA
