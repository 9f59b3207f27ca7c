"""The loop nest that every convolution with more than one channel a group takes.

With q counting the pixels of the whole batch, and k the products of one output element:

    out[m, q] = f(bias[m] + sum_k a[m, k] * b[k, q])        b[k, q] = source at pixel q and tap k

b is never built: a task packs what one tile of the microkernel reads, and uses it for all rows m.

              panel of NR pixels
            +--+
    b  k    |  |  KC      packed, in the first-level cache
            |  |
            +--+
     a  +---+--+
      MR|KC |==|          a tile of sums, in registers
        +---+--+          a is read in place, its KC columns stay in the second-level cache

Both the forward pass and the gradient of the input are such products; they differ in what a `Tap`
is and in which pixels are written. K is cut in parts of at most KC, the same whatever the number
of threads, so the order of additions never changes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..table import Array
from .activation import NONE, activate
from .compiling import compiled
from .microkernel import MR, add_tile, copy_window, multiply_tile, tile_columns
from .pool import TASKS_PER_THREAD, run_with_scratch
from .vectors import lanes

#: Products summed in float32 before they are added to the output.
KC = 192
#: Panels of one task, at most: enough to reuse a from the second-level cache.
_TASK_PANELS = 8
#: Rows of one task, at least: fewer would not repay the packing.
_TASK_ROWS = 32


class Taps(NamedTuple):
    """Products k = (channel, tap): for each k, where its factor stands in a row of a; for each tap,
    which pixel it reads, relative to q's.
    """

    factor: Array
    row: Array
    column: Array


class Image(NamedTuple):
    """The source: image (n, g) starts at ``n * image + g * group``; pixel q reads from its row
    ``t * step_h`` and column ``u * step_w`` on.
    """

    image: int
    group: int
    height: int
    width: int
    step_h: int
    step_w: int


class Grid(NamedTuple):
    """The pixels q = (n, t, u), and where they are written: row ``row + t * step_h``, column
    ``column + u * step_w`` of planes of ``plane`` elements, ``planes`` of them an image.
    """

    batch: int
    height: int
    width: int
    planes: int
    plane: int
    line: int
    row: int
    column: int
    step_h: int
    step_w: int


class Rows(NamedTuple):
    """The rows of a: ``per_group`` of each group, row m of group g at ``g * group + m * stride``."""

    groups: int
    per_group: int
    group: int
    stride: int


class Blocks(NamedTuple):
    """How the work is cut: a task is ``panels`` panels times ``rows`` rows of one group."""

    lanes: int
    columns: int
    panels: int
    panel_tasks: int
    rows: int
    row_tasks: int


@compiled
def locate(
    first: int, count: int, vector: int, image: Image, grid: Grid, runs: Array
) -> int:  # fmt: skip
    """Cut pixels ``first`` to ``first + count - 1`` into runs within one row and one vector.

    A run is (first pixel, count, source index, source row, source column, output index).
    """
    done = 0
    found = 0
    pixels = grid.height * grid.width
    while done < count:
        q = first + done
        n = q // pixels
        t = (q % pixels) // grid.width
        u = q % grid.width
        length = min(vector, grid.width - u, count - done)
        row, column = t * image.step_h, u * image.step_w
        runs[found, 0] = done
        runs[found, 1] = length
        runs[found, 2] = n * image.image
        runs[found, 3] = row
        runs[found, 4] = column
        runs[found, 5] = (
            n * grid.planes * grid.plane
            + (grid.row + t * grid.step_h) * grid.line
            + grid.column
            + u * grid.step_w
        )
        done += length
        found += 1
    return found


@compiled
def pack(
    packed: Array, line: int, vector: int, source: Array, start: int, taps: Taps, first: int,
    last: int, image: Image, runs: Array, found: int,
) -> None:  # fmt: skip
    """``packed[(k - first) * line + q] = source at product k of pixel q``, zero outside."""
    # Read here: in the loops below each reading of a field would count references.
    tap_row, tap_column = taps.row, taps.column
    area, width, step = image.height * image.width, image.width, image.step_w
    zero = packed.dtype.type(0)
    for index in range(found):
        count = runs[index, 1]
        # The next run, or the next line's first, writes over what is too much.
        room = runs[index, 0] + vector <= line
        for tap in range(tap_row.size):
            row, column = runs[index, 3] + tap_row[tap], runs[index, 4] + tap_column[tap]
            # A row outside of the image is a row of no columns.
            columns = width if 0 <= row < image.height else 0
            first_channel = -((tap - first) // tap_row.size)
            k = first_channel * tap_row.size + tap
            place = (k - first) * line + runs[index, 0]
            base = start + runs[index, 2] + first_channel * area + row * width + column
            while k < last:
                copy_window(
                    packed, place, count, room, source, base, column, columns, step, zero
                )  # fmt: skip
                k += tap_row.size
                place += tap_row.size * line
                base += area


@compiled
def join(runs: Array, found: int, step: int) -> int:
    """Join runs that are written one after another."""
    last = 0
    for index in range(1, found):
        if step == 1 and runs[index, 5] == runs[last, 5] + runs[last, 1]:
            runs[last, 1] += runs[index, 1]
        else:
            last += 1
            for field in range(6):
                runs[last, field] = runs[index, field]
    return last + 1


@compiled
def _scatter_tile(
    tile: Array, first: int, count: int, rows: int, columns: int, out: Array, place: int,
    line: int, step: int, begin: bool, bias: Array, bias_at: int,
) -> None:  # fmt: skip
    """As `add_tile`, for columns that are written ``step`` apart."""
    for r in range(rows):
        for j in range(count):
            target = place + r * line + j * step
            before = bias[bias_at + r] if begin else out[target]
            out[target] = tile[r * columns + first + j] + before


@compiled
def _products(
    start: int, stop: int, scratch: Array, source: Array, a: Array, bias: Array, activation: int,
    taps: Taps, image: Image, grid: Grid, rows: Rows, blocks: Blocks, out: Array,
) -> None:  # fmt: skip
    """Tasks (group, panels, rows) of the product."""
    columns = blocks.columns
    packed, tile = scratch[: KC * columns], scratch[KC * columns :]
    runs = np.empty((columns, 6), np.int64)
    pixels = grid.batch * grid.height * grid.width
    factor = taps.factor
    depth = factor.size
    parts = -(-depth // KC)
    for task in range(start, stop):
        row_task = task % blocks.row_tasks
        panel_task = task // blocks.row_tasks % blocks.panel_tasks
        group = task // (blocks.row_tasks * blocks.panel_tasks)
        first_row = row_task * blocks.rows
        last_row = min(first_row + blocks.rows, rows.per_group)
        first_pixel = panel_task * blocks.panels * columns
        last_pixel = min(first_pixel + blocks.panels * columns, pixels)
        for part in range(parts):
            k, k_end = depth * part // parts, depth * (part + 1) // parts
            for q in range(first_pixel, last_pixel, columns):
                count = min(columns, last_pixel - q)
                found = locate(q, count, blocks.lanes, image, grid, runs)
                pack(
                    packed, columns, blocks.lanes, source, group * image.group, taps, k, k_end,
                    image, runs, found,
                )  # fmt: skip
                found = join(runs, found, grid.step_w)
                vectors = -(-count // blocks.lanes)
                for m in range(first_row, last_row, MR):
                    tile_rows = min(MR, last_row - m)
                    multiply_tile(
                        a, group * rows.group + m * rows.stride, rows.stride, tile_rows,
                        factor, k, k_end - k, packed, 0, vectors, tile, 0,
                    )  # fmt: skip
                    plane = group * rows.per_group + m
                    for index in range(found):
                        place = plane * grid.plane + runs[index, 5]
                        if grid.step_w == 1:
                            add_tile(
                                tile, runs[index, 0], runs[index, 1], tile_rows, out, place,
                                grid.plane, part == 0, bias, plane,
                            )  # fmt: skip
                        else:
                            _scatter_tile(
                                tile, runs[index, 0], runs[index, 1], tile_rows, columns, out,
                                place, grid.plane, grid.step_w, part == 0, bias, plane,
                            )  # fmt: skip
                        if activation != NONE and part == parts - 1:
                            for r in range(tile_rows):
                                begin = place + r * grid.plane
                                activate(activation, out[begin : begin + runs[index, 1]])


class Product(NamedTuple):
    """A product of one geometry, dtype and number of threads, but for its arrays."""

    taps: Taps
    image: Image
    grid: Grid
    rows: Rows
    blocks: Blocks
    tasks: int
    work: int
    scratch: int  # elements


def product(
    taps: Taps, image: Image, grid: Grid, rows: Rows, dtype: np.dtype[Any], threads: int
) -> Product:
    """How such a product is cut; taps must not be empty."""
    columns = tile_columns(dtype)
    pixels = grid.batch * grid.height * grid.width
    panels = -(-pixels // columns)
    wanted = TASKS_PER_THREAD * threads
    task_panels = max(1, min(_TASK_PANELS, panels * rows.groups // wanted))
    panel_tasks = -(-panels // task_panels)
    # Few pixels: share out the rows as well.
    row_tasks = max(
        1, min(rows.per_group // _TASK_ROWS, wanted // max(1, panel_tasks * rows.groups))
    )
    task_rows = -(-rows.per_group // (row_tasks * MR)) * MR
    row_tasks = -(-rows.per_group // task_rows)
    return Product(
        taps, image, grid, rows,
        Blocks(lanes(dtype), columns, task_panels, panel_tasks, task_rows, row_tasks),
        rows.groups * panel_tasks * row_tasks,
        pixels * rows.groups * rows.per_group * taps.factor.size // 8,
        (KC + MR + 1) * columns,
    )  # fmt: skip


def multiply(
    source: Array, a: Array, bias: Array, activation: int, product: Product, out: Array
) -> None:
    """Run the product over flat arrays."""
    run_with_scratch(
        _products, product.tasks, product.work, out.dtype, product.scratch, source, a, bias,
        activation, product.taps, product.image, product.grid, product.rows, product.blocks, out,
    )  # fmt: skip
