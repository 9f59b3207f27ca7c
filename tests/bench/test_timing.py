"""Turns and medians; no test asserts a time."""

import gc
import math
import os
import threading

import pytest

from fastdl.bench.timing import MIN_CALLS, Timing, interleaved, summary


def test_the_median_and_the_quartiles():
    assert summary([5.0, 1.0, 2.0, 3.0, 4.0]) == Timing(3.0, 2.0, 4.0, 5)
    assert summary([2.5]) == Timing(2.5, 2.5, 2.5, 1)


def test_calls_take_turns():
    log = []
    calls = {name: lambda name=name: log.append(name) for name in "abc"}
    timings = interleaved(calls, 0.05)
    assert set(timings) == set("abc")
    # Each has had several turns, none all of its calls in one go.
    turns = [name for name, before in zip(log, [None, *log], strict=False) if name != before]
    assert all(turns.count(name) >= 2 for name in "abc")


def test_every_call_is_timed_a_few_times_whatever_the_budget():
    counts = {"slow": 0}

    def slow():
        counts["slow"] += 1

    timing = interleaved({"slow": slow}, 1e-9)["slow"]
    assert MIN_CALLS <= timing.calls < counts["slow"]


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="no /proc")
def test_a_turn_waits_for_the_threads_of_the_turn_before():
    stop, seen = threading.Event(), []

    def spin():
        while not stop.is_set():
            math.factorial(2000)

    thread = threading.Thread(target=spin)
    thread.start()
    threading.Timer(0.05, stop.set).start()
    interleaved({"one": lambda: seen.append(stop.is_set())}, 1e-9)
    thread.join()
    assert all(seen)


def test_the_collector_waits_and_goes_on():
    seen = []
    interleaved({"one": lambda: seen.append(gc.isenabled())}, 1e-9)
    assert not any(seen)
    assert gc.isenabled()
