"""How large the gradients are, layer by layer."""

from __future__ import annotations

import os

import numpy as np

from ..device import to_host
from ..errors import ArgumentError
from ..geometry import integer
from ..io import write_atomically
from .callback import Callback
from .plot import TRAIN, new_figure, png
from .training import Training


class GradientNorms(Callback):
    """The Euclidean norm of each weight's gradient: where it vanishes, nothing is learnt.

    Parameters
    ----------
    path : path, optional
        Where the picture goes, written anew after every epoch.
    every : int, default 10
        Steps from one look to the next.

    Attributes
    ----------
    epochs : list of dict of str to float
        For each epoch the mean norm over the looked-at steps, by the weight's name.

    References
    ----------
    Glorot and Bengio, "Understanding the difficulty of training deep feedforward
    neural networks", AISTATS 2010, section 4.2.

    Examples
    --------
    >>> from fastdl import data, models, optim, train
    >>> digits, model = data.load_digits(), models.digits_cnn(rng=0)
    >>> few, norms = data.Samples(digits.train.x[:64], digits.train.y[:64]), train.GradientNorms()
    >>> _ = train.fit(model, optim.Adam(), few, epochs=1, callbacks=[norms])
    >>> list(norms.epochs[0])
    ['0.weight', '3.weight', '7.weight', '13.weight']
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, every: int = 10) -> None:
        self.path, self.every = path, integer("every", every, 1)
        self.epochs: list[dict[str, float]] = []
        self._seen: dict[str, list[float]] = {}

    def on_step(self, training: Training) -> None:
        if (training.step - 1) % self.every and self._seen:
            return
        for name, grad in training.model.gradients().items():
            # Vectors are the biases and scales; the matrices carry the signal.
            if grad.ndim > 1:
                self._seen.setdefault(name, []).append(float(np.linalg.norm(to_host(grad))))

    def on_epoch(self, training: Training) -> None:
        self.epochs.append({name: float(np.mean(norms)) for name, norms in self._seen.items()})
        self._seen = {}
        if self.path is not None:
            write_atomically(self.path, self.picture())

    def picture(self) -> bytes:
        """A PNG: a line an epoch, from the first layer to the last.

        Raises
        ------
        ArgumentError
            Before the first epoch has ended.
        MissingPackageError
            If matplotlib is not installed.
        """
        if not self.epochs:
            raise ArgumentError("an epoch must have ended before there are norms to show")
        names = list(self.epochs[0])
        figure = new_figure(max(6.0, 2 + 0.35 * len(names)), 4.5, "the picture of gradient norms")
        axes = figure.subplots()
        figure.suptitle("Norm of each weight's gradient")
        for number, norms in enumerate(self.epochs):
            # From light in the first epoch to dark in the last.
            late = (number + 1) / len(self.epochs)
            ends = number in (0, len(self.epochs) - 1)
            axes.semilogy(
                range(len(names)),
                [norms[name] for name in names],
                marker=".",
                color=TRAIN,
                alpha=0.15 + 0.85 * late,
                label=f"epoch {number + 1}" if ends else None,
            )
        axes.set_xticks(range(len(names)), names, rotation=90 if len(names) > 8 else 0)
        axes.set_xlabel("weight, from the input to the output")
        axes.set_ylabel("mean norm over the epoch")
        axes.grid(alpha=0.3)
        axes.legend()
        return png(figure)
