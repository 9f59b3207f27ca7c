"""The rules of the optimisers."""

from __future__ import annotations

from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from ..table import Array, OptimizerStep


@np.errstate(all="ignore")
def optimizer_step(
    step: OptimizerStep,
    params: list[Array],
    grads: list[Array],
    first: list[Array],
    second: list[Array],
    penalties: NDArray[np.float64],
) -> None:
    """Each array in turn; see `fastdl.backends.table`."""
    for w, grad, one, two, (l1, l2, decay) in zip_longest(
        params, grads, first, second, penalties.tolist()
    ):
        g = step.grad_scale * grad
        if l1 or l2:
            g += l2 * w + l1 * np.sign(w)
        w *= 1 - step.lr * decay
        _change(step, w, g, one, two)


def _change(step: OptimizerStep, w: Array, g: Array, first: Array, second: Array) -> None:
    lr, beta1, beta2, eps = step.lr, step.beta1, step.beta2, step.eps
    if step.rule == "sgd":
        w -= lr * g
    elif step.rule == "momentum":
        first[...] = beta1 * first - lr * g
        w += first
    elif step.rule == "nesterov":
        first[...] = beta1 * first - lr * g
        w += beta1 * first - lr * g
    elif step.rule == "adagrad":
        first += g**2
        w -= lr * g / (np.sqrt(first) + eps)
    elif step.rule == "rmsprop":
        first[...] = beta1 * first + (1 - beta1) * g**2
        w -= lr * g / (np.sqrt(first) + eps)
    else:
        first[...] = beta1 * first + (1 - beta1) * g
        second[...] = beta2 * second + (1 - beta2) * g**2
        mean, square = first / (1 - beta1**step.step), second / (1 - beta2**step.step)
        w -= lr * mean / (np.sqrt(square) + eps)


def sum_of_squares(x: Array) -> float:
    """``sum(x**2)``."""
    with np.errstate(all="ignore"):
        return float(np.square(x, dtype=np.float64).sum())
