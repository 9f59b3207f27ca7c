"""Batch normalisation."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from .. import functional
from ..geometry import integer
from .base import Array, Layer
from .init import float_dtype


class BatchNorm2d(Layer):
    """``out = (x - mean) / sqrt(var + eps) * weight + bias``, channel by channel.

    In training mean and variance are the batch's own, and the running ones move
    towards them by ``momentum``; in evaluation the running ones serve.

    Parameters
    ----------
    channels : int
        C of the input (N, C, H, W).
    eps : float, default 1e-5
        Added to the variance.
    momentum : float, default 0.1
        Share of the batch's statistics in the new running ones.
    dtype : float32 (default) or float64

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

    def __init__(
        self,
        channels: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        *,
        dtype: DTypeLike = np.float32,
    ) -> None:
        super().__init__()
        count, kind = integer("channels", channels, 1), float_dtype(dtype)
        self.params = {"weight": np.ones(count, kind), "bias": np.zeros(count, kind)}
        self.buffers = {
            "running_mean": np.zeros(count, kind),
            "running_var": np.ones(count, kind),
            "num_batches_tracked": np.zeros((), np.int64),
        }
        self.eps, self.momentum = eps, momentum

    def forward(self, x: Array) -> Array:
        out, mean, inv_std = functional.batch_norm(
            x,
            self.buffers["running_mean"],
            self.buffers["running_var"],
            self.params["weight"],
            self.params["bias"],
            self.training,
            self.momentum,
            self.eps,
            return_stats=True,
        )
        self.buffers["num_batches_tracked"] += self.training
        self._saved = x, mean, inv_std, self.training
        return out

    def backward(self, grad: Array) -> Array:
        x, mean, inv_std, training = self._recall()
        grad_x, self.grads["weight"], self.grads["bias"] = functional.batch_norm_backward(
            grad, x, mean, inv_std, self.params["weight"], training
        )
        return grad_x
