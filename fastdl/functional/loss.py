"""Cross-entropy: `log_softmax` and a gather, the same for every backend."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from ..backends import registry
from ..backends.table import Array, Backend
from . import on_device
from .arguments import REDUCTIONS, check_choice, real
from .inputs import check_range, check_rank, dense, floats, integers, shaped_floats
from .outputs import empty

Reduction = Literal["mean", "sum", "none"]


def cross_entropy(
    x: ArrayLike,
    target: ArrayLike,
    *,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
    backend: str | None = None,
) -> Any:
    """Cross-entropy between the softmax of scores and the right classes.

    ``loss[n] = -(1 - e) * log_p[n, target[n]] - e/K * sum_k log_p[n, k]`` with
    ``log_p = log_softmax(x)`` and smoothing e.

    Parameters
    ----------
    x : array (N, K), float32 or float64
        The scores of K classes, in any memory layout.
    target : array (N,) of integers
        The right classes, each in ``[0, K)``.
    label_smoothing : float, default 0
        Share e of the target spread over all classes, in [0, 1].
    reduction : {'mean', 'sum', 'none'}, default 'mean'
        What becomes of the N losses.
    backend : str, optional
        The backend that computes; see `fastdl.backends`.

    Returns
    -------
    scalar, dtype of x, or array (N,), dtype of x, with ``reduction='none'``
        The loss. The mean of an empty batch is NaN, as in PyTorch.

    Raises
    ------
    ShapeError
        If the shapes do not fit.
    ArgumentError
        If a class is not in ``[0, K)``, or an argument out of its range.
    DTypeError
        If x is not float32 or float64, or target not of integers.
    BackendError
        If there is no such backend here.

    References
    ----------
    C. Szegedy, V. Vanhoucke, S. Ioffe, J. Shlens and Z. Wojna, "Rethinking the
    Inception architecture for computer vision", arXiv:1512.00567, section 7.

    Examples
    --------
    >>> import fastdl
    >>> import numpy as np
    >>> loss = fastdl.cross_entropy(np.log([[0.25, 0.75], [0.5, 0.5]]), [1, 0])
    >>> print(f"{loss:.4f}")
    0.4904
    """
    kernels = registry.get(backend, x)
    x, target, smoothing = _checked(x, target, label_smoothing, reduction)
    if on_device.is_device(x):
        return on_device.cross_entropy(x, target, smoothing, reduction)
    log_p = _over_rows(kernels, kernels.log_softmax, x)
    with np.errstate(all="ignore"):
        losses = -log_p[np.arange(len(x)), target]
        if smoothing:
            classes = max(x.shape[1], 1)
            losses = (1 - smoothing) * losses - (smoothing / classes) * log_p.sum(axis=1)
        if reduction == "none":
            return losses
        total = losses.sum(dtype=np.float64)
        if reduction == "mean":
            total /= len(x)
    return x.dtype.type(total)


def cross_entropy_backward(
    x: ArrayLike,
    target: ArrayLike,
    *,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
    grad: ArrayLike | None = None,
    backend: str | None = None,
) -> Array:
    """Gradient of `cross_entropy` with respect to x.

    ``grad_x[n, k] = (p[n, k] - (1 - e) * [k = target[n]] - e/K) * grad`` with
    ``p = softmax(x)``, over N for the mean.

    Parameters
    ----------
    x, target, label_smoothing, reduction
        As they were given to `cross_entropy`.
    grad : float, or array (N,), dtype of x, with ``reduction='none'``, optional
        Gradient with respect to the loss; default 1.
    backend : str, optional
        The backend that computes; see `fastdl.backends`.

    Returns
    -------
    array (N, K), dtype of x
        The gradient.

    Raises
    ------
    ShapeError, ArgumentError, DTypeError, BackendError
        As `cross_entropy`.

    Examples
    --------
    >>> import fastdl
    >>> import numpy as np
    >>> fastdl.cross_entropy_backward(np.zeros((1, 4)), [2])
    array([[ 0.25,  0.25, -0.75,  0.25]])
    """
    kernels = registry.get(backend, x)
    x, target, smoothing = _checked(x, target, label_smoothing, reduction)
    upstream: float | Array
    if grad is None:
        upstream = 1.0
    elif on_device.is_device(x) and reduction == "none":
        return on_device.cross_entropy_backward(x, target, smoothing, grad, 1.0)
    elif reduction == "none":
        upstream = shaped_floats("grad", grad, x.dtype, (len(x),))[:, None]
    else:
        upstream = real("grad", grad)
    if reduction == "mean":
        upstream = upstream / max(len(x), 1)
    if on_device.is_device(x):
        return on_device.cross_entropy_backward(x, target, smoothing, None, float(upstream))
    grad_x = _over_rows(kernels, kernels.softmax, x)
    with np.errstate(all="ignore"):
        if smoothing:
            grad_x -= smoothing / max(x.shape[1], 1)
        grad_x[np.arange(len(x)), target] -= 1 - smoothing
        grad_x *= upstream
    return grad_x


def _checked(
    x: ArrayLike, target: ArrayLike, label_smoothing: float, reduction: str
) -> tuple[Array, Array, float]:
    check_choice("reduction", reduction, REDUCTIONS)
    smoothing = real("label_smoothing", label_smoothing, 0, 1)
    x = floats("x", x)
    check_rank("x", x, 2, "(N, K)")
    if on_device.is_device(x):
        return x, on_device.device_target(x, target), smoothing
    target = integers("target", target, (x.shape[0],))
    check_range("target", target, x.shape[1])
    return x, target.astype(np.intp), smoothing


def _over_rows(kernels: Backend, kernel: Any, x: Array) -> Array:
    """``kernel``, softmax or its logarithm, of each row of ``x``."""
    result = empty(x.shape, x.dtype, x)
    if x.size:
        kernel(dense(kernels, x), result)
    return result
