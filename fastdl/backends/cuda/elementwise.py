"""Activations and dropout: each element read once and written once, four at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..table import Activation
from . import scalars
from .arrays import DeviceArray, empty
from .launch import THREADS, blocks_for, entry, kernel
from .target import cuda, load4, quotient, store4


@kernel("T* T* i")
def unary(T: Any, name: str) -> Any:
    """``out = f(x)``. A thread has four elements; the last one what is left over as well."""
    f = getattr(scalars, name)(T)

    def run(x, out, count):
        first = 4 * cuda.grid(1)
        if first + 4 <= count:
            a, b, c, d = load4(x, first)
            store4(out, first, f(a), f(b), f(c), f(d))
        else:
            for e in range(first, count):
                out[e] = f(x[e])

    return run


@kernel("T* T* T* i")
def binary(T: Any, name: str) -> Any:
    """``out = f(x, y)``."""
    f = getattr(scalars, name)(T)

    def run(x, y, out, count):
        first = 4 * cuda.grid(1)
        if first + 4 <= count:
            a, b, c, d = load4(x, first)
            p, q, r, s = load4(y, first)
            store4(out, first, f(a, p), f(b, q), f(c, r), f(d, s))
        else:
            for e in range(first, count):
                out[e] = f(x[e], y[e])

    return run


@kernel("T* T* T* i")
def plus(T: Any, activation: str | None) -> Any:
    """``out = f(x + y)``."""
    f = scalars.activation(T, activation)

    def run(x, y, out, count):
        first = 4 * cuda.grid(1)
        if first + 4 <= count:
            a, b, c, d = load4(x, first)
            p, q, r, s = load4(y, first)
            store4(out, first, f(a + p), f(b + q), f(c + r), f(d + s))
        else:
            for e in range(first, count):
                out[e] = f(x[e] + y[e])

    return run


@kernel("T* b* T T* i")
def masked(T: Any) -> Any:
    """``out = mask ? x * scale : 0``."""
    zero = T(0)

    def run(x, mask, scale, out, count):
        first = 4 * cuda.grid(1)
        if first + 4 <= count:
            a, b, c, d = load4(x, first)
            store4(
                out,
                first,
                a * scale if mask[first] else zero,
                b * scale if mask[first + 1] else zero,
                c * scale if mask[first + 2] else zero,
                d * scale if mask[first + 3] else zero,
            )
        else:
            for e in range(first, count):
                out[e] = x[e] * scale if mask[e] else zero

    return run


@kernel("T* T* T* T i")
def sloped(T: Any) -> Any:
    """``out = x > 0 ? values : slope * values``."""
    zero = T(0)

    def run(values, x, out, slope, count):
        e = cuda.grid(1)
        if e < count:
            out[e] = values[e] if x[e] > zero else slope * values[e]

    return run


@kernel("T* T i")
def adjust(T: Any, name: str) -> Any:
    """In place, by a number: times it; into ``[-number, number]``; nearer to zero by it."""
    zero = T(0)

    def run(x, number, count):
        e = cuda.grid(1)
        if e < count:
            value = x[e]
            if name == "scale":
                value *= number
            elif name == "clip":
                value = number if value > number else (-number if value < -number else value)
            elif value == value:  # shrink
                size = (-value if value < zero else value) - number
                size = size if size > zero else zero
                value = -size if value < zero else size
            x[e] = value

    return run


@kernel("T* T* i i i")
def add_bias(T: Any) -> Any:
    """``out[n, c, e] += bias[c]``, in place."""

    def run(out, bias, count, channels, inner):
        e = np.int32(cuda.grid(1))
        if e < count:
            out[e] += bias[quotient(e, inner) % channels]

    return run


@kernel("T* T* T* T T T i")
def penalised(T: Any) -> Any:
    """``out = scale * grad + strength * sign(w) * |w|**power``."""
    zero, one = T(0), T(1)

    def run(grad, w, out, scale, strength, power, count):
        e = cuda.grid(1)
        if e < count:
            value = w[e]
            size = -value if value < zero else value
            sign = one if value > zero else (-one if value < zero else value)
            out[e] = scale * grad[e] + strength * sign * size**power

    return run


def _blocks(count: int) -> int:
    return blocks_for(-(-count // 4))


def _unary(name: str) -> Any:
    @entry("out")
    def call(x: DeviceArray, out: DeviceArray) -> None:
        unary(x.dtype, name)(_blocks(x.size), THREADS, x, out, x.size)

    return call


def _binary(name: str, second: str) -> Any:
    def call(grad: DeviceArray, x: DeviceArray, out: DeviceArray) -> None:
        binary(grad.dtype, name)(_blocks(grad.size), THREADS, grad, x, out, grad.size)

    def of_result(grad: DeviceArray, y: DeviceArray, out: DeviceArray) -> None:
        call(grad, y, out)

    return entry("out")(call if second == "x" else of_result)


relu, sigmoid, tanh = map(_unary, ("relu", "sigmoid", "hyperbolic_tangent"))
relu_backward = _binary("relu_backward", "x")
sigmoid_backward = _binary("sigmoid_backward", "y")
tanh_backward = _binary("hyperbolic_tangent_backward", "y")


@entry("out")
def dropout(x: DeviceArray, mask: DeviceArray, scale: float, out: DeviceArray) -> None:
    """``x * scale`` where mask is true, else 0."""
    masked(x.dtype)(_blocks(x.size), THREADS, x, mask, scale, out, x.size)


@entry("out")
def add(x: DeviceArray, y: DeviceArray, activation: Activation, out: DeviceArray) -> None:
    """``f(x + y)``."""
    plus(x.dtype, activation)(_blocks(x.size), THREADS, x, y, out, x.size)


def leaky_relu(values: DeviceArray, x: DeviceArray, slope: float, out: DeviceArray) -> None:
    """``values``, times the slope where x is not positive."""
    sloped(x.dtype)(blocks_for(x.size), THREADS, values, x, out, slope, x.size)


def adjusted(name: str, x: DeviceArray, number: float) -> None:
    """``scale``, ``clip`` or ``shrink`` x in place; see `adjust`."""
    adjust(x.dtype, name)(blocks_for(x.size), THREADS, x, number, x.size)


def add_channels(out: DeviceArray, bias: DeviceArray) -> None:
    """``out[n, c, ...] += bias[c]``, in place."""
    inner = out.size // max(out.shape[0] * out.shape[1], 1)
    add_bias(out.dtype)(blocks_for(out.size), THREADS, out, bias, out.size, out.shape[1], inner)


def with_power_penalty(
    grad: DeviceArray, w: DeviceArray, scale: float, strength: float, power: float
) -> DeviceArray:
    """``scale * grad + strength * sign(w) * |w|**power``."""
    out = empty(w.shape, w.dtype, w)
    penalised(w.dtype)(blocks_for(w.size), THREADS, grad, w, out, scale, strength, power, w.size)
    return out
