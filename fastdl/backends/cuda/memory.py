"""Memory of results on a GPU: what a dead array had is kept for the next one of its size.

To get memory from the driver takes longer than most kernels, and to give it back waits for all of
them. Kept memory serves only the stream that it was used on: there whatever still reads it comes
before what will write it. What another library was given does go back, as its streams are its own.
"""

from __future__ import annotations

from collections import defaultdict
from math import prod
from typing import Any

import numpy as np
from numba import cuda

from .target import SIMULATED

Shape = tuple[int, ...]

#: Sizes are rounded up to a multiple of it, and large ones to a multiple of an eighth of their
#: power of two: so that sizes that are nearly equal find each other.
_STEP = 512

#: What is kept: a device, a stream and a number of bytes, to the pieces of that kind.
_kept: defaultdict[tuple[int, int, int], list[Any]] = defaultdict(list)


class Chunk:
    """A piece of memory in use, until the last array on it dies."""

    __slots__ = ("data", "exported", "key")

    def __init__(self, data: Any, key: tuple[int, int, int]) -> None:
        self.data, self.key, self.exported = data, key, False

    # The default argument is there when Python ends and the module is not.
    def __del__(self, kept: Any = _kept) -> None:
        if not self.exported:
            kept[self.key].append(self.data)


def allocated(shape: Shape, dtype: np.dtype[Any], device: int, stream: int) -> tuple[Any, Chunk]:
    """Numba's array of that shape on the current GPU, uninitialised, and the memory it is on.

    Raises what the driver does where there is no more; what was kept has been freed then.
    """
    key = (device, stream, rounded(prod(shape) * dtype.itemsize))
    try:
        data = _kept[key].pop()
    except IndexError:
        try:
            data = cuda.device_array((key[2],), np.uint8)
        except Exception:
            if not free():
                raise
            data = cuda.device_array((key[2],), np.uint8)
    return _shaped(data, shape, dtype), Chunk(data, key)


def free() -> int:
    """Give all that is kept back to the driver; how many bytes."""
    kept = list(_kept.items())
    _kept.clear()
    return sum(key[2] * len(pieces) for key, pieces in kept)


def kept_bytes() -> int:
    """What is kept now."""
    return sum(key[2] * len(pieces) for key, pieces in list(_kept.items()))


def rounded(nbytes: int) -> int:
    """The size of the piece of memory for so many bytes.

    >>> rounded(1), rounded(2**20 + 1)
    (512, 1179648)
    """
    step = max(_STEP, (1 << nbytes.bit_length() - 1) // 8)
    return -(-nbytes // step) * step


def _shaped(data: Any, shape: Shape, dtype: np.dtype[Any]) -> Any:
    """``data`` seen as an array in C order."""
    if SIMULATED:
        return type(data)(data._ary[: prod(shape) * dtype.itemsize].view(dtype).reshape(shape))
    strides = [dtype.itemsize] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    return type(data)(tuple(shape), tuple(strides), dtype, gpu_data=data.gpu_data)
