"""Softmax and its logarithm, row by row."""

from __future__ import annotations

import math
from typing import Any

from ..table import Array
from .activation import exp
from .arrays import flat
from .compiling import compiled, reduction
from .pool import run
from .sums import dot, total

#: Elements of one task, about.
_TASK_SIZE = 8192


@reduction
def _largest(row: Array) -> Any:
    best = row[0]
    for j in range(1, row.size):
        # NaN may be passed over: its exp makes the row's sum NaN.
        best = max(best, row[j])
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
