"""Convolution with one channel a group: no sum over channels, so nothing for a matrix product.

A task is a strip of one plane, laid out in a frame (`windows`) and summed tap by tap. With M = O/C
filters a channel, filter o reads channel o // M. The input gradient is such a sum of M planes for
each phase of the stride; the weight gradient a dot product of a strip for each tap.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ...geometry import ConvGeometry
from ..table import Array
from .activation import NONE, activate
from .arrays import dense, flat, planes
from .columns import Window, window
from .compiling import compiled, reduction
from .gemm import Grid, Taps
from .microkernel import copy_window
from .pool import run_with_scratch
from .spans import span
from .taps import TAPS, dot_taps, sum_taps
from .windows import Frame, Steps, fill, lay_out, write

#: Vectors of products that `dot_taps` sums in their own precision.
_RUN = 128


class _Planes(NamedTuple):
    """Result plane p sums ``sums`` source planes, from ``p // repeats * sums`` on.

    A source plane has ``height`` rows of ``width``; its filter has ``taps`` taps.
    """

    repeats: int
    sums: int
    height: int
    width: int
    filters: int
    taps: int


@compiled
def _sum(
    start: int, stop: int, scratch: Array, source: Array, weight: Array, bias: Array,
    activation: int, between: _Planes, grid: Grid, frame: Frame, offsets: Array, places: Array,
    out: Array,
) -> None:  # fmt: skip
    """Tasks (plane, strip) of the results of a grid."""
    strip, results = scratch[: frame.size], scratch[frame.size :]
    area = between.height * between.width
    zero = scratch.dtype.type(0)
    for task in range(start, stop):
        plane, first = task // frame.strips, task % frame.strips * frame.rows
        rows = min(frame.rows, grid.height - first)
        channel = plane % grid.planes
        for more in range(between.sums):
            at = plane // between.repeats * between.sums + more
            # The filters of a result's channel, or that of a source's.
            o = at % between.filters if between.sums > 1 else channel
            fill(source, at * area, between.height, between.width, first, rows, frame, zero, strip)
            sum_taps(
                strip, offsets, weight, o * between.taps, places, rows * frame.pitch,
                bias[channel], more > 0, results,
            )  # fmt: skip
        if activation != NONE:
            activate(activation, results[: rows * frame.pitch])
        place = plane * grid.plane + (grid.row + first * grid.step_h) * grid.line + grid.column
        write(
            results, rows, grid.width, frame.pitch, out, place, grid.step_h * grid.line, grid.step_w
        )


def sum_planes(
    source: Array, weight: Array, bias: Array, activation: int, taps: Taps, steps: tuple[int, int],
    between: _Planes, grid: Grid, out: Array,
) -> None:  # fmt: skip
    """Write the sums of all planes, at the places that grid says."""
    frame, offsets = _layout(taps, steps, grid, out.dtype)
    work = grid.batch * grid.planes * grid.height * grid.width * taps.factor.size
    run_with_scratch(
        _sum, grid.batch * grid.planes * frame.strips, work * between.sums // 4, out.dtype,
        frame.size + frame.results, flat(source), flat(weight), bias, activation, between, grid,
        frame, offsets, taps.factor, flat(out),
    )  # fmt: skip


def _layout(
    taps: Taps, steps: tuple[int, int], grid: Grid, dtype: np.dtype[Any]
) -> tuple[Frame, Array]:
    return lay_out(taps.row, taps.column, Steps(grid.height, grid.width, *steps), dtype)


def forward(
    x: Array, weight: Array, bias: Array, geometry: ConvGeometry, activation: int, taps: Taps,
    out: Array,
) -> None:  # fmt: skip
    """``out[o, i, j] = f(bias[o] + sum of x[o // M] * weight[o] over the window)``."""
    g = geometry
    between = _Planes(g.group_filters, 1, g.height, g.width, g.filters, g.kernel_h * g.kernel_w)
    grid = Grid(g.batch, g.out_h, g.out_w, g.filters, g.out_h * g.out_w, g.out_w, 0, 0, 1, 1)
    sum_planes(x, weight, bias, activation, taps, (g.stride_h, g.stride_w), between, grid, out)


def backward_input(
    grad: Array, weight: Array, geometry: ConvGeometry, taps: Taps, grid: Grid, out: Array
) -> None:
    """The pixels of one phase of the gradient of `forward` with respect to x."""
    g = geometry
    bias = np.zeros(g.channels, out.dtype)
    between = _Planes(1, g.group_filters, g.out_h, g.out_w, g.filters, g.kernel_h * g.kernel_w)
    sum_planes(grad, weight, bias, NONE, taps, (1, 1), between, grid, out)


@reduction
def _strided_dot(a: Array, b: Array, stride: int) -> float:
    """Sum of a[j] * b[j * stride]."""
    result = 0.0
    if stride == 1:
        for j in range(a.size):
            result += np.float64(a[j]) * np.float64(b[j])
    else:
        for j in range(a.size):
            result += np.float64(a[j]) * np.float64(b[j * stride])
    return result


@compiled
def _exact_weight(o: int, grad: Array, x: Array, sizes: Window, out: Array) -> None:
    """The gradient of one filter, of numbers that may not be finite.

    Grad (N, O, OH, OW), x (N, C, H, W), out (O, KH, KW).
    """
    kernel_h, kernel_w, stride_h, stride_w, top, left, dilation_h, dilation_w = sizes
    batch, channels, height, width = x.shape
    _, filters, out_h, out_w = grad.shape
    sums = np.empty(kernel_h * kernel_w, np.float64)
    c = o // (filters // channels)
    sums[:] = 0.0
    for n in range(batch):
        for tap in range(kernel_h * kernel_w):
            row_offset = tap // kernel_w * dilation_h - top
            offset = tap % kernel_w * dilation_w - left
            first_row, last_row = span(height, out_h, stride_h, row_offset)
            first, last = span(width, out_w, stride_w, offset)
            if first == last:
                continue
            for i in range(first_row, last_row):
                source = x[n, c, i * stride_h + row_offset, first * stride_w + offset :]
                sums[tap] += _strided_dot(grad[n, o, i, first:last], source, stride_w)
    for tap in range(kernel_h * kernel_w):
        out[o, tap // kernel_w, tap % kernel_w] = sums[tap]


@compiled
def _backward_weight(
    start: int, stop: int, scratch: Array, grad: Array, x: Array, flat_grad: Array, flat_x: Array,
    sizes: Window, frame: Frame, offsets: Array, out: Array,
) -> None:  # fmt: skip
    """Tasks are filters; shapes as in `_exact_weight`."""
    batch, channels, height, width = x.shape
    _, filters, out_h, out_w = grad.shape
    taps = out.shape[1] * out.shape[2]
    strip, slope = scratch[: frame.size], scratch[frame.size :]
    zero = scratch.dtype.type(0)
    sums = np.empty(offsets.size, np.float64)
    for o in range(start, stop):
        c = o // (filters // channels)
        sums[:] = 0.0
        for n in range(batch):
            for first in range(0, out_h, frame.rows):
                rows = min(frame.rows, out_h - first)
                fill(flat_x, (n * channels + c) * height * width, height, width, first, rows, frame,
                     zero, strip)  # fmt: skip
                place = 0
                for t in range(rows):
                    at = ((n * filters + o) * out_h + first + t) * out_w
                    for u in range(0, frame.pitch, frame.lanes):
                        copy_window(
                            slope, place + u, frame.lanes, True, flat_grad, at + u, u, out_w, 1, zero
                        )  # fmt: skip
                    place += frame.pitch
                slope[place : place + frame.lanes] = zero
                vectors = -(-place // frame.lanes)
                for begin in range(0, vectors, _RUN):
                    count = min(_RUN, vectors - begin)
                    for tap in range(0, taps, TAPS):
                        dot_taps(slope, strip, offsets, tap, begin * frame.lanes, count, sums)
        finite = True
        for tap in range(taps):
            finite = finite and np.isfinite(sums[tap])
            out[o, tap // out.shape[2], tap % out.shape[2]] = sums[tap]
        if not finite:
            # Zeros between the rows were multiplied with it.
            _exact_weight(o, grad, x, sizes, out)


def backward_weight(grad: Array, x: Array, geometry: ConvGeometry, taps: Taps, out: Array) -> None:
    """Gradient of `forward` with respect to weight."""
    g = geometry
    steps = Steps(g.out_h, g.out_w, g.stride_h, g.stride_w)
    frame, offsets = lay_out(taps.row, taps.column, steps, out.dtype)
    offsets = np.concatenate([offsets, np.zeros(TAPS, offsets.dtype)])
    run_with_scratch(
        _backward_weight, g.filters, g.flops // 4, out.dtype, frame.size + frame.results,
        dense(grad), dense(x), flat(grad), flat(x), window(g), frame, offsets, planes(out),
    )  # fmt: skip
