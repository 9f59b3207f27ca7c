"""Dropout."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backends.table import Activation, Backend
from ..errors import ArgumentError
from ..functional import on_device
from ..functional.dropout import draw, scale
from ..geometry import Shape
from .base import Array
from .bound import Bound
from .init import Seed


class Dropout(Bound):
    """In training, zero each element with probability ``p`` and scale the rest by ``1 / (1 - p)``.

    In evaluation nothing changes.

    Parameters
    ----------
    p : float, default 0.5
        At least 0, at most 1.
    rng : numpy.random.Generator or int, optional
        Where the choices come from.

    References
    ----------
    Srivastava et al., "Dropout: a simple way to prevent neural networks from
    overfitting", JMLR 15 (2014), section 4.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import nn
    >>> out = nn.Dropout(0.5, rng=0)(np.ones(1000, np.float32))
    >>> sorted({float(value) for value in out})
    [0.0, 2.0]
    """

    def __init__(self, p: float = 0.5, *, rng: Seed = None) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ArgumentError(f"p must be a probability, 0 to 1, got {p!r}")
        self.p = p
        self.rng = np.random.default_rng(rng)

    def forward(self, x: Array) -> Array:
        if self.training:
            return super().forward(x)
        self._saved = None, False
        return x

    def backward(self, grad: Array) -> Array:
        return super().backward(grad) if self._recall()[1] else grad

    def _bind(self, kernels: Backend, shape: Shape, dtype: np.dtype[Any]) -> None:
        self._scale = scale(self.p)

    def _compute(self, x: Array, activation: Activation) -> Array:
        if on_device.is_device(x):
            out, mask = on_device.dropout(x, self.p, True, self._scale, self.rng, None)
            self._saved = mask, True
            return out  # type: ignore[no-any-return]
        out, mask = self._empty(self._out_shape, self._dtype), draw(self.rng, x.shape, self.p)
        self._kernels.dropout(x, mask, self._scale, out)
        self._saved = mask, True
        return out

    def _differentiate(self, grad: Array) -> Array:
        grad_x = self._empty(self._x_shape, self._dtype)
        self._kernels.dropout(grad, self._saved[0], self._scale, grad_x)
        return grad_x
