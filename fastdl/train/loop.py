"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data import Loader, Samples
from ..device import to_device
from ..errors import ArgumentError
from ..functional.on_device import correct
from ..geometry import integer
from ..nn import CrossEntropyLoss, Layer, Loss
from ..optim import Optimizer, Schedule
from .callback import Callback
from .evaluate import BATCH_SIZE, Evaluation, Metric, evaluate
from .history import Epoch, History
from .training import Training

Array = NDArray[Any]


def training_step(
    model: Layer, loss: Loss, optimizer: Optimizer, x: Array, y: Array
) -> tuple[float, int]:
    """Forward, backward and update on one batch: its loss, and how many it had right.

    ``model`` must be in training mode; the batch is brought to where it is.
    """
    number = model.device
    if number is not None:
        x, y = to_device(x, number), to_device(y, number)
    # A rate that is too large overflows; `fit` looks at the loss and says so.
    with np.errstate(over="ignore", invalid="ignore"):
        scores = model.forward(x)
        value = loss.forward(scores, y)
        model.backward_params(loss.backward())
        optimizer.update(model.parameters(), model.gradients())
    if number is not None:
        return value, correct(scores, y)
    return value, int(np.count_nonzero(scores.argmax(1) == y))


def fit(
    model: Layer,
    optimizer: Optimizer,
    train: Samples | Loader,
    validation: Samples | Loader | None = None,
    *,
    epochs: int,
    batch_size: int = 32,
    loss: Loss | None = None,
    schedule: Schedule | None = None,
    metrics: Mapping[str, Metric] | None = None,
    callbacks: Sequence[Callback] = (),
    seed: int = 0,
    resume: str | PathLike[str] | None = None,
) -> History:
    """Train ``model`` in place.

    Parameters
    ----------
    model : Layer
        From images to scores (N, classes).
    optimizer : Optimizer
    train : Samples or Loader
        To learn from. Of Samples a `Loader` is made, with ``batch_size`` and ``seed``.
    validation : Samples or Loader, optional
        To look at after each epoch; Samples are normalised as ``train`` is.
    epochs : int
        At least 1.
    batch_size : int, default 32
    loss : Loss, optional
        What training makes small; the validation loss is the same.
    schedule : Schedule, optional
        Gives each update's learning rate; it is told each epoch's validation loss
        (without validation, the training loss). By default ``optimizer.lr`` stays.
    metrics : mapping of str to callable, optional
        Further figures on the validation images, as `evaluate` takes them.
    callbacks : sequence of Callback
    seed : int, default 0
        Of the order of the samples.
    resume : path, optional
        The ``last.safetensors`` of a `Run`, to go on from: the result has the
        same bits as that of a training never interrupted.

    Returns
    -------
    History

    Raises
    ------
    ArgumentError
        If ``epochs`` or ``batch_size`` is not positive, or a loss is not finite.
    DataError
        If ``resume`` is no checkpoint of this model and optimiser.

    Examples
    --------
    >>> from fastdl import data, models, optim, train
    >>> digits, model = data.load_digits(), models.digits_cnn(rng=0)
    >>> few = data.Samples(digits.train.x[:64], digits.train.y[:64])
    >>> history = train.fit(model, optim.Adam(), few, few, epochs=2, batch_size=16)
    >>> [epoch.number for epoch in history.epochs]
    [1, 2]
    """
    loss = loss or CrossEntropyLoss()
    if isinstance(train, Samples):
        train = Loader(train, batch_size, seed=seed)
    if isinstance(validation, Samples):
        validation = Loader(validation, BATCH_SIZE, shuffle=False, normalize=train.normalize)
    training = Training(model, optimizer, train, integer("epochs", epochs, 1), schedule)
    if resume is not None:
        training.restore(resume)
    try:
        for callback in callbacks:
            callback.on_start(training)
        while training.epoch < training.epochs and not training.stop:
            trained = _epoch(training, loss, callbacks)
            result = evaluate(model, validation, loss, metrics) if validation else None
            _conclude(training, trained, result)
            for callback in callbacks:
                callback.on_epoch(training)
    finally:
        for callback in callbacks:
            callback.on_end(training)
    return training.history


def _epoch(
    training: Training, loss: Loss, callbacks: Sequence[Callback]
) -> tuple[float, float, float]:
    """Train on every sample once: mean loss, accuracy, images a second."""
    count, number = len(training.loader.samples.x), training.epoch + 1
    optimizer, schedule = training.optimizer, training.schedule
    total, right = 0.0, 0
    training.model.train()
    start = time.perf_counter()
    # Closed at once after an error or Ctrl-C: the loader's thread ends with it.
    with closing(training.loader.epoch(number)) as batches:
        for x, y in batches:
            if schedule is not None:
                optimizer.lr = schedule(training.step)
            training.loss, correct = training_step(training.model, loss, optimizer, x, y)
            _finite("training", training.loss, number, optimizer.lr)
            training.step += 1
            total, right = total + training.loss * len(x), right + correct
            for callback in callbacks:
                callback.on_step(training)
    return total / count, right / count, count / (time.perf_counter() - start)


def _conclude(
    training: Training, trained: tuple[float, float, float], result: Evaluation | None
) -> None:
    train_loss, train_accuracy, images_per_second = trained
    number, rate = training.epoch + 1, training.optimizer.lr
    if result is not None:
        _finite("validation", result.loss, number, rate)
    training.history.add(
        Epoch(
            number=number,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            validation_loss=result.loss if result else None,
            validation_accuracy=result.accuracy if result else None,
            images_per_second=images_per_second,
            learning_rate=rate,
            metrics=result.metrics if result else {},
        )
    )
    training.epoch = number
    if training.schedule is not None:
        training.schedule.observe(result.loss if result else train_loss)


def _finite(which: str, loss: float, epoch: int, rate: float) -> None:
    if not math.isfinite(loss):
        raise ArgumentError(
            f"the {which} loss became {loss} in epoch {epoch}: "
            f"the learning rate lr={rate:g} is too high, or the images are not finite"
        )
