"""Pooling: a task is one channel of one image.

Windows of one output row are done side by side: for each tap, one pass over the row.
"""

from __future__ import annotations

import numpy as np

from ...geometry import PoolGeometry, adaptive_window
from ..common import are_within, window_sizes
from ..table import Array
from .arrays import planes
from .compiling import compiled
from .pool import run, run_with_scratch
from .spans import span
from .sums import total

#: kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w
_Window = tuple[int, int, int, int, int, int, int, int]


def _window(g: PoolGeometry) -> _Window:
    return (
        g.kernel_h, g.kernel_w, g.stride_h, g.stride_w,
        g.pad_h, g.pad_w, g.dilation_h, g.dilation_w,
    )  # fmt: skip


# --- maximum ---------------------------------------------------------------


@compiled
def _first_inside(outputs: int, stride: int, pad: int, dilation: int) -> Array:
    """For each window, the position of its first tap inside of the image."""
    first = np.empty(outputs, np.int64)
    for j in range(outputs):
        position = j * stride - pad
        first[j] = position if position >= 0 else position % dilation
    return first


@compiled
def _max_row(best: Array, source: Array, stride: int) -> None:
    for j in range(best.size):
        value = source[j * stride]
        # A comparison with NaN is false: a NaN replaces, and is not replaced by a number.
        best[j] = best[j] if value <= best[j] or best[j] != best[j] else value


@compiled
def _max_row_where(best: Array, where: Array, source: Array, stride: int, position: int) -> None:
    for j in range(best.size):
        value = source[j * stride]
        if value > best[j] or value != value:
            best[j] = value
            where[j] = position + j * stride


@compiled
def _max(start: int, stop: int, x: Array, sizes: _Window, out: Array, indices: Array) -> None:
    """X (N*C, H, W), out (N*C, OH, OW), indices of out's shape, or with no planes if not wanted."""
    kernel_h, kernel_w, stride_h, stride_w, top, left, dilation_h, dilation_w = sizes
    _, height, width = x.shape
    _, out_h, out_w = out.shape
    first_rows = _first_inside(out_h, stride_h, top, dilation_h)
    first_columns = _first_inside(out_w, stride_w, left, dilation_w)
    with_indices = indices.shape[0] > 0
    for p in range(start, stop):
        for i in range(out_h):
            best = out[p, i]
            best[:] = -np.inf
            if with_indices:
                # Of a window of nothing but -inf, the first tap.
                indices[p, i, :] = first_rows[i] * width + first_columns
            for tap in range(kernel_h * kernel_w):
                row = i * stride_h - top + tap // kernel_w * dilation_h
                offset = tap % kernel_w * dilation_w - left
                first, last = span(width, out_w, stride_w, offset)
                if not 0 <= row < height or first == last:
                    continue
                column = first * stride_w + offset
                source = x[p, row, column:]
                inside = best[first:last]
                if with_indices:
                    where = indices[p, i, first:last]
                    _max_row_where(inside, where, source, stride_w, row * width + column)
                elif stride_w == 1:
                    _max_row(inside, source, 1)
                elif stride_w == 2:
                    _max_row(inside, source, 2)
                else:
                    _max_row(inside, source, stride_w)


@compiled
def _max_backward(start: int, stop: int, grad: Array, indices: Array, out: Array) -> None:
    """Grad and indices (N*C, OH, OW), out (N*C, H, W)."""
    for p in range(start, stop):
        target = out[p].reshape(-1)
        target[:] = out.dtype.type(0)
        for i in range(grad.shape[1]):
            for j in range(grad.shape[2]):
                target[indices[p, i, j]] += grad[p, i, j]


def max_pool2d(x: Array, geometry: PoolGeometry, out: Array, indices: Array | None) -> None:
    """Largest value of each window, and where it stands."""
    g = geometry
    where = np.empty((0, 0, 0), np.int64) if indices is None else planes(indices)
    work = out.size * g.kernel_h * g.kernel_w
    run(_max, g.batch * g.channels, work, planes(x), _window(g), planes(out), where)


def max_pool2d_backward(grad: Array, indices: Array, out: Array) -> bool:
    """Add each grad element to the position its index names."""
    if not are_within(indices, out.shape):
        return False
    tasks = out.shape[0] * out.shape[1]
    run(_max_backward, tasks, grad.size + out.size, planes(grad), planes(indices), planes(out))
    return True


# --- average ---------------------------------------------------------------


@compiled
def _average(
    start: int, stop: int, sums: Array, x: Array, sizes: _Window, heights: Array, widths: Array,
    out: Array,
) -> None:  # fmt: skip
    """X (N*C, H, W), out (N*C, OH, OW); the divisor of window (i, j) is heights[i] * widths[j]."""
    kernel_h, kernel_w, stride_h, stride_w, top, left, _, _ = sizes
    _, height, width = x.shape
    _, out_h, out_w = out.shape
    for p in range(start, stop):
        for i in range(out_h):
            sums[:out_w] = 0.0
            for tap in range(kernel_h * kernel_w):
                row = i * stride_h - top + tap // kernel_w
                offset = tap % kernel_w - left
                first, last = span(width, out_w, stride_w, offset)
                if not 0 <= row < height or first == last:
                    continue
                source = x[p, row, first * stride_w + offset :]
                inside = sums[first:last]
                if stride_w == 1:
                    for j in range(inside.size):
                        inside[j] += source[j]
                else:
                    for j in range(inside.size):
                        inside[j] += source[j * stride_w]
            for j in range(out_w):
                out[p, i, j] = sums[j] / (heights[i] * widths[j])


