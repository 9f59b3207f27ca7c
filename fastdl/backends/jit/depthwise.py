"""Convolution with one channel a group: no sum over channels, so nothing for a matrix product.

A task is one plane. Windows of one output row are done side by side: for each tap, one pass over
the row, which stays in the first-level cache. With M = O/C filters a channel, filter o reads
channel o // M.
"""

from __future__ import annotations

import numpy as np

from ...geometry import ConvGeometry
from ..table import Array
from .activation import activate
from .arrays import dense, planes
from .columns import Window, window
from .compiling import compiled, reduction
from .pool import run
from .spans import span


@compiled
def _forward(
    start: int, stop: int, x: Array, weight: Array, bias: Array, sizes: Window, activation: int,
    out: Array,
) -> None:  # fmt: skip
    """X (N, C, H, W), weight (O, KH, KW), out (N, O, OH, OW)."""
    kernel_h, kernel_w, stride_h, stride_w, top, left, dilation_h, dilation_w = sizes
    _, channels, height, width = x.shape
    _, filters, out_h, out_w = out.shape
    for task in range(start, stop):
        n, o = task // filters, task % filters
        image = x[n, o // (filters // channels)]
        for i in range(out_h):
            result = out[n, o, i]
            result[:] = bias[o]
            for tap in range(kernel_h * kernel_w):
                a, b = tap // kernel_w, tap % kernel_w
                row, offset = i * stride_h - top + a * dilation_h, b * dilation_w - left
                first, last = span(width, out_w, stride_w, offset)
                if not 0 <= row < height or first == last:
                    continue
                source = image[row, first * stride_w + offset :]
                inside = result[first:last]
                factor = weight[o, a, b]
                if stride_w == 1:
                    for j in range(inside.size):
                        inside[j] += factor * source[j]
                else:
                    for j in range(inside.size):
                        inside[j] += factor * source[j * stride_w]
            activate(activation, result)


@compiled
def _backward_input(
    start: int, stop: int, grad: Array, weight: Array, sizes: Window, out: Array
) -> None:
    """Grad (N, O, OH, OW), weight (O, KH, KW), out (N, C, H, W)."""
    kernel_h, kernel_w, stride_h, stride_w, top, left, dilation_h, dilation_w = sizes
    _, channels, height, width = out.shape
    _, filters, out_h, out_w = grad.shape
    multiplier = filters // channels
    for task in range(start, stop):
        n, c = task // channels, task % channels
        result = out[n, c]
        result[:, :] = out.dtype.type(0)
        for o in range(c * multiplier, (c + 1) * multiplier):
            for tap in range(kernel_h * kernel_w):
                a, b = tap // kernel_w, tap % kernel_w
                row_offset, offset = a * dilation_h - top, b * dilation_w - left
                first_row, last_row = span(height, out_h, stride_h, row_offset)
                first, last = span(width, out_w, stride_w, offset)
                if first == last:
                    continue
                factor = weight[o, a, b]
                for i in range(first_row, last_row):
                    source = grad[n, o, i, first:last]
                    target = result[i * stride_h + row_offset, first * stride_w + offset :]
                    if stride_w == 1:
                        for j in range(source.size):
                            target[j] += factor * source[j]
                    else:
                        for j in range(source.size):
                            target[j * stride_w] += factor * source[j]


@reduction
def _strided_dot(a: Array, b: Array, stride: int) -> float:
    """Sum of a[j] * b[j * stride]."""
    result = 0.0
    if stride == 1:
        for j in range(a.size):
            result += np.float64(a[j]) * np.float64(b[j])
    else:
        for j in range(a.size):
            result += np.float64(a[j]) * np.float64(b[j * stride])
    return result


@compiled
def _backward_weight(
    start: int, stop: int, grad: Array, x: Array, sizes: Window, out: Array
) -> None:
    """Grad (N, O, OH, OW), x (N, C, H, W), out (O, KH, KW): a task is one filter."""
    kernel_h, kernel_w, stride_h, stride_w, top, left, dilation_h, dilation_w = sizes
    batch, channels, height, width = x.shape
    _, filters, out_h, out_w = grad.shape
    sums = np.empty(kernel_h * kernel_w, np.float64)
    for o in range(start, stop):
        c = o // (filters // channels)
        sums[:] = 0.0
        for n in range(batch):
            for tap in range(kernel_h * kernel_w):
                row_offset = tap // kernel_w * dilation_h - top
                offset = tap % kernel_w * dilation_w - left
                first_row, last_row = span(height, out_h, stride_h, row_offset)
                first, last = span(width, out_w, stride_w, offset)
                if first == last:
                    continue
                for i in range(first_row, last_row):
                    source = x[n, c, i * stride_h + row_offset, first * stride_w + offset :]
                    sums[tap] += _strided_dot(grad[n, o, i, first:last], source, stride_w)
        for tap in range(kernel_h * kernel_w):
            out[o, tap // kernel_w, tap % kernel_w] = sums[tap]


def forward(
    x: Array, weight: Array, bias: Array, geometry: ConvGeometry, activation: int, out: Array
) -> None:
    """``out[o, i, j] = f(bias[o] + sum of x[o // M] * weight[o] over the window)``."""
    g = geometry
    run(
        _forward, g.batch * g.filters, g.flops // 4, dense(x), planes(weight), bias, window(g),
        activation, out,
    )  # fmt: skip


def backward_input(grad: Array, weight: Array, geometry: ConvGeometry, out: Array) -> None:
    """Gradient of `forward` with respect to x."""
    g = geometry
    run(
        _backward_input, g.batch * g.channels, g.flops // 4, dense(grad), planes(weight),
        window(g), out,
    )  # fmt: skip


def backward_weight(grad: Array, x: Array, geometry: ConvGeometry, out: Array) -> None:
    """Gradient of `forward` with respect to weight."""
    g = geometry
    run(
        _backward_weight, g.filters, g.flops // 4, dense(grad), dense(x), window(g), planes(out)
    )  # fmt: skip
