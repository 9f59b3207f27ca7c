"""Layers small enough for a test, one of each operation; a machine that needs no measuring."""

from dataclasses import replace

from fastdl.bench.layer import Layer
from fastdl.bench.limits import Limit, Limits

CONV = Layer("tiny-conv", "conv2d", 2, 4, 9, 9, filters=6, kernel=3, stride=2, padding=1, groups=2)
BACKWARD = Layer("tiny-backward", "conv2d_backward", 1, 3, 6, 6, filters=4, kernel=3, padding=1)
DILATED = Layer(
    "tiny-dilated", "conv2d", 1, 3, 9, 7, filters=2, kernel=3, padding=2, dilation=2,
    activation="relu",
)  # fmt: skip
IM2COL = Layer("tiny-im2col", "im2col", 1, 2, 6, 6, kernel=3, padding=1)
COL2IM = Layer("tiny-col2im", "col2im", 1, 2, 6, 5, kernel=3, padding=1, stride=2)
MAX_POOL = Layer("tiny-max", "max_pool2d", 2, 3, 7, 7, kernel=3, stride=2, padding=1)
AVG_POOL = Layer("tiny-avg", "avg_pool2d", 1, 2, 7, 7, kernel=3, stride=2, padding=1)
MAX_BACKWARD = replace(MAX_POOL, name="tiny-max_backward", operation="max_pool2d_backward")
AVG_BACKWARD = replace(AVG_POOL, name="tiny-avg_backward", operation="avg_pool2d_backward")
GLOBAL = Layer("tiny-global", "global_avg_pool2d", 2, 3, 5, 5)
NORM = Layer("tiny-norm", "batch_norm", 2, 3, 4, 4)
GLOBAL_BACKWARD = replace(GLOBAL, operation="global_avg_pool2d_backward")
NORM_RELU = replace(NORM, name="tiny-norm_relu", activation="relu")
NORM_TRAIN = replace(NORM, name="tiny-norm_train", operation="batch_norm_train")
NORM_BACKWARD = replace(NORM, name="tiny-norm_backward", operation="batch_norm_backward")
RELU = Layer("tiny-relu", "relu", 2, 3, 4, 4)
RELU_BACKWARD = replace(RELU, name="tiny-relu_backward", operation="relu_backward")
SIGMOID = replace(RELU, name="tiny-sigmoid", operation="sigmoid")
CHANNELS_LAST = replace(CONV, name="tiny-conv_nhwc", layout="channels_last")
CHANNELS_LAST_BACKWARD = replace(MAX_BACKWARD, name="tiny-max_nhwc", layout="channels_last")
SOFTMAX = Layer("tiny-softmax", "softmax", 3, 10)

IN_ONNX = (CONV, DILATED, MAX_POOL, AVG_POOL, GLOBAL, NORM, NORM_RELU, RELU, SIGMOID, SOFTMAX)
EVERY = (
    *IN_ONNX, BACKWARD, IM2COL, COL2IM, MAX_BACKWARD, AVG_BACKWARD, GLOBAL_BACKWARD,
    NORM_TRAIN, NORM_BACKWARD, RELU_BACKWARD, CHANNELS_LAST, CHANNELS_LAST_BACKWARD,
)  # fmt: skip

LIMITS = Limits(
    Limit(1, 100e9, 10e9, 10e9, 10e9), Limit(2, 200e9, read=15e9, copy=20e9, write=12e9), "made up"
)
