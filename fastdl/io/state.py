"""A network's arrays in a safetensors file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, DTypeError
from ..packages import needed
from .atomic import write_atomically

Array = NDArray[Any]
_PURPOSE = "a model file"
#: Kinds of dtype that a file holds: booleans, integers, floats.
_NUMBERS = "biuf"


def save_state(
    path: str | os.PathLike[str],
    state: Mapping[str, Array],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write arrays and their names; an earlier file is replaced, whole or not at all.

    Parameters
    ----------
    path : path
        By custom ``*.safetensors``.
    state : mapping of str to ndarray
        Such as ``model.state_dict()``; any layout, written in C order.
    metadata : mapping of str to str, optional
        Stored beside the arrays.

    Raises
    ------
    DTypeError
        If a value is not an array of numbers, or metadata not text.
    MissingPackageError
        If safetensors is not installed.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from fastdl import io
    >>> path = os.path.join(tempfile.mkdtemp(), "w.safetensors")
    >>> io.save_state(path, {"w": np.arange(3.0)}, {"made": "by hand"})
    >>> io.load_state(path)
    ({'w': array([0., 1., 2.])}, {'made': 'by hand'})
    """
    safetensors: Any = needed("safetensors.numpy", "safetensors", _PURPOSE)
    for name, array in state.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in _NUMBERS:
            raise DTypeError(f"state[{name!r}] must be an array of numbers, got {array!r:.60}")
    for key, value in (metadata or {}).items():
        if not isinstance(value, str):
            raise DTypeError(f"metadata[{key!r}] must be a str, got {value!r}")
    # safetensors writes the memory as it lies: C order and little endian are ours to make.
    dense = {
        name: np.array(array, dtype=array.dtype.newbyteorder("<"), order="C")
        for name, array in state.items()
    }
    write_atomically(path, safetensors.save(dense, dict(metadata) if metadata else None))


def load_state(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, str]]:
    """Arrays and metadata of a file that `save_state`, or any safetensors writer, made.

    Returns
    -------
    state : dict of str to ndarray
    metadata : dict of str to str

    Raises
    ------
    OSError
        If the file is missing or cannot be read.
    DataError
        If the file is not whole, is something else, or has a dtype that NumPy lacks.
    MissingPackageError
        If safetensors is not installed.
    """
    safetensors: Any = needed("safetensors", "safetensors", _PURPOSE)
    with open(path, "rb"):
        pass  # a missing or unreadable file is the system's error, not a broken file
    try:
        with safetensors.safe_open(os.fspath(path), framework="numpy") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            # A bfloat16, where another package has taught it to NumPy, is refused as without it.
            for name, array in state.items():
                if array.dtype.kind not in _NUMBERS:
                    raise TypeError(f"{name} is {array.dtype}")
            return state, dict(file.metadata() or {})
    except (safetensors.SafetensorError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{os.fspath(path)} is not a readable safetensors file: {error}") from error
