"""Batch normalisation."""

from __future__ import annotations

from math import prod
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike

from ..backends import registry
from ..backends.common import inverse_deviation
from ..backends.table import Activation, Array
from ..errors import DTypeError, OutputError, ShapeError
from ..geometry import Shape
from . import on_device
from .arguments import check_activation, real
from .inputs import check_shape, dense, floats, optional_floats, shaped_floats
from .layout import PIXELS, Order, image, order_of
from .outputs import deliver, empty, empty_image, output, overlap


@overload
def batch_norm(
    x: ArrayLike,
    running_mean: ArrayLike | None,
    running_var: ArrayLike | None,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    activation: Activation = None,
    return_stats: Literal[False] = False,
    out: Array | None = None,
    backend: str | None = None,
) -> Array: ...
@overload
def batch_norm(
    x: ArrayLike,
    running_mean: ArrayLike | None,
    running_var: ArrayLike | None,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    activation: Activation = None,
    return_stats: Literal[True],
    out: Array | None = None,
    backend: str | None = None,
) -> tuple[Array, Array, Array]: ...
def batch_norm(
    x: ArrayLike,
    running_mean: ArrayLike | None,
    running_var: ArrayLike | None,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    activation: Activation = None,
    return_stats: bool = False,
    out: Array | None = None,
    backend: str | None = None,
) -> Array | tuple[Array, Array, Array]:
    """Normalise each channel to mean 0 and variance 1, then scale and shift it.

    ``out[n,c,...] = f((x[n,c,...] - mean[c]) / sqrt(var[c] + eps) * weight[c] + bias[c])``.
    In training mean and var are those of the batch (var biased: the mean of the
    squared deviations), in evaluation the running ones.

    Parameters
    ----------
    x : array (N, C, ...), float32 or float64
        The input, in any memory layout, with any number of further dimensions.
    running_mean, running_var : array (C,), dtype of x
        Statistics for evaluation. In training they are updated in place,
        ``running = (1 - momentum) * running + momentum * batch``, with the
        unbiased variance, as PyTorch does; they must then be writable NumPy
        arrays, or None.
    weight, bias : array (C,), dtype of x, optional
        Scale and shift; default 1 and 0.
    training : bool, default False
        Whether to take the batch's own statistics.
    momentum : float, default 0.1
        Share of the batch in the running statistics, in [0, 1].
    eps : float, default 1e-5
        Keeps the root away from zero; at least 0.
    activation : {None, 'relu', 'sigmoid', 'tanh'}, default None
        Applied to each output element while it is at hand.
    return_stats : bool, default False
        Also return what `batch_norm_backward` needs.
    out : array like x, optional
        Takes the result. It must be writable and share no memory with an input.
    backend : str, optional
        The backend that computes; see `fastdl.backends`.

    Returns
    -------
    out : array like x
        The normalised input.
    mean, inv_std : array (C,), dtype of x
        Only with ``return_stats``: the mean and ``1 / sqrt(var + eps)`` that were
        used; NaN where the batch is empty.

    Raises
    ------
    ShapeError
        If the shapes do not fit, or a channel has one value only in training.
    ArgumentError, DTypeError, OutputError, BackendError
        As `conv2d`. Nothing is written then, to the running statistics neither.

    References
    ----------
    S. Ioffe and C. Szegedy, "Batch normalization: accelerating deep network
    training by reducing internal covariate shift", arXiv:1502.03167, algorithm 1.

    Examples
    --------
    >>> import fastdl
    >>> import numpy as np
    >>> x = np.array([[1.0, 5.0], [3.0, 9.0]])
    >>> mean, var = np.zeros(2), np.ones(2)
    >>> fastdl.batch_norm(x, mean, var, training=True, eps=0)
    array([[-1., -1.],
           [ 1.,  1.]])
    >>> mean, var
    (array([0.2, 0.7]), array([1.1, 1.7]))
    """
    kernels = registry.get(backend, x)
    if kernels.ordinary_normalize is not None and training is False and not return_stats:
        found = kernels.ordinary_normalize(
            x, running_mean, running_var, weight, bias, momentum, eps, activation, out
        )
        if found is not None:
            return found
    check_activation(activation)
    momentum = real("momentum", momentum, 0, 1)
    eps = real("eps", eps, 0)
    x = floats("x", x)
    if on_device.is_device(x):
        return on_device.batch_norm(  # type: ignore[no-any-return]
            x, running_mean, running_var, weight, bias, bool(training), momentum, eps, activation,
            return_stats, out,
        )  # fmt: skip
    flat = _flat_shape("x", x)
    channels = (flat[1],)
    weight = optional_floats("weight", weight, x.dtype, channels)
    bias = optional_floats("bias", bias, x.dtype, channels)
    count = flat[0] * flat[2]
    if training:
        running_mean = _updatable("running_mean", running_mean, x.dtype, channels)
        running_var = _updatable("running_var", running_var, x.dtype, channels)
        _check_apart(running_mean, running_var)
        need_several(x.shape)
    else:
        running_mean = mean = shaped_floats("running_mean", running_mean, x.dtype, channels)
        running_var = var = shaped_floats("running_var", running_var, x.dtype, channels)
    order = order_of(kernels, "batch_norm_train" if training else "normalize", x)
    target = output(
        out, x.shape, x, order,
        x=x, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias,
    )  # fmt: skip
    data, result = _flat(image(kernels, x, order), flat, order), _flat(target, flat, order)
    if not training:
        kernels.normalize(
            data, dense(kernels, mean), dense(kernels, var), dense(kernels, weight),
            dense(kernels, bias), eps, activation, result,
        )  # fmt: skip
        inv_std = inverse_deviation(var, eps) if return_stats else var  # which nobody sees
    elif x.size:
        mean, var, inv_std = (empty(channels, x.dtype) for _ in range(3))
        kernels.batch_norm_train(
            data, dense(kernels, weight), dense(kernels, bias), eps, activation, result, mean, var
        )
        kernels.batch_norm_track(
            mean, var, count, momentum, eps, running_mean, running_var, inv_std
        )
    else:
        mean = inv_std = np.full(channels, np.nan, x.dtype)
    delivered = deliver(target, out, order)
    return (delivered, mean.copy(), inv_std) if return_stats else delivered


