// Which algorithm serves a convolution.
#include "algorithm.h"

#include "depthwise.h"
#include "families.h"
#include "winograd_tiles.h"

namespace fastdl::FASTDL_ISA {

namespace {

// What a pass takes, in multiply-adds at full speed: fitted to the times of 687 layers (8 to 512
// channels, images of 5x5 to 56x56, 1 to 16 of them, kernels of 2x2 to 7x7) on one thread of an
// AVX2 machine, of which half lie within an eighth.
struct Costs {
  double product, transform, filter;  // Winograd: each product; each tile and channel, each filter
  double sum, copy, weight, start;  // direct: each multiply-add, each tap of a pixel copied, each
                                    // weight, and what a call takes more than Winograd's
};
constexpr Costs kCosts[] = {
    {1.14, 475, 6.0, 1.19, 3.3, 12, 2e5},    // kForward; filter: an element
    {1.15, 515, 7.2, 1.30, 2.8, 46, 3e5},    // kGradInput; filter: an element
    {1.70, 370, 270, 1.12, 13.7, 19, 4e4},   // kGradWeight; filter: a part
};

// Whether Winograd takes less time than the sum itself. Weights that are packed beforehand cost
// nothing.
bool winograd_pays(const ConvGeometry& g, Pass pass, bool packed) {
  constexpr int64_t lanes = kLanes<float>;
  const int64_t channels = g.channels / g.groups, filters = g.filters / g.groups;
  if (channels < 8 || filters < 8) return false;
  const WinogradAxis rows = forward_axis(g.out_h, g.kernel_h, g.stride_h, g.dilation_h, g.pad_top);
  const WinogradAxis columns =
      forward_axis(g.out_w, g.kernel_w, g.stride_w, g.dilation_w, g.pad_left);
  const WinogradParts parts(rows, columns);
  double elements = 0;
  for (int p = 0; p < parts.count; ++p) elements += parts.part[p].elements();

  // Channels of the images that are read and written, or multiplied, in whole vectors.
  auto whole = [](int64_t size, int64_t vector) {
    return static_cast<double>(ceil_div(size, vector) * vector);
  };
  const int64_t in = pass == kGradInput ? filters : channels;
  const int64_t out = pass == kGradInput ? channels : filters;
  const double pairs = pass == kGradWeight ? whole(in, lanes) * static_cast<double>(out)
                                           : static_cast<double>(in) * whole(out, 2 * lanes);
  // Images whose tiles are transformed once for each part.
  const bool cut_in = pass != kGradInput || g.stride_h == 1;
  const bool cut_out = pass == kGradWeight || !cut_in;
  const double transforms = (cut_in ? parts.count : 1) * whole(in, lanes) +
                            (cut_out ? parts.count : 1) * whole(out, lanes);
  const double made = pass == kGradWeight ? parts.count : packed ? 0 : parts.u_elements;
  const double tiles = static_cast<double>(TileGrid(g.batch, rows, columns).all);
  const Costs& cost = kCosts[pass];
  const double winograd = cost.product * elements * pairs * tiles +
                          cost.transform * tiles * transforms + cost.filter * made * pairs;

  const double taps = static_cast<double>(g.kernel_h * g.kernel_w);
  const double pixels = static_cast<double>(g.batch * g.out_h * g.out_w);
  const double weights = taps * static_cast<double>(in * out);
  const double direct = (cost.sum * pixels + cost.weight) * weights +
                        cost.copy * taps * pixels * static_cast<double>(in) + cost.start;
  return winograd < direct;
}

int choose(Dtype dtype, const ConvGeometry& g, int algorithm, Pass pass, bool packed) {
  switch (algorithm) {
    case kAuto:
      if (is_depthwise(g)) return kDepthwise;
      return dtype == kFloat32 && winograd_serves(g) && winograd_pays(g, pass, packed) ? kWinograd
                                                                                       : kDirect;
    case kDepthwise: return is_depthwise(g) ? kDepthwise : -1;
    case kWinograd: return winograd_serves(g) ? kWinograd : -1;
    default: return algorithm;
  }
}

// Whether packed weights are worth their memory. Winograd's are four times the plain ones: beyond the
// caches they take longer to come than the plain ones and their transform.
bool packing_pays(int64_t bytes) { return bytes <= last_level_cache() / 3; }

}  // namespace

int gradient_algorithm(Dtype dtype, const ConvGeometry& g, int algorithm, Pass pass) {
  return choose(dtype, g, algorithm, pass, false);
}

int conv2d_algorithm(Dtype dtype, const ConvGeometry* g, int algorithm, bool packed, int) {
  packed = packed && winograd_serves(*g) && conv2d_packed_bytes(dtype, g, kWinograd) > 0;
  return choose(dtype, *g, algorithm, kForward, packed);
}

int64_t conv2d_packed_bytes(Dtype dtype, const ConvGeometry* g, int algorithm) {
  const int64_t bytes = algorithm == kWinograd ? winograd_packed_bytes(dtype, *g) : 0;
  return packing_pays(bytes) ? bytes : 0;
}

void conv2d_pack(Dtype dtype, const void* weight, const ConvGeometry* g, int algorithm,
                 void* packed, int threads) {
  if (algorithm == kWinograd) winograd_pack(dtype, weight, *g, packed, threads);
}

int64_t conv2d_workspace_bytes(Dtype dtype, const ConvGeometry* g, int algorithm, bool packed,
                               int threads) {
  if (g->batch * g->out_h * g->out_w == 0) return 0;
  switch (algorithm) {
    case kWinograd: return winograd_workspace_bytes(dtype, *g, packed, threads);
    case kDepthwise:
      return (dtype == kFloat32 ? depthwise_workspace_bytes<float>
                                : depthwise_workspace_bytes<double>)(*g, threads);
    default: return direct_workspace_bytes(dtype, *g, threads);
  }
}

}  // namespace fastdl::FASTDL_ISA
