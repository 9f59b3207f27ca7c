"""How the C library hands out memory while the bench runs."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD = -1
_MMAP_MAX = -4


def keep_freed_memory() -> bool:
    """Let the C library reuse what is freed, and return none of it to the system.

    By default glibc maps fresh pages for every large array, and first touching
    them can take longer than a kernel. This holds for the rest of the process
    and for all libraries in it. False where the library is not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, -1))
