"""Neighbouring layers computed together.

A convolution or a normalisation hands its kernel the activation that follows
(while a value is at hand, that costs nothing), and in evaluation a convolution
takes the normalisation that follows into its weights::

    scale = weight_bn / sqrt(var + eps)
    weight' = weight * scale        bias' = (bias - mean) * scale + bias_bn

ReLU and max pooling change places: ``max(relu(x)) = relu(max(x))``. The kernel
before applies ReLU, for nothing; the gradient passes through it after the
pooling, where there are fewer values. Where ReLU comes right after a normalisation,
that one's gradient takes it along.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from .. import functional
from ..backends.gpu import on_device
from ..backends.table import Activation
from ..device import where
from ..functional.on_device import folded
from ..functional.plan import Conv2dPlan
from .activation import Elementwise, ReLU
from .base import Array, Layer
from .bound import Bound
from .conv import Conv2d
from .norm import BatchNorm
from .pooling import MaxPool2d

#: A class of layers.
Kind = TypeVar("Kind", bound=Layer)


class Fused:
    """A convolution, a normalisation, an activation and a pool in this order, not all of them.

    The layers are those of the network and stay whole: each has done its part of
    `forward` when that returns, and its part of `backward`.
    """

    def __init__(
        self,
        conv: Conv2d | None,
        norm: BatchNorm | None,
        activation: Elementwise | None,
        pool: MaxPool2d | None,
    ) -> None:
        self.layers = [layer for layer in (conv, norm, activation, pool) if layer is not None]
        self._conv, self._norm, self._activation, self._pool = conv, norm, activation, pool
        last = norm if norm is not None else conv
        assert last is not None
        self._last: Bound = last
        self._name: Activation = None if activation is None else activation.name
        self._folded = Folded(conv, norm, self._name) if conv and norm else None
        #: What `forward` folded: no layer has seen anything of it.
        self._unseen: Array | None = None

    def has_params(self) -> bool:
        return any(layer.has_params() for layer in self.layers)

    def forward(self, x: Array) -> Array:
        self._unseen = None
        if self._folded is not None and not self._last.training:
            out = self._folded(x)
            if out is not None:
                self._unseen = x
                return out if self._pool is None else self._pool.forward(out)
        if self._conv is not None and self._norm is not None:
            x = self._conv.forward(x)
        if self._activation is None:
            return self._last.forward(x)
        out = self._last.forward_activated(x, self._name)
        if self._pool is not None:
            out = self._pool.forward(out)
        self._activation.keep(out, self._last.kernels)
        return out

    def backward(self, grad: Array) -> Array:
        grad = self._backward_to_conv(grad)
        return grad if self._conv is None else self._conv.backward(grad)

    def backward_params(self, grad: Array) -> None:
        grad = self._backward_to_conv(grad)
        if self._conv is not None:
            self._conv.backward_params(grad)

    def _backward_to_conv(self, grad: Array) -> Array:
        self._see()
        if self._norm is not None and self._pool is None and isinstance(self._activation, ReLU):
            return self._norm.backward_rectified(grad, self._activation.output)
        if self._activation is not None:
            grad = self._activation.backward(grad)
        if self._pool is not None:
            grad = self._pool.backward(grad)
        if self._norm is not None:
            grad = self._norm.backward(grad)
        return grad

    def _see(self) -> None:
        """Let the layers see what was folded: their gradients are asked for."""
        if self._unseen is None:
            return
        x, self._unseen = self._unseen, None
        folded, self._folded = self._folded, None
        try:
            self.forward(x)
        finally:
            self._folded = folded


class Folded:
    """A convolution with the normalisation that follows it in its weights, for evaluation."""

    def __init__(self, conv: Conv2d, norm: BatchNorm, activation: Activation) -> None:
        self._conv, self._norm, self._activation = conv, norm, activation
        self._plan: Conv2dPlan | None = None
        self._sources: list[Array] = []

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_plan": None}

    def __call__(self, x: Array) -> Array | None:
        """The result; None for what is no plain input of the two layers, which will say why."""
        conv, norm = self._conv, self._norm
        if type(conv.weight) is not np.ndarray:
            return self._on_gpu(x)
        if type(x) is not np.ndarray or x.dtype != conv.dtype or conv.dtype != norm.dtype:
            return None
        if conv.weight.shape[0] != norm.channels or x.ndim != 4:
            return None
        sources = [*conv.params.values(), *norm.params.values(), *norm.statistics]
        plan = self._plan
        same = plan is not None and len(sources) == len(self._sources)
        if not same or not all(map(np.array_equal, sources, self._sources)):
            self._sources, plan = [array.copy() for array in sources], None
        if plan is None or not plan.serves(x.shape):
            weight, bias = self._weights()
            plan = Conv2dPlan(x.shape, weight, bias, *conv.geometry, activation=self._activation)
            self._plan = plan
        return plan(x)

    def _on_gpu(self, x: Array) -> Array | None:
        """As a call; there the weights are folded anew each time, which costs little."""
        conv, norm = self._conv, self._norm
        mean, var = norm.statistics
        scale, shift = norm.params.get("weight"), norm.params.get("bias")
        arrays = (conv.weight, conv.bias, mean, var, scale, shift)
        others = [array for array in arrays if array is not None]
        if any(where(array) != where(conv.weight) for array in others) or not on_device(x):
            return None
        if any(array.dtype != conv.dtype for array in others):
            return None
        if conv.weight.shape[0] != norm.channels or x.ndim != 4:
            return None
        weight, bias = folded(*arrays, norm.eps)
        return functional.conv2d(x, weight, bias, *conv.geometry, activation=self._activation)

    def _weights(self) -> tuple[Array, Array]:
        """Weight and bias of the one convolution, computed in float64."""
        conv, norm = self._conv, self._norm
        mean, var = (array.astype(np.float64) for array in norm.statistics)
        with np.errstate(all="ignore"):
            scale = norm.params.get("weight", 1) / np.sqrt(var + norm.eps)
            weight = conv.weight * scale[:, None, None, None]
            bias = ((0 if conv.bias is None else conv.bias) - mean) * scale
            bias = bias + norm.params.get("bias", 0)
            return weight.astype(conv.dtype), bias.astype(conv.dtype)


def grouped(layers: Sequence[Layer]) -> tuple[Layer | Fused, ...]:
    """The layers, neighbours that are computed together in one."""
    groups: list[Layer | Fused] = []
    position = 0

    def take(kind: type[Kind]) -> Kind | None:
        """The layer at the position, which is passed, if it is one of ``kind``."""
        nonlocal position
        layer = layers[position] if position < len(layers) else None
        if not isinstance(layer, kind):
            return None
        position += 1
        return layer

    while position < len(layers):
        start = position
        conv, norm = take(Conv2d), take(BatchNorm)
        activation = take(Elementwise) if conv or norm else None
        pool = take(MaxPool2d) if isinstance(activation, ReLU) else None
        if position - start > 1:
            groups.append(Fused(conv, norm, activation, pool))
        else:
            position = start + 1
            groups.append(layers[start])
    return tuple(groups)
