"""The machine's own limits, measured: float32 arithmetic and memory bandwidth.

Roofline model: a layer of F operations whose bytes take M seconds to move takes
at least ``max(F / peak, M)`` seconds (Williams, Waterman and Patterson, 2009).

Reading and writing are not equally fast, and together they are neither the one
nor the other. So three loops over arrays beyond the caches are measured: one
that reads, one that copies, one that only writes; writes go past the caches. A
layer that reads R bytes and writes W is held against ``min(R, W)`` bytes copied,
and the rest read or written.
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
from .layer import Layer

_MATRIX = 1024
_COPY_BYTES = 1 << 28
_REPEATS = 5
_MEASURED = ("peak", "read", "copy", "write")


@dataclass(frozen=True, slots=True)
class Limit:
    """What so many threads can do: float32 operations and bytes a second.

    Of the bytes that ``copy`` moves, one half is read and the other written.
    """

    threads: int
    peak: float
    read: float
    copy: float
    write: float

    def seconds(self, layer: Layer) -> float:
        """The least time for its work."""
        return max(self._compute(layer), self._memory(layer))

    def binding(self, layer: Layer) -> str:
        """Which of the two limits it is: 'compute' or 'memory'."""
        return "compute" if self._compute(layer) > self._memory(layer) else "memory"

    def fraction(self, layer: Layer, seconds: float) -> float:
        """The part of the limit that a layer reaches that takes ``seconds``."""
        return self.seconds(layer) / seconds

    @property
    def bandwidth(self) -> float:
        """The highest: no layer from memory is faster."""
        return max(self.read, self.copy, self.write)

    def _compute(self, layer: Layer) -> float:
        return layer.flops / self.peak

    def _memory(self, layer: Layer) -> float:
        read, written = layer.bytes_read, layer.bytes_written
        copied = min(read, written)
        rest = (read - copied) / self.read + (written - copied) / self.write
        return 2 * copied / self.copy + rest

    def __str__(self) -> str:
        return (
            f"{self.peak / 1e9:.0f} GFLOP/s; GB/s: {self.read / 1e9:.1f} reading, "
            f"{self.copy / 1e9:.1f} copying, {self.write / 1e9:.1f} writing"
        )


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
    """Measure the limits; takes a few seconds."""
    if why_missing("compiled") is None:
        from ..backends.compiled import limits as compiled

        source = "loops of fused multiply-adds, of reads, of copies and of writes past the caches"

        def limit(count: int) -> Limit:
            return Limit(count, compiled.fma_peak("float32", count), *compiled.bandwidths(count))
    else:
        source = "the compiled kernels are missing, so: NumPy's matrix product; NumPy's copy"

        def limit(count: int) -> Limit:
            with blas_threads(count):
                peak = _best(_matrix_product)
            return Limit(count, peak, *[_best(_copy)] * 3)

    one = limit(1)
    many = one if threads == 1 else limit(threads)
    # All threads together can always do what one of them can.
    best = (max(getattr(one, name), getattr(many, name)) for name in _MEASURED)
    return Limits(one, Limit(threads, *best), source)


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
