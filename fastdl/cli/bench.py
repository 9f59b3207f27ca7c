"""``fastdl bench``: the backends against each other, the machine's limits and other libraries."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..backends.registry import NAMES, available_backends, current_name
from ..bench import limits, machine
from ..bench.implementation import Implementation
from ..bench.layer import Layer
from ..bench.layers import LAYERS, REPRESENTATIVE, select
from ..bench.memory import (
    can_keep_freed_memory,
    freed_memory_is_kept,
    start_again_keeping_freed_memory,
)
from ..bench.ours import Backend
from ..bench.peers import PEERS, peers
from ..bench.record import FOLDER, save
from ..bench.report import report, to_json
from ..bench.roofline import roofline
from ..bench.run import NAIVE, REFERENCE, LayerTimes, time_layers
from ..bench.summary import summary
from ..bench.table import notes, table
from ..bench.timing import MIN_CALLS
from ..errors import ArgumentError
from ..packages import needed
from ..threads import get_num_threads, set_num_threads
from .arguments import positive, whole

#: Some implementation gave a wrong result.
WRONG = 1


def add_parser(subparsers: Any) -> None:
    """Add ``bench`` to the command's parser."""
    parser = subparsers.add_parser(
        "bench",
        help="time the backends side by side, and against other libraries",
        description=(
            "Time layers of known networks on every backend, in turns in one process, and show "
            "them against this machine's measured limits. Each result is checked first."
        ),
    )
    add = parser.add_argument
    add(
        "--layers",
        type=_words,
        default=list(REPRESENTATIVE),
        metavar="NAMES",
        help="names or globs, comma-separated, or all; name@batch for one batch size "
        "(default: one or two of each class)",
    )
    add("--list", action="store_true", help="list the layers of --layers, or all, and stop")
    add(
        "--backends",
        type=_words,
        metavar="NAMES",
        help=f"of {', '.join(NAMES)} (default: all that work here)",
    )
    add(
        "--against",
        type=_words,
        default=[],
        metavar="NAMES",
        help=f"of {', '.join(PEERS)}; or all that are installed",
    )
    add("--threads", type=whole(1, 1024), metavar="N", help="default: one a processor")
    add(
        "--seconds",
        type=positive,
        default=2.0,
        metavar="S",
        help="timing of each layer, shared by all but naive (default: %(default)s)",
    )
    add(
        "--calls",
        type=whole(MIN_CALLS),
        default=MIN_CALLS,
        metavar="N",
        help="timed calls that each must have had, whatever they take (default: %(default)s)",
    )
    add(
        "--quick",
        action="store_true",
        help="a tenth of a second a layer: to see that all runs, not how fast",
    )
    add(
        "--reuse",
        action="store_true",
        help="let everyone reuse memory: outputs given where a library can take them, and freed "
        "memory kept by the C library, from the start of the process on",
    )
    add("--json", type=Path, metavar="FILE", help="write all figures, and the machine's")
    add(
        "--save",
        type=Path,
        nargs="?",
        const=FOLDER,
        metavar="FOLDER",
        help="keep the run: a new file in FOLDER (default: %(const)s), with the machine, the "
        "versions and the commit; the README's table is made of them",
    )
    add("--plot", type=Path, metavar="FILE", help="draw the roofline as a PNG")
    parser.set_defaults(run=run)


def _words(text: str) -> list[str]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise argparse.ArgumentTypeError("must name at least one")
    return words


