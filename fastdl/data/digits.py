"""The handwritten digits that ship inside scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..packages import needed
from .samples import Dataset, Samples, subset, with_validation
from .split import stratified_split


def load_digits(seed: int = 0) -> Dataset:
    """1797 images of handwritten digits, 8 x 8 pixels, in three parts.

    A stratified fifth is for the test. A tenth of the rest is for validation:
    what chooses a model must not be what judges it.

    Parameters
    ----------
    seed : int, default 0
        Of the split.

    Returns
    -------
    Dataset
        Its images are (N, 1, 8, 8) float32 from 0 to 1.

    Raises
    ------
    MissingPackageError
        If scikit-learn is not installed.

    References
    ----------
    Alpaydin and Kaynak, "Optical recognition of handwritten digits", UCI
    machine learning repository, 1998.

    Examples
    --------
    >>> from fastdl import data
    >>> digits = data.load_digits()
    >>> digits.test.x.shape, digits.test.x.dtype
    ((359, 1, 8, 8), dtype('float32'))
    >>> len(digits.train.y), len(digits.validation.y)
    (1295, 143)
    """
    datasets: Any = needed("sklearn.datasets", "scikit-learn", "the digits data set")
    bunch = datasets.load_digits()
    # Pixels count up to 16 dark points: sixteenths are exact in float32.
    x = (bunch.images[:, np.newaxis] / 16).astype(np.float32)
    everything = Samples(x, bunch.target.astype(np.int64))
    rest, test = stratified_split(everything.y, 0.2, seed)
    classes = tuple(map(str, range(10)))
    return with_validation(subset(everything, rest), subset(everything, test), classes, 0.1, seed)
