"""Arrays on a GPU for other libraries by DLPack, version 0.8 of its C structures."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

Shape = tuple[int, ...]

_CODES = {"i": 0, "u": 1, "f": 2, "b": 6}
_NAME = b"dltensor"


class _Tensor(ctypes.Structure):
    """DLTensor, its device and dtype in their places."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_Destructor = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Managed(ctypes.Structure):
    """DLManagedTensor."""

    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter))


#: What consumers hold, by the address of its structure: that, its shape and strides, the array.
_held: dict[int, tuple[Any, ...]] = {}


@_Deleter
def _release(address: int) -> None:
    _held.pop(address, None)


@_Destructor
def _forget(capsule: int) -> None:
    """A capsule dies: if nobody took what is in it, that dies too."""
    api = ctypes.pythonapi
    if api.PyCapsule_IsValid(ctypes.c_void_p(capsule), _NAME):
        _release(api.PyCapsule_GetPointer(ctypes.c_void_p(capsule), _NAME))


def capsule(
    owner: Any, pointer: int, shape: Shape, strides: Shape, dtype: np.dtype[Any], device: Shape
) -> Any:
    """A DLPack capsule of the memory at ``pointer``, which holds ``owner``; strides in bytes."""
    count, size = len(shape), dtype.itemsize
    sizes = (ctypes.c_int64 * count)(*shape)
    steps = (ctypes.c_int64 * count)(*(step // size for step in strides))
    tensor = _Tensor(pointer, *device, count, _CODES[dtype.kind], 8 * size, 1, sizes, steps, 0)
    managed = _Managed(tensor, None, _release)
    address = ctypes.addressof(managed)
    _held[address] = managed, sizes, steps, owner
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, _Destructor)
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_char_p)
    return new(address, _NAME, _forget)
