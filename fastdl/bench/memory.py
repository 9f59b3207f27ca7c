"""How the C library hands out memory while the bench runs."""

from __future__ import annotations

import ctypes
import os
import sys

#: glibc then keeps what is freed, and maps none apart. It reads this when a process starts.
REUSE = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "1000000000000",
    "MALLOC_TOP_PAD_": "1000000000",
}


def freed_memory_is_kept() -> bool:
    """Whether the process was started so that the C library reuses what is freed.

    By default glibc maps fresh pages for every large array, and first touching
    them can take longer than a kernel.
    """
    return all(os.environ.get(name) == value for name, value in REUSE.items())


def can_keep_freed_memory() -> bool:
    """Whether the C library is glibc, which can be told so."""
    return hasattr(ctypes.CDLL(None), "gnu_get_libc_version")


def start_again_keeping_freed_memory() -> None:
    """Replace this process by the same command, in which `freed_memory_is_kept`."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | REUSE)
