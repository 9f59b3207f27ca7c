"""Local response normalisation: a thread for each element, which sums over its neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np

from .arrays import DeviceArray, empty
from .launch import THREADS, blocks_for, kernel
from .target import cuda, quotient


@kernel("T* T* T* T T T i i i i i")
def forward(T: Any) -> Any:
    """``b = k + share * sum_d x[d]**2`` over d from ``c - before`` to ``c + after``; ``x b**-beta``."""
    zero = T(0)

    def run(x, bases, out, k, share, power, count, channels, plane, before, after):
        e = np.int32(cuda.grid(1))
        if e < count:
            c = quotient(e, plane) % channels
            total = zero
            for d in range(max(c - before, 0), min(c + after + 1, channels)):
                value = x[e + (d - c) * plane]
                total += value * value
            base = k + share * total
            bases[e] = base
            out[e] = x[e] * base**power

    return run


@kernel("T* T* T* T* T T i i i i i")
def backward(T: Any) -> Any:
    """``grad b**-beta + factor x sum_d r[d]``, ``r = grad x b**(-beta - 1)``; see the layer."""
    zero = T(0)

    def run(grad, x, bases, out, factor, power, count, channels, plane, before, after):
        e = np.int32(cuda.grid(1))
        if e < count:
            c = quotient(e, plane) % channels
            total = zero
            for d in range(max(c - before, 0), min(c + after + 1, channels)):
                at = e + (d - c) * plane
                total += grad[at] * x[at] * bases[at] ** power / bases[at]
            out[e] = grad[e] * bases[e] ** power + factor * x[e] * total

    return run


def _sizes(x: DeviceArray) -> tuple[int, int, int]:
    return x.size, x.shape[1], x.size // max(x.shape[0] * x.shape[1], 1)


def local_response_norm(
    x: DeviceArray, size: int, alpha: float, beta: float, k: float
) -> tuple[DeviceArray, DeviceArray]:
    """The result, and the bases of its powers."""
    out, bases = empty(x.shape, x.dtype, x), empty(x.shape, x.dtype, x)
    before = size // 2
    forward(x.dtype)(
        blocks_for(x.size), THREADS, x, bases, out, k, alpha / size, -beta, *_sizes(x), before,
        size - 1 - before,
    )  # fmt: skip
    return out, bases


def local_response_norm_backward(
    grad: DeviceArray, x: DeviceArray, bases: DeviceArray, size: int, alpha: float, beta: float
) -> DeviceArray:
    """The gradient of x."""
    out = empty(x.shape, x.dtype, x)
    before = size // 2
    backward(x.dtype)(
        blocks_for(x.size), THREADS, grad, x, bases, out, -2 * alpha * beta / size, -beta,
        *_sizes(x), size - 1 - before, before,
    )  # fmt: skip
    return out
