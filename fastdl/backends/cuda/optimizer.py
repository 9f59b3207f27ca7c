"""The rules of the optimisers, all parameters in one launch, and sums of squares.

::

    table    a row for each parameter: where it, its gradient and its state lie in memory, how
             many elements they have, and which block begins with them
    block    CHUNK elements of one parameter, which it finds in the table by halving
    thread   four neighbours at a time
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..table import OptimizerStep
from .arrays import DeviceArray, check_together, empty, in_order, to_device, use_stream
from .blocks import block_sum
from .launch import THREADS, blocks_for, kernel, processors
from .target import cuda, inlined, load4_at, load_at, sqrt, store4_at, store_at

#: Elements of a block, and numbers in a row of the table.
CHUNK, ROW = 16 * THREADS, 6
#: Arrays of state of the rules that have not one.
STATES_OF = {"sgd": 0, "adam": 2}


@cache
def _changed(T: Any, rule: str) -> Any:
    """Formula ``rule`` of the table for one element: the new parameter and state."""
    zero, one = T(0), T(1)

    @inlined
    def changed(
        value, grad, first, second, lr, beta1, beta2, eps, grad_scale, l1, l2, keep, fix1, fix2
    ):
        g = grad_scale * grad
        if l1 != zero or l2 != zero:  # else 0 * infinity would be added
            sign = one if value > zero else (-one if value < zero else value)
            g += l2 * value + l1 * sign
        value *= keep
        if rule == "sgd":
            value -= lr * g
        elif rule == "momentum":
            first = beta1 * first - lr * g
            value += first
        elif rule == "nesterov":
            first = beta1 * first - lr * g
            value += beta1 * first - lr * g
        elif rule == "adagrad":
            first += g * g
            value -= lr * g / (sqrt(first) + eps)
        elif rule == "rmsprop":
            first = beta1 * first + (one - beta1) * (g * g)
            value -= lr * g / (sqrt(first) + eps)
        else:
            first = beta1 * first + (one - beta1) * g
            second = beta2 * second + (one - beta2) * (g * g)
            value -= lr * (first * fix1) / (sqrt(second * fix2) + eps)
        return value, first, second

    return changed


@kernel("l* D* i d T T T T T T", bounds=(THREADS, 4))
def change(T: Any, rule: str) -> Any:
    """All elements by formula ``rule``; ``fix1`` and ``fix2`` are 1 / (1 - beta**step)."""
    changed, STATES = _changed(T, rule), STATES_OF.get(rule, 1)
    load, load4, store, store4 = load_at(T), load4_at(T), store_at(T), store4_at(T)
    zero = T(0)

    def run(table, penalties, count, lr, beta1, beta2, eps, grad_scale, fix1, fix2):
        block = cuda.blockIdx.x
        number, beyond = 0, count
        while beyond - number > 1:
            middle = (number + beyond) // 2
            if table[ROW * middle + 5] <= block:
                number = middle
            else:
                beyond = middle
        row = ROW * number
        at_w, at_grad, at_first, at_second = (
            table[row],
            table[row + 1],
            table[row + 2],
            table[row + 3],
        )
        size = table[row + 4]
        l1, l2 = T(penalties[3 * number]), T(penalties[3 * number + 1])
        keep = T(1.0 - lr * penalties[3 * number + 2])
        rate = T(lr)
        begin = (block - table[row + 5]) * CHUNK
        for e in range(begin + 4 * cuda.threadIdx.x, min(begin + CHUNK, size), 4 * THREADS):
            if e + 4 <= size:
                w = load4(at_w, e)
                g = load4(at_grad, e)
                f, s = (zero, zero, zero, zero), (zero, zero, zero, zero)
                if STATES >= 1:
                    f = load4(at_first, e)
                if STATES == 2:
                    s = load4(at_second, e)
                w0, f0, s0 = changed(
                    w[0], g[0], f[0], s[0], rate, beta1, beta2, eps, grad_scale, l1, l2, keep,
                    fix1, fix2,
                )  # fmt: skip
                w1, f1, s1 = changed(
                    w[1], g[1], f[1], s[1], rate, beta1, beta2, eps, grad_scale, l1, l2, keep,
                    fix1, fix2,
                )  # fmt: skip
                w2, f2, s2 = changed(
                    w[2], g[2], f[2], s[2], rate, beta1, beta2, eps, grad_scale, l1, l2, keep,
                    fix1, fix2,
                )  # fmt: skip
                w3, f3, s3 = changed(
                    w[3], g[3], f[3], s[3], rate, beta1, beta2, eps, grad_scale, l1, l2, keep,
                    fix1, fix2,
                )  # fmt: skip
                store4(at_w, e, w0, w1, w2, w3)
                if STATES >= 1:
                    store4(at_first, e, f0, f1, f2, f3)
                if STATES == 2:
                    store4(at_second, e, s0, s1, s2, s3)
            else:
                for i in range(e, size):
                    first = load(at_first, i) if STATES >= 1 else zero
                    second = load(at_second, i) if STATES == 2 else zero
                    value, first, second = changed(
                        load(at_w, i), load(at_grad, i), first, second, rate, beta1, beta2, eps,
                        grad_scale, l1, l2, keep, fix1, fix2,
                    )  # fmt: skip
                    store(at_w, i, value)
                    if STATES >= 1:
                        store(at_first, i, first)
                    if STATES == 2:
                        store(at_second, i, second)

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
    lists = {"params": params, "grads": grads, "first": first, "second": second}
    kept = {name: arrays for name, arrays in lists.items() if arrays}
    places: dict[int, list[int]] = {}
    for number, of_one in enumerate(zip(*kept.values(), strict=True)):
        check_together(dict(zip(kept, of_one, strict=True)))
        if of_one[0].size:
            places.setdefault(getattr(of_one[0], "device", -1), []).append(number)
    for numbers in places.values():
        # By number: the arrays of each parameter, on the GPU.
        chosen = [[to_device(arrays[number]) for arrays in kept.values()] for number in numbers]
        _change(step, chosen, penalties[numbers])
        for number, moved in zip(numbers, chosen, strict=True):
            for name, array in zip(kept, moved, strict=True):
                host = kept[name][number]
                if isinstance(host, np.ndarray) and name != "grads":
                    np.copyto(host, array.copy_to_host())


def _change(
    step: OptimizerStep, chosen: list[list[DeviceArray]], penalties: NDArray[np.float64]
) -> None:
    """All of a GPU's."""
    w = chosen[0][0]
    rows, blocks = [], 0
    for arrays in chosen:
        addresses = [array.pointer for array in arrays]
        rows += [*addresses, *[0] * (4 - len(addresses)), arrays[0].size, blocks]
        blocks += blocks_for(arrays[0].size, CHUNK)
    place = (w.device, w.stream)
    adam = step.rule == "adam"
    table, numbers = _table(tuple(rows), *place), _numbers(penalties.tobytes(), *place)
    with in_order(table, [array for arrays in chosen for array in arrays]):
        change(w.dtype, step.rule)(
            blocks, THREADS, table, numbers, len(chosen), step.lr, step.beta1, step.beta2, step.eps,
            step.grad_scale, 1 / (1 - step.beta1**step.step) if adam else 1,
            1 / (1 - step.beta2**step.step) if adam else 1,
        )  # fmt: skip


# From step to step the arrays lie where they lay: then there is nothing to copy to the GPU.
@lru_cache(maxsize=256)
def _table(rows: tuple[int, ...], device: int, stream: int) -> DeviceArray:
    with use_stream(stream):
        return to_device(np.array(rows, np.int64), device)


@lru_cache(maxsize=256)
def _numbers(penalties: bytes, device: int, stream: int) -> DeviceArray:
    with use_stream(stream):
        return to_device(np.frombuffer(penalties, np.float64), device)


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
