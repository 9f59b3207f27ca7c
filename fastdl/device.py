"""Arrays to a GPU and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .backends import gpu
from .backends.registry import get
from .backends.table import Array
from .errors import ArgumentError, DTypeError


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


@contextmanager
def use_stream(stream: Any) -> Iterator[None]:
    """Work on the caller's stream of a GPU inside the ``with`` block.

    Arrays that `to_device` makes, and those of other libraries that do not tell their stream
    (PyTorch's do not), count as that stream's: what is computed of them is started on it, in the
    order of the calls.

    Parameters
    ----------
    stream : int or object
        The handle (CUstream), or what has one: a stream of PyTorch, CuPy, Numba or cuda.core.

    Raises
    ------
    BackendError
        If the cuda backend does not work here.
    DTypeError
        If it is no stream.

    Examples
    --------
    >>> import numpy as np
    >>> import fastdl
    >>> if fastdl.available_backends()["cuda"] is None:
    ...     with fastdl.use_stream(0):  # the default stream; or torch.cuda.current_stream()
    ...         y = fastdl.relu(fastdl.to_device(np.float32([-1, 2])))
    """
    get("cuda")
    from .backends.cuda import arrays

    with arrays.use_stream(_handle(stream)):
        yield


def _handle(stream: Any) -> int:
    if hasattr(stream, "__cuda_stream__"):
        return int(stream.__cuda_stream__()[1])
    for name in ("cuda_stream", "ptr", "handle"):
        stream = getattr(stream, name, stream)
    value = getattr(stream, "value", stream)  # of Numba's handle, None for the default stream
    if value is not None and not isinstance(value, int):
        raise DTypeError(f"stream must be a CUDA stream or its handle, got {stream!r}")
    return 0 if value in (None, 1) else value


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
