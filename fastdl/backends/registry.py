"""Which backends this machine has, and which one serves a call."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np

from ..errors import BackendError, DTypeError
from . import gpu
from .table import Backend

#: Every backend, by name.
NAMES = ("compiled", "jit", "reference", "naive", "cuda")
#: Tried in this order when nobody names one. The others serve only by name.
FALLBACK = ("compiled", "jit", "reference")
_BY_FALLBACK = f"the first that works here of {', '.join(FALLBACK)}"

_chosen: ContextVar[str | None] = ContextVar("fastdl_backend", default=None)


@cache
def why_missing(name: str) -> str | None:
    """What keeps backend ``name`` from working here, and the remedy; None if it works."""
    if name == "compiled":
        try:
            importlib.import_module("fastdl.backends.compiled")
        except ImportError as error:
            # Python's own words for a module that is not there speak of a circular import.
            there = PathFinder.find_spec("_kernels", [str(Path(__file__).parent / "compiled")])
            what = f"does not load ({error})" if there else "is not there"
            return (
                f"its extension module {what}; install a C++ compiler (Debian: apt install g++ "
                f"python3-dev) and install fastdl again without FASTDL_NO_EXT"
            )
    # Only looked for, not imported: Numba takes longer to import than all the rest.
    if name == "jit" and find_spec("numba") is None:
        return "the package numba is not installed; install it with: pip install numba"
    return gpu.why_missing() if name == "cuda" else None


def available_backends() -> dict[str, str | None]:
    """Every backend's name, with None if it works here, else the reason it does not.

    Examples
    --------
    >>> import fastdl
    >>> fastdl.available_backends()["reference"] is None
    True
    """
    return {name: why_missing(name) for name in NAMES}


def _checked(name: str, source: str) -> str:
    if not isinstance(name, str):
        raise DTypeError(f"{source} must be a backend's name, got {name!r}")
    if name not in NAMES:
        raise BackendError(f"{source} must be one of {', '.join(NAMES)}, got {name!r}")
    reason = why_missing(name)
    if reason is not None:
        raise BackendError(f"{source}={name!r} is not available here: {reason}")
    return name


@cache
def _module(name: str) -> Backend:
    return cast(Backend, importlib.import_module(f"fastdl.backends.{name}"))


def loaded_cuda() -> Any:
    """The table of the cuda backend, where it has been loaded; else None."""
    return sys.modules.get("fastdl.backends.cuda")


@cache
def _default() -> str:
    return next(name for name in FALLBACK if why_missing(name) is None)


@cache
def extension() -> ModuleType | None:
    """The extension module of the compiled backend, if that works here."""
    if why_missing("compiled") is not None:
        return None
    from .compiled import _kernels

    return _kernels


@cache
def _environment() -> Callable[[str], str | None]:
    """What reads an environment variable, at every call: it may be set at any time."""
    kernels = extension()
    return os.environ.get if kernels is None else kernels.environment


def choice(name: str | None = None) -> tuple[str, str]:
    """The backend that a call takes, and what chose it: ``name``, or what comes after it."""
    if name is not None:
        return _checked(name, "backend"), "named by backend="
    chosen = _chosen.get()
    if chosen is not None:
        return chosen, "chosen by use_backend"
    from_environment = _environment()("FASTDL_BACKEND")
    if from_environment:
        return _checked(from_environment, "FASTDL_BACKEND"), "named by FASTDL_BACKEND"
    return _default(), _BY_FALLBACK


def current_name(name: str | None = None) -> str:
    """The backend that a call takes."""
    return choice(name)[0]


def get(name: str | None = None, array: object = None) -> Backend:
    """The table of kernels that serves a call whose first array is ``array``.

    An array on a GPU is served there, whatever was chosen for those of the CPU.
    """
    if type(array) is not np.ndarray and array is not None and gpu.on_device(array):
        reason = why_missing("cuda")
        if reason is not None:
            raise BackendError(
                f"got {type(array).__name__} on a GPU, and the cuda backend is not available "
                f"here: {reason}; or copy it to the CPU's memory first"
            )
        if name not in (None, "cuda"):
            raise BackendError(
                f"backend must be 'cuda' for an array on a GPU, got {name!r}; "
                f"fastdl.to_host copies it to the CPU's memory"
            )
        return _module("cuda")
    return _module(choice(name)[0])


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Serve every call inside the ``with`` block by backend ``name``.

    The choice is the current thread's (or asyncio task's) own. An argument
    ``backend=`` still goes before it.

    Parameters
    ----------
    name : str
        One of those that `fastdl.available_backends` lists.

    Raises
    ------
    BackendError
        If no backend has that name, or it does not work here.

    Examples
    --------
    >>> import numpy as np, fastdl
    >>> with fastdl.use_backend("reference"):
    ...     y = fastdl.relu(np.float32([-1, 2]))
    >>> y
    array([0., 2.], dtype=float32)
    """
    token = _chosen.set(_checked(name, "backend"))
    try:
        yield
    finally:
        _chosen.reset(token)
