"""Softmax and its logarithm: a row for each block, a warp where the rows are short.

A row is read from memory once; the later passes over it are the cache's.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .arrays import DeviceArray
from .blocks import block_max, block_sum
from .launch import THREADS, entry, kernel
from .target import cuda, exp, log

#: Rows of so many columns and fewer are a warp's.
WARP_COLUMNS = 1024


@kernel("T* T* i")
def forward(T: Any, logarithm: bool, threads: int) -> Any:
    """``exp(x - max) / sum(exp(x - max))``, or its logarithm, of row blockIdx.x."""
    largest, summed = block_max(threads), block_sum(threads)
    lowest, zero = T(-np.inf), T(0)

    def run(x, out, columns):
        scratch = cuda.shared.array(32, T)
        thread = cuda.threadIdx.x
        row = cuda.blockIdx.x * columns
        most = lowest
        for column in range(thread, columns, threads):
            value = x[row + column]
            most = value if value > most else most
        most = largest(most, scratch)
        total = zero
        for column in range(thread, columns, threads):
            total += exp(x[row + column] - most)
        total = summed(total, scratch)
        if logarithm:
            total = log(total)
            for column in range(thread, columns, threads):
                out[row + column] = (x[row + column] - most) - total
        else:
            for column in range(thread, columns, threads):
                out[row + column] = exp(x[row + column] - most) / total

    return run


@kernel("T* T* T* i")
def backward(T: Any, logarithm: bool, threads: int) -> Any:
    """``y * (grad - sum(grad * y))``, or ``grad - exp(y) * sum(grad)``, of row blockIdx.x."""
    summed, zero = block_sum(threads), T(0)

    def run(grad, y, out, columns):
        scratch = cuda.shared.array(32, T)
        thread = cuda.threadIdx.x
        row = cuda.blockIdx.x * columns
        total = zero
        for column in range(thread, columns, threads):
            if logarithm:
                total += grad[row + column]
            else:
                total += grad[row + column] * y[row + column]
        total = summed(total, scratch)
        for column in range(thread, columns, threads):
            if logarithm:
                out[row + column] = grad[row + column] - exp(y[row + column]) * total
            else:
                out[row + column] = y[row + column] * (grad[row + column] - total)

    return run


def row_threads(columns: int) -> int:
    """Threads of a row's block."""
    return 32 if columns <= WARP_COLUMNS else THREADS


def _forward(logarithm: bool) -> Any:
    @entry("out")
    def call(x: DeviceArray, out: DeviceArray) -> None:
        rows, columns = x.shape
        threads = row_threads(columns)
        forward(x.dtype, logarithm, threads)(rows, threads, x, out, columns)

    return call


def _backward(logarithm: bool) -> Any:
    @entry("out")
    def call(grad: DeviceArray, y: DeviceArray, out: DeviceArray) -> None:
        rows, columns = grad.shape
        threads = row_threads(columns)
        backward(grad.dtype, logarithm, threads)(rows, threads, grad, y, out, columns)

    return call


softmax, log_softmax = _forward(False), _forward(True)
softmax_backward, log_softmax_backward = _backward(False), _backward(True)
