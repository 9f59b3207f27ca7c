"""From pixels to numbers around zero."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ArgumentError, ShapeError
from .samples import Samples

Array = NDArray[Any]
WHITE = 255
#: So many images at a time, so that their statistics take little memory.
_CHUNK = 4096


class Normalize:
    """``(x - mean) / std``, channel by channel, where x is from 0 to 1.

    A uint8 image is divided by 255 first, in the same pass.

    Parameters
    ----------
    mean, std : sequence of float, default (0,) and (1,)
        For each channel, or one for all.

    Raises
    ------
    ArgumentError
        If they are not finite, not equally many, or ``std`` is not above 0.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import data
    >>> images = np.array([0, 51, 255], np.uint8).reshape(1, 1, 1, 3)
    >>> data.Normalize([0.2], [0.4])(images).round(3)
    array([[[[-0.5,  0. ,  2. ]]]], dtype=float32)
    """

    def __init__(self, mean: Sequence[float] = (0.0,), std: Sequence[float] = (1.0,)) -> None:
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))
        finite = np.isfinite([*self.mean, *self.std]).all()
        if not (finite and len(self.mean) == len(self.std) > 0 and min(self.std) > 0):
            raise ArgumentError(
                f"mean and std must be equally many finite numbers, std above 0, "
                f"got {self.mean} and {self.std}"
            )

    @classmethod
    def of(cls, samples: Samples) -> Normalize:
        """What gives the channels of ``samples`` mean 0 and standard deviation 1."""
        x = samples.x
        # Sums of float64, exact for bytes.
        total = np.zeros((2, x.shape[1]))
        for start in range(0, len(x), _CHUNK):
            chunk = x[start : start + _CHUNK]
            for channel in range(x.shape[1]):
                total[:, channel] += _sums(chunk[:, channel])
        mean, square = total / (x.size / x.shape[1])
        # A channel of one value alone stays that value less itself.
        std = np.sqrt(np.maximum(square - mean**2, 0))
        return cls(mean.tolist(), np.where(std > 0, std, 1).tolist())

    def __call__(self, x: Array, out: Array | None = None) -> Array:
        """Normalised x (N, C, H, W), in ``out`` if that is given.

        Raises
        ------
        ShapeError
            If x has not as many channels as there are means.
        """
        if len(self.mean) not in (1, x.shape[1]):
            raise ShapeError(f"x must have {len(self.mean)} channels, got {x.shape}")
        if out is None:
            out = np.empty(x.shape, output_dtype(x))
        unit = 1 / WHITE if x.dtype == np.uint8 else 1.0
        std = np.array(self.std).reshape(-1, 1, 1)
        scale = (unit / std).astype(out.dtype)
        shift = (-np.array(self.mean).reshape(-1, 1, 1) / std).astype(out.dtype)
        np.multiply(x, scale, out=out)
        if shift.any():
            out += shift
        return out


def output_dtype(x: Array) -> np.dtype[Any]:
    """The type of the numbers that x becomes: float32, unless it is float64."""
    return np.dtype(np.float64 if x.dtype == np.float64 else np.float32)


def _sums(plane: Array) -> tuple[float, float]:
    """The sum and the sum of squares of values from 0 to 1."""
    if plane.dtype == np.uint8:
        counts = np.bincount(plane.ravel(), minlength=WHITE + 1)
        values = np.arange(WHITE + 1)
        return float(counts @ values) / WHITE, float(counts @ values**2) / WHITE**2
    values = plane.astype(np.float64)
    return float(np.sum(values)), float(np.vdot(values, values))
