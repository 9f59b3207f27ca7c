"""Time to 99 % on MNIST's test images, in fastdl and in PyTorch.

    python -m benchmarks.mnist --data PATH [--repeats 3] [--reuse]

The same network (`fastdl.models.mnist_cnn`) from the same first weights, the
same batches in the same order, the same optimiser and learning rates. Each run
is a process of its own, the two libraries in turn. The clock starts with the
process and stops when a look at all test images, every 100 steps, finds 99 %;
what the looks took is in it and told. Nothing is chosen by the test images:
they only stop the clock. Each run then trains on to its end.

Both call malloc as it comes; with --reuse both keep freed memory.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from fastdl.bench.memory import REUSE
from fastdl.packages import needed

from . import script

GOAL = 0.99
EPOCHS, BATCH_SIZE, LR = 3, 128, 3e-3
STEPS_BETWEEN_LOOKS, EVALUATION_BATCH = 100, 256
LIBRARIES = ("fastdl", "torch")
RESULTS = Path("benchmarks", "results", "mnist")


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mnist")
    parser.add_argument("--data", required=True, help="the folder of MNIST's four files")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each (default: 3)")
    parser.add_argument("--threads", type=int, default=2, help="default: 2")
    parser.add_argument("--reuse", action="store_true", help="everyone keeps freed memory")
    parser.add_argument("--steps", type=int, help="stop each run after so many, for a trial")
    parser.add_argument("--one", choices=LIBRARIES, help=argparse.SUPPRESS)
    parser.add_argument("--started", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(run(args)))
        return
    needed("torch", "torch", "python -m benchmarks.mnist")
    runs = [take_turn(library) for _ in range(args.repeats) for library in LIBRARIES]
    report(runs)
    if args.steps is None:
        print("wrote", save(args, runs))


def take_turn(library: str) -> dict[str, Any]:
    """One library's run, in a process of its own."""
    reuse = REUSE if "--reuse" in sys.argv else {}
    command = [sys.executable, "-m", "benchmarks.mnist", *sys.argv[1:], "--one", library]
    made = subprocess.run(
        [*command, "--started", str(time.time())],
        env={**os.environ, **reuse},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if made.returncode:
        sys.exit(made.returncode)  # it has said why
    result: dict[str, Any] = json.loads(made.stdout.splitlines()[-1])
    reached = result["seconds_to_goal"]
    print(
        f"{library:<7} {'never' if reached is None else f'{reached:6.1f} s'} to {GOAL:.0%}; "
        f"at the end {result['final_accuracy']:.2%}, {result['images_per_second']:.0f} images/s",
        flush=True,
    )
    return result


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Train, and look at the test images now and then."""
    from fastdl import data, optim, set_num_threads

    set_num_threads(args.threads)
    mnist = data.load_mnist(args.data)
    normalize = data.Normalize.of(mnist.train)
    loader = data.Loader(mnist.train, BATCH_SIZE, normalize=normalize)
    test = data.Loader(mnist.test, EVALUATION_BATCH, shuffle=False, normalize=normalize)
    schedule = optim.OneCycle(LR, EPOCHS * len(loader))
    step, accuracy = {"fastdl": _fastdl, "torch": _torch}[args.one](args.threads)
    looks: list[dict[str, float]] = []
    looking, done, begun = 0.0, 0, time.perf_counter()

    def look() -> None:
        nonlocal looking
        start = time.perf_counter()
        found = accuracy(test)
        looking += time.perf_counter() - start
        looks.append({"step": done, "seconds": time.time() - args.started, "accuracy": found})

    steps = args.steps or EPOCHS * len(loader)
    for epoch in range(1, EPOCHS + 1):
        for x, y in loader.epoch(epoch):
            if done == steps:
                break
            step(x, y, schedule(done))
            done += 1
            if done % STEPS_BETWEEN_LOOKS == 0:
                look()
    training = time.perf_counter() - begun - looking
    look()
    reached = [one["seconds"] for one in looks if one["accuracy"] >= GOAL]
    return {
        "library": args.one,
        "seconds_to_goal": reached[0] if reached else None,
        "final_accuracy": looks[-1]["accuracy"],
        "images_per_second": done * BATCH_SIZE / training,
        "seconds_training": training,
        "seconds_looking": looking,
        "looks": looks,
    }


Step = Callable[[Any, Any, float], None]
Accuracy = Callable[[Any], float]


def _fastdl(threads: int) -> tuple[Step, Accuracy]:
    from fastdl import models, nn, optim, train

    model, loss = models.mnist_cnn(rng=0), nn.CrossEntropyLoss()
    optimizer = optim.Adam(LR)

    def step(x: Any, y: Any, lr: float) -> None:
        optimizer.lr = lr
        model.train()
        train.training_step(model, loss, optimizer, x, y)

    return step, lambda test: train.evaluate(model, test).accuracy


def _torch(threads: int) -> tuple[Step, Accuracy]:
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = _twin(torch)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, fused=True)

    def step(x: Any, y: Any, lr: float) -> None:
        optimizer.param_groups[0]["lr"] = lr
        model.train()
        scores = model(torch.from_numpy(x))
        loss = torch.nn.functional.cross_entropy(scores, torch.from_numpy(y))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        # As fastdl's step: the loss and the number of right answers.
        loss.item(), (scores.argmax(1) == torch.from_numpy(y)).sum().item()

    def accuracy(test: Any) -> float:
        model.eval()
        right = 0
        with torch.inference_mode():
            for x, y in test:
                right += int((model(torch.from_numpy(x)).argmax(1).numpy() == y).sum())
        return right / len(test.samples.y)

    return step, accuracy


def _twin(torch: Any) -> Any:
    """The same network in torch.nn, layer by layer, with the same first weights."""
    from fastdl import models

    ours = models.mnist_cnn(rng=0)
    make = {
        "Conv2d": lambda w: torch.nn.Conv2d(w.shape[1], w.shape[0], 3, padding=1, bias=False),
        "BatchNorm2d": lambda w: torch.nn.BatchNorm2d(len(w)),
        "Linear": lambda w: torch.nn.Linear(w.shape[1], w.shape[0]),
        "ReLU": lambda w: torch.nn.ReLU(),
        "MaxPool2d": lambda w: torch.nn.MaxPool2d(2),
        "Flatten": lambda w: torch.nn.Flatten(),
        "Dropout": lambda w: torch.nn.Dropout(0.5),
    }
    layers = [make[type(layer).__name__](layer.params.get("weight")) for layer in ours.layers]
    twin = torch.nn.Sequential(*layers)
    state = {name: torch.tensor(array) for name, array in ours.state_dict().items()}
    twin.load_state_dict(state)
    return twin


def report(runs: list[dict[str, Any]]) -> None:
    """The medians, and their ratio."""
    medians = {}
    for library in LIBRARIES:
        seconds = [run["seconds_to_goal"] for run in runs if run["library"] == library]
        if None in seconds:
            print(f"{library} did not reach {GOAL:.0%} in every run")
            return
        medians[library] = statistics.median(seconds)
    print(
        f"median seconds to {GOAL:.0%}: fastdl {medians['fastdl']:.1f}, torch "
        f"{medians['torch']:.1f}: {medians['torch'] / medians['fastdl']:.2f} times as fast"
    )


def save(args: argparse.Namespace, runs: list[dict[str, Any]]) -> Path:
    """Write the runs to a new file."""
    from fastdl.bench import machine

    now = datetime.now().replace(microsecond=0)
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{now:%Y%m%dt%H%M%S}.json"
    content = {
        "format": "fastdl-mnist-1",
        "date": now.isoformat(),
        "command": f"python -m benchmarks.mnist --data PATH --repeats {args.repeats}"
        + (" --reuse" if args.reuse else ""),
        "machine": machine.describe(),
        "threads": args.threads,
        "reuse": args.reuse,
        "settings": {"model": "mnist_cnn", "optimizer": "adam", "schedule": "one-cycle"}
        | {"lr": LR, "epochs": EPOCHS, "batch_size": BATCH_SIZE, "goal": GOAL},
        "runs": runs,
    }
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path


if __name__ == "__main__":
    script.run(main)
