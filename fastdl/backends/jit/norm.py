"""Batch normalisation of x (N, C, S): a task is a channel, so its data is in cache the second time.

Statistics are summed as `sums` says, images in float64.
"""

from __future__ import annotations

import math

import numpy as np

from ..common import scale_and_shift
from ..table import Activation, Array
from .activation import CODES, RELU, activate
from .arrays import dense, flat
from .compiling import compiled
from .pool import run
from .sums import deviations, dot_deviations, total


@compiled
def _scale_channel(
    x: Array, c: int, mean: float, scale: float, shift: float, activation: int, out: Array
) -> None:
    """The last image first: the cache still holds it, if it was read just before."""
    for n in range(x.shape[0] - 1, -1, -1):
        row, result = x[n, c], out[n, c]
        if activation == RELU:
            for s in range(row.size):
                value = (row[s] - mean) * scale + shift
                result[s] = x.dtype.type(0) if value < 0 else value
            continue
        for s in range(row.size):
            result[s] = (row[s] - mean) * scale + shift
        activate(activation, result)


@compiled
def _train(
    start: int, stop: int, x: Array, weight: Array, bias: Array, eps: float, activation: int,
    out: Array, mean: Array, var: Array,
) -> None:  # fmt: skip
    kind = x.dtype.type
    count = x.shape[0] * x.shape[2]
    for c in range(start, stop):
        summed = 0.0
        for n in range(x.shape[0]):
            summed += total(x[n, c])
        center = kind(summed / count)
        first, second = 0.0, 0.0
        for n in range(x.shape[0] - 1, -1, -1):
            plain, square = deviations(x[n, c], center)
            first += plain
            second += square
        # What the rounded mean lacks.
        rest = first / count
        spread = second / count - rest * rest
        spread = 0.0 if spread < 0 else spread
        mean[c] = center + rest
        var[c] = spread
        scale = weight[c] / math.sqrt(spread + eps)
        shift = kind(bias[c] - rest * scale)
        _scale_channel(x, c, center, kind(scale), shift, activation, out)


@compiled
def _normalize(
    start: int, stop: int, x: Array, mean: Array, scale: Array, shift: Array, activation: int,
    out: Array,
) -> None:  # fmt: skip
    for c in range(start, stop):
        _scale_channel(x, c, mean[c], scale[c], shift[c], activation, out)


@compiled
def _backward(
    start: int, stop: int, grad: Array, x: Array, mean: Array, inv_std: Array, weight: Array,
    training: bool, grad_x: Array, grad_weight: Array, grad_bias: Array,
) -> None:  # fmt: skip
    kind = x.dtype.type
    count = x.shape[0] * x.shape[2]
    for c in range(start, stop):
        center = mean[c]
        sum_grad, sum_product = 0.0, 0.0
        for n in range(x.shape[0]):
            plain, product = dot_deviations(grad[n, c], x[n, c], center)
            sum_grad += plain
            sum_product += product
        sum_product *= inv_std[c]
        grad_bias[c] = sum_grad
        grad_weight[c] = sum_product
        scale = weight[c] * inv_std[c]
        # Training: grad - sum_grad / M - x_hat * sum_product / M, with M = N * S.
        share = kind(sum_grad / count) if training else kind(0)
        slope = kind(inv_std[c] * sum_product / count) if training else kind(0)
        for n in range(x.shape[0] - 1, -1, -1):
            row, source, result = grad[n, c], x[n, c], grad_x[n, c]
            if training:
                for s in range(row.size):
                    result[s] = ((row[s] - share) - (source[s] - center) * slope) * scale
            else:
                for s in range(row.size):
                    result[s] = row[s] * scale


def _or_filled(array: Array | None, value: float, like: Array) -> Array:
    """A channel parameter, ``value`` everywhere if it is None."""
    return np.full(like.shape, value, like.dtype) if array is None else flat(array)


def batch_norm_train(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    eps: float,
    activation: Activation,
    out: Array,
    mean: Array,
    var: Array,
) -> None:
    """``out = f((x - mean) / sqrt(var + eps) * weight + bias)``, with x's own mean and variance."""
    run(
        _train, x.shape[1], x.size, dense(x), _or_filled(weight, 1, mean),
        _or_filled(bias, 0, mean), float(eps), CODES[activation], out, mean, var,
    )  # fmt: skip


def normalize(
    x: Array,
    mean: Array,
    var: Array,
    weight: Array | None,
    bias: Array | None,
    eps: float,
    activation: Activation,
    out: Array,
) -> None:
    """``out = f((x - mean) / sqrt(var + eps) * weight + bias)``, with a given mean and variance."""
    scale, shift = scale_and_shift(var, weight, bias, eps)
    run(
        _normalize, x.shape[1], x.size, dense(x), flat(mean), flat(scale), flat(shift),
        CODES[activation], out,
    )  # fmt: skip


def batch_norm_backward(
    grad: Array,
    x: Array,
    mean: Array,
    inv_std: Array,
    weight: Array | None,
    training: bool,
    grad_x: Array,
    grad_weight: Array,
    grad_bias: Array,
) -> None:
    """``grad_x = weight * inv_std * (grad - grad_bias / M - x_hat * grad_weight / M)``."""
    run(
        _backward, x.shape[1], 2 * x.size, dense(grad), dense(x), flat(mean), flat(inv_std),
        _or_filled(weight, 1, mean), bool(training), grad_x, grad_weight, grad_bias,
    )  # fmt: skip
