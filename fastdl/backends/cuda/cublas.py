"""cuBLAS for plain matrix products, where nvmath-python or CuPy is installed. Neither is needed.

cuBLAS counts along columns, our matrices lie along rows: what it calls C is our result turned. So
it is asked for ``C' = B' A'``, the operands exchanged and none of them copied. FASTDL_CUBLAS=0
leaves it out.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ..precision import precision
from .arrays import DeviceArray, in_order
from .target import SIMULATED

#: Products of a sum in float32 that one call makes; the calls after it add theirs. As `gemm.RUN`,
#: it keeps the error of long sums at that of short ones.
RUN = 1024

# The numbers of CUDA's enumerations: cublasOperation_t, cudaDataType_t, cublasComputeType_t,
# cublasGemmAlgo_t.
_PLAIN, _TURNED = 0, 1
_TYPES: dict[np.dtype[Any], int] = {np.dtype(np.float32): 0, np.dtype(np.float64): 1}
_EXACT: dict[np.dtype[Any], int] = {np.dtype(np.float32): 68, np.dtype(np.float64): 70}
_ROUNDED = {"tf32": 77, "bf16": 75}
_DEFAULT = -1

#: 0 and 1 of each dtype, where cuBLAS can read them.
_NUMBERS = {dtype: np.array([0, 1], dtype) for dtype in _TYPES}


class Library(NamedTuple):
    """A Python package's way to cuBLAS."""

    create: Callable[[], int]  # a handle on the current GPU
    #: cublasGemmStridedBatchedEx on a stream: (handle, stream, its arguments after the handle).
    multiply: Callable[..., None]


class Matrix(NamedTuple):
    """Matrices of one size in an array, ``apart`` elements from each to the next, 0 for one."""

    array: DeviceArray
    columns: int  # elements of a row in memory
    turned: bool = False  # whether those rows are the factor's columns
    apart: int = 0

    def at(self, k: int, along_rows: bool) -> int:
        """The address of the part that begins with product k, which counts along rows in memory."""
        step = 1 if along_rows else self.columns
        return self.array.pointer + k * step * self.array.dtype.itemsize


@cache
def library() -> Library | None:
    """The first of the packages that is here."""
    if SIMULATED or os.environ.get("FASTDL_CUBLAS", "1") == "0":
        return None
    for found in (_of_nvmath, _of_cupy):
        try:
            return found()
        except Exception:  # not installed, or without what it needs
            continue
    return None


def _of_nvmath() -> Library:
    from nvmath.bindings import cublas

    def multiply(handle: int, stream: int, *arguments: Any) -> None:
        cublas.set_stream(handle, stream)
        cublas.gemm_strided_batched_ex(handle, *arguments)

    return Library(cublas.create, multiply)


def _of_cupy() -> Library:
    from cupy.cuda import ExternalStream
    from cupy_backends.cuda.libs import cublas

    def multiply(handle: int, stream: int, *arguments: Any) -> None:
        with ExternalStream(stream):  # CuPy gives the handle its current stream
            cublas.gemmStridedBatchedEx(handle, *arguments)

    return Library(cublas.create, multiply)


@cache
def _handle(device: int, stream: int) -> int | None:
    """A handle for each stream, as its workspace serves one: so each call gives the same bits."""
    found = library()
    assert found is not None
    try:
        return found.create()
    except Exception as error:
        warnings.warn(f"cuBLAS does not work here and is not used: {error}", stacklevel=2)
        return None


def matrix_product(
    left: Matrix, right: Matrix, out: Matrix, sizes: tuple[int, int, int], batch: int = 1
) -> bool:
    """``out[m][p] = sum_k left[m][k] * right[k][p]``, the sizes being those of m, k and p.

    False, and nothing done, where there is no cuBLAS.
    """
    found = library()
    if found is None:
        return False
    rows, depth, columns = sizes
    dtype, result = out.array.dtype, out.array
    with in_order(result, [left.array, right.array]):
        handle = _handle(result.device, result.stream)
        if handle is None:
            return False
        kind = precision() if dtype == np.float32 else "float32"
        run = RUN if kind == "float32" and dtype == np.float32 else depth
        zero = _NUMBERS[dtype].ctypes.data
        one = zero + dtype.itemsize
        for first in range(0, depth, run):
            found.multiply(
                handle, result.stream,
                _TURNED if right.turned else _PLAIN, _TURNED if left.turned else _PLAIN,
                columns, rows, min(run, depth - first), one,
                right.at(first, right.turned), _TYPES[dtype], right.columns, right.apart,
                left.at(first, not left.turned), _TYPES[dtype], left.columns, left.apart,
                one if first else zero, result.pointer, _TYPES[dtype], out.columns, out.apart,
                batch, _ROUNDED.get(kind, _EXACT[dtype]), _DEFAULT,
            )  # fmt: skip
    return True
