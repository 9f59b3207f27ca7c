"""Dropout."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..table import Array
from .activation import BLOCK, blocks
from .arrays import flat
from .compiling import compiled
from .pool import run


@compiled
def _select(
    start: int, stop: int, x: Array, mask: NDArray[np.bool_], scale: float, out: Array
) -> None:
    first, last = start * BLOCK, min(stop * BLOCK, x.size)
    block, source, kept = out[first:last], x[first:last], mask[first:last]
    factor = x.dtype.type(scale)
    for i in range(block.size):
        value = source[i] * factor
        block[i] = value if kept[i] else x.dtype.type(0)


def dropout(x: Array, mask: NDArray[np.bool_], scale: float, out: Array) -> None:
    """``x * scale`` where mask is true, else 0."""
    run(_select, blocks(x.size), x.size, flat(x), flat(mask), float(scale), flat(out))
