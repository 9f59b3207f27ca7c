"""MNIST, and what comes in the same files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ..errors import DataError
from .idx import read_idx
from .samples import Dataset, Samples, with_validation


def load_mnist(folder: str | os.PathLike[str], validation: float = 0.1, seed: int = 0) -> Dataset:
    """MNIST's 70,000 handwritten digits, 28 x 28 pixels, or another set in files of its names.

    Parameters
    ----------
    folder : path
        Where ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``,
        ``t10k-images-idx3-ubyte`` and ``t10k-labels-idx1-ubyte`` are, each as it
        is or with ``.gz``.
    validation : float, default 0.1
        Share of the training images, every class alike, that is set aside.
    seed : int, default 0
        Of the split.

    Returns
    -------
    Dataset
        Its images are (N, 1, 28, 28) uint8.

    Raises
    ------
    OSError
        If a file cannot be read.
    DataError
        If a file is missing, is broken, or does not fit the others.

    References
    ----------
    LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to
    document recognition", Proceedings of the IEEE, 1998.
    """
    train, test = _part(Path(folder), "train"), _part(Path(folder), "t10k")
    if train.x.shape[1:] != test.x.shape[1:]:
        raise DataError(
            f"{folder}: the images to train on are {train.x.shape[2:]} pixels, "
            f"those to test {test.x.shape[2:]}"
        )
    count = max(int(np.max(part.y)) for part in (train, test)) + 1
    return with_validation(train, test, tuple(map(str, range(count))), validation, seed)


def _part(folder: Path, name: str) -> Samples:
    images_file = _find(folder, f"{name}-images-idx3-ubyte")
    labels_file = _find(folder, f"{name}-labels-idx1-ubyte")
    images, labels = read_idx(images_file), read_idx(labels_file)
    for file, array, axes in ((images_file, images, 3), (labels_file, labels, 1)):
        if array.ndim != axes or array.dtype != np.uint8 or not array.size:
            raise DataError(
                f"{file} must hold bytes along {axes} axes, got {array.dtype} {array.shape}"
            )
    if len(images) != len(labels):
        raise DataError(f"{images_file} has {len(images)} images, {labels_file} {len(labels)}")
    return Samples(images[:, np.newaxis], labels.astype(np.int64))


def _find(folder: Path, name: str) -> Path:
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.exists():
            return candidate
    raise DataError(f"{folder} has no {name} (or {name}.gz), one of the four files of MNIST")
