"""Activations: one number in, one number out; and softmax, which makes probabilities."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import functional
from ..backends.table import Activation, Backend
from ..functional import on_device
from ..functional.inputs import floats
from ..geometry import Shape
from .base import Array, Layer
from .bound import Bound


class Elementwise(Bound):
    """An activation with kernels of its name, whose gradient its output alone tells."""

    name: Activation = None

    def _bind(self, kernels: Backend, shape: Shape, dtype: np.dtype[Any]) -> None:
        self._apply = getattr(kernels, f"{self.name}")
        self._apply_backward = getattr(kernels, f"{self.name}_backward")

    def _compute(self, x: Array, activation: Activation) -> Array:
        out = self._saved = self._empty(self._out_shape, self._dtype)
        self._apply(x, out)
        return out

    @property
    def output(self) -> Array:
        """The latest output."""
        out: Array = self._recall()
        return out

    def keep(self, out: Array, kernels: Backend) -> None:
        """Take ``out`` for the latest output: another layer applied this activation."""
        if kernels is not self._kernels or not self._is_plain(out, self._x_shape, self._dtype):
            self._admit(out, kernels)
        self._saved = out

    def _differentiate(self, grad: Array) -> Array:
        grad_x = self._empty(self._x_shape, self._dtype)
        self._apply_backward(grad, self._saved, grad_x)
        return grad_x


class ReLU(Elementwise):
    """``max(x, 0)``; NaN passes.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import nn
    >>> nn.ReLU()(np.float32([-1, 2]))
    array([0., 2.], dtype=float32)
    """

    name = "relu"


class Sigmoid(Elementwise):
    """``1 / (1 + exp(-x))``."""

    name = "sigmoid"


class Tanh(Elementwise):
    """The hyperbolic tangent."""

    name = "tanh"


class LeakyReLU(Layer):
    """``x`` where it is positive, else ``negative_slope * x``; NaN passes.

    Parameters
    ----------
    negative_slope : float, default 0.01
        The slope below zero, where ReLU's is 0.

    References
    ----------
    Maas, Hannun and Ng, "Rectifier nonlinearities improve neural network acoustic
    models", ICML 2013, section 2.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import nn
    >>> nn.LeakyReLU(0.1)(np.float32([-1, 2]))
    array([-0.1,  2. ], dtype=float32)
    """

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__()
        self.negative_slope = float(negative_slope)

    def forward(self, x: Array) -> Array:
        x = floats("x", x)
        self._saved = x
        return self._sloped(x, x)

    def backward(self, grad: Array) -> Array:
        x = self._recall()
        return self._sloped(floats("grad", grad, x.dtype), x)

    def _sloped(self, values: Array, x: Array) -> Array:
        if on_device.is_device(x):
            return on_device.leaky_relu(values, x, self.negative_slope)  # type: ignore[no-any-return]
        out: Array = values * values.dtype.type(self.negative_slope)
        np.copyto(out, values, where=x > 0)
        return out


class Softmax(Layer):
    """Probabilities from scores: ``exp(x) / sum(exp(x))`` along ``dim``.

    For training with cross entropy leave it out: `CrossEntropyLoss` takes scores.

    Parameters
    ----------
    dim : int, default -1
        The axis along which the output sums to 1.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import nn
    >>> nn.Softmax()(np.zeros((1, 4), np.float32))
    array([[0.25, 0.25, 0.25, 0.25]], dtype=float32)
    """

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def flops(self, shape: Shape) -> int:
        # A difference, an exponential and a quotient.
        return 3 * math.prod(shape)

    def forward(self, x: Array) -> Array:
        y = self._saved = functional.softmax(x, self.dim)
        return y

    def backward(self, grad: Array) -> Array:
        return functional.softmax_backward(grad, self._recall(), self.dim)
