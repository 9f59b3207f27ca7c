"""The fully connected layer: a matrix product, which NumPy's BLAS computes for every backend."""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import ArrayLike

from ..backends import registry
from ..backends.table import Array
from ..errors import ShapeError
from . import on_device
from .arguments import check_needs
from .inputs import check_rank, check_shape, floats, optional_floats
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
        Checked only: the product is NumPy's, whatever the backend.

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
    registry.get(backend, x)
    x = floats("x", x)
    weight = floats("weight", weight, x.dtype)
    outputs = _check_product(x, weight)
    bias = optional_floats("bias", bias, x.dtype, (outputs,))
    if on_device.is_device(x):
        return on_device.linear(x, weight, bias, outputs, out)  # type: ignore[no-any-return]
    on_device.no_mix(weight)
    target = output(out, (*x.shape[:-1], outputs), x.dtype, x=x, weight=weight, bias=bias)
    rows = _rows(target)
    with np.errstate(all="ignore"):
        np.matmul(_rows(x), weight.T, out=rows)
        if bias is not None:
            rows += bias
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
        Checked only: the products are NumPy's, whatever the backend.

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
    registry.get(backend, grad)
    check_needs(needs)
    grad = floats("grad", grad)
    x = floats("x", x, grad.dtype)
    weight = floats("weight", weight, grad.dtype)
    outputs = _check_product(x, weight)
    check_shape("grad", grad, (*x.shape[:-1], outputs))
    if on_device.is_device(grad):
        return on_device.linear_backward(grad, x, weight, needs)  # type: ignore[no-any-return]
    on_device.no_mix(x)
    on_device.no_mix(weight)
    rows = _rows(grad)
    grad_x = grad_weight = grad_bias = None
    with np.errstate(all="ignore"):
        if needs[0]:
            grad_x = empty(x.shape, grad.dtype)
            np.matmul(rows, weight, out=_rows(grad_x))
        if needs[1]:
            grad_weight = np.matmul(rows.T, _rows(x), out=empty(weight.shape, grad.dtype))
        if needs[2]:
            # Rows are summed one by one: in float32 the error would grow with the batch.
            grad_bias = rows.sum(axis=0, dtype=np.float64).astype(grad.dtype)
    return grad_x, grad_weight, grad_bias


def _check_product(x: Array, weight: Array) -> int:
    """Check that ``x @ weight.T`` exists; its number of columns."""
    check_rank("weight", weight, 2, "(O, I)")
    if x.ndim < 1 or x.shape[-1] != weight.shape[1]:
        raise ShapeError(
            f"x must have shape (..., {weight.shape[1]}) for weight of shape {weight.shape}, "
            f"got {x.shape}"
        )
    return int(weight.shape[0])


def _rows(array: Array) -> Array:
    """``array`` with its leading dimensions flattened into one; a view where it is contiguous."""
    if array.ndim == 2:
        return array
    return array.reshape(prod(array.shape[:-1]), array.shape[-1])
