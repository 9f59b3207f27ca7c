"""Convolution as im2col and one matrix product for each image and group.

Below, G groups, F = O/G filters and K = C/G * KH * KW products a group, P = OH * OW windows.
"""

from __future__ import annotations

import numpy as np

from ...geometry import ConvGeometry
from ..table import Activation, Algorithm, Array
from .activation import activate
from .columns import col2im, im2col


@np.errstate(all="ignore")
def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None,
    geometry: ConvGeometry,
    activation: Activation,
    out: Array,
    algorithm: Algorithm = None,
) -> None:
    """``out = f(bias + weight @ im2col(x))``."""
    filters = _filters(weight, geometry)
    np.matmul(filters, _columns(x, geometry), out=_by_group(out, geometry))
    if bias is not None:
        out += bias[:, None, None]
    activate(activation, out)


@np.errstate(all="ignore")
def conv2d_grad_input(
    grad: Array,
    weight: Array,
    geometry: ConvGeometry,
    out: Array,
    algorithm: Algorithm = None,
) -> None:
    """``out = col2im(weight.T @ grad)``."""
    filters = _filters(weight, geometry)
    col = np.matmul(filters.swapaxes(1, 2), _by_group(grad, geometry))
    col2im(col.reshape(geometry.col_shape), geometry, out)


@np.errstate(all="ignore")
def conv2d_grad_weight(
    grad: Array,
    x: Array,
    geometry: ConvGeometry,
    out: Array,
    algorithm: Algorithm = None,
) -> None:
    """``out = grad @ im2col(x).T``, summed over the batch."""
    columns = _columns(x, geometry).swapaxes(2, 3)
    products = np.matmul(_by_group(grad, geometry), columns)
    np.sum(products, axis=0, out=_filters(out, geometry))


@np.errstate(all="ignore")
def conv2d_grad_bias(grad: Array, out: Array) -> None:
    """Sum of grad (N,O,OH,OW) over all but O."""
    np.sum(grad, axis=(0, 2, 3), out=out)


def _columns(x: Array, geometry: ConvGeometry) -> Array:
    """im2col(x) as (N, G, K, P)."""
    g = geometry
    col = np.empty(g.col_shape, x.dtype)
    im2col(x, g, col)
    return col.reshape(g.batch, g.groups, g.col_shape[1] // g.groups, g.col_shape[2])


def _filters(weight: Array, geometry: ConvGeometry) -> Array:
    """``weight`` as (G, F, K)."""
    g = geometry
    return weight.reshape(g.groups, g.group_filters, g.group_channels * g.kernel_h * g.kernel_w)


def _by_group(out: Array, geometry: ConvGeometry) -> Array:
    """``out`` as (N, G, F, P)."""
    g = geometry
    return out.reshape(g.batch, g.groups, g.group_filters, g.out_h * g.out_w)
