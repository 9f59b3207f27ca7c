"""Arrays on a GPU, in the functions whose work on the CPU is partly NumPy's.

They check as those do, and leave the computing to `fastdl.backends.cuda.layers`.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ..backends.gpu import on_device
from ..backends.table import Activation, Array, OptimizerStep
from ..errors import ArgumentError, DTypeError, OutputError, ShapeError
from ..geometry import Shape
from . import inputs
from .inputs import check_shape, floats, integers, optional_floats


def is_device(array: Any) -> bool:
    """Whether a checked array is on a GPU."""
    return type(array) is not np.ndarray


def _together(**arrays: Any) -> None:
    from ..backends.cuda.arrays import check_together

    check_together(arrays)


def _dense(array: Any) -> Any:
    if array is None:
        return None
    flags = array.flags
    return array if flags.c_contiguous and flags.aligned else array.copy()


def device_output(out: Any, shape: Shape, dtype: Any, like: Any, inputs: dict[str, Any]) -> Any:
    """As `fastdl.functional.outputs.output`, on the GPU of ``like``."""
    from ..backends.cuda.arrays import DeviceArray, empty, overlap, viewed

    if out is None:
        return empty(shape, dtype, like)
    if not on_device(out):
        raise OutputError(f"out must be on the GPU like the input, got {type(out).__name__}")
    target = viewed(out)
    if target.shape != shape:
        raise OutputError(f"out must have shape {shape}, got {target.shape}")
    if target.dtype != dtype:
        raise OutputError(f"out must be {dtype} like the input, got {target.dtype}")
    if not target.flags.carray:
        raise OutputError("out on a GPU must be C-contiguous, aligned to 16 bytes and writable")
    for name, array in inputs.items():
        if isinstance(array, DeviceArray) and overlap(target, array):
            raise OutputError(f"out must share no memory with {name}, got one that overlaps it")
    return target


def batch_norm(
    x: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any,
    bias: Any,
    training: bool,
    momentum: float,
    eps: float,
    activation: Activation,
    return_stats: bool,
    out: Any,
) -> Any:
    """`fastdl.batch_norm`; x, momentum and eps are checked."""
    from ..backends.cuda import layers
    from .norm import need_several
    from .outputs import output

    if x.ndim < 2:
        raise ShapeError(f"x must have 2 or more dimensions (N, C, ...), got shape {x.shape}")
    flat = (x.shape[0], x.shape[1], prod(x.shape[2:]))
    channels = (flat[1],)
    weight, bias, running_mean, running_var = (
        optional_floats(name, value, x.dtype, channels)
        for name, value in (
            ("weight", weight), ("bias", bias),
            ("running_mean", running_mean), ("running_var", running_var),
        )
    )  # fmt: skip
    if not training and (running_mean is None or running_var is None):
        raise DTypeError("running_mean and running_var must be arrays in evaluation, got None")
    if training:
        need_several(x.shape)
    _together(x=x, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    for name, running in (("running_mean", running_mean), ("running_var", running_var)):
        if training and running is not None and not running.flags.carray:
            raise OutputError(f"{name} must be C-contiguous and writable on a GPU")
    both = running_mean is not None and running_var is not None
    if training and both and share_memory(running_mean, running_var):
        raise OutputError(
            "running_var must share no memory with running_mean, got one that overlaps it"
        )
    target = output(
        out, x.shape, x,
        x=x, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias,
    )  # fmt: skip
    mean, inv_std = layers.batch_norm(
        _dense(x).reshape(flat), running_mean, running_var, _dense(weight), _dense(bias),
        training, momentum, eps, activation, target.reshape(flat),  # type: ignore[arg-type]
    )  # fmt: skip
    result = target if out is None else out
    return (result, mean, inv_std) if return_stats else result


def sum_rows(rows: Any) -> Any:
    """Sum of the rows of a dense matrix."""
    from ..backends.cuda import layers
    from ..backends.cuda.arrays import empty

    out = empty(rows.shape[1:], rows.dtype, rows)
    layers.linear_grad_bias(rows, out)
    return out


def share_memory(first: Any, second: Any) -> bool:
    """Whether two arrays on GPUs overlap."""
    from ..backends.cuda.arrays import overlap

    return overlap(first, second)


def check_range(name: str, array: Any, below: int) -> None:
    """As `fastdl.functional.inputs.check_range`: once for an array, as that waits for the GPU."""
    from ..backends.cuda import losses

    if array.below is None or array.below > below:
        if array.size and losses.count_outside(_dense(array), below):
            _refuse(name, array, below)
        array.below = below


def _refuse(name: str, array: Any, below: int) -> None:
    """The error of the CPU for integers that are not all in ``[0, below)``."""
    inputs.check_range(name, array.copy_to_host(), below)


def device_target(x: Any, target: Any) -> Any:
    """The classes of cross entropy, on x's GPU: those of the host are checked and copied there.

    The values of classes that are there already are looked at with the loss.
    """
    from ..backends.cuda.arrays import to_device, viewed

    if not on_device(target):
        checked = integers("target", target, (x.shape[0],))
        inputs.check_range("target", checked, x.shape[1])
        copied = to_device(checked.astype(np.int64), x.device)
        copied.below = x.shape[1]
        return copied
    array = viewed(target)
    if array.dtype != np.int64:
        raise DTypeError(f"target on a GPU must be int64, got {array.dtype}")
    check_shape("target", array, (x.shape[0],))  # type: ignore[arg-type]
    _together(x=x, target=array)
    return array


def cross_entropy(x: Any, target: Any, smoothing: float, reduction: str) -> Any:
    """`fastdl.cross_entropy`: the mean or sum is copied to the host, a number."""
    from ..backends.cuda import losses

    if reduction == "none":
        check_range("target", target, x.shape[1])
        return losses.cross_entropy(_dense(x), _dense(target), smoothing, reduction)
    found = losses.cross_entropy(_dense(x), _dense(target), smoothing, reduction)
    loss, bad = found.copy_to_host()
    if bad:
        _refuse("target", target, x.shape[1])
    target.below = x.shape[1]
    return x.dtype.type(loss)


def cross_entropy_backward(
    x: Any, target: Any, smoothing: float, upstream: Any, scale: float
) -> Array:
    """`fastdl.cross_entropy_backward`, times ``scale`` and, where it is an array, ``upstream``."""
    from ..backends.cuda import losses

    check_range("target", target, x.shape[1])
    if upstream is not None:
        upstream = floats("grad", upstream, x.dtype)
        check_shape("grad", upstream, (x.shape[0],))
        _together(x=x, grad=upstream)
    return losses.cross_entropy_backward(  # type: ignore[return-value]
        _dense(x), _dense(target), smoothing, scale, _dense(upstream)
    )


def correct(scores: Any, classes: Any) -> int:
    """How many rows of ``scores`` have their highest at their class."""
    from ..backends.cuda import losses

    return losses.correct(_dense(scores), _dense(device_target(scores, classes)))


def element_loss(name: str, x: Any, target: Any) -> float:
    """The sum of every element's loss."""
    from ..backends.cuda import losses

    _together(x=x, target=target)
    return losses.element_loss(name, _dense(x), _dense(target))


