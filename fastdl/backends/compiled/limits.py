"""What this machine can do at most, measured by loops in the instruction set that serves."""

import time

import numpy as np

from . import _kernels

#: A repetition lasts long enough for a clock, and several are tried: the fastest is the limit.
_REPETITIONS = 10
_OPERATIONS = 4096 * 20_000
_BYTES = 256 * 2**20


def fma_peak(dtype_name: str, threads: int) -> float:
    """Multiplications and additions a second, on ``threads`` threads together.

    ``dtype_name`` is ``"float32"`` or ``"float64"``. The loop is one of independent
    multiply-adds on registers.
    """
    best = float("inf")
    for _ in range(_REPETITIONS):
        start = time.perf_counter()
        _kernels.multiply_add(dtype_name == "float64", _OPERATIONS, threads)
        best = min(best, time.perf_counter() - start)
    return threads * _OPERATIONS / best


def read_bandwidth(threads: int) -> float:
    """Bytes a second that ``threads`` threads read from memory, from an array beyond the caches."""
    data = np.ones(_BYTES // 8)
    best = float("inf")
    for _ in range(_REPETITIONS):
        start = time.perf_counter()
        _kernels.read_bytes(data, threads)
        best = min(best, time.perf_counter() - start)
    return _BYTES / best
