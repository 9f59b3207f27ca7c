"""What a layer asks of an array at every step."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from ..backends.registry import extension
from ..backends.table import Array
from ..geometry import Shape
from ..memory import Empty

#: ``(value, shape, dtype) -> bool``
IsPlain = Callable[[Any, Shape, np.dtype[Any] | None], bool]


def is_plain(value: Any, shape: Shape, dtype: np.dtype[Any] | None) -> bool:
    """Whether ``value`` is a C-contiguous, aligned array of this shape and dtype."""
    return (
        type(value) is np.ndarray
        and value.shape == shape
        and value.dtype == dtype
        and value.flags.c_contiguous
        and value.flags.aligned
    )


@cache
def plain_test() -> IsPlain:
    """`is_plain`, or what takes a fifth of its time."""
    kernels = extension()
    return is_plain if kernels is None else kernels.is_plain


def device_memory(like: Any) -> tuple[IsPlain, Empty]:
    """What on a GPU corresponds to `is_plain` and to `fastdl.memory.allocator`."""
    from ..backends.cuda.arrays import DeviceArray, Place, empty

    place = Place(like.device, like.stream)

    def is_plain(value: Any, shape: Shape, dtype: np.dtype[Any] | None) -> bool:
        return (
            isinstance(value, DeviceArray)
            and (value.shape, value.dtype, value.device) == (shape, dtype, place.device)
            and value.flags.carray
        )

    def allocate(shape: Shape, dtype: np.dtype[Any]) -> Any:
        return empty(shape, dtype, place)

    return is_plain, allocate


def plain(array: Array) -> Array:
    """``array``, or a copy that is C-contiguous and aligned."""
    flags = array.flags
    return array if flags.c_contiguous and flags.aligned else array.copy(order="C")
