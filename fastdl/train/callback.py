"""What can be done while a training runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..geometry import integer

if TYPE_CHECKING:
    from .training import Training


class Callback:
    """Called by `fit`; a subclass overrides what it needs."""

    def on_start(self, training: Training) -> None:
        """Before the first epoch, or the first one after a resumption."""

    def on_step(self, training: Training) -> None:
        """After an update; the model's gradients are those that it took."""

    def on_epoch(self, training: Training) -> None:
        """After an epoch and its validation: the last one of ``training.history.epochs``."""

    def on_end(self, training: Training) -> None:
        """After the last epoch, and also when an error or Ctrl-C ends the training."""


class EarlyStopping(Callback):
    """Stop after ``patience`` epochs without a better one.

    Parameters
    ----------
    patience : int
        At least 1.

    Examples
    --------
    >>> from fastdl import train
    >>> train.EarlyStopping(patience=5).patience
    5
    """

    def __init__(self, patience: int) -> None:
        self.patience = integer("patience", patience, 1)

    def on_start(self, training: Training) -> None:
        # One that was interrupted after its last epoch does not take up another.
        self.on_epoch(training)

    def on_epoch(self, training: Training) -> None:
        best = training.history.best_epoch or 0
        if training.epoch - best >= self.patience:
            training.stop = True