def run(args: argparse.Namespace) -> int:
    """Time as ``args`` say; the exit status."""
    if args.list:
        chosen = LAYERS if args.layers == list(REPRESENTATIVE) else select(args.layers)
        print(listing(chosen))
        return 0
    if args.quick:
        args.seconds = 0.1
    if args.reuse and not freed_memory_is_kept():
        if can_keep_freed_memory():
            start_again_keeping_freed_memory()
        print("fastdl: the C library's use of memory stays as it is: not glibc", file=sys.stderr)
    # Whatever can be wrong shows before the timing: names, packages, places to write.
    layers = select(args.layers)
    if args.threads is not None:
        set_num_threads(args.threads)
    threads = get_num_threads()
    others = peers(args.against, threads)
    implementations = [*_backends(args.backends), *others]
    progress = needed("tqdm", "tqdm", "the progress bar")
    if args.plot is not None:
        needed("matplotlib", "matplotlib", "--plot")
    for place in (args.json, args.plot):
        _check_writable(place)
    if args.save is not None:
        _check_folder(args.save)
    _warn_if_busy()
    with limits.blas_threads(threads):
        measured = limits.measure(threads)
        print(_opening(measured), flush=True)
        times: list[LayerTimes] = []
        bar = progress.tqdm(layers, unit="layer", disable=None, leave=False)
        try:
            with bar:
                for layer in time_layers(
                    bar, implementations, args.seconds, args.reuse, args.calls
                ):
                    times.append(layer)
        finally:
            # After Ctrl-C, what there is.
            if times:
                _show(times, measured, [peer.name for peer in others], args)
    return WRONG if any(layer.wrong for layer in times) else 0


def listing(layers: Iterable[Layer]) -> str:
    """One layer a line."""
    return "\n".join(f"{layer.label:<36}{layer}" for layer in layers)


def _backends(names: list[str] | None) -> list[Implementation]:
    """The backends of these names; by default all that work here."""
    if names is None:
        names = [name for name, reason in available_backends().items() if reason is None]
    return [Backend(current_name(name)) for name in dict.fromkeys(names)]


def _check_writable(place: Path | None) -> None:
    if place is None:
        return
    if place.is_dir() or not os.access(place if place.exists() else place.parent, os.W_OK):
        raise ArgumentError(f"cannot write {str(place)!r}: it must be a file in a writable folder")


def _check_folder(folder: Path) -> None:
    if not folder.parent.is_dir() or (folder.exists() and not folder.is_dir()):
        raise ArgumentError(
            f"cannot keep the run in {str(folder)!r}: it must be a folder, or be to be made in one"
        )
    nearest = folder if folder.exists() else folder.parent
    if not os.access(nearest, os.W_OK):
        raise ArgumentError(f"cannot keep the run in {str(folder)!r}: {nearest} is not writable")


def _opening(measured: limits.Limits) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in machine.versions().items())
    picked = machine.instruction_set() or "no compiled kernels"
    lines = [
        f"{machine.processor()}, {picked}, {measured.all.threads} threads",
        versions,
        f"limits ({measured.source}):",
    ]
    for limit in dict.fromkeys((measured.one, measured.all)):
        lines.append(f"  threads {limit.threads}: {limit}")
    return "\n".join(lines) + "\n"


def _warn_if_busy() -> None:
    busy = machine.busy()
    if busy is not None and busy > 0.2:
        print(
            f"fastdl: other processes keep {busy:.1f} of {machine.cores()} processors busy: "
            f"all times, and the limits, will be off",
            file=sys.stderr,
        )


def _show(
    times: list[LayerTimes], measured: limits.Limits, others: list[str], args: argparse.Namespace
) -> None:
    print(table(times, measured.all, others))
    names = dict.fromkeys(row.name for layer in times for row in layer.rows)
    ours = [name for name in names if name in NAMES and name not in (NAIVE, REFERENCE)]
    if by_class := summary(times, ours):
        print("\n" + by_class)
    print("\n" + notes(times, args.reuse), flush=True)
    for layer in times:
        for row in layer.wrong:
            print(
                f"fastdl: {row.name} is wrong on {layer.layer.label}: relative error "
                f"{row.error:.1e}; it was not timed",
                file=sys.stderr,
            )
    command = shlex.join(["fastdl", *sys.argv[1:]])
    how = (times, measured, command, args.seconds, args.reuse)
    if args.json is not None:
        args.json.write_text(to_json(report(*how)))
        print(f"wrote {args.json}")
    if args.save is not None:
        print(f"wrote {save(args.save, *how)}")
    if args.plot is not None:
        title = (
            f"fastdl bench: {machine.processor()}, {machine.instruction_set() or 'no ISA'}, "
            f"{measured.all.threads} threads"
        )
        args.plot.write_bytes(roofline(times, measured, title))
        print(f"wrote {args.plot}")
