"""The transposed convolution layer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..backends.table import Activation, Backend
from ..functional import on_device
from ..geometry import ConvGeometry, IntPair, Shape, conv_transpose_geometry, pair
from .base import Array
from .conv import check_channels
from .init import Init, Seed
from .weighted import Weighted


class ConvTranspose2d(Weighted):
    """A transposed convolution (deconvolution) with its own weights: it enlarges images.

    ``out[n,o,i*s-p+a*d,j*s-p+b*d] += x[n,c,i,j] * weight[c,o,a,b]`` over all c, i, j,
    a, b, starting from ``bias[o]``; what falls outside the output is dropped.

    Parameters
    ----------
    in_channels, out_channels : int
        C of the input (N, C, H, W) and O of the output (N, O, OH, OW).
    kernel_size, stride, padding, output_padding, groups, dilation
        As in `fastdl.conv_transpose2d`; stride, groups and dilation are 1 by
        default, the paddings 0.
    bias : bool, default True
        Whether to add a bias (O,), which starts at zero.
    init : str or callable, default ``"he_normal"``
        What draws the weight (C, O/groups, KH, KW); see `fastdl.nn.init.get`.
    rng : numpy.random.Generator or int, optional
        Where the first weights come from.
    dtype : float32 (default) or float64

    Raises
    ------
    ArgumentError
        If a size is not positive or ``groups`` does not divide both channels.

    References
    ----------
    V. Dumoulin and F. Visin, "A guide to convolution arithmetic for deep
    learning", arXiv:1603.07285, section 4.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import nn
    >>> up = nn.ConvTranspose2d(4, 2, 2, stride=2, rng=0)
    >>> up(np.ones((1, 4, 8, 8), np.float32)).shape
    (1, 2, 16, 16)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntPair,
        stride: IntPair = 1,
        padding: IntPair = 0,
        output_padding: IntPair = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: IntPair = 1,
        *,
        init: Init = "he_normal",
        rng: Seed = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        channels, filters, groups = check_channels(in_channels, out_channels, groups)
        shape = (channels, filters // groups, *pair("kernel_size", kernel_size, 1))
        super().__init__(shape, filters, bias, init, rng, dtype)
        self.geometry = (stride, padding, output_padding, groups, dilation)

    def _geometry(self, shape: Shape) -> ConvGeometry:
        """That of the convolution which this one transposes: from the output to the input."""
        return conv_transpose_geometry(shape, self.weight.shape, *self.geometry)

    def output_shape(self, shape: Shape) -> Shape:
        return self._geometry(shape).x_shape

    def flops(self, shape: Shape) -> int:
        geometry = self._geometry(shape)
        return geometry.flops + (math.prod(geometry.x_shape) if self.bias is not None else 0)

    def _bind(self, kernels: Backend, shape: Shape, dtype: np.dtype[Any]) -> None:
        self._conv = self._geometry(shape)

    def _compute(self, x: Array, activation: Activation) -> Array:
        self._saved = x
        out = self._empty(self._out_shape, self._dtype)
        self._kernels.conv2d_grad_input(x, self._param("weight"), self._conv, out)
        bias = self._bias()
        if bias is not None and on_device.is_device(out):
            on_device.add_channels(out, bias)
        elif bias is not None:
            out += bias[:, None, None]
        return out

    def _differentiate(self, grad: Array) -> Array:
        self.backward_params(grad)
        grad_x = self._empty(self._x_shape, self._dtype)
        self._kernels.conv2d(grad, self._param("weight"), None, self._conv, None, grad_x)
        return grad_x

    def backward_params(self, grad: Array) -> None:
        if not self._is_plain(grad, self._out_shape, self._dtype):
            grad = self._admit_grad(grad)
        self._kernels.conv2d_grad_weight(self._saved, grad, self._conv, self._grad("weight"))
        if "bias" in self.params:
            self._kernels.conv2d_grad_bias(grad, self._grad("bias"))
