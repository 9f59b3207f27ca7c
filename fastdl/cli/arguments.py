"""Types of command line arguments, for argparse."""

from __future__ import annotations

import math
from argparse import ArgumentTypeError
from collections.abc import Callable

DEVICE_HELP = "cpu (default), cuda (an NVIDIA GPU) or cuda:NUMBER: where the network's arrays are"


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
    return _finite(text, "above 0", lambda number: number > 0)


def not_negative(text: str) -> float:
    """A finite number of at least zero.

    >>> not_negative("0")
    0.0
    """
    return _finite(text, "of at least 0", lambda number: number >= 0)


def share(text: str) -> float:
    """A number from zero to one.

    >>> share("0.1")
    0.1
    """
    return _finite(text, "from 0 to 1", lambda number: 0 <= number <= 1)


def image_size(text: str) -> tuple[int, int]:
    """Height and width in pixels.

    >>> image_size("32"), image_size("48x64")
    ((32, 32), (48, 64))
    """
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise ArgumentTypeError(f"must be HEIGHTxWIDTH in pixels, such as 64x64, got {text!r}")
    return int(sides[0]), int(sides[-1])


def _finite(text: str, range_: str, inside: Callable[[float], bool]) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ArgumentTypeError(f"must be a number, got {text!r}") from None
    if not (math.isfinite(number) and inside(number)):
        raise ArgumentTypeError(f"must be a finite number {range_}, got {text}")
    return number
