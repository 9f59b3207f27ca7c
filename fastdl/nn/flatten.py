"""From feature maps to feature vectors."""

from __future__ import annotations

import math

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

    def forward(self, x: Array) -> Array:
        self._saved = x.shape
        # Not -1: NumPy cannot infer a length for an empty batch.
        return x.reshape(len(x), math.prod(x.shape[1:]))

    def backward(self, grad: Array) -> Array:
        return grad.reshape(self._recall())
