"""A network without fully connected layers."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from .. import nn
from ..nn.init import Seed
from .convolution import convolution


def gap_net(
    classes: int = 10, channels: int = 3, *, rng: Seed = None, dtype: DTypeLike = np.float32
) -> nn.Sequential:
    """Scores (N, classes) of images (N, channels, H, W) of any size from 4 x 4.

    The last convolution, 1 x 1, makes one map a class; the map's mean is the
    class's score. So there are no fully connected layers, and few parameters.

    Parameters
    ----------
    classes, channels : int, default 10 and 3
        How many scores, and how many planes an image has.
    rng : numpy.random.Generator or int, optional
        Of the first weights.
    dtype : float32 (default) or float64

    References
    ----------
    Lin, Chen and Yan, "Network in network", ICLR 2014, section 3.2 (global
    average pooling).

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import models
    >>> net = models.gap_net(rng=0)
    >>> net(np.zeros((2, 3, 32, 32), np.float32)).shape, net(np.zeros((2, 3, 7, 9), "f4")).shape
    ((2, 10), (2, 10))
    """
    rng = np.random.default_rng(rng)
    return nn.Sequential(
        *convolution(channels, 32, rng=rng, dtype=dtype),
        nn.MaxPool2d(2),
        *convolution(32, 64, rng=rng, dtype=dtype),
        nn.MaxPool2d(2),
        *convolution(64, 128, rng=rng, dtype=dtype),
        nn.Conv2d(128, classes, 1, rng=rng, dtype=dtype),
        nn.GlobalAvgPool2d(),
        nn.Flatten(),
    )
