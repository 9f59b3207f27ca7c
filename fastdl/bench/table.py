"""What the bench found, as a table of text."""

from __future__ import annotations

from collections.abc import Sequence

from .layer import Layer
from .limits import Limit
from .run import FASTEST, NAIVE, REFERENCE, LayerTimes, Row

_NAME, _TIME, _SPEED, _LIMIT = 13, 10, 15, 14
_NARROWEST = 9


def table(times: Sequence[LayerTimes], limit: Limit, peers: Sequence[str] = ()) -> str:
    """A block of rows a layer: time, speed, part of the limit, times as fast as the others."""
    names = {row.name for layer in times for row in layer.rows}
    others = [name for name in (NAIVE, REFERENCE, *peers) if name in names]
    if len(peers) > 1:
        others.append(FASTEST)
    head = "".ljust(_NAME) + "time".rjust(_TIME) + "speed".rjust(_SPEED) + "of limit".rjust(_LIMIT)
    head += "".join(f"x {name}".rjust(_width(name)) for name in others)
    blocks = [head]
    for layer in times:
        blocks.append("\n".join([_title(layer.layer), *_rows(layer, limit, others)]))
    return "\n\n".join(blocks)


def notes(times: Sequence[LayerTimes], reuse: bool) -> str:
    """How to read the table."""
    lines = [
        "time: median of calls in turn, in one process, on random float32 input.",
        "speed: of the direct algorithm's operations; in GB/s, of the bytes read and written once.",
        "of limit: what the binding limit would take, over the time. Memory: each byte read and",
        "written once, at this machine's speed of copying, and what is left over at that of reading",
        "or of writing past the caches. Above 100% the arrays stayed in cache (memory), or the",
        "algorithm needs fewer operations than the direct one (compute).",
        "x name: how many times as fast as that one.",
    ]
    if any(row.measured for layer in times for row in layer.rows):
        lines.append(
            "naive: timed on the smaller layer in its row; its time is scaled up by the work."
        )
    lines.append(
        "memory: reused by all (ours and ONNX Runtime write to a given output)."
        if reuse
        else "memory: as each library has it by default; --reuse lets all reuse it."
    )
    return "\n".join(lines)


def _width(other: str) -> int:
    """Of the column of ratios to ``other``."""
    return max(len(other) + 4, _NARROWEST)


def _title(layer: Layer) -> str:
    return f"{layer.label}: {layer}"


def _rows(times: LayerTimes, limit: Limit, others: Sequence[str]) -> list[str]:
    return [_row(times, row, limit, others) for row in times.rows]


def _row(times: LayerTimes, row: Row, limit: Limit, others: Sequence[str]) -> str:
    name = f"  {row.name}".ljust(_NAME)
    if row.timing is None:
        return f"{name}  refused: its result is wrong (relative error {row.error:.1e})"
    layer, seconds = times.layer, row.timing.seconds
    fraction, binding = limit.fraction(layer, seconds), limit.binding(layer)
    cells = [
        duration(seconds).rjust(_TIME),
        speed(layer, seconds).rjust(_SPEED),
        f"{_percent(fraction)} {binding}".rjust(_LIMIT),
    ]
    for other in others:
        ratio = times.ratio(row, other) if other != row.name else None
        cells.append(("-" if ratio is None else figure(ratio)).rjust(_width(other)))
    return name + "".join(cells) + (f"  (timed on {row.measured.shapes})" if row.measured else "")


def duration(seconds: float) -> str:
    """Three figures and a unit.

    >>> duration(0.00123), duration(12.3e-6), duration(4.56)
    ('1.23 ms', '12.3 us', '4.56 s')
    """
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{figure(seconds / scale)} {unit}"
    return f"{figure(seconds / 1e-6)} us"


def speed(layer: Layer, seconds: float) -> str:
    """GFLOP/s of a convolution, GB/s of all else."""
    unit = "GFLOP/s" if layer.counts_flops else "GB/s"
    return f"{figure(layer.work / seconds / 1e9)} {unit}"


def figure(number: float) -> str:
    """At least three figures, no exponent."""
    if number >= 100:
        return f"{number:.0f}"
    if number >= 10:
        return f"{number:.1f}"
    return f"{number:.2f}" if number >= 0.01 else f"{number:.1g}"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.0f}%" if fraction >= 0.01 else f"{100 * fraction:.1g}%"
