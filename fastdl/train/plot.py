"""The picture of a training run."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from ..errors import ArgumentError
from ..packages import needed
from .history import Epoch, History

TRAIN, VALIDATION, BEST = "#1f77b4", "#d95f02", "#555555"
#: Training's and validation's figure of an epoch.
Figures = Callable[[Epoch], tuple[float, float | None]]


def new_figure(width: float, height: float, purpose: str) -> Any:
    """An empty matplotlib figure, in inches."""
    # Not pyplot: that would choose a backend, and keep the figure, for the whole process.
    module: Any = needed("matplotlib.figure", "matplotlib", purpose)
    return module.Figure(figsize=(width, height), dpi=120, layout="constrained")


def png(figure: Any) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def learning_curve(history: History) -> bytes:
    """A PNG: loss and error against epochs, training beside validation, the best epoch marked.

    Raises
    ------
    ArgumentError
        If there is no epoch to show.
    MissingPackageError
        If matplotlib is not installed.
    """
    if not history.epochs:
        raise ArgumentError("history must have at least one epoch to show")
    figure = new_figure(10, 4.5, "the learning curve")
    figure.suptitle(_title(history))
    losses, errors = figure.subplots(1, 2)
    _panel(
        losses,
        history,
        _loss_label(history),
        lambda epoch: (epoch.train_loss, epoch.validation_loss),
    )
    _panel(
        errors,
        history,
        "error: images classified wrongly (%)",
        lambda epoch: (_error(epoch.train_accuracy), _error(epoch.validation_accuracy)),
    )
    test = history.results.get("test_accuracy")
    if test is not None:
        error = _error(test)
        errors.axhline(error, color=BEST, linewidth=1, label=f"test: {error:.2f} %")
    errors.set_ylim(bottom=0)
    errors.legend(loc="upper right")
    return png(figure)


def _error(accuracy: float | None) -> Any:
    return None if accuracy is None else 100 * (1 - accuracy)


def _title(history: History) -> str:
    accuracy = history.results.get("test_accuracy")
    if accuracy is None:
        return f"stopped after epoch {len(history.epochs)}, before the test"
    return f"test accuracy {100 * accuracy:.2f} % (the model of epoch {history.best_epoch})"


def _loss_label(history: History) -> str:
    smoothing = history.settings.get("label_smoothing")
    return "cross-entropy loss" + (f" (label smoothing {smoothing:g})" if smoothing else "")


def _panel(axes: Any, history: History, label: str, figures: Figures) -> None:
    numbers = [epoch.number for epoch in history.epochs]
    train, validation = zip(*map(figures, history.epochs), strict=True)
    axes.plot(
        numbers, train, marker=".", color=TRAIN, label="training (epoch mean, while it learns)"
    )
    if None not in validation:
        axes.plot(numbers, validation, marker=".", color=VALIDATION, label="validation")
    if history.best_epoch is not None:
        best = history.best_epoch
        axes.axvline(best, color=BEST, linestyle=":", label=f"kept: epoch {best}")
        shown = train if None in validation else validation
        axes.plot(best, shown[best - 1], marker="o", markersize=9, fillstyle="none", color=BEST)
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
