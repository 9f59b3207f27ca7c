"""Average pooling to a given size, until `fastdl.nn` has it."""

from __future__ import annotations

from .. import functional, nn
from ..nn.base import Array


class AdaptiveAvgPool2d(nn.Layer):
    """The means of windows that share the image; arguments as in `fastdl.adaptive_avg_pool2d`."""

    def __init__(self, output_size: int) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, x: Array) -> Array:
        self._saved = x.shape
        return functional.adaptive_avg_pool2d(x, self.output_size)

    def backward(self, grad: Array) -> Array:
        return functional.adaptive_avg_pool2d_backward(grad, self._recall())
