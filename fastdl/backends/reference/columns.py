"""im2col and col2im, one kernel tap at a time."""

from __future__ import annotations

from itertools import product

from ...geometry import ConvGeometry
from ..common import tap_slices
from ..table import Array


def im2col(x: Array, geometry: ConvGeometry, out: Array) -> None:
    """Copy every window of x (N,C,H,W) to a column of out (N, C*KH*KW, OH*OW)."""
    g = geometry
    taps = out.reshape(g.batch, g.channels, g.kernel_h, g.kernel_w, g.out_h, g.out_w)
    for a, b in product(range(g.kernel_h), range(g.kernel_w)):
        (out_rows, out_columns), (rows, columns) = tap_slices(g, a, b)
        if (out_rows, out_columns) != (slice(0, g.out_h), slice(0, g.out_w)):
            taps[:, :, a, b] = 0
        taps[:, :, a, b, out_rows, out_columns] = x[:, :, rows, columns]


def col2im(col: Array, geometry: ConvGeometry, out: Array) -> None:
    """Add every column of col (N, C*KH*KW, OH*OW) to its window of out (N,C,H,W)."""
    g = geometry
    taps = col.reshape(g.batch, g.channels, g.kernel_h, g.kernel_w, g.out_h, g.out_w)
    out[...] = 0
    for a, b in product(range(g.kernel_h), range(g.kernel_w)):
        (out_rows, out_columns), (rows, columns) = tap_slices(g, a, b)
        out[:, :, rows, columns] += taps[:, :, a, b, out_rows, out_columns]
