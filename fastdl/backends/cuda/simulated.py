"""What `instructions` holds, in Python, for Numba's simulator (NUMBA_ENABLE_CUDASIM=1).

A simulated thread is an ordinary one that waits in ``syncthreads``. What a warp does in step is
done here by the whole block in step: so kernels call it where the whole block comes by.
"""

from __future__ import annotations

import ctypes
import sys
from time import perf_counter_ns
from typing import Any

import numpy as np
from numba.cuda.simulator.kernel import _get_kernel_context

exp, log, tanh, sqrt = np.exp, np.log, np.tanh, np.sqrt


class _Shared:
    """Shared memory: one array for each line that asks for it."""

    @staticmethod
    def array(shape: Any, dtype: Any, alignment: int | None = None) -> Any:
        frame = sys._getframe(1)
        kept = _get_kernel_context().shared._allocations
        place = (frame.f_code, frame.f_lineno)
        found = kept.get(place)
        if found is None:
            # What nobody has written is not a number. Of threads that come at once, one makes it.
            made = np.full(shape, np.nan if np.dtype(dtype).kind == "f" else -1, dtype)
            found = kept.setdefault(place, made)
        return found


class _Cuda:
    """numba.cuda as a kernel sees it."""

    shared = _Shared()

    def __getattr__(self, name: str) -> Any:
        return getattr(_get_kernel_context(), name)


cuda = _Cuda()


def device(function: Any) -> Any:
    """A function that kernels call."""
    return function


inlined = device


def load4(array: Any, index: int) -> tuple[Any, Any, Any, Any]:
    """``array[index : index + 4]``."""
    assert index % 4 == 0, "not aligned"
    return array[index], array[index + 1], array[index + 2], array[index + 3]


def store4(array: Any, index: int, a: Any, b: Any, c: Any, d: Any) -> None:
    """``array[index : index + 4] = a, b, c, d``."""
    assert index % 4 == 0, "not aligned"
    array[index], array[index + 1], array[index + 2], array[index + 3] = a, b, c, d


def _memory(T: Any, address: int, index: int, size: int) -> Any:
    """Elements of the CPU's memory."""
    nbytes = np.dtype(T).itemsize
    found = (ctypes.c_char * (size * nbytes)).from_address(int(address) + int(index) * nbytes)
    return np.frombuffer(found, T)


def load4_at(T: Any) -> Any:
    """As `load4`, of memory at an address."""

    def load(address: int, index: int) -> tuple[Any, ...]:
        assert (address + index * np.dtype(T).itemsize) % 16 == 0, "not aligned"
        return tuple(_memory(T, address, index, 4))

    return load


def store4_at(T: Any) -> Any:
    """As `store4`, to memory at an address."""

    def store(address: int, index: int, *values: Any) -> None:
        _memory(T, address, index, 4)[...] = values

    return store


def load_at(T: Any) -> Any:
    """An element of memory at an address."""
    return lambda address, index: _memory(T, address, index, 1)[0]


def store_at(T: Any) -> Any:
    """Set an element of memory at an address."""

    def store(address: int, index: int, value: Any) -> None:
        _memory(T, address, index, 1)[0] = value

    return store


def quotient(number: int, divisor: int) -> Any:
    """``number // divisor``."""
    assert number >= 0
    return number // divisor


def affine128(
    x_high: int, x_low: int, a_high: int, a_low: int, b_high: int, b_low: int
) -> tuple[Any, Any]:
    """``a * x + b`` modulo 2**128, each number in two uint64: the upper half and the lower."""
    x, a, b = (
        int(high) << 64 | int(low)
        for high, low in ((x_high, x_low), (a_high, a_low), (b_high, b_low))
    )
    total = (a * x + b) % 2**128
    return np.uint64(total >> 64), np.uint64(total % 2**64)


def _exchanged(value: Any) -> dict[int, Any]:
    """What every thread of the block gave."""
    context = _get_kernel_context()
    slots: dict[int, Any] = context.shared._allocations.setdefault("exchange", {})
    slots[context.threadIdx.x] = value
    context.syncthreads()
    given = dict(slots)
    context.syncthreads()
    return given


