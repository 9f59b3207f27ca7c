"""A quicker scheduler for Numba's CUDA simulator.

The simulator gives each thread of a block a thread of the system and polls them; here they are
greenlets, which go on in turn from barrier to barrier. What they compute is the same.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from greenlet import getcurrent, greenlet
from numba.cuda.simulator import kernel, kernelapi


class _Thread(greenlet):
    """One thread of a block."""

    threadIdx: Any
    blockIdx: Any
    thread_id: int

    def syncthreads(self) -> None:
        self.parent.switch()


class _Block:
    """Runs the threads of a block in turn."""

    def __init__(self, function: Any, grid: Any, block: Any, debug: Any) -> None:
        self._function, self._block = function, block

    def run(self, grid_point: Any, *args: Any) -> None:
        def body() -> None:
            # A greenlet has a context of its own, with NumPy's warnings on.
            with np.errstate(all="ignore"):
                self._function(*args)

        threads = []
        block_index = kernelapi.Dim3(*grid_point)
        for z, y, x in np.ndindex(*self._block[::-1]):
            thread = _Thread(body)
            thread.threadIdx, thread.blockIdx = kernelapi.Dim3(x, y, z), block_index
            thread.thread_id = x + self._block[0] * (y + self._block[1] * z)
            threads.append(thread)
        while threads:
            for thread in threads:
                thread.switch()
            threads = [thread for thread in threads if not thread.dead]


def install() -> None:
    """Let the simulator use it."""
    kernel.BlockManager = _Block
    kernelapi.threading = SimpleNamespace(current_thread=getcurrent)
