"""Time on the GPU itself: between two events, the calls of all taking turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any

from numba import cuda

from fastdl.backends.cuda.target import SIMULATED, nanosecond
from fastdl.bench.timing import Timing, summary

#: Calls before the first that counts, and the least that count.
WARM_UP, CALLS = 3, 20
#: The GPU is kept busy for so many times as long as the host takes to start a call, and seconds
#: more.
_HEAD_START, _LEAST = 4.0, 1e-4


@cuda.jit
def _pause(nanoseconds):  # type: ignore[no-untyped-def]
    start = nanosecond()
    while nanosecond() - start < nanoseconds:
        cuda.nanosleep(1000)


def warm(call: Callable[[], Any]) -> float:
    """Call it some times; seconds that the host takes to start it then."""
    host = 0.0
    for _ in range(0 if SIMULATED else WARM_UP):
        cuda.synchronize()
        start = perf_counter()
        call()
        host = perf_counter() - start
    return host


def interleaved(
    calls: Mapping[str, Callable[[], Any]],
    host: Mapping[str, float],
    seconds: float,
    at_least: int = CALLS,
) -> dict[str, Timing]:
    """Seconds that the GPU takes for each call, until all have had their share of ``seconds``.

    The first event waits behind a pause, in which the host, which takes ``host`` seconds for
    that, starts the whole call: that is not counted.
    """
    samples: dict[str, list[float]] = {name: [] for name in calls}
    end = perf_counter() + seconds
    while perf_counter() < end or any(len(times) < at_least for times in samples.values()):
        for name, call in calls.items():
            samples[name].append(once(call, _HEAD_START * host[name] + _LEAST))
    return {name: summary(times) for name, times in samples.items()}


def once(call: Callable[[], Any], head_start: float) -> float:
    """Seconds of one call, which the host has ``head_start`` seconds to start.

    The simulator has no clock: there it is the host's.
    """
    if SIMULATED:
        start = perf_counter()
        call()
        return perf_counter() - start
    begin, end = cuda.event(), cuda.event()
    _pause[1, 1](int(1e9 * head_start))
    begin.record()
    call()
    end.record()
    end.synchronize()
    return float(cuda.event_elapsed_time(begin, end)) / 1e3
