"""Kernels of a convolutional network for NumPy arrays.

`fastdl.conv2d` and its companions take NumPy arrays (N, C, H, W), float32 or
float64, with the names and arguments of ``torch.nn.functional``. See
`fastdl.backends` for who computes them, `fastdl.nn` for layers on top.
"""

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as _version

from .backends.precision import use_precision
from .backends.registry import available_backends, use_backend
from .device import to_device, to_host, use_stream
from .errors import (
    ArgumentError,
    BackendError,
    DataError,
    DeviceError,
    DeviceMemoryError,
    DTypeError,
    FastdlError,
    MissingPackageError,
    OutputError,
    ShapeError,
)
from .functional import (
    adaptive_avg_pool2d,
    adaptive_avg_pool2d_backward,
    avg_pool2d,
    avg_pool2d_backward,
    batch_norm,
    batch_norm_backward,
    col2im,
    conv2d,
    conv2d_backward,
    conv_transpose2d,
    conv_transpose2d_backward,
    cross_entropy,
    cross_entropy_backward,
    dropout,
    dropout_backward,
    global_avg_pool2d,
    global_avg_pool2d_backward,
    im2col,
    linear,
    linear_backward,
    log_softmax,
    log_softmax_backward,
    max_pool2d,
    max_pool2d_backward,
    relu,
    relu_backward,
    sigmoid,
    sigmoid_backward,
    softmax,
    softmax_backward,
    tanh,
    tanh_backward,
)
from .functional.explain import Explanation, explain
from .functional.plan import Conv2dPlan
from .memory import MemoryPool, empty_memory_pool, memory_pool, set_memory_pool
from .threads import get_num_threads, set_num_threads

try:
    __version__ = _version("fastdl-kernels")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0+unknown"

__all__ = [
    "ArgumentError",
    "BackendError",
    "Conv2dPlan",
    "DTypeError",
    "DataError",
    "DeviceError",
    "DeviceMemoryError",
    "Explanation",
    "FastdlError",
    "MemoryPool",
    "MissingPackageError",
    "OutputError",
    "ShapeError",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool2d_backward",
    "available_backends",
    "avg_pool2d",
    "avg_pool2d_backward",
    "batch_norm",
    "batch_norm_backward",
    "col2im",
    "conv2d",
    "conv2d_backward",
    "conv_transpose2d",
    "conv_transpose2d_backward",
    "cross_entropy",
    "cross_entropy_backward",
    "dropout",
    "dropout_backward",
    "empty_memory_pool",
    "explain",
    "get_num_threads",
    "global_avg_pool2d",
    "global_avg_pool2d_backward",
    "im2col",
    "linear",
    "linear_backward",
    "log_softmax",
    "log_softmax_backward",
    "max_pool2d",
    "max_pool2d_backward",
    "memory_pool",
    "relu",
    "relu_backward",
    "set_memory_pool",
    "set_num_threads",
    "sigmoid",
    "sigmoid_backward",
    "softmax",
    "softmax_backward",
    "tanh",
    "tanh_backward",
    "to_device",
    "to_host",
    "use_backend",
    "use_precision",
    "use_stream",
]
