"""Batch normalisation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from .. import functional
from ..backends.table import Activation, Backend
from ..errors import ShapeError
from ..functional.norm import need_several
from ..geometry import Shape, integer
from .base import Array
from .bound import Bound
from .init import float_dtype


class BatchNorm(Bound):
    """What the layers for vectors and for images share."""

    #: How many axes an input may have, and their names.
    ranks: tuple[int, ...]
    axes: str

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        *,
        dtype: DTypeLike = np.float32,
    ) -> None:
        super().__init__()
        count, kind = integer("num_features", num_features, 1), float_dtype(dtype)
        if affine:
            self._own({"weight": np.ones(count, kind), "bias": np.zeros(count, kind)})
        self.buffers = {
            "running_mean": np.zeros(count, kind),
            "running_var": np.ones(count, kind),
            "num_batches_tracked": np.zeros((), np.int64),
        }
        self.eps, self.momentum = eps, momentum

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.buffers["running_mean"].dtype

    @property
    def channels(self) -> int:
        """C."""
        return self.buffers["running_mean"].size

    @property
    def statistics(self) -> tuple[Array, Array]:
        """The running mean and variance."""
        return self.buffers["running_mean"], self.buffers["running_var"]

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) not in self.ranks or shape[1] != self.channels:
            raise ShapeError(f"x must have shape {self.axes} with C = {self.channels}, got {shape}")
        return shape

    def flops(self, shape: Shape) -> int:
        return 2 * math.prod(shape)

    def _bind(self, kernels: Backend, shape: Shape, dtype: np.dtype[Any]) -> None:
        batch, channels = self.output_shape(shape)[:2]
        self._flat = (batch, channels, math.prod(shape[2:]))
        self._channels = (channels,)

    def _compute(self, x: Array, activation: Activation) -> Array:
        weight, bias = self._affine("weight"), self._affine("bias")
        running_mean, running_var = self.statistics
        if not self.training or type(x) is not np.ndarray:
            out, mean, inv_std = functional.batch_norm(
                x, running_mean, running_var, weight, bias, self.training, self.momentum,
                self.eps, activation=activation, return_stats=True,
            )  # fmt: skip
            self._saved = x.reshape(self._flat), mean, inv_std, self.training
            if self.training:
                self._count_batch()
            return out
        count = need_several(x.shape)
        flat, out = x.reshape(self._flat), self._empty(self._out_shape, self._dtype)
        mean, var = np.empty(self._channels, self._dtype), np.empty(self._channels, self._dtype)
        self._kernels.batch_norm_train(
            flat, weight, bias, self.eps, activation, out.reshape(self._flat), mean, var
        )
        inv_std = np.empty(self._channels, self._dtype)
        self._kernels.batch_norm_track(
            mean, var, count, self.momentum, self.eps, running_mean, running_var, inv_std
        )
        self._saved = flat, mean, inv_std, True
        self._count_batch()
        return out

    def _count_batch(self) -> None:
        tracked = self.buffers["num_batches_tracked"]
        tracked[()] = tracked.item() + 1  # a tenth of the time of += 1

    def backward_rectified(self, grad: Array, y: Array) -> Array:
        """`backward` where ReLU followed, whose output was ``y``."""
        if not self._is_plain(grad, self._out_shape, self._dtype):
            grad = self._admit_grad(grad)
        return self._differentiate(grad, y.reshape(self._flat))

    def _differentiate(self, grad: Array, y: Array | None = None) -> Array:
        x, mean, inv_std, training = self._saved
        grad_x, weight = self._empty(self._x_shape, self._dtype), self._affine("weight")
        if weight is None:
            grad_weight, grad_bias = (self._empty(self._channels, self._dtype) for _ in range(2))
        else:
            grad_weight, grad_bias = self._grad("weight"), self._grad("bias")
        self._kernels.batch_norm_backward(
            grad.reshape(self._flat), x, mean, inv_std, weight, training, y,
            grad_x.reshape(self._flat), grad_weight, grad_bias,
        )  # fmt: skip
        return grad_x

    def _affine(self, name: str) -> Array | None:
        return self._param(name) if name in self.params else None


class BatchNorm1d(BatchNorm):
    """As `BatchNorm2d`, for vectors (N, C) or sequences (N, C, L).

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import nn
    >>> nn.BatchNorm1d(2, eps=0)(np.float32([[1, 5], [3, 9]]))
    array([[-1., -1.],
           [ 1.,  1.]], dtype=float32)
    """

    ranks = (2, 3)
    axes = "(N, C) or (N, C, L)"


class BatchNorm2d(BatchNorm):
    """``out = (x - mean) / sqrt(var + eps) * weight + bias``, channel by channel.

    In training mean and variance are the batch's own, and the running ones move
    towards them by ``momentum``; in evaluation the running ones serve.

    Parameters
    ----------
    num_features : int
        C of the input (N, C, H, W).
    eps : float, default 1e-5
        Added to the variance.
    momentum : float, default 0.1
        Share of the batch's statistics in the new running ones.
    affine : bool, default True
        Whether to have a weight and a bias; without them they are 1 and 0.
    dtype : float32 (default) or float64

    Raises
    ------
    ShapeError
        In `forward`, if x has not C channels, or in training one value for each only.

    References
    ----------
    Ioffe and Szegedy, "Batch normalization", ICML 2015, algorithms 1 and 2.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import nn
    >>> x = np.random.default_rng(0).normal(5, 3, (8, 2, 4, 4)).astype(np.float32)
    >>> y = nn.BatchNorm2d(2)(x)
    >>> bool(abs(y.mean()) < 1e-5 and abs(y.std() - 1) < 1e-5)
    True
    """

    ranks = (4,)
    axes = "(N, C, H, W)"
