"""Time a layer on several implementations, each checked before it is believed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from time import perf_counter

import numpy as np

from ..backends.table import Array
from .implementation import Call, Implementation
from .layer import Layer, random_inputs, scaled_down
from .ours import Backend
from .timing import MIN_CALLS, Timing, interleaved, summary

NAIVE, REFERENCE = "naive", "reference"
#: Flops, or bytes, of the layer that the naive loops get: some tenths of a second.
NAIVE_WORK = 1_000_000
#: Largest ||out - expected|| / ||expected|| that is believed: float32, any algorithm.
TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Row:
    """One implementation's time for one layer.

    ``error`` is the relative difference to the reference; ``timing`` is None
    if that was too large. ``measured`` is the smaller layer that the naive
    loops were timed on, whose time was scaled up by its work.
    """

    name: str
    error: float
    timing: Timing | None
    measured: Layer | None = None


@dataclass(frozen=True, slots=True)
class LayerTimes:
    """All the rows of one layer."""

    layer: Layer
    rows: tuple[Row, ...]

    def ratio(self, row: Row, name: str) -> float | None:
        """How many times as fast as ``name`` this row is, None if either has no time."""
        times = {other.name: other.timing for other in self.rows}
        other = times.get(name)
        return other.seconds / row.timing.seconds if other and row.timing else None

    @property
    def wrong(self) -> list[Row]:
        """The rows whose results were refused."""
        return [row for row in self.rows if row.timing is None]


def time_layers(
    layers: Sequence[Layer], implementations: Sequence[Implementation], seconds: float, reuse: bool
) -> Iterator[LayerTimes]:
    """Time each layer for about ``seconds``, the naive loops' and the first calls not counted."""
    for layer in layers:
        yield time_layer(layer, implementations, seconds, reuse)


def time_layer(
    layer: Layer, implementations: Sequence[Implementation], seconds: float, reuse: bool
) -> LayerTimes:
    """Time one layer; see `time_layers`."""
    fast = [i for i in implementations if i.name != NAIVE and i.serves(layer)]
    calls = {}
    errors = {}
    if fast:
        inputs = random_inputs(layer)
        expected = results(Backend(REFERENCE).prepare(layer, inputs, reuse=False))
        for implementation in fast:
            call = implementation.prepare(layer, inputs, reuse)
            calls[implementation.name] = call.run
            errors[implementation.name] = difference(results(call), expected)
    # The reference is what the others are checked by; the naive loops check the reference.
    naive = naive_row(layer)
    errors |= {REFERENCE: naive.error} if REFERENCE in errors else {}
    believed = {name: call for name, call in calls.items() if errors[name] <= TOLERANCE}
    timings = interleaved(believed, seconds) if believed else {}
    rows = [Row(name, errors[name], timings.get(name)) for name in calls]
    if any(i.name == NAIVE for i in implementations):
        rows.append(naive)
    return LayerTimes(layer, tuple(rows))


def naive_row(layer: Layer) -> Row:
    """The naive loops' time for ``layer``, measured on a smaller copy of it."""
    small = scaled_down(layer, NAIVE_WORK)
    error, timing = _naive(small)
    if error > TOLERANCE:
        return Row(NAIVE, error, None, small)
    scale = layer.work / small.work
    scaled = Timing(timing.seconds * scale, timing.low * scale, timing.high * scale, timing.calls)
    return Row(NAIVE, error, scaled, small)


@cache
def _naive(layer: Layer) -> tuple[float, Timing]:
    """The naive loops' difference to the reference, and their time; once a run for each layer."""
    inputs = random_inputs(layer)
    call = Backend(NAIVE).prepare(layer, inputs, reuse=False)
    expected = results(Backend(REFERENCE).prepare(layer, inputs, reuse=False))
    error = difference(results(call), expected)
    times = []
    for _ in range(MIN_CALLS):
        start = perf_counter()
        call.run()
        times.append(perf_counter() - start)
    return error, summary(times)


def results(call: Call) -> tuple[Array, ...]:
    """Call once; copies of the results, which ``reuse`` may overwrite at the next call."""
    return tuple(np.array(array) for array in call.arrays(call.run()))


def difference(found: Sequence[Array], expected: Sequence[Array]) -> float:
    """The largest ||found - expected|| / ||expected|| of the arrays; infinite if they cannot be compared."""
    shapes = [array.shape for array in found], [array.shape for array in expected]
    if shapes[0] != shapes[1]:
        return float("inf")
    worst = 0.0
    for one, other in zip(found, expected, strict=True):
        distance = float(np.linalg.norm(one.astype(np.float64) - other))
        error = distance / (float(np.linalg.norm(other)) or 1.0)
        worst = max(worst, error if np.isfinite(error) else float("inf"))
    return worst