def element_loss_backward(name: str, x: Any, target: Any, share: float) -> Any:
    """The derivative of each by its element of x, times ``share``."""
    from ..backends.cuda import losses

    return losses.element_loss_backward(name, _dense(x), _dense(target), share)


def add(x: Any, y: Any, activation: Activation) -> Any:
    """``f(x + y)``, in an array of its own."""
    from ..backends.cuda import elementwise
    from ..backends.cuda.arrays import empty

    _together(x=x, y=y)
    y = floats("y", y, x.dtype)
    check_shape("y", y, x.shape)
    out = empty(x.shape, x.dtype, x)
    elementwise.add(_dense(x), _dense(y), activation, out)
    return out


def leaky_relu(values: Any, x: Any, slope: float) -> Any:
    """``values``, times ``slope`` where x is not positive."""
    from ..backends.cuda import elementwise
    from ..backends.cuda.arrays import empty

    _together(x=x, grad=values)
    out = empty(x.shape, x.dtype, x)
    elementwise.leaky_relu(_dense(values), _dense(x), slope, out)
    return out


def local_response_norm(x: Any, size: int, alpha: float, beta: float, k: float) -> tuple[Any, Any]:
    """The result, and the bases of its powers."""
    from ..backends.cuda import response_norm

    return response_norm.local_response_norm(_dense(x), size, alpha, beta, k)