def batch_norm_backward(
    grad: ArrayLike,
    x: ArrayLike,
    mean: ArrayLike,
    inv_std: ArrayLike,
    weight: ArrayLike | None = None,
    training: bool = True,
    *,
    y: ArrayLike | None = None,
    backend: str | None = None,
) -> tuple[Array, Array, Array]:
    """Gradients of `batch_norm`, alone or followed by relu, with respect to x, weight and bias.

    With ``x_hat = (x - mean) * inv_std`` and M values in a channel:
    ``grad_bias = sum(grad)``, ``grad_weight = sum(grad * x_hat)``, in training
    ``grad_x = weight * inv_std * (grad - grad_bias / M - x_hat * grad_weight / M)``,
    in evaluation ``grad_x = weight * inv_std * grad``. After relu, grad is zero
    where y is.

    Parameters
    ----------
    grad : array (N, C, ...), float32 or float64
        Gradient with respect to batch_norm's result.
    x : array like grad
        As it was given to `batch_norm`.
    mean, inv_std : array (C,), dtype of grad
        As `batch_norm` returned them with ``return_stats``.
    weight : array (C,), dtype of grad, optional
        As it was given to `batch_norm`.
    training : bool, default True
        As it was given to `batch_norm`.
    y : array like grad, optional
        What `batch_norm` returned with ``activation="relu"``. Without it there was no
        activation.
    backend : str, optional
        The backend that computes; see `fastdl.backends`.

    Returns
    -------
    grad_x, grad_weight, grad_bias : array
        Shaped as x, (C,) and (C,).

    Raises
    ------
    ShapeError, DTypeError, BackendError
        As `batch_norm`.

    References
    ----------
    S. Ioffe and C. Szegedy, "Batch normalization: accelerating deep network
    training by reducing internal covariate shift", arXiv:1502.03167, section 3.

    Examples
    --------
    >>> import fastdl
    >>> import numpy as np
    >>> x = np.array([[1.0], [3.0], [8.0]])
    >>> y, mean, inv_std = fastdl.batch_norm(x, None, None, training=True, return_stats=True)
    >>> grad_x, grad_weight, grad_bias = fastdl.batch_norm_backward(np.ones((3, 1)), x, mean, inv_std)
    >>> grad_bias
    array([3.])
    >>> bool(np.abs(grad_x).max() < 1e-12)  # a shift of all values changes nothing
    True
    """
    kernels = registry.get(backend, grad)
    grad = floats("grad", grad)
    flat = _flat_shape("grad", grad)
    channels = (flat[1],)
    x = floats("x", x, grad.dtype)
    check_shape("x", x, grad.shape)
    mean = shaped_floats("mean", mean, grad.dtype, channels)
    inv_std = shaped_floats("inv_std", inv_std, grad.dtype, channels)
    weight = optional_floats("weight", weight, grad.dtype, channels)
    order = order_of(kernels, "batch_norm_backward", grad)
    if y is not None:
        y = floats("y", y, grad.dtype)
        check_shape("y", y, grad.shape)
        y = _flat(image(kernels, y, order), flat, order)
    grad_x = empty_image(grad.shape, grad.dtype, grad, order)
    if not grad.size:
        return grad_x, np.zeros(channels, grad.dtype), np.zeros(channels, grad.dtype)
    grad_weight, grad_bias = (empty(channels, grad.dtype, grad) for _ in range(2))
    kernels.batch_norm_backward(
        _flat(image(kernels, grad, order), flat, order),
        _flat(image(kernels, x, order), flat, order),
        dense(kernels, mean),
        dense(kernels, inv_std),
        dense(kernels, weight),
        bool(training),
        y,
        _flat(grad_x, flat, order),
        grad_weight,
        grad_bias,
    )
    return deliver(grad_x, None, order), grad_weight, grad_bias


