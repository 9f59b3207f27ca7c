"""Convolution."""

from __future__ import annotations

from numpy.typing import ArrayLike

from ..backends import registry
from ..backends.table import Activation, Algorithm, Array
from ..geometry import IntPair, Padding, conv_geometry
from .arguments import check_activation, check_algorithm, check_needs
from .inputs import check_shape, dense, floats, optional_floats
from .layout import image, order_of
from .outputs import deliver, empty, empty_image, output


def conv2d(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: IntPair = 1,
    padding: Padding = 0,
    dilation: IntPair = 1,
    groups: int = 1,
    *,
    activation: Activation = None,
    out: Array | None = None,
    algorithm: Algorithm = None,
    backend: str | None = None,
) -> Array:
    """Convolve images with filters (cross-correlation, as in every deep learning library).

    ``out[n,o,i,j] = f(bias[o] + sum_{c,a,b} x[n, c, i*s - p + a*d, j*s - p + b*d] * weight[o,c,a,b])``
    with stride s, padding p, dilation d and activation f. Outside the image x is zero.

    Parameters
    ----------
    x : array (N, C, H, W), float32 or float64
        The images, in any memory layout.
    weight : array (O, C / groups, KH, KW), dtype of x
        The filters.
    bias : array (O,), dtype of x, optional
        Added to each filter's plane.
    stride : int or (int, int), default 1
        Step between windows, at least 1.
    padding : int, (int, int), ((top, bottom), (left, right)), 'same' or 'valid', default 0
        Zeros around the image. 'same' keeps H and W, and needs stride 1.
    dilation : int or (int, int), default 1
        Step between a filter's taps, at least 1.
    groups : int, default 1
        Each of ``groups`` equal parts of the filters sees its own part of the
        channels; ``groups=C`` is a depthwise convolution.
    activation : {None, 'relu', 'sigmoid', 'tanh'}, default None
        Applied to each output element while it is at hand.
    out : array (N, O, OH, OW), dtype of x, optional
        Takes the result. It must be writable and share no memory with an input.
    algorithm : {None, 'direct', 'winograd', 'depthwise'}, default None
        How the sums are made. 'direct' as the formula says, for every convolution;
        'winograd' with fewer multiplications, for kernels of 2x2 to 8x8 with stride 1
        or, not dilated, 2 (in the jit backend 3x3 with stride 1); 'depthwise' is the
        direct one for a channel a group. None takes what is fastest, and `explain`
        tells what that is.
    backend : str, optional
        The backend that computes; see `fastdl.backends`.

    Returns
    -------
    array (N, O, OH, OW), dtype of x
        ``OH = floor((H + 2*p - d*(KH - 1) - 1) / s) + 1``, OW likewise. Channels-last
        in memory, (N, OH, OW, O), where x is; so it is with every function on images.

    Raises
    ------
    ShapeError
        If the shapes do not fit each other, or the kernel not the padded image.
    ArgumentError
        If stride, padding, dilation, groups or activation has a value out of range,
        or the algorithm does not serve such a convolution on this backend.
    DTypeError
        If an array is not float32 or float64, or their dtypes differ.
    OutputError
        If ``out`` cannot take the result.
    BackendError
        If there is no such backend here.

    References
    ----------
    V. Dumoulin and F. Visin, "A guide to convolution arithmetic for deep
    learning", arXiv:1603.07285, sections 2 and 5.

    Examples
    --------
    >>> import fastdl
    >>> import numpy as np
    >>> x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    >>> weight = np.ones((1, 1, 3, 3), np.float32)
    >>> fastdl.conv2d(x, weight)[0, 0]
    array([[45., 54.],
           [81., 90.]], dtype=float32)
    >>> fastdl.conv2d(x, weight, stride=2, padding=1).shape
    (1, 1, 2, 2)
    """
    kernels = registry.get(backend, x)
    if kernels.ordinary_conv2d is not None:
        result = kernels.ordinary_conv2d(
            x, weight, bias, stride, padding, dilation, groups, activation, algorithm, out
        )
        if result is not None:
            return result
    check_activation(activation)
    x = floats("x", x)
    weight = floats("weight", weight, x.dtype)
    geometry = conv_geometry(x.shape, weight.shape, stride, padding, dilation, groups)
    bias = optional_floats("bias", bias, x.dtype, (geometry.filters,))
    check_algorithm(algorithm, kernels, geometry, x.dtype)
    order = order_of(kernels, "conv2d", x)
    target = output(out, geometry.out_shape, x, order, x=x, weight=weight, bias=bias)
    if kernels.remember_conv2d is not None:
        kernels.remember_conv2d(
            x, weight, stride, padding, dilation, groups, activation, algorithm, geometry
        )
    kernels.conv2d(
        image(kernels, x, order),
        dense(kernels, weight),
        dense(kernels, bias),
        geometry,
        activation,
        target,
        algorithm,
    )
    return deliver(target, out, order)


