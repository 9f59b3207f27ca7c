"""Layers: each computes its output, and from its output's gradient its input's.

A layer holds NumPy arrays and calls `fastdl.functional`; which backend
computes, `fastdl.use_backend` decides. Names of parameters are PyTorch's.
"""

from .activation import ReLU, Sigmoid, Tanh
from .base import Layer
from .conv import Conv2d
from .dropout import Dropout
from .flatten import Flatten
from .init import he_normal, he_uniform, xavier_normal, xavier_uniform
from .linear import Linear
from .loss import CrossEntropyLoss
from .norm import BatchNorm2d
from .pooling import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from .sequential import Residual, Sequential

__all__ = [
    "AvgPool2d",
    "BatchNorm2d",
    "Conv2d",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "GlobalAvgPool2d",
    "Layer",
    "Linear",
    "MaxPool2d",
    "ReLU",
    "Residual",
    "Sequential",
    "Sigmoid",
    "Tanh",
    "he_normal",
    "he_uniform",
    "xavier_normal",
    "xavier_uniform",
]
