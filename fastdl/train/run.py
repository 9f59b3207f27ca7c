"""The folder of a training run: the best model so far, the history, the picture."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from ..errors import ArgumentError, DataError
from ..io import save_state, write_atomically
from ..nn import Layer
from ..nn.base import State
from ..packages import needed
from .history import Epoch, History
from .plot import learning_curve


class Run:
    """Keeps the best model of a training run, on disk from its epoch on.

    Parameters
    ----------
    folder : path
        Made when the first epoch is recorded. Nothing but the three files named
        below is ever written in it; those of an earlier run are replaced.
    metadata : mapping of str to str
        Goes into the model file; "model" names the network for `fastdl.models.load`.
    settings : mapping
        Goes into the history.

    Attributes
    ----------
    model, record, picture : Path
        ``model.safetensors``, ``history.json`` and ``learning-curve.png`` in the folder.
    replaces : bool
        Whether the folder holds an earlier run.

    Raises
    ------
    ArgumentError
        If the folder cannot be made or written, or one of the three files in it
        is not an earlier run's.
    MissingPackageError
        If safetensors or matplotlib is not installed.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        metadata: Mapping[str, str],
        settings: Mapping[str, Any],
    ) -> None:
        needed("safetensors.numpy", "safetensors", "the model file of a training run")
        needed("matplotlib.figure", "matplotlib", "the learning curve of a training run")
        self.folder = Path(folder)
        self.model = self.folder / "model.safetensors"
        self.record = self.folder / "history.json"
        self.picture = self.folder / "learning-curve.png"
        self.metadata = dict(metadata)
        self.history = History(dict(settings))
        self._best: tuple[Epoch, State] | None = None
        _check_writable(self.folder)
        self.replaces = self._holds_earlier_run()

    @property
    def files(self) -> tuple[Path, Path, Path]:
        """Model, history and picture."""
        return self.model, self.record, self.picture

    @property
    def best(self) -> Epoch | None:
        """The epoch whose model is kept; None before the first one has ended."""
        return self._best[0] if self._best else None

    def add(self, epoch: Epoch, model: Layer) -> None:
        """Note ``epoch``, and keep ``model`` if it validates best so far."""
        if self.best is None:
            # An earlier run's picture would show another model than the one beside it.
            self.picture.unlink(missing_ok=True)
        self.history.epochs.append(epoch)
        if self.best is None or epoch.better_than(self.best):
            state = {name: array.copy() for name, array in model.state_dict().items()}
            # One assignment: an interrupt finds the old pair or the new one.
            self._best = epoch, state
        self._save()

    def restore_best(self, model: Layer) -> None:
        """Put the best parameters so far into ``model``."""
        if self._best:
            model.load_state_dict(self._best[1])

    def finish(self) -> None:
        """The run has come to its end: write all three files."""
        self.history.finished = True
        self.stop()

    def stop(self) -> None:
        """The run goes no further: write what there is, which is nothing before the first epoch."""
        if self._best is not None:
            self._save()
            write_atomically(self.picture, learning_curve(self.history))

    def _save(self) -> None:
        epoch, state = cast("tuple[Epoch, State]", self._best)
        self.history.best_epoch = epoch.number
        self.folder.mkdir(parents=True, exist_ok=True)
        # The history first: by it a folder is known as a run's.
        write_atomically(self.record, self.history.to_json().encode())
        save_state(self.model, state, {**self.metadata, "epoch": str(epoch.number)})

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
