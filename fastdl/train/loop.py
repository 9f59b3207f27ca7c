"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data import Samples, batches
from ..errors import ArgumentError
from ..geometry import integer
from ..nn import CrossEntropyLoss, Layer
from ..optim import Cosine, Optimizer
from .history import Epoch

Array = NDArray[Any]


def training_step(
    model: Layer, loss: CrossEntropyLoss, optimizer: Optimizer, x: Array, y: Array
) -> tuple[float, int]:
    """Forward, backward and update on one batch: its loss, and how many it had right."""
    # A rate that is too large overflows; `fit` looks at the loss and says so.
    with np.errstate(over="ignore", invalid="ignore"):
        scores = model.train().forward(x)
        value = loss.forward(scores, y)
        model.backward(loss.backward())
        optimizer.update(model.parameters(), model.gradients())
    return value, int((scores.argmax(1) == y).sum())


def evaluate(
    model: Layer, samples: Samples, loss: CrossEntropyLoss | None = None
) -> tuple[float, float]:
    """The loss, and the share of samples whose highest score is their class."""
    with np.errstate(over="ignore", invalid="ignore"):
        scores = model.predict(samples.x)
        value = (loss or CrossEntropyLoss()).forward(scores, samples.y)
    return value, float((scores.argmax(1) == samples.y).mean())


def fit(
    model: Layer,
    optimizer: Optimizer,
    train: Samples,
    validation: Samples,
    *,
    epochs: int,
    batch_size: int,
    loss: CrossEntropyLoss | None = None,
    rng: np.random.Generator | int | None = None,
    after_step: Callable[[], object] = lambda: None,
) -> Iterator[Epoch]:
    """Train ``model`` in place; yields after every epoch.

    The learning rate falls from ``optimizer.lr`` to zero along a half cosine.

    Parameters
    ----------
    model : Layer
        From images to scores (N, classes).
    optimizer : Optimizer
        Changes ``model.parameters()``.
    train, validation : Samples
        To learn from, and to look at after each epoch.
    epochs, batch_size : int
        At least 1.
    loss : CrossEntropyLoss, optional
        What training makes small; the validation loss is the same.
    rng : numpy.random.Generator or int, optional
        Shuffles the training samples anew each epoch.
    after_step : callable, optional
        Called after every batch.

    Raises
    ------
    ArgumentError
        If ``epochs`` or ``batch_size`` is not positive, or a loss is not finite.

    Examples
    --------
    >>> from fastdl import data, models, optim, train
    >>> digits, model = data.load_digits(), models.digits_cnn(rng=0)
    >>> few = data.Samples(digits.train.x[:64], digits.train.y[:64])
    >>> for epoch in train.fit(model, optim.Adam(), few, few, epochs=2, batch_size=16, rng=0):
    ...     print(epoch.number, epoch.train_loss > 0)
    1 True
    2 True
    """
    epochs = integer("epochs", epochs, 1)
    batch_size = integer("batch_size", batch_size, 1)
    loss = loss or CrossEntropyLoss()
    rng = np.random.default_rng(rng)
    highest_rate = optimizer.lr
    schedule = Cosine(highest_rate, steps=epochs * math.ceil(len(train.x) / batch_size))
    done = 0
    for number in range(1, epochs + 1):
        total, right, seconds = 0.0, 0, 0.0
        for x, y in batches(*train, batch_size, rng):
            optimizer.lr = schedule(done)
            start = time.perf_counter()
            value, correct = training_step(model, loss, optimizer, x, y)
            seconds += time.perf_counter() - start
            _finite("training", value, number, highest_rate)
            total, right, done = total + value * len(x), right + correct, done + 1
            after_step()
        validation_loss, validation_accuracy = evaluate(model, validation, loss)
        _finite("validation", validation_loss, number, highest_rate)
        yield Epoch(
            number=number,
            train_loss=total / len(train.x),
            train_accuracy=right / len(train.x),
            validation_loss=validation_loss,
            validation_accuracy=validation_accuracy,
            images_per_second=len(train.x) / seconds,
        )


def _finite(which: str, loss: float, epoch: int, rate: float) -> None:
    if not math.isfinite(loss):
        raise ArgumentError(
            f"the {which} loss became {loss} in epoch {epoch}: "
            f"the learning rate lr={rate:g} is too high, or the images are not finite"
        )
