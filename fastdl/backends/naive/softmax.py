"""Softmax and its logarithm, row by row of x (rows, columns)."""

from __future__ import annotations

import math

from ..table import Array


def softmax(x: Array, out: Array) -> None:
    """``exp(x - max) / sum(exp(x - max))``."""
    rows, columns = x.shape
    for r in range(rows):
        largest = max(x.item(r, k) for k in range(columns))
        exponentials = [math.exp(x.item(r, k) - largest) for k in range(columns)]
        total = sum(exponentials)
        for k in range(columns):
            out[r, k] = exponentials[k] / total


def softmax_backward(grad: Array, y: Array, out: Array) -> None:
    """``y * (grad - sum(grad * y))``."""
    rows, columns = y.shape
    for r in range(rows):
        dot = sum(grad.item(r, k) * y.item(r, k) for k in range(columns))
        for k in range(columns):
            out[r, k] = y.item(r, k) * (grad.item(r, k) - dot)


def log_softmax(x: Array, out: Array) -> None:
    """``(x - max) - log(sum(exp(x - max)))``."""
    rows, columns = x.shape
    for r in range(rows):
        largest = max(x.item(r, k) for k in range(columns))
        log_total = math.log(sum(math.exp(x.item(r, k) - largest) for k in range(columns)))
        for k in range(columns):
            out[r, k] = x.item(r, k) - largest - log_total


def log_softmax_backward(grad: Array, y: Array, out: Array) -> None:
    """``grad - exp(y) * sum(grad)``."""
    rows, columns = y.shape
    for r in range(rows):
        total = sum(grad.item(r, k) for k in range(columns))
        for k in range(columns):
            out[r, k] = grad.item(r, k) - math.exp(y.item(r, k)) * total
