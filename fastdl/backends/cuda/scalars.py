"""What kernels compute of single numbers: device functions, one set for each dtype."""

from __future__ import annotations

from functools import cache
from typing import Any

from .target import device, exp, tanh


@cache
def relu(T: Any) -> Any:
    """``x < 0 ? 0 : x``."""
    zero = T(0)

    @device
    def function(x):
        return zero if x < zero else x

    return function


@cache
def relu_backward(T: Any) -> Any:
    """``x <= 0 ? 0 : grad``."""
    zero = T(0)

    @device
    def function(grad, x):
        return zero if x <= zero else grad

    return function


@cache
def sigmoid(T: Any) -> Any:
    """``1 / (1 + exp(-x))``: an infinite exponential gives 0."""
    one = T(1)

    @device
    def function(x):
        return one / (one + exp(-x))

    return function


@cache
def sigmoid_backward(T: Any) -> Any:
    """``grad * y * (1 - y)``."""
    one = T(1)

    @device
    def function(grad, y):
        return grad * (y * (one - y))

    return function


@cache
def hyperbolic_tangent(T: Any) -> Any:
    """The hyperbolic tangent."""

    @device
    def function(x):
        return tanh(x)

    return function


@cache
def hyperbolic_tangent_backward(T: Any) -> Any:
    """``grad * (1 - y * y)``."""
    one = T(1)

    @device
    def function(grad, y):
        return grad * (one - y * y)

    return function


@cache
def identity(T: Any) -> Any:
    """``x``."""

    @device
    def function(x):
        return x

    return function


def activation(T: Any, name: str | None) -> Any:
    """The activation of that name."""
    functions = {
        None: identity, "relu": relu, "sigmoid": sigmoid, "tanh": hyperbolic_tangent
    }  # fmt: skip
    return functions[name](T)
