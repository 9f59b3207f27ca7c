"""Adam, and Adam with a decay of its own."""

from __future__ import annotations

from ..errors import DTypeError
from .base import Optimizer, Regularization
from .selection import Array, Selection, check_selection, selects
from .settings import decay_rate, not_negative, positive


class Adam(Optimizer):
    """Steps of about ``lr`` whatever the gradient's size.

    ``m`` and ``s`` are decaying averages of the gradient and of its square, t is
    the number of updates that the parameter has had::

        m = beta1 * m + (1 - beta1) * g
        s = beta2 * s + (1 - beta2) * g**2
        w = w - lr * (m / (1 - beta1**t)) / (sqrt(s / (1 - beta2**t)) + eps)

    Parameters
    ----------
    lr : float, default 1e-3
        The learning rate, above 0.
    betas : pair of float, default (0.9, 0.999)
        How much of m and of s stays: 0 <= beta < 1.
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
    Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015,
    algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import optim
    >>> w = np.array([1.0, 2.0])
    >>> optim.Adam(lr=0.1).update({"w": w}, {"w": np.array([5.0, -0.01])})
    >>> w.round(3)
    array([0.9, 2.1])
    """

    rule = "adam"
    slots = ("mean", "square")
    counts = True

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        *,
        regularizer: Regularization = None,
        max_norm: float | None = None,
    ) -> None:
        super().__init__(lr, regularizer, max_norm)
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise DTypeError(f"betas must be a pair of numbers, got {betas!r}")
        self.betas = decay_rate("betas[0]", betas[0]), decay_rate("betas[1]", betas[1])
        self.eps = positive("eps", eps)

    def _numbers(self) -> dict[str, float]:
        return {"beta1": self.betas[0], "beta2": self.betas[1], "eps": self.eps}


class AdamW(Adam):
    """`Adam`, and apart from its gradient each weight loses ``lr * weight_decay * w``.

    Adam divides the gradient of an L2 penalty by the gradient's usual size, so
    that weights with large gradients hardly decay; here all decay alike.

    Parameters
    ----------
    lr : float, default 1e-3
        The learning rate, above 0.
    betas : pair of float, default (0.9, 0.999)
        How much of m and of s stays: 0 <= beta < 1.
    eps : float, default 1e-8
        Keeps the quotient finite; above 0.
    weight_decay : float, default 0.01
        The share, times lr, that is lost in each update; at least 0.
    applies_to : None, str, sequence of str, or callable
        What decays: names or patterns (``"features.*"``), or a function of name
        and array. None: arrays of at least 2 axes, so neither biases nor the
        parameters of normalisation.
    regularizer, max_norm : optional
        As `SGD`.

    Raises
    ------
    ArgumentError, DTypeError
        As `SGD`.

    References
    ----------
    Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019,
    algorithm 2.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import optim
    >>> params = {"weight": np.ones((1, 1)), "bias": np.ones(1)}
    >>> grads = {"weight": np.zeros((1, 1)), "bias": np.zeros(1)}
    >>> optim.AdamW(lr=0.1, weight_decay=0.5).update(params, grads)
    >>> params
    {'weight': array([[0.95]]), 'bias': array([1.])}
    """

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        *,
        applies_to: Selection = None,
        regularizer: Regularization = None,
        max_norm: float | None = None,
    ) -> None:
        super().__init__(lr, betas, eps, regularizer=regularizer, max_norm=max_norm)
        check_selection("applies_to", applies_to)
        self._weight_decay = not_negative("weight_decay", weight_decay)
        self._applies_to = applies_to

    def _decay(self, name: str, param: Array) -> float:
        return self._weight_decay if selects(self._applies_to, name, param) else 0.0
