"""Losses and their gradients. What a step copies to the host is a loss and a count of bad classes."""

from __future__ import annotations

from typing import Any

import numpy as np

from .arrays import DeviceArray, empty
from .blocks import block_max, block_sum
from .launch import THREADS, blocks_for, kernel, processors
from .softmax import row_threads
from .target import cuda, exp, log, shuffle_xor


@kernel("T* l* T* T i")
def row_losses(T: Any, smoothed: bool, threads: int) -> Any:
    """``-(1 - s) log p[target] - s / K sum(log p)`` of row blockIdx.x, s the smoothing.

    NaN where the target is no class. ``log p = x - max - log(sum(exp(x - max)))``.
    """
    largest, summed = block_max(threads), block_sum(threads)
    lowest, zero, one, nan = T(-np.inf), T(0), T(1), T(np.nan)

    def run(x, target, out, smoothing, classes):
        scratch = cuda.shared.array(32, T)
        thread = cuda.threadIdx.x
        row = cuda.blockIdx.x * classes
        most = lowest
        for k in range(thread, classes, threads):
            value = x[row + k]
            most = value if value > most else most
        most = largest(most, scratch)
        total, rest = zero, zero
        for k in range(thread, classes, threads):
            away = x[row + k] - most
            total += exp(away)
            if smoothed:
                rest += away
        total = log(summed(total, scratch))
        if smoothed:
            rest = summed(rest, scratch)
        if thread == 0:
            loss, k = nan, target[cuda.blockIdx.x]
            if k >= 0 and k < classes:
                loss = -((x[row + k] - most) - total)
                if smoothed:
                    share = smoothing / T(classes)
                    loss = (one - smoothing) * loss - share * (rest - T(classes) * total)
            out[cuda.blockIdx.x] = loss

    return run


@kernel("l* D* i l", bounds=(THREADS, 4))
def outside(T: Any) -> Any:
    """How many of the numbers are not in ``[0, below)``, by one block."""
    summed = block_sum(THREADS)

    def run(numbers, out, count, below):
        scratch = cuda.shared.array(32, np.float64)
        bad = 0.0
        for e in range(cuda.threadIdx.x, count, THREADS):
            if numbers[e] < 0 or numbers[e] >= below:
                bad += 1.0
        bad = summed(bad, scratch)
        if cuda.threadIdx.x == 0:
            out[0] = bad

    return run


@kernel("T* l* D* d i i", bounds=(THREADS, 4))
def mean(T: Any) -> Any:
    """``sum(x) * share``, and how many of the targets are no class: by one block."""
    summed = block_sum(THREADS)

    def run(x, target, out, share, count, classes):
        scratch = cuda.shared.array(32, np.float64)
        total, bad = 0.0, 0.0
        for e in range(cuda.threadIdx.x, count, THREADS):
            total += x[e]
            if target[e] < 0 or target[e] >= classes:
                bad += 1.0
        total = summed(total, scratch)
        bad = summed(bad, scratch)
        if cuda.threadIdx.x == 0:
            out[0] = total * share
            out[1] = bad

    return run


@kernel("T* l* T* T* T T i i")
def loss_gradient(T: Any, threads: int) -> Any:
    """``upstream * (softmax(x) - s / K - (1 - s) [k == target])`` of row blockIdx.x."""
    largest, summed = block_max(threads), block_sum(threads)
    lowest, zero, one = T(-np.inf), T(0), T(1)

    def run(x, target, upstream, out, smoothing, share, each, classes):
        scratch = cuda.shared.array(32, T)
        thread = cuda.threadIdx.x
        row = cuda.blockIdx.x * classes
        most = lowest
        for k in range(thread, classes, threads):
            value = x[row + k]
            most = value if value > most else most
        most = largest(most, scratch)
        total = zero
        for k in range(thread, classes, threads):
            total += exp(x[row + k] - most)
        total = summed(total, scratch)
        factor = upstream[cuda.blockIdx.x] * share if each else share
        hit = target[cuda.blockIdx.x]
        for k in range(thread, classes, threads):
            value = exp(x[row + k] - most) / total - smoothing / T(classes)
            if k == hit:
                value -= one - smoothing
            out[row + k] = value * factor

    return run


@kernel("T* l* i* i", bounds=(32, 32))
def first_largest(T: Any) -> Any:
    """Whether the first of row blockIdx.x's largest scores is its target's; NaN is the largest."""
    lowest, nowhere = T(-np.inf), np.int32(2147483647)

    def run(scores, target, out, classes):
        row = cuda.blockIdx.x * classes
        best, place = lowest, nowhere
        for k in range(cuda.threadIdx.x, classes, 32):
            value = scores[row + k]
            if place == nowhere or value > best or (value != value and best == best):
                best, place = value, np.int32(k)
        for distance in (16, 8, 4, 2, 1):
            other, there = shuffle_xor(best, distance), shuffle_xor(place, distance)
            both_nan = other != other and best != best
            if (other == best or both_nan) and there < place:
                place = there
            elif there != nowhere and (other > best or (other != other and best == best)):
                best, place = other, there
        if cuda.threadIdx.x == 0:
            out[cuda.blockIdx.x] = 1 if place == target[cuda.blockIdx.x] else 0

    return run


