"""What the bench found, as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from .limits import Limit, Limits
from .machine import describe
from .run import FASTEST, LayerTimes, Row


def report(
    times: Sequence[LayerTimes], limits: Limits, command: str, seconds: float, reuse: bool
) -> dict[str, Any]:
    """All of it: the machine, its limits, and every row. Times are in seconds."""
    return header(limits, command, seconds, reuse) | {
        "results": [_layer(layer, limits.all) for layer in times]
    }


def header(limits: Limits, command: str, seconds: float, reuse: bool) -> dict[str, Any]:
    """What holds for every row: the machine, its limits, the way of measuring."""
    return {
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe(),
        "limits": limits.describe(),
        "method": {
            "seconds_a_layer": seconds,
            "memory": "reused" if reuse else "as each library has it by default",
            "dtype": "float32",
            "inputs": "random normal",
            "figure": "median of single calls, implementations interleaved in one process",
        },
    }


def _layer(times: LayerTimes, limit: Limit) -> dict[str, Any]:
    layer = times.layer
    return {
        "layer": layer.describe(),
        "limit": {
            "binding": limit.binding(layer),
            "seconds": limit.seconds(layer),
        },
        "rows": [_row(times, row, limit) for row in times.rows],
    }


def _row(times: LayerTimes, row: Row, limit: Limit) -> dict[str, Any]:
    layer, timing = times.layer, row.timing
    fields: dict[str, Any] = {
        "name": row.name,
        # JSON has no infinity.
        "error": row.error if row.error < float("inf") else None,
        "right": timing is not None,
        "measured_on": row.measured.describe() if row.measured else None,
    }
    if timing is None:
        return fields
    others = (other.name for other in times.rows if other.name != row.name)
    ratios = {name: times.ratio(row, name) for name in (*others, FASTEST)}
    return fields | {
        "time": asdict(timing),
        "gflops": layer.flops / timing.seconds / 1e9,
        "gbytes_per_second": layer.nbytes / timing.seconds / 1e9,
        "fraction_of_limit": limit.fraction(layer, timing.seconds),
        "times_as_fast_as": {name: ratio for name, ratio in ratios.items() if ratio is not None},
    }


def to_json(fields: dict[str, Any]) -> str:
    """Indented JSON text."""
    return json.dumps(fields, indent=2) + "\n"
