"""One layer of a network: its shapes, its work, its random inputs, and a smaller copy of it."""

from __future__ import annotations

import zlib
from dataclasses import asdict, dataclass, replace
from math import prod
from typing import Any, Literal

import numpy as np

from .. import functional
from ..backends.table import Activation, Array
from ..geometry import (
    ConvGeometry,
    PoolGeometry,
    Shape,
    conv_geometry,
    pool_geometry,
    window_geometry,
)

Operation = Literal[
    "conv2d",
    "conv2d_backward",
    "im2col",
    "col2im",
    "max_pool2d",
    "max_pool2d_backward",
    "avg_pool2d",
    "avg_pool2d_backward",
    "global_avg_pool2d",
    "global_avg_pool2d_backward",
    "batch_norm",
    "batch_norm_train",
    "batch_norm_backward",
    "relu",
    "relu_backward",
    "sigmoid",
    "softmax",
]
#: How images lie in memory: NCHW, or NHWC.
Layout = Literal["planes", "channels_last"]
Arrays = dict[str, Array]

#: The classes of layers that a summary speaks of.
KINDS = (
    "3x3 stride 1",
    "1x1",
    "other dense",
    "stem",
    "depthwise",
    "max pool",
    "average pool",
    "batch norm",
    "columns",
    "elementwise",
    "small call",
    "channels-last",
)
#: The name of a class's backward.
BACKWARD = "{}, backward"

_CONVOLUTIONS = ("conv2d", "conv2d_backward")
_WINDOWS = ("im2col", "col2im")
_FLOAT, _INDEX = np.dtype(np.float32), np.dtype(np.int64)
#: Up to this many channels a convolution is a network's first: a stem.
_STEM_CHANNELS = 3
#: With fewer channels or filters, a 3x3 convolution is no longer bound by its arithmetic alone.
_WIDE = 32
#: Below this many operations, a call costs more than its arithmetic.
_SMALL_CALL = 1_000_000


