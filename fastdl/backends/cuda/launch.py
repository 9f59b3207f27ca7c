"""How a kernel is written, compiled and started.

A *factory* is a function of compile-time constants that returns a kernel: ``@kernel("T* T* i")``
says its arguments. Each kernel of other constants is compiled upon its first launch. All arrays
are flat; an index is an int32, so that no array may have 2**31 elements or more.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from typing import Any

import numpy as np
from numba import cuda as numba_cuda

from ...errors import BackendError
from .. import gpu
from .arrays import (
    DeviceArray,
    check_size,
    check_together,
    current_device,
    empty,
    in_order,
    stream_of,
    to_device,
)
from .target import SIMULATED

#: Threads of a block of the kernels that stream through memory: a power of 2, whole warps.
THREADS = 32 if SIMULATED else 256

_SCALARS: dict[str, Any] = {
    "i": np.int32,
    "u": np.uint32,
    "l": np.int64,
    "U": np.uint64,
    "d": np.float64,
}
#: How a driver refuses code (Numba's errors have the number, cuda.core's the name), or the linker.
_REFUSALS = {218: "INVALID_PTX", 222: "UNSUPPORTED_PTX_VERSION", 209: "NO_BINARY_FOR_GPU"}
_LINKER_ERROR = "nvJitLinkError"
_ARRAYS = {
    "T*": None, "D*": np.float64, "i*": np.int32, "u*": np.uint32, "l*": np.int64, "U*": np.uint64,
    "b*": np.uint8,
}  # fmt: skip

#: Every factory, by name: what the compile-only tests go through.
FACTORIES: dict[str, Factory] = {}


class Kernel:
    """A kernel whose constants are chosen."""

    def __init__(
        self, factory: Factory, constants: tuple[Any, ...], bounds: tuple[int, int] | None
    ) -> None:
        self.factory, self.constants, self.bounds = factory, constants, bounds
        self.function = factory.function(*constants)
        self.dtype = constants[0]
        self._parsed = factory.arguments.split()
        self._compiled: dict[int, Any] = {}

    def signature(self) -> Any:
        """Numba's type of each argument."""
        from numba.cuda import types
        from numba.cuda.np.numpy_support import from_dtype

        def of(letter: str) -> Any:
            if letter in _ARRAYS:
                return from_dtype(np.dtype(_ARRAYS[letter] or self.dtype))[::1]
            return from_dtype(np.dtype(_SCALARS.get(letter, self.dtype)))

        return types.void(*map(of, self._parsed))

    def __call__(self, blocks: Any, threads: int, *arguments: Any) -> None:
        """Start it, on the GPU and the stream of the first array.

        The streams of the others wait for it, and it for them.
        """
        grid = blocks if isinstance(blocks, tuple) else (blocks,)
        if 0 in grid:
            return
        first, *others = [value for value in arguments if isinstance(value, DeviceArray)]
        with in_order(first, others):
            passed = [self._passed(*pair) for pair in zip(self._parsed, arguments, strict=True)]
            compiled = self._compiled.get(first.device)
            if compiled is None:
                compiled = self._compile()
                with _told(self):
                    compiled[grid, threads, stream_of(first.stream)](*passed)
                self._compiled[first.device] = compiled
            else:
                compiled[grid, threads, stream_of(first.stream)](*passed)

    def _compile(self) -> Any:
        if SIMULATED:
            return numba_cuda.jit(self.function)
        bounds = {} if self.bounds is None else {"launch_bounds": self.bounds}
        return numba_cuda.jit(lto=linked_here(), **bounds)(self.function)

    def _passed(self, letter: str, value: Any) -> Any:
        if letter not in _ARRAYS:
            return _SCALARS.get(letter, self.dtype)(value)
        if not isinstance(value, DeviceArray):
            return value
        return value.flat if value.data.is_c_contiguous() else value.copy().flat


@cache
def linked_here() -> bool:
    """Whether the packages make a kernel's machine code themselves.

    They do so, by nvJitLink, for a driver of their own CUDA, 12 or 13: then no version of PTX is
    asked of it. A driver of a newer CUDA compiles their PTX, as it knows all that are older.
    """
    try:
        from cuda.bindings import nvjitlink

        version = nvjitlink.version()
    except Exception:  # the binding or the library is missing, too old, or broken
        return False
    return bool(version >= (12, 3) and version[0] == gpu.driver_version()[0])


