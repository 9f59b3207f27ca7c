"""What training makes small."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from .. import functional
from ..backends import gpu
from ..errors import ArgumentError
from ..functional import on_device
from ..functional.inputs import check_rank, floats, shaped_floats
from .base import Array

Reduction = Literal["mean", "sum"]


class Loss(ABC):
    """A number from a network's output and what was wanted, and the gradient of that number.

    Parameters
    ----------
    reduction : {'mean', 'sum'}, default 'mean'
        What becomes of the single losses.
    """

    def __init__(self, reduction: Reduction = "mean") -> None:
        if reduction not in ("mean", "sum"):
            raise ArgumentError(f"reduction must be 'mean' or 'sum', got {reduction!r}")
        self.reduction = reduction
        self._saved: Any = None

    @abstractmethod
    def forward(self, x: Array, target: Array) -> float:
        """The loss of outputs x for ``target``."""

    @abstractmethod
    def backward(self) -> Array:
        """The gradient of the latest `forward` with respect to its x."""

    def _recall(self) -> Any:
        if self._saved is None:
            raise ArgumentError(f"{type(self).__name__}.backward was called before any forward")
        return self._saved


class CrossEntropyLoss(Loss):
    """``-log(softmax(x)[target])``, the mean over the batch; see `fastdl.cross_entropy`.

    Parameters
    ----------
    label_smoothing : float, default 0
        Share of the target that is spread over all classes.
    reduction : {'mean', 'sum'}, default 'mean'
        What becomes of the samples' losses.

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

    def __init__(self, label_smoothing: float = 0.0, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
        self.label_smoothing = label_smoothing

    def forward(self, x: Array, target: Array) -> float:
        """The loss of scores x (N, classes) for the classes target (N,)."""
        if gpu.on_device(x):
            x = floats("x", x)
            check_rank("x", x, 2, "(N, K)")
            target = on_device.device_target(x, target)
        self._saved = x, target
        return float(functional.cross_entropy(x, target, **self._how()))

    def backward(self) -> Array:
        x, target = self._recall()
        return functional.cross_entropy_backward(x, target, **self._how())

    def _how(self) -> dict[str, Any]:
        return {"reduction": self.reduction, "label_smoothing": self.label_smoothing}


class _ElementLoss(Loss):
    """A loss of every element by itself; target shaped as x, of its dtype."""

    #: Its name on a GPU.
    kernel: str

    def forward(self, x: ArrayLike, target: ArrayLike) -> float:
        """The loss of outputs x for targets of the same shape and dtype."""
        x = floats("x", x)
        target = shaped_floats("target", target, x.dtype, x.shape)
        self._saved = x, target
        if on_device.is_device(x):
            return on_device.element_loss(self.kernel, x, target) / self._count(x)
        with np.errstate(all="ignore"):
            total = float(self._losses(x, target).sum(dtype=np.float64))
            return total / self._count(x)

    def backward(self) -> Array:
        x, target = self._recall()
        if on_device.is_device(x):
            share = 1 / self._count(x)
            return on_device.element_loss_backward(self.kernel, x, target, share)  # type: ignore[no-any-return]
        with np.errstate(all="ignore"):
            grad = self._slopes(x, target)
            grad /= x.dtype.type(self._count(x))
        return grad

    def _count(self, x: Array) -> float:
        """What the sum is divided by; as in PyTorch the mean of nothing is NaN."""
        if self.reduction == "sum":
            return 1.0
        return float(x.size) if x.size else float("nan")

    @abstractmethod
    def _losses(self, x: Array, target: Array) -> Array:
        """The loss of each element."""

    @abstractmethod
    def _slopes(self, x: Array, target: Array) -> Array:
        """The derivative of each by its element of x, in a new array."""


class MSELoss(_ElementLoss):
    """``(x - target)**2``, the mean over all elements.

    Parameters
    ----------
    reduction : {'mean', 'sum'}, default 'mean'
        What becomes of the elements' losses.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import nn
    >>> loss = nn.MSELoss()
    >>> loss.forward(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    2.0
    >>> loss.backward()
    array([ 0., -2.])
    """

    kernel = "mse"

    def _losses(self, x: Array, target: Array) -> Array:
        squares: Array = np.square(x - target)
        return squares

    def _slopes(self, x: Array, target: Array) -> Array:
        difference: Array = x - target
        return 2 * difference


class BCEWithLogitsLoss(_ElementLoss):
    """``-target * log(p) - (1 - target) * log(1 - p)`` with ``p = sigmoid(x)``, the mean over all.

    Computed as ``max(x, 0) - x * target + log(1 + exp(-|x|))``, which does not overflow.

    Parameters
    ----------
    reduction : {'mean', 'sum'}, default 'mean'
        What becomes of the elements' losses.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import nn
    >>> loss = nn.BCEWithLogitsLoss()
    >>> round(loss.forward(np.array([[0.0], [2.0]]), np.array([[1.0], [0.0]])), 4)
    1.41
    >>> loss.backward().round(4)
    array([[-0.25  ],
           [ 0.4404]])
    """

    kernel = "bce"

    def _losses(self, x: Array, target: Array) -> Array:
        losses: Array = np.maximum(x, 0) - x * target + np.log1p(np.exp(-np.abs(x)))
        return losses

    def _slopes(self, x: Array, target: Array) -> Array:
        slopes: Array = functional.sigmoid(x)
        slopes -= target
        return slopes
