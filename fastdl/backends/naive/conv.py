"""Convolution, as the formula says."""

from __future__ import annotations

from ...geometry import ConvGeometry
from ..common import window_taps
from ..table import Activation, Algorithm, Array
from .activation import FUNCTIONS
from .loops import positions


def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None,
    geometry: ConvGeometry,
    activation: Activation,
    out: Array,
    algorithm: Algorithm = None,
) -> None:
    """``out[n,o,i,j] = f(bias[o] + sum_{c,a,b} x[n,c,row,column] * weight[o,c,a,b])``."""
    for n, o, i, j in positions(geometry.out_shape):
        total = 0.0 if bias is None else bias.item(o)
        first = _first_channel(geometry, o)
        for c in range(geometry.group_channels):
            for a, b, row, column in window_taps(geometry, i, j):
                total += x.item(n, first + c, row, column) * weight.item(o, c, a, b)
        out[n, o, i, j] = FUNCTIONS[activation](total)


def conv2d_grad_input(
    grad: Array,
    weight: Array,
    geometry: ConvGeometry,
    out: Array,
    algorithm: Algorithm = None,
) -> None:
    """``out[n,c,row,column] = sum of grad[n,o,i,j] * weight[o,c,a,b]`` where conv2d read it."""
    for n in range(geometry.batch):
        total = dict.fromkeys(positions(geometry.x_shape[1:]), 0.0)
        for o, i, j in positions(geometry.out_shape[1:]):
            first = _first_channel(geometry, o)
            for c in range(geometry.group_channels):
                for a, b, row, column in window_taps(geometry, i, j):
                    product = grad.item(n, o, i, j) * weight.item(o, c, a, b)
                    total[first + c, row, column] += product
        for (c, row, column), value in total.items():
            out[n, c, row, column] = value


def conv2d_grad_weight(
    grad: Array,
    x: Array,
    geometry: ConvGeometry,
    out: Array,
    algorithm: Algorithm = None,
) -> None:
    """``out[o,c,a,b] = sum_{n,i,j} grad[n,o,i,j] * x[n,c,row,column]``."""
    for o, c in positions(geometry.weight_shape[:2]):
        channel = _first_channel(geometry, o) + c
        total = dict.fromkeys(positions(geometry.weight_shape[2:]), 0.0)
        for n, i, j in positions((geometry.batch, geometry.out_h, geometry.out_w)):
            for a, b, row, column in window_taps(geometry, i, j):
                total[a, b] += grad.item(n, o, i, j) * x.item(n, channel, row, column)
        for (a, b), value in total.items():
            out[o, c, a, b] = value


def conv2d_grad_bias(grad: Array, out: Array) -> None:
    """``out[o] = sum_{n,i,j} grad[n,o,i,j]``."""
    batch, filters, out_h, out_w = grad.shape
    for o in range(filters):
        out[o] = sum(grad.item(n, o, i, j) for n, i, j in positions((batch, out_h, out_w)))


def _first_channel(geometry: ConvGeometry, o: int) -> int:
    """First channel of the group that filter ``o`` belongs to."""
    return o // geometry.group_filters * geometry.group_channels
