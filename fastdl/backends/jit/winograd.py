"""Convolution with 3x3 filters and stride 1 by Winograd's F(4x4, 3x3), see `winograd_transforms`.

    for each of the 36 elements e:   M_e (O x tiles) = U_e (O x C) * V_e (C x tiles)

with U = G g G^T of all filters and V = B^T d B of all input tiles; the output is A^T M A. Lanes are
tiles, counted through the whole batch, and filters where U is made.

    before all tasks, where there are many:  U[block of filters][e][MR filters][channel][filter]
    task: one panel of NR tiles, and some blocks of filters
      V[e][channel][tile]                                            second-level cache
      for each block of filters
        for each CHUNK channels: U of MR filters, where it is not there; for each e, multiply
        A^T M A, bias and activation, into the output                M: second-level cache

Sums run over at most CHUNK terms in registers and are then added to M. No order of additions depends
on how the work is cut, so neither on the number of threads.

The input gradient is the convolution of the gradient with the filters turned around and their roles
exchanged: only the reading of the weights differs.

An infinity or NaN spreads over its tile in the transforms, and so does an overflow there. Where an
output is not finite, `convolve` says so, for another algorithm to do it all.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ...geometry import ConvGeometry
from .. import limits
from ..table import Array
from .activation import NONE, RELU, activate
from .arrays import flat
from .compiling import compiled
from .microkernel import MR, multiply_tile, tile_columns
from .pool import run_together, scratch
from .turns import take, wait
from .vectors import lanes
from .winograd_transforms import (
    ELEMENTS,
    TILE_IN,
    TILE_OUT,
    copy_vector,
    transform_columns,
    transform_filter,
    transform_output,
    transform_rows,
)

#: Products summed in registers before they are added to M.
CHUNK = 128
#: Filters whose M a task keeps.
_BLOCK = 32
#: Between one of the 36 elements and the next, beyond what they take: so that they do not all fall
#: into one set of the cache.
_APART = 16


# What the threads of a call count: filters taken to be transformed and done, tasks taken.
_SLICES, _SLICES_DONE, _TASKS = 0, 1, 2

#: Up to so many panels, each task transforms its filters itself: they then stay in the second-level
#: cache, while those that all tasks share may come from memory.
_OWN_PANELS = 2

# Nanoseconds, as measured (AVX2, one thread), by which the work is cut and the algorithm chosen.
#: The transforms of a vector of tiles of one channel, and of one filter; of a filter's one channel.
_INPUT_TIME, _OUTPUT_TIME, _FILTER_TIME = 90.0, 125.0, 6.0
#: The 36 products of one channel and filter, by the vectors of tiles in a panel.
_PRODUCT_TIMES = 13.0, 14.5, 19.7
#: The direct algorithm's packing of a vector of pixels for one tap, and its product.
_PACK_TIME, _DIRECT_TIME = 8.0, 0.19
#: What a call of Winograd costs beyond one of the direct algorithm.
_CALL_TIME = 8000.0


class _Cut(NamedTuple):
    """How the work is cut, and where things lie: all in elements."""

    lanes: int
    columns: int  # of a tile of the microkernel: NR
    panel_vectors: int  # of tiles in a panel; in the first `longer`, one more
    longer: int
    tile_rows: int  # of an image
    tile_columns: int
    panels: int  # of the batch
    blocks: int  # of filters, in a group
    parts: int  # of the blocks, each a task
    u_row: int  # of MR filters and all channels
    v_element: int
    m_element: int
    line: int  # of the staged rows of a panel
    own_filters: bool  # a task transforms the filters it needs


@lru_cache(maxsize=64)
def _division(
    g: ConvGeometry, dtype: np.dtype[Any], threads: int, packed: bool = False
) -> tuple[float, int, int]:
    """(time, panels, parts of the filters): the division of least time.

    ``packed``: the filters are transformed already.
    """
    vectors = _tile_vectors(g, dtype)
    blocks = -(-g.group_filters // _BLOCK)

    def division(panels: int, parts: int) -> tuple[float, int, int]:
        # A task transforms all tiles of its panel for itself.
        filters = min(g.group_filters, -(-blocks // parts) * _BLOCK)
        pairs = g.group_channels * filters

        def task(length: int) -> float:
            time = length * (_INPUT_TIME * g.group_channels + _OUTPUT_TIME * filters)
            time += _PRODUCT_TIMES[length - 1] * pairs
            if not packed:
                time += _FILTER_TIME * pairs * (1 if panels <= _OWN_PANELS else 1 / panels)
            return time

        # The thread with most work has its share of the longer panels, and of all.
        length, longer = divmod(vectors, panels)
        tasks, long_tasks = (-(-g.groups * n * parts // threads) for n in (panels, longer))
        time = long_tasks * task(length + 1) if longer else 0.0
        return time + (tasks - long_tasks) * task(length), panels, parts

    most = min(blocks, 2 * threads) if threads > 1 else 1
    fewest = [-(-vectors // length) for length in range(1, tile_columns(dtype) // lanes(dtype) + 1)]
    even = [min(vectors, -(-panels // threads) * threads) for panels in fewest]
    return min(
        division(panels, parts) for panels in {*fewest, *even} for parts in range(1, most + 1)
    )


def _tile_vectors(g: ConvGeometry, dtype: np.dtype[Any]) -> int:
    """Vectors of tiles in the batch; of an empty one, which is asked about too, one."""
    tiles = g.batch * -(-g.out_h // TILE_OUT) * -(-g.out_w // TILE_OUT)
    return max(1, -(-tiles // lanes(dtype)))


@lru_cache(maxsize=64)
def _cut(g: ConvGeometry, dtype: np.dtype[Any], threads: int, packed: bool) -> _Cut:
    columns, vector = tile_columns(dtype), lanes(dtype)
    blocks = -(-g.group_filters // _BLOCK)
    _, panels, parts = _division(g, dtype, threads, packed)
    length, longer = divmod(_tile_vectors(g, dtype), panels)
    return _Cut(
        vector, columns, length, longer, -(-g.out_h // TILE_OUT), -(-g.out_w // TILE_OUT), panels,
        blocks, parts,
        -(-g.group_channels * MR // 16) * 16 + _APART,
        g.group_channels * columns + _APART,
        _BLOCK * columns + _APART,
        2 * TILE_OUT * columns + vector,
        not packed and panels <= _OWN_PANELS,
    )  # fmt: skip


@compiled
def _transform_slice(
    weight: Array, g: ConvGeometry, turned: bool, group: int, first: int, k: int, size: int,
    vector: int, positions: Array, u: Array, place: int, stride: int,
) -> None:  # fmt: skip
    """``u[place + e * stride + c * MR + f]`` of MR filters from ``first`` and channels from ``k`` on.

    In a turned convolution the weights lie (channel, filter). Lanes of no filter or channel repeat
    the last.
    """
    filters, channels = g.filters // g.groups, g.channels // g.groups
    filter_step, channel_step = (9, filters * 9) if turned else (channels * 9, 9)
    begin = group * filters * channels * 9 + first * filter_step + k * channel_step
    last = filters - first - 1
    for at in range(0, size * MR, vector):
        channel = at // MR
        if at == 0 or vector < MR or at + vector > size * MR:
            for lane in range(vector):
                f = min((at + lane) % MR, last)
                c = min((at + lane) // MR, size - 1) - channel
                positions[lane] = f * filter_step + c * channel_step
        transform_filter(
            weight, begin + channel * channel_step, positions, turned, u, place + at, stride
        )


@compiled
def _transform_filters(
    counters: Array, weight: Array, g: ConvGeometry, turned: bool, cut: _Cut, u: Array
) -> None:
    """Tasks (group, MR filters) into the filters that all tasks share; done when this returns."""
    channels = g.channels // g.groups
    slices = -(-(g.filters // g.groups) // MR)
    positions = np.empty(cut.lanes, np.int64)
    task = take(counters, _SLICES)
    while task < g.groups * slices:
        group, first = task // slices, task % slices * MR
        block = group * cut.blocks + first // _BLOCK
        row = block * ELEMENTS * _BLOCK // MR + first % _BLOCK // MR
        for k in range(0, channels, CHUNK):
            _transform_slice(
                weight, g, turned, group, first, k, min(CHUNK, channels - k), cut.lanes, positions,
                u, row * cut.u_row + k * MR, _BLOCK // MR * cut.u_row,
            )  # fmt: skip
        take(counters, _SLICES_DONE)
        task = take(counters, _SLICES)
    wait(counters, _SLICES_DONE, g.groups * slices)


@compiled
def _copy(target: Array, place: int, source: Array, at: int, count: int, vector: int) -> None:
    """Copy ``count`` neighbours; the last vector starts earlier, so as to be whole."""
    if count < vector:
        for j in range(count):
            target[place + j] = source[at + j]
        return
    for j in range(0, count - vector + 1, vector):
        copy_vector(target, place + j, source, at + j)
    if count % vector:
        copy_vector(target, place + count - vector, source, at + count - vector)


@compiled
def locate_tiles(first: int, count: int, rows: int, columns: int, runs: Array) -> int:
    """Cut tiles ``first`` to ``first + count - 1`` into runs within one row of tiles.

    An image has ``rows`` by ``columns`` of tiles. A run is (first tile, count, image, row of tiles,
    column of tiles).
    """
    done, found = 0, 0
    while done < count:
        tile = first + done
        column = tile % columns
        row = tile // columns
        length = min(count - done, columns - column)
        runs[found, 0] = done
        runs[found, 1] = length
        runs[found, 2] = row // rows
        runs[found, 3] = row % rows
        runs[found, 4] = column
        done += length
        found += 1
    return found


@compiled
def place_tiles(
    runs: Array, found: int, planes: int, direct: bool, g: ConvGeometry, inputs: Array,
    outputs: Array,
) -> None:  # fmt: skip
    """Where the tiles of a panel lie: in a line of staged rows, and in the first plane of out.

    Not ``direct``, the outputs are staged as well, one tile after another. Those of no tile are read
    at the first's place.
    """
    inputs[:], outputs[:] = 0, 0
    for index in range(found):
        first = runs[index, 0]
        top, left = runs[index, 3] * TILE_OUT, runs[index, 4] * TILE_OUT
        start = (runs[index, 2] * planes * g.out_h + top) * g.out_w + left
        for tile in range(runs[index, 1]):
            # The last two columns of a run have a place of their own.
            inputs[first + tile] = TILE_OUT * (first + tile + index)
            outputs[first + tile] = start + TILE_OUT * tile
    if not direct:
        for tile in range(outputs.size):
            outputs[tile] = TILE_OUT * tile


@compiled
def stage(
    x: Array, channel: int, runs: Array, found: int, g: ConvGeometry, vector: int, rows: Array
) -> None:
    """``rows[i * line + position + j] = (B^T d)[i, j]`` of the tiles of a panel.

    What is written beyond a run's end is overwritten by the next.
    """
    line, area = rows.size // TILE_IN, g.height * g.width
    for index in range(found):
        top = runs[index, 3] * TILE_OUT - g.pad_top
        left = runs[index, 4] * TILE_OUT - g.pad_left
        plane = (runs[index, 2] * g.channels + channel) * g.height
        at = (plane + top) * g.width + left
        place = TILE_OUT * (runs[index, 0] + index)
        for j in range(0, TILE_OUT * runs[index, 1] + TILE_IN - TILE_OUT, vector):
            transform_columns(
                x, at + j, g.width, g.height, left + j, top, area, rows, place + j, line
            )  # fmt: skip


@compiled
def _write(
    stage: Array, runs: Array, found: int, plane: int, planes: int, g: ConvGeometry, cut: _Cut,
    out: Array,
) -> None:  # fmt: skip
    """One filter's outputs of a panel, staged as four rows, into its planes."""
    line = TILE_OUT * cut.columns
    for index in range(found):
        top, left = runs[index, 3] * TILE_OUT, runs[index, 4] * TILE_OUT
        rows = min(TILE_OUT, g.out_h - top)
        wanted = min(runs[index, 1] * TILE_OUT, g.out_w - left)
        place = ((runs[index, 2] * planes + plane) * g.out_h + top) * g.out_w + left
        at = runs[index, 0] * TILE_OUT
        for i in range(rows):
            _copy(out, place + i * g.out_w, stage, at + i * line, wanted, cut.lanes)


