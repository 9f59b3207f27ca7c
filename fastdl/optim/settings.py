"""Numbers that an optimiser, a schedule or a regulariser is made with."""

from __future__ import annotations

import math
from typing import Any

from ..errors import ArgumentError
from ..functional.arguments import real


def positive(name: str, value: Any) -> float:
    """``value`` as a float, if it is a finite number above zero."""
    number = real(name, value)
    if not (math.isfinite(number) and number > 0):
        raise ArgumentError(f"{name} must be a finite number above 0, got {value!r}")
    return number


def not_negative(name: str, value: Any) -> float:
    """``value`` as a float, if it is a finite number of at least zero."""
    number = real(name, value)
    if not (math.isfinite(number) and number >= 0):
        raise ArgumentError(f"{name} must be a finite number of at least 0, got {value!r}")
    return number


def decay_rate(name: str, value: Any) -> float:
    """``value`` as a float, if it can be the factor of a decaying average: 0 <= value < 1."""
    number = real(name, value)
    if not 0 <= number < 1:
        raise ArgumentError(f"{name} must be at least 0 and below 1, got {value!r}")
    return number
