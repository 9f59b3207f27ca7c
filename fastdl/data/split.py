"""Setting samples aside for validation and test."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ArgumentError


def stratified_split(
    labels: NDArray[Any], fraction: float, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Positions of the samples that stay and of the ``fraction`` set aside, every class alike.

    Parameters
    ----------
    labels : ndarray (N,)
        The class of each sample.
    fraction : float
        Share of each class to set aside: above 0, below 1. Rounded to whole samples,
        at least one of a class that has two or more.
    seed : int
        The same seed gives the same split.

    Returns
    -------
    kept, aside : ndarray of int
        Sorted positions; together each of ``range(N)`` once.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import data
    >>> labels = np.repeat([0, 1], [10, 20])
    >>> kept, aside = data.stratified_split(labels, 0.2, seed=0)
    >>> np.bincount(labels[aside])
    array([2, 4])
    """
    if not 0 < fraction < 1:
        raise ArgumentError(f"fraction must be above 0 and below 1, got {fraction!r}")
    rng = np.random.default_rng(seed)
    aside = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        least = min(1, len(members) - 1)
        aside[members[: max(least, round(len(members) * fraction))]] = True
    return np.flatnonzero(~aside), np.flatnonzero(aside)
