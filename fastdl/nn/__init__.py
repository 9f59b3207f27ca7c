"""Layers: each computes its output, and from its output's gradient its input's.

A layer holds NumPy arrays and calls the kernels; which backend computes,
`fastdl.use_backend` decides. After `Layer.to` its arrays are a GPU's. Names of layers, arguments and parameters are PyTorch's.
"""

from . import init
from .activation import LeakyReLU, ReLU, Sigmoid, Softmax, Tanh
from .base import Layer
from .conv import Conv2d
from .conv_transpose import ConvTranspose2d
from .dropout import Dropout
from .flatten import Flatten
from .init import he_normal, he_uniform, xavier_normal, xavier_uniform
from .linear import Linear
from .local_response_norm import LocalResponseNorm
from .loss import BCEWithLogitsLoss, CrossEntropyLoss, Loss, MSELoss
from .norm import BatchNorm1d, BatchNorm2d
from .pooling import AdaptiveAvgPool2d, AvgPool2d, GlobalAvgPool2d, MaxPool2d
from .residual import Residual
from .sequential import Sequential
from .summary import Summary

__all__ = [
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "BCEWithLogitsLoss",
    "BatchNorm1d",
    "BatchNorm2d",
    "Conv2d",
    "ConvTranspose2d",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "GlobalAvgPool2d",
    "Layer",
    "LeakyReLU",
    "Linear",
    "LocalResponseNorm",
    "Loss",
    "MSELoss",
    "MaxPool2d",
    "ReLU",
    "Residual",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Summary",
    "Tanh",
    "he_normal",
    "he_uniform",
    "init",
    "xavier_normal",
    "xavier_uniform",
]
