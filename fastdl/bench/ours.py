"""fastdl's own backends, as the bench calls them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from .. import functional
from ..backends.table import Array
from .implementation import Call
from .layer import Arrays, Layer


def _conv2d(layer: Layer) -> Callable[..., Any]:
    return partial(
        functional.conv2d, stride=layer.stride, padding=layer.padding, groups=layer.groups
    )


def _conv2d_backward(layer: Layer) -> Callable[..., Any]:
    return partial(
        functional.conv2d_backward,
        stride=layer.stride,
        padding=layer.padding,
        groups=layer.groups,
    )


def _im2col(layer: Layer) -> Callable[..., Any]:
    return partial(
        functional.im2col, kernel_size=layer.kernel, padding=layer.padding, stride=layer.stride
    )


def _pool(function: Callable[..., Any]) -> Callable[[Layer], Callable[..., Any]]:
    def bound(layer: Layer) -> Callable[..., Any]:
        return partial(
            function, kernel_size=layer.kernel, stride=layer.stride, padding=layer.padding
        )

    return bound


def _plain(function: Callable[..., Any]) -> Callable[[Layer], Callable[..., Any]]:
    return lambda layer: function


_FUNCTIONS: dict[str, Callable[[Layer], Callable[..., Any]]] = {
    "conv2d": _conv2d,
    "conv2d_backward": _conv2d_backward,
    "im2col": _im2col,
    "max_pool2d": _pool(functional.max_pool2d),
    "avg_pool2d": _pool(functional.avg_pool2d),
    "global_avg_pool2d": _plain(functional.global_avg_pool2d),
    "batch_norm": _plain(functional.batch_norm),
    "relu": _plain(functional.relu),
    "softmax": _plain(functional.softmax),
}


@dataclass(frozen=True, slots=True)
class Backend:
    """One of fastdl's backends, called as a user would call it."""

    name: str

    def serves(self, layer: Layer) -> bool:
        return True

    def prepare(self, layer: Layer, inputs: Arrays, reuse: bool) -> Call:
        options: dict[str, Any] = {"backend": self.name}
        # The backward returns three arrays, and takes no out.
        if reuse and layer.operation != "conv2d_backward":
            options["out"] = np.empty(layer.output_shapes[0], np.float32)
        function = _FUNCTIONS[layer.operation](layer)
        return Call(partial(function, **inputs, **options), _as_tuple)


def _as_tuple(result: Any) -> tuple[Array, ...]:
    return result if isinstance(result, tuple) else (result,)
