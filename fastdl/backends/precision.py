"""How products of float32 numbers are made: exactly, or on the tensor cores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from ..errors import ArgumentError

#: What a product may be made of; the sums are float32 in each.
PRECISIONS = ("float32", "tf32", "bf16")

_chosen: ContextVar[str] = ContextVar("fastdl_precision", default="float32")


def precision() -> str:
    """The precision that a call made here takes."""
    return _chosen.get()


@contextmanager
def use_precision(name: str) -> Iterator[None]:
    """Make the products of float32 convolutions and linear layers of rounded numbers on a GPU.

    "tf32" keeps 10 bits of the mantissa, "bf16" 7; "float32" rounds nothing and is the default.
    Only the cuda backend's tensor cores know them: on the CPU nothing changes.

    Parameters
    ----------
    name : {"float32", "tf32", "bf16"}
        The precision inside the ``with`` block, in the current thread or task.

    Raises
    ------
    ArgumentError
        If it is none of them.

    Examples
    --------
    >>> import fastdl
    >>> with fastdl.use_precision("tf32"):
    ...     pass  # convolutions of arrays on a GPU
    """
    if name not in PRECISIONS:
        raise ArgumentError(f"precision must be one of {', '.join(PRECISIONS)}, got {name!r}")
    token = _chosen.set(name)
    try:
        yield
    finally:
        _chosen.reset(token)
