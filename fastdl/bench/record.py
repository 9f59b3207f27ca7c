"""Runs of the bench that are kept: a JSON file each, with the machine and a line a layer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ..errors import ArgumentError
from .layer import Layer
from .limits import Limit, Limits
from .report import header
from .run import LayerTimes, Row
from .timing import Timing

#: Where they stand in the repository.
FOLDER = Path("benchmarks", "results")
#: Figures of a time that are kept.
_DIGITS = 4


@dataclass(frozen=True, slots=True)
class Record:
    """A run: when, by which command, on what, and each layer's times.

    ``machine`` is what `machine.describe` gave, ``reuse`` whether everyone
    reused memory.
    """

    date: datetime
    command: str
    machine: dict[str, Any]
    limits: Limits
    reuse: bool
    times: tuple[LayerTimes, ...]

    @property
    def place(self) -> tuple[str, str, int]:
        """What results must share to stand in one table: processor, instruction set, threads."""
        return (
            self.machine["processor"],
            self.machine["instruction_set"] or "no compiled kernels",
            self.machine["threads"],
        )


def save(
    folder: Path,
    times: Sequence[LayerTimes],
    limits: Limits,
    command: str,
    seconds: float,
    reuse: bool,
) -> Path:
    """Write a run to a new file of ``folder``, made if it is not there; the file."""
    fields = header(limits, command, seconds, reuse)
    machine = fields["machine"]
    names = [
        re.sub(r"\W", "", fields["date"].partition("+")[0]),
        machine["processor"],
        machine["instruction_set"] or "pure",
        f"{machine['threads']}t",
        "reuse" if reuse else "default",
    ]
    name = "-".join(re.sub(r"[^a-z0-9]+", "_", part.lower()) for part in names)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    lines = ",\n".join("  " + json.dumps(_layer(layer)) for layer in times)
    head = json.dumps(fields, indent=1).removesuffix("\n}")
    path.write_text(f'{head},\n "results": [\n{lines}\n ]\n}}\n')
    return path


def load(folder: Path) -> list[Record]:
    """The runs in ``folder``, from the oldest on."""
    # Their names begin with the date; training steps are another matter, with files of their own.
    return sorted(map(_record, folder.glob("[0-9]*.json")), key=lambda record: record.date)


def newest(records: Iterable[Record], reuse: bool) -> list[LayerTimes]:
    """Of each layer its newest times, with or without reuse, in the order of their first run."""
    found: dict[str, LayerTimes] = {}
    for record in records:
        if record.reuse == reuse:
            found |= {layer.layer.label: layer for layer in record.times}
    return list(found.values())


def _layer(times: LayerTimes) -> dict[str, Any]:
    # A layer's own defaults are left out.
    usual = asdict(Layer("", "relu", 1, 1))
    fields = asdict(times.layer).items()
    described = {name: value for name, value in fields if value != usual[name]}
    return {
        "layer": {"operation": times.layer.operation, "batch": 1, "channels": 1} | described,
        "rows": [_row(row) for row in times.rows if row.timing],
    }


def _row(row: Row) -> dict[str, Any]:
    assert row.timing is not None
    timing = asdict(row.timing)
    rounded = {
        name: float(f"{value:.{_DIGITS}g}") if name != "calls" else value
        for name, value in timing.items()
    }
    fields = {"name": row.name, "error": float(f"{row.error:.2g}"), **rounded}
    return fields | ({"measured_on": asdict(row.measured)} if row.measured else {})


def _record(path: Path) -> Record:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        limits = fields["limits"]
        return Record(
            datetime.fromisoformat(fields["date"]),
            fields["command"],
            fields["machine"],
            Limits(Limit(**limits["one"]), Limit(**limits["all"]), limits["source"]),
            fields["method"]["memory"] == "reused",
            tuple(map(_layer_times, fields["results"])),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ArgumentError(f"{path} is not a file of `fastdl bench --save`: {error!r}") from None


def _layer_times(fields: dict[str, Any]) -> LayerTimes:
    rows = []
    for row in fields["rows"]:
        timing = Timing(row["seconds"], row["low"], row["high"], row["calls"])
        measured = row.get("measured_on")
        rows.append(Row(row["name"], row["error"], timing, Layer(**measured) if measured else None))
    return LayerTimes(Layer(**fields["layer"]), tuple(rows))
