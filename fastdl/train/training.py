"""A training run under way: all that changes, and how it is saved and restored."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..data import Loader
from ..errors import DataError, FastdlError
from ..io import load_state, save_state
from ..nn import Layer
from ..optim import Optimizer, Schedule
from .history import History

CHECKPOINT_FORMAT = "fastdl-checkpoint-1"


@dataclass
class Training:
    """What `fit` works on and callbacks see.

    Attributes
    ----------
    epoch, step : int
        Epochs and updates done so far.
    stop : bool
        Set it to end the training after this epoch.
    loss : float
        Of the latest batch.
    """

    model: Layer
    optimizer: Optimizer
    loader: Loader
    epochs: int
    schedule: Schedule | None = None
    history: History = field(default_factory=History)
    epoch: int = 0
    step: int = 0
    stop: bool = False
    loss: float = float("nan")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all of it to one safetensors file, whole or not at all.

        The arrays are the model's and the optimiser's; the rest is JSON in the
        file's metadata. A training that takes it up gives the same bits as one
        that was never interrupted.
        """
        arrays = {
            f"{part}/{name}": array
            for part, holder in self._holders().items()
            for name, array in holder.state_dict().items()
        }
        rest = {
            "format": CHECKPOINT_FORMAT,
            "epoch": self.epoch,
            "step": self.step,
            "lr": self.optimizer.lr,
            "generators": [rng.bit_generator.state for rng in generators(self.model)],
            "history": json.loads(self.history.to_json()),
        }
        save_state(path, arrays, {"training": json.dumps(rest)})

    def restore(self, path: str | os.PathLike[str]) -> None:
        """Go on where the training that wrote ``path`` was.

        Raises
        ------
        OSError
            If the file is missing or cannot be read.
        DataError
            If it is no checkpoint, or one of another model or optimiser.
        """
        arrays, metadata = load_state(path)
        try:
            rest = json.loads(metadata["training"])
            if rest["format"] != CHECKPOINT_FORMAT:
                raise ValueError(f"format is {rest['format']!r}, expected {CHECKPOINT_FORMAT!r}")
            history = History.from_dict(rest["history"])
            for part, holder in self._holders().items():
                holder.load_state_dict(_below(f"{part}/", arrays))
            own = list(generators(self.model))
            for rng, state in zip(own, rest["generators"], strict=True):
                rng.bit_generator.state = state
            self.optimizer.lr = rest["lr"]
            self.epoch, self.step, self.history = rest["epoch"], rest["step"], history
        except (FastdlError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(
                f"{os.fspath(path)} is no checkpoint of this training: {error!r}"
            ) from error

    def _holders(self) -> dict[str, Any]:
        """What has arrays of state, by the name it has in a checkpoint."""
        schedule = {} if self.schedule is None else {"schedule": self.schedule}
        return {"model": self.model, "optimizer": self.optimizer, **schedule}


def generators(layer: Layer) -> Iterator[np.random.Generator]:
    """The random generators of a network's layers, in order; a shared one as often as it is held."""
    rng = getattr(layer, "rng", None)
    if isinstance(rng, np.random.Generator):
        yield rng
    for child in layer.children().values():
        yield from generators(child)


def _below(prefix: str, arrays: dict[str, Any]) -> dict[str, Any]:
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
