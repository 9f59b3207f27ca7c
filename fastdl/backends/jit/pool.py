"""The threads that share a kernel's tasks.

A kernel is a compiled function ``kernel(start, stop, *args)`` that does tasks ``start`` to
``stop - 1``. Each element of the output belongs to one task, so the result does not depend on
which thread does what.

Numba's own ``prange`` is not used: its portable threading layer crashes when two Python threads
call it at once, and hangs in the child of a fork.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from .. import limits
from ..table import Array
from .compiling import entry
from .processors import Caller

#: Below this many operations, waking another thread costs more than it saves.
SMALL_WORK = 200_000
#: Tasks that there should be for a thread where they can be cut at will.
TASKS_PER_THREAD = 4
#: The smallest piece of a job is a thread's share divided by so many, or so many operations if
#: those are more: starting a kernel takes some 10 microseconds, more when it has left the caches.
_MOST_PIECES = 8
_PIECE_WORK = SMALL_WORK // 2

#: What the steps of a kernel count with, see `run_together`.
COUNTERS = 4

Kernel = Callable[..., None]


class _Job:
    """The tasks of one kernel call, taken piece by piece by whoever is free.

    Pieces shrink with what is left: few at first, and small ones for who comes late or is held up
    (guided self-scheduling, Polychronopoulos and Kuck 1987).
    """

    def __init__(
        self, call: Callable[[int, int], None], tasks: int, work: int, threads: int
    ) -> None:
        self._call = call
        self._lock = threading.Lock()
        self._tasks = tasks
        self._shares = 2 * threads
        self._smallest = max(1, tasks // (_MOST_PIECES * threads), tasks * _PIECE_WORK // work)
        self._taken = self._done = 0
        self._caller = Caller(threads)
        self._error: BaseException | None = None
        self._finished = threading.Event()

    def help(self) -> None:
        """`work`, on another processor than the caller's."""
        self._caller.make_room()
        self.work()

    def work(self) -> None:
        """Do pieces until none is left to take."""
        while True:
            with self._lock:
                start = self._taken
                size = max(self._smallest, (self._tasks - start) // self._shares)
                stop = self._taken = min(start + size, self._tasks)
            if start == stop:
                return
            try:
                self._call(start, stop)
            except BaseException as error:
                self._error = error
            with self._lock:
                self._done += stop - start
                if self._done == self._tasks:
                    self._finished.set()

    def wait(self) -> None:
        """Until every piece that another thread took is done.

        Whoever has taken a piece is computing, never waiting for a thread: no deadlock, also
        when kernels are called from inside of the pool.
        """
        self._finished.wait()
        if self._error is not None:
            raise self._error


class _Pool:
    """Helper threads, started when first needed."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[_Job] = SimpleQueue()
        self._lock = threading.Lock()
        self._helpers = 0

    def share(self, job: _Job, helpers: int) -> None:
        """Let ``helpers`` threads join in."""
        with self._lock:
            while self._helpers < helpers:
                self._helpers += 1
                threading.Thread(target=self._serve, name="fastdl-jit", daemon=True).start()
        for _ in range(helpers):
            self._jobs.put(job)

    def _serve(self) -> None:
        while True:
            self._jobs.get().help()


_pool = _Pool()


def _renew() -> None:
    """The child of a fork has none of its parent's threads."""
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


def run(kernel: Kernel, tasks: int, work: int, *args: Any) -> None:
    """Call ``kernel(start, stop, *args)`` over all ``tasks``, which take ``work`` operations."""
    code = entry(kernel, 0, 0, *args)
    _run(lambda start, stop: code(start, stop, *args), tasks, work)


def run_with_scratch(
    kernel: Kernel, tasks: int, work: int, dtype: DTypeLike, size: int, *args: Any
) -> None:
    """As `run`, with ``kernel(start, stop, scratch, *args)``: ``size`` elements, one per thread."""
    code = entry(kernel, 0, 0, scratch("task", dtype, size), *args)
    _run(lambda start, stop: code(start, stop, scratch("task", dtype, size), *args), tasks, work)


def run_together(
    kernel: Kernel, tasks: int, work: int, dtype: DTypeLike, size: int, *args: Any
) -> None:
    """Call ``kernel(counters, scratch, *args)`` once on each thread: it takes its tasks itself.

    For kernels of several steps, by way of `turns`: ``counters`` are zeros that all threads share.
    """
    counters = np.zeros(COUNTERS, np.int64)
    threads = min(limits.threads(), tasks) if work >= SMALL_WORK else 1
    code = entry(kernel, counters, scratch("task", dtype, size), *args)
    _run(lambda start, stop: code(counters, scratch("task", dtype, size), *args), threads, work)


def _run(call: Callable[[int, int], None], tasks: int, work: int) -> None:
    threads = min(limits.threads(), tasks)
    if threads <= 1 or work < SMALL_WORK:
        if tasks:
            call(0, tasks)
        return
    job = _Job(call, tasks, work, threads)
    _pool.share(job, threads - 1)
    job.work()
    job.wait()


_kept = threading.local()
_CACHE_LINE = 64


def scratch(name: str, dtype: DTypeLike, size: int) -> Array:
    """This thread's workspace ``name``. It is kept: fresh pages cost more than most kernels."""
    dtype = np.dtype(dtype)
    wanted = dtype.itemsize * size + _CACHE_LINE
    buffer: Array | None = getattr(_kept, name, None)
    if buffer is None or buffer.size < wanted - _CACHE_LINE:
        # Zeros: what a kernel leaves unwritten is computed with, then thrown away.
        buffer = np.zeros(wanted, np.uint8)
        skipped = -buffer.ctypes.data % _CACHE_LINE
        buffer = buffer[skipped:]
        setattr(_kept, name, buffer)
    return buffer[: wanted - _CACHE_LINE].view(dtype)
