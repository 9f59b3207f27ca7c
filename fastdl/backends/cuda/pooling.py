"""Pooling: a thread for each element of the result, which it writes once.

The gradients gather: the thread of an input sums, in one order, what the windows over it give.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...geometry import PoolGeometry
from .arrays import DeviceArray, empty
from .launch import THREADS, blocks_for, entry, kernel
from .target import cuda, quotient, shuffle_xor

#: The window's integers, in this order, for kernels that walk one.
_WINDOW = "i i i i i i i i i i i i"


def _integers(g: PoolGeometry) -> tuple[int, ...]:
    return (
        g.height, g.width, g.kernel_h, g.kernel_w, g.stride_h, g.stride_w, g.pad_h, g.pad_w,
        g.dilation_h, g.dilation_w, g.out_h, g.out_w,
    )  # fmt: skip


@kernel(f"T* T* l* i {_WINDOW}")
def largest(T: Any, with_indices: bool) -> Any:
    """The largest value of each window, and its place in the plane; see the table."""
    lowest = T(-np.inf)

    def run(
        x, out, indices, count, height, width, kernel_h, kernel_w, stride_h, stride_w, pad_h,
        pad_w, dilation_h, dilation_w, out_h, out_w,
    ):  # fmt: skip
        e = np.int32(cuda.grid(1))
        if e < count:
            above = quotient(e, out_w)
            plane = quotient(above, out_h)
            top = (above - plane * out_h) * stride_h - pad_h
            left = (e - above * out_w) * stride_w - pad_w
            base = plane * height * width
            best, place = lowest, np.int32(-1)
            for a in range(kernel_h):
                row = top + a * dilation_h
                if row >= 0 and row < height:
                    for b in range(kernel_w):
                        column = left + b * dilation_w
                        if column >= 0 and column < width:
                            at = np.int32(row * width + column)
                            value = x[base + at]
                            if value > best or value != value or place < 0:
                                best, place = value, at
            out[e] = best
            if with_indices:
                indices[e] = place

    return run


@kernel(f"T* l* T* i {_WINDOW}", bounds=(THREADS, 4))
def largest_backward(T: Any) -> Any:
    """The sum, for each input, of the gradients of the windows over it whose largest it was."""
    zero = T(0)

    def run(
        grad, indices, out, count, height, width, kernel_h, kernel_w, stride_h, stride_w, pad_h,
        pad_w, dilation_h, dilation_w, out_h, out_w,
    ):  # fmt: skip
        e = np.int32(cuda.grid(1))
        if e < count:
            above = quotient(e, width)
            plane = quotient(above, height)
            row, column = above - plane * height, e - above * width
            place = row * width + column
            y, z = row + pad_h, column + pad_w
            # Between the taps of a dilated window are inputs that it does not read, nor names.
            tall, wide = (kernel_h - 1) * dilation_h + 1, (kernel_w - 1) * dilation_w + 1
            first_i = quotient(y - tall + stride_h, stride_h) if y >= tall else np.int32(0)
            first_j = quotient(z - wide + stride_w, stride_w) if z >= wide else np.int32(0)
            total = zero
            for i in range(first_i, min(quotient(y, stride_h) + 1, out_h)):
                for j in range(first_j, min(quotient(z, stride_w) + 1, out_w)):
                    at = (plane * out_h + i) * out_w + j
                    if indices[at] == place:
                        total += grad[at]
            out[e] = total

    return run


@kernel("l* i* i* i i i")
def link(T: Any) -> Any:
    """A list for each input of the outputs whose index names it, in whatever order."""

    def run(indices, heads, nexts, count, out_plane, plane):
        e = np.int32(cuda.grid(1))
        if e < count:
            place = indices[e]
            # What names no place in the plane is left out.
            if place >= 0 and place < plane:
                nexts[e] = cuda.atomic.exch(heads, quotient(e, out_plane) * plane + place, e)

    return run


@kernel("i* i")
def clear(T: Any) -> Any:
    """Empty lists: -1."""

    def run(heads, count):
        e = cuda.grid(1)
        if e < count:
            heads[e] = -1

    return run


@kernel("T* i* i* T* i")
def walk(T: Any) -> Any:
    """The sum of each list's gradients, the outputs in ascending order whatever the list's."""
    zero = T(0)

    def run(grad, heads, nexts, out, count):
        e = cuda.grid(1)
        if e < count:
            total, head, last = zero, heads[e], np.int32(-1)
            more = head >= 0
            while more:
                # The smallest that has not been added yet.
                least, item = np.int32(2147483647), head
                while item >= 0:
                    if item > last and item < least:
                        least = item
                    item = nexts[item]
                more = least < np.int32(2147483647)
                if more:
                    total += grad[least]
                    last = least
            out[e] = total

    return run


@kernel(f"T* T* i i T {_WINDOW}")
def mean(T: Any) -> Any:
    """Each window's sum over ``divisor``; -1 takes its size in the padded image, -2 in the image."""
    zero = T(0)

    def run(
        x, out, count, rule, divisor, height, width, kernel_h, kernel_w, stride_h, stride_w, pad_h,
        pad_w, dilation_h, dilation_w, out_h, out_w,
    ):  # fmt: skip
        e = np.int32(cuda.grid(1))
        if e < count:
            above = quotient(e, out_w)
            plane = quotient(above, out_h)
            top = (above - plane * out_h) * stride_h - pad_h
            left = (e - above * out_w) * stride_w - pad_w
            base = plane * height * width
            total = zero
            for row in range(max(top, 0), min(top + kernel_h, height)):
                for column in range(max(left, 0), min(left + kernel_w, width)):
                    total += x[base + row * width + column]
            if rule >= 0:
                out[e] = total / divisor
            else:
                margin_h = pad_h if rule == -1 else np.int32(0)
                margin_w = pad_w if rule == -1 else np.int32(0)
                rows = min(top + kernel_h, height + margin_h) - max(top, -margin_h)
                columns = min(left + kernel_w, width + margin_w) - max(left, -margin_w)
                out[e] = total / T(rows * columns)

    return run


