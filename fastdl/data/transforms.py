"""Changes that leave an image what it shows: they make more of few images.

Each takes a batch (N, C, H, W) and a Generator, and gives a new batch.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ..errors import ArgumentError, ShapeError
from ..geometry import integer

Array = NDArray[Any]


class Transform(Protocol):
    """A random change of a batch."""

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        """The changed batch; x stays as it is."""


class RandomCrop:
    """A part of each image at a random place, after a border of zeros all round.

    Parameters
    ----------
    padding : int, default 0
        Width of the border.
    size : (height, width), optional
        Of the part; by default as large as the image.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import data
    >>> crop = data.RandomCrop(padding=4)
    >>> crop(np.ones((2, 3, 32, 32), np.uint8), np.random.default_rng(0)).shape
    (2, 3, 32, 32)
    """

    def __init__(self, padding: int = 0, size: tuple[int, int] | None = None) -> None:
        self.padding = integer("padding", padding, 0)
        self.size = None if size is None else tuple(integer("size", side, 1) for side in size)

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        """The parts of batch x.

        Raises
        ------
        ShapeError
            If ``size`` is more than the image and its border.
        """
        number, channels, height, width = x.shape
        border = self.padding
        padded = np.zeros((number, channels, height + 2 * border, width + 2 * border), x.dtype)
        padded[:, :, border : border + height, border : border + width] = x
        size = self.size or (height, width)
        if size[0] > padded.shape[2] or size[1] > padded.shape[3]:
            raise ShapeError(f"size must be at most {padded.shape[2:]}, got {size}")
        windows = sliding_window_view(padded, size, axis=(2, 3))
        top = rng.integers(0, windows.shape[2], number)
        left = rng.integers(0, windows.shape[3], number)
        return windows[np.arange(number), :, top, left]


class Shift(RandomCrop):
    """Each image moved by up to ``pixels`` up or down and left or right; zeros come in.

    The same as a `RandomCrop` with that padding.

    Parameters
    ----------
    pixels : int
        At least 0.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import data
    >>> image = np.array([1, 2, 3]).reshape(1, 1, 1, 3)
    >>> data.Shift(1)(image, np.random.default_rng(2)).ravel()
    array([0, 0, 0])
    """

    def __init__(self, pixels: int) -> None:
        super().__init__(padding=integer("pixels", pixels, 0))


class HorizontalFlip:
    """Each image mirrored, left for right, with probability ``p``.

    Parameters
    ----------
    p : float, default 0.5
        At least 0, at most 1.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import data
    >>> image = np.array([1, 2, 3]).reshape(1, 1, 1, 3)
    >>> data.HorizontalFlip(1)(image, np.random.default_rng(0)).ravel()
    array([3, 2, 1])
    """

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise ArgumentError(f"p must be a probability, 0 to 1, got {p!r}")
        self.p = p

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        """Batch x, some images mirrored."""
        out, chosen = x.copy(), rng.random(len(x)) < self.p
        out[chosen] = x[chosen, ..., ::-1]
        return out
