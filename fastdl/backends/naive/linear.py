"""The fully connected layer and its gradients, number by number."""

from __future__ import annotations

from ..table import Array
from .loops import positions


def linear(x: Array, weight: Array, bias: Array | None, out: Array) -> None:
    """``out[n,o] = bias[o] + sum_i x[n,i] * weight[o,i]``."""
    for n, o in positions(out.shape):
        total = 0.0 if bias is None else bias.item(o)
        for i in range(x.shape[1]):
            total += x.item(n, i) * weight.item(o, i)
        out[n, o] = total


def linear_grad_input(grad: Array, weight: Array, out: Array) -> None:
    """``out[n,i] = sum_o grad[n,o] * weight[o,i]``."""
    for n, i in positions(out.shape):
        out[n, i] = sum(grad.item(n, o) * weight.item(o, i) for o in range(grad.shape[1]))


def linear_grad_weight(grad: Array, x: Array, out: Array) -> None:
    """``out[o,i] = sum_n grad[n,o] * x[n,i]``."""
    for o, i in positions(out.shape):
        out[o, i] = sum(grad.item(n, o) * x.item(n, i) for n in range(len(grad)))
