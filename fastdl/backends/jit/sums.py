"""Sums over one row, several lanes at a time: of CHUNK terms in the row's precision, then in float64.

The lanes are LLVM's choice when it compiles, so on one machine the order never changes. Four vectors
of them are usual: with AVX2 one lane of float32 has 32 terms of a chunk.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..table import Array
from .compiling import compiled, reduction

CHUNK = 1024
#: Fewer terms are summed in float64, whose shorter vectors leave less over.
SHORT = 128


@reduction
def _total(row: Array) -> Any:
    result = row.dtype.type(0)
    for i in range(row.size):
        result += row[i]
    return result


@reduction
def short_total(row: Array) -> float:
    """Sum of row, all in float64."""
    result = 0.0
    for i in range(row.size):
        result += np.float64(row[i])
    return result


@reduction
def _dot(a: Array, b: Array) -> Any:
    result = a.dtype.type(0)
    for i in range(a.size):
        result += a[i] * b[i]
    return result


@compiled
def total(row: Array) -> float:
    """Sum of row."""
    if row.size < SHORT:
        return short_total(row)
    if row.size <= CHUNK:
        return np.float64(_total(row))
    result = 0.0
    for first in range(0, row.size, CHUNK):
        result += np.float64(_total(row[first : first + CHUNK]))
    return result


@compiled
def dot(a: Array, b: Array) -> float:
    """Sum of a * b."""
    if a.size <= CHUNK:
        return np.float64(_dot(a, b))
    result = 0.0
    for first in range(0, a.size, CHUNK):
        result += np.float64(_dot(a[first : first + CHUNK], b[first : first + CHUNK]))
    return result
