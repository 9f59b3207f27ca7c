"""Pooling layers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..backends.table import Activation, Backend
from ..functional.adaptive_pool import pooled_shape
from ..functional.inputs import INT64
from ..geometry import IntPair, PoolGeometry, Shape, pool_geometry
from .base import Array
from .bound import Bound


class MaxPool2d(Bound):
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

    def output_shape(self, shape: Shape) -> Shape:
        return pool_geometry(shape, *self.geometry).out_shape

    def flops(self, shape: Shape) -> int:
        return _window_flops(pool_geometry(shape, *self.geometry))

    def _bind(self, kernels: Backend, shape: Shape, dtype: np.dtype[Any]) -> None:
        self._pool = pool_geometry(shape, *self.geometry)

    def _compute(self, x: Array, activation: Activation) -> Array:
        out = self._empty(self._out_shape, self._dtype)
        if self.training:
            self._saved = self._empty(self._out_shape, INT64)
            self._kernels.max_pool2d(x, self._pool, out, self._saved)
        else:
            # Where the values stood is found when a gradient is asked for.
            self._saved = x
            self._kernels.max_pool2d(x, self._pool, out, None)
        return out

    def _differentiate(self, grad: Array) -> Array:
        if self._saved.dtype != INT64:
            x, self._saved = self._saved, self._empty(self._out_shape, INT64)
            values = self._empty(self._out_shape, self._dtype)
            self._kernels.max_pool2d(x, self._pool, values, self._saved)
        grad_x = self._empty(self._x_shape, self._dtype)
        self._kernels.max_pool2d_backward(grad, self._saved, grad_x)
        return grad_x


class AvgPool2d(Bound):
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

    def _geometry(self, shape: Shape) -> PoolGeometry:
        kernel_size, stride, padding, ceil_mode, _ = self.geometry
        return pool_geometry(shape, kernel_size, stride, padding, 1, ceil_mode)

    def output_shape(self, shape: Shape) -> Shape:
        return self._geometry(shape).out_shape

    def flops(self, shape: Shape) -> int:
        return _window_flops(self._geometry(shape))

    def _bind(self, kernels: Backend, shape: Shape, dtype: np.dtype[Any]) -> None:
        self._pool = self._geometry(shape)
        self._include_pad = bool(self.geometry[-1])

    def _compute(self, x: Array, activation: Activation) -> Array:
        out = self._empty(self._out_shape, self._dtype)
        self._kernels.avg_pool2d(x, self._pool, self._include_pad, None, out)
        self._saved = True
        return out

    def _differentiate(self, grad: Array) -> Array:
        grad_x = self._empty(self._x_shape, self._dtype)
        self._kernels.avg_pool2d_backward(grad, self._pool, self._include_pad, None, grad_x)
        return grad_x


class AdaptiveAvgPool2d(Bound):
    """Means over windows that share the image; the argument as in `fastdl.adaptive_avg_pool2d`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import nn
    >>> nn.AdaptiveAvgPool2d((2, None))(np.zeros((1, 3, 8, 5))).shape
    (1, 3, 2, 5)
    """

    def __init__(self, output_size: int | tuple[int | None, int | None] | None) -> None:
        super().__init__()
        self.output_size = output_size

    def output_shape(self, shape: Shape) -> Shape:
        return pooled_shape(shape, self.output_size)

    def flops(self, shape: Shape) -> int:
        return math.prod(shape)

    def _bind(self, kernels: Backend, shape: Shape, dtype: np.dtype[Any]) -> None:
        """`output_shape` has checked all there is."""

    def _compute(self, x: Array, activation: Activation) -> Array:
        out = self._empty(self._out_shape, self._dtype)
        self._kernels.adaptive_avg_pool2d(x, out)
        self._saved = True
        return out

    def _differentiate(self, grad: Array) -> Array:
        grad_x = self._empty(self._x_shape, self._dtype)
        self._kernels.adaptive_avg_pool2d_backward(grad, grad_x)
        return grad_x


class GlobalAvgPool2d(AdaptiveAvgPool2d):
    """The mean of each channel's plane: (N, C, H, W) to (N, C, 1, 1)."""

    def __init__(self) -> None:
        super().__init__(1)


def _window_flops(geometry: PoolGeometry) -> int:
    return math.prod(geometry.out_shape) * geometry.kernel_h * geometry.kernel_w
