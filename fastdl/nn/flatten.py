"""From feature maps to feature vectors."""

from __future__ import annotations

import math

from ..geometry import Shape
from .base import Array, Layer


class Flatten(Layer):
    """(N, C, H, W) to (N, C * H * W), for a linear layer.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import nn
    >>> nn.Flatten()(np.zeros((2, 3, 4, 5))).shape
    (2, 60)
    """

    makes_array = False

    def output_shape(self, shape: Shape) -> Shape:
        # Not -1: NumPy cannot infer a length for an empty batch.
        return (shape[0], math.prod(shape[1:]))

    def flops(self, shape: Shape) -> int:
        return 0

    def forward(self, x: Array) -> Array:
        self._saved = x.shape
        return x.reshape(self.output_shape(x.shape))

    def backward(self, grad: Array) -> Array:
        return grad.reshape(self._recall())
