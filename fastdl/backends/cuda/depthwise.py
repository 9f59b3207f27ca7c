"""Convolutions whose filters see one channel: bound by memory, so computed as the formula says."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import scalars
from .blocks import block_sum
from .launch import THREADS, kernel
from .target import SIMULATED, cuda, quotient

_GEOMETRY = "i i i i i i i i i i i i i i i"


@kernel(f"T* T* T* T* i {_GEOMETRY}", bounds=(THREADS, 4))
def forward(T: Any, activation: str | None, tall: int, wide: int) -> Any:
    """A thread for each result. ``tall`` and ``wide`` are the kernel's size, or 0 for any."""
    f, zero = scalars.activation(T, activation), T(0)

    def run(
        x, weight, bias, out, biased, count, filters, each, height, width, kernel_h, kernel_w,
        stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, out_h, out_w,
    ):  # fmt: skip
        e = np.int32(cuda.grid(1))
        if e < count:
            above = quotient(e, out_w)
            plane = quotient(above, out_h)
            o = plane % filters
            # Planes of the result stand as those of x, ``each`` after each.
            base = quotient(plane, each) * height * width
            top = (above - plane * out_h) * stride_h - pad_top
            left = (e - above * out_w) * stride_w - pad_left
            rows, columns = tall or kernel_h, wide or kernel_w
            total = bias[o] if biased else zero
            for a in range(rows):
                row = top + a * dilation_h
                if row >= 0 and row < height:
                    for b in range(columns):
                        column = left + b * dilation_w
                        if column >= 0 and column < width:
                            total += (
                                x[np.int32(base + row * width + column)]
                                * weight[np.int32((o * rows + a) * columns + b)]
                            )
            out[e] = f(total)

    return run


@kernel(f"T* T* T* {_GEOMETRY}", bounds=(THREADS, 4))
def grad_input(T: Any) -> Any:
    """A thread for each pixel of x: the windows over it, of each of its channel's filters."""
    zero = T(0)

    def run(
        grad, weight, out, count, filters, each, height, width, kernel_h, kernel_w, stride_h,
        stride_w, pad_top, pad_left, dilation_h, dilation_w, out_h, out_w,
    ):  # fmt: skip
        e = np.int32(cuda.grid(1))
        if e < count:
            above = quotient(e, width)
            plane = quotient(above, height)
            row, column = above - plane * height + pad_top, e - above * width + pad_left
            total = zero
            for filter in range(each):
                line = plane * each + filter
                o = line % filters
                for a in range(kernel_h):
                    y = row - a * dilation_h
                    i = quotient(y, stride_h) if y >= 0 else out_h
                    if i < out_h and i * stride_h == y:
                        for b in range(kernel_w):
                            z = column - b * dilation_w
                            j = quotient(z, stride_w) if z >= 0 else out_w
                            if j < out_w and j * stride_w == z:
                                total += (
                                    grad[np.int32((line * out_h + i) * out_w + j)]
                                    * weight[np.int32((o * kernel_h + a) * kernel_w + b)]
                                )
            out[e] = total

    return run


@kernel(f"T* T* T* i {_GEOMETRY}", bounds=(THREADS, 4))
def grad_weight(T: Any) -> Any:
    """A block for each tap of each filter, summed over the batch and the windows."""
    summed, zero = block_sum(THREADS), T(0)

    def run(
        grad, x, out, batch, count, filters, each, height, width, kernel_h, kernel_w, stride_h,
        stride_w, pad_top, pad_left, dilation_h, dilation_w, out_h, out_w,
    ):  # fmt: skip
        scratch = cuda.shared.array(32, T)
        tap = np.int32(cuda.blockIdx.x)
        above = quotient(tap, kernel_w)
        o = quotient(above, kernel_h)
        down = (above - o * kernel_h) * dilation_h - pad_top
        right = (tap - above * kernel_w) * dilation_w - pad_left
        plane = out_h * out_w
        total, lost = zero, zero
        for e in range(cuda.threadIdx.x, batch * plane, THREADS):
            image = quotient(e, plane)
            inner = e - image * plane
            i = quotient(inner, out_w)
            y, z = i * stride_h + down, (inner - i * out_w) * stride_w + right
            if y >= 0 and y < height and z >= 0 and z < width:
                line = image * filters + o
                value = (
                    grad[np.int32(line * plane + inner)]
                    * x[np.int32((quotient(line, each) * height + y) * width + z)]
                )
                # Kahan's sum: a thread may have very many of them.
                value -= lost
                more = total + value
                lost = (more - total) - value
                total = more
        total = summed(total, scratch)
        if cuda.threadIdx.x == 0:
            out[tap] = total

    return run


#: Products that a thread of `grad_weight_at_once` sums for each tap, about, and the most taps.
RUN, MOST_TAPS = 1 if SIMULATED else 64, 25


@kernel("T* T* T* i i i i i i i i i i i i i i i i", bounds=(THREADS, 2))
def grad_weight_at_once(T: Any, tall: int, wide: int) -> Any:
    """All taps of filter blockIdx.x over a slice of the windows, to ``parts[slice][filter][tap]``.

    grad is read once; x as often as there are taps, which the cache serves. The sums of a
    thread's taps are registers.
    """
    summed, zero = block_sum(THREADS), T(0)
    TAPS = tall * wide

    def run(
        grad, x, parts, batch, slices, filters, each, height, width, kernel_h, kernel_w, stride_h,
        stride_w, pad_top, pad_left, dilation_h, dilation_w, out_h, out_w,
    ):  # fmt: skip
        scratch = cuda.shared.array(32, T)
        sums = cuda.local.array(TAPS, T)
        for tap in range(TAPS):
            sums[tap] = zero
        o, part = np.int32(cuda.blockIdx.x), np.int32(cuda.blockIdx.y)
        plane = out_h * out_w
        step = np.int64(slices) * THREADS
        for e in range(part * THREADS + cuda.threadIdx.x, batch * plane, step):
            image = quotient(e, plane)
            inner = e - image * plane
            i = quotient(inner, out_w)
            top = np.int32(i * stride_h - pad_top)
            left = np.int32((inner - i * out_w) * stride_w - pad_left)
            line = np.int32(image * filters + o)
            base = np.int32(quotient(line, each) * height)
            value = grad[np.int32(line * plane + inner)]
            for a in range(tall):
                y = np.int32(top + a * dilation_h)
                for b in range(wide):
                    z = np.int32(left + b * dilation_w)
                    if y >= 0 and y < height and z >= 0 and z < width:
                        sums[a * wide + b] += value * x[np.int32((base + y) * width + z)]
        for tap in range(TAPS):
            total = summed(sums[tap], scratch)
            if cuda.threadIdx.x == 0:
                parts[np.int32((part * filters + o) * TAPS + tap)] = total

    return run