def _flat_shape(name: str, array: Array) -> Shape:
    """``(N, C, S)``: the dimensions after the second in one."""
    if array.ndim < 2:
        raise ShapeError(
            f"{name} must have 2 or more dimensions (N, C, ...), got shape {array.shape}"
        )
    return (array.shape[0], array.shape[1], prod(array.shape[2:]))


def _flat(array: Array, flat: Shape, order: Order) -> Array:
    """As (N, C, S), where the order lets that be a view."""
    return array if order is PIXELS else array.reshape(flat)


def _updatable(name: str, value: Any, dtype: np.dtype[Any], shape: Shape) -> Array | None:
    """A running statistic that training can update in place, or None."""
    if value is None:
        return None
    if not isinstance(value, np.ndarray):
        raise DTypeError(
            f"{name} must be a NumPy array (training updates it in place), "
            f"got {type(value).__name__}"
        )
    array = shaped_floats(name, value, dtype, shape)
    if not array.flags.writeable:
        raise OutputError(
            f"{name} must be writable (training updates it in place), got a read-only array"
        )
    return array


def _check_apart(mean: Array | None, var: Array | None) -> None:
    if mean is not None and var is not None and overlap(mean, var):
        raise OutputError(
            "running_var must share no memory with running_mean, got one that overlaps it"
        )


def need_several(shape: Shape) -> int:
    """The number of values in a channel; one alone has no deviation to train with."""
    count = shape[0] * prod(shape[2:])
    if count == 1:
        raise ShapeError(
            f"x must have more than 1 value per channel in training, got shape {shape}"
        )
    return count