@kernel(f"T* T* i i T {_WINDOW}")
def mean_backward(T: Any) -> Any:
    """Each input's share of the windows over it."""
    zero = T(0)

    def run(
        grad, out, count, rule, divisor, height, width, kernel_h, kernel_w, stride_h, stride_w,
        pad_h, pad_w, dilation_h, dilation_w, out_h, out_w,
    ):  # fmt: skip
        e = np.int32(cuda.grid(1))
        if e < count:
            above = quotient(e, width)
            plane = quotient(above, height)
            y = above - plane * height + pad_h
            z = e - above * width + pad_w
            first_i = quotient(y - kernel_h + stride_h, stride_h) if y >= kernel_h else np.int32(0)
            first_j = quotient(z - kernel_w + stride_w, stride_w) if z >= kernel_w else np.int32(0)
            margin_h = pad_h if rule == -1 else np.int32(0)
            margin_w = pad_w if rule == -1 else np.int32(0)
            total = zero
            for i in range(first_i, min(quotient(y, stride_h) + 1, out_h)):
                top = i * stride_h - pad_h
                rows = min(top + kernel_h, height + margin_h) - max(top, -margin_h)
                for j in range(first_j, min(quotient(z, stride_w) + 1, out_w)):
                    left = j * stride_w - pad_w
                    columns = min(left + kernel_w, width + margin_w) - max(left, -margin_w)
                    by = divisor if rule >= 0 else T(rows * columns)
                    total += grad[(plane * out_h + i) * out_w + j] / by
            out[e] = total

    return run


