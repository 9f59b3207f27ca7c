"""Softmax and its logarithm, row by row."""

from __future__ import annotations

import math
from typing import Any

from numba import types
from numba.extending import intrinsic

from ..table import Array
from .activation import exp, lanes_of
from .arrays import flat
from .compiling import compiled
from .pool import run
from .sums import dot, total
from .vectors import I32, I64, data, load, loop, splat, vector_type

#: Elements of one task, about.
_TASK_SIZE = 8192
#: Vectors of a row that are compared at once.
_VECTORS = 4


@intrinsic
def _largest_of_lanes(typing: Any, row: Any, count: Any, start: Any) -> tuple[Any, Any]:
    """The largest of ``start`` and the whole vectors of ``row`` up to ``count``.

    NaN may be passed over: its exp makes the row's sum NaN.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = vector_type(signature.args[0].dtype, context)
        pointer = data(context, builder, signature.args[0], args[0])
        best = [splat(builder, args[2], vector)] * _VECTORS

        def larger(x: Any, y: Any) -> Any:
            return builder.select(builder.fcmp_ordered(">", x, y), x, y)

        done = I64(0)
        for vectors in (_VECTORS, 1):
            length = I64(vectors * vector.count)
            blocks = builder.sdiv(builder.sub(args[1], done), length)

            def step(index: Any, values: Any, done: Any = done, length: Any = length) -> Any:
                first = builder.add(done, builder.mul(index, length))
                at = builder.gep(pointer, [first])
                return [
                    larger(load(builder, at, I64(v * vector.count), vector), value)
                    for v, value in enumerate(values)
                ]

            best[:vectors] = loop(builder, blocks, best[:vectors], step)
            done = builder.add(done, builder.mul(blocks, length))
        for other in best[1:]:
            best[0] = larger(other, best[0])
        lanes = [builder.extract_element(best[0], I32(lane)) for lane in range(vector.count)]
        result = lanes[0]
        for lane in lanes[1:]:
            result = larger(lane, result)
        return result

    return row.dtype(row, types.intp, row.dtype), generate


@compiled
def _largest(row: Array) -> Any:
    vector = lanes_of(row)
    best = _largest_of_lanes(row, row.size, row[0])
    for j in range(row.size // vector * vector, row.size):
        best = row[j] if row[j] > best else best
    return best


@compiled
def _forward(start: int, stop: int, task_rows: int, logarithm: bool, x: Array, out: Array) -> None:
    kind = x.dtype.type
    for i in range(start * task_rows, min(stop * task_rows, x.shape[0])):
        row, result = x[i], out[i]
        best = _largest(row)
        for j in range(row.size):
            result[j] = exp(row[j] - best)
        whole = total(result)
        if logarithm:
            shift = kind(math.log(whole))
            for j in range(row.size):
                result[j] = (row[j] - best) - shift
        else:
            scale = kind(1 / whole)
            for j in range(row.size):
                result[j] *= scale


@compiled
def _backward(
    start: int, stop: int, task_rows: int, logarithm: bool, grad: Array, y: Array, out: Array
) -> None:
    kind = y.dtype.type
    for i in range(start * task_rows, min(stop * task_rows, y.shape[0])):
        slope, value, result = grad[i], y[i], out[i]
        if logarithm:
            whole = kind(total(slope))
            for j in range(value.size):
                result[j] = slope[j] - exp(value[j]) * whole
        else:
            mean = kind(dot(slope, value))
            for j in range(value.size):
                result[j] = value[j] * (slope[j] - mean)


def _run(kernel: Any, logarithm: bool, *arrays: Array) -> None:
    rows, columns = arrays[0].shape
    task_rows = max(1, _TASK_SIZE // columns)
    two_dimensional = (flat(array).reshape(rows, columns) for array in arrays)
    run(kernel, -(-rows // task_rows), 4 * rows * columns, task_rows, logarithm, *two_dimensional)


def softmax(x: Array, out: Array) -> None:
    """``exp(x - max) / sum(exp(x - max))`` of each row."""
    _run(_forward, False, x, out)


def softmax_backward(grad: Array, y: Array, out: Array) -> None:
    """``y * (grad - sum(grad * y))`` of each row."""
    _run(_backward, False, grad, y, out)


def log_softmax(x: Array, out: Array) -> None:
    """``(x - max) - log(sum(exp(x - max)))`` of each row."""
    _run(_forward, True, x, out)


def log_softmax_backward(grad: Array, y: Array, out: Array) -> None:
    """``grad - exp(y) * sum(grad)`` of each row."""
    _run(_backward, True, grad, y, out)
