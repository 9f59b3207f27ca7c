"""Pooling: all windows at once, one kernel tap at a time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from ...geometry import PoolGeometry, adaptive_window
from ..common import are_within, tap_slices, window_sizes
from ..table import Array


def max_pool2d(x: Array, geometry: PoolGeometry, out: Array, indices: Array | None) -> None:
    """Largest value of each window, and where it stands."""
    g = geometry
    out[...] = -np.inf
    if indices is not None:
        indices[...] = -1
    positions = np.arange(g.height * g.width).reshape(g.height, g.width)
    for a, b in product(range(g.kernel_h), range(g.kernel_w)):
        windows, pixels = (((..., *part)) for part in tap_slices(g, a, b))
        value, best = x[pixels], out[windows]
        if indices is None:
            np.maximum(best, value, out=best)
            continue
        # The first tap counts even where it is -inf: every window needs a position.
        better = (value > best) | np.isnan(value) | (indices[windows] < 0)
        np.copyto(best, value, where=better)
        np.copyto(indices[windows], positions[pixels], where=better)


def max_pool2d_backward(grad: Array, indices: Array, out: Array) -> bool:
    """Add each grad element to the position its index names."""
    if not are_within(indices, out.shape):
        return False
    batch, channels, height, width = out.shape
    planes = np.arange(batch * channels).reshape(batch, channels, 1, 1)
    out[...] = 0
    np.add.at(out.reshape(-1), (planes * height * width + indices).reshape(-1), grad.reshape(-1))
    return True


@np.errstate(all="ignore")
def avg_pool2d(
    x: Array, geometry: PoolGeometry, count_include_pad: bool, divisor: int | None, out: Array
) -> None:
    """Sum of each window over its divisor."""
    g = geometry
    out[...] = 0
    for a, b in product(range(g.kernel_h), range(g.kernel_w)):
        (out_rows, out_columns), (rows, columns) = tap_slices(g, a, b)
        out[:, :, out_rows, out_columns] += x[:, :, rows, columns]
    out /= _divisors(g, count_include_pad, divisor, out)


@np.errstate(all="ignore")
def avg_pool2d_backward(
    grad: Array, geometry: PoolGeometry, count_include_pad: bool, divisor: int | None, out: Array
) -> None:
    """Spread each grad element, over its divisor, on its window."""
    g = geometry
    share = grad / _divisors(g, count_include_pad, divisor, out)
    out[...] = 0
    for a, b in product(range(g.kernel_h), range(g.kernel_w)):
        (out_rows, out_columns), (rows, columns) = tap_slices(g, a, b)
        out[:, :, rows, columns] += share[:, :, out_rows, out_columns]


@np.errstate(all="ignore")
def adaptive_avg_pool2d(x: Array, out: Array) -> None:
    """Mean of each window."""
    for i, j, rows, columns in _adaptive_windows(x, out):
        np.mean(x[:, :, rows, columns], axis=(2, 3), out=out[:, :, i, j])


@np.errstate(all="ignore")
def adaptive_avg_pool2d_backward(grad: Array, out: Array) -> None:
    """Spread each grad element, over its window's size, on its window."""
    out[...] = 0
    for i, j, rows, columns in _adaptive_windows(out, grad):
        window = out[:, :, rows, columns]
        window += grad[:, :, i, j, None, None] / (window.shape[2] * window.shape[3])


def _divisors(
    geometry: PoolGeometry, count_include_pad: bool, divisor: int | None, like: Array
) -> Array:
    """What each window's sum is divided by, (OH, OW) or a single number."""
    if divisor is not None:
        return np.array(divisor, like.dtype)
    heights, widths = window_sizes(geometry, count_include_pad)
    return np.multiply.outer(heights, widths).astype(like.dtype)


def _adaptive_windows(x: Array, out: Array) -> Iterator[tuple[int, int, slice, slice]]:
    """``(i, j, rows, columns)`` for each output position."""
    for i, j in product(range(out.shape[2]), range(out.shape[3])):
        rows = slice(*adaptive_window(i, x.shape[2], out.shape[2]))
        yield i, j, rows, slice(*adaptive_window(j, x.shape[3], out.shape[3]))
