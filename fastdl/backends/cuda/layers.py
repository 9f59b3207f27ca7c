"""What the CPU backends leave to NumPy, for arrays on a GPU.

`fastdl.functional.on_device` calls them, with arguments that are checked and dense.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..table import Activation
from . import conv, norm
from .arrays import DeviceArray, empty, to_device
from .conv import Product
from .cublas import Matrix, matrix_product
from .elementwise import add_channels
from .gemm import packed_weight
from .launch import entry


def batch_norm(
    x: DeviceArray,
    running_mean: DeviceArray | None,
    running_var: DeviceArray | None,
    weight: DeviceArray | None,
    bias: DeviceArray | None,
    training: bool,
    momentum: float,
    eps: float,
    activation: Activation,
    out: DeviceArray,
) -> tuple[DeviceArray, DeviceArray]:
    """Normalise x (N, C, S); the mean and the inverse deviation that were taken."""
    batch, channels, size = x.shape

    def vector() -> DeviceArray:
        return empty((channels,), x.dtype, x)

    if training and not x.size:
        nothing = to_device(np.full(channels, np.nan, x.dtype), x.device)
        return nothing, nothing.copy()
    if training:
        mean, var = vector(), vector()
        norm.batch_norm_train(x, weight, bias, eps, activation, out, mean, var)
        inv_std = vector()
        norm.batch_norm_track(
            mean, var, batch * size, momentum, eps, running_mean, running_var, inv_std
        )
        return mean, inv_std
    assert running_mean is not None
    assert running_var is not None
    mean, var = running_mean.copy(), running_var
    inv_std, scale, shift = norm.factors(var, weight, bias, eps)
    norm.scale_and_shift(x, mean, scale, shift, activation, out)
    return mean, inv_std


@entry("out")
def linear(x: DeviceArray, weight: DeviceArray, bias: DeviceArray | None, out: DeviceArray) -> None:
    """``out = x @ weight.T + bias``: x (R, I), weight (O, I)."""
    rows, inputs = x.shape
    outputs = weight.shape[0]
    if not _by_cublas(Matrix(x, inputs), Matrix(weight, inputs, True), inputs, out):
        _product(x, (inputs, 1), _transposed(weight), out)
    if bias is not None:
        add_channels(out.reshape(rows, outputs, 1), bias)


@entry("out")
def linear_grad_input(grad: DeviceArray, weight: DeviceArray, out: DeviceArray) -> None:
    """``out = grad @ weight``."""
    outputs, inputs = weight.shape
    if not _by_cublas(Matrix(grad, outputs), Matrix(weight, inputs), outputs, out):
        _product(grad, (outputs, 1), weight, out)


@entry("out")
def linear_grad_weight(grad: DeviceArray, x: DeviceArray, out: DeviceArray) -> None:
    """``out = grad.T @ x``."""
    outputs, inputs = out.shape
    if not _by_cublas(Matrix(grad, outputs, True), Matrix(x, inputs), x.shape[0], out):
        _product(grad, (1, outputs), x, out)


def linear_grad_bias(grad: DeviceArray, out: DeviceArray) -> None:
    """Sum of the rows of grad."""
    norm.channel_sum(grad.reshape(*grad.shape, 1), out)


def _by_cublas(left: Matrix, right: Matrix, depth: int, out: DeviceArray) -> bool:
    """Whether cuBLAS is here, and computed ``out = left @ right``."""
    if not (out.size and depth):
        return False
    rows, columns = out.shape
    return matrix_product(left, right, Matrix(out, columns), (rows, depth, columns))


def _transposed(matrix: DeviceArray) -> DeviceArray:
    """A copy of ``matrix`` with rows and columns exchanged."""
    rows, columns = matrix.shape
    taps = conv._device_taps(_rows_of, (1, 0, columns, 0), 1, matrix.device)
    return packed_weight(matrix, taps, 1, rows, rows, 0, columns).reshape(columns, rows)


def _rows_of(key: tuple[int, int, int, int]) -> Any:
    """Taps of a matrix product: row k of B is ``k * step_b`` on, of A ``k * step_a``."""
    step_a, step_b, depth, _ = key
    k = np.arange(depth)
    return np.stack([k * step_b, 0 * k, 0 * k, k * step_a], axis=1)


def _product(
    left: DeviceArray, steps: tuple[int, int], right: DeviceArray, out: DeviceArray
) -> None:
    """``out[m][p] = sum_k left[m][k] * right[k][p]``; left's steps in m and in k are given."""
    rows, columns = out.shape
    depth = right.shape[0]
    if not out.size:
        return
    straight = columns % 4 == 0
    plan = Product(
        depth, 1, rows, 0, steps[0], columns, 1, columns, 1, 1, 0, 0, 1, columns, 0, 0, 0, columns,
        columns, 1, 1, 0, 0, straight, straight,
    )  # fmt: skip
    conv.multiply(plan, _rows_of, (steps[1], columns, depth, 0), left, right, None, None, out)
