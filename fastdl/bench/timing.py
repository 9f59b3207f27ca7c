"""Timing several calls side by side.

The calls take turns in one process, in an order that is drawn anew each round,
so that whatever disturbs the machine disturbs them all. A turn starts when the
threads of the turn before have gone to sleep: most libraries' threads wait for
more work by spinning, OpenBLAS's for 0.1 s, on the very processors that the next
library needs. It starts with a call that is not counted: by then the caches and the
thread pool are this call's again, not its neighbour's. Short calls then go on for a
few milliseconds.
"""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from threading import get_native_id
from time import perf_counter, sleep
from typing import Any

#: Linux's list of this process's threads.
_TASKS = "/proc/self/task"

#: A turn goes on until this many seconds are spent. Longer calls are counted once a turn.
TURN = 0.004
#: A call that takes longer than this many seconds makes the caches its own as it goes.
LONG = 0.1
#: A turn waits this long at most for the threads of the turn before, looking this often.
SETTLE, LOOK = 0.2, 0.001
#: Every call is timed at least this often, unless told otherwise.
MIN_CALLS = 3


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one call: the median, the quartiles around it, and how many calls they are of."""

    seconds: float
    low: float
    high: float
    calls: int


def interleaved(
    calls: Mapping[str, Callable[[], Any]], seconds: float, at_least: int = MIN_CALLS
) -> dict[str, Timing]:
    """Time the calls in turns until each has had its share of ``seconds``, and ``at_least`` calls.

    Each must have been called before: nothing is left to compile or to pack.
    """
    share = seconds / max(len(calls), 1)
    samples: dict[str, list[float]] = {name: [] for name in calls}
    spent = dict.fromkeys(calls, 0.0)
    order = random.Random(0)
    with _no_collection():
        while waiting := [n for n in calls if spent[n] < share or len(samples[n]) < at_least]:
            for name in order.sample(waiting, len(waiting)):
                spent[name] += _turn(calls[name], samples[name])
    return {name: summary(times) for name, times in samples.items()}


def _turn(call: Callable[[], Any], times: list[float]) -> float:
    """Let ``call`` have a turn, add what each call took to ``times``; all it took."""
    _settle()
    start = perf_counter()
    if not times or times[-1] < LONG:
        call()
    counted = perf_counter()
    while True:
        before = perf_counter()
        call()
        after = perf_counter()
        times.append(after - before)
        if after - counted > TURN:
            return after - start


def _settle() -> None:
    """Wait until this process's other threads are at rest."""
    end = perf_counter() + SETTLE
    while _others_run() and perf_counter() < end:
        sleep(LOOK)


def _others_run() -> bool:
    """Whether another thread of this process runs; where that cannot be told, no.

    The process's time would not tell: what other processors spent is added at the system's clock
    ticks only.
    """
    own = str(get_native_id())
    with suppress(OSError):
        return any(_state(task) == "R" for task in os.listdir(_TASKS) if task != own)
    return False


def _state(task: str) -> str:
    """The state of a thread of this process as Linux writes it, "" if it ended meanwhile."""
    try:
        status = Path(_TASKS, task, "stat").read_text()
    except OSError:
        return ""
    return status.rpartition(")")[2].split()[0]


def summary(times: list[float]) -> Timing:
    """The median and the quartiles of ``times``."""
    if len(times) < 2:
        return Timing(times[0], times[0], times[0], 1)
    low, median, high = quantiles(times, n=4, method="inclusive")
    return Timing(median, low, high, len(times))


@contextmanager
def _no_collection() -> Iterator[None]:
    """Python's cyclic garbage collector waits."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
