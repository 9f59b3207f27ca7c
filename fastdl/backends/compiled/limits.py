"""What this machine can do at most, measured by loops in the instruction set that serves."""

import time
from collections.abc import Callable

import numpy as np

from . import _kernels

#: A repetition lasts long enough for a clock, and several are tried: the fastest is the limit. They
#: go on for longer than another library's threads spin that wait for work.
_REPETITIONS, _SECONDS = 10, 0.3
_OPERATIONS = 4096 * 20_000
_BYTES = 256 * 2**20


def fma_peak(dtype_name: str, threads: int) -> float:
    """Multiplications and additions a second, on ``threads`` threads together.

    ``dtype_name`` is ``"float32"`` or ``"float64"``. The loop is one of independent
    multiply-adds on registers.
    """
    double = dtype_name == "float64"
    seconds = _fastest(lambda: _kernels.multiply_add(double, _OPERATIONS, threads))
    return threads * _OPERATIONS / seconds


def bandwidths(threads: int) -> tuple[float, float, float]:
    """Bytes a second that ``threads`` threads read, copy and write, of arrays beyond the caches.

    A copied byte counts twice, as one read and one written. Writes go past the
    caches, as those of the kernels do: a plain store reads the line first.
    """
    source, target = _array(), _array()
    read = _fastest(lambda: _kernels.read_bytes(source, threads))
    copied = _fastest(lambda: _kernels.write_bytes(source, target, threads))
    written = _fastest(lambda: _kernels.write_bytes(None, target, threads))
    return _BYTES / read, 2 * _BYTES / copied, _BYTES / written


def _array() -> np.ndarray:
    """Touched, so that its memory is there, and aligned to a cache line."""
    data = np.ones(_BYTES // 8 + 8)
    skipped = -data.ctypes.data % 64 // 8
    return data[skipped : skipped + _BYTES // 8]


def _fastest(measured: Callable[[], object]) -> float:
    times: list[float] = []
    while len(times) < _REPETITIONS or sum(times) < _SECONDS:
        start = time.perf_counter()
        measured()
        times.append(time.perf_counter() - start)
    return min(times)
