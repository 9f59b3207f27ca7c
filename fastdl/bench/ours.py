"""fastdl's own backends, as the bench calls them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any

import numpy as np

from .. import functional
from ..backends.table import Array
from .implementation import Call
from .layer import Arrays, Layer, laid_out


def function_of(layer: Layer) -> Callable[..., Any]:
    """The public function with the layer's options: it takes the layer's inputs by name."""
    function = getattr(functional, layer.operation.removesuffix("_train"))
    window: dict[str, Any] = {"stride": layer.stride, "padding": layer.padding}
    shape: dict[str, Any] = {"input_shape": layer.x_shape}
    options: dict[str, Any]
    match layer.operation:
        case "conv2d" | "conv2d_backward":
            options = {**window, "dilation": layer.dilation, "groups": layer.groups}
        case "im2col":
            options = {**window, "dilation": layer.dilation, "kernel_size": layer.kernel}
        case "col2im":
            options = {**window, "dilation": layer.dilation, "kernel_size": layer.kernel}
            options["output_size"] = layer.x_shape[2:]
        case "max_pool2d" | "avg_pool2d":
            options = {**window, "kernel_size": layer.kernel}
        case "avg_pool2d_backward":
            options = {**window, **shape, "kernel_size": layer.kernel}
        case "max_pool2d_backward" | "global_avg_pool2d_backward":
            options = shape
        case "batch_norm_train":
            options = {"training": True}
        case _:
            options = {}
    if layer.activation is not None:
        options["activation"] = layer.activation
    return partial(function, **options)


@dataclass(frozen=True, slots=True)
class Backend:
    """One of fastdl's backends, called as a user would call it."""

    name: str

    def serves(self, layer: Layer) -> bool:
        return True

    def prepare(self, layer: Layer, inputs: Arrays, reuse: bool) -> Call:
        options: dict[str, Any] = {"backend": self.name}
        function = function_of(layer)
        if reuse and "out" in signature(function).parameters:
            options["out"] = laid_out(layer, np.empty(layer.output_shapes[0], np.float32))
        return Call(partial(function, **inputs, **options), as_tuple)


def as_tuple(result: Any) -> tuple[Array, ...]:
    """A call's results, of which there may be one."""
    return result if isinstance(result, tuple) else (result,)
