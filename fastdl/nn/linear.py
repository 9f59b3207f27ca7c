"""The fully connected layer."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from .. import functional
from ..geometry import integer
from .base import Array
from .init import Initializer, Seed, he_normal
from .weighted import Weighted


class Linear(Weighted):
    """``out = x @ weight.T + bias``: x (..., in), weight (out, in), bias (out,).

    Parameters
    ----------
    in_features, out_features : int
        Lengths of the last axis before and after.
    bias : bool, default True
        Whether to add a bias, which starts at zero.
    init : callable, default `he_normal`
        Draws the weight.
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
        init: Initializer = he_normal,
        rng: Seed = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        shape = (integer("out_features", out_features, 1), integer("in_features", in_features, 1))
        super().__init__(shape, bias, init, rng, dtype)

    def forward(self, x: Array) -> Array:
        self._saved = x
        return functional.linear(x, self.weight, self.bias)

    def backward(self, grad: Array) -> Array:
        return self._keep(
            functional.linear_backward(grad, self._recall(), self.weight, needs=self._needs)
        )
