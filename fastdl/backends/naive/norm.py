"""Batch normalisation of x (N, C, S), channel by channel, in two passes."""

from __future__ import annotations

import math

import numpy as np

from ..common import scale_and_shift
from ..table import Activation, Array
from .activation import FUNCTIONS, relu_backward
from .loops import positions


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
    batch, channels, size = x.shape
    for c in range(channels):
        values = [x.item(n, c, s) for n, s in positions((batch, size))]
        average = sum(values) / len(values)
        variance = sum((value - average) ** 2 for value in values) / len(values)
        mean[c], var[c] = average, variance
        scale = (1.0 if weight is None else weight.item(c)) * _inverse_root(variance + eps)
        shift = 0.0 if bias is None else bias.item(c)
        for n, s in positions((batch, size)):
            value = (x.item(n, c, s) - average) * scale + shift
            out[n, c, s] = FUNCTIONS[activation](value)


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
    for n, c, s in positions(x.shape):
        value = (x.item(n, c, s) - mean.item(c)) * scale.item(c) + shift.item(c)
        out[n, c, s] = FUNCTIONS[activation](value)


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
    batch, channels, size = x.shape
    count = batch * size
    for c in range(channels):
        sum_grad = sum_grad_x_hat = 0.0
        for n, s in positions((batch, size)):
            x_hat = (x.item(n, c, s) - mean.item(c)) * inv_std.item(c)
            sum_grad += grad.item(n, c, s)
            sum_grad_x_hat += grad.item(n, c, s) * x_hat
        grad_bias[c], grad_weight[c] = sum_grad, sum_grad_x_hat
        scale = (1.0 if weight is None else weight.item(c)) * inv_std.item(c)
        for n, s in positions((batch, size)):
            value = grad.item(n, c, s)
            if training:
                x_hat = (x.item(n, c, s) - mean.item(c)) * inv_std.item(c)
                value -= sum_grad / count + x_hat * sum_grad_x_hat / count
            grad_x[n, c, s] = scale * value


def _inverse_root(value: float) -> float:
    """``1 / sqrt(value)``, infinite at zero as IEEE has it."""
    return 1 / math.sqrt(value) if value else math.inf
