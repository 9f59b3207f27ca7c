"""im2col and col2im: a task is one channel of one image."""

from __future__ import annotations

from ...geometry import ConvGeometry
from ..table import Array
from .arrays import flat, planes
from .compiling import compiled
from .pool import run
from .spans import span

#: kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w
Window = tuple[int, int, int, int, int, int, int, int]


def window(g: ConvGeometry) -> Window:
    """The integers of a window, as kernels take them."""
    return (
        g.kernel_h, g.kernel_w, g.stride_h, g.stride_w,
        g.pad_top, g.pad_left, g.dilation_h, g.dilation_w,
    )  # fmt: skip


@compiled
def _im2col(start: int, stop: int, x: Array, sizes: Window, col: Array) -> None:
    """X (N*C, H, W), col (N*C, KH*KW, OH, OW)."""
    kernel_h, kernel_w, stride_h, stride_w, top, left, dilation_h, dilation_w = sizes
    _, height, width = x.shape
    _, _, out_h, out_w = col.shape
    zero = x.dtype.type(0)
    for p in range(start, stop):
        for tap in range(kernel_h * kernel_w):
            row_offset = tap // kernel_w * dilation_h - top
            offset = tap % kernel_w * dilation_w - left
            first, last = span(width, out_w, stride_w, offset)
            for i in range(out_h):
                result = col[p, tap, i]
                row = i * stride_h + row_offset
                if not 0 <= row < height or first == last:
                    result[:] = zero
                    continue
                result[:first] = zero
                result[last:] = zero
                source = x[p, row, first * stride_w + offset :]
                inside = result[first:last]
                if stride_w == 1:
                    for j in range(inside.size):
                        inside[j] = source[j]
                else:
                    for j in range(inside.size):
                        inside[j] = source[j * stride_w]


@compiled
def _col2im(start: int, stop: int, col: Array, sizes: Window, out: Array) -> None:
    """Col (N*C, KH*KW, OH, OW), out (N*C, H, W)."""
    kernel_h, kernel_w, stride_h, stride_w, top, left, dilation_h, dilation_w = sizes
    _, height, width = out.shape
    _, _, out_h, out_w = col.shape
    for p in range(start, stop):
        out[p, :, :] = out.dtype.type(0)
        for tap in range(kernel_h * kernel_w):
            row_offset = tap // kernel_w * dilation_h - top
            offset = tap % kernel_w * dilation_w - left
            first, last = span(width, out_w, stride_w, offset)
            if first == last:
                continue
            first_row, last_row = span(height, out_h, stride_h, row_offset)
            for i in range(first_row, last_row):
                source = col[p, tap, i, first:last]
                target = out[p, i * stride_h + row_offset, first * stride_w + offset :]
                if stride_w == 1:
                    for j in range(source.size):
                        target[j] += source[j]
                else:
                    for j in range(source.size):
                        target[j * stride_w] += source[j]


def _as_taps(col: Array, g: ConvGeometry) -> Array:
    shape = (g.batch * g.channels, g.kernel_h * g.kernel_w, g.out_h, g.out_w)
    return flat(col).reshape(shape)


def im2col(x: Array, geometry: ConvGeometry, out: Array) -> None:
    """``out[n, (c*KH + a)*KW + b, i*OW + j] = x[n, c, i*s-p+a*d, j*s-p+b*d]``."""
    g = geometry
    run(_im2col, g.batch * g.channels, out.size, planes(x), window(g), _as_taps(out, g))


def col2im(col: Array, geometry: ConvGeometry, out: Array) -> None:
    """The transpose of im2col."""
    g = geometry
    run(_col2im, g.batch * g.channels, col.size, _as_taps(col, g), window(g), planes(out))
