"""Types of command line arguments, for argparse."""

from __future__ import annotations

import math
from argparse import ArgumentTypeError
from collections.abc import Callable


def whole(minimum: int, maximum: int = 2**31 - 1) -> Callable[[str], int]:
    """A type for whole numbers from ``minimum`` to ``maximum``.

    >>> whole(1)("3")
    3
    """

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise ArgumentTypeError(f"must be a whole number, got {text!r}") from None
        if not minimum <= number <= maximum:
            raise ArgumentTypeError(f"must be from {minimum} to {maximum}, got {number}")
        return number

    return parse


def positive(text: str) -> float:
    """A finite number above zero.

    >>> positive("1e-3")
    0.001
    """
    try:
        number = float(text)
    except ValueError:
        raise ArgumentTypeError(f"must be a number, got {text!r}") from None
    if not (math.isfinite(number) and number > 0):
        raise ArgumentTypeError(f"must be a finite number above 0, got {text}")
    return number
