"""Layers small enough for a test, one of each operation; a machine that needs no measuring."""

from fastdl.bench.layer import Layer
from fastdl.bench.limits import Limit, Limits

CONV = Layer("tiny-conv", "conv2d", 2, 4, 9, 9, filters=6, kernel=3, stride=2, padding=1, groups=2)
BACKWARD = Layer("tiny-backward", "conv2d_backward", 1, 3, 6, 6, filters=4, kernel=3, padding=1)
IM2COL = Layer("tiny-im2col", "im2col", 1, 2, 6, 6, kernel=3, padding=1)
MAX_POOL = Layer("tiny-max", "max_pool2d", 2, 3, 7, 7, kernel=3, stride=2, padding=1)
AVG_POOL = Layer("tiny-avg", "avg_pool2d", 1, 2, 7, 7, kernel=3, stride=2, padding=1)
GLOBAL = Layer("tiny-global", "global_avg_pool2d", 2, 3, 5, 5)
NORM = Layer("tiny-norm", "batch_norm", 2, 3, 4, 4)
RELU = Layer("tiny-relu", "relu", 2, 3, 4, 4)
SOFTMAX = Layer("tiny-softmax", "softmax", 3, 10)

EVERY = (CONV, BACKWARD, IM2COL, MAX_POOL, AVG_POOL, GLOBAL, NORM, RELU, SOFTMAX)

LIMITS = Limits(Limit(1, 100e9, 10e9), Limit(2, 200e9, 15e9), "made up")
