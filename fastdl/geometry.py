"""Shapes of convolutions and pools: pure integers, no arrays.

Every formula for an output size, and every check of a stride, a padding or a
dilation, stands here and nowhere else.
"""

from __future__ import annotations

import operator
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from .errors import ArgumentError, DTypeError, ShapeError

Shape = tuple[int, ...]
Pair = tuple[int, int]
#: Padding as ``((top, bottom), (left, right))``.
Sides = tuple[Pair, Pair]

#: What a caller may pass as a size along height and width.
IntPair = int | tuple[int, int]
#: What a caller may pass as the padding of a convolution.
Padding = int | tuple[int, int] | tuple[Pair, Pair] | Literal["same", "valid"]

#: No array can be longer, so no product of sizes may be larger.
MAX_ELEMENTS = 2**63 - 1
#: Largest stride, padding, dilation or kernel size: kernels multiply two of them in 64 bits.
MAX_INTEGER = 2**31 - 1


class ConvGeometry(NamedTuple):
    """The integers of one convolution: ``(N, C, H, W) * (O, C/groups, KH, KW) -> (N, O, OH, OW)``.

    Padding at the bottom and the right is not listed: ``out_h`` and ``out_w``
    say all that a kernel needs. Input position of output row ``i`` and kernel
    row ``k``: ``i * stride_h - pad_top + k * dilation_h``; whatever falls
    outside ``0 <= row < height`` reads as zero. A tuple, so that the compiled
    kernels take its fields over in their order.
    """

    batch: int
    channels: int
    height: int
    width: int
    filters: int
    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int
    pad_top: int
    pad_left: int
    dilation_h: int
    dilation_w: int
    groups: int
    out_h: int
    out_w: int

    @property
    def group_channels(self) -> int:
        """Input channels that one filter sees: C / groups."""
        return self.channels // self.groups

    @property
    def group_filters(self) -> int:
        """Filters of one group: O / groups."""
        return self.filters // self.groups

    @property
    def x_shape(self) -> Shape:
        return (self.batch, self.channels, self.height, self.width)

    @property
    def weight_shape(self) -> Shape:
        return (self.filters, self.group_channels, self.kernel_h, self.kernel_w)

    @property
    def out_shape(self) -> Shape:
        return (self.batch, self.filters, self.out_h, self.out_w)

    @property
    def col_shape(self) -> Shape:
        """Shape of im2col's result: ``(N, C * KH * KW, OH * OW)``."""
        return (
            self.batch,
            self.channels * self.kernel_h * self.kernel_w,
            self.out_h * self.out_w,
        )

    @property
    def flops(self) -> int:
        """Multiplications and additions of the direct algorithm, each counted."""
        taps = self.group_channels * self.kernel_h * self.kernel_w
        return 2 * self.batch * self.filters * self.out_h * self.out_w * taps


class PoolGeometry(NamedTuple):
    """The integers of one pool: ``(N, C, H, W) -> (N, C, OH, OW)``.

    Window ``(i, j)`` starts at row ``i * stride_h - pad_h`` and column
    ``j * stride_w - pad_w``.
    """

    batch: int
    channels: int
    height: int
    width: int
    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int
    pad_h: int
    pad_w: int
    dilation_h: int
    dilation_w: int
    out_h: int
    out_w: int

    @property
    def x_shape(self) -> Shape:
        return (self.batch, self.channels, self.height, self.width)

    @property
    def out_shape(self) -> Shape:
        return (self.batch, self.channels, self.out_h, self.out_w)


