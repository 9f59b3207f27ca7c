"""How good a network is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data import Loader, Samples
from ..device import placed, to_host
from ..nn import CrossEntropyLoss, Layer, Loss

Array = NDArray[Any]
#: From scores (N, classes) and classes (N,) to a figure, the mean over the images.
Metric = Callable[[Array, Array], float]
#: Images at a time, where the caller does not say.
BATCH_SIZE = 256


@dataclass(frozen=True)
class Evaluation:
    """Means over all images.

    Attributes
    ----------
    loss, accuracy : float
    metrics : dict of str to float
        The further figures that were asked for.
    """

    loss: float
    accuracy: float
    metrics: dict[str, float] = field(default_factory=dict)


def accuracy(scores: Array, classes: Array) -> float:
    """The share of images whose highest score is their class.

    >>> import numpy as np
    >>> from fastdl import train
    >>> train.accuracy(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([1, 1]))
    0.5
    """
    return int((scores.argmax(1) == classes).sum()) / len(classes)


def top_k_accuracy(k: int) -> Metric:
    """The metric: the share of images whose class is among the ``k`` highest scores.

    >>> import numpy as np
    >>> from fastdl import train
    >>> scores = np.array([[0.1, 0.2, 0.7], [0.1, 0.6, 0.3]])
    >>> train.top_k_accuracy(2)(scores, np.array([1, 0]))
    0.5
    """

    def metric(scores: Array, classes: Array) -> float:
        own = np.take_along_axis(scores, classes[:, np.newaxis], 1)
        return float(((scores > own).sum(1) < k).mean())

    return metric


def evaluate(
    model: Layer,
    samples: Samples | Loader,
    loss: Loss | None = None,
    metrics: Mapping[str, Metric] | None = None,
) -> Evaluation:
    """Loss, accuracy and ``metrics`` of ``model``, in evaluation, over all of ``samples``.

    Parameters
    ----------
    model : Layer
        From images to scores (N, classes). It comes back in the mode it was in.
    samples : Samples or Loader
        A Loader also says how images are normalised.
    loss : Loss, optional
    metrics : mapping of str to callable, optional
        Each takes scores and classes of a batch, and gives the mean over it.

    Examples
    --------
    >>> from fastdl import data, models, train
    >>> result = train.evaluate(models.digits_cnn(rng=0), data.load_digits().test)
    >>> 0 <= result.accuracy <= 1
    True
    """
    loss, metrics = loss or CrossEntropyLoss(), dict(metrics or {})
    loader = samples if isinstance(samples, Loader) else Loader(samples, BATCH_SIZE, shuffle=False)
    training, count = model.training, len(loader.samples.x)
    totals = dict.fromkeys(("loss", "accuracy", *metrics), 0.0)
    model.eval()
    number = model.device
    figures = {"accuracy": accuracy, **metrics}
    try:
        # A diverged network overflows; whoever asked looks at the loss.
        with np.errstate(over="ignore", invalid="ignore"):
            for x, y in loader:
                scores = model.forward(placed(x, number))
                totals["loss"] += loss.forward(scores, placed(y, number)) * len(y)
                scores = to_host(scores)
                for name, figure in figures.items():
                    totals[name] += figure(scores, y) * len(y)
    finally:
        model.train(training)
    means = {name: total / count for name, total in totals.items()}
    return Evaluation(means.pop("loss"), means.pop("accuracy"), means)
