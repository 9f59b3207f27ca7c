"""What most of the networks are made of."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from .. import nn


def convolution(
    channels: int, filters: int, *, rng: np.random.Generator, dtype: DTypeLike
) -> tuple[nn.Layer, ...]:
    """A 3 x 3 convolution that keeps the image's size, batch normalisation, and ReLU."""
    # No bias: the normalisation that follows would take it away again.
    return (
        nn.Conv2d(channels, filters, 3, padding=1, bias=False, rng=rng, dtype=dtype),
        nn.BatchNorm2d(filters, dtype=dtype),
        nn.ReLU(),
    )
