"""im2col and its transpose: a convolution's windows as the columns of a matrix."""

from __future__ import annotations

from numpy.typing import ArrayLike

from ..backends import registry
from ..backends.table import Array
from ..errors import ShapeError
from ..geometry import IntPair, pair, window_geometry
from .inputs import check_rank, check_shape, dense, floats
from .outputs import deliver, output


def im2col(
    x: ArrayLike,
    kernel_size: IntPair,
    dilation: IntPair = 1,
    padding: IntPair = 0,
    stride: IntPair = 1,
    *,
    out: Array | None = None,
    backend: str | None = None,
) -> Array:
    """Lay each window of an image out as a column (``torch.nn.functional.unfold``).

    ``out[n, (c*KH + a)*KW + b, i*OW + j] = x[n, c, i*s - p + a*d, j*s - p + b*d]``,
    zero outside the image. ``weight.reshape(O, -1) @ out`` is then the convolution.

    Parameters
    ----------
    x : array (N, C, H, W), float32 or float64
        The images, in any memory layout; at least one channel.
    kernel_size : int or (int, int)
        KH and KW.
    dilation, padding, stride : int or (int, int), default 1, 0, 1
        As for `conv2d`.
    out : array (N, C * KH * KW, OH * OW), dtype of x, optional
        Takes the result. It must be writable and share no memory with x.
    backend : str, optional
        The backend that computes; see `fastdl.backends`.

    Returns
    -------
    array (N, C * KH * KW, OH * OW), dtype of x
        OH and OW as for `conv2d`.

    Raises
    ------
    ShapeError, ArgumentError, DTypeError, OutputError, BackendError
        As `conv2d`.

    References
    ----------
    K. Chellapilla, S. Puri and P. Simard, "High performance convolutional neural
    networks for document processing", IWFHR 2006, section 2.

    Examples
    --------
    >>> import fastdl
    >>> import numpy as np
    >>> fastdl.im2col(np.arange(9.0).reshape(1, 1, 3, 3), 2)[0]
    array([[0., 1., 3., 4.],
           [1., 2., 4., 5.],
           [3., 4., 6., 7.],
           [4., 5., 7., 8.]])
    """
    kernels = registry.get(backend, x)
    x = floats("x", x)
    geometry = window_geometry(x.shape, kernel_size, dilation, padding, stride)
    target = output(out, geometry.col_shape, x, x=x)
    kernels.im2col(dense(kernels, x), geometry, target)
    return deliver(target, out)


def col2im(
    col: ArrayLike,
    output_size: IntPair,
    kernel_size: IntPair,
    dilation: IntPair = 1,
    padding: IntPair = 0,
    stride: IntPair = 1,
    *,
    out: Array | None = None,
    backend: str | None = None,
) -> Array:
    """Add each column back to its window: the transpose of `im2col` (``torch.nn.functional.fold``).

    ``out[n, c, i*s - p + a*d, j*s - p + b*d] += col[n, (c*KH + a)*KW + b, i*OW + j]``,
    starting from zero. It is also `im2col`'s gradient.

    Parameters
    ----------
    col : array (N, C * KH * KW, OH * OW), float32 or float64
        The columns, in any memory layout.
    output_size : int or (int, int)
        H and W of the image.
    kernel_size, dilation, padding, stride : int or (int, int)
        As for `im2col`.
    out : array (N, C, H, W), dtype of col, optional
        Takes the result. It must be writable and share no memory with col.
    backend : str, optional
        The backend that computes; see `fastdl.backends`.

    Returns
    -------
    array (N, C, H, W), dtype of col
        The image.

    Raises
    ------
    ShapeError
        If col has not the shape that im2col gives an image of that size.
    ArgumentError, DTypeError, OutputError, BackendError
        As `im2col`.

    Examples
    --------
    >>> import fastdl
    >>> import numpy as np
    >>> fastdl.col2im(np.ones((1, 4, 4)), 3, 2)[0, 0]
    array([[1., 2., 1.],
           [2., 4., 2.],
           [1., 2., 1.]])
    """
    kernels = registry.get(backend, col)
    col = floats("col", col)
    check_rank("col", col, 3, "(N, C * KH * KW, OH * OW)")
    size = pair("output_size", output_size, 1)
    kernel_size = pair("kernel_size", kernel_size, 1)
    taps = kernel_size[0] * kernel_size[1]
    if col.shape[1] < 1 or col.shape[1] % taps:
        raise ShapeError(
            f"col must have a multiple of {taps} rows (kernel_size={kernel_size}), "
            f"got shape {col.shape}"
        )
    x_shape = (col.shape[0], col.shape[1] // taps, *size)
    geometry = window_geometry(x_shape, kernel_size, dilation, padding, stride)
    check_shape("col", col, geometry.col_shape)
    target = output(out, geometry.x_shape, col, col=col)
    kernels.col2im(dense(kernels, col), geometry, target)
    return deliver(target, out)
