"""Keeping a helping thread off the processor of the thread that it helps.

Linux may put a thread that wakes on the processor of the one that woke it, though another idles:
after a time of high load it does not look for an idle one. The two then take turns until the load
is balanced, some 4 ms later, which is longer than most kernels take.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from threading import get_native_id


def _find_current_processor() -> Callable[[], int]:
    """The C library's ``sched_getcpu``, called without giving up the GIL."""
    function = getattr(ctypes.PyDLL(None), "sched_getcpu", None) if os.name == "posix" else None
    return function or (lambda: -1)


#: Number of the processor that this thread runs on, negative where it cannot be told.
current_processor = _find_current_processor()


class Caller:
    """The calling thread and its processor, for one of its ``threads - 1`` helpers to leave."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._processor = current_processor()
        self._thread = get_native_id()

    def make_room(self) -> None:
        """Called by a helper: moves it to another processor, if it is on the caller's."""
        if self._processor < 0 or current_processor() != self._processor:
            return
        allowed = os.sched_getaffinity(self._thread)
        if len(allowed) >= self._threads:
            os.sched_setaffinity(0, allowed - {self._processor})
