"""What NVIDIA GPUs this machine has, asked of their driver itself, without Numba.

The driver is the library that Numba takes too: ``libcuda.so.1``, or what NUMBA_CUDA_DRIVER names.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import numpy as np

from ..errors import BackendError

#: How the packages are got. A driver older than CUDA 13 needs the other extra.
INSTALL = "pip install 'fastdl-kernels[cuda]'"
INSTALL_OLD = "pip install 'fastdl-kernels[cuda12]'"

_COMPUTE_MAJOR, _COMPUTE_MINOR, _PROCESSORS = 75, 76, 16
_POINTER_DEVICE = 9
ON_CUDA = 2  # DLPack's number of CUDA devices


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, as its driver describes it."""

    name: str
    memory_bytes: int
    compute_capability: tuple[int, int]
    processors: int

    def __str__(self) -> str:
        major, minor = self.compute_capability
        memory = self.memory_bytes / 2**30
        return f"{self.name}, compute capability {major}.{minor}, {memory:.0f} GiB"


def simulated() -> bool:
    """Whether Numba is told to simulate a GPU."""
    return os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")


def on_device(value: Any) -> bool:
    """Whether ``value`` is an array in a GPU's memory. Imports nothing."""
    if type(value) is np.ndarray:
        return False
    # Ours is asked first: to look at its interface counts as giving its memory away.
    if getattr(type(value), "is_fastdl_device_array", False):
        return True
    if hasattr(value, "__cuda_array_interface__") or hasattr(value, "__cuda_ndarray__"):
        return True
    return hasattr(value, "__dlpack_device__") and value.__dlpack_device__()[0] == ON_CUDA


def why_missing() -> str | None:
    """What keeps the cuda backend from working here, and the remedy; None if it works."""
    if find_spec("numba_cuda") is None:
        return f"the package numba-cuda is not installed; install it with: {INSTALL}"
    if tuple(map(int, np.__version__.split(".")[:2])) >= (2, 5):
        return f"numba-cuda needs NumPy below 2.5, here is {np.__version__}; {INSTALL} gets one"
    if simulated():
        return None
    try:
        if not gpus():
            return "its driver reports no GPU; see what nvidia-smi says"
        return _too_old(driver_version(), packages_version())
    except BackendError as error:
        return str(error)


def _too_old(driver: tuple[int, int], packages: int) -> str | None:
    """What to do about a driver of an older CUDA than the packages that compile for it.

    Within one CUDA of 12 or later, a driver takes what newer packages make.
    """
    if driver[0] >= packages:
        return None
    serves = (
        f"the NVIDIA driver serves CUDA up to {driver[0]}.{driver[1]}, and the packages here are "
    )
    if driver[0] < 12:
        return f"{serves}of CUDA {packages}; install a newer driver (of CUDA 12 or later)"
    return f"{serves}of CUDA {packages}; install a newer driver, or older packages: {INSTALL_OLD}"


def packages_version() -> int:
    """The CUDA, 12 or 13, of the packages with which Numba compiles; 0 where that is unknown."""
    try:
        return int(version("cuda-bindings").partition(".")[0])
    except (PackageNotFoundError, ValueError):
        return 0


@cache
def gpus() -> tuple[Gpu, ...]:
    """Every GPU, in the driver's order.

    Raises
    ------
    BackendError
        If there is no driver, or it does not work.
    """
    driver = _driver()
    count = ctypes.c_int()
    _check(driver, driver.cuDeviceGetCount(ctypes.byref(count)))
    return tuple(_gpu(driver, number) for number in range(count.value))


def driver_version() -> tuple[int, int]:
    """The newest CUDA that the driver serves."""
    driver = _driver()
    version = ctypes.c_int()
    _check(driver, driver.cuDriverGetVersion(ctypes.byref(version)))
    return version.value // 1000, version.value % 1000 // 10


def pointer_device(pointer: int) -> int:
    """The number of the GPU in whose memory ``pointer`` points; 0 under the simulator."""
    if simulated():
        return 0
    driver = _driver()
    number = ctypes.c_int()
    _check(
        driver,
        driver.cuPointerGetAttribute(
            ctypes.byref(number), _POINTER_DEVICE, ctypes.c_uint64(pointer)
        ),
    )
    return number.value


@cache
def _driver() -> ctypes.CDLL:
    path = os.environ.get("NUMBA_CUDA_DRIVER") or "libcuda.so.1"
    try:
        driver = ctypes.CDLL(path)
    except OSError as error:
        raise BackendError(
            f"no NVIDIA driver is here ({error}); install the GPU's driver (in a container, start "
            f"it with GPU access, as with docker run --gpus all)"
        ) from None
    status = driver.cuInit(0)
    if status == 100:  # CUDA_ERROR_NO_DEVICE
        raise BackendError("the NVIDIA driver reports no GPU; see what nvidia-smi says")
    _check(driver, status)
    return driver


def _check(driver: ctypes.CDLL, status: int) -> None:
    if status:
        text = ctypes.c_char_p()
        driver.cuGetErrorString(status, ctypes.byref(text))
        words = text.value.decode() if text.value else "unknown"
        raise BackendError(f"the NVIDIA driver reports error {status} ({words})")


def _gpu(driver: ctypes.CDLL, number: int) -> Gpu:
    handle = ctypes.c_int()
    _check(driver, driver.cuDeviceGet(ctypes.byref(handle), number))
    name = ctypes.create_string_buffer(256)
    _check(driver, driver.cuDeviceGetName(name, len(name), handle))
    memory = ctypes.c_size_t()
    _check(driver, driver.cuDeviceTotalMem_v2(ctypes.byref(memory), handle))

    def attribute(which: int) -> int:
        value = ctypes.c_int()
        _check(driver, driver.cuDeviceGetAttribute(ctypes.byref(value), which, handle))
        return value.value

    return Gpu(
        name.value.decode(),
        memory.value,
        (attribute(_COMPUTE_MAJOR), attribute(_COMPUTE_MINOR)),
        attribute(_PROCESSORS),
    )
