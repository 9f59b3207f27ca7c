"""What the user sees while a training run goes on."""

from __future__ import annotations

from typing import Any

from ..packages import needed
from .callback import Callback
from .history import Epoch
from .training import Training


class Progress(Callback):
    """A bar over all steps on a terminal, and a line an epoch everywhere.

    Parameters
    ----------
    bar : bool, default True
        False: never a bar, and tqdm is not needed.

    Raises
    ------
    MissingPackageError
        If tqdm is needed and not installed.
    """

    def __init__(self, bar: bool = True) -> None:
        self._tqdm: Any = needed("tqdm", "tqdm", "the progress bar") if bar else None
        self._bar: Any = None

    def on_start(self, training: Training) -> None:
        if self._tqdm is not None:
            # With None the bar shows on a terminal only.
            self._bar = self._tqdm.tqdm(
                total=training.epochs * len(training.loader),
                initial=training.step,
                unit="step",
                disable=None,
                leave=False,
                dynamic_ncols=True,
            )

    def on_step(self, training: Training) -> None:
        if self._bar is not None:
            self._bar.update()

    def on_epoch(self, training: Training) -> None:
        if self._bar is not None:
            # The bar leaves its line before the text comes, and is drawn again below it.
            self._bar.clear()
        epoch, best = training.history.epochs[-1], training.history.best
        print(_line(epoch, best, training.epochs), flush=True)
        if self._bar is not None and best is not None:
            accuracy = best.validation_accuracy
            known = "" if accuracy is None else f", best {accuracy:.1%}"
            self._bar.set_postfix_str(f"epoch {epoch.number}{known}", refresh=True)

    def on_end(self, training: Training) -> None:
        if self._bar is not None:
            self._bar.close()


def _line(epoch: Epoch, best: Epoch | None, epochs: int) -> str:
    parts = [
        f"epoch {epoch.number:{len(str(epochs))}d}/{epochs}",
        f"loss {epoch.train_loss:.4f}",
        f"accuracy {epoch.train_accuracy:7.2%}",
    ]
    if epoch.validation_loss is not None and epoch.validation_accuracy is not None:
        parts += [
            f"validation loss {epoch.validation_loss:.4f}",
            f"accuracy {epoch.validation_accuracy:7.2%}",
        ]
    parts += [f"{name} {value:.4g}" for name, value in epoch.metrics.items()]
    parts += ["best"] if epoch is best else []
    return "  ".join(parts)
