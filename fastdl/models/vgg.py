"""VGG: depth from nothing but 3 x 3 convolutions and 2 x 2 pools."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import DTypeLike

from .. import nn
from ..nn.init import Seed
from .convolution import convolution

#: Filters of the convolutions of each stage; a pool ends a stage (table 1 of the paper).
A = ((64,), (128,), (256, 256), (512, 512), (512, 512))
D = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def vgg11(
    classes: int = 1000,
    channels: int = 3,
    *,
    dropout: float = 0.5,
    rng: Seed = None,
    dtype: DTypeLike = np.float32,
) -> nn.Sequential:
    """Scores (N, classes) of images (N, channels, H, W), by custom 224 x 224; H and W at least 32.

    Configuration A of the paper: eight convolutions and three fully connected
    layers. Names and shapes of the parameters are torchvision's.

    Parameters
    ----------
    classes, channels : int, default 1000 and 3
        How many scores, and how many planes an image has.
    dropout : float, default 0.5
        Probability of dropping an output of a 4096-wide layer.
    rng : numpy.random.Generator or int, optional
        Of the first weights and of dropout.
    dtype : float32 (default) or float64

    References
    ----------
    Simonyan and Zisserman, "Very deep convolutional networks for large-scale
    image recognition", ICLR 2015, table 1.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import models
    >>> models.vgg11(10, rng=0)(np.zeros((2, 3, 32, 32), np.float32)).shape
    (2, 10)
    """
    return _vgg(A, classes, channels, dropout, rng, dtype)


def vgg16(
    classes: int = 1000,
    channels: int = 3,
    *,
    dropout: float = 0.5,
    rng: Seed = None,
    dtype: DTypeLike = np.float32,
) -> nn.Sequential:
    """As `vgg11`, with thirteen convolutions: configuration D of the paper."""
    return _vgg(D, classes, channels, dropout, rng, dtype)


def vgg11_32(
    classes: int = 10, channels: int = 3, *, rng: Seed = None, dtype: DTypeLike = np.float32
) -> nn.Sequential:
    """VGG-11 for small images (N, channels, H, W), by custom 32 x 32: scores (N, classes).

    Every convolution is followed by batch normalisation, and one linear layer on
    the globally averaged features takes the place of the three fully connected
    ones. The features are named as in torchvision's ``vgg11_bn``.

    Parameters
    ----------
    classes, channels : int, default 10 and 3
        How many scores, and how many planes an image has.
    rng : numpy.random.Generator or int, optional
        Of the first weights.
    dtype : float32 (default) or float64

    References
    ----------
    Simonyan and Zisserman, "Very deep convolutional networks for large-scale
    image recognition", ICLR 2015, table 1.
    Ioffe and Szegedy, "Batch normalization", ICML 2015.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import models
    >>> models.vgg11_32(rng=0)(np.zeros((2, 3, 32, 32), np.float32)).shape
    (2, 10)
    """
    return _vgg_32(A, classes, channels, rng, dtype)


def vgg16_32(
    classes: int = 10, channels: int = 3, *, rng: Seed = None, dtype: DTypeLike = np.float32
) -> nn.Sequential:
    """As `vgg11_32`, with thirteen convolutions."""
    return _vgg_32(D, classes, channels, rng, dtype)


def _vgg(
    stages: tuple[tuple[int, ...], ...],
    classes: int,
    channels: int,
    dropout: float,
    rng: Seed,
    dtype: DTypeLike,
) -> nn.Sequential:
    rng = np.random.default_rng(rng)
    features: list[nn.Layer] = []
    for stage in stages:
        for filters in stage:
            features.append(nn.Conv2d(channels, filters, 3, padding=1, rng=rng, dtype=dtype))
            features.append(nn.ReLU())
            channels = filters
        features.append(nn.MaxPool2d(2))
    linear = partial(nn.Linear, rng=rng, dtype=dtype)
    return nn.Sequential(
        {
            "features": nn.Sequential(*features),
            "avgpool": nn.AdaptiveAvgPool2d(7),
            "flatten": nn.Flatten(),
            "classifier": nn.Sequential(
                linear(channels * 7 * 7, 4096),
                nn.ReLU(),
                nn.Dropout(dropout, rng=rng),
                linear(4096, 4096),
                nn.ReLU(),
                nn.Dropout(dropout, rng=rng),
                linear(4096, classes),
            ),
        }
    )


def _vgg_32(
    stages: tuple[tuple[int, ...], ...], classes: int, channels: int, rng: Seed, dtype: DTypeLike
) -> nn.Sequential:
    rng = np.random.default_rng(rng)
    features: list[nn.Layer] = []
    for stage in stages:
        for filters in stage:
            features.extend(convolution(channels, filters, rng=rng, dtype=dtype))
            channels = filters
        features.append(nn.MaxPool2d(2))
    return nn.Sequential(
        {
            "features": nn.Sequential(*features),
            "avgpool": nn.GlobalAvgPool2d(),
            "flatten": nn.Flatten(),
            "classifier": nn.Linear(channels, classes, rng=rng, dtype=dtype),
        }
    )
