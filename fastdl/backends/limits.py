"""How many threads were asked for, and how many this process may use."""

from __future__ import annotations

import os

_requested: int | None = None


def set_requested(threads: int) -> None:
    """Remember what the user asked for; the backends read it at every call."""
    global _requested
    _requested = threads


def requested() -> int | None:
    """What the user asked for, None if nothing."""
    return _requested


def available() -> int:
    """OMP_NUM_THREADS, else the processors this process may run on."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if first.isdigit() and int(first) > 0:
        return int(first)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads() -> int:
    """What was asked for, else what is available."""
    return _requested or available()
