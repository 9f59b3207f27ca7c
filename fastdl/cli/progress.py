"""What the user sees while a training run goes on."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from ..packages import needed
from ..train import Epoch


class Progress:
    """A bar over all steps on a terminal, and a line an epoch everywhere.

    Parameters
    ----------
    epochs, steps : int
        How many there will be, steps over all epochs.
    bar : bool
        False: never a bar, and tqdm is not needed.
    """

    def __init__(self, epochs: int, steps: int, bar: bool) -> None:
        self.epochs, self.steps = epochs, steps
        self._tqdm: Any = needed("tqdm", "tqdm", "the progress bar") if bar else None
        self._bar: Any = None

    def __enter__(self) -> Progress:
        if self._tqdm is not None:
            # With None the bar shows on a terminal only.
            self._bar = self._tqdm.tqdm(
                total=self.steps, unit="step", disable=None, leave=False, dynamic_ncols=True
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def step(self) -> None:
        """One training step is done."""
        if self._bar is not None:
            self._bar.update()

    def epoch(self, epoch: Epoch, best: Epoch | None) -> None:
        """Say how an epoch went."""
        if self._bar is not None:
            # The bar leaves its line before the text comes, and is drawn again below it.
            self._bar.clear()
        print(self._line(epoch, best), flush=True)
        if self._bar is not None and best is not None:
            self._bar.set_postfix_str(
                f"epoch {epoch.number}, best {best.validation_accuracy:.1%}", refresh=True
            )

    def _line(self, epoch: Epoch, best: Epoch | None) -> str:
        width = len(str(self.epochs))
        return (
            f"epoch {epoch.number:{width}d}/{self.epochs}"
            f"  loss {epoch.train_loss:.4f}  accuracy {epoch.train_accuracy:7.2%}"
            f"  validation loss {epoch.validation_loss:.4f}"
            f"  accuracy {epoch.validation_accuracy:7.2%}{'  best' if epoch is best else ''}"
        )
