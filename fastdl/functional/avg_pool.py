"""Average pooling over windows of one size."""

from __future__ import annotations

from numpy.typing import ArrayLike

from ..backends import registry
from ..backends.table import Array
from ..geometry import IntPair, integer, pool_geometry
from .arguments import image_shape
from .inputs import check_shape, floats
from .layout import image, order_of
from .outputs import deliver, empty_image, output


def avg_pool2d(
    x: ArrayLike,
    kernel_size: IntPair,
    stride: IntPair | None = None,
    padding: IntPair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    out: Array | None = None,
    backend: str | None = None,
) -> Array:
    """Mean of each window.

    ``out[n,c,i,j] = sum_{a,b} x[n, c, i*s - p + a, j*s - p + b] / divisor``, where x
    is zero outside the image.

    Parameters
    ----------
    x : array (N, C, H, W), float32 or float64
        The images, in any memory layout.
    kernel_size : int or (int, int)
        Height and width of the window.
    stride : int or (int, int), default kernel_size
        Step between windows.
    padding : int or (int, int), default 0
        Zeros around the image, at most half the window.
    ceil_mode : bool, default False
        Round the output size up: the last window may reach beyond the padding.
    count_include_pad : bool, default True
        Whether the divisor counts the window's elements in the padding. What
        lies beyond the padding never counts.
    divisor_override : int, optional
        The divisor of every window, at least 1.
    out : array (N, C, OH, OW), dtype of x, optional
        Takes the result. It must be writable and share no memory with x.
    backend : str, optional
        The backend that computes; see `fastdl.backends`.

    Returns
    -------
    array (N, C, OH, OW), dtype of x
        The means.

    Raises
    ------
    ShapeError, ArgumentError, DTypeError, OutputError, BackendError
        As `conv2d`.

    References
    ----------
    Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based learning
    applied to document recognition", Proc. IEEE 86(11), 1998, section II.A.

    Examples
    --------
    >>> import fastdl
    >>> import numpy as np
    >>> x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    >>> fastdl.avg_pool2d(x, 2)[0, 0]
    array([[ 2.5,  4.5],
           [10.5, 12.5]], dtype=float32)
    """
    kernels = registry.get(backend, x)
    x = floats("x", x)
    geometry = pool_geometry(x.shape, kernel_size, stride, padding, 1, ceil_mode)
    divisor = _divisor(divisor_override)
    order = order_of(kernels, "avg_pool2d", x)
    target = output(out, geometry.out_shape, x, order, x=x)
    kernels.avg_pool2d(image(kernels, x, order), geometry, bool(count_include_pad), divisor, target)
    return deliver(target, out, order)


def avg_pool2d_backward(
    grad: ArrayLike,
    input_shape: tuple[int, int, int, int],
    kernel_size: IntPair,
    stride: IntPair | None = None,
    padding: IntPair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    backend: str | None = None,
) -> Array:
    """Gradient of `avg_pool2d` with respect to x.

    Each element of grad, over its window's divisor, is added to every element of
    the window: ``grad_x[n, c, i*s - p + a, j*s - p + b] += grad[n,c,i,j] / divisor``.

    Parameters
    ----------
    grad : array (N, C, OH, OW), float32 or float64
        Gradient with respect to avg_pool2d's result.
    input_shape : (int, int, int, int)
        Shape (N, C, H, W) of x.
    kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
        As they were given to `avg_pool2d`.
    backend : str, optional
        The backend that computes; see `fastdl.backends`.

    Returns
    -------
    array (N, C, H, W), dtype of grad
        The gradient.

    Raises
    ------
    ShapeError, ArgumentError, DTypeError, BackendError
        As `avg_pool2d`; also if grad has not the shape of its result.

    Examples
    --------
    >>> import fastdl
    >>> import numpy as np
    >>> fastdl.avg_pool2d_backward(np.ones((1, 1, 2, 2)), (1, 1, 3, 3), 2, stride=1)[0, 0]
    array([[0.25, 0.5 , 0.25],
           [0.5 , 1.  , 0.5 ],
           [0.25, 0.5 , 0.25]])
    """
    kernels = registry.get(backend, grad)
    grad = floats("grad", grad)
    shape = image_shape("input_shape", input_shape)
    geometry = pool_geometry(shape, kernel_size, stride, padding, 1, ceil_mode)
    divisor = _divisor(divisor_override)
    check_shape("grad", grad, geometry.out_shape)
    order = order_of(kernels, "avg_pool2d_backward", grad)
    target = empty_image(shape, grad.dtype, grad, order)
    kernels.avg_pool2d_backward(
        image(kernels, grad, order), geometry, bool(count_include_pad), divisor, target
    )
    return deliver(target, None, order)


def _divisor(value: int | None) -> int | None:
    return None if value is None else integer("divisor_override", value, 1)
