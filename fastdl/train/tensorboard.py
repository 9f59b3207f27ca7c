"""The figures of each epoch for TensorBoard."""

from __future__ import annotations

import os
import time
from typing import Any

from ..packages import needed
from .callback import Callback
from .training import Training

_PURPOSE = "the log for TensorBoard"


class TensorBoard(Callback):
    """Writes each epoch's figures where ``tensorboard --logdir folder`` finds them.

    Parameters
    ----------
    folder : path
        Made if it is missing; a file of its own for every run.

    Raises
    ------
    MissingPackageError
        If tensorboard is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._messages: Any = needed(
            "tensorboard.compat.proto.summary_pb2", "tensorboard", _PURPOSE
        )
        self._events: Any = needed("tensorboard.compat.proto.event_pb2", "tensorboard", _PURPOSE)
        self._files: Any = needed(
            "tensorboard.summary.writer.event_file_writer", "tensorboard", _PURPOSE
        )
        self.folder = os.fspath(folder)
        self._writer: Any = None

    def on_start(self, training: Training) -> None:
        self._writer = self._files.EventFileWriter(self.folder)

    def on_epoch(self, training: Training) -> None:
        epoch = training.history.epochs[-1]
        figures = {
            "loss/training": epoch.train_loss,
            "loss/validation": epoch.validation_loss,
            "accuracy/training": epoch.train_accuracy,
            "accuracy/validation": epoch.validation_accuracy,
            "speed/images per second": epoch.images_per_second,
            "learning rate": epoch.learning_rate,
            **{f"metrics/{name}": value for name, value in epoch.metrics.items()},
        }
        values = [
            self._messages.Summary.Value(tag=tag, simple_value=value)
            for tag, value in figures.items()
            if value is not None
        ]
        event = self._events.Event(
            wall_time=time.time(), step=epoch.number, summary=self._messages.Summary(value=values)
        )
        self._writer.add_event(event)
        self._writer.flush()

    def on_end(self, training: Training) -> None:
        if self._writer is not None:
            self._writer.close()
