"""Dropout, number by number."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..table import Array


def dropout(x: Array, mask: NDArray[np.bool_], scale: float, out: Array) -> None:
    """``x * scale`` where mask is true, else 0."""
    for p in range(x.size):
        out.flat[p] = x.item(p) * scale if mask.item(p) else 0.0
