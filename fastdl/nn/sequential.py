"""Layers one after another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ArgumentError, DTypeError
from ..geometry import Shape
from .base import Array, Layer
from .fused import grouped


class Sequential(Layer):
    """``f(x) = layer_n(... layer_1(layer_0(x)))``.

    Parameters
    ----------
    *layers : Layer, or one mapping of str to Layer
        In order. Their arrays are named ``"0.weight"``, ``"0.bias"``, ``"1.weight"``, ...,
        or with the mapping's keys in place of the numbers.

    Raises
    ------
    DTypeError
        If one is not a Layer.
    ArgumentError
        If a name is empty or has a dot in it.

    Notes
    -----
    Neighbours that one kernel can serve are computed together, with the same
    result to rounding; see `fastdl.nn.fused`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import nn
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, rng=0), nn.ReLU())
    >>> net(np.ones((5, 1, 2, 2), np.float32)).shape
    (5, 3)
    >>> list(net.state_dict())
    ['1.weight', '1.bias']
    >>> list(nn.Sequential({"head": nn.Linear(4, 3, rng=0)}).state_dict())
    ['head.weight', 'head.bias']
    """

    def __init__(self, *layers: Layer | Mapping[str, Layer]) -> None:
        super().__init__()
        if len(layers) == 1 and isinstance(layers[0], Mapping):
            named: dict[str, Any] = dict(layers[0])
        else:
            named = {str(position): layer for position, layer in enumerate(layers)}
        for name, layer in named.items():
            if not isinstance(layer, Layer):
                raise DTypeError(f"layers[{name}] must be a Layer, got {layer!r}")
            if not name or "." in name:
                raise ArgumentError(f"a layer's name must be a word without dots, got {name!r}")
        self.names = tuple(named)
        self.layers = tuple(named.values())
        self._groups = grouped(self.layers)

    def children(self) -> dict[str, Layer]:
        return dict(zip(self.names, self.layers, strict=True))

    def output_shape(self, shape: Shape) -> Shape:
        for layer in self.layers:
            shape = layer.output_shape(shape)
        return shape

    def parts(self, shape: Shape) -> list[tuple[str, Layer, Shape]]:
        parts = []
        for name, layer in zip(self.names, self.layers, strict=True):
            parts.append((name, layer, shape))
            shape = layer.output_shape(shape)
        return parts

    def forward(self, x: Array) -> Array:
        for group in self._groups:
            x = group.forward(x)
        return x

    def backward(self, grad: Array) -> Array:
        for group in reversed(self._groups):
            grad = group.backward(grad)
        return grad

    def backward_params(self, grad: Array) -> None:
        first = next((i for i, group in enumerate(self._groups) if group.has_params()), None)
        if first is None:
            return
        for group in reversed(self._groups[first + 1 :]):
            grad = group.backward(grad)
        self._groups[first].backward_params(grad)
