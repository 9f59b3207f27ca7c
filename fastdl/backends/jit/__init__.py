"""The jit backend: kernels in Numba, compiled upon their first call and kept on disk.

Read `gemm` and `winograd` for the convolution, `microkernel` for what they are built on, `windows`
for depthwise convolution and pools, `pool` for the threads.
"""

from ..common import batch_norm_track
from ..reference.linear import linear, linear_grad_input, linear_grad_weight
from .activation import add, relu, relu_backward, sigmoid, sigmoid_backward, tanh, tanh_backward
from .columns import col2im, im2col
from .conv import (
    conv2d,
    conv2d_algorithms,
    conv2d_bytes,
    conv2d_grad_bias,
    conv2d_grad_input,
    conv2d_grad_weight,
    conv2d_prepared,
)
from .dropout import dropout
from .norm import batch_norm_backward, batch_norm_train, normalize
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

ordinary_conv2d = remember_conv2d = None
ordinary_activation = ordinary_normalize = ordinary_softmax = None

__all__ = [
    "CHANNELS_LAST",
    "DENSE",
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
]
