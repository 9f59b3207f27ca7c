"""Gradient descent with momentum."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .base import Array, Optimizer, decay_rate


class SGD(Optimizer):
    """``v = momentum * v + grad;  param -= lr * v``.

    Parameters
    ----------
    params : mapping of str to ndarray
        The arrays to change, in place.
    lr : float
        The learning rate.
    momentum : float, default 0
        How much of the earlier direction stays: 0 <= momentum < 1.

    References
    ----------
    Sutskever et al., "On the importance of initialization and momentum in deep
    learning", ICML 2013, section 2 (here with the learning rate outside of v).

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import optim
    >>> w = np.array([1.0, 2.0])
    >>> optim.SGD({"w": w}, lr=0.1).step({"w": np.array([1.0, -1.0])})
    >>> w
    array([0.9, 2.1])
    """

    def __init__(self, params: Mapping[str, Array], lr: float, momentum: float = 0.0) -> None:
        super().__init__(params, lr)
        self.momentum = decay_rate("momentum", momentum)
        self.velocity = {name: np.zeros_like(param) for name, param in self.params.items()}

    def _apply(self, grads: Mapping[str, Array]) -> None:
        for name, param in self.params.items():
            velocity = self.velocity[name]
            velocity *= self.momentum
            velocity += grads[name]
            param -= self.lr * velocity
