"""Arrays in a GPU's memory."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
from numba import cuda

from ...errors import DeviceError, DeviceMemoryError, DTypeError, ShapeError
from ...geometry import PoolGeometry
from .. import gpu
from . import dlpack, memory
from .target import SIMULATED

Shape = tuple[int, ...]

_OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY


@dataclass(frozen=True, slots=True)
class Flags:
    """As `numpy.ndarray.flags`; aligned means: to the 16 bytes of the widest load."""

    c_contiguous: bool
    aligned: bool
    writeable: bool = True

    @property
    def carray(self) -> bool:
        return self.c_contiguous and self.aligned and self.writeable


@dataclass(frozen=True, slots=True)
class Place:
    """A GPU and a stream: where a result goes."""

    device: int
    stream: int


class DeviceArray:
    """An array in a GPU's memory, made by `to_device` or a view of another library's array.

    It has what code on NumPy arrays asks first (shape, dtype, strides, reshape, copy), and gives
    itself to CuPy, PyTorch and Numba without a copy by ``__cuda_array_interface__``.

    Attributes
    ----------
    shape, strides : tuple of int
        As NumPy's, strides in bytes.
    dtype : dtype
    device : int
        The number of its GPU.
    stream : int
        The stream (its CUstream handle) on which its value is made; 0 is the default one.
    below : int or None
        Of integers: all are known to be at least 0 and below it.
    windows : PoolGeometry or None
        Of a max pool's indices: the windows in which they were found.
    settled : bool
        Whether its values are there for good, so that no stream waits for them.
    """

    __array_priority__ = 100.0
    is_fastdl_device_array = True

    def __init__(self, data: Any, device: int = 0, stream: int = 0, writeable: bool = True) -> None:
        self.data = data
        self.device = device
        self.stream = stream
        self.shape: Shape = tuple(data.shape)
        self.strides: Shape = tuple(data.strides)
        self.dtype: np.dtype[Any] = np.dtype(data.dtype)
        self._writeable = writeable
        self.below: int | None = None
        self.windows: PoolGeometry | None = None
        self.settled = False
        self._chunk: memory.Chunk | None = None
        self._flat: Any = None

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def pointer(self) -> int:
        """The address of the first element; 0 where there is none."""
        if not self.size:
            return 0
        if SIMULATED:
            return int(self.data._ary.ctypes.data)
        return int(self.data.device_ctypes_pointer.value)

    @property
    def flags(self) -> Flags:
        return Flags(bool(self.data.is_c_contiguous()), self.pointer % 16 == 0, self._writeable)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        self._give_away()
        # Version 3 wants 1 for the default stream, as 0 is ambiguous.
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.pointer, not self._writeable),
            "strides": None if self.data.is_c_contiguous() else self.strides,
            "version": 3,
            "stream": self.stream or 1,
        }

    @property
    def flat(self) -> Any:
        """Numba's view of all elements as one row, which is what kernels take."""
        if self._flat is None:
            check_size("an array on a GPU", self)
            data = self.data if self.ndim == 1 else self.data.reshape(self.size)
            self._flat = data.view(np.uint8) if self.dtype == np.bool_ else data
        return self._flat

    def __dlpack_device__(self) -> tuple[int, int]:
        return gpu.ON_CUDA, self.device

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A DLPack capsule; the consumer's ``stream`` waits for what is still being computed."""
        if dl_device not in (None, self.__dlpack_device__()):
            raise BufferError(f"the array is on GPU {self.device}; fastdl.to_host copies it")
        array = self.copy() if copy else self
        array._give_away()
        if stream != -1:
            with on(self.device):
                join(0 if stream in (None, 1) else int(stream), array.stream)
        return dlpack.capsule(
            array, array.pointer, array.shape, array.strides, array.dtype, self.__dlpack_device__()
        )

    def reshape(self, *shape: Any) -> DeviceArray:
        """The same elements in another shape; a view where the memory is contiguous."""
        wanted = tuple(shape[0]) if len(shape) == 1 and np.iterable(shape[0]) else tuple(shape)
        if -1 in wanted:
            rest = prod(size for size in wanted if size != -1)
            wanted = tuple(self.size // max(rest, 1) if size == -1 else size for size in wanted)
        if prod(wanted) != self.size:
            raise ShapeError(f"an array of shape {self.shape} cannot take the shape {wanted}")
        source = self if self.data.is_c_contiguous() else self.copy()
        if not self.size:
            return empty(wanted, self.dtype, self)
        return source._view(source.data.reshape(*wanted))

    def ravel(self) -> DeviceArray:
        return self.reshape(-1)

    def copy(self, order: str = "C") -> DeviceArray:
        """A C-contiguous copy."""
        from .copying import copied

        return copied(self)

    def copy_to_host(self) -> np.ndarray[Any, Any]:
        """A NumPy array of the same elements; waits until they are there."""
        if not self.size:
            return np.empty(self.shape, self.dtype)
        source = self if self.data.is_c_contiguous() else self.copy()
        with on(self.device):
            stream = stream_of(self.stream)
            host: np.ndarray[Any, Any] = source.data.copy_to_host(stream=stream)
            if stream:
                stream.synchronize()
        return host

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        raise DTypeError("an array on a GPU becomes a NumPy array only by fastdl.to_host")

    def __getitem__(self, index: Any) -> DeviceArray:
        """A view of a slice along the first axis."""
        if not isinstance(index, slice) or index.step not in (None, 1) or not self.ndim:
            raise DTypeError(
                f"an array on a GPU takes a slice of step 1 along its first axis, got {index!r}"
            )
        start, stop, _ = index.indices(self.shape[0])
        if stop <= start:
            return empty((0, *self.shape[1:]), self.dtype, self)
        return self._view(self.data[start:stop])

    def __setitem__(self, index: Any, value: Any) -> None:
        """``array[...] = value``, an array of its shape and dtype, of the host or of its GPU."""
        if index is not Ellipsis or not self.flags.c_contiguous:
            raise DTypeError(f"an array on a GPU is set as a whole, [...], got {index!r}")
        if value.shape != self.shape or value.dtype != self.dtype:
            raise ShapeError(
                f"an array of shape {self.shape} and {self.dtype} cannot take one of shape "
                f"{value.shape} and {value.dtype}"
            )
        self._forget_values()
        if self.size:
            host = isinstance(value, np.ndarray)
            others = [] if host else [viewed(value)]
            data = np.ascontiguousarray(value) if host else others[0].data
            with in_order(self, others):
                self.data.copy_to_device(data, stream=stream_of(self.stream))

    def _give_away(self) -> None:
        """Another library may keep the memory, and write to it."""
        if self._chunk is not None:
            self._chunk.exported = True
        self._forget_values()

    def _forget_values(self) -> None:
        self.below = self.windows = None

    def _view(self, data: Any) -> DeviceArray:
        """``data``, which is a part or all of this array's memory."""
        view = DeviceArray(data, self.device, self.stream, self._writeable)
        view.below, view._chunk = self.below, self._chunk
        return view

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<DeviceArray {self.shape} {self.dtype} on GPU {self.device}>"


def check_size(name: str, array: Any) -> None:
    """Refuse what an int32 cannot count; a tile may reach a little beyond the last element."""
    if array.size > 2**31 - 2**10:
        raise ShapeError(
            f"{name} must have at most 2**31 - 2**10 elements on the cuda backend, "
            f"got shape {array.shape}"
        )


def viewed(value: Any) -> DeviceArray:
    """An array on the memory of ``value``, which is on a GPU, without a copy."""
    if isinstance(value, DeviceArray):
        return value
    if hasattr(value, "__cuda_array_interface__"):
        return _from_interface(value, value.__cuda_array_interface__)
    if hasattr(value, "__cuda_ndarray__"):  # the simulator's own
        return DeviceArray(value)
    from cuda.core.utils import StridedMemoryView

    # The producer lets that stream wait for what it has under way; 1 is the default stream.
    view = StridedMemoryView.from_dlpack(value, stream_ptr=current_stream() or 1)
    dtype = np.dtype(view.dtype)
    strides = view.strides and tuple(step * dtype.itemsize for step in view.strides)
    interface = {
        "shape": tuple(view.shape),
        "typestr": dtype.str,
        "data": (view.ptr, view.readonly),
        "strides": strides,
        "version": 3,
    }
    return _from_interface(_Interface(interface, view), interface)


@dataclass(frozen=True)
class _Interface:
    """Something with ``__cuda_array_interface__`` that keeps its owner alive."""

    __cuda_array_interface__: dict[str, Any]
    owner: Any


def _from_interface(value: Any, interface: dict[str, Any]) -> DeviceArray:
    pointer, read_only = interface["data"]
    if interface.get("mask") is not None:
        raise DTypeError("an array on a GPU must be a plain one, got one with a mask")
    stream = interface.get("stream") or current_stream()
    stream = 0 if stream == 1 else int(stream)
    if SIMULATED:
        return DeviceArray(_simulated_view(value, interface), 0, stream, not read_only)
    device = gpu.pointer_device(pointer) if pointer else 0
    with on(device):
        data = cuda.as_cuda_array(value, sync=False)
    return DeviceArray(data, device, stream, not read_only)


def _simulated_view(value: Any, interface: dict[str, Any]) -> Any:
    """The simulator's memory is the CPU's."""
    from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

    array = np.asarray(type("View", (), {"__array_interface__": {**interface, "stream": None}})())
    fake = FakeCUDAArray(array)
    fake.owner = value
    return fake


def empty(shape: Shape, dtype: Any, like: DeviceArray | Place | None = None) -> DeviceArray:
    """Uninitialised memory of a result, on the GPU and the stream of ``like``.

    Raises
    ------
    DeviceMemoryError
        If the GPU has not so much left.
    """
    device = current_device() if like is None else like.device
    stream = current_stream() if like is None else like.stream
    kind, chunk = np.dtype(dtype), None
    with on(device):
        try:
            if prod(shape):
                data, chunk = memory.allocated(tuple(shape), kind, device, stream)
            else:
                data = cuda.device_array(shape, kind)
        except Exception as error:
            if getattr(error, "code", None) != _OUT_OF_MEMORY and not isinstance(
                error, MemoryError
            ):
                raise
            size = prod(shape) * kind.itemsize
            raise DeviceMemoryError(
                f"the GPU has no {size / 2**20:.1f} MiB left for an array of shape {shape} and "
                f"{kind}; free others, or take a smaller batch"
            ) from error
    array = DeviceArray(data, device, stream)
    array._chunk = chunk
    return array


def to_device(array: Any, device: int | None = None) -> DeviceArray:
    """``array`` in a GPU's memory: a copy, or ``array`` itself where it is there already.

    Parameters
    ----------
    array : array of float32, float64, int64 or bool
        A NumPy array, what NumPy can read, or an array on a GPU (CuPy, PyTorch, Numba).
    device : int, optional
        The number of the GPU; the current one where that is not given.

    Returns
    -------
    DeviceArray
        C-contiguous, where it is a copy.

    Raises
    ------
    BackendError
        If the cuda backend does not work here.
    DeviceMemoryError
        If the GPU has not so much memory left.
    """
    if gpu.on_device(array):
        view = viewed(array)
        return view if device in (None, view.device) else to_device(view.copy_to_host(), device)
    host = np.asarray(array, order="C")
    with on(current_device() if device is None else device):
        target = empty(host.shape, host.dtype)
        if host.size:
            # A broadcast size of 1 has a stride of 0, which Numba takes for a repetition.
            source = np.ndarray(host.shape, host.dtype, host)
            target.data.copy_to_device(source, stream=stream_of(target.stream))
    return target


def constant(array: np.ndarray[Any, Any], device: int) -> DeviceArray:
    """A copy on a GPU that nobody changes: kernels of all streams read it, and none waits."""
    found = to_device(array, device)
    if not SIMULATED:
        with on(device):
            (stream_of(found.stream) or cuda.default_stream()).synchronize()
    # Its memory goes to no other array of its stream while another stream may read it.
    if found._chunk is not None:
        found._chunk.exported = True
    found.settled = True
    return found


def to_host(array: Any) -> np.ndarray[Any, Any]:
    """A NumPy array of the elements of ``array``, which is on a GPU; waits until they are there.

    A NumPy array comes back as it is.
    """
    return viewed(array).copy_to_host() if gpu.on_device(array) else np.asarray(array)


class on:
    """``with on(device)``: that GPU is the current one."""

    def __init__(self, device: int) -> None:
        several = not SIMULATED and len(gpu.gpus()) > 1
        self._manager = cuda.gpus[device] if several else None

    def __enter__(self) -> None:
        if self._manager is not None:
            self._manager.__enter__()

    def __exit__(self, *error: Any) -> None:
        if self._manager is not None:
            self._manager.__exit__(*error)


def current_device() -> int:
    """The number of the current GPU."""
    return 0 if SIMULATED else int(cuda.current_context().device.id)


#: The stream of arrays that come with none, and of copies to a GPU.
_stream: ContextVar[int] = ContextVar("fastdl_stream", default=0)


def current_stream() -> int:
    """The handle that `use_stream` chose; 0 is the default stream."""
    return _stream.get()


@contextmanager
def use_stream(handle: int) -> Iterator[None]:
    """That stream is the current one inside the ``with`` block."""
    token = _stream.set(handle)
    try:
        yield
    finally:
        _stream.reset(token)


def stream_of(handle: int) -> Any:
    """Numba's stream of a handle."""
    return _stream_of(handle, current_device()) if handle and not SIMULATED else 0


# The same object each time, by which Numba finds a kernel's launch again.
@lru_cache(maxsize=256)
def _stream_of(handle: int, device: int) -> Any:
    return cuda.external_stream(handle)


def join(later: int, earlier: int) -> None:
    """Let stream ``later`` of the current GPU wait for all that ``earlier`` has been given."""
    if later != earlier:
        event = cuda.event(timing=False) if not SIMULATED else cuda.event()
        event.record(stream_of(earlier))
        event.wait(stream_of(later))


@contextmanager
def in_order(first: DeviceArray, others: Iterable[DeviceArray]) -> Iterator[None]:
    """What is started inside, on ``first``'s GPU and stream, waits for the others' streams.

    And what is started on those later waits for it.
    """
    with on(first.device):
        apart = {array.stream for array in others if not array.settled} - {first.stream}
        for stream in apart:
            join(first.stream, stream)
        yield
        for stream in apart:
            join(stream, first.stream)


def check_together(arrays: dict[str, Any]) -> None:
    """Refuse arrays of one call that are not all in one memory.

    ``arrays`` are by the names that the caller knows them by; None is none.

    Raises
    ------
    DeviceError
        If some are the CPU's and some a GPU's, or they are on two GPUs.
    """
    places = {
        name: f"on GPU {array.device}" if isinstance(array, DeviceArray) else "in the CPU's memory"
        for name, array in arrays.items()
        if array is not None
    }
    first, *others = places
    for name in others:
        if places[name] != places[first]:
            raise DeviceError(
                f"{name} must be where {first} is: {first} is {places[first]}, {name} "
                f"{places[name]}; move one with fastdl.to_device or fastdl.to_host"
            )


def overlap(first: DeviceArray, second: DeviceArray) -> bool:
    """Whether the two arrays' spans of memory meet."""
    if not (first.size and second.size):
        return False
    (low, high), (other_low, other_high) = _span(first), _span(second)
    return first.device == second.device and low < other_high and other_low < high


def _span(array: DeviceArray) -> tuple[int, int]:
    """The first address and the one after the last."""
    reach = [(size - 1) * step for size, step in zip(array.shape, array.strides, strict=True)]
    low = array.pointer + sum(step for step in reach if step < 0)
    return low, array.pointer + sum(step for step in reach if step > 0) + array.dtype.itemsize


def whole_memory(array: DeviceArray) -> tuple[Any, int]:
    """The span of a strided array as a flat one, and where in it its first element stands."""
    low, high = _span(array)
    size = (high - low) // array.dtype.itemsize
    offset = (array.pointer - low) // array.dtype.itemsize
    if SIMULATED:
        from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

        memory: Any = (ctypes.c_char * (high - low)).from_address(low)
        return FakeCUDAArray(np.frombuffer(memory, array.dtype, size)), offset
    interface = {
        "shape": (size,),
        "typestr": array.dtype.str,
        "data": (low, False),
        "strides": None,
        "version": 3,
    }
    return cuda.as_cuda_array(_Interface(interface, array.data), sync=False), offset
