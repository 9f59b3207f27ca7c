"""What a convolution and a linear layer share: a weight and perhaps a bias."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import DTypeLike

from .base import Array, Layer
from .init import Initializer, Seed, float_dtype


class Weighted(Layer):
    """A layer with a weight (outputs, ...) drawn by ``init`` and a bias (outputs,) of zeros."""

    def __init__(
        self, shape: tuple[int, ...], bias: bool, init: Initializer, rng: Seed, dtype: DTypeLike
    ) -> None:
        super().__init__()
        kind = float_dtype(dtype)
        self.params["weight"] = init(shape, np.random.default_rng(rng), kind)
        if bias:
            self.params["bias"] = np.zeros(shape[0], kind)

    @property
    def weight(self) -> Array:
        """The weight, first axis the outputs."""
        return self.params["weight"]

    @property
    def bias(self) -> Array | None:
        """The bias, or None."""
        return self.params.get("bias")

    @property
    def _needs(self) -> tuple[bool, bool, bool]:
        return (True, True, self.bias is not None)

    def _keep(self, grads: tuple[Array | None, Array | None, Array | None]) -> Array:
        """Store the gradients of weight and bias; return that of the input."""
        grad_x, grad_weight, grad_bias = grads
        self.grads["weight"] = cast(Array, grad_weight)
        if grad_bias is not None:
            self.grads["bias"] = grad_bias
        return cast(Array, grad_x)
