"""A shortcut around layers."""

from __future__ import annotations

import math

from ..backends import gpu, registry
from ..errors import DTypeError, ShapeError
from ..functional import on_device
from ..functional.inputs import floats
from ..geometry import Shape
from ..memory import empty
from .activation import Elementwise, ReLU
from .arrays import plain
from .base import Array, Layer


class Residual(Layer):
    """``f(x) = activation(body(x) + shortcut(x))``; the shortcut is x itself by default.

    Parameters
    ----------
    body : Layer
        What learns the difference.
    shortcut : Layer, optional
        Where the body changes the shape, such as a strided 1 x 1 convolution.
    activation : Layer, optional
        Applied to the sum, such as a ReLU.

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

    def __init__(
        self, body: Layer, shortcut: Layer | None = None, activation: Layer | None = None
    ) -> None:
        super().__init__()
        if not isinstance(body, Layer):
            raise DTypeError(f"body must be a Layer, got {body!r}")
        for name, layer in (("shortcut", shortcut), ("activation", activation)):
            if not (layer is None or isinstance(layer, Layer)):
                raise DTypeError(f"{name} must be a Layer, got {layer!r}")
        self.body, self.shortcut, self.activation = body, shortcut, activation

    def children(self) -> dict[str, Layer]:
        children = {"body": self.body, "shortcut": self.shortcut, "activation": self.activation}
        return {name: layer for name, layer in children.items() if layer is not None}

    def output_shape(self, shape: Shape) -> Shape:
        out = self.body.output_shape(shape)
        self._check(out, self.shortcut.output_shape(shape) if self.shortcut else shape)
        return out if self.activation is None else self.activation.output_shape(out)

    def flops(self, shape: Shape) -> int:
        return super().flops(shape) + math.prod(self.body.output_shape(shape))

    def parts(self, shape: Shape) -> list[tuple[str, Layer, Shape]]:
        inputs = {"body": shape, "shortcut": shape}
        return [
            (name, layer, inputs.get(name) or self.body.output_shape(shape))
            for name, layer in self.children().items()
        ]

    def forward(self, x: Array) -> Array:
        out = self.body.forward(x)
        around = self.shortcut.forward(x) if self.shortcut else x
        self._check(out.shape, around.shape)
        relu = self.activation if isinstance(self.activation, ReLU) else None
        if relu is not None:
            total = _sum(out, around, relu)
            relu.keep(total, registry.get(None, total))
            return total
        total = _sum(out, around)
        return total if self.activation is None else self.activation.forward(total)

    def backward(self, grad: Array) -> Array:
        if self.activation is not None:
            grad = self.activation.backward(grad)
        through = self.body.backward(grad)
        around = self.shortcut.backward(grad) if self.shortcut else grad
        return _sum(through, around)

    def backward_params(self, grad: Array) -> None:
        if self.activation is not None:
            grad = self.activation.backward(grad)
        self.body.backward_params(grad)
        if self.shortcut is not None:
            self.shortcut.backward_params(grad)

    @staticmethod
    def _check(out: Shape, around: Shape) -> None:
        if out != around:
            raise ShapeError(
                f"the shortcut's result must be shaped as the body's, {out}, got {around}"
            )


def _sum(x: Array, y: Array, activation: Elementwise | None = None) -> Array:
    """``activation(x + y)``, as an array of its own."""
    if gpu.on_device(x):
        name = None if activation is None else activation.name
        return on_device.add(floats("x", x), y, name)  # type: ignore[no-any-return]
    x, y = plain(floats("x", x)), plain(floats("y", y, x.dtype))
    out = empty(x.shape, x.dtype)
    registry.get().add(x, y, None if activation is None else activation.name, out)
    return out
