"""im2col and col2im: a thread for each element of the result."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...geometry import ConvGeometry
from .arrays import DeviceArray
from .launch import THREADS, blocks_for, entry, kernel
from .target import cuda, quotient

_WINDOW = "i i i i i i i i i i i i i"


def _integers(g: ConvGeometry) -> tuple[int, ...]:
    return (
        g.channels, g.height, g.width, g.kernel_h, g.kernel_w, g.stride_h, g.stride_w, g.pad_top,
        g.pad_left, g.dilation_h, g.dilation_w, g.out_h, g.out_w,
    )  # fmt: skip


@kernel(f"T* T* i {_WINDOW}")
def unfold(T: Any) -> Any:
    """``out[n, (c*KH + a)*KW + b, i*OW + j] = x[n, c, i*s - p + a*d, j*s - p + b*d]``."""
    zero = T(0)

    def run(
        x, out, count, channels, height, width, kernel_h, kernel_w, stride_h, stride_w, pad_top,
        pad_left, dilation_h, dilation_w, out_h, out_w,
    ):  # fmt: skip
        e = np.int32(cuda.grid(1))
        if e < count:
            above = quotient(e, out_w)
            line = quotient(above, out_h)
            i, j = above - line * out_h, e - above * out_w
            channel_row = quotient(line, kernel_w)
            plane = quotient(channel_row, kernel_h)
            a, b = channel_row - plane * kernel_h, line - channel_row * kernel_w
            row = i * stride_h - pad_top + a * dilation_h
            column = j * stride_w - pad_left + b * dilation_w
            inside = row >= 0 and row < height and column >= 0 and column < width
            out[e] = x[(plane * height + row) * width + column] if inside else zero

    return run


@kernel(f"T* T* i {_WINDOW}")
def fold(T: Any) -> Any:
    """Each pixel's sum over the taps that read it, in their order."""
    zero = T(0)

    def run(
        col, out, count, channels, height, width, kernel_h, kernel_w, stride_h, stride_w, pad_top,
        pad_left, dilation_h, dilation_w, out_h, out_w,
    ):  # fmt: skip
        e = np.int32(cuda.grid(1))
        if e < count:
            above = quotient(e, width)
            plane = quotient(above, height)
            row, column = above - plane * height + pad_top, e - above * width + pad_left
            total = zero
            for a in range(kernel_h):
                y = row - a * dilation_h
                i = quotient(y, stride_h) if y >= 0 else out_h
                if i < out_h and i * stride_h == y:
                    for b in range(kernel_w):
                        z = column - b * dilation_w
                        j = quotient(z, stride_w) if z >= 0 else out_w
                        if j < out_w and j * stride_w == z:
                            line = (plane * kernel_h + a) * kernel_w + b
                            total += col[(line * out_h + i) * out_w + j]
            out[e] = total

    return run


@entry("out")
def im2col(x: DeviceArray, geometry: ConvGeometry, out: DeviceArray) -> None:
    """Copy every window of x to a column of out."""
    unfold(x.dtype)(blocks_for(out.size), THREADS, x, out, out.size, *_integers(geometry))


@entry("out")
def col2im(col: DeviceArray, geometry: ConvGeometry, out: DeviceArray) -> None:
    """Add every column of col to its window of out."""
    fold(col.dtype)(blocks_for(out.size), THREADS, col, out, out.size, *_integers(geometry))
