"""Pooling, window by window."""

from __future__ import annotations

import math

from ...geometry import PoolGeometry, adaptive_window
from ..common import are_within, window_sizes, window_taps
from ..table import Array
from .loops import positions


def max_pool2d(x: Array, geometry: PoolGeometry, out: Array, indices: Array | None) -> None:
    """Largest value of each window, and where it stands."""
    for n, c, i, j in positions(geometry.out_shape):
        best, where = -math.inf, -1
        for _, _, row, column in window_taps(geometry, i, j):
            value = x.item(n, c, row, column)
            # The first tap counts even where it is -inf: every window needs a position.
            if value > best or math.isnan(value) or where < 0:
                best, where = value, row * geometry.width + column
        out[n, c, i, j] = best
        if indices is not None:
            indices[n, c, i, j] = where


def max_pool2d_backward(grad: Array, indices: Array, out: Array) -> bool:
    """Add each grad element to the position its index names."""
    if not are_within(indices, out.shape):
        return False
    _, _, height, width = out.shape
    for n, c in positions(out.shape[:2]):
        total = [0.0] * (height * width)
        for i, j in positions(grad.shape[2:]):
            total[indices.item(n, c, i, j)] += grad.item(n, c, i, j)
        for row, column in positions((height, width)):
            out[n, c, row, column] = total[row * width + column]
    return True


def avg_pool2d(
    x: Array, geometry: PoolGeometry, count_include_pad: bool, divisor: int | None, out: Array
) -> None:
    """Sum of each window over its divisor."""
    heights, widths = window_sizes(geometry, count_include_pad)
    for n, c, i, j in positions(geometry.out_shape):
        taps = window_taps(geometry, i, j)
        total = sum(x.item(n, c, row, column) for _, _, row, column in taps)
        out[n, c, i, j] = total / (divisor or heights[i] * widths[j])


def avg_pool2d_backward(
    grad: Array, geometry: PoolGeometry, count_include_pad: bool, divisor: int | None, out: Array
) -> None:
    """Spread each grad element, over its divisor, on its window."""
    heights, widths = window_sizes(geometry, count_include_pad)
    for n, c in positions(out.shape[:2]):
        total = dict.fromkeys(positions(out.shape[2:]), 0.0)
        for i, j in positions(grad.shape[2:]):
            share = grad.item(n, c, i, j) / (divisor or heights[i] * widths[j])
            for _, _, row, column in window_taps(geometry, i, j):
                total[row, column] += share
        for (row, column), value in total.items():
            out[n, c, row, column] = value


def adaptive_avg_pool2d(x: Array, out: Array) -> None:
    """Mean of each window."""
    for n, c, i, j in positions(out.shape):
        window = _adaptive_window(x, out, i, j)
        total = sum(x.item(n, c, row, column) for row, column in window)
        out[n, c, i, j] = total / len(window)


def adaptive_avg_pool2d_backward(grad: Array, out: Array) -> None:
    """Spread each grad element, over its window's size, on its window."""
    for n, c in positions(out.shape[:2]):
        total = dict.fromkeys(positions(out.shape[2:]), 0.0)
        for i, j in positions(grad.shape[2:]):
            window = _adaptive_window(out, grad, i, j)
            for row, column in window:
                total[row, column] += grad.item(n, c, i, j) / len(window)
        for (row, column), value in total.items():
            out[n, c, row, column] = value


def _adaptive_window(x: Array, out: Array, i: int, j: int) -> list[tuple[int, int]]:
    """The pixels of window ``(i, j)``."""
    rows = range(*adaptive_window(i, x.shape[2], out.shape[2]))
    columns = range(*adaptive_window(j, x.shape[3], out.shape[3]))
    return [(row, column) for row in rows for column in columns]
