"""Which outputs of a row read inside of the image."""

from __future__ import annotations

from .compiling import compiled


@compiled
def span(size: int, outputs: int, stride: int, offset: int) -> tuple[int, int]:
    """First and last-plus-one ``j < outputs`` with ``0 <= j * stride + offset < size``."""
    first = max(0, -(offset // stride))
    stop = min(outputs, (size - 1 - offset) // stride + 1)
    return first, max(first, stop)
