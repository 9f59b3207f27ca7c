"""What training learns from: images with their classes, in three parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .split import stratified_split


class Samples(NamedTuple):
    """Images and their classes.

    Attributes
    ----------
    x : ndarray (N, C, H, W)
        uint8 from 0 to 255, or floats that mean the same from 0 to 1.
    y : ndarray (N,) of int64
        The position of each image's class among the classes.
    """

    x: NDArray[Any]
    y: NDArray[np.int64]


@dataclass(frozen=True)
class Dataset:
    """Three parts of a data set; no image is in two of them.

    Attributes
    ----------
    train : Samples
        To learn from.
    validation : Samples
        To choose among models, and when to stop.
    test : Samples
        To judge the chosen one, once.
    classes : tuple of str
        What ``y`` counts.
    """

    train: Samples
    validation: Samples
    test: Samples
    classes: tuple[str, ...]

    @property
    def parts(self) -> tuple[Samples, Samples, Samples]:
        """Train, validation, test."""
        return self.train, self.validation, self.test

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.train.x.shape[1:]
        return channels, height, width


def with_validation(
    train: Samples, test: Samples, classes: tuple[str, ...], fraction: float, seed: int
) -> Dataset:
    """The data set whose validation part is a stratified ``fraction`` of ``train``."""
    kept, aside = stratified_split(train.y, fraction, seed)
    return Dataset(subset(train, kept), subset(train, aside), test, classes)


def subset(samples: Samples, positions: NDArray[np.intp]) -> Samples:
    """The samples at ``positions``, copied."""
    return Samples(samples.x[positions], samples.y[positions])
