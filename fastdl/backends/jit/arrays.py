"""Arrays as the kernels take them: one type for each dtype, so that each is compiled once."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..table import Array


class _Alias:
    """The memory of ``array``, without its read-only flag."""

    def __init__(self, array: Array) -> None:
        self.array = array
        self.__array_interface__: dict[str, Any] = dict(array.__array_interface__)
        self.__array_interface__["data"] = (array.__array_interface__["data"][0], False)


def flat(array: Array) -> Array:
    """A dense array as one dimension.

    Numba compiles anew for read-only arrays; kernels never write to an input, so they get an alias.
    """
    if not array.flags.writeable:
        array = np.asarray(_Alias(array))
    return array.reshape(-1)


def dense(array: Array) -> Array:
    """``array`` in its own shape."""
    return flat(array).reshape(array.shape)


def planes(array: Array) -> Array:
    """``(N, C, H, W)`` as ``(N * C, H, W)``."""
    n, c, height, width = array.shape
    return flat(array).reshape(n * c, height, width)
