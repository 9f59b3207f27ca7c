"""Pooling layers."""

from __future__ import annotations

from .. import functional
from ..geometry import IntPair
from .base import Array, Layer


class MaxPool2d(Layer):
    """The largest value of each window; arguments as in `fastdl.max_pool2d`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import nn
    >>> nn.MaxPool2d(2)(np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4))[0, 0]
    array([[ 5.,  7.],
           [13., 15.]], dtype=float32)
    """

    def __init__(
        self,
        kernel_size: IntPair,
        stride: IntPair | None = None,
        padding: IntPair = 0,
        dilation: IntPair = 1,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.geometry = (kernel_size, stride, padding, dilation, ceil_mode)

    def forward(self, x: Array) -> Array:
        out, indices = functional.max_pool2d(x, *self.geometry, return_indices=True)
        self._saved = indices, x.shape
        return out

    def backward(self, grad: Array) -> Array:
        return functional.max_pool2d_backward(grad, *self._recall())


class AvgPool2d(Layer):
    """The mean of each window; arguments as in `fastdl.avg_pool2d`."""

    def __init__(
        self,
        kernel_size: IntPair,
        stride: IntPair | None = None,
        padding: IntPair = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__()
        self.geometry = (kernel_size, stride, padding, ceil_mode, count_include_pad)

    def forward(self, x: Array) -> Array:
        self._saved = x.shape
        return functional.avg_pool2d(x, *self.geometry)

    def backward(self, grad: Array) -> Array:
        return functional.avg_pool2d_backward(grad, self._recall(), *self.geometry)


class GlobalAvgPool2d(Layer):
    """The mean of each channel's plane: (N, C, H, W) to (N, C, 1, 1)."""

    def forward(self, x: Array) -> Array:
        self._saved = x.shape
        return functional.global_avg_pool2d(x)

    def backward(self, grad: Array) -> Array:
        return functional.global_avg_pool2d_backward(grad, self._recall())
