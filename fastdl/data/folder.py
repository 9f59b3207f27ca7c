"""Image folders: one folder a class."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .images import read_image
from .samples import Dataset, Samples, subset, with_validation
from .split import stratified_split

SUFFIXES = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
_GIVE_SIZE = "give a size to bring all images to one shape"


def load_folder(
    folder: str | os.PathLike[str],
    size: tuple[int, int] | None = None,
    channels: int = 3,
    validation: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
) -> Dataset:
    """Images in one folder a class: ``folder/CLASS/*.jpg``.

    Where ``folder`` has the folders ``train`` and ``test``, the classes are in
    each of them, and the split is theirs. All images are decoded into memory.

    Parameters
    ----------
    folder : path
    size : (height, width), optional
        Cut every image's middle to this shape and scale it. By default all must
        be of one size already.
    channels : {3, 1}
        Colour or grey.
    validation : float, default 0.1
        Share of the images to train on, every class alike, that is set aside.
    test : float, default 0.2
        Share of all images for the test, where ``folder`` does not say which.
    seed : int, default 0
        Of the splits.

    Returns
    -------
    Dataset
        Its images are uint8, its classes the folders' names, sorted.

    Raises
    ------
    OSError
        If a file cannot be read.
    DataError
        If there are fewer than two classes, a class has too few images, or an
        image is broken or of another size.
    MissingPackageError
        If Pillow is not installed.
    """
    root = Path(folder)
    if (root / "train").is_dir() and (root / "test").is_dir():
        classes, train = _read(root / "train", size, channels, least=2)
        others, judging = _read(root / "test", size, channels, least=1)
        if classes != others:
            raise DataError(
                f"{root / 'train'} has the classes {list(classes)}, {root / 'test'} {list(others)}"
            )
        if train.x.shape[1:] != judging.x.shape[1:]:
            raise DataError(
                f"{root / 'train'} has images of {_pixels(train.x[0])}, "
                f"{root / 'test'} of {_pixels(judging.x[0])}; {_GIVE_SIZE}"
            )
        return with_validation(train, judging, classes, validation, seed)
    classes, everything = _read(root, size, channels, least=3)
    rest, aside = stratified_split(everything.y, test, seed)
    return with_validation(
        subset(everything, rest), subset(everything, aside), classes, validation, seed
    )


def _read(
    root: Path, size: tuple[int, int] | None, channels: int, least: int
) -> tuple[tuple[str, ...], Samples]:
    """The classes of ``root`` and their images, at least ``least`` a class."""
    classes = _classes(root)
    files: list[Path] = []
    labels: list[int] = []
    for position, name in enumerate(classes):
        found = sorted(file for file in (root / name).iterdir() if file.suffix.lower() in SUFFIXES)
        if len(found) < least:
            raise DataError(
                f"{root / name} has {len(found)} images ({', '.join(sorted(SUFFIXES))}); "
                f"a class must have at least {least}"
            )
        files += found
        labels += [position] * len(found)
    return classes, Samples(_decode(files, size, channels), np.array(labels, np.int64))


def _classes(root: Path) -> tuple[str, ...]:
    if not root.is_dir():
        raise DataError(f"{root} is not a folder")
    names = sorted(
        entry.name for entry in root.iterdir() if entry.is_dir() and entry.name[0] not in "._"
    )
    if len(names) < 2:
        raise DataError(f"{root} must have a folder for each of two or more classes, got {names}")
    return tuple(names)


def _decode(files: list[Path], size: tuple[int, int] | None, channels: int) -> NDArray[np.uint8]:
    # One thread: Pillow's work on a small image is mostly Python, and threads made it slower.
    first = read_image(files[0], size, channels)
    x = np.empty((len(files), *first.shape), np.uint8)
    for position, file in enumerate(files):
        image = read_image(file, size, channels)
        if image.shape != first.shape:
            raise DataError(
                f"{file} has {_pixels(image)}, {files[0]} {_pixels(first)}; {_GIVE_SIZE}"
            )
        x[position] = image
    return x


def _pixels(image: NDArray[np.uint8]) -> str:
    return f"{image.shape[1]} x {image.shape[2]} pixels"
