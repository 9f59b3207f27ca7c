"""AlexNet, which won ImageNet 2012."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import DTypeLike

from .. import nn
from ..nn.init import Seed


def alexnet(
    classes: int = 1000,
    channels: int = 3,
    *,
    dropout: float = 0.5,
    rng: Seed = None,
    dtype: DTypeLike = np.float32,
) -> nn.Sequential:
    """Scores (N, classes) of images (N, channels, H, W), by custom 224 x 224; H and W at least 63.

    Torchvision's form: five convolutions and three fully connected layers, on
    one processor and without local response normalisation. Names and shapes of
    the parameters are torchvision's.

    Parameters
    ----------
    classes, channels : int, default 1000 and 3
        How many scores, and how many planes an image has.
    dropout : float, default 0.5
        Probability of dropping an input of a 4096-wide layer.
    rng : numpy.random.Generator or int, optional
        Of the first weights and of dropout.
    dtype : float32 (default) or float64

    References
    ----------
    Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep
    convolutional neural networks", NIPS 2012; the widths are those of
    Krizhevsky, "One weird trick for parallelizing convolutional neural
    networks", 2014.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import models
    >>> models.alexnet(10, rng=0)(np.zeros((2, 3, 64, 64), np.float32)).shape
    (2, 10)
    """
    rng = np.random.default_rng(rng)
    conv = partial(nn.Conv2d, rng=rng, dtype=dtype)
    return nn.Sequential(
        {
            "features": nn.Sequential(
                conv(channels, 64, 11, stride=4, padding=2),
                nn.ReLU(),
                nn.MaxPool2d(3, 2),
                conv(64, 192, 5, padding=2),
                nn.ReLU(),
                nn.MaxPool2d(3, 2),
                conv(192, 384, 3, padding=1),
                nn.ReLU(),
                conv(384, 256, 3, padding=1),
                nn.ReLU(),
                conv(256, 256, 3, padding=1),
                nn.ReLU(),
                nn.MaxPool2d(3, 2),
            ),
            "avgpool": nn.AdaptiveAvgPool2d(6),
            "flatten": nn.Flatten(),
            "classifier": _classifier(256 * 6 * 6, 4096, classes, dropout, rng, dtype),
        }
    )


def alexnet_32(
    classes: int = 10,
    channels: int = 3,
    *,
    dropout: float = 0.5,
    rng: Seed = None,
    dtype: DTypeLike = np.float32,
) -> nn.Sequential:
    """AlexNet for images (N, channels, 32, 32): scores (N, classes).

    The same layers and names as `alexnet`, with what an image a seventh as wide
    asks for: 3 x 3 kernels, a first stride of 2, pools of 2 x 2, and fully
    connected layers of 1024.

    Parameters
    ----------
    classes, channels : int, default 10 and 3
        How many scores, and how many planes an image has.
    dropout : float, default 0.5
        Probability of dropping an input of a 1024-wide layer.
    rng : numpy.random.Generator or int, optional
        Of the first weights and of dropout.
    dtype : float32 (default) or float64

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import models
    >>> models.alexnet_32(rng=0)(np.zeros((2, 3, 32, 32), np.float32)).shape
    (2, 10)
    """
    rng = np.random.default_rng(rng)
    conv = partial(nn.Conv2d, kernel_size=3, padding=1, rng=rng, dtype=dtype)
    return nn.Sequential(
        {
            "features": nn.Sequential(
                conv(channels, 64, stride=2),  # 16 x 16
                nn.ReLU(),
                nn.MaxPool2d(2),  # 8 x 8
                conv(64, 192),
                nn.ReLU(),
                nn.MaxPool2d(2),  # 4 x 4
                conv(192, 384),
                nn.ReLU(),
                conv(384, 256),
                nn.ReLU(),
                conv(256, 256),
                nn.ReLU(),
                nn.MaxPool2d(2),  # 2 x 2
            ),
            "flatten": nn.Flatten(),
            "classifier": _classifier(256 * 2 * 2, 1024, classes, dropout, rng, dtype),
        }
    )


def _classifier(
    features: int,
    width: int,
    classes: int,
    dropout: float,
    rng: np.random.Generator,
    dtype: DTypeLike,
) -> nn.Sequential:
    linear = partial(nn.Linear, rng=rng, dtype=dtype)
    return nn.Sequential(
        nn.Dropout(dropout, rng=rng),
        linear(features, width),
        nn.ReLU(),
        nn.Dropout(dropout, rng=rng),
        linear(width, width),
        nn.ReLU(),
        linear(width, classes),
    )
