"""Sums over one row in float64, several lanes at a time.

The lanes are LLVM's choice when it compiles, so on one machine the order never changes.
"""

from __future__ import annotations

import numpy as np

from ..table import Array
from .compiling import reduction


@reduction
def total(row: Array) -> float:
    """Sum of row."""
    result = 0.0
    for i in range(row.size):
        result += np.float64(row[i])
    return result


@reduction
def dot(a: Array, b: Array) -> float:
    """Sum of a * b."""
    result = 0.0
    for i in range(a.size):
        result += np.float64(a[i]) * np.float64(b[i])
    return result


@reduction
def squares(row: Array, center: float) -> float:
    """Sum of (row - center)**2."""
    result = 0.0
    for i in range(row.size):
        result += (np.float64(row[i]) - center) ** 2
    return result
