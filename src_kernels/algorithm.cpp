// Which algorithm serves a convolution.
#include "algorithm.h"

#include "depthwise.h"
#include "families.h"
#include "winograd_tiles.h"

namespace fastdl::FASTDL_ISA {

namespace {

// Whether Winograd's products and transforms take less time than the sum itself, counted in
// multiply-adds; what a transform takes is measured. So is the 1.8: the direct algorithm's copies
// make its operations dearer (8 to 256 channels, images of 2x2 to 28x28). Weights that are packed
// beforehand cost nothing.
bool winograd_pays(const ConvGeometry& g, bool packed) {
  const WinogradAxis rows = forward_axis(g.out_h, g.kernel_h, g.stride_h, g.dilation_h, g.pad_top);
  const WinogradAxis columns =
      forward_axis(g.out_w, g.kernel_w, g.stride_w, g.dilation_w, g.pad_left);
  const WinogradParts parts(rows, columns);
  double elements = 0;
  for (int p = 0; p < parts.count; ++p) elements += parts.part[p].elements();
  double channels = static_cast<double>(g.channels / g.groups);
  double filters = static_cast<double>(g.filters / g.groups);
  double tiles = static_cast<double>(TileGrid(g.batch, rows, columns).all);
  double taps = static_cast<double>(g.kernel_h * g.kernel_w);
  double direct = taps * channels * filters * static_cast<double>(g.batch * g.out_h * g.out_w);
  double products = elements * channels * filters * tiles;
  double transforms = 400 * tiles * (parts.count * channels + filters) +
                      (packed ? 0 : 7 * parts.u_elements * channels * filters);
  return channels >= 8 && filters >= 8 && products + transforms < 1.8 * direct;
}

// Whether packed weights are worth their memory. Winograd's are four times the plain ones: beyond the
// caches they take longer to come than the plain ones and their transform.
bool packing_pays(int64_t bytes) { return bytes <= last_level_cache() / 3; }

}  // namespace

int conv2d_algorithm(Dtype dtype, const ConvGeometry* g, int algorithm, bool packed, int) {
  switch (algorithm) {
    case kAuto:
      if (is_depthwise(*g)) return kDepthwise;
      packed = packed && conv2d_packed_bytes(dtype, g, kWinograd) > 0;
      return dtype == kFloat32 && winograd_serves(*g) && winograd_pays(*g, packed) ? kWinograd : kDirect;
    case kDepthwise: return is_depthwise(*g) ? kDepthwise : -1;
    case kWinograd: return winograd_serves(*g) ? kWinograd : -1;
    default: return algorithm;
  }
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
