"""Time a layer on several implementations, each checked before it is believed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from time import perf_counter

import numpy as np

from ..backends.table import Array
from .implementation import Call, Implementation
from .layer import Layer, random_inputs, scaled_down
from .ours import Backend
from .peers import PEERS
from .timing import MIN_CALLS, Timing, interleaved, summary

NAIVE, REFERENCE = "naive", "reference"
#: Stands for the fastest of the peers that serve a layer.
FASTEST = "fastest peer"
#: Flops, or bytes, of the layer that the naive loops get: some tenths of a second.
NAIVE_WORK = 1_000_000
#: Of the layer on which they check the reference: enough to be wrong on.
_CHECK_WORK = 100_000
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

    @property
    def seconds(self) -> float:
        """The median, infinite where there is none."""
        return self.timing.seconds if self.timing else float("inf")


@dataclass(frozen=True, slots=True)
class LayerTimes:
    """All the rows of one layer."""

    layer: Layer
    rows: tuple[Row, ...]

    def row(self, name: str) -> Row | None:
        """The row of this name; of the fastest peer for `FASTEST`."""
        if name != FASTEST:
            return next((row for row in self.rows if row.name == name), None)
        timed = [row for row in self.rows if row.name in PEERS and row.timing]
        return min(timed, key=lambda row: row.seconds, default=None)

    def ratio(self, row: Row, name: str) -> float | None:
        """How many times as fast as ``name`` this row is, None if either has no time."""
        other = self.row(name)
        return other.seconds / row.seconds if other and other.timing and row.timing else None

    @property
    def wrong(self) -> list[Row]:
        """The rows whose results were refused."""
        return [row for row in self.rows if row.timing is None]


def time_layers(
    layers: Iterable[Layer],
    implementations: Sequence[Implementation],
    seconds: float,
    reuse: bool,
    calls: int = MIN_CALLS,
) -> Iterator[LayerTimes]:
    """Time each layer for about ``seconds``, the naive loops' and the first calls not counted.

    Each implementation is called at least ``calls`` times, whatever they take.
    """
    for layer in layers:
        yield time_layer(layer, implementations, seconds, reuse, calls)


def time_layer(
    layer: Layer,
    implementations: Sequence[Implementation],
    seconds: float,
    reuse: bool,
    calls: int = MIN_CALLS,
) -> LayerTimes:
    """Time one layer; see `time_layers`."""
    fast = [i for i in implementations if i.name != NAIVE and i.serves(layer)]
    runs = {}
    errors = {}
    if fast:
        inputs = random_inputs(layer)
        expected = results(Backend(REFERENCE).prepare(layer, inputs, reuse=False))
        for implementation in fast:
            call = implementation.prepare(layer, inputs, reuse)
            runs[implementation.name] = call.run
            errors[implementation.name] = difference(results(call), expected)
    if REFERENCE in errors:
        # It is what the others are checked by; the naive loops check it.
        errors[REFERENCE] = naive_error(scaled_down(layer, _CHECK_WORK))
    believed = {name: run for name, run in runs.items() if errors[name] <= TOLERANCE}
    timings = interleaved(believed, seconds, calls) if believed else {}
    rows = [Row(name, errors[name], timings.get(name)) for name in runs]
    if any(i.name == NAIVE for i in implementations):
        rows.append(naive_row(layer))
    return LayerTimes(layer, tuple(rows))


def naive_row(layer: Layer) -> Row:
    """The naive loops' time for ``layer``, measured on a smaller copy of it."""
    small = scaled_down(layer, NAIVE_WORK)
    error = naive_error(small)
    if error > TOLERANCE:
        return Row(NAIVE, error, None, small)
    timing, scale = _naive_timing(small), layer.work / small.work
    scaled = Timing(timing.seconds * scale, timing.low * scale, timing.high * scale, timing.calls)
    return Row(NAIVE, error, scaled, small)


@cache
def naive_error(layer: Layer) -> float:
    """The difference between the naive loops and the reference; once a run for each layer."""
    inputs = random_inputs(layer)
    naive, reference = (
        results(Backend(name).prepare(layer, inputs, reuse=False)) for name in (NAIVE, REFERENCE)
    )
    return difference(naive, reference)


@cache
def _naive_timing(layer: Layer) -> Timing:
    """Once a run for each layer."""
    call = Backend(NAIVE).prepare(layer, random_inputs(layer), reuse=False)
    times = []
    for _ in range(MIN_CALLS):
        start = perf_counter()
        call.run()
        times.append(perf_counter() - start)
    return summary(times)


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
