"""A network as a table."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..geometry import Shape

if TYPE_CHECKING:
    from .base import Layer

_PREFIXES = {1000: ("", "k", "M", "G", "T", "P"), 1024: ("", "Ki", "Mi", "Gi", "Ti", "Pi")}
_HEADINGS = ("layer", "kind", "output", "parameters", "FLOPs", "activation")


@dataclass(frozen=True, slots=True)
class Row:
    """A layer: its name and class, and what one forward of it makes and takes.

    ``flops`` counts a multiplication and an addition each as one operation;
    ``activation_bytes`` is the size of the output.
    """

    name: str
    kind: str
    output_shape: Shape
    parameters: int
    flops: int
    activation_bytes: int


@dataclass(frozen=True, slots=True)
class Summary:
    """The layers of a network that have no layers inside, and their totals. `str` makes a table."""

    rows: tuple[Row, ...]

    @property
    def parameters(self) -> int:
        """How many numbers training changes."""
        return sum(row.parameters for row in self.rows)

    @property
    def flops(self) -> int:
        """Floating-point operations of one forward."""
        return sum(row.flops for row in self.rows)

    @property
    def activation_bytes(self) -> int:
        """What all outputs take together."""
        return sum(row.activation_bytes for row in self.rows)

    def __str__(self) -> str:
        lines = [_HEADINGS]
        for row in self.rows:
            numbers = _numbers(row.parameters, row.flops, row.activation_bytes)
            lines.append((row.name, row.kind, str(row.output_shape), *numbers))
        count = f"{len(self.rows)} layer{'s' if len(self.rows) != 1 else ''}"
        totals = _numbers(self.parameters, self.flops, self.activation_bytes)
        lines.append((count, "", "", *totals))
        widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADINGS))]
        return "\n".join(_aligned(line, widths) for line in lines)


def summarize(layer: Layer, input_shape: Shape) -> Summary:
    """The table of ``layer`` for such inputs."""
    dtypes = {array.dtype for array in layer.parameters().values()}
    itemsize = max((dtype.itemsize for dtype in dtypes), default=np.dtype(np.float32).itemsize)
    return Summary(tuple(_rows("", layer, tuple(input_shape), itemsize)))


def _rows(name: str, layer: Layer, shape: Shape, itemsize: int) -> Iterator[Row]:
    parts = layer.parts(shape)
    for part, inner, part_shape in parts:
        yield from _rows(f"{name}.{part}" if name else part, inner, part_shape, itemsize)
    flops = layer.flops(shape) - sum(inner.flops(sizes) for _, inner, sizes in parts)
    # A container that only passes arrays on has no row of its own.
    if parts and not flops:
        return
    out = layer.output_shape(shape)
    yield Row(
        name or "-",
        type(layer).__name__,
        out,
        sum(array.size for array in layer.params.values()),
        flops,
        math.prod(out) * itemsize if layer.makes_array else 0,
    )


def _numbers(parameters: int, flops: int, size: int) -> tuple[str, str, str]:
    return f"{parameters:,}", _short(flops, 1000, ""), _short(size, 1024, "B")


def _short(value: int, step: int, unit: str) -> str:
    """In three figures, with a prefix."""
    scaled, power = float(value), 0
    while scaled >= step and power < len(_PREFIXES[step]) - 1:
        scaled, power = scaled / step, power + 1
    number = f"{scaled:.3g}" if power else str(value)
    return f"{number} {_PREFIXES[step][power]}{unit}".rstrip()


def _aligned(line: tuple[str, ...], widths: list[int]) -> str:
    texts = [text.ljust(width) for text, width in zip(line[:3], widths[:3], strict=True)]
    numbers = [text.rjust(width) for text, width in zip(line[3:], widths[3:], strict=True)]
    return "  ".join(texts + numbers).rstrip()
