"""The rules of the optimisers: one pass over each array."""

from __future__ import annotations

import math
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..table import Array, OptimizerStep, Rule
from .activation import BLOCK, blocks
from .arrays import flat
from .compiling import compiled, reduction
from .pool import run

#: Codes of the rules inside of kernels.
SGD, MOMENTUM, NESTEROV, ADAGRAD, RMSPROP, ADAM = range(6)
CODES: dict[Rule, int] = {
    "sgd": SGD,
    "momentum": MOMENTUM,
    "nesterov": NESTEROV,
    "adagrad": ADAGRAD,
    "rmsprop": RMSPROP,
    "adam": ADAM,
}
# Places in the array of a call's numbers, which are in the precision of its arrays.
LR, BETA1, BETA2, REST1, REST2, EPS, UNBIASED_LR, UNBIAS_ROOT, SCALE, L1, L2, KEEP = range(12)


@compiled
def _gradient(penalised: bool, w: Any, grad: Any, n: Array) -> Any:
    g = n[SCALE] * grad
    if penalised:
        sign = n[L1] if w > 0 else (-n[L1] if w < 0 else w)
        g += n[L2] * w + sign
    return g


@compiled
def _change(
    start: int,
    stop: int,
    code: int,
    penalised: bool,
    n: Array,
    params: Array,
    grads: Array,
    firsts: Array,
    seconds: Array,
) -> None:
    begin, end = start * BLOCK, min(stop * BLOCK, params.size)
    w, grad = params[begin:end], grads[begin:end]
    first, second = firsts[begin:end], seconds[begin:end]
    if code == SGD:
        for i in range(w.size):
            w[i] = w[i] * n[KEEP] - n[LR] * _gradient(penalised, w[i], grad[i], n)
    elif code == MOMENTUM:
        for i in range(w.size):
            first[i] = n[BETA1] * first[i] - n[LR] * _gradient(penalised, w[i], grad[i], n)
            w[i] = w[i] * n[KEEP] + first[i]
    elif code == NESTEROV:
        for i in range(w.size):
            step = n[LR] * _gradient(penalised, w[i], grad[i], n)
            first[i] = n[BETA1] * first[i] - step
            w[i] = w[i] * n[KEEP] + n[BETA1] * first[i] - step
    elif code == ADAM:
        for i in range(w.size):
            g = _gradient(penalised, w[i], grad[i], n)
            first[i] = n[BETA1] * first[i] + n[REST1] * g
            second[i] = n[BETA2] * second[i] + n[REST2] * (g * g)
            root = math.sqrt(second[i]) * n[UNBIAS_ROOT] + n[EPS]
            w[i] = w[i] * n[KEEP] - n[UNBIASED_LR] * first[i] / root
    else:
        # AdaGrad's h keeps all that it was, and takes all of g**2.
        adagrad = code == ADAGRAD
        one = n.dtype.type(1)
        kept, taken = (one, one) if adagrad else (n[BETA1], n[REST1])
        for i in range(w.size):
            g = _gradient(penalised, w[i], grad[i], n)
            first[i] = kept * first[i] + taken * (g * g)
            w[i] = w[i] * n[KEEP] - n[LR] * g / (math.sqrt(first[i]) + n[EPS])


def optimizer_step(
    step: OptimizerStep,
    params: list[Array],
    grads: list[Array],
    first: list[Array],
    second: list[Array],
    penalties: NDArray[np.float64],
) -> None:
    """Each array in turn; see `fastdl.backends.table`."""
    lr, beta1, beta2 = step.lr, step.beta1, step.beta2
    numbers = np.zeros(KEEP + 1)
    numbers[: EPS + 1] = lr, beta1, beta2, 1 - beta1, 1 - beta2, step.eps
    numbers[UNBIASED_LR] = lr / (1 - beta1**step.step)
    numbers[UNBIAS_ROOT] = (1 - beta2**step.step) ** -0.5
    numbers[SCALE] = step.grad_scale
    for param, grad, one, two, (l1, l2, decay) in zip_longest(
        params, grads, first, second, penalties.tolist()
    ):
        numbers[L1:] = l1, l2, 1 - lr * decay
        w = flat(param)
        run(
            _change,
            blocks(w.size),
            w.size,
            CODES[step.rule],
            bool(l1 or l2),
            numbers.astype(w.dtype),
            w,
            flat(grad),
            w if one is None else flat(one),
            w if two is None else flat(two),
        )


@reduction
def _squares(start: int, stop: int, x: Array, sums: NDArray[np.float64]) -> None:
    for block in range(start, stop):
        total = 0.0
        for value in x[block * BLOCK : (block + 1) * BLOCK]:
            total += np.float64(value) * np.float64(value)
        sums[block] = total


def sum_of_squares(x: Array) -> float:
    """``sum(x**2)``: of each block, then of these in their order."""
    sums = np.empty(blocks(x.size))
    run(_squares, blocks(x.size), x.size, flat(x), sums)
    return float(sums.sum())
