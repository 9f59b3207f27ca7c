"""Optimisers that divide each gradient by its own usual size."""

from __future__ import annotations

from .base import Optimizer, Regularization
from .settings import decay_rate, positive


class AdaGrad(Optimizer):
    """Each parameter's steps fall with all its gradients so far.

    ``h = h + g**2;  w = w - lr * g / (sqrt(h) + eps)``

    Parameters
    ----------
    lr : float
        The learning rate, above 0.
    eps : float, default 1e-7
        Keeps the quotient finite; above 0.
    regularizer, max_norm : optional
        As `SGD`.

    Raises
    ------
    ArgumentError, DTypeError
        As `SGD`.

    References
    ----------
    Duchi, Hazan and Singer, "Adaptive subgradient methods for online learning
    and stochastic optimization", JMLR 12, 2011, section 1.1.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import optim
    >>> w = np.array([1.0, 2.0])
    >>> optim.AdaGrad(lr=0.1).update({"w": w}, {"w": np.array([5.0, -0.01])})
    >>> w.round(3)
    array([0.9, 2.1])
    """

    rule = "adagrad"
    slots = ("squares",)

    def __init__(
        self,
        lr: float,
        eps: float = 1e-7,
        *,
        regularizer: Regularization = None,
        max_norm: float | None = None,
    ) -> None:
        super().__init__(lr, regularizer, max_norm)
        self.eps = positive("eps", eps)

    def _numbers(self) -> dict[str, float]:
        return {"eps": self.eps}


class RMSProp(Optimizer):
    """As `AdaGrad`, with a decaying average in place of the sum.

    ``h = decay * h + (1 - decay) * g**2;  w = w - lr * g / (sqrt(h) + eps)``

    Parameters
    ----------
    lr : float
        The learning rate, above 0.
    decay : float, default 0.99
        How much of the average stays: 0 <= decay < 1.
    eps : float, default 1e-8
        Keeps the quotient finite; above 0.
    regularizer, max_norm : optional
        As `SGD`.

    Raises
    ------
    ArgumentError, DTypeError
        As `SGD`.

    References
    ----------
    Tieleman and Hinton, "Lecture 6.5: rmsprop, divide the gradient by a running
    average of its recent magnitude", Coursera, 2012.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import optim
    >>> w = np.array([1.0, 2.0])
    >>> optim.RMSProp(lr=0.1, decay=0.75).update({"w": w}, {"w": np.array([5.0, -0.01])})
    >>> w.round(3)
    array([0.8, 2.2])
    """

    rule = "rmsprop"
    slots = ("square",)

    def __init__(
        self,
        lr: float,
        decay: float = 0.99,
        eps: float = 1e-8,
        *,
        regularizer: Regularization = None,
        max_norm: float | None = None,
    ) -> None:
        super().__init__(lr, regularizer, max_norm)
        self.decay = decay_rate("decay", decay)
        self.eps = positive("eps", eps)

    def _numbers(self) -> dict[str, float]:
        return {"beta1": self.decay, "eps": self.eps}
