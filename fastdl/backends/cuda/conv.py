"""Convolution and its gradients: which kernel, which tile, and what stands where.

A filter that sees one channel is `depthwise`'s; all else is a matrix product, `gemm` forward and
for the input gradient, `grad_weight` for the weight gradient.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ...geometry import ConvGeometry
from ..precision import precision
from ..table import Activation, Algorithm
from . import depthwise, elementwise, gemm, grad_weight, norm, tensor
from .arrays import DeviceArray, constant, empty
from .cublas import Matrix, library, matrix_product
from .gemm import Tile
from .launch import THREADS, blocks_for, entry, processors

_NOWHERE = -(2**29)  # a row that no image has


class Product(NamedTuple):
    """A matrix product over gathered windows, as the arguments of `gemm.product` say it."""

    depth: int  # products of a window
    groups: int
    filters: int  # of a group
    group_step: int  # in the weight, from group to group and from filter to filter
    filter_step: int
    windows: int
    grid_h: int  # of windows in an image
    grid_w: int
    step_h: int  # from window to window, and where the first one's corner is
    step_w: int
    origin_h: int
    origin_w: int
    height: int  # of the image
    width: int
    x_image: int
    x_group: int
    out_image: int
    out_plane: int
    out_width: int
    out_step_h: int
    out_step_w: int
    out_h: int
    out_w: int
    straight: bool
    plain: bool


@entry("out")
def conv2d(
    x: DeviceArray,
    weight: DeviceArray,
    bias: DeviceArray | None,
    geometry: ConvGeometry,
    activation: Activation,
    out: DeviceArray,
    algorithm: Algorithm = None,
) -> None:
    """``out = f(bias + weight * windows of x)``."""
    g = geometry
    if not out.size:
        return
    if g.group_channels == 1:
        tall, wide = (g.kernel_h, g.kernel_w) if g.kernel_h * g.kernel_w <= 25 else (0, 0)
        depthwise.forward(x.dtype, activation, tall, wide)(
            blocks_for(out.size), THREADS, x, weight, bias or weight, out, bias is not None,
            out.size, *_window(g),
        )  # fmt: skip
        return
    pixels = Matrix(x, g.height * g.width, apart=g.channels * g.height * g.width)
    if activation is None and _pointwise(
        g, Matrix(weight, g.channels), pixels, (g.filters, g.channels), out
    ):
        if bias is not None:
            elementwise.add_channels(out, bias)
        return
    multiply(_forward(g), _forward_taps, g, weight, x, bias, activation, out)


@entry("out")
def conv2d_grad_input(
    grad: DeviceArray,
    weight: DeviceArray,
    geometry: ConvGeometry,
    out: DeviceArray,
    algorithm: Algorithm = None,
) -> None:
    """Gradient with respect to x, one residue of the stride at a time.

    Pixels ``i * stride + residue`` are read by the same taps at the same distance: for them it is
    a convolution of grad without a stride.
    """
    g = geometry
    if not out.size:
        return
    if g.group_channels == 1:
        depthwise.grad_input(grad.dtype)(
            blocks_for(out.size), THREADS, grad, weight, out, out.size, *_window(g)
        )
        return
    pixels = Matrix(grad, g.out_h * g.out_w, apart=g.filters * g.out_h * g.out_w)
    if _pointwise(g, Matrix(weight, g.channels, True), pixels, (g.channels, g.filters), out):
        return
    for residue_h in range(min(g.stride_h, g.height)):
        for residue_w in range(min(g.stride_w, g.width)):
            plan = _backward(g, residue_h, residue_w)
            multiply(plan, _backward_taps, (g, residue_h, residue_w), weight, grad, None, None, out)


@entry("out")
def conv2d_grad_weight(
    grad: DeviceArray,
    x: DeviceArray,
    geometry: ConvGeometry,
    out: DeviceArray,
    algorithm: Algorithm = None,
) -> None:
    """Gradient with respect to weight, in two stages; see `grad_weight`."""
    g = geometry
    rows = g.batch * g.out_h
    if g.group_channels == 1:
        _depthwise_grad_weight(grad, x, g, out)
        return
    tile = grad_weight.TILE
    columns = g.group_channels * g.kernel_h * g.kernel_w
    parts = _pointwise_parts(grad, x, g)
    if parts is not None:
        grad_weight.total(grad.dtype)(blocks_for(out.size), THREADS, parts, out, out.size, g.batch)
        return
    high, wide = gemm.tiled(g.group_filters, columns, tile)
    # As many runs as keep the sums short, or as fill the GPU.
    fill = -(-4 * processors() // (high * wide * g.groups))
    wanted = max(-(-rows * g.out_w // grad_weight.RUN), fill)
    rows_a_run = max(-(-rows // min(wanted, max(gemm.MOST // g.groups, 1))), 1)
    runs = -(-rows // rows_a_run)
    parts = empty((max(runs, 1), *out.shape), out.dtype, grad)
    if runs:
        grad_weight.partial(grad.dtype)(
            (wide, high, g.groups * runs), tile.threads, grad, x,
            _device_taps(_forward_taps, g, tile.k, grad.device), parts, rows, rows_a_run, runs,
            g.group_filters, columns, g.out_h, g.out_w, g.stride_h, g.stride_w, g.pad_top,
            g.pad_left, g.height, g.width, g.channels * g.height * g.width,
            g.group_channels * g.height * g.width, g.filters * g.out_h * g.out_w, g.groups,
        )  # fmt: skip
    grad_weight.total(grad.dtype)(blocks_for(out.size), THREADS, parts, out, out.size, runs)


def _depthwise_grad_weight(
    grad: DeviceArray, x: DeviceArray, g: ConvGeometry, out: DeviceArray
) -> None:
    """In two stages where a filter's taps are few."""
    if g.kernel_h * g.kernel_w > depthwise.MOST_TAPS:
        depthwise.grad_weight(grad.dtype)(
            out.size, THREADS, grad, x, out, g.batch, out.size, *_window(g)
        )
        return
    windows = g.batch * g.out_h * g.out_w
    slices = min(max(blocks_for(windows, depthwise.RUN * THREADS), 1), gemm.MOST)
    parts = empty((slices, *out.shape), out.dtype, grad)
    depthwise.grad_weight_at_once(grad.dtype, g.kernel_h, g.kernel_w)(
        (g.filters, slices), THREADS, grad, x, parts, g.batch, slices, *_window(g)
    )
    grad_weight.total(grad.dtype)(blocks_for(out.size), THREADS, parts, out, out.size, slices)


