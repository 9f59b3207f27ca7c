"""From samples to batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ShapeError
from ..geometry import integer

Array = NDArray[Any]


def batches(
    x: Array, y: Array, batch_size: int, rng: np.random.Generator | None = None
) -> Iterator[tuple[Array, Array]]:
    """Every sample once, ``batch_size`` at a time; the last batch may be smaller.

    Parameters
    ----------
    x, y : ndarray
        Samples and labels, equally long.
    batch_size : int
        At least 1.
    rng : numpy.random.Generator, optional
        Shuffles. Without it the samples come in order, as views.

    Raises
    ------
    ArgumentError
        If ``batch_size`` is not positive.
    ShapeError
        If x and y are not equally long.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import data
    >>> [len(x) for x, y in data.batches(np.zeros((5, 1, 8, 8)), np.arange(5), 2)]
    [2, 2, 1]
    """
    size = integer("batch_size", batch_size, 1)
    if len(x) != len(y):
        raise ShapeError(f"x and y must be equally long, got {len(x)} and {len(y)}")
    return _batches(x, y, size, rng)


def _batches(
    x: Array, y: Array, size: int, rng: np.random.Generator | None
) -> Iterator[tuple[Array, Array]]:
    order = None if rng is None else rng.permutation(len(x))
    for start in range(0, len(x), size):
        part = slice(start, start + size)
        chosen = part if order is None else order[part]
        yield x[chosen], y[chosen]
