"""``--data``: which data set, and what trains well on it."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from ..data import (
    Dataset,
    HorizontalFlip,
    Normalize,
    RandomCrop,
    Shift,
    Transform,
    load_cifar10,
    load_digits,
    load_folder,
    load_mnist,
)
from ..errors import ArgumentError

DIGITS, MNIST, CIFAR10, FOLDER = "digits", "mnist", "cifar10", "folder"
HELP = f"{DIGITS} | {MNIST}:PATH | {CIFAR10}:PATH | {FOLDER}:PATH"


@dataclass(frozen=True)
class Recipe:
    """What ``fastdl train`` does where the command line does not say otherwise."""

    model: str
    optimizer: str
    lr: float
    schedule: str
    epochs: int
    batch_size: int
    augment: str = "none"
    l2: float = 0.0
    label_smoothing: float = 0.1
    normalize: bool = True


#: Shift and crop in pixels: a share of the image that leaves what it shows.
RECIPES = {
    DIGITS: Recipe("digits_cnn", "adam", 2e-3, "cosine", 30, 32, normalize=False),
    MNIST: Recipe("mnist_cnn", "adam", 3e-3, "one-cycle", 10, 128, "shift", label_smoothing=0.0),
    CIFAR10: Recipe(
        "resnet9", "nesterov", 0.1, "one-cycle", 10, 128, "crop+flip", l2=5e-4, label_smoothing=0.0
    ),
    FOLDER: Recipe("gap_net", "adam", 2e-3, "one-cycle", 20, 32, "crop+flip", l2=1e-4),
}

AUGMENTATIONS = ("none", "shift", "crop", "flip", "crop+flip")
#: Pixels of the border of a crop, and of a shift, in parts of the image's height.
_CROP, _SHIFT = 8, 14


def parse(text: str) -> tuple[str, str]:
    """``--data`` as name and path, for argparse.

    >>> parse("mnist:/data/mnist"), parse("digits")
    (('mnist', '/data/mnist'), ('digits', ''))
    """
    name, _, path = text.partition(":")
    if name not in RECIPES:
        raise argparse.ArgumentTypeError(f"must be {HELP}, got {text!r}")
    if (name == DIGITS) == bool(path):
        wanted = DIGITS if name == DIGITS else f"{name}:PATH, the folder of its files"
        raise argparse.ArgumentTypeError(f"must be {wanted}, got {text!r}")
    return name, path


def load(
    name: str, path: str, size: tuple[int, int] | None = None, channels: int | None = None
) -> Dataset:
    """The data set of `parse`; size and channels are for an image folder alone."""
    if name == FOLDER:
        return load_folder(path, size, channels or 3)
    if size is not None or channels is not None:
        raise ArgumentError(f"--size and --channels are for --data {FOLDER}:PATH, not {name}")
    if name == DIGITS:
        return load_digits()
    return load_mnist(path) if name == MNIST else load_cifar10(path)


def normalization(recipe: Recipe, dataset: Dataset) -> Normalize:
    """Of the data set's own statistics, or none."""
    return Normalize.of(dataset.train) if recipe.normalize else Normalize()


def transforms(augment: str, dataset: Dataset) -> list[Transform]:
    """The random changes of that name, one of `AUGMENTATIONS`."""
    height = dataset.image_shape[1]
    made: list[Transform] = []
    if augment == "shift":
        made.append(Shift(max(1, round(height / _SHIFT))))
    if augment.startswith("crop"):
        made.append(RandomCrop(padding=max(1, round(height / _CROP))))
    if augment.endswith("flip"):
        made.append(HorizontalFlip())
    return made
