"""First values of weights: spread so that signals keep their size from layer to layer.

References
----------
Glorot and Bengio, "Understanding the difficulty of training deep feedforward
neural networks", AISTATS 2010, section 4.2.1 (Xavier).
He, Zhang, Ren and Sun, "Delving deep into rectifiers", ICCV 2015, section 2.2 (He).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..errors import ArgumentError, DTypeError, ShapeError

Array = NDArray[Any]
#: What every layer accepts as a source of randomness; None takes fresh entropy.
Seed = np.random.Generator | int | None
#: ``(shape, rng, dtype) -> weights``.
Initializer = Callable[[tuple[int, ...], np.random.Generator, np.dtype[Any]], Array]
#: What layers take: a name of `INITIALIZERS`, or an initialiser.
Init = str | Initializer


def float_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """``dtype`` as float32 or float64, the two that layers can have."""
    kind = np.dtype(dtype)
    if kind not in (np.float32, np.float64):
        raise DTypeError(f"dtype must be float32 or float64, got {kind}")
    return kind


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Values that one output sees, and outputs that one value reaches.

    ``shape`` is (out, in) of a linear layer or (O, C/G, KH, KW) of a convolution.

    >>> fans((10, 64)), fans((16, 8, 3, 3))
    ((64, 10), (72, 144))
    """
    if len(shape) < 2:
        raise ShapeError(f"shape must have at least 2 axes, got {shape}")
    taps = math.prod(shape[2:])
    return shape[1] * taps, shape[0] * taps


def xavier(shape: tuple[int, ...], rng: np.random.Generator, dtype: np.dtype[Any]) -> Array:
    """Normal with standard deviation ``1 / sqrt(fan_in)``, the simple form: for sigmoid and tanh."""
    return _normal(shape, rng, dtype, 1 / max(1, fans(shape)[0]))


def xavier_uniform(shape: tuple[int, ...], rng: np.random.Generator, dtype: np.dtype[Any]) -> Array:
    """Uniform with variance ``2 / (fan_in + fan_out)``, Glorot's: for sigmoid and tanh."""
    return _uniform(shape, rng, dtype, 2 / max(1, sum(fans(shape))))


def xavier_normal(shape: tuple[int, ...], rng: np.random.Generator, dtype: np.dtype[Any]) -> Array:
    """Normal with variance ``2 / (fan_in + fan_out)``, Glorot's: for sigmoid and tanh."""
    return _normal(shape, rng, dtype, 2 / max(1, sum(fans(shape))))


def he_uniform(shape: tuple[int, ...], rng: np.random.Generator, dtype: np.dtype[Any]) -> Array:
    """Uniform with variance ``2 / fan_in``: for ReLU."""
    return _uniform(shape, rng, dtype, 2 / max(1, fans(shape)[0]))


def he_normal(shape: tuple[int, ...], rng: np.random.Generator, dtype: np.dtype[Any]) -> Array:
    """Normal with variance ``2 / fan_in``: for ReLU.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import nn
    >>> w = nn.he_normal((64, 32, 3, 3), np.random.default_rng(0), np.dtype(np.float32))
    >>> bool(abs(w.var() * 288 / 2 - 1) < 0.05)
    True
    """
    return _normal(shape, rng, dtype, 2 / max(1, fans(shape)[0]))


def normal(sd: float) -> Initializer:
    """What draws from a normal distribution of this standard deviation, whatever the shape.

    Examples
    --------
    >>> from fastdl import nn
    >>> layer = nn.Linear(100, 100, init=nn.init.normal(0.01), rng=0)
    >>> round(float(layer.weight.std()), 3)
    0.01
    """
    if not (math.isfinite(sd) and sd >= 0):
        raise ArgumentError(f"sd must be a finite number, at least 0, got {sd!r}")

    def draw(shape: tuple[int, ...], rng: np.random.Generator, dtype: np.dtype[Any]) -> Array:
        return _normal(shape, rng, dtype, sd**2)

    return draw


def constant(value: float) -> Initializer:
    """What fills with one value: units that start alike stay alike, as an experiment shows."""

    def fill(shape: tuple[int, ...], rng: np.random.Generator, dtype: np.dtype[Any]) -> Array:
        return np.full(shape, value, dtype)

    return fill


#: By name. Glorot and Xavier are one person.
INITIALIZERS: dict[str, Initializer] = {
    "xavier": xavier,
    "xavier_normal": xavier_normal,
    "xavier_uniform": xavier_uniform,
    "glorot_normal": xavier_normal,
    "glorot_uniform": xavier_uniform,
    "he_normal": he_normal,
    "he_uniform": he_uniform,
}


def get(init: Init) -> Initializer:
    """The initialiser of this name; a callable is one itself.

    Parameters
    ----------
    init : str or callable
        A name of `INITIALIZERS`: ``"xavier"`` (standard deviation 1/sqrt(fan_in)),
        ``"xavier_normal"``, ``"xavier_uniform"`` (or ``glorot_``, with fan_in +
        fan_out), ``"he_normal"``, ``"he_uniform"`` (2/fan_in). Or ``(shape, rng,
        dtype) -> weights``, such as ``normal(0.01)`` gives.

    Raises
    ------
    ArgumentError
        If there is none of that name.
    DTypeError
        If it is neither a name nor a callable.

    Examples
    --------
    >>> from fastdl import nn
    >>> nn.init.get("he_normal") is nn.he_normal
    True
    """
    if callable(init):
        return init
    if not isinstance(init, str):
        raise DTypeError(f"init must be a name or a callable, got {init!r}")
    if init not in INITIALIZERS:
        raise ArgumentError(f"init must be one of {', '.join(INITIALIZERS)}, got {init!r}")
    return INITIALIZERS[init]


def _uniform(
    shape: tuple[int, ...], rng: np.random.Generator, dtype: np.dtype[Any], variance: float
) -> Array:
    # A uniform distribution on [-b, b] has variance b**2 / 3.
    bound = math.sqrt(3 * variance)
    return rng.uniform(-bound, bound, shape).astype(dtype)


def _normal(
    shape: tuple[int, ...], rng: np.random.Generator, dtype: np.dtype[Any], variance: float
) -> Array:
    return (rng.standard_normal(shape) * math.sqrt(variance)).astype(dtype)
