"""What was found: a table of text, and a JSON file that is kept."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastdl.backends import gpu
from fastdl.backends.cuda.arrays import current_device
from fastdl.backends.cuda.cublas import library
from fastdl.backends.cuda.target import SIMULATED
from fastdl.bench.machine import describe
from fastdl.bench.table import duration, figure
from fastdl.bench.timing import Timing

from .limits import Limits
from .works import Work

#: Ours by precision, and PyTorch's with TF32 forbidden and allowed.
PRECISIONS = ("float32", "tf32", "bf16")
TORCH, TORCH_TF32 = "torch", "torch tf32"
#: The largest ``|out - truth| / |truth|`` that is right.
TOLERANCE = {"float32": 2e-6, "tf32": 1e-3, "bf16": 8e-3}
_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Result:
    """A work's errors by precision, and the times by precision and peer."""

    work: Work
    errors: dict[str, float]
    #: From PyTorch's result, on the inputs that are timed; None without PyTorch.
    apart: float | None
    times: dict[str, Timing]
    #: Seconds that the host takes to start a call in float32.
    host: float

    def ratio(self, ours: str, theirs: str) -> float | None:
        """How many times as fast as PyTorch."""
        if ours not in self.times or theirs not in self.times:
            return None
        return self.times[theirs].seconds / self.times[ours].seconds

    def fraction(self, limits: Limits, precision: str) -> float:
        """The part of the limit that binds."""
        least = limits.seconds(self.work.flops, self.work.nbytes, precision)
        return least / self.times[precision].seconds

    @property
    def right(self) -> bool:
        exact = all(error <= TOLERANCE[name] for name, error in self.errors.items())
        return exact and (self.apart is None or self.apart <= 1e-4)


HEADING = (
    f"{'':<46}{'time':>10}{'of limit':>14}{'x torch':>9}{'tf32':>10}{'of limit':>10}"
    f"{'x tf32':>8}{'bf16':>10}{'host':>10}{'error':>9}"
)
NOTES = """\
time: of float32, on the GPU, median; of limit: what the copy bandwidth or the peak of that
arithmetic (by mma.sync for tensor cores) would take, over the time; x torch: PyTorch's time with
TF32 forbidden over ours; tf32, bf16: ours with use_precision; x tf32: PyTorch's time with TF32
allowed over that; host: what the host takes to start a call; error: of float32, from float64."""


def line(result: Result, limits: Limits) -> str:
    """A row of the table."""
    work, times = result.work, result.times

    def time(name: str) -> str:
        return duration(times[name].seconds) if name in times else "-"

    def times_as_fast(ours: str, theirs: str) -> str:
        ratio = result.ratio(ours, theirs)
        return "-" if ratio is None else figure(ratio)

    binding = limits.binding(work.flops, work.nbytes, "float32")
    tensor = f"{result.fraction(limits, 'tf32'):.0%}" if "tf32" in times else "-"
    return (
        f"{work.name:<46}{time('float32'):>10}"
        f"{f'{result.fraction(limits, PRECISIONS[0]):.0%} {binding}':>14}"
        f"{times_as_fast('float32', TORCH):>9}{time('tf32'):>10}{tensor:>10}"
        f"{times_as_fast('tf32', TORCH_TF32):>8}{time('bf16'):>10}{duration(result.host):>10}"
        f"{result.errors['float32']:>9.1e}{'' if result.right else '  WRONG'}"
    )


def device() -> dict[str, Any]:
    """The GPU, its driver, and what PyTorch calls."""
    if SIMULATED:
        return {"name": "simulated"}
    found = gpu.gpus()[current_device()]
    driver = _DRIVER.read_text().splitlines()[0] if _DRIVER.exists() else None
    cuda = ".".join(map(str, gpu.driver_version()))
    return asdict(found) | {"driver": driver, "driver_cuda": cuda}


def save(
    folder: Path,
    results: Sequence[Result],
    limits: Limits,
    command: str,
    torch: Any,
    left_out: Sequence[str],
) -> Path:
    """Write all to a file of ``folder``, named for the GPU; the file."""
    fields = {
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device(),
        "machine": describe(),
        "cuda": None if torch is None else torch.version.cuda,
        "cudnn": None if torch is None else torch.backends.cudnn.version(),
        "matrix_products_by_cublas": library() is not None,
        "limits": asdict(limits),
        "left_out": list(left_out),
    }
    rows = ",\n".join("  " + json.dumps(_row(result, limits)) for result in results)
    name = re.sub(r"[^a-z0-9]+", "_", fields["device"]["name"].lower())
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"gpu-{name}.json"
    head = json.dumps(fields, indent=1).removesuffix("\n}")
    path.write_text(f'{head},\n "results": [\n{rows}\n ]\n}}\n', encoding="utf-8")
    return path


def _row(result: Result, limits: Limits) -> dict[str, Any]:
    work = result.work
    served = [name for name in PRECISIONS if name in result.times]
    return {
        "name": work.name,
        "title": work.title,
        "flops": work.flops,
        "nbytes": work.nbytes,
        "right": result.right,
        "errors": result.errors,
        "apart_from_torch": result.apart,
        "times": {name: asdict(timing) for name, timing in result.times.items()},
        "host_seconds": result.host,
        "fraction_of_limit": {name: result.fraction(limits, name) for name in served},
        "times_as_fast_as_torch": result.ratio("float32", TORCH),
        "times_as_fast_as_torch_tf32": {
            name: result.ratio(name, TORCH_TF32) for name in served[1:]
        },
    }
