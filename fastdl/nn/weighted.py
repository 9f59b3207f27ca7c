"""What convolutions and a linear layer share: a weight and perhaps a bias."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from . import init as initializers
from .base import Array
from .bound import Bound
from .init import Init, Seed, float_dtype


class Weighted(Bound):
    """A layer with a weight drawn by ``init`` and a bias of zeros, one for each of ``outputs``."""

    def __init__(
        self,
        shape: tuple[int, ...],
        outputs: int,
        bias: bool,
        init: Init,
        rng: Seed,
        dtype: DTypeLike,
    ) -> None:
        super().__init__()
        kind = float_dtype(dtype)
        params = {"weight": initializers.get(init)(shape, np.random.default_rng(rng), kind)}
        if bias:
            params["bias"] = np.zeros(outputs, kind)
        self._own(params)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.params["weight"].dtype

    @property
    def weight(self) -> Array:
        """The weight."""
        return self.params["weight"]

    @property
    def bias(self) -> Array | None:
        """The bias, or None."""
        return self.params.get("bias")

    def _bias(self) -> Array | None:
        """The bias as a kernel can take it."""
        return self._param("bias") if "bias" in self.params else None
