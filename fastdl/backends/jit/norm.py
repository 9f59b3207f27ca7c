"""Batch normalisation of x (N, C, S): a task is a channel, so its data is in cache the second time.

`norm_rows` has the passes over one row.
"""

from __future__ import annotations

import math

import numpy as np

from ..common import scale_and_shift
from ..table import Activation, Array
from .activation import CODES, NONE, RELU, activate, lanes_of, relu_backward
from .arrays import flat
from .compiling import compiled
from .norm_rows import CHUNK, add_deviations, add_products, add_sum, grad_row, scale_row
from .pool import run
from .rows import goes_past


@compiled
def _scale_channel(
    x: Array, size: int, channels: int, c: int, mean: float, scale: float, shift: float,
    activation: int, past: bool, out: Array,
) -> None:  # fmt: skip
    """The last image first: the cache still holds it, if it was read just before."""
    lowest = x.dtype.type(0 if activation == RELU else -np.inf)
    for first in range(x.size // size - channels + c, -1, -channels):
        at = first * size
        scale_row(x, at, size, mean, scale, shift, lowest, out, past)
        if activation not in (NONE, RELU):
            activate(activation, out[at : at + size])


@compiled
def _sum_lanes(totals: Array) -> tuple[float, float]:
    """The sums of the two halves of totals."""
    half = totals.size // 2
    first, second = 0.0, 0.0
    for lane in range(half):
        first += totals[lane]
        second += totals[half + lane]
    return first, second


@compiled
def _train(
    start: int, stop: int, x: Array, size: int, weight: Array, bias: Array, eps: float,
    activation: int, past: bool, out: Array, mean: Array, var: Array,
) -> None:  # fmt: skip
    """Tasks are channels of x (N, C, S), flat."""
    kind, channels = x.dtype.type, mean.size
    count = x.size // channels
    totals = np.empty(2 * lanes_of(x), np.float64)
    for c in range(start, stop):
        totals[:] = 0.0
        for at in range(c * size, x.size, channels * size):
            for first in range(0, size, CHUNK):
                add_sum(x, at + first, min(CHUNK, size - first), totals)
        center = kind(_sum_lanes(totals)[0] / count)
        totals[:] = 0.0
        for at in range(x.size - (channels - c) * size, -1, -channels * size):
            for first in range(0, size, CHUNK):
                add_deviations(x, at + first, min(CHUNK, size - first), center, totals)
        plain, square = _sum_lanes(totals)
        # What the rounded mean lacks.
        rest = plain / count
        spread = square / count - rest * rest
        spread = 0.0 if spread < 0 else spread
        mean[c] = center + rest
        var[c] = spread
        scale = weight[c] / math.sqrt(spread + eps)
        shift = kind(bias[c] - rest * scale)
        _scale_channel(x, size, channels, c, center, kind(scale), shift, activation, past, out)


@compiled
def _normalize(
    start: int, stop: int, x: Array, size: int, mean: Array, scale: Array, shift: Array,
    activation: int, past: bool, out: Array,
) -> None:  # fmt: skip
    for c in range(start, stop):
        _scale_channel(x, size, mean.size, c, mean[c], scale[c], shift[c], activation, past, out)


@compiled
def _backward(
    start: int, stop: int, grad: Array, x: Array, size: int, mean: Array, inv_std: Array,
    weight: Array, training: bool, past: bool, grad_x: Array, grad_weight: Array, grad_bias: Array,
) -> None:  # fmt: skip
    kind, channels = x.dtype.type, mean.size
    count = x.size // channels
    totals = np.empty(2 * lanes_of(x), np.float64)
    for c in range(start, stop):
        center = mean[c]
        totals[:] = 0.0
        for at in range(c * size, x.size, channels * size):
            for first in range(0, size, CHUNK):
                add_products(grad, x, at + first, min(CHUNK, size - first), center, totals)
        sum_grad, sum_product = _sum_lanes(totals)
        sum_product *= inv_std[c]
        grad_bias[c] = sum_grad
        grad_weight[c] = sum_product
        scale = weight[c] * inv_std[c]
        # Training: grad - sum_grad / M - x_hat * sum_product / M, with M = N * S.
        share = kind(sum_grad / count)
        slope = kind(inv_std[c] * sum_product / count)
        for at in range(x.size - (channels - c) * size, -1, -channels * size):
            if training:
                grad_row(grad, x, at, size, share, center, slope, scale, grad_x, past)
            else:
                # The mean is given, and so is the variance: x does not matter.
                scale_row(grad, at, size, kind(0), scale, kind(0), kind(-np.inf), grad_x, past)


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
        _train, x.shape[1], x.size, flat(x), x.shape[2], _or_filled(weight, 1, mean),
        _or_filled(bias, 0, mean), float(eps), CODES[activation], goes_past(out, x.shape[2]), flat(out), flat(mean), flat(var),
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
        _normalize, x.shape[1], x.size, flat(x), x.shape[2], flat(mean), flat(scale), flat(shift),
        CODES[activation], goes_past(out, x.shape[2]), flat(out),
    )  # fmt: skip


def batch_norm_backward(
    grad: Array,
    x: Array,
    mean: Array,
    inv_std: Array,
    weight: Array | None,
    training: bool,
    y: Array | None,
    grad_x: Array,
    grad_weight: Array,
    grad_bias: Array,
) -> None:
    """``grad_x = weight * inv_std * (grad - grad_bias / M - x_hat * grad_weight / M)``."""
    if y is not None:
        activated, grad = grad, np.empty_like(grad)
        relu_backward(activated, y, grad)
    run(
        _backward, x.shape[1], 2 * x.size, flat(grad), flat(x), x.shape[2], flat(mean), flat(inv_std),
        _or_filled(weight, 1, mean), bool(training), goes_past(grad_x, x.shape[2]), flat(grad_x), grad_weight, grad_bias,
    )  # fmt: skip
