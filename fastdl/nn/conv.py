"""The convolution layer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..backends.table import Activation, Backend
from ..errors import ArgumentError
from ..functional.plan import Conv2dPlan
from ..geometry import ConvGeometry, IntPair, Padding, Shape, conv_geometry, integer, pair
from .base import Array
from .init import Init, Seed
from .weighted import Weighted


class Conv2d(Weighted):
    """A 2-D convolution (in truth a cross-correlation) with its own weights.

    ``out[n,o,i,j] = bias[o] + sum_{c,a,b} x[n,c,i*s-p+a*d,j*s-p+b*d] * weight[o,c,a,b]``.

    Parameters
    ----------
    in_channels, out_channels : int
        C of the input (N, C, H, W) and O of the output (N, O, OH, OW).
    kernel_size, stride, dilation, groups
        As in `fastdl.conv2d`; stride, dilation and groups are 1 by default.
    padding
        As in `fastdl.conv2d`; 0 by default.
    bias : bool, default True
        Whether to add a bias (O,). Before a batch normalisation it does nothing.
    init : str or callable, default ``"he_normal"``
        What draws the weight (O, C/groups, KH, KW); see `fastdl.nn.init.get`. The
        bias starts at zero.
    rng : numpy.random.Generator or int, optional
        Where the first weights come from.
    dtype : float32 (default) or float64

    Raises
    ------
    ArgumentError
        If a size is not positive or ``groups`` does not divide both channels.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import nn
    >>> conv = nn.Conv2d(1, 4, 3, padding=1, rng=0)
    >>> conv(np.ones((2, 1, 8, 8), np.float32)).shape
    (2, 4, 8, 8)

    Notes
    -----
    In evaluation the layer holds a `fastdl.Conv2dPlan` for the latest shape of
    input, if there is something to pack for it. Before it is used the weights are
    compared with those that were packed, and packed anew if one bit differs. So
    whatever changed them (an optimiser, `load_state_dict`, an assignment) counts
    from the next call on. A plan of your own saves the comparison, too.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntPair,
        stride: IntPair = 1,
        padding: Padding = 0,
        dilation: IntPair = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        init: Init = "he_normal",
        rng: Seed = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        channels, filters, groups = check_channels(in_channels, out_channels, groups)
        shape = (filters, channels // groups, *pair("kernel_size", kernel_size, 1))
        super().__init__(shape, filters, bias, init, rng, dtype)
        self.geometry = (stride, padding, dilation, groups)
        self._plan: Conv2dPlan | None = None

    def _unbind(self) -> None:
        super()._unbind()
        self._plan = None

    def _geometry(self, shape: Shape) -> ConvGeometry:
        return conv_geometry(shape, self.weight.shape, *self.geometry)

    def output_shape(self, shape: Shape) -> Shape:
        return self._geometry(shape).out_shape

    def flops(self, shape: Shape) -> int:
        geometry = self._geometry(shape)
        return geometry.flops + (math.prod(geometry.out_shape) if self.bias is not None else 0)

    def _bind(self, kernels: Backend, shape: Shape, dtype: np.dtype[Any]) -> None:
        self._conv = self._geometry(shape)

    def _compute(self, x: Array, activation: Activation) -> Array:
        self._saved = x
        if not self.training and type(x) is np.ndarray:
            plan = self._planned(x, activation)
            if plan.packed_bytes:
                return plan(x)
        out = self._empty(self._out_shape, self._dtype)
        self._kernels.conv2d(x, self._param("weight"), self._bias(), self._conv, activation, out)
        return out

    def _differentiate(self, grad: Array) -> Array:
        self.backward_params(grad)
        grad_x = self._empty(self._x_shape, self._dtype)
        self._kernels.conv2d_grad_input(grad, self._param("weight"), self._conv, grad_x)
        return grad_x

    def backward_params(self, grad: Array) -> None:
        if not self._is_plain(grad, self._out_shape, self._dtype):
            grad = self._admit_grad(grad)
        self._kernels.conv2d_grad_weight(grad, self._saved, self._conv, self._grad("weight"))
        if "bias" in self.params:
            self._kernels.conv2d_grad_bias(grad, self._grad("bias"))

    def _planned(self, x: Array, activation: Activation) -> Conv2dPlan:
        """The plan for ``x``, of the weights as they are now."""
        plan = self._plan
        if plan is None or not plan.serves(x.shape) or plan.activation != activation:
            plan = Conv2dPlan(
                x.shape, self.weight, self.bias, *self.geometry, activation=activation
            )
            self._plan = plan
        elif plan.packed_bytes and not plan.holds(self.weight, self.bias):
            plan.pack(self.weight, self.bias)
        return plan


def check_channels(in_channels: Any, out_channels: Any, groups: Any) -> tuple[int, int, int]:
    """The three as integers, where the groups share both channels evenly."""
    channels = integer("in_channels", in_channels, 1)
    filters = integer("out_channels", out_channels, 1)
    groups = integer("groups", groups, 1)
    if channels % groups or filters % groups:
        raise ArgumentError(
            f"groups must divide in_channels and out_channels, "
            f"got groups={groups}, in_channels={channels}, out_channels={filters}"
        )
    return channels, filters, groups
