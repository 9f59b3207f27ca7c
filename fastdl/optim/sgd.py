"""Gradient descent, plain and with momentum."""

from __future__ import annotations

from typing import ClassVar

from ..backends.table import Rule
from .base import Optimizer, Regularization
from .settings import decay_rate


class SGD(Optimizer):
    """Gradient descent: ``w = w - lr * g``.

    Stochastic, as g is the gradient on a batch.

    Parameters
    ----------
    lr : float
        The learning rate, above 0.
    regularizer : Regularizer or mapping of str to Regularizer, optional
        Adds its gradient to g: `L1`, `L2`, `Elastic`, `Lp`, or one for each
        pattern of names (see `Groups`).
    max_norm : float, optional
        The norm of all gradients together is brought down to it first.

    Raises
    ------
    ArgumentError, DTypeError
        If a setting is out of its range, or none at all.

    References
    ----------
    Robbins and Monro, "A stochastic approximation method", Annals of
    Mathematical Statistics 22(3), 1951.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import optim
    >>> w = np.array([1.0, 2.0])
    >>> optim.SGD(lr=0.1).update({"w": w}, {"w": np.array([1.0, -1.0])})
    >>> w
    array([0.9, 2.1])
    """

    rule = "sgd"

    def __init__(
        self, lr: float, *, regularizer: Regularization = None, max_norm: float | None = None
    ) -> None:
        super().__init__(lr, regularizer, max_norm)


class Momentum(Optimizer):
    """Gradient descent with a velocity: ``v = momentum * v - lr * g;  w = w + v``.

    Parameters
    ----------
    lr : float
        The learning rate, above 0.
    momentum : float, default 0.9
        How much of the velocity stays: 0 <= momentum < 1.
    regularizer, max_norm : optional
        As `SGD`.

    Raises
    ------
    ArgumentError, DTypeError
        As `SGD`.

    References
    ----------
    Polyak, "Some methods of speeding up the convergence of iteration methods",
    USSR Computational Mathematics and Mathematical Physics 4(5), 1964; in this
    form Sutskever et al., "On the importance of initialization and momentum in
    deep learning", ICML 2013, equations 1 and 2.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import optim
    >>> w, momentum = np.array([1.0]), optim.Momentum(lr=0.1, momentum=0.5)
    >>> for _ in range(2):
    ...     momentum.update({"w": w}, {"w": np.array([1.0])})
    >>> w  # 1 - 0.1 - (0.05 + 0.1)
    array([0.75])
    """

    rule: ClassVar[Rule] = "momentum"
    slots = ("velocity",)

    def __init__(
        self,
        lr: float,
        momentum: float = 0.9,
        *,
        regularizer: Regularization = None,
        max_norm: float | None = None,
    ) -> None:
        super().__init__(lr, regularizer, max_norm)
        self.momentum = decay_rate("momentum", momentum)

    def _numbers(self) -> dict[str, float]:
        return {"beta1": self.momentum}


class Nesterov(Momentum):
    """Momentum that looks ahead: ``v = momentum * v - lr * g;  w = w + momentum * v - lr * g``.

    w is where the velocity would lead next, so that g is the gradient there.

    Parameters
    ----------
    lr : float
        The learning rate, above 0.
    momentum : float, default 0.9
        How much of the velocity stays: 0 <= momentum < 1.
    regularizer, max_norm : optional
        As `SGD`.

    Raises
    ------
    ArgumentError, DTypeError
        As `SGD`.

    References
    ----------
    Nesterov, "A method of solving a convex programming problem with convergence
    rate O(1/k^2)", Soviet Mathematics Doklady 27(2), 1983; in this form Bengio,
    Boulanger-Lewandowski and Pascanu, "Advances in optimizing recurrent
    networks", ICASSP 2013, equation 7.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import optim
    >>> w = np.array([1.0])
    >>> optim.Nesterov(lr=0.1, momentum=0.5).update({"w": w}, {"w": np.array([1.0])})
    >>> w  # 1 - 0.5 * 0.1 - 0.1
    array([0.85])
    """

    rule = "nesterov"
