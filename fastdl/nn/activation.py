"""Activations: one number in, one number out."""

from __future__ import annotations

from .. import functional
from .base import Array, Layer


class ReLU(Layer):
    """``max(x, 0)``; NaN passes.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import nn
    >>> nn.ReLU()(np.float32([-1, 2]))
    array([0., 2.], dtype=float32)
    """

    def forward(self, x: Array) -> Array:
        self._saved = x
        return functional.relu(x)

    def backward(self, grad: Array) -> Array:
        return functional.relu_backward(grad, self._recall())


class Sigmoid(Layer):
    """``1 / (1 + exp(-x))``."""

    def forward(self, x: Array) -> Array:
        y = self._saved = functional.sigmoid(x)
        return y

    def backward(self, grad: Array) -> Array:
        return functional.sigmoid_backward(grad, self._recall())


class Tanh(Layer):
    """The hyperbolic tangent."""

    def forward(self, x: Array) -> Array:
        y = self._saved = functional.tanh(x)
        return y

    def backward(self, grad: Array) -> Array:
        return functional.tanh_backward(grad, self._recall())