def local_response_norm_backward(
    grad: Any, x: Any, bases: Any, size: int, alpha: float, beta: float
) -> Any:
    """The gradient of x."""
    from ..backends.cuda import response_norm

    _together(x=x, grad=grad)
    return response_norm.local_response_norm_backward(
        _dense(grad), _dense(x), bases, size, alpha, beta
    )


def folded(
    weight: Any, bias: Any, mean: Any, var: Any, scale: Any, shift: Any, eps: float
) -> tuple[Any, Any]:
    """Weight and bias of a convolution that has the normalisation after it in it."""
    from ..backends.cuda import norm

    _together(weight=weight, bias=bias, mean=mean, var=var, scale=scale, shift=shift)
    _, *factors = norm.factors(_dense(var), _dense(scale), _dense(shift), eps)
    return norm.folded(_dense(weight), _dense(bias), _dense(mean), (factors[0], factors[1]))


def adjust(name: str, array: Any, number: float) -> None:
    """``scale`` by a number, ``clip`` into ``[-number, number]``, ``shrink`` by it: in place."""
    from ..backends.cuda import elementwise

    elementwise.adjusted(name, array, number)


def with_power_penalty(grad: Any, w: Any, scale: float, strength: float, power: float) -> Any:
    """``scale * grad + strength * sign(w) * |w|**power``."""
    from ..backends.cuda import elementwise

    _together(param=w, grad=grad)
    return elementwise.with_power_penalty(_dense(grad), _dense(w), scale, strength, power)


def optimizer_step(
    step: OptimizerStep, params: Any, grads: Any, states: Any, penalties: Any
) -> None:
    """`fastdl.functional.optimizer.optimizer_step`, where the parameters are."""
    from ..backends.cuda import optimizer

    for number, param in enumerate(params):
        if not param.flags.carray:
            raise OutputError(f"params[{number}] must be C-contiguous and writable on a GPU")
    first, second = (*map(list, states), [], [])[:2]
    optimizer.optimizer_step(step, params, list(map(_dense, grads)), first, second, penalties)


def sum_of_squares(arrays: Any) -> float:
    """``sum(x**2)`` over all of them: one number is copied to the host for each GPU block."""
    from ..backends.cuda import optimizer

    return optimizer.sums_of_squares([_dense(array) for array in arrays])


def dropout(
    x: Any, p: float, training: bool, scale: float, generator: np.random.Generator, out: Any
) -> tuple[Any, Any]:
    """`fastdl.dropout`: the mask is the CPU's, drawn on the GPU."""
    from ..backends.cuda import elementwise, random
    from .outputs import elementwise_output

    target: Any = elementwise_output(out, x)
    mask = random.drawn_mask(x.shape, p, generator, x) if training else random.full_mask(x)
    elementwise.dropout(_dense(x), mask, scale if training else 1.0, target)
    return target if out is None else out, mask


def add_channels(target: Any, bias: Any) -> None:
    """``target[n, c] += bias[c]``."""
    from ..backends.cuda import elementwise

    _together(x=target, bias=bias)
    elementwise.add_channels(target, _dense(bias))


def check_last(dim: int, array: Any) -> None:
    """On a GPU, rows run along the last dimension."""
    if is_device(array) and dim != array.ndim - 1:
        raise ArgumentError(f"dim must be the last one for an array on a GPU, got {dim}")
