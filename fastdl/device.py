"""Arrays to a GPU and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .backends import gpu
from .backends.registry import get
from .backends.table import Array
from .errors import ArgumentError


def to_device(array: Any, device: int | None = None) -> Any:
    """``array`` in a GPU's memory: a copy, or a view where it is on one already.

    Every function of fastdl takes it and gives its results there. Another library takes it by
    ``__cuda_array_interface__``, without a copy.

    Parameters
    ----------
    array : array
        A NumPy array, what NumPy can read, or an array on a GPU (CuPy, PyTorch, Numba).
    device : int, optional
        The number of the GPU; the current one where none is given.

    Returns
    -------
    DeviceArray
        See `fastdl.backends.cuda.arrays`.

    Raises
    ------
    BackendError
        If the cuda backend does not work here; the message says why.
    DeviceMemoryError
        If the GPU has not so much memory left.

    Examples
    --------
    >>> import numpy as np
    >>> import fastdl
    >>> x = np.float32([-1, 2])
    >>> if fastdl.available_backends()["cuda"] is None:
    ...     x = fastdl.to_device(x)
    >>> fastdl.to_host(fastdl.relu(x))
    array([0., 2.], dtype=float32)
    """
    get("cuda")
    from .backends.cuda import arrays

    return arrays.to_device(array, device)


def to_host(array: ArrayLike) -> Array:
    """A NumPy array of what ``array`` on a GPU holds; waits until that is computed.

    Parameters
    ----------
    array : array
        On a GPU or in the CPU's memory.

    Returns
    -------
    ndarray
        A copy; what is in the CPU's memory comes back as it is.

    Raises
    ------
    BackendError
        If ``array`` is on a GPU and the cuda backend does not work here.

    Examples
    --------
    >>> import fastdl
    >>> fastdl.to_host([1.0, 2.0])
    array([1., 2.])
    """
    if not gpu.on_device(array):
        return np.asarray(array)
    get("cuda")
    from .backends.cuda import arrays

    return arrays.to_host(array)


def place(name: Any) -> int | None:
    """The number of the GPU that ``"cuda"`` or ``"cuda:1"`` names; None for ``"cpu"``.

    Raises
    ------
    ArgumentError
        If it names nothing, or no GPU of this machine.
    BackendError
        If it names a GPU, and the cuda backend does not work here.
    """
    if name == "cpu":
        return None
    kind, _, number = str(name).partition(":")
    if kind != "cuda" or (name != kind and not number.isdecimal()):
        raise ArgumentError(f"device must be 'cpu', 'cuda' or 'cuda:NUMBER', got {name!r}")
    get("cuda")
    from .backends.cuda.arrays import current_device

    if not number:
        return current_device()
    count = 1 if gpu.simulated() else len(gpu.gpus())
    if int(number) >= count:
        raise ArgumentError(f"device must be one of {count} GPUs, counted from 0, got {name!r}")
    return int(number)


def placed(array: Any, number: int | None) -> Any:
    """``array`` in the memory of that GPU, or in the CPU's where it is None."""
    if number is None:
        return to_host(array)
    return array if where(array) == number else to_device(to_host(array), number)


def where(array: Any) -> int | None:
    """The number of the GPU that a NumPy array or `to_device`'s is on; None for the CPU's memory."""
    return None if isinstance(array, np.ndarray) else int(array.device)
