"""How every function of this backend is compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])

# The GIL is released in a kernel, so that plain Python threads run kernels side by side.
_compiled = njit(nogil=True, cache=True, error_model="numpy")
# A product and a sum may be one operation: for formulas that are an approximation anyway.
_contracted = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
# Only the order of additions is free: NaN and infinity keep their meaning.
_reduction = njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc"})


def compiled(function: Function) -> Function:
    """Compile upon the first call with each dtype; kept on disk."""
    return cast(Function, _compiled(function))


def contracted(function: Function) -> Function:
    """As `compiled`, with fused multiply-adds where the processor has them."""
    return cast(Function, _contracted(function))


def reduction(function: Function) -> Function:
    """As `compiled`, and sums may be taken lane by lane; the order is fixed when compiled."""
    return cast(Function, _reduction(function))
