"""Layers one after another."""

from __future__ import annotations

from ..errors import DTypeError
from .base import Array, Layer


class Sequential(Layer):
    """``f(x) = layer_n(... layer_1(layer_0(x)))``.

    Parameters
    ----------
    *layers : Layer
        In order. Their arrays are named ``"0.weight"``, ``"0.bias"``, ``"1.weight"``, ...

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import nn
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, rng=0), nn.ReLU())
    >>> net(np.ones((5, 1, 2, 2), np.float32)).shape
    (5, 3)
    >>> list(net.state_dict())
    ['1.weight', '1.bias']
    """

    def __init__(self, *layers: Layer) -> None:
        super().__init__()
        for position, layer in enumerate(layers):
            if not isinstance(layer, Layer):
                raise DTypeError(f"layers[{position}] must be a Layer, got {layer!r}")
        self.layers = layers

    def children(self) -> dict[str, Layer]:
        return {str(position): layer for position, layer in enumerate(self.layers)}

    def forward(self, x: Array, training: bool = False) -> Array:
        for layer in self.layers:
            x = layer.forward(x, training)
        return x

    def backward(self, grad: Array) -> Array:
        for layer in reversed(self.layers):
            grad = layer.backward(grad)
        return grad
