"""``fastdl info``: what this installation has and uses."""

from __future__ import annotations

import argparse
from typing import Any

from ..backends import gpu
from ..backends.registry import available_backends, current_name
from ..bench import machine
from ..errors import BackendError
from ..memory import memory_pool
from ..threads import get_num_threads


def add_parser(subparsers: Any) -> None:
    """Add ``info`` to the command's parser."""
    parser = subparsers.add_parser(
        "info",
        help="show the version, the processor, and which backends work",
        description="Show the version, the processor, the instruction set picked for it, the "
        "threads, and which backends work here, or why they do not.",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print it; the exit status."""
    print(information())
    return 0


def information() -> str:
    """One line a fact."""
    facts = [
        ("version", machine.versions()["fastdl"]),
        ("packages", _packages()),
        ("processor", machine.processor()),
        ("processors", f"{machine.cores()} for this process"),
        ("instructions", _instructions()),
        ("threads", str(get_num_threads())),
        ("memory", _memory()),
    ]
    lines = [f"{name:<14}{value}" for name, value in facts]
    chosen = current_name()
    for name, reason in available_backends().items():
        state = "works" if reason is None else f"missing: {reason}"
        if name == chosen:
            state += " (serves calls that name no other)"
        elif name in ("naive", "cuda") and reason is None:
            state += " (only when named)"
        lines.append(f"{'backend':<14}{name:<12}{state}")
    lines += [f"{'gpu':<14}{number}: {device}" for number, device in enumerate(_gpus())]
    return "\n".join(lines)


def _gpus() -> tuple[gpu.Gpu, ...]:
    try:
        return gpu.gpus()
    except BackendError:
        return ()


def _packages() -> str:
    found = machine.versions()
    return ", ".join(f"{name} {found[name]}" for name in found if name != "fastdl")


def _memory() -> str:
    pool = memory_pool()
    if not pool.limit_bytes:
        return "none is kept"
    return f"keeps up to {pool.limit_bytes >> 20} MiB of dead results"


def _instructions() -> str:
    picked, able = machine.instruction_set(), machine.instruction_sets()
    if picked is None:
        return "none: the compiled kernels are missing"
    return f"{picked} (FASTDL_ISA picks of {', '.join(able)})"