def shuffle_xor(value: Any, mask: int) -> Any:
    """The value of the thread whose number differs in the bits of ``mask``."""
    return _exchanged(value)[_get_kernel_context().threadIdx.x ^ mask]


def nanosecond() -> int:
    """The CPU's clock."""
    return perf_counter_ns()


def to_tf32(value: Any) -> Any:
    """``value`` rounded to TF32's 10 bits of mantissa, half away from zero."""
    bits = int(np.float32(value).view(np.uint32))
    if bits & 0x7F800000 != 0x7F800000:
        bits = (bits + 0x1000) & 0xFFFFE000
    return np.uint32(bits).view(np.int32)


def _bf16(value: Any) -> int:
    """The upper 16 bits of ``value``, rounded half to even."""
    bits = int(np.float32(value).view(np.uint32))
    if bits & 0x7F800000 != 0x7F800000:
        bits += 0x7FFF + (bits >> 16 & 1)
    elif bits & 0x7FFFFF:
        bits |= 0x400000
    return bits >> 16


def to_bf16x2(low: Any, high: Any) -> Any:
    """Two values rounded to bfloat16, ``low`` in the lower half of 32 bits."""
    return np.uint32(_bf16(high) << 16 | _bf16(low)).view(np.int32)


def _real(bits: int) -> float:
    return float(np.uint32(bits & 0xFFFFFFFF).view(np.float32))


def _of_warp(registers: tuple[Any, ...], product: Any) -> Any:
    """``product`` of what the 32 threads of the warp gave, computed by the first that comes."""
    context = _get_kernel_context()
    slots = context.shared._allocations.setdefault("exchange", {})
    products = context.shared._allocations.setdefault("products", {})
    thread = context.threadIdx.x
    first = thread & ~31
    slots[thread] = registers
    context.syncthreads()
    if first not in products:
        products[first] = product([slots[first + lane] for lane in range(32)])
    found = products[first]
    context.syncthreads()
    products.pop(first, None)
    return found


def _product_tf32(given: list[tuple[Any, ...]]) -> Any:
    a, b = np.zeros((16, 8)), np.zeros((8, 8))
    for lane, registers in enumerate(given):
        row, column = lane >> 2, lane & 3
        held = [_real(int(register)) for register in registers]
        a[row, column], a[row + 8, column], a[row, column + 4], a[row + 8, column + 4] = held[:4]
        b[column, row], b[column + 4, row] = held[4:]
    return a @ b


def _product_bf16(given: list[tuple[Any, ...]]) -> Any:
    a, b = np.zeros((16, 16)), np.zeros((16, 8))
    for lane, registers in enumerate(given):
        row, column = lane >> 2, 2 * (lane & 3)
        for half in (0, 1):
            reals = [_real((int(bits) & 0xFFFFFFFF) >> 16 * half << 16) for bits in registers]
            a[row, column + half], a[row + 8, column + half] = reals[0], reals[1]
            a[row, column + 8 + half], a[row + 8, column + 8 + half] = reals[2], reals[3]
            b[column + half, row], b[column + 8 + half, row] = reals[4], reals[5]
    return a @ b


def mma_tf32(c0: Any, c1: Any, c2: Any, c3: Any, *registers: Any) -> tuple[Any, ...]:
    """``D = A B + C``: A 16 x 8, B 8 x 8; who holds what is the PTX manual's, section 9.7.15.5."""
    return _own(_of_warp(registers, _product_tf32), (c0, c1, c2, c3))


def mma_bf16(c0: Any, c1: Any, c2: Any, c3: Any, *registers: Any) -> tuple[Any, ...]:
    """``D = A B + C``: A 16 x 16, B 16 x 8, two numbers a register; layout as the PTX manual's."""
    return _own(_of_warp(registers, _product_bf16), (c0, c1, c2, c3))


def _own(product: Any, c: tuple[Any, ...]) -> tuple[Any, ...]:
    """The four elements of C and D that this thread holds."""
    lane = _get_kernel_context().threadIdx.x & 31
    row, column = lane >> 2, 2 * (lane & 3)
    places = ((row, column), (row, column + 1), (row + 8, column), (row + 8, column + 1))
    return tuple(np.float32(c[i] + product[place]) for i, place in enumerate(places))
