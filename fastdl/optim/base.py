"""What every optimiser is."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from ..errors import ArgumentError, ShapeError

Array = NDArray[Any]


class Optimizer(ABC):
    """Changes parameters, in place, against their gradients.

    Parameters
    ----------
    params : mapping of str to ndarray
        The arrays to change, such as ``model.parameters()``.
    lr : float
        The learning rate. May be set anew between steps.
    """

    def __init__(self, params: Mapping[str, Array], lr: float) -> None:
        self.params = dict(params)
        self.lr = positive("lr", lr)

    def step(self, grads: Mapping[str, Array]) -> None:
        """Change every parameter once; ``grads`` has their names and shapes.

        Raises
        ------
        ArgumentError
            If a gradient is missing. Nothing is changed then, nor below.
        ShapeError
            If a gradient's shape is not its parameter's.
        """
        for name, param in self.params.items():
            if name not in grads:
                raise ArgumentError(f"grads lacks {name!r}: run backward before step")
            if grads[name].shape != param.shape:
                raise ShapeError(f"grads[{name!r}] must be {param.shape}, got {grads[name].shape}")
        self._apply(grads)

    @abstractmethod
    def _apply(self, grads: Mapping[str, Array]) -> None:
        """Change every parameter in place; the gradients are checked."""


def positive(name: str, value: float) -> float:
    """``value``, if it is a finite number above zero."""
    if not (math.isfinite(value) and value > 0):
        raise ArgumentError(f"{name} must be a finite number above 0, got {value!r}")
    return value


def decay_rate(name: str, value: float) -> float:
    """``value``, if it can be the factor of a decaying average: 0 <= value < 1."""
    if not 0 <= value < 1:
        raise ArgumentError(f"{name} must be at least 0 and below 1, got {value!r}")
    return value
