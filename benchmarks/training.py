"""Time training steps of the same networks here and in PyTorch.

    python -m benchmarks.training                       # all networks, memory as it comes
    python -m benchmarks.training --reuse               # everyone's memory is reused
    python -m benchmarks.training --nets lenet5,alexnet --calls 40 --save

A step is forward, cross entropy, backward and an update with momentum, on one
batch of random images. The steps of both libraries take turns in one process,
on the same weights to begin with, and the figure is the median. Peak memory is
that of a process which makes a network and does a few steps, beyond what the
process had before.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import numpy as np

import fastdl
from fastdl import models, nn, optim
from fastdl.bench.machine import describe
from fastdl.bench.memory import freed_memory_is_kept, start_again_keeping_freed_memory
from fastdl.bench.record import FOLDER as RESULTS
from fastdl.bench.timing import Timing, interleaved
from fastdl.geometry import Shape
from fastdl.packages import needed

from . import script

FOLDER = RESULTS / "training"
RATE, MOMENTUM = 1e-3, 0.9
#: Steps of a process whose memory is asked for: the first two make what the others use.
STEPS_FOR_MEMORY = 4
OURS, THEIRS = "fastdl", "torch"
#: Linux tells how much memory a process has and had, and forgets the most when it is told to.
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Net:
    """A network and the batch that it is trained on."""

    build: Callable[..., nn.Layer]
    shape: Shape
    classes: int


NETS = {
    "lenet5": Net(models.lenet5, (64, 1, 28, 28), 10),
    "mnist_cnn": Net(models.mnist_cnn, (128, 1, 28, 28), 10),
    "alexnet": Net(models.alexnet, (16, 3, 224, 224), 1000),
    "vgg11_32": Net(models.vgg11_32, (64, 3, 32, 32), 10),
    "resnet20": Net(models.resnet20, (64, 3, 32, 32), 10),
}


@dataclass(frozen=True)
class Result:
    """A network's step: seconds of both, and bytes of memory beyond the libraries' own."""

    net: str
    batch: int
    ours: Timing
    theirs: Timing
    our_bytes: int | None
    their_bytes: int | None

    @property
    def ratio(self) -> float:
        """How many times as fast as PyTorch."""
        return self.theirs.seconds / self.ours.seconds


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--nets", default=",".join(NETS), help="names, with commas between them")
    parser.add_argument("--calls", type=int, default=20, help="steps of each that are timed")
    parser.add_argument("--seconds", type=float, default=2.0, help="and at least so long a network")
    parser.add_argument("--threads", type=int, default=fastdl.get_num_threads())
    parser.add_argument("--reuse", action="store_true", help="reuse everyone's freed memory")
    parser.add_argument("--no-memory", action="store_true", help="leave peak memory out")
    parser.add_argument("--save", action="store_true", help=f"write a file to {FOLDER}")
    parser.add_argument("--peak", nargs=2, metavar=("NET", "LIBRARY"), help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.reuse and not freed_memory_is_kept():
        start_again_keeping_freed_memory()
    fastdl.set_num_threads(args.threads)
    if args.peak:
        print(peak(*args.peak, args.threads))
        return 0
    unknown = [name for name in args.nets.split(",") if name not in NETS]
    if unknown:
        parser.error(f"--nets: must be of {', '.join(NETS)}, got {', '.join(unknown)}")
    needed("torch", "torch", "python -m benchmarks.training")
    results = []
    print(HEADING)
    for name in args.nets.split(","):
        memory: list[int | None] = [None, None]
        if _RESET.exists() and not args.no_memory:
            memory = [_peak_of(name, library, args.threads) for library in (OURS, THEIRS)]
        times = timed(name, args.threads, args.seconds, args.calls)
        results.append(Result(name, NETS[name].shape[0], times[OURS], times[THEIRS], *memory))
        print(line(results[-1]), flush=True)
    print(f"geometric mean {geometric_mean([result.ratio for result in results]):.2f}")
    if args.save:
        print(save(results, args.reuse))
    return 0


def timed(name: str, threads: int, seconds: float, calls: int) -> dict[str, Timing]:
    """A step of each library, in turns."""
    ours = our_step(name)
    steps = {OURS: ours.step, THEIRS: their_step(name, threads, ours.model).step}
    for step in steps.values():
        for _ in range(3):
            step()
    return interleaved(steps, seconds, calls)


@dataclass(frozen=True)
class Training:
    """A model, and what does a training step of it and returns the loss."""

    model: Any
    step: Callable[[], float]


def our_step(name: str) -> Training:
    net = NETS[name]
    model = net.build(net.classes, rng=0).train()
    loss, optimizer = nn.CrossEntropyLoss(), optim.Momentum(RATE, MOMENTUM)
    params = model.parameters()
    x, y = batch(net)

    def step() -> float:
        value = loss.forward(model.forward(x), y)
        model.backward_params(loss.backward())
        optimizer.update(params, model.gradients())
        return value

    return Training(model, step)


def their_step(name: str, threads: int, ours: nn.Layer) -> Training:
    """The twin, with the weights of ``ours``."""
    torch = their_library(threads)
    model = twin(ours)
    for param, array in zip(model.parameters(), ours.parameters().values(), strict=True):
        param.data.copy_(torch.from_numpy(array))
    return their_training(model, NETS[name])


def their_library(threads: int) -> Any:
    torch: Any = needed("torch", "torch", "python -m benchmarks.training")
    torch.set_num_threads(threads)
    return torch


def their_training(model: Any, net: Net) -> Training:
    torch: Any = needed("torch", "torch", "python -m benchmarks.training")
    loss = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), RATE, momentum=MOMENTUM)
    x, y = map(torch.from_numpy, batch(net))

    def step() -> float:
        optimizer.zero_grad()
        value = loss(model(x), y)
        value.backward()
        optimizer.step()
        return float(value.detach())

    return Training(model, step)


def batch(net: Net) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    images = rng.standard_normal(net.shape, np.float32)
    return images, rng.integers(0, net.classes, net.shape[0])


def twin(layer: nn.Layer) -> Any:
    """The same network of PyTorch's modules, its parameters in the same order."""
    torch: Any = needed("torch", "torch", "python -m benchmarks.training")
    modules = torch.nn
    match layer:
        case nn.Sequential():
            return modules.Sequential(*map(twin, layer.layers))
        case nn.Residual():
            return _residual_twin(torch, layer)
        case nn.Conv2d():
            filters, group_channels, *size = layer.weight.shape
            *_, groups = layer.geometry
            channels, bias = group_channels * groups, layer.bias is not None
            return modules.Conv2d(channels, filters, size, *layer.geometry, bias)
        case nn.Linear():
            return modules.Linear(*layer.weight.shape[::-1], layer.bias is not None)
        case nn.BatchNorm2d():
            return modules.BatchNorm2d(layer.channels, layer.eps, layer.momentum)
        case nn.MaxPool2d():
            size, stride, padding, dilation, ceil_mode = layer.geometry
            return modules.MaxPool2d(size, stride, padding, dilation, ceil_mode=ceil_mode)
        case nn.AvgPool2d():
            return modules.AvgPool2d(*layer.geometry)
        case nn.AdaptiveAvgPool2d():
            return modules.AdaptiveAvgPool2d(layer.output_size)
        case nn.Dropout():
            return modules.Dropout(layer.p)
        case _:
            return getattr(modules, type(layer).__name__)()


