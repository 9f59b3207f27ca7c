"""The folder of a training run: best model, last state, history, picture."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ArgumentError, DataError
from ..io import load_state, save_state, write_atomically
from ..nn import Layer
from ..packages import needed
from .callback import Callback
from .history import History
from .plot import learning_curve
from .training import Training


class Run(Callback):
    """Keeps a training run on disk, from its first epoch on.

    Every file is written whole or not at all: after a crash, or a kill at any
    moment, all that are there can be read.

    Parameters
    ----------
    folder : path
        Made when the first epoch ends. Nothing but the four files named below is
        ever written in it; those of an earlier run are replaced.
    metadata : mapping of str to str, optional
        Goes into the model file; "model" names the network for `fastdl.models.load`.
    settings : mapping, optional
        Goes into the history.

    Attributes
    ----------
    model : Path
        ``model.safetensors``: the best model so far.
    last : Path
        ``last.safetensors``: what `fit` needs to go on (``resume=run.last``).
    record, picture : Path
        ``history.json`` and ``learning-curve.png``.
    replaces : bool
        Whether the folder holds an earlier run.

    Raises
    ------
    ArgumentError
        If the folder cannot be made or written, or one of the files in it
        is not an earlier run's.
    MissingPackageError
        If safetensors or matplotlib is not installed.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        metadata: Mapping[str, str] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        needed("safetensors.numpy", "safetensors", "the model file of a training run")
        needed("matplotlib.figure", "matplotlib", "the learning curve of a training run")
        self.folder = Path(folder)
        self.model = self.folder / "model.safetensors"
        self.last = self.folder / "last.safetensors"
        self.record = self.folder / "history.json"
        self.picture = self.folder / "learning-curve.png"
        self.metadata, self.settings = dict(metadata or {}), dict(settings or {})
        self.history = History()
        _check_writable(self.folder)
        self.replaces = self._holds_earlier_run()

    @property
    def files(self) -> tuple[Path, Path, Path, Path]:
        """Model, last state, history and picture."""
        return self.model, self.last, self.record, self.picture

    def on_start(self, training: Training) -> None:
        self.history = training.history
        self.history.settings = self.settings

    def on_epoch(self, training: Training) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if training.epoch == 1:
            # An earlier run's picture would show another model than the one beside it.
            self.picture.unlink(missing_ok=True)
        # The history first: by it a folder is known as a run's. The last state at the end: who
        # goes on from it finds the best model of its history beside it, or does that epoch again.
        self._write_history()
        if self.history.best_epoch == training.epoch:
            state, epoch = training.model.state_dict(), str(training.epoch)
            save_state(self.model, state, {**self.metadata, "epoch": epoch})
        training.save(self.last)

    def restore_best(self, model: Layer) -> None:
        """Put the best parameters so far into ``model``."""
        model.load_state_dict(load_state(self.model)[0])

    def finish(self) -> None:
        """The run has come to its end: write its history, results included, and the picture."""
        self.history.finished = True
        self.stop()

    def stop(self) -> None:
        """The run goes no further: write what there is, which is nothing before the first epoch."""
        if self.history.epochs:
            self._write_history()
            write_atomically(self.picture, learning_curve(self.history))

    def _write_history(self) -> None:
        write_atomically(self.record, self.history.to_json().encode())

    def _holds_earlier_run(self) -> bool:
        present = [file.name for file in self.files if os.path.lexists(file)]
        if not present:
            return False
        try:
            History.load(self.record)
        except (OSError, DataError):
            raise ArgumentError(
                f"output {str(self.folder)!r} holds {', '.join(present)} that no training run "
                f"of fastdl wrote; choose another folder"
            ) from None
        return True


def _check_writable(folder: Path) -> None:
    """Say now, not after the training, that ``folder`` cannot be made or written in."""
    if os.path.lexists(folder) and not folder.is_dir():
        raise ArgumentError(f"output must be a folder, got the file {str(folder)!r}")
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise ArgumentError(
            f"output {str(folder)!r} cannot be written: {error.strerror} ({existing})"
        ) from error
