"""What a timing depends on besides the code: the processor and the versions."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .. import __version__
from ..backends.registry import why_missing
from ..threads import get_num_threads

_PACKAGES = ("numpy", "numba", "numba-cuda", "torch", "onnxruntime", "openvino")
_CPUINFO = Path("/proc/cpuinfo")
_STAT = Path("/proc/stat")


def processor() -> str:
    """The processor's name."""
    if _CPUINFO.exists():
        for line in _CPUINFO.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model") and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """Processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def busy(seconds: float = 0.3) -> float | None:
    """How many of this process's processors others keep busy; None where the system does not say."""
    if not _STAT.exists():
        return None
    before = _busy_seconds()
    time.sleep(seconds)
    return (_busy_seconds() - before) / seconds


def _busy_seconds() -> float:
    """Time that the processors have not been idle since the start of the system."""
    ours = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    ticks = 0
    for line in _STAT.read_text().splitlines():
        name, *fields = line.split()
        if name in ours:
            # The fourth and fifth: idle, and waiting for a disk. The last two are in the first two.
            ticks += sum(map(int, fields[:8])) - int(fields[3]) - int(fields[4])
    return float(ticks / os.sysconf("SC_CLK_TCK"))


def instruction_sets() -> tuple[str, ...]:
    """What the compiled kernels can use here, from the lowest up; none where they are missing."""
    if why_missing("compiled") is not None:
        return ()
    from ..backends.compiled import isa

    return tuple(isa.supported_isas())


def instruction_set() -> str | None:
    """What the compiled kernels use, None where they are missing."""
    if why_missing("compiled") is not None:
        return None
    from ..backends.compiled import isa

    return str(isa.current_isa())


def versions() -> dict[str, str]:
    """The versions of fastdl, Python and those packages of interest that are installed."""
    found = {"fastdl": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The commit that fastdl's sources are at, with + if they differ; None outside a repository."""
    folder = Path(__file__).parent
    head = _git(folder, "rev-parse", "--short", "HEAD")
    # A virtual environment may stand in a repository that tracks nothing of it.
    if head is None or not _git(folder, "ls-files", Path(__file__).name):
        return None
    top = _git(folder, "rev-parse", "--show-toplevel")
    changed = _git(Path(top or folder), "status", "--porcelain", "fastdl", "src_kernels")
    return f"{head}+" if changed else head


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says; None where it is not installed, or not content."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()


def describe() -> dict[str, Any]:
    """All of it, for a report."""
    return {
        "processor": processor(),
        "cores": cores(),
        "architecture": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "instruction_set": instruction_set(),
        "threads": get_num_threads(),
        "versions": versions(),
        "commit": commit(),
    }
