"""One layer of a network: its shapes, its work, its random inputs, and a smaller copy of it."""

from __future__ import annotations

import zlib
from dataclasses import asdict, dataclass, replace
from math import prod
from typing import Any, Literal

import numpy as np

from ..backends.table import Array
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
    "max_pool2d",
    "avg_pool2d",
    "global_avg_pool2d",
    "batch_norm",
    "relu",
    "softmax",
]
Arrays = dict[str, Array]

_CONVOLUTIONS = ("conv2d", "conv2d_backward")
_POOLS = ("max_pool2d", "avg_pool2d")


@dataclass(frozen=True, slots=True)
class Layer:
    """One operation on images ``(batch, channels, height, width)``, float32.

    ``kernel``, ``stride`` and ``padding`` hold for both directions. A softmax
    has height and width 1 and works on ``(batch, channels)``.
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

    @property
    def label(self) -> str:
        """The name with the batch: ``resnet50-conv3_3x3@8``."""
        return f"{self.name}@{self.batch}"

    @property
    def x_shape(self) -> Shape:
        if self.operation == "softmax":
            return (self.batch, self.channels)
        return (self.batch, self.channels, self.height, self.width)

    @property
    def conv(self) -> ConvGeometry:
        if self.operation == "im2col":
            return window_geometry(self.x_shape, self.kernel, 1, self.padding, self.stride)
        weight = (self.filters, self.channels // self.groups, self.kernel, self.kernel)
        return conv_geometry(self.x_shape, weight, self.stride, self.padding, 1, self.groups)

    @property
    def pool(self) -> PoolGeometry:
        return pool_geometry(self.x_shape, self.kernel, self.stride, self.padding)

    @property
    def input_shapes(self) -> dict[str, Shape]:
        """The shape of every array that the operation reads, by argument name."""
        shapes = {"x": self.x_shape}
        if self.operation in _CONVOLUTIONS:
            shapes["weight"] = self.conv.weight_shape
        if self.operation == "conv2d":
            shapes["bias"] = (self.filters,)
        if self.operation == "conv2d_backward":
            shapes["grad"] = self.conv.out_shape
        if self.operation == "batch_norm":
            per_channel = (self.channels,)
            shapes |= dict.fromkeys(("running_mean", "running_var", "weight", "bias"), per_channel)
        return shapes

    @property
    def output_shapes(self) -> tuple[Shape, ...]:
        """The shape of every array that the operation writes."""
        if self.operation == "conv2d":
            return (self.conv.out_shape,)
        if self.operation == "conv2d_backward":
            return (self.x_shape, self.conv.weight_shape, (self.filters,))
        if self.operation == "im2col":
            return (self.conv.col_shape,)
        if self.operation in _POOLS:
            return (self.pool.out_shape,)
        if self.operation == "global_avg_pool2d":
            return ((self.batch, self.channels, 1, 1),)
        return (self.x_shape,)

    @property
    def flops(self) -> int:
        """Arithmetic of the direct algorithm: each addition, product, comparison counts one.

        The backward of a convolution is two convolutions of the same size.
        im2col only moves.
        """
        outputs = sum(map(prod, self.output_shapes))
        match self.operation:
            case "conv2d":
                return self.conv.flops
            case "conv2d_backward":
                return 2 * self.conv.flops
            case "im2col":
                return 0
            case "max_pool2d" | "avg_pool2d":
                return outputs * self.kernel**2
            case "global_avg_pool2d":
                return prod(self.x_shape)
            case "batch_norm":
                return 2 * outputs
            case "softmax":
                return 4 * outputs
            case "relu":
                return outputs

    @property
    def nbytes(self) -> int:
        """Memory traffic that no algorithm avoids: each input read once, each output written once."""
        shapes = [*self.input_shapes.values(), *self.output_shapes]
        return 4 * sum(map(prod, shapes))

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
        return asdict(self) | {"label": self.label, "flops": self.flops, "bytes": self.nbytes}

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
            ("groups", self.groups, 1),
        ):
            if value != usual:
                shape += f", {word} {value}"
        return f"{self.operation} {shape}"


def random_inputs(layer: Layer) -> Arrays:
    """Normal float32 inputs, the same for the same layer.

    Weights are scaled by 1/sqrt(taps), so that outputs have a deviation near 1.
    """
    rng = np.random.default_rng(zlib.crc32(layer.label.encode()))
    arrays = {
        name: rng.standard_normal(shape, dtype=np.float32)
        for name, shape in layer.input_shapes.items()
    }
    if layer.operation in _CONVOLUTIONS:
        arrays["weight"] /= np.float32(np.sqrt(prod(layer.conv.weight_shape[1:])))
    if layer.operation == "batch_norm":
        arrays["running_var"] = np.abs(arrays["running_var"]) + np.float32(0.5)
    return arrays


def scaled_down(layer: Layer, work: int) -> Layer:
    """A smaller layer of the same kind, with at most about ``work`` flops or bytes.

    The batch goes first, then the image (down to 8 or twice the kernel), then
    filters and channels (down to 8): what is left still has the layer's kernel,
    stride and padding.
    """
    small = layer
    while small.work > work:
        smaller = _halved(small)
        if smaller is None:
            break
        small = smaller
    return small


def _halved(layer: Layer) -> Layer | None:
    smallest = max(8, 2 * layer.kernel)
    if layer.batch > 1:
        return replace(layer, batch=layer.batch // 2)
    if layer.height // 2 >= smallest:
        return replace(layer, height=layer.height // 2, width=layer.width // 2)
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
