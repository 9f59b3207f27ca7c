"""How many threads a kernel may use."""

from __future__ import annotations

import os

from .backends.registry import why_missing
from .geometry import integer

_requested: int | None = None


def _available() -> int:
    """OMP_NUM_THREADS, else the processors this process may run on."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if first.isdigit() and int(first) > 0:
        return int(first)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def set_num_threads(threads: int) -> None:
    """Let every later call use at most ``threads`` threads.

    Parameters
    ----------
    threads : int
        At least 1. More threads than processors is allowed, and slower.

    Examples
    --------
    >>> import fastdl
    >>> before = fastdl.get_num_threads()
    >>> fastdl.set_num_threads(1)
    >>> fastdl.get_num_threads()
    1
    >>> fastdl.set_num_threads(before)
    """
    global _requested
    threads = integer("threads", threads, 1)
    if why_missing("compiled") is None:
        from .backends.compiled import openmp

        # OpenMP's own limit belongs to the calling thread; the request to all of them.
        openmp.set_max_threads(threads)
    _requested = threads


def get_num_threads() -> int:
    """Threads that a call made here may use.

    The smallest of what `set_num_threads` asked for and what OpenMP allows
    (OMP_NUM_THREADS, threadpoolctl, the processors of this process).
    """
    if why_missing("compiled") is None:
        from .backends.compiled import openmp

        limit = openmp.max_threads()
    else:
        limit = _requested or _available()
    return limit if _requested is None else min(limit, _requested)
