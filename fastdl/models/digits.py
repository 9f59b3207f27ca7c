"""A small convolutional network for 8 x 8 images."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from .. import nn
from ..nn.init import Seed


def digits_cnn(
    *, dropout: float = 0.5, rng: Seed = None, dtype: DTypeLike = np.float32
) -> nn.Sequential:
    """Scores (N, 10) of images (N, 1, 8, 8): three convolutions and a linear layer.

    Each convolution is 3 x 3, padded, and followed by batch normalisation and
    ReLU; max pooling halves the image after the second and the third.

    Parameters
    ----------
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

    def convolution(channels: int, filters: int) -> tuple[nn.Layer, ...]:
        # No bias: the normalisation that follows would take it away again.
        return (
            nn.Conv2d(channels, filters, 3, padding=1, bias=False, rng=rng, dtype=dtype),
            nn.BatchNorm2d(filters, dtype=dtype),
            nn.ReLU(),
        )

    return nn.Sequential(
        *convolution(1, 32),
        *convolution(32, 64),
        nn.MaxPool2d(2),
        *convolution(64, 64),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(dropout, rng=rng),
        nn.Linear(64 * 2 * 2, 10, rng=rng, dtype=dtype),
    )
