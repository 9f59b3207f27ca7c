"""Arrays on a GPU, in the functions whose work on the CPU is partly NumPy's.

They check as those do, and leave the computing to `fastdl.backends.cuda.layers`.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ..backends.gpu import on_device
from ..backends.table import Activation, Array
from ..errors import ArgumentError, DTypeError, OutputError, ShapeError
from ..geometry import Shape
from .inputs import check_shape, floats, optional_floats


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
    if training and flat[0] * flat[2] <= 1:
        raise ShapeError(
            f"x must have more than 1 value per channel in training, got shape {x.shape}"
        )
    _together(x=x, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    for name, running in (("running_mean", running_mean), ("running_var", running_var)):
        if training and running is not None and not running.flags.carray:
            raise OutputError(f"{name} must be C-contiguous and writable on a GPU")
    target = output(out, x.shape, x, x=x, weight=weight, bias=bias)
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


def device_target(x: Any, target: Any) -> Any:
    """The classes of cross entropy, on x's GPU: those of the host are checked and copied there.

    Of classes on a GPU only shape and dtype are checked: the values would need a copy back.
    """
    from ..backends.cuda.arrays import to_device, viewed
    from .inputs import check_range, integers

    if not on_device(target):
        checked = integers("target", target, (x.shape[0],))
        check_range("target", checked, x.shape[1])
        return to_device(checked.astype(np.int64), x.device)
    array = viewed(target)
    if array.dtype != np.int64:
        raise DTypeError(f"target on a GPU must be int64, got {array.dtype}")
    check_shape("target", array, (x.shape[0],))  # type: ignore[arg-type]
    _together(x=x, target=array)
    return _dense(array)


def cross_entropy(x: Any, target: Any, smoothing: float, reduction: str) -> Any:
    """`fastdl.cross_entropy`: the mean or sum is copied to the host, a number."""
    from ..backends.cuda import layers

    result = layers.cross_entropy(_dense(x), target, smoothing, reduction)
    return result if reduction == "none" else result.copy_to_host()[0]


def cross_entropy_backward(
    x: Any, target: Any, smoothing: float, upstream: Any, scale: float
) -> Array:
    """`fastdl.cross_entropy_backward`, times ``scale`` and, where it is an array, ``upstream``."""
    from ..backends.cuda import layers

    if upstream is not None:
        upstream = floats("grad", upstream, x.dtype)
        check_shape("grad", upstream, (x.shape[0],))
        _together(x=x, grad=upstream)
    return layers.cross_entropy_backward(  # type: ignore[return-value]
        _dense(x), target, smoothing, scale, _dense(upstream)
    )


def dropout(
    x: Any, p: float, training: bool, scale: float, generator: np.random.Generator, out: Any
) -> tuple[Any, Any]:
    """`fastdl.dropout`: the mask is drawn on the GPU, from a seed that ``generator`` gives."""
    from ..backends.cuda import layers
    from .outputs import elementwise_output

    target: Any = elementwise_output(out, x)
    dropped = p if training else 0.0
    mask = layers.drawn_mask(x.shape, dropped, int(generator.integers(2**63)), x)
    layers.dropout(_dense(x), mask, scale if training else 1.0, target)
    return target if out is None else out, mask


def add_channels(target: Any, bias: Any) -> None:
    """``target[n, c] += bias[c]``."""
    from ..backends.cuda import layers

    _together(x=target, bias=bias)
    layers.add_channels(target, _dense(bias))


def check_last(dim: int, array: Any) -> None:
    """On a GPU, rows run along the last dimension."""
    if is_device(array) and dim != array.ndim - 1:
        raise ArgumentError(f"dim must be the last one for an array on a GPU, got {dim}")
