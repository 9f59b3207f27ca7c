"""The compiled kernels: C++ from src_kernels/, built for several instruction sets.

Importing this package picks the best set that the processor and the operating
system support; FASTDL_ISA names a lower one.
"""

import os

from . import isa
from ._kernels import PreparedConv2d as conv2d_prepared
from ._kernels import (
    adaptive_avg_pool2d,
    adaptive_avg_pool2d_backward,
    add,
    avg_pool2d,
    avg_pool2d_backward,
    batch_norm_backward,
    batch_norm_track,
    batch_norm_train,
    col2im,
    conv2d,
    conv2d_algorithms,
    conv2d_bytes,
    conv2d_grad_bias,
    conv2d_grad_input,
    conv2d_grad_weight,
    dropout,
    im2col,
    linear,
    linear_grad_input,
    linear_grad_weight,
    log_softmax,
    log_softmax_backward,
    max_pool2d,
    max_pool2d_backward,
    normalize,
    optimizer_step,
    ordinary_activation,
    ordinary_conv2d,
    ordinary_normalize,
    ordinary_softmax,
    relu,
    relu_backward,
    remember_conv2d,
    sigmoid,
    sigmoid_backward,
    softmax,
    softmax_backward,
    sum_of_squares,
    tanh,
    tanh_backward,
)

DENSE = True
CHANNELS_LAST = frozenset(
    {
        "adaptive_avg_pool2d",
        "adaptive_avg_pool2d_backward",
        "avg_pool2d",
        "avg_pool2d_backward",
        "batch_norm_backward",
        "batch_norm_train",
        "conv2d",
        "conv2d_grad_bias",
        "conv2d_grad_input",
        "conv2d_grad_weight",
        "max_pool2d",
        "max_pool2d_backward",
        "normalize",
    }
)

isa.select_isa(os.environ.get("FASTDL_ISA") or isa.supported_isas()[-1], source="FASTDL_ISA")

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
