"""The fully connected layer."""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import ArrayLike

from ..backends import registry
from ..backends.table import Array
from ..errors import ShapeError
from ..geometry import Shape
from . import on_device
from .arguments import check_needs
from .inputs import check_shape, dense, floats, optional_floats
from .outputs import deliver, empty, output


def linear(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    out: Array | None = None,
    backend: str | None = None,
) -> Array:
    """Fully connected layer: ``out[..., o] = bias[o] + sum_i x[..., i] * weight[o, i]``.

    Parameters
    ----------
    x : array (..., I), float32 or float64
        The input, in any memory layout.
    weight : array (O, I), dtype of x
        The weight.
    bias : array (O,), dtype of x, optional
        Added to each row.
    out : array (..., O), dtype of x, optional
        Takes the result. It must be writable and share no memory with an input.
    backend : str, optional
        The backend that computes; see `fastdl.backends`.

    Returns
    -------
    array (..., O), dtype of x
        The result.

    Raises
    ------
    ShapeError, DTypeError, OutputError, BackendError
        As `conv2d`.

    Examples
    --------
    >>> import fastdl
    >>> import numpy as np
    >>> fastdl.linear(np.float32([[1, 2]]), np.float32([[3, 4], [5, 6]]), np.float32([0, 1]))
    array([[11., 18.]], dtype=float32)
    """
    kernels = registry.get(backend, x)
    x = floats("x", x)
    weight = floats("weight", weight, x.dtype)
    shape = product_shape(x.shape, weight.shape)
    bias = optional_floats("bias", bias, x.dtype, weight.shape[:1])
    target = output(out, shape, x, x=x, weight=weight, bias=bias)
    kernels.linear(
        dense(kernels, _rows(x)), dense(kernels, weight), dense(kernels, bias), _rows(target)
    )
    return deliver(target, out)


def linear_backward(
    grad: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike,
    *,
    needs: tuple[bool, bool, bool] = (True, True, True),
    backend: str | None = None,
) -> tuple[Array | None, Array | None, Array | None]:
    """Gradients of `linear` with respect to x, weight and bias.

    With the leading dimensions flattened to rows: ``grad_x = grad @ weight``,
    ``grad_weight = grad.T @ x`` and ``grad_bias = sum of grad's rows``.

    Parameters
    ----------
    grad : array (..., O), float32 or float64
        Gradient with respect to linear's result.
    x, weight
        As they were given to `linear`; dtype of grad.
    needs : (bool, bool, bool), default all True
        Which of the three gradients to compute.
    backend : str, optional
        The backend that computes; see `fastdl.backends`.

    Returns
    -------
    grad_x, grad_weight, grad_bias : array or None
        Shaped as x, weight and (O,); None where not needed.

    Raises
    ------
    ShapeError, ArgumentError, DTypeError, BackendError
        As `linear`; also if grad has not the shape of its result.

    Examples
    --------
    >>> import fastdl
    >>> import numpy as np
    >>> x, weight = np.array([[1.0, 2.0]]), np.array([[3.0, 4.0], [5.0, 6.0]])
    >>> grad_x, grad_weight, grad_bias = fastdl.linear_backward(np.array([[1.0, 10.0]]), x, weight)
    >>> grad_x
    array([[53., 64.]])
    >>> grad_weight
    array([[ 1.,  2.],
           [10., 20.]])
    """
    kernels = registry.get(backend, grad)
    check_needs(needs)
    grad = floats("grad", grad)
    x = floats("x", x, grad.dtype)
    weight = floats("weight", weight, grad.dtype)
    check_shape("grad", grad, product_shape(x.shape, weight.shape))
    rows = dense(kernels, _rows(grad))
    grad_x = grad_weight = grad_bias = None
    if needs[0]:
        grad_x = empty(x.shape, grad.dtype, grad)
        kernels.linear_grad_input(rows, dense(kernels, weight), _rows(grad_x))
    if needs[1]:
        grad_weight = empty(weight.shape, grad.dtype, grad)
        kernels.linear_grad_weight(rows, dense(kernels, _rows(x)), grad_weight)
    if needs[2] and on_device.is_device(grad):
        grad_bias = on_device.sum_rows(rows)
    elif needs[2]:
        # Rows are summed one by one: in float32 the error would grow with the batch.
        with np.errstate(all="ignore"):
            grad_bias = rows.sum(axis=0, dtype=np.float64).astype(grad.dtype)
    return grad_x, grad_weight, grad_bias


def product_shape(x_shape: Shape, weight_shape: Shape) -> Shape:
    """The shape of ``x @ weight.T``, which must exist."""
    if len(weight_shape) != 2:
        raise ShapeError(f"weight must have 2 dimensions (O, I), got shape {weight_shape}")
    if not x_shape or x_shape[-1] != weight_shape[1]:
        raise ShapeError(
            f"x must have shape (..., {weight_shape[1]}) for weight of shape {weight_shape}, "
            f"got {x_shape}"
        )
    return (*x_shape[:-1], weight_shape[0])


def _rows(array: Array) -> Array:
    """``array`` with its leading dimensions flattened into one; a view where it is contiguous."""
    if array.ndim == 2:
        return array
    return array.reshape(prod(array.shape[:-1]), array.shape[-1])
