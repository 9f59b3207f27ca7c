"""Regularisers: what keeps weights small, as a term of the loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from ..device import to_host, where
from ..errors import ArgumentError, DeviceError, DTypeError
from ..functional import on_device
from ..functional.optimizer import sum_of_squares
from .selection import Array, Selection, check_selection, selects
from .settings import not_negative, positive


class Regularizer(ABC):
    """A penalty on parameters, which an optimiser's update adds to the loss."""

    @abstractmethod
    def of(self, name: str, param: Array) -> Penalty | None:
        """The penalty on the parameter of that name; None if there is none."""

    def loss(self, params: Mapping[str, Array]) -> float:
        """The sum of the penalties on ``params``."""
        arrays = {name: to_host(param) for name, param in params.items()}
        penalties = ((self.of(name, param), param) for name, param in arrays.items())
        return sum(penalty.value(param) for penalty, param in penalties if penalty is not None)


class Penalty(Regularizer):
    """A penalty of one kind on every parameter that ``applies_to`` selects.

    Its numbers are set once: optimisers keep what they read.
    """

    def __init__(self, applies_to: Selection) -> None:
        check_selection("applies_to", applies_to)
        self.applies_to = applies_to

    def of(self, name: str, param: Array) -> Penalty | None:
        return self if selects(self.applies_to, name, param) else None

    @abstractmethod
    def value(self, param: Array) -> float:
        """The penalty on ``param``."""

    @abstractmethod
    def gradient(self, param: Array) -> Array:
        """The gradient of `value`, of ``param``'s dtype."""

    def added_to(self, grad: Array, scale: float, param: Array) -> Array:
        """``scale * grad`` and the penalty's own gradient.

        Raises
        ------
        DeviceError
            If they are on a GPU, where `gradient` computes nothing.
        """
        if where(param) is not None:
            raise DeviceError(
                f"on a GPU the penalties are L1, L2, Elastic and Lp, got {type(self).__name__}"
            )
        return np.asarray(scale * grad + self.gradient(param), param.dtype)


class Elastic(Penalty):
    """The elastic net, ``l1 * sum(|w|) + l2 / 2 * sum(w**2)``.

    Its gradient is ``l1 * sign(w) + l2 * w``, with ``sign(0) = 0``; the update
    computes it in its one pass over the arrays. By steps of the gradient a
    weight comes near zero, and then swings about it.

    Parameters
    ----------
    l1, l2 : float
        The strengths, at least 0.
    applies_to : None, str, sequence of str, or callable
        The parameters that it is for: names or patterns (``"features.*"``), or a
        function of name and array. None: arrays of at least 2 axes, so neither
        biases nor the parameters of normalisation.
    proximal : bool, default False
        Let each update end with the soft threshold of l1,
        ``w = sign(w) * max(|w| - lr * l1, 0)``, in place of its gradient:
        weights become exactly 0. It is another pass over the arrays. With `SGD`
        this is the algorithm ISTA.

    Raises
    ------
    ArgumentError, DTypeError
        If a strength is no finite number of at least 0, or ``applies_to`` none
        of the above.

    References
    ----------
    Zou and Hastie, "Regularization and variable selection via the elastic net",
    JRSS B 67(2), 2005, section 2. ISTA: Beck and Teboulle, "A fast iterative
    shrinkage-thresholding algorithm for linear inverse problems", SIAM Journal
    on Imaging Sciences 2(1), 2009, equation 1.4.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import optim
    >>> optim.Elastic(0.5, 0.1).loss({"weight": np.array([[1.0, -2.0]]), "bias": np.ones(2)})
    1.75
    """

    def __init__(
        self, l1: float, l2: float, applies_to: Selection = None, *, proximal: bool = False
    ) -> None:
        super().__init__(applies_to)
        self.l1 = not_negative("l1", l1)
        self.l2 = not_negative("l2", l2)
        self.proximal = proximal

    def value(self, param: Array) -> float:
        total = 0.0
        if self.l1:
            total += self.l1 * float(np.abs(param).sum(dtype=np.float64))
        if self.l2:
            total += self.l2 / 2 * sum_of_squares([param])
        return total

    def gradient(self, param: Array) -> Array:
        return np.asarray(self.l1 * np.sign(param) + self.l2 * param)


class L1(Elastic):
    """``strength * sum(|w|)``: weights that matter little fall, by equal steps, to zero.

    Its gradient is ``strength * sign(w)``, with ``sign(0) = 0``.

    Parameters
    ----------
    strength : float
        At least 0.
    applies_to, proximal : optional
        As `Elastic`: with ``proximal=True`` the zeros are exact.

    Raises
    ------
    ArgumentError, DTypeError
        As `Elastic`.

    References
    ----------
    Tibshirani, "Regression shrinkage and selection via the lasso", JRSS B 58(1),
    1996, section 1.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import optim
    >>> optim.L1(0.5).loss({"weight": np.array([[1.0, -2.0]])})
    1.5
    """

    def __init__(
        self, strength: float, applies_to: Selection = None, *, proximal: bool = False
    ) -> None:
        super().__init__(not_negative("strength", strength), 0.0, applies_to, proximal=proximal)