@kernel("T* T* i i i i i")
def adaptive(T: Any) -> Any:
    """The mean of each adaptive window, a warp for each: its lanes take every 32nd element."""
    zero = T(0)

    def run(x, out, count, height, width, out_h, out_w):
        lane = np.int32(cuda.threadIdx.x % 32)
        # Whole warps go on together, also beyond the last output.
        e = np.int32(cuda.grid(1) // 32)
        inside = e < count
        total, size = zero, np.int32(1)
        if inside:
            above = quotient(e, out_w)
            plane = quotient(above, out_h)
            i, j = above - plane * out_h, e - above * out_w
            top, left = quotient(i * height, out_h), quotient(j * width, out_w)
            rows = quotient((i + 1) * height + out_h - 1, out_h) - top
            columns = quotient((j + 1) * width + out_w - 1, out_w) - left
            size = np.int32(rows * columns)
            base = (plane * height + top) * width + left
            for item in range(lane, size, 32):
                row = quotient(item, columns)
                total += x[base + row * width + (item - row * columns)]
        for distance in (16, 8, 4, 2, 1):
            total += shuffle_xor(total, distance)
        if inside and lane == 0:
            out[e] = total / T(size)

    return run


@kernel("T* T* i i i i i")
def adaptive_backward(T: Any) -> Any:
    """Each input's share of the adaptive windows over it."""
    zero = T(0)

    def run(grad, out, count, height, width, out_h, out_w):
        e = np.int32(cuda.grid(1))
        if e < count:
            above = quotient(e, width)
            plane = quotient(above, height)
            y, z = above - plane * height, e - above * width
            total = zero
            for i in range(quotient(y * out_h, height), quotient((y + 1) * out_h - 1, height) + 1):
                rows = quotient((i + 1) * height + out_h - 1, out_h) - quotient(i * height, out_h)
                for j in range(
                    quotient(z * out_w, width), quotient((z + 1) * out_w - 1, width) + 1
                ):
                    columns = quotient((j + 1) * width + out_w - 1, out_w) - quotient(
                        j * width, out_w
                    )
                    total += grad[(plane * out_h + i) * out_w + j] / T(rows * columns)
            out[e] = total

    return run


@entry("out", "indices")
def max_pool2d(
    x: DeviceArray, geometry: PoolGeometry, out: DeviceArray, indices: DeviceArray | None
) -> None:
    """Largest value of each window, and where it stands."""
    largest(x.dtype, indices is not None)(
        blocks_for(out.size), THREADS, x, out,
        empty((1,), np.int64, x) if indices is None else indices, out.size, *_integers(geometry),
    )  # fmt: skip
    if indices is not None:
        indices.below, indices.windows = geometry.height * geometry.width, geometry


def max_pool2d_backward(grad: Any, indices: Any, out: Any) -> bool:
    """Add each grad element to the position its index names.

    Of indices in the CPU's memory it tells whether they are all in range; those on the GPU stay
    there, unread, and what is out of range adds to nothing.
    """
    _add_to_indices(grad, indices, out)
    if not isinstance(indices, np.ndarray) or not indices.size:
        return True
    return bool(indices.min() >= 0 and indices.max() < out.shape[2] * out.shape[3])


@entry("out")
def _add_to_indices(grad: DeviceArray, indices: DeviceArray, out: DeviceArray) -> None:
    """Add each grad element to the position its index names.

    Those that a pool on the GPU found name their windows: each input looks into those over it. Of
    others nothing is known: lists are made by atomic exchanges, and walked in the order of the
    outputs, so that the sums do not depend on who came first.
    """
    g = indices.windows
    if g is not None and (g.height, g.width, g.out_h, g.out_w) == (*out.shape[2:], *grad.shape[2:]):
        largest_backward(grad.dtype)(
            blocks_for(out.size), THREADS, grad, indices, out, out.size, *_integers(g)
        )
        return
    heads, nexts = empty(out.shape, np.int32, grad), empty(grad.shape, np.int32, grad)
    out_plane, plane = grad.shape[2] * grad.shape[3], out.shape[2] * out.shape[3]
    clear(np.int32)(blocks_for(out.size), THREADS, heads, out.size)
    if grad.size:
        link(np.int32)(
            blocks_for(grad.size), THREADS, indices, heads, nexts, grad.size, out_plane, plane
        )
    else:
        grad, nexts = out, heads
    walk(grad.dtype)(blocks_for(out.size), THREADS, grad, heads, nexts, out, out.size)


def _rule(count_include_pad: bool, divisor: int | None) -> tuple[int, int]:
    return (0, divisor) if divisor is not None else (-1 if count_include_pad else -2, 1)


@entry("out")
def avg_pool2d(
    x: DeviceArray,
    geometry: PoolGeometry,
    count_include_pad: bool,
    divisor: int | None,
    out: DeviceArray,
) -> None:
    """Sum of each window over its divisor."""
    mean(x.dtype)(
        blocks_for(out.size), THREADS, x, out, out.size, *_rule(count_include_pad, divisor),
        *_integers(geometry),
    )  # fmt: skip


@entry("out")
def avg_pool2d_backward(
    grad: DeviceArray,
    geometry: PoolGeometry,
    count_include_pad: bool,
    divisor: int | None,
    out: DeviceArray,
) -> None:
    """Spread each grad element, over its divisor, on its window."""
    mean_backward(grad.dtype)(
        blocks_for(out.size), THREADS, grad, out, out.size, *_rule(count_include_pad, divisor),
        *_integers(geometry),
    )  # fmt: skip


@entry("out")
def adaptive_avg_pool2d(x: DeviceArray, out: DeviceArray) -> None:
    """Mean of each window."""
    adaptive(x.dtype)(
        blocks_for(32 * out.size), THREADS, x, out, out.size, *x.shape[2:], *out.shape[2:]
    )


@entry("out")
def adaptive_avg_pool2d_backward(grad: DeviceArray, out: DeviceArray) -> None:
    """Spread each grad element, over its window's size, on its window."""
    adaptive_backward(grad.dtype)(
        blocks_for(out.size), THREADS, grad, out, out.size, *out.shape[2:], *grad.shape[2:]
    )
