"""Average pooling to a given output size; size 1 is global average pooling."""

from __future__ import annotations

from numpy.typing import ArrayLike

from ..backends import registry
from ..backends.table import Array
from ..errors import ArgumentError, ShapeError
from ..geometry import Pair, Shape, integer, rank4
from .arguments import image_shape
from .inputs import check_rank, check_shape, floats
from .layout import image, order_of
from .outputs import deliver, empty_image, output


def adaptive_avg_pool2d(
    x: ArrayLike,
    output_size: int | tuple[int | None, int | None] | None,
    *,
    out: Array | None = None,
    backend: str | None = None,
) -> Array:
    """Means over windows that share the image evenly among the outputs.

    ``out[n,c,i,j]`` is the mean of rows ``floor(i*H/OH)`` to ``ceil((i+1)*H/OH) - 1``
    and columns likewise. Windows overlap by one where OH does not divide H.

    Parameters
    ----------
    x : array (N, C, H, W), float32 or float64
        The images, in any memory layout; H and W at least 1.
    output_size : int, (int, int) or None
        OH and OW, each at least 1; None keeps the size of x.
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
    K. He, X. Zhang, S. Ren and J. Sun, "Spatial pyramid pooling in deep
    convolutional networks for visual recognition", ECCV 2014, section 3.1.

    Examples
    --------
    >>> import fastdl
    >>> import numpy as np
    >>> x = np.arange(20, dtype=np.float32).reshape(1, 1, 4, 5)
    >>> fastdl.adaptive_avg_pool2d(x, (2, 3))[0, 0]
    array([[ 3. ,  4.5,  6. ],
           [13. , 14.5, 16. ]], dtype=float32)
    """
    kernels = registry.get(backend, x)
    x = floats("x", x)
    order = order_of(kernels, "adaptive_avg_pool2d", x)
    target = output(out, pooled_shape(x.shape, output_size), x, order, x=x)
    kernels.adaptive_avg_pool2d(image(kernels, x, order), target)
    return deliver(target, out, order)


def adaptive_avg_pool2d_backward(
    grad: ArrayLike, input_shape: tuple[int, int, int, int], *, backend: str | None = None
) -> Array:
    """Gradient of `adaptive_avg_pool2d` with respect to x.

    Each element of grad, over its window's size, is added to every element of
    the window.

    Parameters
    ----------
    grad : array (N, C, OH, OW), float32 or float64
        Gradient with respect to adaptive_avg_pool2d's result.
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
    ShapeError, DTypeError, BackendError
        As `adaptive_avg_pool2d`; also if grad and input_shape do not fit.

    Examples
    --------
    >>> import fastdl
    >>> import numpy as np
    >>> fastdl.adaptive_avg_pool2d_backward(np.ones((1, 1, 1, 2)), (1, 1, 2, 2))[0, 0]
    array([[0.5, 0.5],
           [0.5, 0.5]])
    """
    kernels = registry.get(backend, grad)
    grad = floats("grad", grad)
    shape = image_shape("input_shape", input_shape)
    _check_pixels("input_shape", shape)
    check_rank("grad", grad, 4, "(N, C, OH, OW)")
    _check_pixels("grad", grad.shape)
    check_shape("grad", grad, (*shape[:2], *grad.shape[2:]))
    order = order_of(kernels, "adaptive_avg_pool2d_backward", grad)
    target = empty_image(shape, grad.dtype, grad, order)
    kernels.adaptive_avg_pool2d_backward(image(kernels, grad, order), target)
    return deliver(target, None, order)


def global_avg_pool2d(
    x: ArrayLike, *, out: Array | None = None, backend: str | None = None
) -> Array:
    """Mean of each channel's plane: ``out[n,c,0,0] = mean_{h,w} x[n,c,h,w]``.

    Parameters
    ----------
    x : array (N, C, H, W), float32 or float64
        The images, in any memory layout; H and W at least 1.
    out : array (N, C, 1, 1), dtype of x, optional
        Takes the result. It must be writable and share no memory with x.
    backend : str, optional
        The backend that computes; see `fastdl.backends`.

    Returns
    -------
    array (N, C, 1, 1), dtype of x
        The means.

    Raises
    ------
    ShapeError, DTypeError, OutputError, BackendError
        As `conv2d`.

    References
    ----------
    M. Lin, Q. Chen and S. Yan, "Network in network", arXiv:1312.4400, section 3.2.

    Examples
    --------
    >>> import fastdl
    >>> import numpy as np
    >>> x = np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2)
    >>> fastdl.global_avg_pool2d(x).ravel()
    array([1.5, 5.5], dtype=float32)
    """
    return adaptive_avg_pool2d(x, 1, out=out, backend=backend)


def global_avg_pool2d_backward(
    grad: ArrayLike, input_shape: tuple[int, int, int, int], *, backend: str | None = None
) -> Array:
    """Gradient of `global_avg_pool2d`: ``grad_x[n,c,h,w] = grad[n,c,0,0] / (H * W)``.

    Parameters
    ----------
    grad : array (N, C, 1, 1), float32 or float64
        Gradient with respect to global_avg_pool2d's result.
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
    ShapeError, DTypeError, BackendError
        As `global_avg_pool2d`; also if grad and input_shape do not fit.

    Examples
    --------
    >>> import fastdl
    >>> import numpy as np
    >>> fastdl.global_avg_pool2d_backward(np.ones((1, 1, 1, 1)), (1, 1, 2, 2))[0, 0]
    array([[0.25, 0.25],
           [0.25, 0.25]])
    """
    grad = floats("grad", grad)
    shape = image_shape("input_shape", input_shape)
    check_shape("grad", grad, (*shape[:2], 1, 1))
    return adaptive_avg_pool2d_backward(grad, input_shape, backend=backend)


def pooled_shape(x_shape: Shape, output_size: int | tuple[int | None, int | None] | None) -> Shape:
    """The shape of `adaptive_avg_pool2d`'s result."""
    rank4("x", x_shape, "(N, C, H, W)")
    _check_pixels("x", x_shape)
    return (*x_shape[:2], *_output_size(output_size, (x_shape[2], x_shape[3])))


def _check_pixels(name: str, shape: Shape) -> None:
    if min(shape[2:]) < 1:
        raise ShapeError(f"{name} must have at least one row and one column, got shape {shape}")


def _output_size(value: int | tuple[int | None, int | None] | None, size: Pair) -> Pair:
    """``value`` as a pair, with None replaced by the size of the image."""
    entries = value if isinstance(value, (tuple, list)) else (value, value)
    if len(entries) != 2:
        raise ArgumentError(f"output_size must be an integer or a pair, got {value!r}")
    height, width = (
        kept if entry is None else integer("output_size", entry, 1)
        for entry, kept in zip(entries, size, strict=True)
    )
    return height, width
