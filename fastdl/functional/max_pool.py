"""Max pooling."""

from __future__ import annotations

from typing import Literal, overload

from numpy.typing import ArrayLike

from ..backends import registry
from ..backends.table import Array
from ..geometry import IntPair, pool_geometry
from . import on_device
from .arguments import image_shape
from .inputs import INT64, check_range, check_rank, check_shape, floats, integers
from .layout import image, order_of
from .on_device import is_device
from .outputs import deliver, empty_image, output


@overload
def max_pool2d(
    x: ArrayLike,
    kernel_size: IntPair,
    stride: IntPair | None = None,
    padding: IntPair = 0,
    dilation: IntPair = 1,
    ceil_mode: bool = False,
    return_indices: Literal[False] = False,
    *,
    out: Array | None = None,
    backend: str | None = None,
) -> Array: ...
@overload
def max_pool2d(
    x: ArrayLike,
    kernel_size: IntPair,
    stride: IntPair | None = None,
    padding: IntPair = 0,
    dilation: IntPair = 1,
    ceil_mode: bool = False,
    *,
    return_indices: Literal[True],
    out: Array | None = None,
    backend: str | None = None,
) -> tuple[Array, Array]: ...
def max_pool2d(
    x: ArrayLike,
    kernel_size: IntPair,
    stride: IntPair | None = None,
    padding: IntPair = 0,
    dilation: IntPair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    out: Array | None = None,
    backend: str | None = None,
) -> Array | tuple[Array, Array]:
    """Largest value of each window.

    ``out[n,c,i,j] = max_{a,b} x[n, c, i*s - p + a*d, j*s - p + b*d]``; the padding
    takes no part. A NaN in the window is the result, as in PyTorch.

    Parameters
    ----------
    x : array (N, C, H, W), float32 or float64
        The images, in any memory layout.
    kernel_size : int or (int, int)
        Height and width of the window.
    stride : int or (int, int), default kernel_size
        Step between windows.
    padding : int or (int, int), default 0
        At most half of what the window covers.
    dilation : int or (int, int), default 1
        Step between the window's elements.
    ceil_mode : bool, default False
        Round the output size up: the last window may reach beyond the padding.
    return_indices : bool, default False
        Also return where each value stood.
    out : array (N, C, OH, OW), dtype of x, optional
        Takes the values. It must be writable and share no memory with x.
    backend : str, optional
        The backend that computes; see `fastdl.backends`.

    Returns
    -------
    out : array (N, C, OH, OW), dtype of x
        The values.
    indices : array (N, C, OH, OW), int64
        Only with ``return_indices``: ``row * W + column`` of each value in its
        plane, the first of equal ones.

    Raises
    ------
    ShapeError, ArgumentError, DTypeError, OutputError, BackendError
        As `conv2d`.

    References
    ----------
    D. Scherer, A. Mueller and S. Behnke, "Evaluation of pooling operations in
    convolutional architectures for object recognition", ICANN 2010, section 3.1.

    Examples
    --------
    >>> import fastdl
    >>> import numpy as np
    >>> x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    >>> fastdl.max_pool2d(x, 2)[0, 0]
    array([[ 5.,  7.],
           [13., 15.]], dtype=float32)
    """
    kernels = registry.get(backend, x)
    x = floats("x", x)
    geometry = pool_geometry(x.shape, kernel_size, stride, padding, dilation, ceil_mode)
    order = order_of(kernels, "max_pool2d", x)
    target = output(out, geometry.out_shape, x, order, x=x)
    indices = empty_image(geometry.out_shape, INT64, x, order) if return_indices else None
    kernels.max_pool2d(image(kernels, x, order), geometry, target, indices)
    result = deliver(target, out, order)
    return result if indices is None else (result, deliver(indices, None, order))


def max_pool2d_backward(
    grad: ArrayLike,
    indices: ArrayLike,
    input_shape: tuple[int, int, int, int],
    *,
    backend: str | None = None,
) -> Array:
    """Gradient of `max_pool2d` with respect to x.

    Each element of grad is added to the element of x that was the largest:
    ``grad_x[n, c].flat[indices[n,c,i,j]] += grad[n,c,i,j]``, starting from zero.

    Parameters
    ----------
    grad : array (N, C, OH, OW), float32 or float64
        Gradient with respect to max_pool2d's values.
    indices : array (N, C, OH, OW), int64
        As `max_pool2d` returned them.
    input_shape : (int, int, int, int)
        Shape (N, C, H, W) of x.
    backend : str, optional
        The backend that computes; see `fastdl.backends`.

    Returns
    -------
    array (N, C, H, W), dtype of grad
        The gradient.

    Raises
    ------
    ShapeError
        If grad, indices and input_shape do not fit each other.
    ArgumentError
        If an index is not in ``[0, H * W)``.
    DTypeError
        If grad is not float32 or float64, or indices not int64.
    BackendError
        If there is no such backend here.

    Examples
    --------
    >>> import fastdl
    >>> import numpy as np
    >>> x = np.arange(9.0).reshape(1, 1, 3, 3)
    >>> values, indices = fastdl.max_pool2d(x, 2, stride=1, return_indices=True)
    >>> fastdl.max_pool2d_backward(np.ones_like(values), indices, x.shape)[0, 0]
    array([[0., 0., 0.],
           [0., 1., 1.],
           [0., 1., 1.]])
    """
    kernels = registry.get(backend, grad)
    grad = floats("grad", grad)
    shape = image_shape("input_shape", input_shape)
    check_rank("grad", grad, 4, "(N, C, OH, OW)")
    check_shape("grad", grad, (*shape[:2], *grad.shape[2:]))
    indices = integers("indices", indices, grad.shape, INT64)
    if is_device(indices):
        on_device.check_range("indices", indices, shape[2] * shape[3])
    order = order_of(kernels, "max_pool2d_backward", grad)
    target = empty_image(shape, grad.dtype, grad, order)
    if not kernels.max_pool2d_backward(
        image(kernels, grad, order), image(kernels, indices, order), target
    ):
        check_range("indices", indices, shape[2] * shape[3])
    return deliver(target, None, order)
