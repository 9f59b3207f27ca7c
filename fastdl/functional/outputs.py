"""Arrays that go out: new ones, or the caller's ``out``.

Kernels write only aligned memory without gaps, in the order of the call (see
`layout`). An ``out`` of another layout is served through a temporary: `output`
says where the kernel writes, `deliver` brings it to where the caller wants it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import memory
from ..backends.table import Array
from ..errors import OutputError, ShapeError
from ..geometry import Shape
from .layout import COPIED, PIXELS, PLANES, Order, as_images, lies_in, memory_shape
from .on_device import device_output, is_device

#: Candidates that NumPy may try to settle whether two strided arrays overlap.
_OVERLAP_WORK: Any = 100_000  # any integer serves; NumPy's stubs know two


def empty(shape: Shape, dtype: Any, like: Any = None) -> Array:
    """Memory for a result: uninitialised, C-contiguous, aligned; on a GPU where ``like`` is."""
    if like is not None and type(like) is not np.ndarray:
        return device_output(None, shape, dtype, like, {})  # type: ignore[no-any-return]
    try:
        return memory.empty(shape, dtype)
    except ValueError:  # more bytes than an address can count
        raise ShapeError(f"the output would have shape {shape}, too large for memory") from None


def empty_image(shape: Shape, dtype: Any, like: Any, order: Order) -> Array:
    """As `empty`, for a kernel that writes images in this order."""
    if order is PIXELS:
        return as_images(empty(memory_shape(shape), dtype))
    return empty(shape, dtype, like)


def output(
    out: Any, shape: Shape, like: Array, order: Order = PLANES, **inputs: Array | None
) -> Array:
    """Where the kernel shall write: ``out`` if it serves, else memory of its own.

    Raises OutputError where ``out`` cannot take a result of ``shape`` and of the
    dtype of ``like``, or shares memory with one of ``inputs``.
    """
    dtype = like.dtype
    if type(like) is not np.ndarray:
        return device_output(out, shape, dtype, like, inputs)  # type: ignore[no-any-return]
    if out is None:
        return empty_image(shape, dtype, None, order)
    if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray):
        raise OutputError(f"out must be a NumPy array, got {type(out).__name__}")
    if out.shape != shape:
        raise OutputError(f"out must have shape {shape}, got {out.shape}")
    if out.dtype != dtype:
        raise OutputError(f"out must be {dtype} like the input, got {out.dtype}")
    if not out.flags.writeable:
        raise OutputError("out must be writable, got a read-only array")
    for name, array in inputs.items():
        if array is not None and overlap(out, array):
            raise OutputError(f"out must share no memory with {name}, got one that overlaps it")
    if lies_in(out, order):
        return out.view(np.ndarray)
    return empty_image(shape, dtype, None, order)


def elementwise_output(out: Any, x: Array, name: str = "x", order: Order = PLANES) -> Array:
    """As `output`, for a kernel that reads each element of ``x`` before it writes it.

    So ``out`` may be ``x`` itself, or another array on exactly its memory.
    """
    if type(x) is not np.ndarray:
        inputs = {} if out is x else {name: x}
        return device_output(out, x.shape, x.dtype, x, inputs)  # type: ignore[no-any-return]
    if out is None:
        return empty_image(x.shape, x.dtype, None, order)
    if isinstance(out, np.ndarray) and _same_memory(out, x):
        return output(out, x.shape, x, order)
    return output(out, x.shape, x, order, **{name: x})


def deliver(target: Array, out: Any, order: Order = PLANES) -> Array:
    """The result for the caller: ``out`` holding what the kernel wrote to ``target``."""
    if out is None:
        if order is not COPIED:
            return target
        out = empty_image(target.shape, target.dtype, None, PIXELS)
    elif is_device(target) or lies_in(out, order):
        return out  # type: ignore[no-any-return]
    np.copyto(out, target)
    return out  # type: ignore[no-any-return]


def overlap(first: Array, second: Array) -> bool:
    """Whether two arrays share an element's memory; True where that is too hard to settle."""
    if not np.may_share_memory(first, second):
        return False
    try:
        return np.shares_memory(first, second, max_work=_OVERLAP_WORK)
    except np.exceptions.TooHardError:
        return True


def _same_memory(first: Array, second: Array) -> bool:
    return first is second or (
        first.ctypes.data == second.ctypes.data
        and first.shape == second.shape
        and first.strides == second.strides
        and first.dtype == second.dtype
    )
