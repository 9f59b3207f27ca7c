"""Elementwise functions, and the one applied to a kernel's result while it is still in cache."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic, overload

from ..table import Activation, Array
from .arrays import flat
from .compiling import compiled, contracted
from .pool import run
from .rows import Row, goes_past
from .vectors import I64, lanes, mangled

#: Codes of the activations inside of kernels.
NONE, RELU, SIGMOID, TANH = range(4)
CODES: dict[Activation, int] = {None: NONE, "relu": RELU, "sigmoid": SIGMOID, "tanh": TANH}

#: Elements of one task.
BLOCK = 16384

# exp(x) = 2**n * exp(r), n = round(x / ln 2), r = x - n ln 2 in two parts, |r| <= 0.35, where eight
# terms of the series leave 1e-7. Without branches, so that LLVM vectorises it.
_MAGIC = np.float32(1.5 * 2**23)  # adding it rounds to an integer, kept in the low bits
_MAGIC_BITS = _MAGIC.view(np.int32)
_LOG2_E = np.float32(1 / math.log(2))
_LN2_HIGH = np.float32(0.693359375)
_LN2_LOW = np.float32(math.log(2) - 0.693359375)
_LOWEST, _HIGHEST = np.float32(-104), np.float32(89)
_EXP = np.array([1 / math.factorial(i) for i in range(8)], np.float32)


@contracted
def _exp_float32(x: Any) -> Any:
    """exp(x) in float32, within 2e-7 of it."""
    x = _LOWEST if x < _LOWEST else x  # comparisons that let NaN through
    x = _HIGHEST if x > _HIGHEST else x
    shifted = x * _LOG2_E + _MAGIC
    n = shifted - _MAGIC
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    series = _EXP[7]
    for i in range(6, -1, -1):
        series = series * r + _EXP[i]
    exponent: Any = np.int32(np.float32(shifted).view(np.int32) - _MAGIC_BITS)
    # 2**n in two factors: n alone may be beyond a float32's exponent.
    half: Any = np.int32(exponent >> 1)
    first = np.int32((half + 127) << 23).view(np.float32)
    second = np.int32((exponent - half + 127) << 23).view(np.float32)
    return series * first * second


@contracted
def _tanh_float32(x: Any) -> Any:
    """tanh(x): near 0 Lambert's continued fraction, cut after the 9, else from exp(-2 |x|)."""
    z = x * x
    near = (
        x
        * (np.float32(945) + z * (np.float32(105) + z))
        / (np.float32(945) + z * (np.float32(420) + np.float32(15) * z))
    )
    small = _exp_float32(np.float32(-2) * abs(x))
    far = np.float32(math.copysign((np.float32(1) - small) / (np.float32(1) + small), x))
    return near if abs(x) < np.float32(0.625) else far


def exp(x: float) -> float:
    """Exp in x's precision."""
    return math.exp(x)


def _tanh(x: float) -> float:
    return math.tanh(x)


def _by_precision(function: Any, in_float32: Any) -> None:
    """Let kernels that call ``function`` on a float32 call ``in_float32`` instead."""
    in_float64 = compiled(function)

    def _float32(x: Any) -> Any:
        return in_float32(x)

    def _float64(x: Any) -> Any:
        return in_float64(x)

    def _choose(x: Any) -> Any:
        return _float32 if x == types.float32 else _float64

    overload(function)(_choose)


_by_precision(exp, _exp_float32)
_by_precision(_tanh, _tanh_float32)


@intrinsic
def rectify(
    typing: Any, x: Any, at: Any, count: Any, out: Any, past: Any
) -> tuple[Any, Callable[..., Any]]:
    """``out[at + i] = 0 if x[at + i] < 0 else x[at + i]``; out may be x.

    A choice between 0 and what is there already would become a store of some lanes, which takes
    many cycles on some processors; what is behind a fence is not known to be what is there.
    """
    size = types.intp

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        row = Row(context, builder, signature.args[0].dtype, args[2])
        source = row.at(signature.args[0], args[0], args[1])
        target = row.at(signature.args[3], args[3], args[1])
        zero = ir.Constant(row.vector, None)
        fence = get_or_insert_function(
            builder.module, ir.FunctionType(row.vector, [row.vector]),
            f"llvm.arithmetic.fence.{mangled(row.vector)}",
        )  # fmt: skip

        def compute(first: Any, mask: Any) -> Any:
            value = builder.call(fence, [row.read(source, first, mask)])
            return builder.select(builder.fcmp_ordered("<", value, zero), zero, value)

        row.each(target, args[4], compute)
        return context.get_dummy_value()

    return types.void(x, size, size, out, types.boolean), generate


