"""Dropout."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..table import Array


@np.errstate(all="ignore")
def dropout(x: Array, mask: NDArray[np.bool_], scale: float, out: Array) -> None:
    """``x * scale`` where mask is true, else 0."""
    out[...] = np.where(mask, x * scale, 0)
