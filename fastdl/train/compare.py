"""How fast the plain loops would train."""

from __future__ import annotations

import time

from ..backends.registry import use_backend
from ..data import Samples
from ..nn import CrossEntropyLoss, Layer
from ..optim import Adam
from .loop import training_step


def naive_images_per_second(model: Layer, samples: Samples) -> float:
    """Images a second of one training step on the naive loops, all ``samples`` in one batch.

    The step is `training_step`, as in `fit`: forward, backward, update. It
    changes ``model``: pass one that is not needed any more.
    """
    model.train()
    with use_backend("naive"):
        start = time.perf_counter()
        training_step(model, CrossEntropyLoss(), Adam(), *samples)
        return len(samples.x) / (time.perf_counter() - start)
