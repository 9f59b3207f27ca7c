"""Batch normalisation of x (N, C, S).

Two stages each way: blocks reduce slices of a channel to partial results, which a last small
kernel puts together in double precision and in one order, so that the same call gives the same
bits; then every element is computed. The statistics are Welford's: ``parts`` holds count, mean
and sum of squared deviations.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..table import Activation
from . import scalars
from .arrays import DeviceArray, empty
from .blocks import block_sum
from .launch import THREADS, blocks_for, entry, kernel, processors
from .target import cuda, load4, quotient, sqrt, store4

#: Blocks on each multiprocessor that a reduction aims at, and the fewest elements a thread takes.
_BLOCKS_A_PROCESSOR = 4
_FEWEST_A_THREAD = 16


def _slices(channels: int, count: int) -> int:
    """Blocks that share a channel of ``count`` elements."""
    wanted = -(-_BLOCKS_A_PROCESSOR * processors() // max(channels, 1))
    return max(1, min(wanted, count // (_FEWEST_A_THREAD * THREADS)))


def _width(size: int) -> int:
    """Elements that a thread reads at a time: four where no four of them straddle two planes."""
    return 4 if size % 4 == 0 else 1


@kernel("T* D* i i i i", bounds=(THREADS, 4))
def moments(T: Any, width: int) -> Any:
    """Count, mean and squared deviations of a slice of channel blockIdx.x, by Welford and Chan.

    Element e of a channel is ``x[e // S][channel][e % S]``.
    """
    summed, zero = block_sum(THREADS), T(0)

    def run(x, parts, batch, channels, size, slices):
        scratch = cuda.shared.array(32, T)
        channel, part, thread = cuda.blockIdx.x, cuda.blockIdx.y, cuda.threadIdx.x
        step = np.int32(slices * THREADS * width)
        count, mean, squares = zero, zero, zero
        for e in range((part * THREADS + thread) * width, batch * size, step):
            image = quotient(e, size)
            place = (image * channels + channel) * size + (e - image * size)
            if width == 4:
                a, b, c, d = load4(x, place)
                middle = T(0.25) * ((a + b) + (c + d))
                spread = (
                    (a - middle) * (a - middle)
                    + (b - middle) * (b - middle)
                    + (c - middle) * (c - middle)
                    + (d - middle) * (d - middle)
                )
            else:
                middle, spread = x[place], zero
            old = count
            count += T(width)
            away = middle - mean
            mean += away * (T(width) / count)
            squares += spread + away * away * (old * T(width) / count)
        # The block's mean first, then what each thread's elements deviate from it.
        total = summed(count, scratch)
        share = summed(mean * count, scratch)
        common = share / total if total > zero else zero
        rest = summed((mean - common) * count, scratch)
        common += rest / total if total > zero else zero
        away = mean - common
        squares = summed(squares + away * away * count, scratch)
        if thread == 0:
            place = 3 * (channel * slices + part)
            parts[place] = total
            parts[place + 1] = common
            parts[place + 2] = squares

    return run


@kernel("D* T* T* d T* T* T* T* i i i i")
def statistics(T: Any) -> Any:
    """Mean and variance of a channel from its parts, and the scale and shift that normalise it."""

    def run(parts, weight, bias, eps, mean, var, scale, shift, channels, slices, weighted, biased):
        channel = cuda.grid(1)
        if channel < channels:
            count, middle, squares = 0.0, 0.0, 0.0
            for part in range(slices):
                place = 3 * (channel * slices + part)
                more = parts[place]
                if more > 0.0:
                    away = parts[place + 1] - middle
                    both = count + more
                    middle += away * (more / both)
                    squares += parts[place + 2] + away * away * (count * more / both)
                    count = both
            deviation = squares / count
            mean[channel] = middle
            var[channel] = deviation
            factor = 1.0 / sqrt(deviation + eps)
            if weighted:
                factor *= weight[channel]
            scale[channel] = factor
            shift[channel] = bias[channel] if biased else T(0)

    return run


@kernel("T* T* T* d T* T* T* i i i")
def factor(T: Any) -> Any:
    """Inverse deviation, scale and shift of a channel, from its variance."""

    def run(var, weight, bias, eps, inv_std, scale, shift, channels, weighted, biased):
        c = cuda.grid(1)
        if c < channels:
            deviation = 1.0 / sqrt(np.float64(var[c]) + eps)
            inv_std[c] = deviation
            scale[c] = deviation * weight[c] if weighted else deviation
            shift[c] = bias[c] if biased else T(0)

    return run


@kernel("T* T* T* T* T* T* T* i i i")
def fold(T: Any) -> Any:
    """A convolution's weight and bias with the normalisation after it, a thread for each weight."""
    zero = T(0)

    def run(weight, bias, mean, scale, shift, out, out_bias, count, each, biased):
        e = np.int32(cuda.grid(1))
        if e < count:
            o = quotient(e, each)
            out[e] = weight[e] * scale[o]
            if e == o * each:
                out_bias[o] = ((bias[o] if biased else zero) - mean[o]) * scale[o] + shift[o]

    return run


@kernel("T* T* T* T* T* i i i", bounds=(THREADS, 4))
def affine(T: Any, activation: str | None, width: int) -> Any:
    """``out = f((x - mean) * scale + shift)``, every channel its own."""
    f = scalars.activation(T, activation)

    def run(x, mean, scale, shift, out, channels, size, count):
        first = width * cuda.grid(1)
        if first < count:
            channel = quotient(first, size) % channels
            m, s, h = mean[channel], scale[channel], shift[channel]
            if width == 4:
                a, b, c, d = load4(x, first)
                store4(
                    out,
                    first,
                    f((a - m) * s + h),
                    f((b - m) * s + h),
                    f((c - m) * s + h),
                    f((d - m) * s + h),
                )
            else:
                out[first] = f((x[first] - m) * s + h)

    return run


@kernel("T* T* T* T* T* D* i i i i i", bounds=(THREADS, 4))
def products(T: Any, width: int, masked: bool) -> Any:
    """Sums of grad and of ``grad * x_hat`` over a slice of channel blockIdx.x.

    ``products = 0`` leaves the second out: x, mean and inv_std are not read then. ``masked``: grad
    counts as 0 where y is not positive, which it is not read for otherwise.
    """
    summed, zero = block_sum(THREADS), T(0)
    slope = scalars.relu_backward(T)

    def run(grad, y, x, mean, inv_std, parts, batch, channels, size, slices, products):
        scratch = cuda.shared.array(32, T)
        channel, part, thread = cuda.blockIdx.x, cuda.blockIdx.y, cuda.threadIdx.x
        step = np.int32(slices * THREADS * width)
        total, product = zero, zero
        m = mean[channel] if products else zero
        for e in range((part * THREADS + thread) * width, batch * size, step):
            image = quotient(e, size)
            place = (image * channels + channel) * size + (e - image * size)
            if width == 4:
                a, b, c, d = load4(grad, place)
                if masked:
                    p, q, r, s = load4(y, place)
                    a, b, c, d = slope(a, p), slope(b, q), slope(c, r), slope(d, s)
                total += (a + b) + (c + d)
                if products:
                    p, q, r, s = load4(x, place)
                    product += (a * (p - m) + b * (q - m)) + (c * (r - m) + d * (s - m))
            else:
                a = grad[place]
                if masked:
                    a = slope(a, y[place])
                total += a
                if products:
                    product += a * (x[place] - m)
        total = summed(total, scratch)
        product = summed(product, scratch)
        if thread == 0:
            place = 2 * (channel * slices + part)
            parts[place] = total
            parts[place + 1] = product * inv_std[channel] if products else product

    return run


@kernel("D* T* T* i i i")
def sums(T: Any) -> Any:
    """The channels' sums from their parts: of grad, and of the products where they are wanted."""

    def run(parts, first, second, channels, slices, products):
        channel = cuda.grid(1)
        if channel < channels:
            total, product = 0.0, 0.0
            for part in range(slices):
                place = 2 * (channel * slices + part)
                total += parts[place]
                product += parts[place + 1]
            first[channel] = total
            if products:
                second[channel] = product

    return run


@kernel("T* T* T* T* T* T* T* T* T* T i i i i", bounds=(THREADS, 4))
def backward(T: Any, training: bool, width: int, masked: bool) -> Any:
    """``weight * inv_std * (grad - grad_bias / M - x_hat * grad_weight / M)``; see the table.

    ``masked``: as `products`.
    """
    relu_slope = scalars.relu_backward(T)

    def run(
        grad, y, x, mean, inv_std, weight, grad_weight, grad_bias, out, share, channels, size,
        count, weighted,
    ):  # fmt: skip
        first = width * cuda.grid(1)
        if first < count:
            channel = quotient(first, size) % channels
            deviation = inv_std[channel]
            scale = deviation * weight[channel] if weighted else deviation
            if width == 4:
                a, b, c, d = load4(grad, first)
                if masked:
                    p, q, r, s = load4(y, first)
                    a, b, c, d = (
                        relu_slope(a, p), relu_slope(b, q), relu_slope(c, r), relu_slope(d, s)
                    )  # fmt: skip
                if training:
                    m = mean[channel]
                    less = grad_bias[channel] * share
                    slope = deviation * (grad_weight[channel] * share)
                    p, q, r, s = load4(x, first)
                    a -= less + (p - m) * slope
                    b -= less + (q - m) * slope
                    c -= less + (r - m) * slope
                    d -= less + (s - m) * slope
                store4(out, first, a * scale, b * scale, c * scale, d * scale)
            else:
                a = grad[first]
                if masked:
                    a = relu_slope(a, y[first])
                if training:
                    less = grad_bias[channel] * share
                    slope = deviation * (grad_weight[channel] * share)
                    a -= less + (x[first] - mean[channel]) * slope
                out[first] = a * scale

    return run


@entry("out", "mean", "var")
def batch_norm_train(
    x: DeviceArray,
    weight: DeviceArray | None,
    bias: DeviceArray | None,
    eps: float,
    activation: Activation,
    out: DeviceArray,
    mean: DeviceArray,
    var: DeviceArray,
) -> None:
    """Normalise each channel by its own mean and variance."""
    batch, channels, size = x.shape
    slices, width = _slices(channels, batch * size), _width(size)
    parts = empty((channels, slices, 3), np.float64, x)
    scale, shift = empty((channels,), x.dtype, x), empty((channels,), x.dtype, x)
    moments(x.dtype, width)((channels, slices), THREADS, x, parts, batch, channels, size, slices)
    statistics(x.dtype)(
        blocks_for(channels), THREADS, parts, weight or mean, bias or mean, eps, mean, var, scale,
        shift, channels, slices, weight is not None, bias is not None,
    )  # fmt: skip
    scale_and_shift(x, mean, scale, shift, activation, out)


@kernel("T* T* T T d T* T* T* i i i")
def track(T: Any) -> Any:
    """``running = (1 - momentum) * running + momentum * batch``, and the inverse deviation."""
    one = T(1)

    def run(
        mean, var, momentum, unbiased, eps, running_mean, running_var, inv_std, channels, has_mean,
        has_var,
    ):  # fmt: skip
        c = cuda.grid(1)
        if c < channels:
            if has_mean:
                running_mean[c] = (one - momentum) * running_mean[c] + momentum * mean[c]
            if has_var:
                running_var[c] = (one - momentum) * running_var[c] + momentum * (var[c] * unbiased)
            inv_std[c] = 1.0 / sqrt(np.float64(var[c]) + eps)

    return run


@entry("inv_std", updated=("running_mean", "running_var"))
def batch_norm_track(
    mean: DeviceArray,
    var: DeviceArray,
    count: int,
    momentum: float,
    eps: float,
    running_mean: DeviceArray | None,
    running_var: DeviceArray | None,
    inv_std: DeviceArray,
) -> None:
    """Move the running statistics towards a batch's, and its inverse deviation."""
    track(mean.dtype)(
        blocks_for(mean.size), THREADS, mean, var, momentum, count / (count - 1), eps,
        mean if running_mean is None else running_mean, var if running_var is None else running_var,
        inv_std, mean.size, running_mean is not None, running_var is not None,
    )  # fmt: skip


@entry("out")
def normalize(
    x: DeviceArray,
    mean: DeviceArray,
    var: DeviceArray,
    weight: DeviceArray | None,
    bias: DeviceArray | None,
    eps: float,
    activation: Activation,
    out: DeviceArray,
) -> None:
    """``out = f((x - mean) / sqrt(var + eps) * weight + bias)``."""
    _, scale, shift = factors(var, weight, bias, eps)
    scale_and_shift(x, mean, scale, shift, activation, out)


def factors(
    var: DeviceArray, weight: DeviceArray | None, bias: DeviceArray | None, eps: float
) -> tuple[DeviceArray, DeviceArray, DeviceArray]:
    """Inverse deviation, scale and shift of each channel."""
    channels = var.size
    inv_std, scale, shift = (empty(var.shape, var.dtype, var) for _ in range(3))
    factor(var.dtype)(
        blocks_for(channels), THREADS, var, weight or var, bias or var, eps, inv_std, scale, shift,
        channels, weight is not None, bias is not None,
    )  # fmt: skip
    return inv_std, scale, shift


def folded(
    weight: DeviceArray,
    bias: DeviceArray | None,
    mean: DeviceArray,
    factors: tuple[DeviceArray, DeviceArray],
) -> tuple[DeviceArray, DeviceArray]:
    """``weight * scale`` and ``(bias - mean) * scale + shift``, by filters."""
    scale, shift = factors
    out, out_bias = empty(weight.shape, weight.dtype, weight), empty(mean.shape, mean.dtype, mean)
    each = weight.size // max(weight.shape[0], 1)
    fold(weight.dtype)(
        blocks_for(weight.size), THREADS, weight, mean if bias is None else bias, mean, scale,
        shift, out, out_bias, weight.size, each, bias is not None,
    )  # fmt: skip
    return out, out_bias


def scale_and_shift(
    x: DeviceArray,
    mean: DeviceArray,
    scale: DeviceArray,
    shift: DeviceArray,
    activation: Activation,
    out: DeviceArray,
) -> None:
    """``out = f((x - mean) * scale + shift)``."""
    width = _width(x.shape[2])
    affine(x.dtype, activation, width)(
        blocks_for(x.size // width), THREADS, x, mean, scale, shift, out, x.shape[1], x.shape[2],
        x.size,
    )  # fmt: skip


@entry("grad_x", "grad_weight", "grad_bias")
def batch_norm_backward(
    grad: DeviceArray,
    x: DeviceArray,
    mean: DeviceArray,
    inv_std: DeviceArray,
    weight: DeviceArray | None,
    training: bool,
    y: DeviceArray | None,
    grad_x: DeviceArray,
    grad_weight: DeviceArray,
    grad_bias: DeviceArray,
) -> None:
    """Gradients of batch normalisation."""
    batch, channels, size = grad.shape
    width = _width(size)
    _channel_sums(grad, y, (x, mean, inv_std), grad_bias, grad_weight)
    backward(grad.dtype, training, width, y is not None)(
        blocks_for(grad.size // width), THREADS, grad, grad if y is None else y, x, mean, inv_std,
        mean if weight is None else weight, grad_weight, grad_bias, grad_x,
        1 / max(batch * size, 1), channels, size, grad.size, weight is not None,
    )  # fmt: skip


def channel_sum(grad: DeviceArray, out: DeviceArray) -> None:
    """Sum of grad (N, C, S) over all but C."""
    _channel_sums(grad, None, None, out, out)


def _channel_sums(
    grad: DeviceArray,
    y: DeviceArray | None,
    normalized: tuple[DeviceArray, DeviceArray, DeviceArray] | None,
    first: DeviceArray,
    second: DeviceArray,
) -> None:
    """Sums of grad to ``first``, and of grad times x_hat (x, mean, inv_std) to ``second``.

    Where y is not positive, grad counts as 0.
    """
    batch, channels, size = grad.shape
    slices = _slices(channels, batch * size)
    parts = empty((channels, slices, 2), np.float64, grad)
    wanted = normalized is not None
    products(grad.dtype, _width(size), y is not None)(
        (channels, slices), THREADS, grad, grad if y is None else y,
        *(normalized or (grad, first, first)), parts, batch, channels, size, slices, wanted,
    )  # fmt: skip
    sums(grad.dtype)(blocks_for(channels), THREADS, parts, first, second, channels, slices, wanted)
