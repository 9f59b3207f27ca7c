"""The picture of a training run."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import ArgumentError
from ..packages import needed
from .history import Epoch, History

TRAIN, VALIDATION, BEST = "#1f77b4", "#d95f02", "#555555"


def learning_curve(history: History) -> bytes:
    """A PNG: loss and accuracy against epochs, training beside validation, the best epoch marked.

    Raises
    ------
    ArgumentError
        If there is no epoch to show.
    MissingPackageError
        If matplotlib is not installed.
    """
    if not history.epochs:
        raise ArgumentError("history must have at least one epoch to show")
    # Not pyplot: that would choose a backend, and keep the figure, for the whole process.
    figure_module: Any = needed("matplotlib.figure", "matplotlib", "the learning curve")
    figure = figure_module.Figure(figsize=(10, 4.5), dpi=120, layout="constrained")
    figure.suptitle(_title(history))
    losses, accuracies = figure.subplots(1, 2)
    _panel(
        losses,
        history,
        _loss_label(history),
        lambda epoch: (epoch.train_loss, epoch.validation_loss),
    )
    _panel(
        accuracies,
        history,
        "accuracy (%)",
        lambda epoch: (100 * epoch.train_accuracy, 100 * epoch.validation_accuracy),
    )
    accuracies.legend(loc="lower right")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _title(history: History) -> str:
    accuracy = history.results.get("test_accuracy")
    if accuracy is None:
        return f"stopped after epoch {len(history.epochs)}, before the test"
    return f"test accuracy {100 * accuracy:.2f} % (the model of epoch {history.best_epoch})"


def _loss_label(history: History) -> str:
    smoothing = history.settings.get("label_smoothing")
    return "cross-entropy loss" + (f" (label smoothing {smoothing:g})" if smoothing else "")


def _panel(
    axes: Any, history: History, label: str, values: Callable[[Epoch], tuple[float, float]]
) -> None:
    numbers = [epoch.number for epoch in history.epochs]
    train: Sequence[float]
    validation: Sequence[float]
    train, validation = zip(*map(values, history.epochs), strict=True)
    axes.plot(numbers, train, marker=".", color=TRAIN, label="training (epoch mean, with dropout)")
    axes.plot(numbers, validation, marker=".", color=VALIDATION, label="validation")
    if history.best_epoch is not None:
        best = history.best_epoch
        axes.axvline(best, color=BEST, linestyle=":", label=f"kept: epoch {best}")
        axes.plot(
            best, validation[best - 1], marker="o", markersize=9, fillstyle="none", color=BEST
        )
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