@intrinsic
def lanes_of(typing: Any, values: Any) -> tuple[Any, Callable[..., Any]]:
    """Elements of a vector of values."""
    count = lanes(str(values.dtype))
    return types.intp(values), lambda context, builder, signature, args: I64(count)


@compiled
def _sigmoid(x: Any) -> Any:
    one = type(x)(1)
    # exp of a negative number only: it cannot overflow.
    small = exp(-abs(x))
    return (small if x < 0 else one) / (one + small)


@compiled
def activate(kind: int, values: Array) -> None:
    """``values = f(values)``, one dimension, in place."""
    if kind == RELU:
        rectify(values, 0, values.size, values, False)
    elif kind == SIGMOID:
        for i in range(values.size):
            values[i] = _sigmoid(values[i])
    elif kind == TANH:
        for i in range(values.size):
            values[i] = _tanh(values[i])


@compiled
def _apply(kind: int, source: Array, target: Array) -> None:
    """``target = f(source)`` of a sigmoid or tanh; they do not overlap."""
    if kind == SIGMOID:
        for i in range(source.size):
            target[i] = _sigmoid(source[i])
    else:
        for i in range(source.size):
            target[i] = _tanh(source[i])


@compiled
def _forward(
    start: int, stop: int, kind: int, in_place: bool, past: bool, x: Array, out: Array
) -> None:
    first, last = start * BLOCK, min(stop * BLOCK, x.size)
    if kind == RELU:
        rectify(x, first, last - first, out, past)
    elif in_place:
        activate(kind, out[first:last])
    else:
        _apply(kind, x[first:last], out[first:last])


@compiled
def _backward(start: int, stop: int, kind: int, grad: Array, y: Array, out: Array) -> None:
    """From y, the activation's result; for RELU its argument does as well."""
    first, last = start * BLOCK, min(stop * BLOCK, y.size)
    block, slope, result = out[first:last], grad[first:last], y[first:last]
    zero, one = y.dtype.type(0), y.dtype.type(1)
    if kind == RELU:
        for i in range(block.size):
            block[i] = zero if result[i] <= 0 else slope[i]
    elif kind == SIGMOID:
        for i in range(block.size):
            block[i] = slope[i] * result[i] * (one - result[i])
    else:
        for i in range(block.size):
            block[i] = slope[i] * (one - result[i] * result[i])


@compiled
def _add(start: int, stop: int, kind: int, x: Array, y: Array, out: Array) -> None:
    first, last = start * BLOCK, min(stop * BLOCK, x.size)
    block, one, other = out[first:last], x[first:last], y[first:last]
    for i in range(block.size):
        block[i] = one[i] + other[i]
    activate(kind, block)


def blocks(size: int) -> int:
    """Tasks of an elementwise kernel."""
    return -(-size // BLOCK)


def _run_forward(kind: int, x: Array, out: Array) -> None:
    in_place = x.ctypes.data == out.ctypes.data
    past = not in_place and goes_past(out, BLOCK)
    run(_forward, blocks(x.size), x.size, kind, in_place, past, flat(x), flat(out))


def _run_backward(kind: int, grad: Array, y: Array, out: Array) -> None:
    run(_backward, blocks(y.size), y.size, kind, flat(grad), flat(y), flat(out))


def add(x: Array, y: Array, activation: Activation, out: Array) -> None:
    """``f(x + y)``."""
    run(_add, blocks(x.size), x.size, CODES[activation], flat(x), flat(y), flat(out))


def relu(x: Array, out: Array) -> None:
    """``max(x, 0)``, with NaN as it is."""
    _run_forward(RELU, x, out)


def relu_backward(grad: Array, x: Array, out: Array) -> None:
    """``x <= 0 ? 0 : grad``."""
    _run_backward(RELU, grad, x, out)


def sigmoid(x: Array, out: Array) -> None:
    """``1 / (1 + exp(-x))``."""
    _run_forward(SIGMOID, x, out)


def sigmoid_backward(grad: Array, y: Array, out: Array) -> None:
    """``grad * y * (1 - y)``."""
    _run_backward(SIGMOID, grad, y, out)


def tanh(x: Array, out: Array) -> None:
    """The hyperbolic tangent."""
    _run_forward(TANH, x, out)


def tanh_backward(grad: Array, y: Array, out: Array) -> None:
    """``grad * (1 - y * y)``."""
    _run_backward(TANH, grad, y, out)
