"""Windows of single planes: a plane is laid out so that every tap reads one run of neighbours.

A strip of rows is copied into a frame, sorted by the phase of the stride: rows and columns modulo
the stride, one part of the frame each, with padding. With P the columns of a part,

    frame[(phase, t, u)] = source[t * step_h + phase row, u * step_w + phase column]
    result[t * P + u] = over all taps: frame[offset of the tap + t * P + u]

so all rows of a strip are a single run for each tap; the last elements of a row of P are of no use
and are not copied out. Short rows thus fill vectors as well as long ones.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..table import Array
from .compiling import compiled
from .microkernel import copy_window
from .taps import BLOCK
from .vectors import lanes

#: Elements of a frame, about: it stays in the first-level cache.
_FRAME = 4096


class Steps(NamedTuple):
    """Pixel (t, u) of a plane of ``height`` and ``width`` reads around (t * step_h, u * step_w)."""

    height: int
    width: int
    step_h: int
    step_w: int


class Frame(NamedTuple):
    """How planes are cut in strips and laid out; ``low`` is the least offset of a tap."""

    rows: int  # of a strip of results
    strips: int
    pitch: int  # P
    part_rows: int
    phases_h: int
    phases_w: int
    low_row: int
    low_column: int
    step_h: int
    step_w: int
    lanes: int
    size: int  # of the frame
    results: int  # elements of a strip's results


def lay_out(rows: Array, columns: Array, steps: Steps, dtype: np.dtype[Any]) -> tuple[Frame, Array]:
    """The frame for taps at these offsets, and where in it each tap begins."""
    low_row, low_column = int(rows.min()), int(columns.min())
    rows, columns = rows - low_row, columns - low_column
    more_rows = int(rows.max()) // steps.step_h
    pitch = steps.width + int(columns.max()) // steps.step_w
    phases_h = min(steps.step_h, int(rows.max()) + 1)
    phases_w = min(steps.step_w, int(columns.max()) + 1)
    wanted = max(1, _FRAME // (phases_h * phases_w * pitch) - more_rows)
    strips = -(-steps.height // min(wanted, steps.height))
    strip = -(-steps.height // strips)
    strips = -(-steps.height // strip)
    part_rows = strip + more_rows
    parts = rows % steps.step_h * phases_w + columns % steps.step_w
    offsets = (parts * part_rows + rows // steps.step_h) * pitch + columns // steps.step_w
    slack = BLOCK * lanes(dtype)
    frame = Frame(
        strip, strips, pitch, part_rows, phases_h, phases_w, low_row, low_column,
        steps.step_h, steps.step_w, lanes(dtype),
        phases_h * phases_w * part_rows * pitch + slack, strip * pitch + slack,
    )  # fmt: skip
    return frame, offsets


@compiled
def fill(
    source: Array, at: int, height: int, width: int, first: int, rows: int, frame: Frame,
    outside: float, target: Array,
) -> None:  # fmt: skip
    """Lay out the part of a plane, at ``at``, that ``rows`` rows of results from ``first`` on read."""
    step_w, pitch = frame.step_w, frame.pitch
    fitting = frame.part_rows - frame.rows + rows
    for phase in range(frame.phases_h * frame.phases_w):
        top = frame.low_row + phase // frame.phases_w + first * frame.step_h
        left = frame.low_column + phase % frame.phases_w
        place = phase * frame.part_rows * pitch
        for t in range(fitting):
            row = top + t * frame.step_h
            # A row outside of the plane is a row of no columns.
            columns = width if 0 <= row < height else 0
            start = at + row * width + left
            for u in range(0, pitch, frame.lanes):
                copy_window(
                    target, place + u, frame.lanes, True, source, start + u * step_w,
                    left + u * step_w, columns, step_w, outside,
                )  # fmt: skip
            place += pitch


@compiled
def write(
    results: Array, rows: int, width: int, pitch: int, out: Array, place: int, line: int, step: int
) -> None:
    """``out[place + t * line + u * step] = results[t * pitch + u]``."""
    for t in range(rows):
        row = results[t * pitch : t * pitch + width]
        target = out[place + t * line :]
        if step == 1:
            for u in range(row.size):
                target[u] = row[u]
        else:
            for u in range(row.size):
                target[u * step] = row[u]
