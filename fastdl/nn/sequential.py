"""Layers one after another, and a shortcut around them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ArgumentError, DTypeError, ShapeError
from .base import Array, Layer


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

    def children(self) -> dict[str, Layer]:
        return dict(zip(self.names, self.layers, strict=True))

    def forward(self, x: Array) -> Array:
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, grad: Array) -> Array:
        for layer in reversed(self.layers):
            grad = layer.backward(grad)
        return grad


class Residual(Layer):
    """``f(x) = body(x) + shortcut(x)``, where the shortcut is x itself by default.

    Parameters
    ----------
    body : Layer
        What learns the difference.
    shortcut : Layer, optional
        Where the body changes the shape, such as a strided 1 x 1 convolution.

    Raises
    ------
    DTypeError
        If one is not a Layer.

    References
    ----------
    He, Zhang, Ren and Sun, "Deep residual learning for image recognition", CVPR
    2016, section 3.2.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import nn
    >>> nn.Residual(nn.ReLU())(np.array([-1.0, 2.0]))
    array([-1.,  4.])
    """

    def __init__(self, body: Layer, shortcut: Layer | None = None) -> None:
        super().__init__()
        for name, layer in (("body", body), ("shortcut", shortcut)):
            if not (isinstance(layer, Layer) or (layer is None and name == "shortcut")):
                raise DTypeError(f"{name} must be a Layer, got {layer!r}")
        self.body, self.shortcut = body, shortcut

    def children(self) -> dict[str, Layer]:
        return {"body": self.body} | ({"shortcut": self.shortcut} if self.shortcut else {})

    def forward(self, x: Array) -> Array:
        out = self.body.forward(x)
        around = self.shortcut.forward(x) if self.shortcut else x
        if out.shape != around.shape:
            raise ShapeError(
                f"the shortcut's result must be shaped as the body's, {out.shape}, "
                f"got {around.shape}"
            )
        return out + around

    def backward(self, grad: Array) -> Array:
        through = self.body.backward(grad)
        return through + (self.shortcut.backward(grad) if self.shortcut else grad)
