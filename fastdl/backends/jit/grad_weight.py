"""The gradient of a convolution's weight: a product summed over pixels.

With q counting the pixels of the whole batch and k = (c, a, b) the taps of a group:

    out[o, k] = sum_q source(k, q) * grad[o, q]

The microkernel's rows are taps, its columns filters: its a is the packed source, one line a tap,
its b is grad transposed, NR filters side by side. Pixels come in blocks: grad is transposed for one
block by all threads, then each task adds the block to its own taps, KC pixels at a time. What a
task computes does not depend on how many there are.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from ...geometry import ConvGeometry
from .. import limits
from ..table import Array
from .arrays import flat
from .compiling import compiled
from .gemm import KC, Grid, Image, Taps, locate, pack
from .microkernel import MR, add_tile, multiply_tile, tile_columns
from .pool import TASKS_PER_THREAD, run, run_with_scratch, scratch
from .vectors import lanes

#: Elements of the transposed gradient of one block, about.
_BLOCK_SIZE = 2**20
#: Taps of one task, at most.
_TASK_TAPS = 64
#: Packed lines are a little longer than KC: at multiples of 1 KiB they would share cache sets.
_LINE = KC + 16


class _Sizes(NamedTuple):
    """``filters`` of a group in ``panels`` of ``columns``; ``taps`` of a group, ``task_taps`` a task."""

    groups: int
    filters: int
    panels: int
    columns: int
    lanes: int
    taps: int
    task_taps: int


@compiled
def _transpose(
    start: int, stop: int, grad: Array, first: int, last: int, area: int, sizes: _Sizes,
    turned: Array,
) -> None:  # fmt: skip
    """``turned[(panel, q - first, f)] = grad[n, o, p]``: a task is KC pixels of one panel."""
    filters, columns = sizes.filters, sizes.columns
    parts = -(-(last - first) // KC)
    for task in range(start, stop):
        panel, part = task // parts, task % parts
        group, first_filter = panel // sizes.panels, panel % sizes.panels * columns
        begin, end = first + part * KC, min(first + (part + 1) * KC, last)
        target = turned[(panel * (last - first) + begin - first) * columns :]
        for f in range(columns):
            if first_filter + f >= filters:
                for q in range(end - begin):
                    target[q * columns + f] = turned.dtype.type(0)
                continue
            q = begin
            while q < end:
                n, p = q // area, q % area
                length = min(area - p, end - q)
                plane = (n * sizes.groups + group) * filters + first_filter + f
                source = grad[plane * area + p : plane * area + p + length]
                line = target[(q - begin) * columns + f :]
                for i in range(length):
                    line[i * columns] = source[i]
                q += length


@compiled
def _products(
    start: int, stop: int, workspace: Array, x: Array, turned: Array, first: int, last: int,
    taps: Taps, image: Image, grid: Grid, sizes: _Sizes, lines: Array, out: Array,
) -> None:  # fmt: skip
    """Add pixels ``first`` to ``last - 1`` to the taps of each task (group, taps)."""
    columns, width = sizes.columns, sizes.panels * sizes.columns
    packed = workspace[: _TASK_TAPS * _LINE]
    tile = workspace[packed.size : packed.size + MR * columns]
    sums = workspace[packed.size + tile.size :]
    runs = np.empty((KC, 6), np.int64)
    group_tasks = -(-sizes.taps // sizes.task_taps)
    for task in range(start, stop):
        group, k = task // group_tasks, task % group_tasks * sizes.task_taps
        k_end = min(k + sizes.task_taps, sizes.taps)
        sums[: (k_end - k) * width] = x.dtype.type(0)
        for q in range(first, last, KC):
            count = min(KC, last - q)
            found = locate(q, count, sizes.lanes, image, grid, runs)
            pack(
                packed, _LINE, sizes.lanes, x, group * image.group, taps, k, k_end, image, runs,
                found,
            )  # fmt: skip
            for panel in range(sizes.panels):
                used = min(columns, sizes.filters - panel * columns)
                start_b = ((group * sizes.panels + panel) * (last - first) + q - first) * columns
                for m in range(0, k_end - k, MR):
                    tile_rows = min(MR, k_end - k - m)
                    multiply_tile(
                        packed, m * _LINE, _LINE, tile_rows, lines, 0, count, turned, start_b,
                        -(-used // sizes.lanes), tile, 0,
                    )  # fmt: skip
                    add_tile(
                        tile, 0, used, tile_rows, sums, m * width + panel * columns, width, False,
                        sums, 0,
                    )  # fmt: skip
        for f in range(sizes.filters):
            row = out[(group * sizes.filters + f) * sizes.taps + k :]
            for i in range(k_end - k):
                if first == 0:
                    row[i] = sums[i * width + f]
                else:
                    row[i] += sums[i * width + f]


@cache
def _lines() -> Array:
    """Pixel i of a packed line stands at i."""
    return np.arange(KC)


def backward_weight(grad: Array, x: Array, taps: Taps, geometry: ConvGeometry, out: Array) -> None:
    """``out[o, c, a, b] = sum over the batch and all windows of grad[o] * x[c] at tap (a, b)``."""
    g = geometry
    columns, area, depth = tile_columns(out.dtype), g.out_h * g.out_w, taps.factor.size
    pixels = g.batch * area
    if pixels == 0:
        out.fill(0)
        return
    wanted = TASKS_PER_THREAD * limits.threads()
    share = -(-depth * g.groups // wanted)
    task_taps = min(_TASK_TAPS, -(-share // MR) * MR)
    panels = -(-g.group_filters // columns)
    sizes = _Sizes(
        g.groups, g.group_filters, panels, columns, lanes(out.dtype), depth, task_taps
    )  # fmt: skip
    plane = g.height * g.width
    image = Image(
        g.channels * plane, g.group_channels * plane, g.height, g.width, g.stride_h, g.stride_w
    )
    grid = Grid(g.batch, g.out_h, g.out_w, g.filters, area, g.out_w, 0, 0, 1, 1)
    all_panels = g.groups * panels
    block = max(1, _BLOCK_SIZE // (all_panels * columns * KC)) * KC
    turned = scratch("shared", out.dtype, all_panels * min(block, pixels) * columns)
    flat_grad, flat_x, flat_out = flat(grad), flat(x), flat(out)
    for first in range(0, pixels, block):
        last = min(first + block, pixels)
        count = last - first
        run(
            _transpose, all_panels * -(-count // KC), all_panels * columns * count,
            flat_grad, first, last, area, sizes, turned,
        )  # fmt: skip
        run_with_scratch(
            _products, g.groups * -(-depth // task_taps), depth * g.filters * count // 8,
            out.dtype, _TASK_TAPS * (_LINE + panels * columns) + MR * columns,
            flat_x, turned, first, last, taps, image, grid, sizes, _lines(), flat_out,
        )  # fmt: skip