@kernel("i* D* i", bounds=(THREADS, 4))
def count_of(T: Any) -> Any:
    """The sum, by one block."""
    summed = block_sum(THREADS)

    def run(numbers, out, count):
        scratch = cuda.shared.array(32, np.float64)
        total = 0.0
        for e in range(cuda.threadIdx.x, count, THREADS):
            total += numbers[e]
        total = summed(total, scratch)
        if cuda.threadIdx.x == 0:
            out[0] = total

    return run


@kernel("T* T* D* i", bounds=(THREADS, 4))
def element_losses(T: Any, name: str) -> Any:
    """Each block's share of the sum of squared differences, or of cross entropies of sigmoids."""
    summed = block_sum(THREADS)
    zero, one = T(0), T(1)

    def run(x, target, parts, count):
        scratch = cuda.shared.array(32, np.float64)
        total = 0.0
        for e in range(cuda.grid(1), count, cuda.gridDim.x * THREADS):
            value, wanted = x[e], target[e]
            if name == "mse":
                total += (value - wanted) * (value - wanted)
            else:
                size = -value if value < zero else value
                positive = zero if value < zero else value
                total += positive - value * wanted + log(one + exp(-size))
        total = summed(total, scratch)
        if cuda.threadIdx.x == 0:
            parts[cuda.blockIdx.x] = total

    return run


@kernel("T* T* T* T i")
def element_slopes(T: Any, name: str) -> Any:
    """The derivative of each loss, times ``share``."""
    one, two = T(1), T(2)

    def run(x, target, out, share, count):
        e = cuda.grid(1)
        if e < count:
            value, wanted = x[e], target[e]
            if name == "mse":
                out[e] = two * (value - wanted) * share
            else:
                out[e] = (one / (one + exp(-value)) - wanted) * share

    return run


def cross_entropy(
    x: DeviceArray, target: DeviceArray, smoothing: float, reduction: str
) -> DeviceArray:
    """The loss of each row; or their mean or sum, and how many of the targets are no class."""
    rows, classes = x.shape
    each, threads = empty((rows,), x.dtype, x), row_threads(classes)
    row_losses(x.dtype, smoothing > 0, threads)(rows, threads, x, target, each, smoothing, classes)
    if reduction == "none":
        return each
    share = 1.0 if reduction == "sum" else 1 / rows if rows else float("nan")
    out = empty((2,), np.float64, x)
    mean(x.dtype)(1, THREADS, each, target, out, share, rows, classes)
    return out


def cross_entropy_backward(
    x: DeviceArray,
    target: DeviceArray,
    smoothing: float,
    share: float,
    upstream: DeviceArray | None,
) -> DeviceArray:
    """``softmax(x)`` less the target's distribution, times ``share`` and each row's ``upstream``."""
    grad = empty(x.shape, x.dtype, x)
    rows, classes = x.shape
    threads = row_threads(classes)
    loss_gradient(x.dtype, threads)(
        rows, threads, x, target, x if upstream is None else upstream, grad, smoothing, share,
        upstream is not None, classes,
    )  # fmt: skip
    return grad


def count_outside(numbers: DeviceArray, below: int) -> int:
    """How many of the int64 are not in ``[0, below)``: a number of the host's, so the call waits."""
    out = empty((1,), np.float64, numbers)
    outside(np.float64)(1, THREADS, numbers, out, numbers.size, below)
    return int(out.copy_to_host()[0])


def correct(scores: DeviceArray, target: DeviceArray) -> int:
    """How many rows have their highest score at their target: a number of the host's."""
    rows, classes = scores.shape
    hits, out = empty((rows,), np.int32, scores), empty((1,), np.float64, scores)
    first_largest(scores.dtype)(rows, 32, scores, target, hits, classes)
    count_of(np.float64)(1, THREADS, hits, out, rows)
    return int(out.copy_to_host()[0])


def element_loss(name: str, x: DeviceArray, target: DeviceArray) -> float:
    """The sum of the elements' losses, ``mse`` or ``bce``: a number of the host's."""
    if not x.size:
        return 0.0
    blocks = min(blocks_for(x.size), 4 * processors())
    parts = empty((blocks,), np.float64, x)
    element_losses(x.dtype, name)(blocks, THREADS, x, target, parts, x.size)
    return float(parts.copy_to_host().sum())


def element_loss_backward(
    name: str, x: DeviceArray, target: DeviceArray, share: float
) -> DeviceArray:
    """The derivative of each, times ``share``."""
    out = empty(x.shape, x.dtype, x)
    element_slopes(x.dtype, name)(blocks_for(x.size), THREADS, x, target, out, share, x.size)
    return out
