"""Copies of strided arrays."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from .arrays import DeviceArray, constant, empty, whole_memory
from .launch import THREADS, blocks_for, kernel
from .target import cuda


@kernel("T* T* l* i i i")
def gather(T: Any) -> Any:
    """``out[e]``: element e, in C order, of the array whose sizes and strides ``layout`` holds."""

    def run(memory, out, layout, first, rank, count):
        e = cuda.grid(1)
        if e < count:
            rest = e
            place = first
            for axis in range(rank - 1, -1, -1):
                size = layout[axis]
                place += rest % size * layout[rank + axis]
                rest = rest // size
            out[e] = memory[place]

    return run


@lru_cache(maxsize=256)
def _layout(numbers: tuple[int, ...], device: int) -> DeviceArray:
    return constant(np.array(numbers, np.int64), device)


def copied(array: DeviceArray) -> DeviceArray:
    """A C-contiguous copy."""
    out = empty(array.shape, array.dtype, array)
    if array.size:
        memory, first = whole_memory(array)
        steps = [step // array.dtype.itemsize for step in array.strides]
        layout = _layout((*array.shape, *steps), array.device)
        # A byte is a byte: bool goes as uint8.
        dtype = np.uint8 if array.dtype == np.bool_ else array.dtype
        if array.dtype == np.bool_:
            memory = memory.view(np.uint8)
        gather(dtype)(
            blocks_for(array.size), THREADS, memory, out, layout, first, array.ndim, array.size
        )
    return out
