"""The rules of the optimisers, one pass over each parameter, and sums of squares."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..table import OptimizerStep
from .arrays import DeviceArray, check_together, empty, to_device
from .blocks import block_sum
from .launch import THREADS, blocks_for, kernel, processors
from .target import cuda, sqrt


@kernel("T* T* T* T* T T T T T T T T T T i", bounds=(THREADS, 4))
def change(T: Any, rule: str) -> Any:
    """Formula ``rule`` of the table; ``fix1`` and ``fix2`` are 1 / (1 - beta**step)."""
    zero, one = T(0), T(1)

    def run(
        w, grad, first, second, lr, beta1, beta2, eps, grad_scale, l1, l2, keep, fix1, fix2, count
    ):
        e = cuda.grid(1)
        if e < count:
            value = w[e]
            g = grad_scale * grad[e]
            if l1 != zero or l2 != zero:  # else 0 * infinity would be added
                sign = one if value > zero else (-one if value < zero else value)
                g += l2 * value + l1 * sign
            value *= keep
            if rule == "sgd":
                value -= lr * g
            elif rule == "momentum":
                v = beta1 * first[e] - lr * g
                first[e] = v
                value += v
            elif rule == "nesterov":
                v = beta1 * first[e] - lr * g
                first[e] = v
                value += beta1 * v - lr * g
            elif rule == "adagrad":
                h = first[e] + g * g
                first[e] = h
                value -= lr * g / (sqrt(h) + eps)
            elif rule == "rmsprop":
                h = beta1 * first[e] + (one - beta1) * (g * g)
                first[e] = h
                value -= lr * g / (sqrt(h) + eps)
            else:
                m = beta1 * first[e] + (one - beta1) * g
                s = beta2 * second[e] + (one - beta2) * (g * g)
                first[e], second[e] = m, s
                value -= lr * (m * fix1) / (sqrt(s * fix2) + eps)
            w[e] = value

    return run


@kernel("T* D* i", bounds=(THREADS, 4))
def squares(T: Any) -> Any:
    """Each block's share of ``sum(x**2)``, in double precision."""
    summed = block_sum(THREADS)

    def run(x, parts, count):
        scratch = cuda.shared.array(32, np.float64)
        total = 0.0
        for e in range(cuda.grid(1), count, cuda.gridDim.x * THREADS):
            value = np.float64(x[e])
            total += value * value
        total = summed(total, scratch)
        if cuda.threadIdx.x == 0:
            parts[cuda.blockIdx.x] = total

    return run


def optimizer_step(
    step: OptimizerStep,
    params: list[Any],
    grads: list[Any],
    first: list[Any],
    second: list[Any],
    penalties: NDArray[np.float64],
) -> None:
    """Change parameters against their gradients; see `fastdl.backends.table`."""
    for number, (w, grad) in enumerate(zip(params, grads, strict=True)):
        states = [state[number] for state in (first, second) if state]
        named = dict(zip(("params", "grads", "first", "second"), (w, grad, *states), strict=False))
        check_together(named)
        arrays = [to_device(array) for array in named.values()]
        _change(step, arrays, penalties[number].tolist())
        for host, array in zip(named.values(), arrays, strict=True):
            if isinstance(host, np.ndarray) and host is not grad:
                np.copyto(host, array.copy_to_host())


def _change(step: OptimizerStep, arrays: list[DeviceArray], penalty: list[float]) -> None:
    w, grad, *states = arrays
    first, second = (*states, w, w)[:2]
    l1, l2, decay = penalty
    adam = step.rule == "adam"
    change(w.dtype, step.rule)(
        blocks_for(w.size), THREADS, w, grad, first, second, step.lr, step.beta1, step.beta2,
        step.eps, step.grad_scale, l1, l2, 1 - step.lr * decay,
        1 / (1 - step.beta1**step.step) if adam else 1,
        1 / (1 - step.beta2**step.step) if adam else 1, w.size,
    )  # fmt: skip


def sum_of_squares(x: Any) -> float:
    """``sum(x**2)``: a number of the host's, so the call waits for it."""
    return sums_of_squares([to_device(x)])


def sums_of_squares(arrays: list[DeviceArray]) -> float:
    """``sum(x**2)`` over all of them, which are on one GPU, with one copy to the host."""
    arrays = [array for array in arrays if array.size]
    if not arrays:
        return 0.0
    blocks = [min(blocks_for(array.size), 4 * processors()) for array in arrays]
    parts = empty((sum(blocks),), np.float64, arrays[0])
    done = 0
    for array, count in zip(arrays, blocks, strict=True):
        squares(array.dtype)(count, THREADS, array, parts[done : done + count], array.size)
        done += count
    return float(parts.copy_to_host().sum())