@contextmanager
def _told(kernel: Kernel) -> Iterator[None]:
    """Say what a driver's refusal of a kernel's code means."""
    try:
        yield
    except Exception as error:
        told = str(error)
        if type(error).__name__ == _LINKER_ERROR:
            raise BackendError(
                f"the linker of the package nvidia-nvjitlink does not take the code that Numba's "
                f"packages make ({told}); bring them to one version: {gpu.INSTALL} --upgrade"
            ) from error
        if getattr(error, "code", None) not in _REFUSALS and not any(
            name in told for name in _REFUSALS.values()
        ):
            raise
        served = ".".join(map(str, gpu.driver_version()))
        raise BackendError(
            f"the GPU's driver, of CUDA {served}, does not take the code that the packages of CUDA "
            f"{gpu.packages_version()} make ({told}); install a newer driver, or older packages: "
            f"{gpu.INSTALL_OLD}"
        ) from error


class Factory:
    """Makes kernels of one text, and keeps them."""

    def __init__(self, function: Callable[..., Any], arguments: str, bounds: Any) -> None:
        self.function, self.arguments, self.bounds = function, arguments, bounds
        self._made: dict[tuple[Any, ...], Kernel] = {}

    def __call__(self, dtype: Any, *constants: Any) -> Kernel:
        """The kernel for arrays of ``dtype``."""
        key = (np.dtype(dtype).type, *constants)
        made = self._made.get(key)
        if made is None:
            bounds = self.bounds(*key) if callable(self.bounds) else self.bounds
            made = self._made[key] = Kernel(self, key, bounds)
        return made


def kernel(arguments: str, bounds: Any = None) -> Callable[[Callable[..., Any]], Factory]:
    """Declare a factory: ``arguments`` of its kernels, one letter each.

    ``T`` is the dtype, ``i`` int32, ``u`` uint32, ``l`` int64, ``U`` uint64, ``d`` and ``D`` float64,
    ``b`` a byte;
    a star says array. ``bounds`` is (threads of a block, blocks that a multiprocessor shall
    hold), from which the compiler takes how many registers a thread may have; or a function of
    the constants.
    """

    def declare(function: Callable[..., Any]) -> Factory:
        factory = Factory(function, arguments, bounds)
        FACTORIES[f"{function.__module__.rpartition('.')[2]}.{function.__name__}"] = factory
        return factory

    return declare


@cache
def processors() -> int:
    """Multiprocessors of the current GPU."""
    return 2 if SIMULATED else gpu.gpus()[current_device()].processors


def blocks_for(items: int, threads: int = THREADS) -> int:
    """Blocks of ``threads`` threads so that each item has a thread."""
    return -(-items // threads)


_warned = False


def _warn_once() -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            "the cuda backend was given arrays in the CPU's memory: each call copies them to the "
            "GPU and the result back; keep them there with fastdl.to_device",
            stacklevel=5,
        )


def entry(
    *outputs: str, updated: tuple[str, ...] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A function of the backend's table, its ``outputs`` being the arrays that it writes.

    Those that are ``updated`` it reads too.

    It is written for arrays on the GPU. Called with NumPy arrays it copies them there and the
    outputs back.
    """

    def declare(function: Callable[..., None]) -> Callable[..., None]:
        names = list(inspect.signature(function).parameters)

        @wraps(function)
        def call(*args: Any, **options: Any) -> None:
            values = dict(zip(names, args, strict=False)) | options
            arrays = {
                name: value
                for name, value in values.items()
                if isinstance(value, (np.ndarray, DeviceArray))
            }
            for name, array in arrays.items():
                check_size(name, array)
            check_together(arrays)
            if not any(isinstance(array, np.ndarray) for array in arrays.values()):
                function(**values)
                return
            _warn_once()
            moved = {
                name: empty(array.shape, array.dtype) if name in outputs else to_device(array)
                for name, array in arrays.items()
            }
            function(**{**values, **moved})
            for name in (*outputs, *updated):
                if name in arrays:
                    np.copyto(values[name], moved[name].copy_to_host())

        return call

    return declare
