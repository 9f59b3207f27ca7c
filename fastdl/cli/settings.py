"""The settings of a training run: from the command line, from an earlier run, by default."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..errors import ArgumentError, DataError
from ..models import BUILDERS
from . import sources
from .arguments import image_size, not_negative, positive, share, whole
from .optimizers import OPTIMIZERS, SCHEDULES, SCHEDULES_HELP


@dataclass(frozen=True)
class Settings:
    """All that decides what a run computes."""

    data: str
    path: str
    size: tuple[int, int] | None
    channels: int | None
    model: str
    optimizer: str
    lr: float
    schedule: str
    epochs: int
    batch_size: int
    augment: str
    l1: float
    l2: float
    label_smoothing: float
    max_norm: float | None
    patience: int | None
    seed: int

    @property
    def recipe(self) -> sources.Recipe:
        """The defaults of the data set."""
        return sources.RECIPES[self.data]


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add an option for every setting; one that is not given is None."""
    data = parser.add_argument_group(
        "data", "What is learnt. The defaults of the other options go with it."
    ).add_argument
    data(
        "--data",
        type=sources.parse,
        metavar="NAME[:PATH]",
        help=f"{sources.HELP}. PATH is the folder with MNIST's four IDX files, with CIFAR-10's "
        "binary files, or with a folder of images for each class (default: digits)",
    )
    data("--size", type=image_size, metavar="HxW", help="bring the images of a folder to this size")
    data("--channels", type=int, choices=(1, 3), help="read a folder's images as grey or colour")
    data(
        "--augment",
        choices=sources.AUGMENTATIONS,
        help=f"change the training images at random{_defaults('augment')}",
    )
    learning = parser.add_argument_group("training").add_argument
    learning("--model", choices=sorted(BUILDERS), help=f"the network{_defaults('model')}")
    learning("--optimizer", choices=OPTIMIZERS, help=f"what updates it{_defaults('optimizer')}")
    learning(
        "--lr",
        type=positive,
        metavar="X",
        help=f"the highest learning rate{_defaults('lr')}",
    )
    learning("--schedule", choices=SCHEDULES, help=f"{SCHEDULES_HELP}{_defaults('schedule')}")
    learning(
        "--epochs",
        type=whole(1),
        metavar="N",
        help=f"passes over the training images{_defaults('epochs')}",
    )
    learning(
        "--batch-size",
        type=whole(1),
        metavar="N",
        help=f"images an update{_defaults('batch_size')}",
    )
    learning("--l1", type=not_negative, metavar="X", help="add X * sum|w| to the loss (default: 0)")
    learning(
        "--l2",
        type=not_negative,
        metavar="X",
        help=f"add X/2 * sum(w**2) to the loss{_defaults('l2')}",
    )
    learning(
        "--label-smoothing",
        type=share,
        metavar="X",
        help=f"share of the target spread over all classes{_defaults('label_smoothing')}",
    )
    learning("--max-norm", type=positive, metavar="X", help="bring longer gradients to norm X")
    learning(
        "--patience",
        type=whole(1),
        metavar="N",
        help="stop after N epochs without a better one (default: never)",
    )
    learning(
        "--seed",
        type=whole(0),
        metavar="N",
        help="of first weights, order, dropout and augmentation, not of the split (default: 0)",
    )


def from_arguments(args: argparse.Namespace) -> Settings:
    """What was typed, and defaults where nothing was."""
    name, path = args.data or (sources.DIGITS, "")
    recipe = asdict(sources.RECIPES[name])
    others: dict[str, Any] = {"l1": 0.0, "seed": 0}
    given = {field.name: getattr(args, field.name, None) for field in fields(Settings)}
    defaults = {**dict.fromkeys(given), **others, **recipe}
    chosen = {key: defaults[key] if value is None else value for key, value in given.items()}
    return Settings(**{**chosen, "data": name, "path": os.path.abspath(path) if path else ""})


def from_history(content: dict[str, Any], args: argparse.Namespace) -> Settings:
    """Those of the run that goes on.

    Raises
    ------
    ArgumentError
        If one is given on the command line too.
    DataError
        If ``content`` is not what `asdict` makes of Settings.
    """
    names = [field.name for field in fields(Settings)]
    for name in names:
        if getattr(args, name, None) is not None:
            raise ArgumentError(
                f"--{name.replace('_', '-')} cannot be given with --resume, "
                f"which goes on with the settings of the run"
            )
    try:
        values = {name: content[name] for name in names}
        size = values["size"]
        return Settings(**{**values, "size": size if size is None else tuple(size)})
    except (KeyError, TypeError) as error:
        raise DataError(f"the run's history lacks a setting: {error}") from error


def _defaults(name: str) -> str:
    """The default of a setting, for each data set where they differ."""
    values: dict[Any, list[str]] = {}
    for data, recipe in sources.RECIPES.items():
        values.setdefault(getattr(recipe, name), []).append(data)
    if len(values) == 1:
        return f" (default: {next(iter(values))})"
    each = (f"{value} for {' and '.join(names)}" for value, names in values.items())
    return f" (default: {', '.join(each)})"
