"""What the bench can time: something that computes a layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from ..backends.table import Array
from .layer import Arrays, Layer


@dataclass(frozen=True, slots=True)
class Call:
    """A layer made ready: ``run()`` is what is timed, ``arrays(run())`` its results for NumPy."""

    run: Callable[[], Any]
    arrays: Callable[[Any], tuple[Array, ...]]


class Implementation(Protocol):
    """One backend of fastdl, or one of its peers."""

    @property
    def name(self) -> str: ...

    def serves(self, layer: Layer) -> bool:
        """Whether it offers the layer's operation."""

    def prepare(self, layer: Layer, inputs: Arrays, reuse: bool) -> Call:
        """Do all that is done once for many calls. With ``reuse``, give it its output's memory."""
