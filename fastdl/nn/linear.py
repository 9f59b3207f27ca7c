"""The fully connected layer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..backends.table import Activation, Backend
from ..functional.linear import product_shape
from ..geometry import Shape, integer
from .base import Array
from .init import Init, Seed
from .weighted import Weighted


class Linear(Weighted):
    """``out = x @ weight.T + bias``: x (..., in), weight (out, in), bias (out,).

    Parameters
    ----------
    in_features, out_features : int
        Lengths of the last axis before and after.
    bias : bool, default True
        Whether to add a bias, which starts at zero.
    init : str or callable, default ``"he_normal"``
        What draws the weight; see `fastdl.nn.init.get`.
    rng : numpy.random.Generator or int, optional
        Where the first weights come from.
    dtype : float32 (default) or float64

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import nn
    >>> nn.Linear(4, 3, rng=0)(np.ones((2, 4), np.float32)).shape
    (2, 3)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        init: Init = "he_normal",
        rng: Seed = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        shape = (integer("out_features", out_features, 1), integer("in_features", in_features, 1))
        super().__init__(shape, shape[0], bias, init, rng, dtype)

    def output_shape(self, shape: Shape) -> Shape:
        return product_shape(shape, self.weight.shape)

    def flops(self, shape: Shape) -> int:
        additions = 2 * int(self.weight.shape[1]) + (self.bias is not None)
        return math.prod(self.output_shape(shape)) * additions

    def _bind(self, kernels: Backend, shape: Shape, dtype: np.dtype[Any]) -> None:
        outputs, inputs = self.weight.shape
        rows = math.prod(shape[:-1])
        self._x_rows, self._out_rows = (rows, inputs), (rows, outputs)
        self._pixels = (rows, outputs, 1, 1)

    def _compute(self, x: Array, activation: Activation) -> Array:
        self._saved = x
        out = self._empty(self._out_shape, self._dtype)
        self._kernels.linear(
            x.reshape(self._x_rows),
            self._param("weight"),
            self._bias(),
            out.reshape(self._out_rows),
        )
        return out

    def _differentiate(self, grad: Array) -> Array:
        self.backward_params(grad)
        grad_x = self._empty(self._x_shape, self._dtype)
        self._kernels.linear_grad_input(
            grad.reshape(self._out_rows), self._param("weight"), grad_x.reshape(self._x_rows)
        )
        return grad_x

    def backward_params(self, grad: Array) -> None:
        if not self._is_plain(grad, self._out_shape, self._dtype):
            grad = self._admit_grad(grad)
        rows = grad.reshape(self._out_rows)
        self._kernels.linear_grad_weight(
            rows, self._saved.reshape(self._x_rows), self._grad("weight")
        )
        if "bias" in self.params:
            self._kernels.conv2d_grad_bias(grad.reshape(self._pixels), self._grad("bias"))
