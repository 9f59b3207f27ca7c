"""Which parameters something is for: by default the weights, not biases and norms' parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from numpy.typing import NDArray

from ..errors import DTypeError

Array = NDArray[Any]
#: None: arrays of at least 2 axes; a name or pattern such as ``"*.weight"``, several of them; or
#: a function of name and array.
Selection = str | Sequence[str] | Callable[[str, Array], bool] | None


def check_selection(argument: str, selection: Any) -> None:
    """Raise DTypeError, naming the ``argument``, if ``selection`` is none."""
    if selection is None or isinstance(selection, str) or callable(selection):
        return
    if not isinstance(selection, Sequence) or not all(isinstance(name, str) for name in selection):
        raise DTypeError(
            f"{argument} must be None, a name or pattern, several of them, "
            f"or a function of name and array, got {selection!r}"
        )


def selects(selection: Selection, name: str, array: Array) -> bool:
    """Whether the parameter ``array`` called ``name`` is among those of ``selection``."""
    if selection is None:
        return array.ndim >= 2
    if callable(selection):
        return bool(selection(name, array))
    patterns = [selection] if isinstance(selection, str) else selection
    return any(fnmatchcase(name, pattern) for pattern in patterns)
