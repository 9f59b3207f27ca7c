"""How every function of this backend is compiled."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit, typeof

Function = TypeVar("Function", bound=Callable[..., Any])

# The GIL is released in a kernel, so that plain Python threads run kernels side by side.
_compiled = njit(nogil=True, cache=True, error_model="numpy")
# A product and a sum may be one operation: for formulas that are an approximation anyway.
_contracted = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
# Only the order of additions is free: NaN and infinity keep their meaning.
_reduction = njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc"})


def _digest_of_sources() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


_SOURCES = _digest_of_sources()


def _of_these_sources(function: Function) -> Function:
    """The function, under a name that no other sources give it.

    Numba keeps its machine code by its name and its own file's text. What it calls, from other files,
    is part of that code, so that a change there would not be seen.
    """
    function.__qualname__ += f"-{_SOURCES}"
    return function


def compiled(function: Function) -> Function:
    """Compile upon the first call with each dtype; kept on disk."""
    return cast(Function, _compiled(_of_these_sources(function)))


def contracted(function: Function) -> Function:
    """As `compiled`, with fused multiply-adds where the processor has them."""
    return cast(Function, _contracted(_of_these_sources(function)))


def reduction(function: Function) -> Function:
    """As `compiled`, and sums may be taken lane by lane; the order is fixed when compiled."""
    return cast(Function, _reduction(_of_these_sources(function)))


_entries: dict[tuple[Any, ...], Callable[..., None]] = {}


def entry(kernel: Any, *args: Any) -> Callable[..., None]:
    """The machine code of ``kernel`` for these arguments, to be called with ones of their types.

    Numba looks at every argument's type in each call, which takes it longer than a small kernel. Here
    the dtypes of arrays tell one call of a kernel from another: all else is the same in each.
    """
    key = (kernel, *[arg.dtype.num if type(arg) is np.ndarray else None for arg in args])
    found = _entries.get(key)
    if found is None:
        found = _entries[key] = kernel.compile(tuple(typeof(arg) for arg in args))
    return found
