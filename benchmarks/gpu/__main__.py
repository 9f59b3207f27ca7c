"""Check every kernel of the cuda backend on this machine's GPU, and time it.

    python -m benchmarks.gpu                 # all of it, in less than 8 minutes
    python -m benchmarks.gpu --works 'more-bn*,linear*'
    NUMBA_ENABLE_CUDASIM=1 python -m benchmarks.gpu --small --output /tmp   # the script itself

Each kernel is set against float64 and, where PyTorch has the GPU too, against PyTorch, whose
cuDNN is timed in turn with it, with TF32 forbidden and allowed. The GPU's bandwidth and
arithmetic are measured beside it. One table is shown, and kept in benchmarks/results/.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

import fastdl
from fastdl.backends import gpu, registry
from fastdl.bench.ours import as_tuple
from fastdl.bench.peers import torch_arrays
from fastdl.bench.record import FOLDER
from fastdl.bench.run import difference
from fastdl.errors import ArgumentError, FastdlError

if TYPE_CHECKING:
    from .results import Result
    from .works import Work

#: No work is begun later than so many seconds after the start.
LIMIT = 440.0
BAD_USE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--works", default="*", help="names or patterns, with commas between them")
    parser.add_argument("--seconds", type=float, default=0.5, help="for the times of a work")
    parser.add_argument("--calls", type=int, default=20, help="of each that are timed, at least")
    parser.add_argument(
        "--limit", type=float, default=LIMIT, help="begin nothing after these seconds"
    )
    parser.add_argument("--small", action="store_true", help="tiny arrays, to try the script")
    parser.add_argument("--output", type=Path, default=FOLDER, help="default: %(default)s")
    args = parser.parse_args(arguments)
    try:
        return run(args)
    except (FastdlError, OSError) as error:
        print(f"benchmarks.gpu: error: {error}", file=sys.stderr)
        return BAD_USE


def run(args: argparse.Namespace) -> int:
    """All that ``args`` ask for; the exit status."""
    start = perf_counter()
    registry.get("cuda")  # or an error that says why there is none
    if gpu.simulated() and args.output == FOLDER:
        raise ArgumentError(
            f"--output: a simulated GPU's figures are none, and do not go to {FOLDER}; name another"
        )
    from . import limits, results, works

    chosen = _chosen(list(works.works(args.small)), args.works)
    torch = _torch()
    measured = limits.measure()
    print(f"{results.device()['name']}: {measured}\n\n{results.HEADING}", flush=True)
    found, left_out = [], []
    for work in chosen:
        if perf_counter() - start > args.limit:
            left_out.append(work.name)
            continue
        found.append(_result(work, torch, args.seconds, args.calls))
        print(results.line(found[-1], measured), flush=True)
        fastdl.empty_memory_pool()
        if torch is not None:
            torch.cuda.empty_cache()
    print(f"\n{results.NOTES}")
    if left_out:
        print(f"left out after {args.limit:.0f} s: {', '.join(left_out)}")
    command = " ".join(["python -m benchmarks.gpu", *sys.argv[1:]])
    print(f"wrote {results.save(args.output, found, measured, command, torch, left_out)}")
    wrong = [result.work.name for result in found if not result.right]
    if wrong:
        print(f"benchmarks.gpu: wrong results: {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


def _chosen(works: list[Work], patterns: str) -> list[Work]:
    wanted = patterns.split(",")
    chosen = [work for work in works if any(fnmatchcase(work.name, glob) for glob in wanted)]
    if not chosen:
        raise ArgumentError(f"--works: none of {', '.join(work.name for work in works)} is chosen")
    return chosen


def _torch() -> Any:
    """PyTorch, where it is installed and has the GPU."""
    try:
        import torch
    except ImportError:
        return None
    if gpu.simulated() or not torch.cuda.is_available():
        return None
    torch.backends.cudnn.benchmark = True
    return torch


def _result(work: Work, torch: Any, seconds: float, calls: int) -> Result:
    """Check it, then time it."""
    from .clock import interleaved, warm
    from .results import PRECISIONS, TORCH, TORCH_TF32, Result

    precisions = PRECISIONS if work.tensor_cores else PRECISIONS[:1]
    errors = _errors(work.checked or work, precisions)
    inputs = work.inputs()
    runs = {name: _ours(work, inputs, name) for name in precisions}
    apart = None
    if torch is not None and work.theirs is not None:
        runs |= {
            name: _theirs(work, inputs, torch, allowed)
            for name, allowed in ((TORCH, False), (TORCH_TF32, True))
            if work.tensor_cores or not allowed
        }
        if work.expected is None and not work.name.endswith(" update"):
            apart = difference(
                tuple(map(_host, as_tuple(runs["float32"]()))), torch_arrays(runs[TORCH]())
            )
    host = {name: warm(call) for name, call in runs.items()}
    times = interleaved(runs, host, seconds, calls)
    return Result(work, errors, apart, times, host["float32"])


def _errors(work: Work, precisions: Sequence[str]) -> dict[str, float]:
    """From the truth, by precision."""
    errors = {}
    expected = None
    for name in precisions:
        inputs = work.inputs()
        found = tuple(map(_host, as_tuple(_ours(work, inputs, name)())))
        if expected is None or work.expected is not None:
            expected = tuple(map(np.asarray, work.truth(inputs, found)))
        errors[name] = difference(found, expected)
    return errors


def _ours(work: Work, inputs: dict[str, Any], precision: str) -> Callable[[], Any]:
    """The call, its arrays on the GPU."""
    call = partial(work.ours, **{name: fastdl.to_device(array) for name, array in inputs.items()})
    if precision == "float32":
        return call

    def run() -> Any:
        with fastdl.use_precision(precision):
            return call()

    return run


def _theirs(work: Work, inputs: dict[str, Any], torch: Any, tf32: bool) -> Callable[[], Any]:
    tensors = {name: torch.from_numpy(array).cuda() for name, array in inputs.items()}
    assert work.theirs is not None
    call = partial(work.theirs(torch), **tensors)

    def run() -> Any:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
        return call()

    return run


def _host(result: Any) -> Any:
    return np.asarray(fastdl.to_host(result))


if __name__ == "__main__":
    sys.exit(main())
