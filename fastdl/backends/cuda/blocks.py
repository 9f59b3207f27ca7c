"""What the threads of a block do together: sums in an order that never changes."""

from __future__ import annotations

from functools import cache
from typing import Any

from .target import cuda, device, shuffle_xor


@cache
def block_sum(threads: int) -> Any:
    """The sum over a block of ``threads`` threads, for each of them.

    ``scratch`` is shared memory, one element a warp: first within warps by shuffles, then over
    the warps one after another.
    """
    warps = threads // 32

    @device
    def function(value, scratch):
        for distance in (16, 8, 4, 2, 1):
            value += shuffle_xor(value, distance)
        if warps == 1:
            return value
        thread = cuda.threadIdx.x
        if thread % 32 == 0:
            scratch[thread // 32] = value
        cuda.syncthreads()
        total = scratch[0]
        for warp in range(1, warps):
            total += scratch[warp]
        cuda.syncthreads()
        return total

    return function


@cache
def block_max(threads: int) -> Any:
    """The largest value of a block, for each of its threads; NaN counts for nothing."""
    warps = threads // 32

    @device
    def function(value, scratch):
        for distance in (16, 8, 4, 2, 1):
            other = shuffle_xor(value, distance)
            value = other if other > value else value
        if warps == 1:
            return value
        thread = cuda.threadIdx.x
        if thread % 32 == 0:
            scratch[thread // 32] = value
        cuda.syncthreads()
        most = scratch[0]
        for warp in range(1, warps):
            other = scratch[warp]
            most = other if other > most else most
        cuda.syncthreads()
        return most

    return function
