"""Batch normalisation of x (N, C, S), its mean and variance taken in two passes."""

from __future__ import annotations

import numpy as np

from ..common import scale_and_shift
from ..table import Activation, Array
from .activation import activate, relu_backward


@np.errstate(all="ignore")
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
    # In double precision: NumPy adds along the first axis one by one.
    np.mean(x, axis=(0, 2), dtype=np.float64, out=mean)
    np.subtract(x, mean[:, None], out=out)
    np.mean(out * out, axis=(0, 2), dtype=np.float64, out=var)
    scale = 1 / np.sqrt(var + eps)
    if weight is not None:
        scale *= weight
    out *= scale[:, None]
    if bias is not None:
        out += bias[:, None]
    activate(activation, out)


@np.errstate(all="ignore")
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
    np.subtract(x, mean[:, None], out=out)
    out *= scale[:, None]
    out += shift[:, None]
    activate(activation, out)


@np.errstate(all="ignore")
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
    x_hat = (x - mean[:, None]) * inv_std[:, None]
    np.sum(grad, axis=(0, 2), out=grad_bias)
    np.sum(grad * x_hat, axis=(0, 2), out=grad_weight)
    scale = inv_std if weight is None else weight * inv_std
    if training:
        count = x.shape[0] * x.shape[2]
        np.subtract(grad, (grad_bias / count)[:, None], out=grad_x)
        grad_x -= x_hat * (grad_weight / count)[:, None]
        grad_x *= scale[:, None]
    else:
        np.multiply(grad, scale[:, None], out=grad_x)
