"""Time an update of every optimiser beside PyTorch's, on the same arrays in the same process.

    python -m benchmarks.optimizers                        # 25 million parameters in one array
    python -m benchmarks.optimizers --arrays resnet20      # 270 thousand in 65 arrays
    python -m benchmarks.optimizers --backend jit --only Adam --as-it-comes

Calls take turns (see fastdl/bench/timing.py). Everyone's memory is reused, unless `--as-it-comes`:
PyTorch's default optimisers allocate arrays in every update.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import fastdl
from fastdl import optim
from fastdl.bench import memory
from fastdl.bench.timing import interleaved
from fastdl.packages import needed

from . import script

#: Ours, PyTorch's, and the arrays that an update must read or write at least once.
OPTIMIZERS: dict[str, tuple[Callable[[], optim.Optimizer], str, dict[str, Any], int]] = {
    "SGD": (lambda: optim.SGD(1e-3), "SGD", {"lr": 1e-3}, 3),
    "Momentum": (lambda: optim.Momentum(1e-3), "SGD", {"lr": 1e-3, "momentum": 0.9}, 5),
    "Nesterov": (
        lambda: optim.Nesterov(1e-3),
        "SGD",
        {"lr": 1e-3, "momentum": 0.9, "nesterov": True},
        5,
    ),
    "AdaGrad": (lambda: optim.AdaGrad(1e-3), "Adagrad", {"lr": 1e-3}, 5),
    "RMSProp": (lambda: optim.RMSProp(1e-3), "RMSprop", {"lr": 1e-3}, 5),
    "Adam": (lambda: optim.Adam(1e-3), "Adam", {"lr": 1e-3}, 7),
    "AdamW": (lambda: optim.AdamW(1e-3), "AdamW", {"lr": 1e-3}, 7),
}
#: PyTorch has no fused one of these for the CPU.
WITHOUT_FUSED = ("RMSProp",)


def resnet20() -> list[tuple[int, ...]]:
    """The shapes of a ResNet-20 for images of 32x32 in 10 classes."""
    shapes: list[tuple[int, ...]] = [(16, 3, 3, 3), (16,), (16,)]
    channels = 16
    for filters in (16, 32, 64):
        for _ in range(3):
            for inputs in (channels, filters):
                shapes += [(filters, inputs, 3, 3), (filters,), (filters,)]
            if inputs != channels:
                shapes += [(filters, channels, 1, 1), (filters,), (filters,)]
            channels = filters
    return [*shapes, (10, 64), (10,)]


SHAPES = {"one": lambda: [(5000, 5000)], "resnet20": resnet20}


def calls(
    name: str, grads: Mapping[str, np.ndarray], torch: Any
) -> dict[str, Callable[[], object]]:
    """An update by ours, by PyTorch's fused one if there is one, and by PyTorch's default."""
    make, theirs, settings, _ = OPTIMIZERS[name]
    ours, params = make(), {key: array.copy() for key, array in grads.items()}
    found: dict[str, Callable[[], object]] = {"fastdl": lambda: ours.update(params, grads)}
    tensors = [torch.from_numpy(array.copy()).requires_grad_() for array in grads.values()]
    for tensor, grad in zip(tensors, grads.values(), strict=True):
        tensor.grad = torch.from_numpy(grad)
    if name not in WITHOUT_FUSED:
        found["fused"] = getattr(torch.optim, theirs)(tensors, **settings, fused=True).step
    found["default"] = getattr(torch.optim, theirs)(tensors, **settings).step
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arrays", choices=SHAPES, default="one", help="(default: %(default)s)")
    parser.add_argument("--only", default=",".join(OPTIMIZERS), help="names (default: all)")
    parser.add_argument("--threads", type=int, default=fastdl.get_num_threads())
    parser.add_argument("--backend", default="compiled", help="(default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each optimiser's calls")
    parser.add_argument("--as-it-comes", action="store_true", help="malloc as the system has it")
    options = parser.parse_args()
    reused = memory.freed_memory_is_kept()
    if not options.as_it_comes and not reused and memory.can_keep_freed_memory():
        memory.start_again_keeping_freed_memory()
    torch = needed("torch", "torch", "the comparison of optimisers")
    torch.set_num_threads(options.threads)
    fastdl.set_num_threads(options.threads)
    rng = np.random.default_rng(0)
    grads = {
        f"{place}.weight": rng.standard_normal(shape, np.float32)
        for place, shape in enumerate(SHAPES[options.arrays]())
    }
    size = sum(grad.size for grad in grads.values())
    print(
        f"{size:,} float32 parameters in {len(grads)} arrays, {options.backend}, "
        f"{options.threads} threads, memory {'reused' if reused else 'as it comes'}\n"
    )
    print("| optimiser | us | GB/s | x fused | x default |\n| --- | ---: | ---: | ---: | ---: |")
    with fastdl.use_backend(options.backend):
        for name in options.only.split(","):
            timed = calls(name, grads, torch)
            for call in timed.values():
                call()  # makes the state
            times = {key: t.seconds for key, t in interleaved(timed, options.seconds).items()}
            ours = times["fastdl"]
            speed = OPTIMIZERS[name][3] * 4 * size / ours / 1e9
            fused = f"{times['fused'] / ours:.2f}" if "fused" in times else "-"
            print(
                f"| {name} | {ours * 1e6:.0f} | {speed:.1f} | {fused} "
                f"| {times['default'] / ours:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    script.run(main)
