"""The cuda backend: kernels in numba.cuda for an NVIDIA GPU, and arrays in its memory.

Read `launch` for how a kernel is written, `gemm` for the convolution, `norm` for the reductions.
"""

from ..common import prepared_by, untold_bytes
from .arrays import DeviceArray, to_device, to_host
from .columns import col2im, im2col
from .conv import (
    conv2d,
    conv2d_algorithms,
    conv2d_grad_bias,
    conv2d_grad_input,
    conv2d_grad_weight,
)
from .elementwise import (
    add,
    dropout,
    relu,
    relu_backward,
    sigmoid,
    sigmoid_backward,
    tanh,
    tanh_backward,
)
from .layers import linear, linear_grad_input, linear_grad_weight
from .memory import free as free_memory
from .norm import batch_norm_backward, batch_norm_track, batch_norm_train, normalize
from .optimizer import optimizer_step, sum_of_squares
from .pooling import (
    adaptive_avg_pool2d,
    adaptive_avg_pool2d_backward,
    avg_pool2d,
    avg_pool2d_backward,
    max_pool2d,
    max_pool2d_backward,
)
from .softmax import log_softmax, log_softmax_backward, softmax, softmax_backward

DENSE = True
CHANNELS_LAST: frozenset[str] = frozenset()

conv2d_bytes = untold_bytes
conv2d_prepared = prepared_by(conv2d)
ordinary_conv2d = remember_conv2d = None
ordinary_activation = ordinary_normalize = ordinary_softmax = None

__all__ = [
    "CHANNELS_LAST",
    "DENSE",
    "DeviceArray",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool2d_backward",
    "add",
    "avg_pool2d",
    "avg_pool2d_backward",
    "batch_norm_backward",
    "batch_norm_track",
    "batch_norm_train",
    "col2im",
    "conv2d",
    "conv2d_algorithms",
    "conv2d_bytes",
    "conv2d_grad_bias",
    "conv2d_grad_input",
    "conv2d_grad_weight",
    "conv2d_prepared",
    "dropout",
    "free_memory",
    "im2col",
    "linear",
    "linear_grad_input",
    "linear_grad_weight",
    "log_softmax",
    "log_softmax_backward",
    "max_pool2d",
    "max_pool2d_backward",
    "normalize",
    "optimizer_step",
    "ordinary_activation",
    "ordinary_conv2d",
    "ordinary_normalize",
    "ordinary_softmax",
    "relu",
    "relu_backward",
    "remember_conv2d",
    "sigmoid",
    "sigmoid_backward",
    "softmax",
    "softmax_backward",
    "sum_of_squares",
    "tanh",
    "tanh_backward",
    "to_device",
    "to_host",
]
