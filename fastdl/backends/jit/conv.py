"""Convolution and its gradients, each as one of a few loop nests.

=====================  =========================  ===================  =============
algorithm              direct                     direct               winograd
                       several channels a group   one channel a group
=====================  =========================  ===================  =============
conv2d                 gemm                       depthwise            winograd
conv2d_grad_input      gemm, once a phase         depthwise            winograd
conv2d_grad_weight     grad_weight                depthwise            winograd_weight
=====================  =========================  ===================  =============
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ...geometry import ConvGeometry
from .. import limits
from ..common import Prepared
from ..table import Activation, Algorithm, Array
from . import depthwise, grad_weight, winograd, winograd_weight
from .activation import CODES, NONE
from .arrays import flat
from .compiling import compiled
from .gemm import Grid, Image, Product, Rows, Taps, multiply, product
from .pool import run
from .sums import total


@lru_cache(maxsize=256)
def conv2d_algorithms(
    geometry: ConvGeometry, dtype: np.dtype[Any], prepared: bool = False
) -> tuple[str, ...]:
    """Those that serve such a convolution, the one to choose first."""
    if not winograd.serves(geometry):
        return ("direct",)
    if dtype == np.float32 and winograd.pays(geometry, dtype, prepared):
        return "winograd", "direct"
    return "direct", "winograd"


def _by_winograd(algorithm: Algorithm, g: ConvGeometry, dtype: np.dtype[Any]) -> bool:
    return (algorithm or conv2d_algorithms(g, dtype)[0]) == "winograd"


def conv2d_bytes(
    geometry: ConvGeometry, dtype: np.dtype[Any], algorithm: str, prepared: bool = False
) -> tuple[None, int]:
    """What packed filters take; what a call works in is not told."""
    if not prepared or algorithm != "winograd":
        return None, 0
    return None, winograd.packed_elements(geometry, dtype) * dtype.itemsize


def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None,
    geometry: ConvGeometry,
    activation: Activation,
    out: Array,
    algorithm: Algorithm = None,
) -> None:
    """``out = f(bias + sum of x * weight over the window)``."""
    _convolve(x, weight, bias, geometry, activation, out, algorithm, None)


@dataclass(frozen=True, slots=True)
class _Prepared(Prepared):
    """A convolution whose filters are transformed, where that is of use."""

    packed: Array | None

    def run(self, x: Array, out: Array) -> None:
        """Compute it, x and out being checked."""
        _convolve(
            x, self.weight, self.bias, self.geometry, self.activation, out, self.algorithm,
            self.packed,
        )  # fmt: skip


def conv2d_prepared(
    weight: Array,
    bias: Array | None,
    geometry: ConvGeometry,
    activation: Activation,
    algorithm: Algorithm,
) -> Prepared:
    """`conv2d` with these weights."""
    packed = None
    if _by_winograd(algorithm, geometry, weight.dtype):
        packed = np.zeros(winograd.packed_elements(geometry, weight.dtype), weight.dtype)
        winograd.pack(weight, geometry, False, packed)
    return _Prepared(conv2d, weight, bias, geometry, activation, algorithm, packed)


def _convolve(
    x: Array, weight: Array, bias: Array | None, g: ConvGeometry, activation: Activation,
    out: Array, algorithm: Algorithm, packed: Array | None,
) -> None:  # fmt: skip
    added = np.zeros(g.filters, out.dtype) if bias is None else flat(bias)
    if _by_winograd(algorithm, g, out.dtype) and winograd.convolve(
        x, weight, added, CODES[activation], g, False, out, packed
    ):
        return
    if g.group_channels == 1:
        depthwise.forward(x, weight, added, g, CODES[activation], forward_taps(g), out)
        return
    product = _forward_product(g, out.dtype, limits.threads())
    multiply(flat(x), flat(weight), added, CODES[activation], product, flat(out))


@lru_cache(maxsize=64)
def _forward_product(g: ConvGeometry, dtype: np.dtype[Any], threads: int) -> Product:
    area, depth = g.height * g.width, g.group_channels * g.kernel_h * g.kernel_w
    return product(
        forward_taps(g),
        Image(g.channels * area, g.group_channels * area, g.height, g.width, g.stride_h, g.stride_w),
        Grid(g.batch, g.out_h, g.out_w, g.filters, g.out_h * g.out_w, g.out_w, 0, 0, 1, 1),
        Rows(g.groups, g.group_filters, g.group_filters * depth, depth),
        dtype, threads,
    )  # fmt: skip


@lru_cache(maxsize=64)
def forward_taps(g: ConvGeometry) -> Taps:
    """Product k = (c, a, b) reads ``x[c, a*d - p, b*d - p]``; its factor is ``weight[k]``."""
    a, b = _pairs(range(g.kernel_h), range(g.kernel_w))
    return Taps(
        np.arange(g.group_channels * a.size),
        a * g.dilation_h - g.pad_top,
        b * g.dilation_w - g.pad_left,
    )


def _pairs(rows: Iterable[int], columns: Iterable[int]) -> tuple[Array, Array]:
    """All (row, column), as two arrays."""
    pairs = np.array(list(itertools.product(rows, columns)), np.int64)
    return pairs[:, 0].copy(), pairs[:, 1].copy()


def conv2d_grad_input(
    grad: Array,
    weight: Array,
    geometry: ConvGeometry,
    out: Array,
    algorithm: Algorithm = None,
) -> None:
    """``out[c, h, w] = sum of grad[o, i, j] * weight[o, c, a, b]`` where ``i*s - p + a*d = h``.

    The rows h of one phase, ``h % stride``, see the same taps: each phase is a convolution of
    grad with stride 1, written with gaps.
    """
    g = geometry
    if _by_winograd(algorithm, g, out.dtype):
        none = np.zeros(g.channels, out.dtype)
        if winograd.convolve(grad, weight, none, NONE, winograd.turned_geometry(g), True, out):
            return
    products = _backward_products(g, out.dtype, limits.threads())
    if len(products) < min(g.stride_h, g.height) * min(g.stride_w, g.width):
        out.fill(0)
    bias = np.zeros(g.channels, out.dtype)
    for phase in products:
        if g.group_channels == 1:
            depthwise.backward_input(grad, weight, g, _one_filter(phase.taps), phase.grid, out)
        else:
            multiply(flat(grad), flat(weight), bias, NONE, phase, flat(out))


@lru_cache(maxsize=64)
def _backward_products(g: ConvGeometry, dtype: np.dtype[Any], threads: int) -> list[Product]:
    """The product of every phase that some tap reaches."""
    area, taps_area = g.out_h * g.out_w, g.kernel_h * g.kernel_w
    image = Image(g.filters * area, g.group_filters * area, g.out_h, g.out_w, 1, 1)
    rows = Rows(
        g.groups, g.group_channels, g.group_filters * g.group_channels * taps_area, taps_area
    )
    return [
        product(
            taps,
            image,
            Grid(
                g.batch, -(-(g.height - row) // g.stride_h), -(-(g.width - column) // g.stride_w),
                g.channels, g.height * g.width, g.width, row, column, g.stride_h, g.stride_w,
            ),
            rows, dtype, threads,
        )
        for row, column, taps in _phases(g)
    ]  # fmt: skip


def _phases(g: ConvGeometry) -> list[tuple[int, int, Taps]]:
    """(first row, first column, taps) of every phase that some tap reaches."""
    rows = _phase_taps(g.kernel_h, g.stride_h, g.pad_top, g.dilation_h, g.height)
    columns = _phase_taps(g.kernel_w, g.stride_w, g.pad_left, g.dilation_w, g.width)
    return [
        (row, column, _backward_taps(g, row, column, a, b))
        for row, a in rows.items()
        for column, b in columns.items()
    ]


def _one_filter(taps: Taps) -> Taps:
    """The taps of the first filter alone."""
    return taps._replace(factor=taps.factor[: taps.row.size])


def _phase_taps(
    kernel: int, stride: int, pad: int, dilation: int, size: int
) -> dict[int, list[int]]:
    """The taps along one axis by the phase that they reach."""
    phases: dict[int, list[int]] = {}
    for tap in range(kernel):
        phase = (tap * dilation - pad) % stride
        if phase < size:
            phases.setdefault(phase, []).append(tap)
    return phases


def _backward_taps(
    g: ConvGeometry, row: int, column: int, rows: list[int], columns: list[int]
) -> Taps:
    """Product k = (o, a, b) of the phase that begins at (row, column)."""
    a, b = _pairs(rows, columns)
    filters = np.arange(g.group_filters)[:, None] * g.group_channels * g.kernel_h * g.kernel_w
    return Taps(
        (filters + a * g.kernel_w + b).ravel(),
        (row + g.pad_top - a * g.dilation_h) // g.stride_h,
        (column + g.pad_left - b * g.dilation_w) // g.stride_w,
    )


def conv2d_grad_weight(
    grad: Array,
    x: Array,
    geometry: ConvGeometry,
    out: Array,
    algorithm: Algorithm = None,
) -> None:
    """``out[o, c, a, b] = sum over the batch and all windows of grad[o] * x[c] at tap (a, b)``."""
    g = geometry
    by_winograd = algorithm == "winograd"
    if algorithm is None and winograd.serves(g) and out.dtype == np.float32:
        by_winograd = winograd_weight.pays(g)
    if by_winograd and winograd_weight.grad_weight(grad, x, g, out):
        return
    if geometry.group_channels == 1:
        depthwise.backward_weight(grad, x, geometry, forward_taps(geometry), out)
    else:
        grad_weight.backward_weight(grad, x, forward_taps(geometry), geometry, out)


@compiled
def _sum_planes(start: int, stop: int, grad: Array, out: Array) -> None:
    """Grad (N, O, P)."""
    for o in range(start, stop):
        summed = 0.0
        for n in range(grad.shape[0]):
            summed += total(grad[n, o])
        out[o] = summed


def conv2d_grad_bias(grad: Array, out: Array) -> None:
    """Sum of grad (N,O,OH,OW) over all but O."""
    batch, filters, height, width = grad.shape
    run(_sum_planes, filters, grad.size, flat(grad).reshape(batch, filters, height * width), out)
