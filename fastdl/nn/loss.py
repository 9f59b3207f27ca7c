"""What training makes small."""

from __future__ import annotations

from typing import Any

from .. import functional
from ..errors import ArgumentError
from .base import Array


class CrossEntropyLoss:
    """Mean of ``-log(softmax(x)[target])`` over the batch.

    Parameters
    ----------
    label_smoothing : float, default 0
        Share of the target that is spread over all classes.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import nn
    >>> loss = nn.CrossEntropyLoss()
    >>> round(loss.forward(np.zeros((2, 10), np.float32), np.array([3, 7])), 4)  # log(10)
    2.3026
    >>> loss.backward().shape
    (2, 10)
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing
        self._saved: Any = None

    def forward(self, x: Array, target: Array) -> float:
        """The loss of scores x (N, classes) for the classes target (N,)."""
        self._saved = x, target
        return float(functional.cross_entropy(x, target, label_smoothing=self.label_smoothing))

    def backward(self) -> Array:
        """The gradient of the latest `forward` with respect to its x."""
        if self._saved is None:
            raise ArgumentError("CrossEntropyLoss.backward was called before any forward")
        return functional.cross_entropy_backward(*self._saved, label_smoothing=self.label_smoothing)