def _residual_twin(torch: Any, layer: nn.Residual) -> Any:
    class Residual(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.body = twin(layer.body)
            self.shortcut = twin(layer.shortcut) if layer.shortcut else torch.nn.Identity()
            self.activation = twin(layer.activation) if layer.activation else torch.nn.Identity()

        def forward(self, x: Any) -> Any:
            return self.activation(self.body(x) + self.shortcut(x))

    return Residual()


# --- memory ---------------------------------------------------------------------


def peak(name: str, library: str, threads: int) -> int:
    """Bytes that this process needs to make and train a network, beyond what it has."""
    net = NETS[name]
    if library == OURS:
        before = _forget_peak()
        training = our_step(name)
    else:
        torch = their_library(threads)
        with torch.device("meta"):  # only shapes
            model = twin(net.build(net.classes, rng=0))
        gc.collect()
        before = _forget_peak()
        model.to_empty(device="cpu")
        for module in model.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        training = their_training(model, net)
    for _ in range(STEPS_FOR_MEMORY):
        training.step()
    return _memory("VmHWM") - before


def _forget_peak() -> int:
    """Begin to look for the most memory of this process; what it has now."""
    _RESET.write_text("5", encoding="ascii")
    return _memory("VmRSS")


def _memory(field: str) -> int:
    """Bytes of memory in the process's status: VmRSS now, VmHWM at most."""
    fields = dict(row.split(":", 1) for row in _STATUS.read_text(encoding="ascii").splitlines())
    return int(fields[field].split()[0]) * 1024


def _peak_of(name: str, library: str, threads: int) -> int:
    command = [sys.executable, "-m", "benchmarks.training", "--peak", name, library]
    # As the C library is by default: what the process has freed would else count as its own.
    environment = {key: value for key, value in os.environ.items() if key[:7] != "MALLOC_"}
    found = subprocess.run(
        [*command, "--threads", str(threads)],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    )
    return int(found.stdout)


# --- what is shown and kept -------------------------------------------------------

HEADING = f"{'network':<12}{'batch':>6}{'fastdl':>12}{'torch':>12}{'ratio':>8}{'memory':>20}"


def line(result: Result) -> str:
    memory = ""
    if result.our_bytes is not None and result.their_bytes is not None:
        memory = f"{result.our_bytes / 2**20:.0f} / {result.their_bytes / 2**20:.0f} MiB"
    ours, theirs = (f"{t.seconds * 1e3:.2f} ms" for t in (result.ours, result.theirs))
    return (
        f"{result.net:<12}{result.batch:>6}{ours:>12}{theirs:>12}{result.ratio:>8.2f}{memory:>20}"
    )


def save(results: Sequence[Result], reuse: bool) -> Path:
    """Write the results to a new file; the file."""
    date = datetime.now(UTC)
    memory = "reuse" if reuse else "default"
    fields = {
        "command": shlex.join(["python", "-m", "benchmarks.training", *sys.argv[1:]]),
        "date": date.isoformat(timespec="seconds"),
        "machine": describe(),
        "memory": memory,
        "geometric_mean": geometric_mean([result.ratio for result in results]),
        "results": [asdict(result) | {"ratio": result.ratio} for result in results],
    }
    path = FOLDER / f"{date:%Y%m%dt%H%M%S}-{memory}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    script.run(main)
