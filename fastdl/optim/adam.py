"""Adam."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from .base import Array, Optimizer, decay_rate, positive


class Adam(Optimizer):
    """Steps of about ``lr`` whatever the gradient's size.

    ``m`` and ``v`` are decaying averages of the gradient and of its square::

        m = beta1 * m + (1 - beta1) * grad
        v = beta2 * v + (1 - beta2) * grad**2
        param -= lr * m / (1 - beta1**t) / (sqrt(v / (1 - beta2**t)) + eps)

    Parameters
    ----------
    params : mapping of str to ndarray
        The arrays to change, in place.
    lr : float, default 1e-3
        The learning rate.
    betas : pair of float, default (0.9, 0.999)
        Decay of m and of v: 0 <= beta < 1.
    eps : float, default 1e-8
        Keeps the quotient finite.

    References
    ----------
    Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015,
    algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import optim
    >>> w = np.array([1.0, 2.0])
    >>> optim.Adam({"w": w}, lr=0.1).step({"w": np.array([5.0, -0.01])})
    >>> w.round(3)
    array([0.9, 2.1])
    """

    def __init__(
        self,
        params: Mapping[str, Array],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(params, lr)
        self.beta1 = decay_rate("betas[0]", betas[0])
        self.beta2 = decay_rate("betas[1]", betas[1])
        self.eps = positive("eps", eps)
        self.steps = 0
        self.mean = {name: np.zeros_like(param) for name, param in self.params.items()}
        self.square = {name: np.zeros_like(param) for name, param in self.params.items()}

    def _apply(self, grads: Mapping[str, Array]) -> None:
        self.steps += 1
        # The averages start at zero; dividing by 1 - beta**t takes that bias out.
        rate = self.lr / (1 - self.beta1**self.steps)
        unbias = math.sqrt(1 - self.beta2**self.steps)
        for name, param in self.params.items():
            grad, mean, square = grads[name], self.mean[name], self.square[name]
            mean += (1 - self.beta1) * (grad - mean)
            square += (1 - self.beta2) * (grad * grad - square)
            param -= rate * mean / (np.sqrt(square) / unbias + self.eps)