@compiled
def _average_backward(
    start: int, stop: int, grad: Array, sizes: _Window, heights: Array, widths: Array, out: Array
) -> None:
    """Grad (N*C, OH, OW), out (N*C, H, W)."""
    kernel_h, kernel_w, stride_h, stride_w, top, left, _, _ = sizes
    _, height, width = out.shape
    _, out_h, out_w = grad.shape
    shares = np.empty(out_w, out.dtype)
    for p in range(start, stop):
        out[p, :, :] = out.dtype.type(0)
        for i in range(out_h):
            for j in range(out_w):
                shares[j] = grad[p, i, j] / (heights[i] * widths[j])
            for tap in range(kernel_h * kernel_w):
                row = i * stride_h - top + tap // kernel_w
                offset = tap % kernel_w - left
                first, last = span(width, out_w, stride_w, offset)
                if not 0 <= row < height or first == last:
                    continue
                target = out[p, row, first * stride_w + offset :]
                inside = shares[first:last]
                if stride_w == 1:
                    for j in range(inside.size):
                        target[j] += inside[j]
                else:
                    for j in range(inside.size):
                        target[j * stride_w] += inside[j]


def _divisors(
    geometry: PoolGeometry, count_include_pad: bool, divisor: int | None
) -> tuple[Array, Array]:
    """Two factors, for the row and the column, of each window's divisor."""
    if divisor is not None:
        return np.full(geometry.out_h, float(divisor)), np.ones(geometry.out_w)
    heights, widths = window_sizes(geometry, count_include_pad)
    return np.array(heights, np.float64), np.array(widths, np.float64)


def avg_pool2d(
    x: Array, geometry: PoolGeometry, count_include_pad: bool, divisor: int | None, out: Array
) -> None:
    """Sum of each window over its divisor."""
    g = geometry
    heights, widths = _divisors(g, count_include_pad, divisor)
    run_with_scratch(
        _average, g.batch * g.channels, out.size * g.kernel_h * g.kernel_w, np.float64, g.out_w,
        planes(x), _window(g), heights, widths, planes(out),
    )  # fmt: skip


def avg_pool2d_backward(
    grad: Array, geometry: PoolGeometry, count_include_pad: bool, divisor: int | None, out: Array
) -> None:
    """Spread each grad element, over its divisor, on its window."""
    g = geometry
    heights, widths = _divisors(g, count_include_pad, divisor)
    run(
        _average_backward, g.batch * g.channels, grad.size * g.kernel_h * g.kernel_w,
        planes(grad), _window(g), heights, widths, planes(out),
    )  # fmt: skip


# --- adaptive average ------------------------------------------------------


@compiled
def _adaptive(start: int, stop: int, x: Array, rows: Array, columns: Array, out: Array) -> None:
    """X (N*C, H, W), out (N*C, OH, OW), rows (OH, 2) and columns (OW, 2): the windows' bounds."""
    for p in range(start, stop):
        for i in range(out.shape[1]):
            for j in range(out.shape[2]):
                first, last = columns[j]
                summed = 0.0
                for row in range(rows[i, 0], rows[i, 1]):
                    summed += total(x[p, row, first:last])
                out[p, i, j] = summed / ((rows[i, 1] - rows[i, 0]) * (last - first))


@compiled
def _adaptive_backward(
    start: int, stop: int, grad: Array, rows: Array, columns: Array, out: Array
) -> None:
    for p in range(start, stop):
        out[p, :, :] = out.dtype.type(0)
        for i in range(grad.shape[1]):
            for j in range(grad.shape[2]):
                first, last = columns[j]
                count = (rows[i, 1] - rows[i, 0]) * (last - first)
                share = out.dtype.type(grad[p, i, j] / count)
                for row in range(rows[i, 0], rows[i, 1]):
                    target = out[p, row, first:last]
                    for column in range(target.size):
                        target[column] += share


def _windows(size: int, outputs: int) -> Array:
    bounds = [adaptive_window(i, size, outputs) for i in range(outputs)]
    return np.array(bounds, np.int64).reshape(outputs, 2)


def adaptive_avg_pool2d(x: Array, out: Array) -> None:
    """Mean of each window."""
    rows, columns = (_windows(x.shape[axis], out.shape[axis]) for axis in (2, 3))
    tasks = out.shape[0] * out.shape[1]
    run(_adaptive, tasks, x.size + out.size, planes(x), rows, columns, planes(out))


def adaptive_avg_pool2d_backward(grad: Array, out: Array) -> None:
    """Spread each grad element, over its window's size, on its window."""
    rows, columns = (_windows(out.shape[axis], grad.shape[axis]) for axis in (2, 3))
    tasks = out.shape[0] * out.shape[1]
    run(_adaptive_backward, tasks, grad.size + out.size, planes(grad), rows, columns, planes(out))
