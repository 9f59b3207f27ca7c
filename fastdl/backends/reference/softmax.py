"""Softmax and its logarithm, of each row of x (rows, columns)."""

from __future__ import annotations

import numpy as np

from ..table import Array


@np.errstate(all="ignore")
def softmax(x: Array, out: Array) -> None:
    """``exp(x - max) / sum(exp(x - max))``."""
    np.exp(x - x.max(axis=1, keepdims=True), out=out)
    out /= out.sum(axis=1, keepdims=True)


@np.errstate(all="ignore")
def softmax_backward(grad: Array, y: Array, out: Array) -> None:
    """``y * (grad - sum(grad * y))``."""
    np.multiply(y, grad - (grad * y).sum(axis=1, keepdims=True), out=out)


@np.errstate(all="ignore")
def log_softmax(x: Array, out: Array) -> None:
    """``(x - max) - log(sum(exp(x - max)))``."""
    np.subtract(x, x.max(axis=1, keepdims=True), out=out)
    out -= np.log(np.exp(out).sum(axis=1, keepdims=True))


@np.errstate(all="ignore")
def log_softmax_backward(grad: Array, y: Array, out: Array) -> None:
    """``grad - exp(y) * sum(grad)``."""
    np.subtract(grad, np.exp(y) * grad.sum(axis=1, keepdims=True), out=out)
