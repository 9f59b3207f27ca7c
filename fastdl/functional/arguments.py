"""Arguments that are neither arrays nor part of a geometry."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np

from ..backends.table import Array, Backend
from ..errors import ArgumentError, DTypeError, ShapeError
from ..geometry import ConvGeometry, Shape, integer

ACTIVATIONS = ("relu", "sigmoid", "tanh")
ALGORITHMS = ("direct", "depthwise", "winograd")
REDUCTIONS = ("mean", "sum", "none")


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise ArgumentError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def check_activation(activation: Any) -> None:
    if activation is not None:
        check_choice("activation", activation, ACTIVATIONS)


def check_algorithm(
    algorithm: Any, kernels: Backend, geometry: ConvGeometry, dtype: np.dtype[Any]
) -> None:
    if algorithm is None:
        return
    check_choice("algorithm", algorithm, ALGORITHMS)
    serving = kernels.conv2d_algorithms(geometry, dtype)
    if algorithm not in serving:
        raise ArgumentError(
            f"algorithm must be one that serves this convolution on this backend "
            f"({', '.join(serving)}), got {algorithm!r}"
        )


def check_needs(needs: Any) -> None:
    if not isinstance(needs, (tuple, list)) or len(needs) != 3:
        raise ArgumentError(f"needs must be three booleans (x, weight, bias), got {needs!r}")


def real(name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> float:
    """``value`` as a float in ``[low, high]``; NaN only where there are no bounds."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise DTypeError(f"{name} must be a real number, got {value!r}")
    number = float(value)
    bounded = low > -math.inf or high < math.inf
    if bounded and not low <= number <= high:
        allowed = f"between {low} and {high}" if high < math.inf else f"at least {low}"
        raise ArgumentError(f"{name} must be {allowed}, got {value!r}")
    return number


def image_shape(name: str, value: Any) -> Shape:
    """``value`` as the shape (N, C, H, W) of an array."""
    if not isinstance(value, (tuple, list)) or len(value) != 4:
        raise ShapeError(f"{name} must be four integers (N, C, H, W), got {value!r}")
    return tuple(integer(f"{name}[{axis}]", size, 0) for axis, size in enumerate(value))


def axis(name: str, value: Any, array_name: str, array: Array) -> int:
    """``value`` as a dimension of ``array``, counted from its front."""
    if array.ndim == 0:
        raise ShapeError(f"{array_name} must have at least 1 dimension, got shape ()")
    number = integer(name, value, -array.ndim)
    if number >= array.ndim:
        raise ArgumentError(f"{name} must be at most {array.ndim - 1}, got {value!r}")
    return number % array.ndim
