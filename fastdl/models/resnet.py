"""Residual networks: blocks that learn what to add to their input."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import DTypeLike

from .. import nn
from ..nn.base import State
from ..nn.init import Seed

Layers = dict[str, nn.Layer]
#: ``(channels, width, stride, rng, dtype)`` to the layers of a block's body.
Body = Callable[[int, int, int, np.random.Generator, DTypeLike], Layers]


def resnet18(
    classes: int = 1000, channels: int = 3, *, rng: Seed = None, dtype: DTypeLike = np.float32
) -> nn.Sequential:
    """Scores (N, classes) of images (N, channels, H, W), by custom 224 x 224.

    Eight blocks of two 3 x 3 convolutions. Names and shapes of the parameters
    are torchvision's.

    Parameters
    ----------
    classes, channels : int, default 1000 and 3
        How many scores, and how many planes an image has.
    rng : numpy.random.Generator or int, optional
        Of the first weights.
    dtype : float32 (default) or float64

    References
    ----------
    He, Zhang, Ren and Sun, "Deep residual learning for image recognition", CVPR
    2016, table 1, with projections where the shape changes (option B).

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import models
    >>> models.resnet18(10, rng=0)(np.zeros((2, 3, 64, 64), np.float32)).shape
    (2, 10)
    """
    return _imagenet(_basic, 1, (2, 2, 2, 2), classes, channels, rng, dtype)


def resnet50(
    classes: int = 1000, channels: int = 3, *, rng: Seed = None, dtype: DTypeLike = np.float32
) -> nn.Sequential:
    """As `resnet18`, of sixteen bottleneck blocks: 1 x 1, 3 x 3, 1 x 1.

    As in torchvision, a block's stride is in its 3 x 3 convolution.
    """
    return _imagenet(_bottleneck, 4, (3, 4, 6, 3), classes, channels, rng, dtype)


def resnet20(
    classes: int = 10, channels: int = 3, *, rng: Seed = None, dtype: DTypeLike = np.float32
) -> nn.Sequential:
    """Scores (N, classes) of small images (N, channels, H, W), by custom 32 x 32.

    The paper's network for CIFAR-10: nine blocks of 16, 32 and 64 filters.
    Where the shape changes, the shortcut is a projection (the paper's option B;
    its own tables have zeros there, which learn no better and save 1 % of the
    parameters).

    Parameters
    ----------
    classes, channels : int, default 10 and 3
        How many scores, and how many planes an image has.
    rng : numpy.random.Generator or int, optional
        Of the first weights.
    dtype : float32 (default) or float64

    References
    ----------
    He, Zhang, Ren and Sun, "Deep residual learning for image recognition", CVPR
    2016, section 4.2.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import models
    >>> models.resnet20(rng=0)(np.zeros((2, 3, 32, 32), np.float32)).shape
    (2, 10)
    """
    rng = np.random.default_rng(rng)
    stem: Layers = {
        "conv1": nn.Conv2d(channels, 16, 3, padding=1, bias=False, rng=rng, dtype=dtype),
        "bn1": nn.BatchNorm2d(16, dtype=dtype),
        "relu": nn.ReLU(),
    }
    return _residual(stem, _basic, 1, (16, 32, 64), (3, 3, 3), classes, rng, dtype)


def resnet9(
    classes: int = 10, channels: int = 3, *, rng: Seed = None, dtype: DTypeLike = np.float32
) -> nn.Sequential:
    """Scores (N, classes) of small images (N, channels, 32, 32): few and wide layers, fast to train.

    Four stages of 32, 64, 128 and 256 filters (Page's network has twice as
    many), the image halved by pools between them; a residual block of two
    convolutions in the second and in the fourth. Arguments as of `resnet20`.

    References
    ----------
    Page, "How to train your ResNet", 2018, part 4 (the winner of DAWNBench's
    CIFAR-10 task in 2018).

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import models
    >>> models.resnet9(rng=0)(np.zeros((2, 3, 32, 32), np.float32)).shape
    (2, 10)
    """
    rng = np.random.default_rng(rng)
    block = partial(_conv_norm_relu, rng=rng, dtype=dtype)

    def halved(width: int) -> nn.Layer:
        return nn.Sequential(*block(width // 2, width), nn.MaxPool2d(2))

    def residual(width: int) -> nn.Layer:
        return nn.Residual(nn.Sequential(*block(width, width), *block(width, width)))

    return nn.Sequential(
        {
            "prep": nn.Sequential(*block(channels, 32)),
            "layer1": halved(64),
            "res1": residual(64),
            "layer2": halved(128),
            "layer3": halved(256),
            "res3": residual(256),
            "pool": nn.MaxPool2d(4),
            "flatten": nn.Flatten(),
            "fc": nn.Linear(256, classes, rng=rng, dtype=dtype),
        }
    )


def _conv_norm_relu(
    channels: int, width: int, rng: np.random.Generator, dtype: DTypeLike
) -> list[nn.Layer]:
    return [
        nn.Conv2d(channels, width, 3, padding=1, bias=False, rng=rng, dtype=dtype),
        nn.BatchNorm2d(width, dtype=dtype),
        nn.ReLU(),
    ]


def _imagenet(
    body: Body,
    expansion: int,
    counts: tuple[int, ...],
    classes: int,
    channels: int,
    rng: Seed,
    dtype: DTypeLike,
) -> nn.Sequential:
    rng = np.random.default_rng(rng)
    stem: Layers = {
        "conv1": nn.Conv2d(channels, 64, 7, 2, 3, bias=False, rng=rng, dtype=dtype),
        "bn1": nn.BatchNorm2d(64, dtype=dtype),
        "relu": nn.ReLU(),
        "maxpool": nn.MaxPool2d(3, 2, 1),
    }
    return _residual(stem, body, expansion, (64, 128, 256, 512), counts, classes, rng, dtype)


def _residual(
    stem: Layers,
    body: Body,
    expansion: int,
    widths: tuple[int, ...],
    counts: tuple[int, ...],
    classes: int,
    rng: np.random.Generator,
    dtype: DTypeLike,
) -> nn.Sequential:
    """Stem, one stage a width of ``counts`` blocks, the mean of each map, a linear layer."""
    channels, layers = widths[0], dict(stem)
    for number, (width, count) in enumerate(zip(widths, counts, strict=True), start=1):
        blocks = []
        for position in range(count):
            # A stage's first block halves the image, save in the first stage.
            stride = 2 if number > 1 and position == 0 else 1
            block = Block(
                body(channels, width, stride, rng, dtype),
                _projection(channels, width * expansion, stride, rng, dtype),
            )
            blocks.append(block)
            channels = width * expansion
        layers[f"layer{number}"] = nn.Sequential(*blocks)
    return nn.Sequential(
        layers
        | {
            "avgpool": nn.GlobalAvgPool2d(),
            "flatten": nn.Flatten(),
            "fc": nn.Linear(channels, classes, rng=rng, dtype=dtype),
        }
    )


class Block(nn.Residual):
    """``relu(body(x) + downsample(x))``, its arrays named as torchvision's."""

    def __init__(self, body: Layers, downsample: nn.Layer | None) -> None:
        super().__init__(nn.Sequential(body), downsample, nn.ReLU())

    def _named(self, kind: str) -> State:
        around = self.shortcut._named(kind) if self.shortcut else {}
        return self.body._named(kind) | {f"downsample.{name}": a for name, a in around.items()}


