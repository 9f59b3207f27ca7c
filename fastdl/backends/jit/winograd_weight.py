"""The weight gradient of a 3x3 convolution of stride 1 by Winograd's algorithm, transposed.

    dW = G^T [ sum over tiles of (A dY A^T) * (B^T d B) ] G

(`winograd_transforms` has the matrices.) For each of the 36 elements e the sum is a product of
matrices,

    S_e (C x O) = V_e (C x tiles) * Z_e (tiles x O)      V = B^T d B, Z = A dY A^T

    task: a block of channels by a block of filters, and a part of the tiles
      for each block of tiles
        V[e][channel][tile], Z[e][panel of NR filters][tile][filter]     second-level cache
        for each e, for each panel and MR channels: S_e += V_e Z_e       a tile of S in registers
      dW of the block = G^T S G

Where the part is one block of tiles, each tile of S goes through all elements and becomes its part of
dW at once: it then stays in the first-level cache.

Sums run over at most `_TILES` terms in registers, over a part in S, and over the parts in double
precision. How the work is cut depends on the sizes alone, and so do the results.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ...geometry import ConvGeometry
from ..table import Array
from .arrays import flat
from .compiling import compiled
from .microkernel import MR, multiply_tile, tile_columns
from .pool import run_together, scratch
from .turns import take, wait
from .vectors import lanes
from .winograd import locate_tiles, place_tiles, stage
from .winograd_transforms import (
    ELEMENTS,
    TILE_IN,
    TILE_OUT,
    transform_filter_grad,
    transform_grad,
    transform_rows,
)

#: Tiles of a block, and of a part that is a block of its own, at most.
_TILES, _MOST_TILES = 64, 128
#: Tiles of a part, at most: their sums are in the precision of the result.
_PART = 2048
#: Channels of a block, and panels of filters, at most.
_MOST_CHANNELS, _MOST_PANELS = 128, 6
#: Tasks that there should be, and parts at most to that end, of so many tiles at least.
_WANTED_TASKS, _MOST_PARTS, _FEWEST_TILES = 8, 8, 16
#: Beyond what an element takes: so that they do not all fall into one set of the cache.
_APART = 16
#: Elements of dW that a thread adds up at a time.
_RUN = 1 << 14

_TASKS, _TASKS_DONE, _RUNS = 0, 1, 2


class _Cut(NamedTuple):
    """How the work is cut, and where things lie: all in elements."""

    lanes: int
    columns: int  # NR
    tile_rows: int  # of an image
    tile_columns: int
    all_tiles: int
    part: int  # tiles
    parts: int
    tiles: int  # of a block, whole vectors
    at_once: bool
    channels: int  # of a block
    channel_blocks: int
    panels: int  # of a block
    filter_blocks: int
    v_element: int
    z_element: int
    s_element: int


@lru_cache(maxsize=64)
def _cut(g: ConvGeometry, dtype: np.dtype[Any]) -> _Cut:
    vector, columns = lanes(dtype), tile_columns(dtype)
    tile_rows, tile_columns_ = -(-g.out_h // TILE_OUT), -(-g.out_w // TILE_OUT)
    tiles = g.batch * tile_rows * tile_columns_
    channel_blocks = -(-g.group_channels // _MOST_CHANNELS)
    channels = -(-g.group_channels // (channel_blocks * MR)) * MR
    channel_blocks = -(-g.group_channels // channels)
    panels = -(-g.group_filters // columns)
    filter_blocks = -(-panels // _MOST_PANELS)
    panels = -(-panels // filter_blocks)
    filter_blocks = -(-g.group_filters // (panels * columns))
    parts = min(
        _MOST_PARTS,
        -(-tiles // _FEWEST_TILES),
        -(-_WANTED_TASKS // (g.groups * channel_blocks * filter_blocks)),
    )
    part = min(_PART, -(-tiles // parts))
    at_once = part <= _MOST_TILES
    block = -(-part // vector) * vector if at_once else _TILES
    tile = MR * columns
    return _Cut(
        vector, columns, tile_rows, tile_columns_, tiles, part, -(-tiles // part), block, at_once,
        channels, channel_blocks, panels, filter_blocks,
        channels * block + _APART,
        panels * block * columns + _APART,
        (1 if at_once else channels // MR * panels) * tile + _APART,
    )  # fmt: skip


@compiled
def _transform_inputs(
    x: Array, first: int, channels: int, runs: Array, found: int, count: int, inputs: Array,
    rows: Array, g: ConvGeometry, cut: _Cut, v: Array,
) -> None:  # fmt: skip
    """V of ``channels`` from ``first`` on."""
    line = rows.size // TILE_IN
    for c in range(channels):
        stage(x, first + c, runs, found, g, cut.lanes, rows)
        for tile in range(0, count, cut.lanes):
            transform_rows(rows, inputs, tile, line, v, c * cut.tiles + tile, cut.v_element)


@compiled
def _transform_grads(
    grad: Array, first: int, filters: int, runs: Array, found: int, planes: Array, g: ConvGeometry,
    cut: _Cut, z: Array,
) -> None:  # fmt: skip
    """Z of ``filters`` from ``first`` on; lanes of no filter repeat the last."""
    area = g.out_h * g.out_w
    for f in range(0, filters, cut.lanes):
        for lane in range(cut.lanes):
            planes[lane] = min(f + lane, filters - 1) * area
        panel, column = f // cut.columns, f % cut.columns
        for index in range(found):
            top, left = runs[index, 3] * TILE_OUT, runs[index, 4] * TILE_OUT
            at = ((runs[index, 2] * g.filters + first) * g.out_h + top) * g.out_w + left
            place = (panel * cut.tiles + runs[index, 0]) * cut.columns + column
            for tile in range(runs[index, 1]):
                transform_grad(
                    grad, at + tile * TILE_OUT, planes, g.out_w, g.out_h - top,
                    g.out_w - left - tile * TILE_OUT, z, place + tile * cut.columns, cut.z_element,
                )  # fmt: skip


@compiled
def _multiply(
    v: Array, v_at: int, line: int, rows: int, places: Array, count: int, z: Array, z_at: int,
    vectors: int, s: Array, s_at: int, rest: Array, begin: bool,
) -> None:  # fmt: skip
    """A tile of S, or, but to begin with, a tile that is added to it."""
    if begin:
        multiply_tile(v, v_at, line, rows, places, 0, count, z, z_at, vectors, s, s_at)
        return
    multiply_tile(v, v_at, line, rows, places, 0, count, z, z_at, vectors, rest, 0)
    sums = s[s_at : s_at + rest.size]
    for j in range(rest.size):
        sums[j] += rest[j]


@compiled
def _finish(
    s: Array, at: int, channels: int, filters: int, positions: Array, first: int, place: int,
    cut: _Cut, unsound: Array, out: Array,
) -> None:  # fmt: skip
    """Of a tile of S at ``at``, the taps of its ``channels`` and ``filters``."""
    for c in range(channels):
        for f in range(0, filters, cut.lanes):
            transform_filter_grad(
                s, at + c * cut.columns + f, cut.s_element, positions, first + f, out,
                place + c * 9, unsound,
            )  # fmt: skip


@compiled
def _grad_weight(
    counters: Array, memory: Array, grad: Array, x: Array, g: ConvGeometry, cut: _Cut,
    shares: Array, unsound: Array, out: Array,
) -> None:  # fmt: skip
    """Tasks (part, group, block of filters, block of channels), then the sum of the parts."""
    all_channels, all_filters = g.channels // g.groups, g.filters // g.groups
    columns, size = cut.columns, out.size
    v = memory[: ELEMENTS * cut.v_element]
    memory = memory[v.size :]
    z = memory[: ELEMENTS * cut.z_element]
    memory = memory[z.size :]
    s = memory[: ELEMENTS * cut.s_element]
    memory = memory[s.size :]
    rest = memory[: MR * columns]
    memory = memory[rest.size :]
    flags, rows = memory[: cut.lanes], memory[cut.lanes :]
    flags[:] = memory.dtype.type(0)
    tile_size = MR * columns
    runs = np.empty((cut.tiles, 5), np.int64)
    inputs, outputs = np.empty(cut.tiles, np.int64), np.empty(cut.tiles, np.int64)
    planes = np.empty(cut.lanes, np.int64)
    positions = np.empty(cut.panels * columns, np.int64)
    places = np.arange(cut.tiles)
    blocks = g.groups * cut.filter_blocks * cut.channel_blocks
    task = take(counters, _TASKS)
    while task < blocks * cut.parts:
        first_channel = task % cut.channel_blocks * cut.channels
        first_filter = task // cut.channel_blocks % cut.filter_blocks * cut.panels * columns
        group = task // (cut.channel_blocks * cut.filter_blocks) % g.groups
        part = task // blocks
        channels = min(cut.channels, all_channels - first_channel)
        filters = min(cut.panels * columns, all_filters - first_filter)
        for f in range(positions.size):
            positions[f] = min(f, filters - 1) * all_channels * 9
        begin = ((group * all_filters + first_filter) * all_channels + first_channel) * 9
        begin += part * size
        end = min((part + 1) * cut.part, cut.all_tiles)
        first = part * cut.part
        for tile in range(first, end, cut.tiles):
            count = min(cut.tiles, end - tile)
            found = locate_tiles(tile, count, cut.tile_rows, cut.tile_columns, runs)
            place_tiles(runs, found, 0, False, g, inputs, outputs)
            _transform_inputs(
                x, group * all_channels + first_channel, channels, runs, found, count, inputs, rows,
                g, cut, v,
            )  # fmt: skip
            _transform_grads(
                grad, group * all_filters + first_filter, filters, runs, found, planes, g, cut, z
            )
            if cut.at_once:
                for panel in range(-(-filters // columns)):
                    used = min(columns, filters - panel * columns)
                    for c in range(0, channels, MR):
                        for e in range(ELEMENTS):
                            _multiply(
                                v, e * cut.v_element + c * cut.tiles, cut.tiles,
                                min(MR, channels - c), places, count, z,
                                e * cut.z_element + panel * cut.tiles * columns,
                                -(-used // cut.lanes), s, e * cut.s_element, rest, True,
                            )  # fmt: skip
                        _finish(
                            s, 0, min(MR, channels - c), used, positions, panel * columns,
                            begin + c * 9, cut, flags, shares,
                        )  # fmt: skip
                continue
            for e in range(ELEMENTS):
                for panel in range(-(-filters // columns)):
                    used = min(columns, filters - panel * columns)
                    for c in range(0, channels, MR):
                        at = (panel * (cut.channels // MR) + c // MR) * tile_size
                        _multiply(
                            v, e * cut.v_element + c * cut.tiles, cut.tiles, min(MR, channels - c),
                            places, count, z, e * cut.z_element + panel * cut.tiles * columns,
                            -(-used // cut.lanes), s, e * cut.s_element + at, rest, tile == first,
                        )  # fmt: skip
        if not cut.at_once:
            for panel in range(-(-filters // columns)):
                used = min(columns, filters - panel * columns)
                for c in range(0, channels, MR):
                    at = (panel * (cut.channels // MR) + c // MR) * tile_size
                    _finish(
                        s, at, min(MR, channels - c), used, positions, panel * columns,
                        begin + c * 9, cut, flags, shares,
                    )  # fmt: skip
        take(counters, _TASKS_DONE)
        task = take(counters, _TASKS)
    for lane in range(cut.lanes):
        if flags[lane] != 0 or np.isnan(flags[lane]):
            unsound[0] = 1
    if cut.parts == 1:
        return
    wait(counters, _TASKS_DONE, blocks * cut.parts)
    run = take(counters, _RUNS)
    while run * _RUN < size:
        for i in range(run * _RUN, min((run + 1) * _RUN, size)):
            total = 0.0
            for part in range(cut.parts):
                total += np.float64(shares[part * size + i])
            out[i] = total
        run = take(counters, _RUNS)


def grad_weight(grad: Array, x: Array, g: ConvGeometry, out: Array) -> bool:
    """The gradient; False if some of it is not finite, and out then holds nothing of use."""
    if g.batch * g.out_h * g.out_w == 0:
        out.fill(0)
        return True
    dtype = out.dtype
    cut = _cut(g, dtype)
    flat_out = flat(out)
    shares = scratch("winograd_shares", dtype, cut.parts * out.size) if cut.parts > 1 else flat_out
    unsound = np.zeros(1, np.int64)
    elements = (
        ELEMENTS * (cut.v_element + cut.z_element + cut.s_element) + MR * cut.columns + cut.lanes
        + TILE_IN * (2 * TILE_OUT * cut.tiles + cut.lanes)
    )  # fmt: skip
    run_together(
        _grad_weight, cut.parts * g.groups * cut.channel_blocks * cut.filter_blocks,
        ELEMENTS * cut.all_tiles * g.groups * g.group_channels * g.group_filters // 8, dtype,
        elements, flat(grad), flat(x), g, cut, shares, unsound, flat_out,
    )  # fmt: skip
    return not unsound[0]


def pays(g: ConvGeometry) -> bool:
    """Whether it takes less time than the direct algorithm: where tiles are not mostly padding."""
    tiles = g.batch * -(-g.out_h // TILE_OUT) * -(-g.out_w // TILE_OUT)
    return g.group_channels > 1 and 4 * tiles < g.batch * g.out_h * g.out_w
