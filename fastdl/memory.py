"""Memory of results: what an array had is kept for the next one of its size.

Pages that come fresh from the system cost more than most kernels, as the system
clears each of them first. So the compiled backend keeps the memory of large
results (256 KiB or more) when their arrays die, up to a limit; small ones are
NumPy's own. The arrays are ordinary: they own their memory, and may be resized
in place. Without the compiled backend there is no such memory, and NumPy serves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from .backends.registry import extension, loaded_cuda
from .backends.table import Array
from .geometry import Shape, integer

#: ``(shape, dtype) -> array``
Empty = Callable[[Shape, np.dtype[Any]], Array]


@dataclass(frozen=True, slots=True)
class MemoryPool:
    """What is known of the memory of results, in this process.

    Attributes
    ----------
    limit_bytes : int
        The most that is kept; 0 where nothing is, for want of the compiled backend.
    kept_bytes : int
        What is kept now, in wait for a result of its size.
    used_bytes : int
        What living arrays have.
    made, reused : int
        How many results took new memory, and how many took what was kept.
    """

    limit_bytes: int
    kept_bytes: int
    used_bytes: int
    made: int
    reused: int


@cache
def allocator() -> Empty:
    """What gives the memory of a result of a shape and dtype, uninitialised."""
    kernels = extension()
    return np.empty if kernels is None else kernels.empty


def empty(shape: Shape, dtype: np.dtype[Any]) -> Array:
    """Uninitialised memory of a result."""
    return allocator()(shape, dtype)


def memory_pool() -> MemoryPool:
    """What memory of results is kept and used.

    Examples
    --------
    >>> import fastdl
    >>> pool = fastdl.memory_pool()
    >>> 0 <= pool.kept_bytes <= pool.limit_bytes
    True
    """
    kernels = extension()
    return MemoryPool(0, 0, 0, 0, 0) if kernels is None else MemoryPool(*kernels.memory_state())


def set_memory_pool(limit_bytes: int) -> None:
    """Keep at most ``limit_bytes`` of memory of dead results; 256 MiB where nobody sets it.

    Parameters
    ----------
    limit_bytes : int
        At least 0, which keeps nothing. What is kept beyond it goes back to the
        system at once, the longest unused first.

    Raises
    ------
    ArgumentError, DTypeError
        If ``limit_bytes`` is not such an integer.

    Examples
    --------
    >>> import fastdl
    >>> before = fastdl.memory_pool().limit_bytes
    >>> fastdl.set_memory_pool(0)
    >>> fastdl.memory_pool().kept_bytes
    0
    >>> fastdl.set_memory_pool(before)
    """
    limit_bytes = integer("limit_bytes", limit_bytes, 0, bits=63)
    kernels = extension()
    if kernels is not None:
        kernels.limit_memory(limit_bytes)


def empty_memory_pool() -> None:
    """Give all memory of dead results back to the system, and a GPU's to its driver.

    The limit stays.

    Examples
    --------
    >>> import fastdl
    >>> fastdl.empty_memory_pool()
    >>> fastdl.memory_pool().kept_bytes
    0
    """
    kernels = extension()
    if kernels is not None:
        kernels.empty_memory()
    cuda = loaded_cuda()
    if cuda is not None:
        cuda.free_memory()
