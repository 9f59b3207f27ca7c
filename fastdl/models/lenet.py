"""LeNet-5, which read the digits on cheques."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import DTypeLike

from .. import nn
from ..nn.init import Seed


def lenet5(
    classes: int = 10, channels: int = 1, *, rng: Seed = None, dtype: DTypeLike = np.float32
) -> nn.Sequential:
    """Scores (N, classes) of images (N, channels, 28, 28), which are padded to 32 x 32.

    The layers have the paper's names, C a convolution, S a subsampling, F a
    fully connected layer. Simpler than in the paper: S is a plain average, C3
    sees all maps of S2, tanh is not scaled, and the scores are linear, for
    cross entropy in place of distances to pictures of the digits.

    Parameters
    ----------
    classes, channels : int, default 10 and 1
        How many scores, and how many planes an image has.
    rng : numpy.random.Generator or int, optional
        Of the first weights.
    dtype : float32 (default) or float64

    References
    ----------
    LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to
    document recognition", Proceedings of the IEEE 86 (1998), section II.B.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import models
    >>> net = models.lenet5(rng=0)
    >>> net(np.zeros((2, 1, 28, 28), np.float32)).shape
    (2, 10)
    >>> sum(array.size for array in net.parameters().values())
    61706
    """
    rng = np.random.default_rng(rng)
    conv = partial(nn.Conv2d, init=nn.xavier_normal, rng=rng, dtype=dtype)
    linear = partial(nn.Linear, init=nn.xavier_normal, rng=rng, dtype=dtype)
    return nn.Sequential(
        {
            "c1": conv(channels, 6, 5, padding=2),  # 28 x 28
            "tanh1": nn.Tanh(),
            "s2": nn.AvgPool2d(2),  # 14 x 14
            "c3": conv(6, 16, 5),  # 10 x 10
            "tanh3": nn.Tanh(),
            "s4": nn.AvgPool2d(2),  # 5 x 5
            "flatten": nn.Flatten(),
            "c5": linear(16 * 5 * 5, 120),
            "tanh5": nn.Tanh(),
            "f6": linear(120, 84),
            "tanh6": nn.Tanh(),
            "output": linear(84, classes),
        }
    )
