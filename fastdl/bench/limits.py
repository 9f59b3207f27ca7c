"""The machine's own limits, measured: float32 arithmetic and memory bandwidth.

Roofline model: a layer of F operations that moves B bytes takes at least
``max(F / peak, B / bandwidth)`` seconds (Williams, Waterman and Patterson,
2009).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import numpy as np

from ..backends.registry import why_missing
from ..packages import needed

_MATRIX = 1024
_COPY_BYTES = 1 << 28
_REPEATS = 5


@dataclass(frozen=True, slots=True)
class Limit:
    """What so many threads can do: float32 operations and bytes a second."""

    threads: int
    peak: float
    bandwidth: float

    def seconds(self, flops: int, nbytes: int) -> float:
        """The least time for this work."""
        return max(flops / self.peak, nbytes / self.bandwidth)

    def binding(self, flops: int, nbytes: int) -> str:
        """Which of the two limits it is: 'compute' or 'memory'."""
        return "compute" if flops / self.peak > nbytes / self.bandwidth else "memory"


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one thread, and of all that the bench uses; how they were measured."""

    one: Limit
    all: Limit
    source: str

    def describe(self) -> dict[str, Any]:
        """The fields, for a report."""
        return asdict(self)


def measure(threads: int) -> Limits:
    """Measure the limits; takes about a second."""
    if why_missing("compiled") is None:
        from ..backends.compiled import limits as compiled

        source = "a loop of fused multiply-adds; a loop that reads memory"

        def limit(count: int) -> Limit:
            return Limit(count, compiled.fma_peak("float32", count), compiled.read_bandwidth(count))
    else:
        source = "the compiled kernels are missing, so: NumPy's matrix product; NumPy's copy"

        def limit(count: int) -> Limit:
            with blas_threads(count):
                peak = _best(_matrix_product)
            return Limit(count, peak, _best(_copy))

    one = limit(1)
    many = one if threads == 1 else limit(threads)
    # All threads together can always do what one of them can.
    peak, bandwidth = max(one.peak, many.peak), max(one.bandwidth, many.bandwidth)
    return Limits(one, Limit(threads, peak, bandwidth), source)


def blas_threads(threads: int) -> AbstractContextManager[Any]:
    """Let NumPy's matrix product use ``threads`` threads inside the ``with`` block."""
    threadpoolctl = needed("threadpoolctl", "threadpoolctl", "setting the threads of NumPy's BLAS")
    limits: AbstractContextManager[Any] = threadpoolctl.threadpool_limits(threads, user_api="blas")
    return limits


def _best(measurement: Callable[[], float]) -> float:
    """The highest of several: a limit is what the machine can do when nothing disturbs it."""
    return max(measurement() for _ in range(_REPEATS))


def _matrix_product() -> float:
    matrix = np.ones((_MATRIX, _MATRIX), np.float32)
    out = np.empty_like(matrix)
    start = perf_counter()
    np.matmul(matrix, matrix, out=out)
    return 2 * _MATRIX**3 / (perf_counter() - start)


def _copy() -> float:
    """One thread: NumPy has no other."""
    source = np.ones(_COPY_BYTES // 8)
    target = np.zeros_like(source)
    start = perf_counter()
    np.copyto(target, source)
    return 2 * source.nbytes / (perf_counter() - start)
