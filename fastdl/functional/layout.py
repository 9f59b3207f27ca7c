"""In which order a call's images lie in memory: channel by channel (NCHW) or channels-last (NHWC).

Every array is (N, C, H, W) to its user. One whose pixels keep their channels together, as
``images.transpose(0, 3, 1, 2)`` of pictures does, is channels-last, and so is what a call makes of
it, whatever the backend: a chain of calls stays in that order. An array that lies in both orders
(one channel, or one pixel) counts as NCHW.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Any

import numpy as np

from ..backends.table import Array, Backend
from .inputs import MaybeArray, dense

#: The axes of a channels-last image as they lie in memory, and back.
_PIXELS, _PLANES = (0, 2, 3, 1), (0, 3, 1, 2)


class Order(Enum):
    """The order of a call's images, as its kernel and its caller see them."""

    #: NCHW to both.
    PLANES = auto()
    #: Channels-last to both.
    PIXELS = auto()
    #: Channels-last to the caller, and copied for a kernel that knows NCHW alone.
    COPIED = auto()


PLANES, PIXELS, COPIED = Order.PLANES, Order.PIXELS, Order.COPIED


def is_channels_last(array: Any) -> bool:
    """Whether an array (N, C, H, W) of the CPU lies pixel by pixel, and not also in C order."""
    return (
        type(array) is np.ndarray
        and not array.flags.c_contiguous
        and array.ndim == 4
        and array.transpose(_PIXELS).flags.c_contiguous
    )


def order_of(kernels: Backend, kernel: str, x: Array) -> Order:
    """The order of a call of ``kernel`` whose first array is ``x``."""
    if type(x) is not np.ndarray or x.flags.c_contiguous or not is_channels_last(x):
        return PLANES
    return PIXELS if kernel in kernels.CHANNELS_LAST else COPIED


def memory_order(x: Array) -> Order:
    """The order of a call whose kernel goes through memory, element by element."""
    return PIXELS if is_channels_last(x) else PLANES


def image(kernels: Backend, array: MaybeArray, order: Order) -> MaybeArray:
    """``array`` as ``kernels`` wants it in this order: without gaps, and aligned."""
    if order is not PIXELS or array is None:
        return dense(kernels, array)
    flags = array.transpose(_PIXELS).flags
    if flags.c_contiguous and flags.aligned:
        return array
    return array.transpose(_PIXELS).copy(order="C").transpose(_PLANES)


def in_memory_order(array: Array, order: Order) -> Array:
    """A view of ``array`` whose C order is that of its memory."""
    return array.transpose(_PIXELS) if order is PIXELS else array


def lies_in(array: Array, order: Order) -> bool:
    """Whether a kernel of this order can write ``array``."""
    return array.transpose(_PIXELS).flags.carray if order is PIXELS else array.flags.carray


def memory_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a channels-last array (N, C, H, W) as it lies in memory."""
    return tuple(shape[axis] for axis in _PIXELS)


def as_images(pixels: Array) -> Array:
    """Memory (N, H, W, C) as an array (N, C, H, W)."""
    return pixels.transpose(_PLANES)
