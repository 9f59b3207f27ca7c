"""How many threads a kernel may use."""

from __future__ import annotations

from .backends import limits
from .backends.registry import why_missing
from .geometry import integer


def set_num_threads(threads: int) -> None:
    """Let every later call use at most ``threads`` threads.

    Parameters
    ----------
    threads : int
        At least 1. More threads than processors is allowed, and slower.

    Raises
    ------
    ArgumentError, DTypeError
        If ``threads`` is not an integer of at least 1.

    Examples
    --------
    >>> import fastdl
    >>> before = fastdl.get_num_threads()
    >>> fastdl.set_num_threads(1)
    >>> fastdl.get_num_threads()
    1
    >>> fastdl.set_num_threads(before)
    """
    threads = integer("threads", threads, 1)
    if why_missing("compiled") is None:
        from .backends.compiled import openmp

        # OpenMP's own limit belongs to the calling thread; the request to all of them.
        openmp.set_max_threads(threads)
    limits.set_requested(threads)


def get_num_threads() -> int:
    """Threads that a call made here may use.

    The smallest of what `set_num_threads` asked for and what OpenMP allows
    (OMP_NUM_THREADS, threadpoolctl, the processors of this process).

    Examples
    --------
    >>> import fastdl
    >>> fastdl.get_num_threads() >= 1
    True
    """
    if why_missing("compiled") is None:
        from .backends.compiled import openmp

        return min(openmp.max_threads(), limits.requested() or openmp.max_threads())
    return limits.threads()
