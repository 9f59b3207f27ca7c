"""Softmax and its logarithm along one dimension."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from ..backends import registry
from ..backends.table import Array, Backend
from .arguments import axis
from .inputs import check_shape, dense, floats
from .on_device import check_last
from .outputs import deliver, empty, output


def softmax(
    x: ArrayLike, dim: int = -1, *, out: Array | None = None, backend: str | None = None
) -> Array:
    """Probabilities from scores: ``out = exp(x) / sum(exp(x))`` along ``dim``.

    Computed as ``exp(x - max(x))``, which does not overflow.

    Parameters
    ----------
    x : array of any shape but (), float32 or float64
        The scores, in any memory layout.
    dim : int, default -1
        The dimension along which the result sums to 1.
    out : array like x, optional
        Takes the result. It must be writable and share no memory with x.
    backend : str, optional
        The backend that computes; see `fastdl.backends`.

    Returns
    -------
    array like x
        The probabilities.

    Raises
    ------
    ShapeError, ArgumentError, DTypeError, OutputError, BackendError
        As `conv2d`.

    References
    ----------
    J. Bridle, "Probabilistic interpretation of feedforward classification network
    outputs", Neurocomputing, 1990, section 2.3.

    Examples
    --------
    >>> import fastdl
    >>> import numpy as np
    >>> fastdl.softmax(np.array([[0.0, np.log(3)]]))
    array([[0.25, 0.75]])
    """
    kernels = registry.get(backend, x)
    return _forward(kernels, kernels.softmax, False, x, dim, out)


def softmax_backward(
    grad: ArrayLike, y: ArrayLike, dim: int = -1, *, backend: str | None = None
) -> Array:
    """Gradient of `softmax`: ``y * (grad - sum(grad * y))`` along ``dim``.

    Parameters
    ----------
    grad : array of any shape but (), float32 or float64
        Gradient with respect to softmax's result.
    y : array like grad
        softmax's result.
    dim : int, default -1
        As it was given to `softmax`.
    backend : str, optional
        The backend that computes; see `fastdl.backends`.

    Returns
    -------
    array like grad
        The gradient with respect to softmax's input.

    Raises
    ------
    ShapeError, ArgumentError, DTypeError, BackendError
        As `softmax`.

    Examples
    --------
    >>> import fastdl
    >>> import numpy as np
    >>> fastdl.softmax_backward(np.array([1.0, 0.0]), np.array([0.5, 0.5]))
    array([ 0.25, -0.25])
    """
    kernels = registry.get(backend, grad)
    return _backward(kernels, kernels.softmax_backward, grad, y, dim)


def log_softmax(
    x: ArrayLike, dim: int = -1, *, out: Array | None = None, backend: str | None = None
) -> Array:
    """Logarithm of `softmax`: ``out = x - log(sum(exp(x)))`` along ``dim``.

    Computed as ``(x - max) - log(sum(exp(x - max)))``: exact where softmax would
    round to 0.

    Parameters
    ----------
    x : array of any shape but (), float32 or float64
        The scores, in any memory layout.
    dim : int, default -1
        The dimension along which the result's exponentials sum to 1.
    out : array like x, optional
        Takes the result. It must be writable and share no memory with x.
    backend : str, optional
        The backend that computes; see `fastdl.backends`.

    Returns
    -------
    array like x
        The logarithms of the probabilities.

    Raises
    ------
    ShapeError, ArgumentError, DTypeError, OutputError, BackendError
        As `conv2d`.

    References
    ----------
    P. Blanchard, D. Higham and N. Higham, "Accurately computing the log-sum-exp
    and softmax functions", IMA J. Numer. Anal. 41(4), 2021, section 2.

    Examples
    --------
    >>> import fastdl
    >>> import numpy as np
    >>> fastdl.log_softmax(np.array([0.0, 1000.0]))
    array([-1000.,     0.])
    """
    kernels = registry.get(backend, x)
    return _forward(kernels, kernels.log_softmax, True, x, dim, out)


def log_softmax_backward(
    grad: ArrayLike, y: ArrayLike, dim: int = -1, *, backend: str | None = None
) -> Array:
    """Gradient of `log_softmax`: ``grad - exp(y) * sum(grad)`` along ``dim``.

    Parameters
    ----------
    grad : array of any shape but (), float32 or float64
        Gradient with respect to log_softmax's result.
    y : array like grad
        log_softmax's result.
    dim : int, default -1
        As it was given to `log_softmax`.
    backend : str, optional
        The backend that computes; see `fastdl.backends`.

    Returns
    -------
    array like grad
        The gradient with respect to log_softmax's input.

    Raises
    ------
    ShapeError, ArgumentError, DTypeError, BackendError
        As `log_softmax`.

    Examples
    --------
    >>> import fastdl
    >>> import numpy as np
    >>> fastdl.log_softmax_backward(np.array([1.0, 0.0]), np.log([0.5, 0.5]))
    array([ 0.5, -0.5])
    """
    kernels = registry.get(backend, grad)
    return _backward(kernels, kernels.log_softmax_backward, grad, y, dim)


def _forward(
    kernels: Backend,
    kernel: Callable[[Array, Array], None],
    log: bool,
    x: ArrayLike,
    dim: int,
    out: Array | None,
) -> Array:
    if kernels.ordinary_softmax is not None:
        found = kernels.ordinary_softmax(x, dim, log, out)
        if found is not None:
            return found
    x = floats("x", x)
    dim = axis("dim", dim, "x", x)
    check_last(dim, x)
    target = output(out, x.shape, x, x=x)
    if x.size:
        result = _result_rows(target, dim)
        kernel(dense(kernels, _rows(x, dim)), result)
        _scatter_rows(result, target, dim)
    return deliver(target, out)


def _backward(
    kernels: Backend,
    kernel: Callable[[Array, Array, Array], None],
    grad: ArrayLike,
    y: ArrayLike,
    dim: int,
) -> Array:
    grad = floats("grad", grad)
    y = floats("y", y, grad.dtype)
    check_shape("y", y, grad.shape)
    dim = axis("dim", dim, "grad", grad)
    check_last(dim, grad)
    target = empty(grad.shape, grad.dtype, grad)
    if grad.size:
        result = _result_rows(target, dim)
        kernel(dense(kernels, _rows(grad, dim)), dense(kernels, _rows(y, dim)), result)
        _scatter_rows(result, target, dim)
    return target


def _rows(array: Array, dim: int) -> Array:
    """``array`` as a matrix whose rows run along ``dim``; a view where strides allow."""
    columns = array.shape[dim]
    if dim != array.ndim - 1:
        array = np.moveaxis(array, dim, -1)
    return array.reshape(array.size // columns, columns)


def _result_rows(target: Array, dim: int) -> Array:
    """Where the rows of the result go: ``target`` itself if ``dim`` is its last."""
    rows = (target.size // target.shape[dim], target.shape[dim])
    return target.reshape(rows) if dim == target.ndim - 1 else empty(rows, target.dtype, target)


def _scatter_rows(rows: Array, target: Array, dim: int) -> None:
    if dim != target.ndim - 1:
        moved = np.moveaxis(target, dim, -1)
        moved[...] = rows.reshape(moved.shape)
