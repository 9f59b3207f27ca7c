"""What happened in a training run."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ..errors import DataError

FORMAT = "fastdl-history-1"


@dataclass(frozen=True)
class Epoch:
    """One pass over the training images.

    The training figures are means over the epoch, with dropout, while the
    parameters change; the validation figures are those of the epoch's end.
    """

    number: int
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    images_per_second: float

    def better_than(self, other: Epoch) -> bool:
        """Whether its validation loss is lower.

        Not its accuracy: of few images that moves in large steps, and a lucky epoch would win.
        """
        return self.validation_loss < other.validation_loss


@dataclass
class History:
    """Settings, epochs and results of a training run; `save` and `load` keep it as JSON.

    Attributes
    ----------
    settings : dict
        How the run was started.
    epochs : list of Epoch
    best_epoch : int or None
        Number of the epoch whose model was kept.
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
    def images_per_second(self) -> float:
        """Training images a second: the median epoch, so that a slow start does not count."""
        return statistics.median(epoch.images_per_second for epoch in self.epochs)

    def to_json(self) -> str:
        """The whole of it as text."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n"

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
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise ValueError(f"format is {content['format']!r}, expected {FORMAT!r}")
            epochs = [Epoch(**epoch) for epoch in content["epochs"]]
            others = {name.name: content[name.name] for name in fields(cls)} | {"epochs": epochs}
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path} is not a fastdl training history: {error!r}") from error
        return cls(**others)
