"""Arrays that come in: anything that holds float32 or float64 numbers in this machine's memory.

- An `numpy.ndarray` is taken as it is, in any layout, read-only or not. Subclasses
  (``memmap``, ``matrix``) are seen as plain arrays, but a masked array is refused:
  the mask would be lost without a word.
- What speaks DLPack (a PyTorch tensor on the CPU, say) or the buffer protocol
  (``array.array``, ``memoryview``) is read in place, without a copy.
- Everything else goes through `numpy.asarray`: a list of floats becomes float64.

No dtype is ever converted.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from ..backends import registry
from ..backends.gpu import on_device
from ..backends.table import Array, Backend
from ..errors import ArgumentError, DeviceError, DTypeError, ShapeError
from ..geometry import Shape

FLOAT32 = np.dtype(np.float32)
FLOAT64 = np.dtype(np.float64)
INT64 = np.dtype(np.int64)

#: DLPack's numbers of the devices whose memory the CPU reads: the CPU, pinned memory of CUDA, of ROCm.
_HOST_DEVICES = (1, 3, 11)
#: Kinds of dtype that ``astype`` turns into floats without losing a part.
_CONVERTIBLE = "biufV"

MaybeArray = TypeVar("MaybeArray", Array, Array | None)


def floats(name: str, value: Any, dtype: np.dtype[Any] | None = None) -> Array:
    """``value`` as an array of ``dtype``, or of either served dtype where that is None."""
    array = value if type(value) is np.ndarray else _viewed(name, value)
    kind = array.dtype
    if kind is dtype or (dtype is None and (kind is FLOAT32 or kind is FLOAT64)):
        return array
    if dtype is None:
        if kind != FLOAT32 and kind != FLOAT64:
            raise _unserved(name, value, array, "float32 or float64", "float32")
    elif kind != dtype:
        expected = f"{dtype} like the call's other arrays"
        raise _unserved(name, value, array, expected, str(dtype))
    return array


def shaped_floats(name: str, value: Any, dtype: np.dtype[Any], shape: Shape) -> Array:
    """``value`` as an array of ``dtype`` and ``shape``."""
    array = floats(name, value, dtype)
    check_shape(name, array, shape)
    return array


def optional_floats(name: str, value: Any, dtype: np.dtype[Any], shape: Shape) -> Array | None:
    """``value`` as an array of ``dtype`` and ``shape``, or None."""
    return None if value is None else shaped_floats(name, value, dtype, shape)


def integers(name: str, value: Any, shape: Shape, dtype: np.dtype[Any] | None = None) -> Array:
    """``value`` as an array of ``shape``, of ``dtype`` or any integers."""
    array = value if type(value) is np.ndarray else _viewed(name, value)
    if array.dtype.kind not in "iu" or (dtype is not None and array.dtype != dtype):
        raise _unserved(name, value, array, str(dtype or "integers"), "int64")
    check_shape(name, array, shape)
    return array


def check_range(name: str, array: Array, below: int) -> None:
    if array.size and (array.min() < 0 or array.max() >= below):
        raise ArgumentError(
            f"{name} must be at least 0 and below {below}, "
            f"got values from {array.min()} to {array.max()}"
        )


def booleans(name: str, value: Any, shape: Shape) -> Array:
    """``value`` as a bool array of ``shape``."""
    array = value if type(value) is np.ndarray else _viewed(name, value)
    if array.dtype != np.bool_:
        raise _unserved(name, value, array, "bool", "bool_")
    check_shape(name, array, shape)
    return array


def check_shape(name: str, array: Array, shape: Shape) -> None:
    if array.shape != shape:
        raise ShapeError(f"{name} must have shape {shape}, got {array.shape}")


def check_rank(name: str, array: Array, rank: int, letters: str) -> None:
    if array.ndim != rank:
        dimensions = "1 dimension" if rank == 1 else f"{rank} dimensions"
        raise ShapeError(f"{name} must have {dimensions} {letters}, got shape {array.shape}")


def dense(kernels: Backend, array: MaybeArray) -> MaybeArray:
    """``array`` as ``kernels`` wants it: C-contiguous and aligned where they say DENSE."""
    if type(array) is np.ndarray:
        if not kernels.DENSE:
            return array
    elif array is None:
        return None
    elif kernels is not registry.loaded_cuda():
        raise DeviceError(
            "the arrays of one call must be in one memory, got some in the CPU's and one on a "
            "GPU; move one with fastdl.to_device or fastdl.to_host"
        )
    flags = array.flags
    return array if flags.c_contiguous and flags.aligned else array.copy(order="C")


def _viewed(name: str, value: Any) -> Array:
    """An array on the memory of ``value``, whatever its dtype."""
    if isinstance(value, np.ma.MaskedArray):
        raise DTypeError(
            f"{name} must be a plain array, got a masked array, whose mask would be ignored; "
            f"fill it with {name}.filled(...)"
        )
    if isinstance(value, np.ndarray):
        return value.view(np.ndarray)
    if on_device(value):
        return _on_gpu(name, value)  # type: ignore[no-any-return]
    try:
        if hasattr(value, "__dlpack__"):
            if value.__dlpack_device__()[0] not in _HOST_DEVICES:
                raise _on_device(name, value)
            return np.from_dlpack(value)
        return np.asarray(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, DTypeError):
            raise
        raise DTypeError(
            f"{name} must be an array, got {type(value).__name__}, which NumPy cannot read: {error}"
        ) from error


def _on_gpu(name: str, value: Any) -> Any:
    """A view of an array on a GPU."""
    reason = registry.why_missing("cuda")
    if reason is not None:
        raise DTypeError(
            f"{name} must be in the CPU's memory, got {type(value).__name__} on a device, and the "
            f"cuda backend is not available here ({reason}); copy it to the CPU first"
        )
    from ..backends.cuda.arrays import viewed

    return viewed(value)


def _on_device(name: str, value: Any) -> DTypeError:
    return DTypeError(
        f"{name} must be in the CPU's memory, got {type(value).__name__} on a device; "
        f"copy it to the CPU first"
    )


def _unserved(name: str, value: Any, array: Array, expected: str, target: str) -> DTypeError:
    """The error for a dtype that does not fit, with the remedy where there is one."""
    if array.dtype.kind in "OSU" and not isinstance(value, np.ndarray):
        got = "None" if value is None else type(value).__name__
        return DTypeError(f"{name} must be an array of {expected}, got {got}")
    remedy = ""
    if array.dtype.kind in _CONVERTIBLE:
        remedy = f"; convert it with {name}.astype(np.{target})"
    return DTypeError(f"{name} must be {expected}, got {array.dtype}{remedy}")
