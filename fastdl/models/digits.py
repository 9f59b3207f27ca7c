"""A small convolutional network for 8 x 8 images."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from .. import nn
from ..nn.init import Seed
from .convolution import convolution


def digits_cnn(
    classes: int = 10,
    channels: int = 1,
    *,
    dropout: float = 0.5,
    rng: Seed = None,
    dtype: DTypeLike = np.float32,
) -> nn.Sequential:
    """Scores (N, classes) of images (N, channels, 8, 8): three convolutions and a linear layer.

    Each convolution is 3 x 3, padded, and followed by batch normalisation and
    ReLU; max pooling halves the image after the second and the third.

    Parameters
    ----------
    classes, channels : int, default 10 and 1
        How many scores, and how many planes an image has.
    dropout : float, default 0.5
        Probability of dropping a feature before the linear layer.
    rng : numpy.random.Generator or int, optional
        Of the first weights and of dropout.
    dtype : float32 (default) or float64

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import models
    >>> models.digits_cnn(rng=0)(np.zeros((2, 1, 8, 8), np.float32)).shape
    (2, 10)
    """
    rng = np.random.default_rng(rng)
    return nn.Sequential(
        *convolution(channels, 32, rng=rng, dtype=dtype),
        *convolution(32, 64, rng=rng, dtype=dtype),
        nn.MaxPool2d(2),
        *convolution(64, 64, rng=rng, dtype=dtype),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(dropout, rng=rng),
        nn.Linear(64 * 2 * 2, classes, rng=rng, dtype=dtype),
    )
