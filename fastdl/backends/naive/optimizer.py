"""The rules of the optimisers, number by number."""

from __future__ import annotations

import math
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from ..table import Array, OptimizerStep


def optimizer_step(
    step: OptimizerStep,
    params: list[Array],
    grads: list[Array],
    first: list[Array],
    second: list[Array],
    penalties: NDArray[np.float64],
) -> None:
    """See `fastdl.backends.table`."""
    arrays = zip_longest(params, grads, first, second, penalties.tolist())
    for param, grad, one, two, (l1, l2, decay) in arrays:
        for p in range(param.size):
            w = param.item(p)
            g = step.grad_scale * grad.item(p)
            if l1 or l2:
                g += l2 * w + l1 * _sign(w)
            w *= 1 - step.lr * decay
            a = one.item(p) if one is not None else 0.0
            b = two.item(p) if two is not None else 0.0
            w, a, b = _changed(step, w, g, a, b)
            _put(param, p, w)
            if one is not None:
                _put(one, p, a)
            if two is not None:
                _put(two, p, b)


def _changed(
    step: OptimizerStep, w: float, g: float, first: float, second: float
) -> tuple[float, float, float]:
    lr, beta1, beta2, eps = step.lr, step.beta1, step.beta2, step.eps
    if step.rule == "sgd":
        return w - lr * g, first, second
    if step.rule == "momentum":
        v = beta1 * first - lr * g
        return w + v, v, second
    if step.rule == "nesterov":
        v = beta1 * first - lr * g
        return w + beta1 * v - lr * g, v, second
    if step.rule == "adagrad":
        h = first + g * g
        return w - lr * g / (math.sqrt(h) + eps), h, second
    if step.rule == "rmsprop":
        h = beta1 * first + (1 - beta1) * (g * g)
        return w - lr * g / (math.sqrt(h) + eps), h, second
    m = beta1 * first + (1 - beta1) * g
    s = beta2 * second + (1 - beta2) * (g * g)
    mean, square = m / (1 - beta1**step.step), s / (1 - beta2**step.step)
    return w - lr * mean / (math.sqrt(square) + eps), m, s


def _sign(w: float) -> float:
    return w if w == 0 or math.isnan(w) else math.copysign(1.0, w)


def _put(array: Array, position: int, value: float) -> None:
    # A float too large for float32 becomes infinity, without a warning.
    with np.errstate(over="ignore"):
        array.flat[position] = value


def sum_of_squares(x: Array) -> float:
    """``sum(x**2)``."""
    total = 0.0
    for p in range(x.size):
        total += x.item(p) * x.item(p)
    return total