def out_size(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """``floor((size + padding - dilation * (kernel - 1) - 1) / stride) + 1``.

    ``padding`` counts both sides.

    >>> out_size(8, 3, 2, 2, 1), out_size(6, 2, 1, 2, 1)
    (4, 7)
    """
    return (size + padding - dilation * (kernel - 1) - 1) // stride + 1


def integer(name: str, value: Any, minimum: int, bits: int = 31) -> int:
    """``value`` as an int of at least ``minimum`` and below ``2**bits``."""
    if type(value) is int and minimum <= value <= MAX_INTEGER:
        return value
    if isinstance(value, bool):
        raise DTypeError(f"{name} must be an integer, got {value!r}")
    try:
        number = operator.index(value)
    except TypeError:
        raise DTypeError(f"{name} must be an integer, got {value!r}") from None
    if number < minimum:
        raise ArgumentError(f"{name} must be at least {minimum}, got {value!r}")
    if number >= 2**bits:
        raise ArgumentError(f"{name} must be below 2**{bits}, got {value!r}")
    return number


def pair(name: str, value: Any, minimum: int) -> Pair:
    """``value``, one integer or two, as ``(vertical, horizontal)``."""
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ArgumentError(f"{name} must be an integer or a pair of integers, got {value!r}")
        return integer(f"{name}[0]", value[0], minimum), integer(f"{name}[1]", value[1], minimum)
    number = integer(name, value, minimum)
    return number, number


def _sides(padding: Any) -> str | Sides:
    """Padding as ``((top, bottom), (left, right))``, or the word that will name it."""
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise ArgumentError(
                f"padding must be 'same', 'valid', an integer, (vertical, horizontal) or "
                f"((top, bottom), (left, right)), got {padding!r}"
            )
        return padding
    if (
        isinstance(padding, (tuple, list))
        and len(padding) == 2
        and any(isinstance(side, (tuple, list)) for side in padding)
    ):
        return pair("padding[0]", padding[0], 0), pair("padding[1]", padding[1], 0)
    vertical, horizontal = pair("padding", padding, 0)
    return (vertical, vertical), (horizontal, horizontal)


def _named_sides(padding: str, kernel: Pair, stride: Pair, dilation: Pair) -> Sides:
    """What padding 'valid' or 'same' comes to."""
    if padding == "valid":
        return (0, 0), (0, 0)
    if stride != (1, 1):
        raise ArgumentError(f"padding='same' needs stride 1, got stride={stride}")
    # What is odd goes to the bottom and the right, as in PyTorch.
    total = (dilation[0] * (kernel[0] - 1), dilation[1] * (kernel[1] - 1))
    return (total[0] // 2, total[0] - total[0] // 2), (total[1] // 2, total[1] - total[1] // 2)


def rank4(name: str, shape: Shape, letters: str) -> None:
    """Refuse a shape that is not of images (or filters)."""
    if len(shape) != 4:
        raise ShapeError(f"{name} must have 4 dimensions {letters}, got shape {shape}")


def _countable(what: str, shape: Shape) -> None:
    """Refuse a shape whose number of elements no index can reach."""
    count = 1
    for size in shape:
        count *= size
    if count > MAX_ELEMENTS:
        raise ShapeError(f"{what} would have shape {shape}: {count} elements, more than 2**63 - 1")


def conv_geometry(
    x_shape: Shape,
    weight_shape: Shape,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: Any = 1,
) -> ConvGeometry:
    """Check the arguments of a convolution and compute its geometry.

    >>> conv_geometry((1, 3, 8, 8), (4, 3, 3, 3), stride=2, padding=1).out_shape
    (1, 4, 4, 4)
    """
    # Checked before the cache, for which (1, 1), (1.0, 1.0) and (True, True) are one key.
    return _conv_geometry(
        x_shape,
        weight_shape,
        pair("stride", stride, 1),
        _sides(padding),
        pair("dilation", dilation, 1),
        integer("groups", groups, 1),
    )


@lru_cache(maxsize=1024)
def _conv_geometry(
    x_shape: Shape,
    weight_shape: Shape,
    stride: Pair,
    padding: str | Sides,
    dilation: Pair,
    groups: int,
) -> ConvGeometry:
    rank4("x", x_shape, "(N, C, H, W)")
    rank4("weight", weight_shape, "(O, C / groups, KH, KW)")
    batch, channels, height, width = x_shape
    filters, group_channels, *kernel_size = weight_shape
    kernel = (kernel_size[0], kernel_size[1])
    if min(weight_shape) < 1:
        raise ShapeError(f"weight must have no empty dimension, got shape {weight_shape}")
    if channels % groups:
        raise ShapeError(
            f"groups must divide the channels of x, got groups={groups} and x of shape {x_shape}"
        )
    if filters % groups:
        raise ShapeError(
            f"groups must divide the filters of weight, got groups={groups} and "
            f"weight of shape {weight_shape}"
        )
    if channels != group_channels * groups:
        raise ShapeError(
            f"weight must have {channels // groups} channels a filter "
            f"(x has {channels} channels, groups={groups}), got weight of shape {weight_shape}"
        )
    if isinstance(padding, str):
        padding = _named_sides(padding, kernel, stride, dilation)
    out_h, out_w = _out_pair((height, width), kernel, stride, padding, dilation)
    geometry = ConvGeometry(
        batch, channels, height, width, filters, *kernel, *stride,
        padding[0][0], padding[1][0], *dilation, groups, out_h, out_w,
    )  # fmt: skip
    _countable("the output", geometry.out_shape)
    return geometry


def _out_pair(size: Pair, kernel: Pair, stride: Pair, pads: Sides, dilation: Pair) -> Pair:
    padded = (size[0] + sum(pads[0]), size[1] + sum(pads[1]))
    extent = (dilation[0] * (kernel[0] - 1) + 1, dilation[1] * (kernel[1] - 1) + 1)
    if extent[0] > padded[0] or extent[1] > padded[1]:
        raise ShapeError(
            f"the kernel must fit the padded input: kernel {kernel} with dilation {dilation} "
            f"covers {extent}, the padded input is {padded}"
        )
    return (
        out_size(size[0], kernel[0], stride[0], sum(pads[0]), dilation[0]),
        out_size(size[1], kernel[1], stride[1], sum(pads[1]), dilation[1]),
    )


def window_geometry(
    x_shape: Shape, kernel_size: Any, dilation: Any, padding: Any, stride: Any
) -> ConvGeometry:
    """The geometry of im2col and col2im on an image of shape ``x_shape``.

    It is that of a convolution with one filter; its weight is never used.
    """
    rank4("x", x_shape, "(N, C, H, W)")
    kernel = pair("kernel_size", kernel_size, 1)
    if x_shape[1] < 1:
        raise ShapeError(f"x must have at least one channel, got shape {x_shape}")
    geometry = conv_geometry(x_shape, (1, x_shape[1], *kernel), stride, padding, dilation)
    _countable("the columns", geometry.col_shape)
    return geometry


def conv_transpose_geometry(
    x_shape: Shape,
    weight_shape: Shape,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: Any = 1,
    dilation: Any = 1,
) -> ConvGeometry:
    """The geometry of the convolution whose input gradient is this transposed convolution.

    Its ``out_shape`` is the transposed convolution's input, its ``x_shape`` the
    output: ``(H - 1) * stride - 2 * padding + dilation * (KH - 1) + output_padding + 1``.

    >>> conv_transpose_geometry((1, 4, 4, 4), (4, 3, 3, 3), 2, 1, 1).x_shape
    (1, 3, 8, 8)
    """
    return _conv_transpose_geometry(
        x_shape,
        weight_shape,
        pair("stride", stride, 1),
        pair("padding", padding, 0),
        pair("output_padding", output_padding, 0),
        integer("groups", groups, 1),
        pair("dilation", dilation, 1),
    )


@lru_cache(maxsize=1024)
def _conv_transpose_geometry(
    x_shape: Shape,
    weight_shape: Shape,
    stride: Pair,
    padding: Pair,
    extra: Pair,
    groups: int,
    dilation: Pair,
) -> ConvGeometry:
    rank4("x", x_shape, "(N, C, H, W)")
    rank4("weight", weight_shape, "(C, O / groups, KH, KW)")
    batch, channels, height, width = x_shape
    _, group_out, kernel_h, kernel_w = weight_shape
    if min(weight_shape) < 1:
        raise ShapeError(f"weight must have no empty dimension, got shape {weight_shape}")
    if weight_shape[0] != channels:
        raise ShapeError(
            f"weight must have as many rows as x has channels, got weight of shape "
            f"{weight_shape} and x of shape {x_shape}"
        )
    if channels % groups:
        raise ShapeError(
            f"groups must divide the channels of x, got groups={groups} and x of shape {x_shape}"
        )
    for axis in (0, 1):
        if extra[axis] >= max(stride[axis], dilation[axis]):
            raise ArgumentError(
                f"output_padding must be smaller than stride or dilation, got "
                f"output_padding={extra}, stride={stride}, dilation={dilation}"
            )
    out_h = (height - 1) * stride[0] - 2 * padding[0] + dilation[0] * (kernel_h - 1) + extra[0] + 1
    out_w = (width - 1) * stride[1] - 2 * padding[1] + dilation[1] * (kernel_w - 1) + extra[1] + 1
    if height < 1 or width < 1 or out_h < 1 or out_w < 1:
        raise ShapeError(
            f"the output must have a positive size, got ({out_h}, {out_w}) from x of shape "
            f"{x_shape} and weight of shape {weight_shape}"
        )
    geometry = ConvGeometry(
        batch, group_out * groups, out_h, out_w, channels, kernel_h, kernel_w, *stride,
        *padding, *dilation, groups, height, width,
    )  # fmt: skip
    _countable("the output", geometry.x_shape)
    return geometry


def pool_geometry(
    x_shape: Shape,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> PoolGeometry:
    """Check the arguments of a pool and compute its geometry.

    With ``ceil_mode`` the division rounds up, and a window that would start
    beyond the input and its left padding is dropped, as PyTorch defines it.

    >>> pool_geometry((1, 1, 5, 5), 2, ceil_mode=True).out_shape
    (1, 1, 3, 3)
    """
    kernel = pair("kernel_size", kernel_size, 1)
    return _pool_geometry(
        x_shape,
        kernel,
        kernel if stride is None else pair("stride", stride, 1),
        pair("padding", padding, 0),
        pair("dilation", dilation, 1),
        bool(ceil_mode),
    )


@lru_cache(maxsize=1024)
def _pool_geometry(
    x_shape: Shape, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool
) -> PoolGeometry:
    rank4("x", x_shape, "(N, C, H, W)")
    batch, channels, height, width = x_shape
    extent = (dilation[0] * (kernel[0] - 1) + 1, dilation[1] * (kernel[1] - 1) + 1)
    if 2 * padding[0] > extent[0] or 2 * padding[1] > extent[1]:
        raise ArgumentError(
            f"padding must be at most half of what the kernel covers, got padding={padding}, "
            f"kernel_size={kernel}, dilation={dilation}"
        )
    pads = ((padding[0], padding[0]), (padding[1], padding[1]))
    out = list(_out_pair((height, width), kernel, stride, pads, dilation))
    if ceil_mode:
        for axis, size in enumerate((height, width)):
            # Rounding up is rounding down with stride - 1 more on the far side.
            more = 2 * padding[axis] + stride[axis] - 1
            out[axis] = out_size(size, kernel[axis], stride[axis], more, dilation[axis])
            if (out[axis] - 1) * stride[axis] >= size + padding[axis]:
                out[axis] -= 1
    for axis, size in enumerate((height, width)):
        # The first tap at or after the image's edge is at ``start % dilation``.
        starts = range(-padding[axis], 0, stride[axis])[: out[axis]]
        if dilation[axis] > size and any(start % dilation[axis] >= size for start in starts):
            raise ShapeError(
                f"every window must hold an element of x, got x of shape {x_shape}, kernel_size="
                f"{kernel}, stride={stride}, padding={padding}, dilation={dilation}"
            )
    geometry = PoolGeometry(
        batch, channels, height, width, *kernel, *stride, *padding, *dilation, out[0], out[1]
    )
    _countable("the output", geometry.out_shape)
    return geometry


def adaptive_window(position: int, size: int, out: int) -> Pair:
    """First and last-plus-one input of an adaptive pool's output ``position``.

    ``floor(position * size / out)`` to ``ceil((position + 1) * size / out)``.

    >>> [adaptive_window(i, 5, 3) for i in range(3)]
    [(0, 2), (1, 4), (3, 5)]
    """
    return position * size // out, -(-(position + 1) * size // out)
