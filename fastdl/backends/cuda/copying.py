"""Copies of strided arrays, and sums of two arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import ShapeError
from .arrays import DeviceArray, check_together, empty, to_device, whole_memory
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


@kernel("T* T* T* i")
def add(T: Any) -> Any:
    """``out = x + y``."""

    def run(x, y, out, count):
        e = cuda.grid(1)
        if e < count:
            out[e] = x[e] + y[e]

    return run


def copied(array: DeviceArray) -> DeviceArray:
    """A C-contiguous copy."""
    out = empty(array.shape, array.dtype, array)
    if array.size:
        memory, first = whole_memory(array)
        steps = [step // array.dtype.itemsize for step in array.strides]
        layout = to_device(np.array([*array.shape, *steps], np.int64), array.device)
        # A byte is a byte: bool goes as uint8.
        dtype = np.uint8 if array.dtype == np.bool_ else array.dtype
        if array.dtype == np.bool_:
            memory = memory.view(np.uint8)
        gather(dtype)(
            blocks_for(array.size), THREADS, memory, out, layout, first, array.ndim, array.size
        )
    return out


def added(x: DeviceArray, y: DeviceArray) -> DeviceArray:
    """``x + y``, of one shape and dtype."""
    check_together({"x": x, "y": y})
    if x.shape != y.shape or x.dtype != y.dtype:
        raise ShapeError(f"cannot add arrays of shapes {x.shape} and {y.shape}")
    x, y = (array if array.flags.c_contiguous else array.copy() for array in (x, y))
    out = empty(x.shape, x.dtype, x)
    add(x.dtype)(blocks_for(x.size), THREADS, x, y, out, x.size)
    return out
