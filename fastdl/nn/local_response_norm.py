"""Local response normalisation, AlexNet's."""

from __future__ import annotations

import math

import numpy as np

from ..errors import ShapeError
from ..functional import on_device
from ..functional.inputs import check_shape, floats
from ..functional.outputs import empty
from ..geometry import Shape, integer
from .base import Array, Layer


class LocalResponseNorm(Layer):
    """Divide each value by a power of its neighbours' mean square, across channels.

    ``out[n,c] = x[n,c] / (k + alpha/size * sum_d x[n,d]**2) ** beta``, where d runs
    over the ``size`` channels from ``c - size//2`` on; those that are not there
    count as zero.

    Parameters
    ----------
    size : int
        Channels in a neighbourhood.
    alpha, beta, k : float, default 1e-4, 0.75 and 1
        As in the formula.

    Raises
    ------
    ShapeError
        In `forward`, if x has fewer than 3 axes (N, C, ...).

    References
    ----------
    Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep
    convolutional neural networks", NIPS 2012, section 3.3 (which has no division
    by size, and k = 2).

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import nn
    >>> norm = nn.LocalResponseNorm(3, alpha=3, beta=1)
    >>> norm(np.ones((1, 4, 1, 1)))[0, :, 0, 0].round(3)
    array([0.333, 0.25 , 0.25 , 0.333])
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size = integer("size", size, 1)
        self.alpha, self.beta, self.k = float(alpha), float(beta), float(k)

    def flops(self, shape: Shape) -> int:
        # A square, the sum, and multiplication, addition, power and quotient.
        return math.prod(shape) * (self.size + 5)

    def forward(self, x: Array) -> Array:
        x = floats("x", x)
        if x.ndim < 3:
            raise ShapeError(f"x must have 3 or more dimensions (N, C, ...), got shape {x.shape}")
        if on_device.is_device(x):
            out, sums = on_device.local_response_norm(x, self.size, self.alpha, self.beta, self.k)
            self._saved = x, sums
            return out  # type: ignore[no-any-return]
        out, sums = empty(x.shape, x.dtype), empty(x.shape, x.dtype)
        before = self.size // 2
        with np.errstate(all="ignore"):
            # Image by image: what one pass writes, the next finds in a cache.
            for image, base, result in zip(x, sums, out, strict=True):
                _window_sums(image * image, before, self.size - 1 - before, base)
                base *= self.alpha / self.size
                base += self.k
                np.multiply(image, self._inverse_power(base), out=result)
        self._saved = x, sums
        return out

    def backward(self, grad: Array) -> Array:
        """``grad_x[c] = grad[c] / b[c]**beta - 2 alpha beta / size * x[c] * sum_d r[d]``.

        b is the base of the power, ``r = grad * x / b**(beta + 1)``, and d runs over
        the channels in whose neighbourhood c is.
        """
        x, bases = self._recall()
        grad = floats("grad", grad, x.dtype)
        check_shape("grad", grad, x.shape)
        if on_device.is_device(x):
            return on_device.local_response_norm_backward(  # type: ignore[no-any-return]
                grad, x, bases, self.size, self.alpha, self.beta
            )
        out = empty(x.shape, x.dtype)
        before = self.size // 2
        factor = x.dtype.type(-2 * self.alpha * self.beta / self.size)
        with np.errstate(all="ignore"):
            for image, base, upstream, result in zip(x, bases, grad, out, strict=True):
                direct = upstream * self._inverse_power(base)
                _window_sums(direct * image / base, self.size - 1 - before, before, result)
                result *= image
                result *= factor
                result += direct
        return out

    def _inverse_power(self, base: Array) -> Array:
        """``base ** -beta``, for the usual beta by square roots, which are quicker."""
        if self.beta != 0.75:
            return np.power(base, -self.beta)
        root = np.sqrt(base)
        return 1 / (root * np.sqrt(root))


def _window_sums(values: Array, before: int, after: int, out: Array) -> None:
    """``out[c] = sum of values[c - before : c + after + 1]``, along the first axis."""
    out[...] = values
    channels = len(values)
    for shift in range(1, min(before, channels - 1) + 1):
        out[shift:] += values[:-shift]
    for shift in range(1, min(after, channels - 1) + 1):
        out[:-shift] += values[shift:]