@compiled
def _multiply(
    u: Array, u_at: int, places: Array, size: int, v: Array, v_at: int, vectors: int, m: Array,
    m_at: int, tile: int, begin: bool, count: int,
) -> None:  # fmt: skip
    """A tile of M, or, but to begin with, a tile that is added to it."""
    target = m_at if begin else tile
    multiply_tile(u, u_at, 1, MR, places, 0, size, v, v_at, vectors, m, target)
    if not begin:
        sums, added = m[m_at : m_at + count], m[tile : tile + count]
        for j in range(count):
            sums[j] += added[j]


@compiled
def _pack(
    counters: Array,
    memory: Array,
    weight: Array,
    g: ConvGeometry,
    turned: bool,
    cut: _Cut,
    u: Array,
) -> None:
    _transform_filters(counters, weight, g, turned, cut, u)


@compiled
def _convolve(
    counters: Array, memory: Array, x: Array, weight: Array, packed: bool, u: Array, bias: Array,
    activation: int, g: ConvGeometry, turned: bool, cut: _Cut, unsound: Array, out: Array,
) -> None:  # fmt: skip
    """Transform the filters into u, if they are not ``packed`` there, or made as they are needed.

    Then tasks (group, panel, part of the filters).
    """
    columns, line = cut.columns, TILE_OUT * cut.columns
    filters, depth = g.filters // g.groups, g.channels // g.groups
    tiles = g.batch * cut.tile_rows * cut.tile_columns
    area = g.out_h * g.out_w
    # Whole tiles go straight into the output, others by way of a stage.
    finished = activation in (NONE, RELU)
    whole = finished and g.out_h % TILE_OUT == 0 and g.out_w % TILE_OUT == 0
    lowest = memory.dtype.type(0 if activation == RELU else -np.inf)
    v = memory[: ELEMENTS * cut.v_element]
    memory = memory[v.size :]
    tile, tile_size = ELEMENTS * cut.m_element, MR * columns
    m = memory[: tile + tile_size]
    memory = memory[m.size :]
    rows = memory[: TILE_IN * cut.line]
    memory = memory[rows.size :]
    result = memory[: TILE_OUT * TILE_OUT * columns]
    memory = memory[result.size :]
    own, flags = memory[: memory.size - cut.lanes], memory[memory.size - cut.lanes :]
    own_element = CHUNK * MR + _APART
    flags[:] = memory.dtype.type(0)
    runs = np.empty((columns, 5), np.int64)
    inputs, outputs = np.empty(columns, np.int64), np.empty(columns, np.int64)
    filters_at = np.empty(cut.lanes, np.int64)
    places = np.arange(CHUNK) * MR
    if not (packed or cut.own_filters):
        _transform_filters(counters, weight, g, turned, cut, u)
    while not unsound[0]:
        task = take(counters, _TASKS)
        if task >= g.groups * cut.panels * cut.parts:
            return
        part = task % cut.parts
        panel = task // cut.parts % cut.panels
        group = task // (cut.parts * cut.panels)
        first = (panel * cut.panel_vectors + min(panel, cut.longer)) * cut.lanes
        vectors = cut.panel_vectors + (panel < cut.longer)
        count = min(vectors * cut.lanes, tiles - first)
        found = locate_tiles(first, count, cut.tile_rows, cut.tile_columns, runs)
        direct = whole and count % cut.lanes == 0
        place_tiles(runs, found, g.filters, direct, g, inputs, outputs)
        for k in range(depth):
            stage(x, group * depth + k, runs, found, g, cut.lanes, rows)
            for vector in range(0, count, cut.lanes):
                transform_rows(
                    rows, inputs, vector, cut.line, v, k * columns + vector, cut.v_element
                )  # fmt: skip
        for block in range(cut.blocks * part // cut.parts, cut.blocks * (part + 1) // cut.parts):
            u_block = (group * cut.blocks + block) * ELEMENTS * (_BLOCK // MR)
            used = min(_BLOCK, filters - block * _BLOCK)
            for k in range(0, depth, CHUNK):
                size = min(CHUNK, depth - k)
                if cut.own_filters:
                    for r in range(-(-used // MR)):
                        _transform_slice(
                            weight, g, turned, group, block * _BLOCK + r * MR, k, size, cut.lanes,
                            filters_at, own, 0, own_element,
                        )  # fmt: skip
                        for e in range(ELEMENTS):
                            _multiply(
                                own, e * own_element, places, size,
                                v, e * cut.v_element + k * columns, vectors,
                                m, e * cut.m_element + r * tile_size, tile, k == 0, tile_size,
                            )  # fmt: skip
                    continue
                for e in range(ELEMENTS):
                    for r in range(-(-used // MR)):
                        _multiply(
                            u, (u_block + e * (_BLOCK // MR) + r) * cut.u_row + k * MR, places, size,
                            v, e * cut.v_element + k * columns, vectors,
                            m, e * cut.m_element + r * tile_size, tile, k == 0, tile_size,
                        )  # fmt: skip
            for f in range(used):
                plane = group * filters + block * _BLOCK + f
                for vector in range(0, count, cut.lanes):
                    if direct:
                        transform_output(
                            m, f * columns + vector, cut.m_element, bias[plane], lowest,
                            out, plane * area, outputs, vector, g.out_w, area, flags,
                        )  # fmt: skip
                    else:
                        transform_output(
                            m, f * columns + vector, cut.m_element, bias[plane], lowest,
                            result, 0, outputs, vector, line, 0, flags,
                        )  # fmt: skip
                if not direct:
                    if not finished:
                        activate(activation, result)
                    _write(result, runs, found, plane, g.filters, g, cut, out)
        for lane in range(cut.lanes):
            if flags[lane] != 0 or np.isnan(flags[lane]):
                unsound[0] = 1


def packed_elements(g: ConvGeometry, dtype: np.dtype[Any]) -> int:
    """Elements of all transformed filters."""
    cut = _cut(g, dtype, 1, True)
    return g.groups * cut.blocks * ELEMENTS * (_BLOCK // MR) * cut.u_row


def pack(weight: Array, g: ConvGeometry, turned: bool, u: Array) -> None:
    """Transform all filters into u, of `packed_elements`."""
    pairs = g.groups * g.group_filters * g.group_channels
    run_together(
        _pack, g.groups * -(-g.group_filters // MR), pairs * ELEMENTS, u.dtype, 0,
        flat(weight), g, turned, _cut(g, u.dtype, 1, True), u,
    )  # fmt: skip


def convolve(
    x: Array, weight: Array, bias: Array, activation: int, g: ConvGeometry, turned: bool, out: Array,
    packed: Array | None = None,
) -> bool:  # fmt: skip
    """The convolution; False if some output is not finite, and out then holds nothing of use.

    ``turned`` reads the weights of the convolution whose input gradient this one is. ``packed`` is
    what `pack` made of them.
    """
    if out.size == 0:
        return True
    dtype, u = out.dtype, packed
    cut = _cut(g, dtype, limits.threads(), packed is not None)
    pairs = g.groups * g.group_filters * g.group_channels
    if cut.own_filters:
        own, u = ELEMENTS * (CHUNK * MR + _APART), flat(weight)
    else:
        own = 0
        if u is None:
            u = scratch("winograd_filters", dtype, packed_elements(g, dtype))
    unsound = np.zeros(1, np.int64)
    elements = (
        ELEMENTS * (cut.v_element + cut.m_element)
        + TILE_IN * cut.line + (TILE_OUT * TILE_OUT + MR) * cut.columns
        + own + cut.lanes
    )  # fmt: skip
    run_together(
        _convolve, g.groups * cut.panels * cut.parts,
        pairs * _tile_vectors(g, dtype) * cut.lanes * ELEMENTS // 8, dtype, elements,
        flat(x), flat(weight), packed is not None, u, bias, activation, g, turned, cut, unsound,
        flat(out),
    )  # fmt: skip
    return not unsound[0]


def serves(g: ConvGeometry) -> bool:
    """Whether this algorithm computes such a convolution."""
    return (
        (g.kernel_h, g.kernel_w, g.stride_h, g.stride_w) == (3, 3, 1, 1)
        and (g.dilation_h, g.dilation_w) == (1, 1)
        and g.channels > 0
        and g.filters > 0
    )


def pays(g: ConvGeometry, dtype: np.dtype[Any], packed: bool = False) -> bool:
    """Whether it takes less time than the direct algorithm, of ``packed`` filters or others."""
    if g.group_channels == 1:
        return False
    pixels = g.batch * g.out_h * g.out_w / lanes(dtype)
    taps = g.groups * 9 * g.group_channels
    direct = taps * pixels * (_PACK_TIME + _DIRECT_TIME * g.group_filters)
    return _CALL_TIME + _division(g, dtype, 1, packed)[0] < direct


def turned_geometry(g: ConvGeometry) -> ConvGeometry:
    """The convolution of the gradient that is the input gradient of this one."""
    return g._replace(
        channels=g.filters,
        filters=g.channels,
        height=g.out_h,
        width=g.out_w,
        out_h=g.height,
        out_w=g.width,
        pad_top=2 - g.pad_top,
        pad_left=2 - g.pad_left,
    )
