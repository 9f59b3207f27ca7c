"""What backends share: windows, and the convolution of those that pack no weights.

A window is what a convolution or a pool reads for one output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..geometry import ConvGeometry, Pair, PoolGeometry, Shape
from .table import Activation, Algorithm, Array

Geometry = ConvGeometry | PoolGeometry


def top_left(geometry: Geometry) -> Pair:
    """Padding above and to the left of the image."""
    if isinstance(geometry, ConvGeometry):
        return geometry.pad_top, geometry.pad_left
    return geometry.pad_h, geometry.pad_w


def window_taps(geometry: Geometry, i: int, j: int) -> Iterator[tuple[int, int, int, int]]:
    """``(a, b, row, column)``: the taps of window ``(i, j)`` that lie inside the image."""
    g = geometry
    top, left = top_left(g)
    for a in range(g.kernel_h):
        row = i * g.stride_h - top + a * g.dilation_h
        if not 0 <= row < g.height:
            continue
        for b in range(g.kernel_w):
            column = j * g.stride_w - left + b * g.dilation_w
            if 0 <= column < g.width:
                yield a, b, row, column


def tap_slices(
    geometry: Geometry, a: int, b: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The windows whose tap ``(a, b)`` lies inside the image, and the pixels it reads there."""
    g = geometry
    top, left = top_left(g)
    out_rows, rows = _tap_range(g.height, g.out_h, g.stride_h, a * g.dilation_h - top)
    out_columns, columns = _tap_range(g.width, g.out_w, g.stride_w, b * g.dilation_w - left)
    return (out_rows, out_columns), (rows, columns)


def _tap_range(size: int, out: int, stride: int, offset: int) -> tuple[slice, slice]:
    """Outputs ``i`` with ``0 <= i * stride + offset < size``, and those inputs."""
    first = max(0, -(offset // stride))
    stop = min(out, (size - 1 - offset) // stride + 1)
    if first >= stop:
        return slice(0), slice(0)
    start = first * stride + offset
    return slice(first, stop), slice(start, start + (stop - first - 1) * stride + 1, stride)


def window_sizes(geometry: PoolGeometry, count_include_pad: bool) -> tuple[list[int], list[int]]:
    """Heights and widths of the windows, clipped to the (padded) image."""
    g = geometry
    return (
        _clipped(g.height, g.out_h, g.kernel_h, g.stride_h, g.pad_h, count_include_pad),
        _clipped(g.width, g.out_w, g.kernel_w, g.stride_w, g.pad_w, count_include_pad),
    )


def _clipped(
    size: int, out: int, kernel: int, stride: int, pad: int, count_include_pad: bool
) -> list[int]:
    margin = pad if count_include_pad else 0
    starts = (i * stride - pad for i in range(out))
    return [min(start + kernel, size + margin) - max(start, -margin) for start in starts]


def are_within(indices: Array, plane: Shape) -> bool:
    """Whether all indices are positions of a plane (..., H, W)."""
    return indices.size == 0 or bool(indices.min() >= 0 and indices.max() < plane[-2] * plane[-1])


@np.errstate(all="ignore")
def scale_and_shift(
    var: Array, weight: Array | None, bias: Array | None, eps: float
) -> tuple[Array, Array]:
    """``weight / sqrt(var + eps)``, computed in float64, and the bias or zeros."""
    scale = 1 / np.sqrt(var.astype(np.float64) + eps)
    if weight is not None:
        scale *= weight
    shift = np.zeros_like(var) if bias is None else bias
    return scale.astype(var.dtype), shift


def direct_only(
    geometry: ConvGeometry, dtype: np.dtype[Any], prepared: bool = False
) -> tuple[str, ...]:
    """``conv2d_algorithms`` of a backend that sums as the formula says."""
    return ("direct",)


def untold_bytes(
    geometry: ConvGeometry, dtype: np.dtype[Any], algorithm: str, prepared: bool = False
) -> tuple[None, int]:
    """``conv2d_bytes`` of a backend that packs no weights and does not count what it works in."""
    return None, 0


@dataclass(frozen=True, slots=True)
class Prepared:
    """A convolution and its weights, where there is nothing to prepare."""

    conv2d: Callable[..., None]
    weight: Array
    bias: Array | None
    geometry: ConvGeometry
    activation: Activation
    algorithm: Algorithm

    isa: ClassVar[str | None] = None

    def holds(self, weight: Array, bias: Array | None) -> bool:
        if (self.bias is None) != (bias is None) or not np.array_equal(self.weight, weight):
            return False
        return self.bias is None or bias is None or np.array_equal(self.bias, bias)

    def ordinary_call(self, x: Any, out: Any) -> Array | None:
        return None

    def run(self, x: Array, out: Array) -> None:
        self.conv2d(x, self.weight, self.bias, self.geometry, self.activation, out, self.algorithm)


def prepared_by(conv2d: Callable[..., None]) -> Callable[..., Prepared]:
    """``conv2d_prepared`` of a backend with this ``conv2d`` that packs no weights."""

    def prepared(
        weight: Array,
        bias: Array | None,
        geometry: ConvGeometry,
        activation: Activation,
        algorithm: Algorithm,
    ) -> Prepared:
        return Prepared(conv2d, weight, bias, geometry, activation, algorithm)

    return prepared


@np.errstate(all="ignore")
def inverse_deviation(var: Array, eps: float) -> Array:
    """``1 / sqrt(var + eps)``, computed in float64."""
    inverse: Array = (1 / np.sqrt(var.astype(np.float64) + eps)).astype(var.dtype)
    return inverse


@np.errstate(all="ignore")
def batch_norm_track(
    mean: Array,
    var: Array,
    count: int,
    momentum: float,
    eps: float,
    running_mean: Array | None,
    running_var: Array | None,
    inv_std: Array,
) -> None:
    """``inv_std = 1 / sqrt(var + eps)``; the running statistics move towards the batch's."""
    inv_std[...] = inverse_deviation(var, eps)
    for running, batch in ((running_mean, mean), (running_var, var * (count / (count - 1)))):
        if running is not None:
            running[...] = (1 - momentum) * running + momentum * batch