@entry("out")
def conv2d_grad_bias(grad: DeviceArray, out: DeviceArray) -> None:
    """Sum of grad (N,O,OH,OW) over all but O."""
    batch, filters, height, width = grad.shape
    norm.channel_sum(grad.reshape(batch, filters, height * width), out)


def conv2d_algorithms(
    geometry: ConvGeometry, dtype: Any, prepared: bool = False
) -> tuple[str, ...]:
    """``depthwise`` where a filter sees one channel."""
    return ("depthwise", "direct") if geometry.group_channels == 1 else ("direct",)


#: Pixels of an image from which on a product of them is worth a result for each image.
_MANY_PIXELS = 256


def _is_pointwise(g: ConvGeometry) -> bool:
    """Whether every image's result is one matrix product of its pixels."""
    return (
        (g.kernel_h, g.kernel_w, g.stride_h, g.stride_w, g.pad_top, g.pad_left, g.groups)
        == (1, 1, 1, 1, 0, 0, 1)
        and (g.height, g.width) == (g.out_h, g.out_w)
        and bool(g.batch and g.channels)
    )


def _pointwise(
    g: ConvGeometry, weight: Matrix, pixels: Matrix, sizes: tuple[int, int], out: DeviceArray
) -> bool:
    """Whether it is pointwise and cuBLAS computed it: ``out[n] = weight @ pixels[n]``."""
    if not _is_pointwise(g):
        return False
    plane = g.height * g.width
    into = Matrix(out, plane, apart=out.size // g.batch)
    return matrix_product(weight, pixels, into, (*sizes, plane), g.batch)


def _pointwise_parts(grad: DeviceArray, x: DeviceArray, g: ConvGeometry) -> DeviceArray | None:
    """Every image's weight gradient ``grad[n] @ x[n].T``, where that is pointwise and by cuBLAS."""
    plane = g.height * g.width
    if library() is None or not _is_pointwise(g) or plane < _MANY_PIXELS:
        return None
    parts = empty((g.batch, g.filters, g.channels), grad.dtype, grad)
    done = matrix_product(
        Matrix(grad, plane, apart=g.filters * plane),
        Matrix(x, plane, True, g.channels * plane),
        Matrix(parts, g.channels, apart=g.filters * g.channels),
        (g.filters, plane, g.channels),
        g.batch,
    )
    return parts if done else None


def multiply(
    plan: Product,
    make_taps: Any,
    key: Any,
    weight: DeviceArray,
    x: DeviceArray,
    bias: DeviceArray | None,
    activation: Activation,
    out: DeviceArray,
) -> None:
    """Compute a `Product`; ``make_taps(key)`` are its taps."""
    if not plan.windows:
        return
    kind = precision() if out.dtype == np.float32 else "float32"
    tile = _tile(plan, out.dtype, kind)
    taps = _device_taps(make_taps, key, tile.k, out.device)
    depth = taps.shape[0]
    padded = -(-plan.filters // tile.m) * tile.m
    packed = gemm.packed_weight(
        weight, taps, plan.groups, plan.filters, padded, plan.group_step, plan.filter_step
    )
    if kind == "float32":
        kernel = gemm.product(out.dtype, tile, activation, plan.straight, plan.plain)
    else:
        kernel = tensor.product(out.dtype, tile, activation, kind)
    high, wide = gemm.tiled(plan.filters, plan.windows, tile)
    for start in range(0, wide, gemm.MOST):
        kernel(
            (high, min(wide - start, gemm.MOST), plan.groups), tile.threads, packed, taps, x,
            weight if bias is None else bias, out, start, padded, depth, plan.filters, *plan[5:-2],
            bias is not None, plan.grid_h * plan.grid_w,
        )  # fmt: skip


def _tile(plan: Product, dtype: Any, kind: str) -> Tile:
    """The tile that should be done first, counted in products over what it reads of them.

    A block's time goes with its tile's size, twice the multiprocessors' number of blocks run at a
    time; and the sums that a thread holds for each quad it reads say how near a tile comes to
    the peak.
    """
    if kind != "float32":
        return tensor.tile(kind)
    if dtype == np.float64:
        return gemm.TILES_DOUBLE[0]

    def time(tile: Tile) -> float:
        high, wide = gemm.tiled(plan.filters, plan.windows, tile)
        blocks = high * wide * plan.groups
        waves = -(-blocks // (2 * processors()))
        quads = tile.quads_m * tile.quads_p / (tile.quads_m + tile.quads_p)
        return waves * tile.m * tile.p * (1 + 0.25 / quads)

    return min(gemm.TILES, key=time)


@lru_cache(maxsize=1024)
def _device_taps(make: Any, key: Any, multiple: int, device: int) -> DeviceArray:
    """The taps on the GPU, with as many that are nowhere as make their number a multiple."""
    taps = make(key)
    missing = max(-len(taps) % multiple, 0 if len(taps) else multiple)
    nowhere = np.full((missing, 4), (0, _NOWHERE, _NOWHERE, -1), np.int32)
    return constant(np.concatenate([taps.reshape(-1, 4), nowhere]).astype(np.int32), device)


def _forward_taps(g: ConvGeometry) -> Any:
    """Offset from the window's corner, row, column and place in the weight of each (c, a, b)."""
    c, a, b = np.indices((g.group_channels, g.kernel_h, g.kernel_w)).reshape(3, -1)
    down, right = a * g.dilation_h, b * g.dilation_w
    offset = c * g.height * g.width + down * g.width + right
    return np.stack([offset, down, right, np.arange(len(c))], axis=1)


def _forward(g: ConvGeometry) -> Product:
    products = g.group_channels * g.kernel_h * g.kernel_w
    plane, out_plane = g.height * g.width, g.out_h * g.out_w
    straight = (
        (g.kernel_h, g.kernel_w, g.stride_h, g.stride_w, g.pad_top, g.pad_left)
        == (1, 1, 1, 1, 0, 0)
        and plane == out_plane
        and plane % 4 == 0
    )
    return Product(
        products, g.groups, g.group_filters, g.group_filters * products, products,
        g.batch * out_plane, g.out_h, g.out_w, g.stride_h, g.stride_w, -g.pad_top, -g.pad_left,
        g.height, g.width, g.channels * plane, g.group_channels * plane, g.filters * out_plane,
        out_plane, g.out_w, 1, 1, 0, 0, straight, out_plane % 4 == 0,
    )  # fmt: skip


def _phase_taps(residue: int, pad: int, kernel: int, stride: int, dilation: int) -> Any:
    """``(tap, distance)`` of the taps that read pixels of this residue of the stride."""
    reach = [residue + pad - tap * dilation for tap in range(kernel)]
    pairs = [(tap, far // stride) for tap, far in enumerate(reach) if far % stride == 0]
    return np.array(pairs, np.int64).reshape(-1, 2)


def _backward_taps(key: tuple[ConvGeometry, int, int]) -> Any:
    """As `_forward_taps`, of each (o, a, b) whose tap reads the residue's pixels."""
    g, residue_h, residue_w = key
    rows = _phase_taps(residue_h, g.pad_top, g.kernel_h, g.stride_h, g.dilation_h)
    columns = _phase_taps(residue_w, g.pad_left, g.kernel_w, g.stride_w, g.dilation_w)
    shape = (g.group_filters, len(rows), len(columns))
    o, row, column = np.indices(shape).reshape(3, -1)
    (a, down), (b, right) = rows[row].T, columns[column].T
    offset = o * g.out_h * g.out_w + down * g.out_w + right
    place = (o * g.group_channels * g.kernel_h + a) * g.kernel_w + b
    return np.stack([offset, down, right, place], axis=1)


def _backward(g: ConvGeometry, residue_h: int, residue_w: int) -> Product:
    taps = g.kernel_h * g.kernel_w
    grid_h = -(-(g.height - residue_h) // g.stride_h)
    grid_w = -(-(g.width - residue_w) // g.stride_w)
    plane, out_plane = g.height * g.width, g.out_h * g.out_w
    whole = (g.stride_h, g.stride_w) == (1, 1)
    straight = (
        whole
        and (g.kernel_h, g.kernel_w, g.pad_top, g.pad_left) == (1, 1, 0, 0)
        and plane == out_plane
        and plane % 4 == 0
    )
    return Product(
        g.group_filters * taps, g.groups, g.group_channels, g.group_filters * g.group_channels * taps,
        taps, g.batch * grid_h * grid_w, grid_h, grid_w, 1, 1, 0, 0, g.out_h, g.out_w,
        g.filters * out_plane, g.group_filters * out_plane, g.channels * plane, plane, g.width,
        g.stride_h, g.stride_w, residue_h, residue_w, straight, whole and plane % 4 == 0,
    )  # fmt: skip


def _window(g: ConvGeometry) -> tuple[int, ...]:
    """What `depthwise` kernels take after the count."""
    return (
        g.filters, g.group_filters, g.height, g.width, g.kernel_h, g.kernel_w, g.stride_h,
        g.stride_w, g.pad_top, g.pad_left, g.dilation_h, g.dilation_w, g.out_h, g.out_w,
    )  # fmt: skip