@dataclass(frozen=True, slots=True)
class Layer:
    """One operation on images ``(batch, channels, height, width)``, float32.

    ``kernel``, ``stride``, ``padding`` and ``dilation`` hold for both
    directions. A softmax has height and width 1 and works on ``(batch,
    channels)``. ``activation`` is fused into a convolution or batch norm.
    ``layout`` is that of all images that come and go.
    """

    name: str
    operation: Operation
    batch: int
    channels: int
    height: int = 1
    width: int = 1
    filters: int = 0
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    groups: int = 1
    dilation: int = 1
    activation: Activation = None
    layout: Layout = "planes"

    @property
    def label(self) -> str:
        """The name with the batch: ``resnet50-conv3_3x3@8``."""
        return f"{self.name}@{self.batch}"

    @property
    def forward(self) -> str:
        """The operation, or whose backward it is."""
        if self.operation == "col2im":
            return "im2col"
        return self.operation.removesuffix("_backward").removesuffix("_train")

    @property
    def is_backward(self) -> bool:
        return self.operation == "col2im" or self.operation.endswith("_backward")

    @property
    def kind(self) -> str:
        """The class that it belongs to: of `KINDS`, or the backward of one."""
        kind = self._forward_kind
        return BACKWARD.format(kind) if self.is_backward else kind

    @property
    def _forward_kind(self) -> str:
        if self.layout == "channels_last":
            return "channels-last"
        match self.forward:
            case "conv2d":
                return self._conv_kind
            case "im2col":
                return "columns"
            case "max_pool2d":
                return "max pool"
            case "avg_pool2d" | "global_avg_pool2d":
                return "average pool"
            case "batch_norm":
                return "batch norm"
            case _:
                return "elementwise"

    @property
    def _conv_kind(self) -> str:
        if self.conv.flops < _SMALL_CALL:
            return "small call"
        if self.channels <= _STEM_CHANNELS:
            return "stem"
        if self.groups == self.channels == self.filters:
            return "depthwise"
        dense = self.groups == self.dilation == self.stride == 1
        if dense and self.kernel == 1:
            return "1x1"
        wide = min(self.channels, self.filters) >= _WIDE
        return "3x3 stride 1" if dense and self.kernel == 3 and wide else "other dense"

    @property
    def x_shape(self) -> Shape:
        if self.operation == "softmax":
            return (self.batch, self.channels)
        return (self.batch, self.channels, self.height, self.width)

    @property
    def conv(self) -> ConvGeometry:
        if self.operation in _WINDOWS:
            return window_geometry(
                self.x_shape, self.kernel, self.dilation, self.padding, self.stride
            )
        weight = (self.filters, self.channels // self.groups, self.kernel, self.kernel)
        return conv_geometry(
            self.x_shape, weight, self.stride, self.padding, self.dilation, self.groups
        )

    @property
    def pool(self) -> PoolGeometry:
        return pool_geometry(self.x_shape, self.kernel, self.stride, self.padding)

    @property
    def input_shapes(self) -> dict[str, Shape]:
        """The shape of every array that the operation reads, by argument name."""
        x, per_channel = self.x_shape, (self.channels,)
        match self.operation:
            case "conv2d":
                return {"x": x, "weight": self.conv.weight_shape, "bias": (self.filters,)}
            case "conv2d_backward":
                return {"grad": self.conv.out_shape, "x": x, "weight": self.conv.weight_shape}
            case "col2im":
                return {"col": self.conv.col_shape}
            case "max_pool2d_backward":
                return {"grad": self.pool.out_shape, "indices": self.pool.out_shape}
            case "avg_pool2d_backward":
                return {"grad": self.pool.out_shape}
            case "global_avg_pool2d_backward":
                return {"grad": (self.batch, self.channels, 1, 1)}
            case "batch_norm" | "batch_norm_train":
                running = ("running_mean", "running_var", "weight", "bias")
                return {"x": x, **dict.fromkeys(running, per_channel)}
            case "batch_norm_backward":
                saved = ("mean", "inv_std", "weight")
                return {"grad": x, "x": x, **dict.fromkeys(saved, per_channel)}
            case "relu_backward":
                return {"grad": x, "x": x}
            case _:
                return {"x": x}

    @property
    def output_shapes(self) -> tuple[Shape, ...]:
        """The shape of every array that the operation writes."""
        match self.operation:
            case "conv2d":
                return (self.conv.out_shape,)
            case "conv2d_backward":
                return (self.x_shape, self.conv.weight_shape, (self.filters,))
            case "im2col":
                return (self.conv.col_shape,)
            case "max_pool2d" | "avg_pool2d":
                return (self.pool.out_shape,)
            case "global_avg_pool2d":
                return ((self.batch, self.channels, 1, 1),)
            case "batch_norm_backward":
                return (self.x_shape, (self.channels,), (self.channels,))
            case _:
                return (self.x_shape,)

    @property
    def flops(self) -> int:
        """Arithmetic of the direct algorithm: each addition, product, comparison counts one.

        The backward of a convolution is two convolutions of the same size.
        im2col only moves.
        """
        outputs = sum(map(prod, self.output_shapes))
        inputs = sum(map(prod, self.input_shapes.values()))
        fused = outputs if self.activation else 0
        match self.operation:
            case "conv2d":
                return self.conv.flops + fused
            case "conv2d_backward":
                return 2 * self.conv.flops
            case "im2col":
                return 0
            case "col2im" | "global_avg_pool2d":
                return inputs
            case "max_pool2d" | "avg_pool2d":
                return outputs * self.kernel**2
            case "max_pool2d_backward":
                return prod(self.pool.out_shape)
            case "avg_pool2d_backward":
                return prod(self.pool.out_shape) * self.kernel**2
            case "batch_norm":
                return 2 * outputs + fused
            case "batch_norm_train":  # the mean, the mean square of the deviations, the result
                return (1 + 3 + 2) * outputs + fused
            case "batch_norm_backward":  # two sums, and the gradient
                return (1 + 3 + 4) * prod(self.x_shape)
            case "softmax" | "sigmoid":
                return 4 * outputs
            case "relu" | "relu_backward" | "global_avg_pool2d_backward":
                return outputs

    @property
    def bytes_read(self) -> int:
        """Each input read once: no algorithm avoids it."""
        return sum(
            prod(shape) * (_INDEX if name == "indices" else _FLOAT).itemsize
            for name, shape in self.input_shapes.items()
        )

    @property
    def bytes_written(self) -> int:
        """Each output written once: no algorithm avoids it."""
        return sum(map(prod, self.output_shapes)) * _FLOAT.itemsize

    @property
    def nbytes(self) -> int:
        """All memory traffic that no algorithm avoids."""
        return self.bytes_read + self.bytes_written

    @property
    def counts_flops(self) -> bool:
        """Whether its speed is told in FLOP/s (convolutions) or in B/s (all else)."""
        return self.operation in _CONVOLUTIONS

    @property
    def work(self) -> int:
        """What its time is proportional to: flops, or bytes."""
        return self.flops if self.counts_flops else self.nbytes

    def describe(self) -> dict[str, Any]:
        """The fields, for a report."""
        return asdict(self) | {
            "label": self.label,
            "kind": self.kind,
            "flops": self.flops,
            "bytes_read": self.bytes_read,
            "bytes_written": self.bytes_written,
        }

    @property
    def shapes(self) -> str:
        """The input's shape and the filters: ``8x128x28x28 -> 128``."""
        shape = "x".join(map(str, self.x_shape))
        return f"{shape} -> {self.filters}" if self.operation in _CONVOLUTIONS else shape

    def __str__(self) -> str:
        shape = self.shapes
        if self.kernel > 1 or self.operation in _CONVOLUTIONS:
            shape += f", {self.kernel}x{self.kernel}"
        for word, value, usual in (
            ("stride", self.stride, 1),
            ("padding", self.padding, 0),
            ("dilation", self.dilation, 1),
            ("groups", self.groups, 1),
        ):
            if value != usual:
                shape += f", {word} {value}"
        if self.layout == "channels_last":
            shape += ", channels-last"
        fused = f" + {self.activation}" if self.activation else ""
        return f"{self.operation}{fused} {shape}"


def random_inputs(layer: Layer) -> Arrays:
    """Normal float32 inputs, the same for the same layer.

    Weights of convolutions are scaled by 1/sqrt(taps), so that outputs have a
    deviation near 1. What a forward call would have left for the backward
    (indices, statistics) is such a call's.
    """
    rng = np.random.default_rng(zlib.crc32(layer.label.encode()))
    arrays = {
        name: rng.standard_normal(shape, dtype=np.float32)
        for name, shape in layer.input_shapes.items()
        if name != "indices"
    }
    match layer.operation:
        case "conv2d" | "conv2d_backward":
            arrays["weight"] /= np.float32(np.sqrt(prod(layer.conv.weight_shape[1:])))
        case "batch_norm" | "batch_norm_train":
            arrays["running_var"] = np.abs(arrays["running_var"]) + np.float32(0.5)
        case "batch_norm_backward":
            arrays["mean"] = arrays["x"].mean((0, 2, 3))
            arrays["inv_std"] = np.float32(1) / arrays["x"].std((0, 2, 3))
        case "max_pool2d_backward":
            x = rng.standard_normal(layer.x_shape, dtype=np.float32)
            _, arrays["indices"] = functional.max_pool2d(
                x, layer.kernel, layer.stride, layer.padding, return_indices=True
            )
    return {
        name: array if name == "weight" else laid_out(layer, array)
        for name, array in arrays.items()
    }


def laid_out(layer: Layer, array: Array) -> Array:
    """``array`` as the layer has its images in memory; what is no image stays as it is."""
    if layer.layout == "planes" or array.ndim != 4:
        return array
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def scaled_down(layer: Layer, work: int) -> Layer:
    """A smaller layer of the same kind, with at most about ``work`` flops or bytes.

    The batch goes first, then the image (down to 8 or twice the kernel), then
    filters and channels (down to 8): what is left still has the layer's kernel,
    stride, padding and dilation.
    """
    small = layer
    while small.work > work:
        smaller = _halved(small)
        if smaller is None:
            break
        small = smaller
    return small


def _halved(layer: Layer) -> Layer | None:
    smallest = max(8, 2 * layer.dilation * layer.kernel)
    if layer.batch > 1:
        return replace(layer, batch=layer.batch // 2)
    height, width = (n // 2 if n // 2 >= smallest else n for n in (layer.height, layer.width))
    if (height, width) != (layer.height, layer.width):
        return replace(layer, height=height, width=width)
    if layer.groups > 8 and layer.groups % 2 == 0:
        return replace(
            layer,
            channels=layer.channels // 2,
            filters=layer.filters // 2,
            groups=layer.groups // 2,
        )
    if layer.filters > 8 * layer.groups and layer.filters % (2 * layer.groups) == 0:
        return replace(layer, filters=layer.filters // 2)
    if layer.channels > 8 * layer.groups and layer.channels % (2 * layer.groups) == 0:
        return replace(layer, channels=layer.channels // 2)
    return None
