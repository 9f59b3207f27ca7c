"""Pooling: a task is one channel of one image, or a strip of it.

Maxima and small averages are taken row by row (`pool_rows`). For the others, windows of one output row are done side by side: for each tap, one pass over the row.
"""

from __future__ import annotations

import numpy as np

from ...geometry import PoolGeometry, adaptive_window
from ..common import are_within, window_sizes
from ..table import Array
from .arrays import flat, planes
from .compiling import compiled
from .pool import run, run_with_scratch
from .pool_rows import max_row, max_row_where, mean_row, spread_row
from .spans import span
from .sums import SHORT, short_total, total
from .vectors import lanes

#: kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w
_Window = tuple[int, int, int, int, int, int, int, int]


#: Sums of more terms are in double precision.
_FEW_TAPS = 64


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
def _buffer_size(width: int, out_w: int, sizes: _Window, vector: int) -> int:
    """Elements that the vectors of a padded row of windows read and write."""
    _, kernel_w, _, stride_w, _, left, _, dilation_w = sizes
    windows = -(-out_w // vector) * vector
    read = windows * stride_w + (kernel_w - 1) * dilation_w + 2 * vector
    return max(left + width + vector, read)


@compiled
def _max(start: int, stop: int, x: Array, sizes: _Window, vector: int, out: Array) -> None:
    """Tasks are planes; x (N*C, H, W), out (N*C, OH, OW)."""
    kernel_h, kernel_w, stride_h, stride_w, above, left, dilation_h, dilation_w = sizes
    _, height, width = x.shape
    _, out_h, out_w = out.shape
    source, target = x.reshape(-1), out.reshape(-1)
    buffer = np.full(_buffer_size(width, out_w, sizes, vector), x.dtype.type(-np.inf))
    for p in range(start, stop):
        for i in range(out_h):
            top = i * stride_h - above
            first, last = span(height, kernel_h, dilation_h, top)
            at = (p * height + top + first * dilation_h) * width
            # The next row writes over what is too much; the next plane may be another thread's.
            room = i * out_w + -(-out_w // vector) * vector <= out_h * out_w
            max_row(
                source, at, width, last - first, dilation_h * width, buffer, left, kernel_w,
                dilation_w, stride_w, out_w, room, target, (p * out_h + i) * out_w,
            )  # fmt: skip


@compiled
def _max_where(
    start: int, stop: int, x: Array, sizes: _Window, vector: int, out: Array, indices: Array
) -> None:
    """As `_max`; indices have the shape of out."""
    kernel_h, kernel_w, stride_h, stride_w, above, left, dilation_h, dilation_w = sizes
    _, height, width = x.shape
    _, out_h, out_w = out.shape
    source, target, found = x.reshape(-1), out.reshape(-1), indices.reshape(-1)
    # Of a window of nothing but -inf, the first tap.
    first_rows = _first_inside(out_h, stride_h, above, dilation_h)
    first_columns = _first_inside(out_w + vector, stride_w, left, dilation_w)
    for p in range(start, stop):
        for i in range(out_h):
            top = i * stride_h - above
            first, last = span(height, kernel_h, dilation_h, top)
            position = (top + first * dilation_h) * width - left
            room = i * out_w + -(-out_w // vector) * vector <= out_h * out_w
            max_row_where(
                source, p * height * width + position, -left, width, stride_w, last - first,
                dilation_h * width, kernel_w, dilation_w, out_w, room, target,
                (p * out_h + i) * out_w, position, found, first_columns, first_rows[i] * width,
            )  # fmt: skip


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
    tasks, work = g.batch * g.channels, out.size * g.kernel_h * g.kernel_w
    vector = lanes(out.dtype)
    if indices is None:
        run(_max, tasks, work, planes(x), _window(g), vector, planes(out))
    else:
        run(_max_where, tasks, work, planes(x), _window(g), vector, planes(out), planes(indices))


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
def _small_average(
    start: int, stop: int, x: Array, sizes: _Window, vector: int, heights: Array, widths: Array,
    out: Array,
) -> None:  # fmt: skip
    """As `_average`, in the precision of x; widths go on to a whole vector."""
    kernel_h, kernel_w, stride_h, stride_w, above, left, _, _ = sizes
    _, height, width = x.shape
    _, out_h, out_w = out.shape
    source, target = x.reshape(-1), out.reshape(-1)
    buffer = np.full(_buffer_size(width, out_w, sizes, vector), x.dtype.type(0))
    for p in range(start, stop):
        for i in range(out_h):
            top = i * stride_h - above
            first, last = span(height, kernel_h, 1, top)
            room = i * out_w + -(-out_w // vector) * vector <= out_h * out_w
            mean_row(
                source, (p * height + top + first) * width, width, last - first, width, buffer,
                left, kernel_w, 1, stride_w, out_w, room, target, (p * out_h + i) * out_w,
                heights[i], widths,
            )  # fmt: skip


@compiled
def _small_average_backward(
    start: int, stop: int, grad: Array, sizes: _Window, vector: int, heights: Array, widths: Array,
    out: Array,
) -> None:  # fmt: skip
    """As `_average_backward`, of strides 1 and 2, with the inverse of the divisors.

    Widths go on to a whole vector.
    """
    kernel_h, kernel_w, stride_h, stride_w, above, left, _, _ = sizes
    _, height, width = out.shape
    _, out_h, out_w = grad.shape
    source, target = grad.reshape(-1), out.reshape(-1)
    shares = max(out_w, (width + left) // stride_w + 1) + 3 * vector
    buffer = np.zeros(kernel_w + shares, grad.dtype)
    for p in range(start, stop):
        for row in range(height):
            first = max(0, -((kernel_h - 1 - row - above) // stride_h))
            last = min(out_h, (row + above) // stride_h + 1)
            room = row * width + -(-width // (2 * vector)) * 2 * vector <= height * width
            spread_row(
                source, (p * out_h + first) * out_w, out_w, last - first, heights, first, widths,
                buffer, kernel_w, kernel_w, stride_w, left, width, room, target,
                (p * height + row) * width,
            )  # fmt: skip


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
    if g.kernel_h * g.kernel_w <= _FEW_TAPS and out.size:
        dtype = out.dtype
        vector = lanes(dtype)
        widths = np.concatenate([widths, np.ones(vector)]).astype(dtype)
        run(
            _small_average, g.batch * g.channels, out.size * g.kernel_h * g.kernel_w, planes(x),
            _window(g), vector, heights.astype(dtype), widths, planes(out),
        )  # fmt: skip
        return
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
    dtype = out.dtype
    if g.stride_w <= 2 and g.kernel_h * g.kernel_w <= _FEW_TAPS and out.size:
        vector = lanes(dtype)
        widths = np.concatenate([widths, np.ones(vector)])
        run(
            _small_average_backward, g.batch * g.channels, grad.size * g.kernel_h * g.kernel_w,
            planes(grad), _window(g), vector, (1 / heights).astype(dtype),
            (1 / widths).astype(dtype), planes(out),
        )  # fmt: skip
        return
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
def _mean(start: int, stop: int, x: Array, out: Array) -> None:
    """X (N*C, H*W), out (N*C)."""
    if x.shape[1] < SHORT:
        for p in range(start, stop):
            out[p] = short_total(x[p]) / x.shape[1]
        return
    for p in range(start, stop):
        out[p] = total(x[p]) / x.shape[1]


@compiled
def _mean_backward(start: int, stop: int, grad: Array, out: Array) -> None:
    """Grad (N*C), out (N*C, H*W)."""
    for p in range(start, stop):
        out[p, :] = grad[p] / out.dtype.type(out.shape[1])


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
    if out.shape[2:] == (1, 1) and x.size:
        run(_mean, out.size, x.size, flat(x).reshape(out.size, -1), flat(out))
        return
    rows, columns = (_windows(x.shape[axis], out.shape[axis]) for axis in (2, 3))
    tasks = out.shape[0] * out.shape[1]
    run(_adaptive, tasks, x.size + out.size, planes(x), rows, columns, planes(out))


def adaptive_avg_pool2d_backward(grad: Array, out: Array) -> None:
    """Spread each grad element, over its window's size, on its window."""
    if grad.shape[2:] == (1, 1) and out.size:
        run(_mean_backward, grad.size, out.size, flat(grad), flat(out).reshape(grad.size, -1))
        return
    rows, columns = (_windows(out.shape[axis], grad.shape[axis]) for axis in (2, 3))
    tasks = out.shape[0] * out.shape[1]
    run(_adaptive_backward, tasks, grad.size + out.size, planes(grad), rows, columns, planes(out))
