"""Activations and their gradients."""

from __future__ import annotations

import numpy as np

from ..table import Activation, Array


@np.errstate(all="ignore")
def add(x: Array, y: Array, activation: Activation, out: Array) -> None:
    """``f(x + y)``."""
    np.add(x, y, out=out)
    activate(activation, out)


def relu(x: Array, out: Array) -> None:
    """``x < 0 ? 0 : x``."""
    np.maximum(x, 0, out=out)


def relu_backward(grad: Array, x: Array, out: Array) -> None:
    """``x <= 0 ? 0 : grad``."""
    out[...] = np.where(x <= 0, 0, grad)


@np.errstate(all="ignore")
def sigmoid(x: Array, out: Array) -> None:
    """``1 / (1 + exp(-x))``, as ``exp(x) / (1 + exp(x))`` where x is negative."""
    small = np.exp(-np.abs(x))
    np.divide(np.where(x < 0, small, 1), 1 + small, out=out)


@np.errstate(all="ignore")
def sigmoid_backward(grad: Array, y: Array, out: Array) -> None:
    """``grad * y * (1 - y)``."""
    np.multiply(grad, y * (1 - y), out=out)


def tanh(x: Array, out: Array) -> None:
    """The hyperbolic tangent."""
    np.tanh(x, out=out)


@np.errstate(all="ignore")
def tanh_backward(grad: Array, y: Array, out: Array) -> None:
    """``grad * (1 - y * y)``."""
    np.multiply(grad, 1 - y * y, out=out)


_FUNCTIONS = {"relu": relu, "sigmoid": sigmoid, "tanh": tanh}


def activate(activation: Activation, out: Array) -> None:
    """Apply the activation of that name in place."""
    if activation is not None:
        _FUNCTIONS[activation](out, out)
