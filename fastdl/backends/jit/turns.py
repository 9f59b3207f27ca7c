"""Threads that take turns inside of a compiled kernel, without going back to Python for each task.

A kernel counts with a few integers that its threads share, see `pool.run_together`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types
from numba.extending import intrinsic

from .compiling import compiled
from .vectors import I64, data


@intrinsic
def take(typing: Any, counters: Any, index: Any) -> tuple[Any, Callable[..., Any]]:
    """``counters[index]``, and one is added to it: no two threads get the same."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = data(context, builder, signature.args[0], args[0])
        place = builder.gep(array, [args[1]])
        return builder.atomic_rmw("add", place, I64(1), "seq_cst")

    return types.int64(counters, types.intp), generate


@intrinsic
def _seen(typing: Any, counters: Any, index: Any) -> tuple[Any, Callable[..., Any]]:
    """``counters[index]``, as the other threads have left it."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = data(context, builder, signature.args[0], args[0])
        return builder.load_atomic(builder.gep(array, [args[1]]), "seq_cst", 8)

    return types.int64(counters, types.intp), generate


@compiled
def wait(counters: Any, index: int, count: int) -> None:
    """Until the threads have taken ``count`` of ``counters[index]``.

    Only for what others are at work on: the time is spent looking.
    """
    while _seen(counters, index) < count:
        pass
