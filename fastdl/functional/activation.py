"""Activations, element by element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from numpy.typing import ArrayLike

from ..backends import registry
from ..backends.table import Array, Backend
from .inputs import check_shape, floats
from .layout import image, in_memory_order, memory_order
from .outputs import deliver, elementwise_output, empty_image


def relu(x: ArrayLike, *, out: Array | None = None, backend: str | None = None) -> Array:
    """Rectified linear unit: ``out = max(x, 0)``; NaN stays NaN.

    Parameters
    ----------
    x : array of any shape, float32 or float64
        The input, in any memory layout.
    out : array like x, optional
        Takes the result. It may be x itself, but not overlap it otherwise.
    backend : str, optional
        The backend that computes; see `fastdl.backends`.

    Returns
    -------
    array like x
        The result.

    Raises
    ------
    DTypeError, OutputError, BackendError
        As `conv2d`.

    References
    ----------
    V. Nair and G. Hinton, "Rectified linear units improve restricted Boltzmann
    machines", ICML 2010, section 2.

    Examples
    --------
    >>> import fastdl
    >>> import numpy as np
    >>> fastdl.relu(np.float32([-1, 0, 2]))
    array([0., 0., 2.], dtype=float32)
    """
    kernels = registry.get(backend, x)
    return _forward(kernels, "relu", x, out)


def relu_backward(grad: ArrayLike, x: ArrayLike, *, backend: str | None = None) -> Array:
    """Gradient of `relu`: ``grad`` where ``x > 0``, else 0.

    Parameters
    ----------
    grad : array of any shape, float32 or float64
        Gradient with respect to relu's result.
    x : array like grad
        relu's input; its result serves as well.
    backend : str, optional
        The backend that computes; see `fastdl.backends`.

    Returns
    -------
    array like grad
        The gradient with respect to x.

    Raises
    ------
    ShapeError, DTypeError, BackendError
        As `conv2d`.

    Examples
    --------
    >>> import fastdl
    >>> import numpy as np
    >>> fastdl.relu_backward(np.array([5.0, 5.0]), np.array([-1.0, 2.0]))
    array([0., 5.])
    """
    kernels = registry.get(backend, grad)
    return _backward(kernels, kernels.relu_backward, grad, "x", x)


def sigmoid(x: ArrayLike, *, out: Array | None = None, backend: str | None = None) -> Array:
    """Logistic function: ``out = 1 / (1 + exp(-x))``, without overflow for any x.

    Parameters
    ----------
    x : array of any shape, float32 or float64
        The input, in any memory layout.
    out : array like x, optional
        Takes the result. It may be x itself, but not overlap it otherwise.
    backend : str, optional
        The backend that computes; see `fastdl.backends`.

    Returns
    -------
    array like x
        The result.

    Raises
    ------
    DTypeError, OutputError, BackendError
        As `conv2d`.

    Examples
    --------
    >>> import fastdl
    >>> import numpy as np
    >>> fastdl.sigmoid(np.array([-1000.0, 0.0, 1000.0]))
    array([0. , 0.5, 1. ])
    """
    kernels = registry.get(backend, x)
    return _forward(kernels, "sigmoid", x, out)


def sigmoid_backward(grad: ArrayLike, y: ArrayLike, *, backend: str | None = None) -> Array:
    """Gradient of `sigmoid`: ``grad * y * (1 - y)``.

    Parameters
    ----------
    grad : array of any shape, float32 or float64
        Gradient with respect to sigmoid's result.
    y : array like grad
        sigmoid's result.
    backend : str, optional
        The backend that computes; see `fastdl.backends`.

    Returns
    -------
    array like grad
        The gradient with respect to sigmoid's input.

    Raises
    ------
    ShapeError, DTypeError, BackendError
        As `conv2d`.

    Examples
    --------
    >>> import fastdl
    >>> import numpy as np
    >>> fastdl.sigmoid_backward(np.array([4.0]), np.array([0.5]))
    array([1.])
    """
    kernels = registry.get(backend, grad)
    return _backward(kernels, kernels.sigmoid_backward, grad, "y", y)


def tanh(x: ArrayLike, *, out: Array | None = None, backend: str | None = None) -> Array:
    """Hyperbolic tangent: ``out = (exp(x) - exp(-x)) / (exp(x) + exp(-x))``.

    Parameters
    ----------
    x : array of any shape, float32 or float64
        The input, in any memory layout.
    out : array like x, optional
        Takes the result. It may be x itself, but not overlap it otherwise.
    backend : str, optional
        The backend that computes; see `fastdl.backends`.

    Returns
    -------
    array like x
        The result.

    Raises
    ------
    DTypeError, OutputError, BackendError
        As `conv2d`.

    References
    ----------
    Y. LeCun, L. Bottou, G. Orr and K.-R. Mueller, "Efficient BackProp", 1998,
    section 4.4.

    Examples
    --------
    >>> import fastdl
    >>> import numpy as np
    >>> fastdl.tanh(np.array([-1000.0, 0.0, 1000.0]))
    array([-1.,  0.,  1.])
    """
    kernels = registry.get(backend, x)
    return _forward(kernels, "tanh", x, out)


def tanh_backward(grad: ArrayLike, y: ArrayLike, *, backend: str | None = None) -> Array:
    """Gradient of `tanh`: ``grad * (1 - y * y)``.

    Parameters
    ----------
    grad : array of any shape, float32 or float64
        Gradient with respect to tanh's result.
    y : array like grad
        tanh's result.
    backend : str, optional
        The backend that computes; see `fastdl.backends`.

    Returns
    -------
    array like grad
        The gradient with respect to tanh's input.

    Raises
    ------
    ShapeError, DTypeError, BackendError
        As `conv2d`.

    Examples
    --------
    >>> import fastdl
    >>> import numpy as np
    >>> fastdl.tanh_backward(np.array([4.0]), np.array([0.5]))
    array([3.])
    """
    kernels = registry.get(backend, grad)
    return _backward(kernels, kernels.tanh_backward, grad, "y", y)


def _forward(
    kernels: Backend,
    name: Literal["relu", "sigmoid", "tanh"],
    x: ArrayLike,
    out: Array | None,
) -> Array:
    if kernels.ordinary_activation is not None:
        found = kernels.ordinary_activation(name, x, out)
        if found is not None:
            return found
    x = floats("x", x)
    order = memory_order(x)
    target = elementwise_output(out, x, order=order)
    kernel: Callable[[Array, Array], None] = getattr(kernels, name)
    kernel(in_memory_order(image(kernels, x, order), order), in_memory_order(target, order))
    return deliver(target, out, order)


def _backward(
    kernels: Backend,
    kernel: Callable[[Array, Array, Array], None],
    grad: ArrayLike,
    name: str,
    saved: ArrayLike,
) -> Array:
    """``saved``, called ``name`` by the caller, is the forward's input or result."""
    grad = floats("grad", grad)
    saved = floats(name, saved, grad.dtype)
    check_shape(name, saved, grad.shape)
    order = memory_order(grad)
    target = empty_image(grad.shape, grad.dtype, grad, order)
    kernel(
        in_memory_order(image(kernels, grad, order), order),
        in_memory_order(image(kernels, saved, order), order),
        in_memory_order(target, order),
    )
    return target
