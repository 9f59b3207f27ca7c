"""im2col and col2im, window by window."""

from __future__ import annotations

from ...geometry import ConvGeometry
from ..common import window_taps
from ..table import Array
from .loops import positions


def im2col(x: Array, geometry: ConvGeometry, out: Array) -> None:
    """``out[n, (c*KH + a)*KW + b, i*OW + j] = x[n, c, row, column]``."""
    g = geometry
    for n, k, p in positions(g.col_shape):
        out[n, k, p] = 0.0
    for n, c, i, j in positions((g.batch, g.channels, g.out_h, g.out_w)):
        for a, b, row, column in window_taps(g, i, j):
            k = (c * g.kernel_h + a) * g.kernel_w + b
            out[n, k, i * g.out_w + j] = x.item(n, c, row, column)


def col2im(col: Array, geometry: ConvGeometry, out: Array) -> None:
    """``out[n, c, row, column] = sum of col[n, (c*KH + a)*KW + b, i*OW + j]`` that came from it."""
    g = geometry
    for n, c in positions((g.batch, g.channels)):
        total = dict.fromkeys(positions((g.height, g.width)), 0.0)
        for i, j in positions((g.out_h, g.out_w)):
            for a, b, row, column in window_taps(g, i, j):
                k = (c * g.kernel_h + a) * g.kernel_w + b
                total[row, column] += col.item(n, k, i * g.out_w + j)
        for (row, column), value in total.items():
            out[n, c, row, column] = value
