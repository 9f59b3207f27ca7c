"""Activations and their gradients, number by number."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..table import Activation, Array


def _identity(x: float) -> float:
    return x


def _relu(x: float) -> float:
    return 0.0 if x < 0 else x


def _sigmoid(x: float) -> float:
    # exp of a negative number cannot overflow.
    return math.exp(x) / (1 + math.exp(x)) if x < 0 else 1 / (1 + math.exp(-x))


FUNCTIONS: dict[Activation, Callable[[float], float]] = {
    None: _identity,
    "relu": _relu,
    "sigmoid": _sigmoid,
    "tanh": math.tanh,
}


def add(x: Array, y: Array, activation: Activation, out: Array) -> None:
    """``f(x + y)``."""
    function = FUNCTIONS[activation]
    for p in range(x.size):
        out.flat[p] = function(x.item(p) + y.item(p))


def relu(x: Array, out: Array) -> None:
    """``x < 0 ? 0 : x``."""
    _map(_relu, x, out)


def relu_backward(grad: Array, x: Array, out: Array) -> None:
    """``x <= 0 ? 0 : grad``."""
    for p in range(x.size):
        out.flat[p] = 0.0 if x.item(p) <= 0 else grad.item(p)


def sigmoid(x: Array, out: Array) -> None:
    """``1 / (1 + exp(-x))``."""
    _map(_sigmoid, x, out)


def sigmoid_backward(grad: Array, y: Array, out: Array) -> None:
    """``grad * y * (1 - y)``."""
    for p in range(y.size):
        out.flat[p] = grad.item(p) * y.item(p) * (1 - y.item(p))


def tanh(x: Array, out: Array) -> None:
    """The hyperbolic tangent."""
    _map(math.tanh, x, out)


def tanh_backward(grad: Array, y: Array, out: Array) -> None:
    """``grad * (1 - y * y)``."""
    for p in range(y.size):
        out.flat[p] = grad.item(p) * (1 - y.item(p) * y.item(p))


def _map(function: Callable[[float], float], x: Array, out: Array) -> None:
    for p in range(x.size):
        out.flat[p] = function(x.item(p))