def _basic(
    channels: int, width: int, stride: int, rng: np.random.Generator, dtype: DTypeLike
) -> Layers:
    conv = partial(nn.Conv2d, kernel_size=3, padding=1, bias=False, rng=rng, dtype=dtype)
    return {
        "conv1": conv(channels, width, stride=stride),
        "bn1": nn.BatchNorm2d(width, dtype=dtype),
        "relu": nn.ReLU(),
        "conv2": conv(width, width),
        "bn2": nn.BatchNorm2d(width, dtype=dtype),
    }


def _bottleneck(
    channels: int, width: int, stride: int, rng: np.random.Generator, dtype: DTypeLike
) -> Layers:
    conv = partial(nn.Conv2d, bias=False, rng=rng, dtype=dtype)
    return {
        "conv1": conv(channels, width, 1),
        "bn1": nn.BatchNorm2d(width, dtype=dtype),
        "relu1": nn.ReLU(),
        "conv2": conv(width, width, 3, stride, padding=1),
        "bn2": nn.BatchNorm2d(width, dtype=dtype),
        "relu2": nn.ReLU(),
        "conv3": conv(width, 4 * width, 1),
        "bn3": nn.BatchNorm2d(4 * width, dtype=dtype),
    }


def _projection(
    channels: int, filters: int, stride: int, rng: np.random.Generator, dtype: DTypeLike
) -> nn.Layer | None:
    """The shortcut where the block changes the shape, None where it does not."""
    if channels == filters and stride == 1:
        return None
    return nn.Sequential(
        nn.Conv2d(channels, filters, 1, stride, bias=False, rng=rng, dtype=dtype),
        nn.BatchNorm2d(filters, dtype=dtype),
    )