def conv2d_backward(
    grad: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike,
    stride: IntPair = 1,
    padding: Padding = 0,
    dilation: IntPair = 1,
    groups: int = 1,
    *,
    needs: tuple[bool, bool, bool] = (True, True, True),
    algorithm: Algorithm = None,
    backend: str | None = None,
) -> tuple[Array | None, Array | None, Array | None]:
    """Gradients of `conv2d` (without activation) with respect to x, weight and bias.

    ``grad_x`` is the transposed convolution of grad with weight,
    ``grad_weight[o,c,a,b] = sum_{n,i,j} grad[n,o,i,j] * x[n, c, i*s - p + a*d, j*s - p + b*d]``
    and ``grad_bias[o] = sum_{n,i,j} grad[n,o,i,j]``.

    Parameters
    ----------
    grad : array (N, O, OH, OW), float32 or float64
        Gradient with respect to conv2d's result.
    x, weight, stride, padding, dilation, groups
        As they were given to `conv2d`; dtype of grad.
    needs : (bool, bool, bool), default all True
        Which of the three gradients to compute.
    algorithm : {None, 'direct', 'winograd', 'depthwise'}, default None
        As for `conv2d`.
    backend : str, optional
        The backend that computes; see `fastdl.backends`.

    Returns
    -------
    grad_x, grad_weight, grad_bias : array or None
        Shaped as x, weight and (O,); None where not needed.

    Raises
    ------
    ShapeError, ArgumentError, DTypeError, BackendError
        As `conv2d`; also if grad has not the shape of conv2d's result.

    References
    ----------
    V. Dumoulin and F. Visin, "A guide to convolution arithmetic for deep
    learning", arXiv:1603.07285, section 4.

    Examples
    --------
    >>> import fastdl
    >>> import numpy as np
    >>> x, weight = np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2))
    >>> grad_x, grad_weight, grad_bias = fastdl.conv2d_backward(np.ones((1, 1, 2, 2)), x, weight)
    >>> grad_x[0, 0]
    array([[1., 2., 1.],
           [2., 4., 2.],
           [1., 2., 1.]])
    >>> grad_bias
    array([4.])
    """
    kernels = registry.get(backend, grad)
    check_needs(needs)
    grad = floats("grad", grad)
    x = floats("x", x, grad.dtype)
    weight = floats("weight", weight, grad.dtype)
    geometry = conv_geometry(x.shape, weight.shape, stride, padding, dilation, groups)
    check_shape("grad", grad, geometry.out_shape)
    check_algorithm(algorithm, kernels, geometry, grad.dtype)
    order = order_of(kernels, "conv2d_grad_input", x)
    grad = image(kernels, grad, order)
    grad_x = grad_weight = grad_bias = None
    if needs[0]:
        grad_x = empty_image(x.shape, grad.dtype, grad, order)
        kernels.conv2d_grad_input(grad, dense(kernels, weight), geometry, grad_x, algorithm)
        grad_x = deliver(grad_x, None, order)
    if needs[1]:
        grad_weight = empty(weight.shape, grad.dtype, grad)
        kernels.conv2d_grad_weight(grad, image(kernels, x, order), geometry, grad_weight, algorithm)
    if needs[2]:
        grad_bias = empty((geometry.filters,), grad.dtype, grad)
        kernels.conv2d_grad_bias(grad, grad_bias)
    return grad_x, grad_weight, grad_bias
