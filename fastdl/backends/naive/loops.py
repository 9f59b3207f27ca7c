"""The outer loops of every kernel."""

from collections.abc import Iterator
from itertools import product


def positions(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Every index of an array of that shape, the last one running fastest."""
    return product(*map(range, shape))
