"""CIFAR-10, as its authors' binary files and as an image folder."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ..errors import DataError
from .folder import load_folder
from .samples import Dataset, Samples, with_validation

CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
_SHAPE = (3, 32, 32)
_TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
_TEST = ("test_batch.bin",)


def load_cifar10(folder: str | os.PathLike[str], validation: float = 0.1, seed: int = 0) -> Dataset:
    """CIFAR-10's 60,000 colour images of ten classes, 32 x 32 pixels.

    Parameters
    ----------
    folder : path
        Either of the binary version, ``data_batch_1.bin`` to ``data_batch_5.bin``
        and ``test_batch.bin`` (or the folder ``cifar-10-batches-bin`` with them),
        or with the images as ``train/CLASS/*`` and ``test/CLASS/*``, which takes
        Pillow. The version for Python is not read: a pickle can run any program.
    validation : float, default 0.1
        Share of the training images, every class alike, that is set aside.
    seed : int, default 0
        Of the split.

    Returns
    -------
    Dataset
        Its images are (N, 3, 32, 32) uint8.

    Raises
    ------
    OSError
        If a file cannot be read.
    DataError
        If files are missing or broken.
    MissingPackageError
        If Pillow is needed and not installed.

    References
    ----------
    Krizhevsky, "Learning multiple layers of features from tiny images",
    technical report, University of Toronto, 2009.
    """
    root = Path(folder)
    for binary in (root, root / "cifar-10-batches-bin"):
        if (binary / _TRAIN[0]).exists():
            return with_validation(
                _read(binary, _TRAIN), _read(binary, _TEST), CLASSES, validation, seed
            )
    if (root / "train").is_dir() and (root / "test").is_dir():
        return load_folder(root, _SHAPE[1:], _SHAPE[0], validation, seed=seed)
    raise DataError(
        f"{root} must have the binary version of CIFAR-10 ({_TRAIN[0]}, ...) "
        f"or the folders train and test with a folder of images for each class"
    )


def _read(folder: Path, names: tuple[str, ...]) -> Samples:
    parts = [_read_file(folder / name) for name in names]
    return Samples(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _read_file(path: Path) -> Samples:
    """A file is records: one byte for the class, then the planes of red, green and blue."""
    if not path.exists():
        raise DataError(f"{path} is missing, one of the six files of CIFAR-10's binary version")
    content, record = path.read_bytes(), 1 + int(np.prod(_SHAPE))
    if not content or len(content) % record:
        raise DataError(
            f"{path} has {len(content)} bytes, expected a multiple of {record}, "
            f"the size of an image and its class: it is cut short, or another file"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, record)
    labels = records[:, 0].astype(np.int64)
    highest = int(np.max(labels))
    if highest >= len(CLASSES):
        raise DataError(f"{path} names a class {highest}, expected 0 to {len(CLASSES) - 1}")
    return Samples(records[:, 1:].reshape(-1, *_SHAPE), labels)