class L2(Elastic):
    """``strength / 2 * sum(w**2)``: all weights shrink by a share.

    Its gradient is ``strength * w``.

    Parameters
    ----------
    strength : float
        At least 0.
    applies_to : None, str, sequence of str, or callable
        As `Elastic`.

    Raises
    ------
    ArgumentError, DTypeError
        As `Elastic`.

    References
    ----------
    Krogh and Hertz, "A simple weight decay can improve generalization", NIPS
    1991, section 1.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import optim
    >>> optim.L2(0.5).loss({"weight": np.array([[1.0, -2.0]])})
    1.25
    """

    def __init__(self, strength: float, applies_to: Selection = None) -> None:
        super().__init__(0.0, not_negative("strength", strength), applies_to)


class Lp(Penalty):
    """``strength / p * sum(|w|**p)``, whose gradient is ``strength * sign(w) * |w|**(p - 1)``.

    L1 and L2 are the cases 1 and 2, which an update computes without a pass of
    their own.

    Parameters
    ----------
    strength : float
        At least 0.
    p : float
        At least 1: below, the gradient has no bound at 0.
    applies_to : None, str, sequence of str, or callable
        As `Elastic`.

    Raises
    ------
    ArgumentError, DTypeError
        If ``p`` is below 1 or not finite; else as `Elastic`.

    References
    ----------
    Frank and Friedman, "A statistical view of some chemometrics regression
    tools", Technometrics 35(2), 1993, section 5 (bridge regression).

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import optim
    >>> optim.Lp(1.5, p=3).loss({"weight": np.array([[1.0, -2.0]])})
    4.5
    """

    def __init__(self, strength: float, p: float, applies_to: Selection = None) -> None:
        super().__init__(applies_to)
        self.strength = not_negative("strength", strength)
        self.p = positive("p", p)
        if self.p < 1:
            raise ArgumentError(f"p must be at least 1, got {p!r}")

    def value(self, param: Array) -> float:
        return self.strength / self.p * float((np.abs(param, dtype=np.float64) ** self.p).sum())

    def gradient(self, param: Array) -> Array:
        with np.errstate(all="ignore"):
            power: Array = np.abs(param) ** (self.p - 1)
            return self.strength * np.sign(param) * power

    def added_to(self, grad: Array, scale: float, param: Array) -> Array:
        if where(param) is None:
            return super().added_to(grad, scale, param)
        return on_device.with_power_penalty(  # type: ignore[no-any-return]
            grad, param, scale, self.strength, self.p - 1
        )


class Groups(Regularizer):
    """For each group of parameters its own regulariser.

    Parameters
    ----------
    groups : mapping of str to regulariser
        From a name or pattern (``"features.*"``) to the regulariser of what it
        matches; the first one that matches counts. The regulariser's own
        ``applies_to`` must select the parameter as well. An optimiser takes the
        mapping itself as its ``regularizer``.

    Raises
    ------
    DTypeError
        If a key is no str, or a value no regulariser.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import optim
    >>> weights = {"0.weight": np.full((1, 2), 2.0), "1.weight": np.full((1, 2), 3.0)}
    >>> optim.Groups({"0.*": optim.L1(1), "*": optim.L2(1)}).loss(weights)
    13.0
    """

    def __init__(self, groups: Mapping[str, Regularizer]) -> None:
        for pattern, regularizer in groups.items():
            if not isinstance(pattern, str) or not isinstance(regularizer, Regularizer):
                raise DTypeError(
                    f"regularizer must map patterns to regularisers, "
                    f"got {pattern!r}: {regularizer!r}"
                )
        self.groups = dict(groups)

    def of(self, name: str, param: Array) -> Penalty | None:
        for pattern, regularizer in self.groups.items():
            if fnmatchcase(name, pattern):
                return regularizer.of(name, param)
        return None


def as_regularizer(value: Any) -> Regularizer | None:
    """What an optimiser was given as its ``regularizer``."""
    if value is None or isinstance(value, Regularizer):
        return value
    if isinstance(value, Mapping):
        return Groups(value)
    raise DTypeError(
        f"regularizer must be None, a regulariser such as L2(1e-4), "
        f"or a mapping of patterns to regularisers, got {value!r}"
    )


def soft_threshold(param: Array, threshold: float) -> None:
    """``w = sign(w) * max(|w| - threshold, 0)``, in place; NaN stays."""
    if where(param) is not None:
        on_device.adjust("shrink", param, threshold)
        return
    with np.errstate(all="ignore"):
        param[...] = np.sign(param) * np.maximum(np.abs(param) - threshold, 0)
