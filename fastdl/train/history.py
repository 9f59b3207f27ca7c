"""What happened in a training run."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ..errors import DataError

FORMAT = "fastdl-history-1"


@dataclass(frozen=True)
class Epoch:
    """One pass over the training images.

    The training figures are means over the epoch, with dropout and random
    changes of the images, while the parameters change; the validation figures,
    None without validation images, are those of the epoch's end.

    Attributes
    ----------
    images_per_second : float
        Of the training, batches included, validation not.
    learning_rate : float
        Of the last step.
    metrics : dict of str to float
        Further figures on the validation images.
    """

    number: int
    train_loss: float
    train_accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    images_per_second: float
    learning_rate: float
    metrics: dict[str, float] = field(default_factory=dict)

    def better_than(self, other: Epoch) -> bool:
        """Whether its validation loss is lower; without validation, whether it is later.

        Not its accuracy: of few images that moves in large steps, and a lucky epoch would win.
        """
        if self.validation_loss is None or other.validation_loss is None:
            return self.number > other.number
        return self.validation_loss < other.validation_loss


@dataclass
class History:
    """Settings, epochs and results of a training run; `to_json` and `load` keep it as JSON.

    Attributes
    ----------
    settings : dict
        How the run was started.
    epochs : list of Epoch
    best_epoch : int or None
        Number of the best epoch so far.
    finished : bool
        False while the run goes on, and after an interruption.
    results : dict
        What was measured after the last epoch.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    epochs: list[Epoch] = field(default_factory=list)
    best_epoch: int | None = None
    finished: bool = False
    results: dict[str, Any] = field(default_factory=dict)

    @property
    def best(self) -> Epoch | None:
        """The best epoch so far; None before the first one has ended."""
        return None if self.best_epoch is None else self.epochs[self.best_epoch - 1]

    @property
    def images_per_second(self) -> float:
        """Training images a second: the median epoch, so that a slow start does not count."""
        return statistics.median(epoch.images_per_second for epoch in self.epochs)

    def add(self, epoch: Epoch) -> None:
        """Note an epoch, and whether it is the best so far."""
        best = self.best
        self.epochs.append(epoch)
        if best is None or epoch.better_than(best):
            self.best_epoch = epoch.number

    def to_json(self) -> str:
        """The whole of it as text."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n"

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> History:
        """What `to_json` wrote, parsed.

        Raises
        ------
        ValueError, TypeError, KeyError
            If it is something else.
        """
        if content["format"] != FORMAT:
            raise ValueError(f"format is {content['format']!r}, expected {FORMAT!r}")
        epochs = [Epoch(**epoch) for epoch in content["epochs"]]
        if [epoch.number for epoch in epochs] != list(range(1, len(epochs) + 1)):
            raise ValueError("the epochs are not numbered from 1")
        others = {name.name: content[name.name] for name in fields(cls)} | {"epochs": epochs}
        if others["best_epoch"] not in (None, *range(1, len(epochs) + 1)):
            raise ValueError(f"there is no epoch {others['best_epoch']}")
        return cls(**others)

    @classmethod
    def load(cls, path: str | Path) -> History:
        """Read what `to_json` wrote.

        Raises
        ------
        OSError
            If the file is missing or cannot be read.
        DataError
            If it is no training history.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path} is not a fastdl training history: {error!r}") from error
