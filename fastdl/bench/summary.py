"""How a backend stands to its peers: the geometric mean of each class of layers, and the worst."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import geometric_mean

from .layer import BACKWARD, KINDS
from .run import FASTEST, LayerTimes

#: Every class and its backward, in the order of a table.
_ORDER = [name for kind in KINDS for name in (kind, BACKWARD.format(kind))]
_KIND, _COUNT, _RATIO = 25, 8, 10


@dataclass(frozen=True, slots=True)
class Standing:
    """A class of layers: how many, the geometric mean of the ratios, the worst and where it is."""

    kind: str
    layers: int
    mean: float
    worst: float
    worst_layer: str


def standings(times: Sequence[LayerTimes], name: str, other: str = FASTEST) -> list[Standing]:
    """How many times as fast as ``other`` the implementation ``name`` is, by class."""
    ratios: dict[str, dict[str, float]] = {}
    for layer in times:
        row = layer.row(name)
        ratio = layer.ratio(row, other) if row else None
        if ratio is not None:
            ratios.setdefault(layer.layer.kind, {})[layer.layer.label] = ratio
    found = []
    for kind in sorted(ratios, key=_ORDER.index):
        of_kind = ratios[kind]
        worst = min(of_kind, key=lambda label: of_kind[label])
        mean = geometric_mean(of_kind.values())
        found.append(Standing(kind, len(of_kind), mean, of_kind[worst], worst))
    return found


def summary(times: Sequence[LayerTimes], names: Sequence[str]) -> str:
    """A block of text for each of ``names`` that has ratios; empty where none has."""
    blocks = [block for name in names if (block := _block(times, name))]
    return "\n\n".join(blocks)


def _block(times: Sequence[LayerTimes], name: str) -> str:
    found = standings(times, name)
    if not found:
        return ""
    head = f"{name} x {FASTEST}"
    lines = [
        head.ljust(_KIND + 2)
        + "layers".rjust(_COUNT)
        + "mean".rjust(_RATIO)
        + "worst".rjust(_RATIO)
    ]
    lines += [
        f"  {s.kind}".ljust(_KIND + 2)
        + f"{s.layers}".rjust(_COUNT)
        + f"{s.mean:.2f}".rjust(_RATIO)
        + f"{s.worst:.2f}".rjust(_RATIO)
        + f"  {s.worst_layer}"
        for s in found
    ]
    return "\n".join(lines)
