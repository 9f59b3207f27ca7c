"""Dropout."""

from __future__ import annotations

import numpy as np

from .. import functional
from ..errors import ArgumentError
from .base import Array, Layer
from .init import Seed


class Dropout(Layer):
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
        if not self.training:
            self._saved = (None,)
            return x
        out, mask = functional.dropout(x, self.p, True, rng=self.rng, return_mask=True)
        self._saved = (mask,)
        return out

    def backward(self, grad: Array) -> Array:
        (mask,) = self._recall()
        return grad if mask is None else functional.dropout_backward(grad, mask, self.p)
