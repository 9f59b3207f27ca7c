"""Transposed convolution: the input gradient of a convolution, as an operation of its own.

So it has no kernels of its own either. The convolution that it transposes takes
the transposed convolution's output to its input, with the same weight.
"""

from __future__ import annotations

from numpy.typing import ArrayLike

from ..backends import registry
from ..backends.table import Array
from ..geometry import IntPair, conv_transpose_geometry
from . import on_device
from .arguments import check_needs
from .inputs import check_shape, dense, floats, optional_floats
from .layout import image, order_of
from .outputs import deliver, empty, empty_image, output


def conv_transpose2d(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: IntPair = 1,
    padding: IntPair = 0,
    output_padding: IntPair = 0,
    groups: int = 1,
    dilation: IntPair = 1,
    *,
    out: Array | None = None,
    backend: str | None = None,
) -> Array:
    """Transposed convolution, also called deconvolution.

    ``out[n, o, i*s - p + a*d, j*s - p + b*d] += x[n,c,i,j] * weight[c,o,a,b]``, over
    all c, i, j, a, b, starting from bias[o]; what falls outside the output is dropped.

    Parameters
    ----------
    x : array (N, C, H, W), float32 or float64
        The input, in any memory layout.
    weight : array (C, O / groups, KH, KW), dtype of x
        The filters. The first dimension is x's channels: this is the weight of
        the convolution that takes the output back to x.
    bias : array (O,), dtype of x, optional
        Added to each output plane.
    stride, dilation : int or (int, int), default 1
        Those of that convolution.
    padding : int or (int, int), default 0
        That of the convolution: so many rows and columns are cut from each side.
    output_padding : int or (int, int), default 0
        Rows and columns added at the bottom and the right, where several output
        sizes lead back to the same x. Smaller than stride or dilation.
    groups : int, default 1
        As for `conv2d`.
    out : array (N, O, OH, OW), dtype of x, optional
        Takes the result. It must be writable and share no memory with an input.
    backend : str, optional
        The backend that computes; see `fastdl.backends`.

    Returns
    -------
    array (N, O, OH, OW), dtype of x
        ``OH = (H - 1)*s - 2*p + d*(KH - 1) + output_padding + 1``, OW likewise.

    Raises
    ------
    ShapeError, ArgumentError, DTypeError, OutputError, BackendError
        As `conv2d`.

    References
    ----------
    V. Dumoulin and F. Visin, "A guide to convolution arithmetic for deep
    learning", arXiv:1603.07285, section 4.

    Examples
    --------
    >>> import fastdl
    >>> import numpy as np
    >>> x = np.float32([[[[1, 2], [3, 4]]]])
    >>> fastdl.conv_transpose2d(x, np.ones((1, 1, 2, 2), np.float32), stride=2)[0, 0]
    array([[1., 1., 2., 2.],
           [1., 1., 2., 2.],
           [3., 3., 4., 4.],
           [3., 3., 4., 4.]], dtype=float32)
    """
    kernels = registry.get(backend, x)
    x = floats("x", x)
    weight = floats("weight", weight, x.dtype)
    geometry = conv_transpose_geometry(
        x.shape, weight.shape, stride, padding, output_padding, groups, dilation
    )
    bias = optional_floats("bias", bias, x.dtype, (geometry.channels,))
    order = order_of(kernels, "conv2d_grad_input", x)
    target = output(out, geometry.x_shape, x, order, x=x, weight=weight, bias=bias)
    kernels.conv2d_grad_input(image(kernels, x, order), dense(kernels, weight), geometry, target)
    if bias is not None and on_device.is_device(target):
        on_device.add_channels(target, bias)
    elif bias is not None:
        target += bias[:, None, None]
    return deliver(target, out, order)


def conv_transpose2d_backward(
    grad: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike,
    stride: IntPair = 1,
    padding: IntPair = 0,
    output_padding: IntPair = 0,
    groups: int = 1,
    dilation: IntPair = 1,
    *,
    needs: tuple[bool, bool, bool] = (True, True, True),
    backend: str | None = None,
) -> tuple[Array | None, Array | None, Array | None]:
    """Gradients of `conv_transpose2d` with respect to x, weight and bias.

    ``grad_x`` is the convolution of grad with weight; ``grad_weight`` is that
    convolution's weight gradient, with x in the place of its output's gradient;
    ``grad_bias[o] = sum_{n,i,j} grad[n,o,i,j]``.

    Parameters
    ----------
    grad : array (N, O, OH, OW), float32 or float64
        Gradient with respect to conv_transpose2d's result.
    x, weight, stride, padding, output_padding, groups, dilation
        As they were given to `conv_transpose2d`; dtype of grad.
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
        As `conv_transpose2d`; also if grad has not the shape of its result.

    Examples
    --------
    >>> import fastdl
    >>> import numpy as np
    >>> x, weight = np.ones((1, 1, 2, 2)), np.ones((1, 1, 2, 2))
    >>> grad = np.arange(9.0).reshape(1, 1, 3, 3)
    >>> grad_x, grad_weight, grad_bias = fastdl.conv_transpose2d_backward(grad, x, weight)
    >>> grad_x[0, 0]
    array([[ 8., 12.],
           [20., 24.]])
    >>> grad_bias
    array([36.])
    """
    kernels = registry.get(backend, grad)
    check_needs(needs)
    grad = floats("grad", grad)
    x = floats("x", x, grad.dtype)
    weight = floats("weight", weight, grad.dtype)
    geometry = conv_transpose_geometry(
        x.shape, weight.shape, stride, padding, output_padding, groups, dilation
    )
    check_shape("grad", grad, geometry.x_shape)
    order = order_of(kernels, "conv2d_grad_input", x)
    grad = image(kernels, grad, order)
    grad_x = grad_weight = grad_bias = None
    if needs[0]:
        grad_x = empty_image(x.shape, grad.dtype, grad, order)
        kernels.conv2d(grad, dense(kernels, weight), None, geometry, None, grad_x)
        grad_x = deliver(grad_x, None, order)
    if needs[1]:
        grad_weight = empty(weight.shape, grad.dtype, grad)
        kernels.conv2d_grad_weight(image(kernels, x, order), grad, geometry, grad_weight)
    if needs[2]:
        grad_bias = empty((geometry.channels,), grad.dtype, grad)
        kernels.conv2d_grad_bias(grad, grad_bias)
    return grad_x, grad_weight, grad_bias
