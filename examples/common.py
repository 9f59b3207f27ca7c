"""What the examples share: their arguments, the images, the training loop, the look of a picture."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from fastdl import FastdlError, data, nn, optim

#: Colours that a colour-blind reader can tell apart: Okabe and Ito, "Color universal design", 2008.
BLUE, ORANGE, GREEN, PINK, SKY, RED, GREY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#666666",
)

Figures = dict[str, float]


def arguments(
    argv: Sequence[str] | None, description: str | None, images: str = ""
) -> argparse.Namespace:
    """The command line of an example; ``images`` says what ``--data`` takes, if anything."""
    summary = (description or "").partition("\n\n")[0]
    parser = argparse.ArgumentParser(description=summary)
    parser.add_argument("--quick", action="store_true", help="a small run, as in the tests")
    parser.add_argument(
        "--output", default=".", metavar="DIR", help="where the picture goes (default: here)"
    )
    if images:
        parser.add_argument("--data", metavar="PATH", help=images)
    return parser.parse_args(argv)


def run(main: Callable[[], Figures]) -> None:
    """``main()``; what the user can mend is said in one line, without a traceback."""
    try:
        main()
    except (FastdlError, OSError) as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")


def digit_images(
    args: argparse.Namespace, count: int | None = None
) -> tuple[data.Samples, data.Samples, str]:
    """Normalised images, at most ``count`` to train on and all to test on, and what they are."""
    if args.data:
        name, digits = "MNIST", data.load_mnist(args.data)
    else:
        name, digits = "digits of scikit-learn", data.load_digits()
    normalize = data.Normalize.of(digits.train)
    train = data.Samples(normalize(digits.train.x[:count]), digits.train.y[:count])
    test = data.Samples(normalize(digits.test.x), digits.test.y)
    return train, test, name


def fit(
    net: nn.Layer,
    optimizer: optim.Optimizer,
    samples: data.Samples | data.Loader,
    *,
    epochs: int,
    batch_size: int = 64,
    schedule: Callable[[int], float] | None = None,
) -> Iterator[list[float]]:
    """Train ``net`` by cross entropy; after each epoch the losses of its batches."""
    criterion, step = nn.CrossEntropyLoss(), 0
    batches = samples if isinstance(samples, data.Loader) else data.Loader(samples, batch_size)
    for epoch in range(epochs):
        losses = []
        net.train()
        for x, y in batches.epoch(epoch):
            if schedule is not None:
                optimizer.lr = schedule(step)
            # A rate that is too large overflows; the losses then show it.
            with np.errstate(over="ignore", invalid="ignore"):
                losses.append(criterion.forward(net(x), y))
                net.backward(criterion.backward())
                optimizer.update(net.parameters(), net.gradients())
            step += 1
        yield losses


def error(net: nn.Layer, samples: data.Samples) -> float:
    """The share of images, in percent, whose highest score is not their class."""
    return 100 * float((net.predict(samples.x).argmax(1) != samples.y).mean())


def loss(net: nn.Layer, samples: data.Samples) -> float:
    """The mean cross entropy of the images in evaluation."""
    return nn.CrossEntropyLoss().forward(net.predict(samples.x), samples.y)


def smooth(losses: Sequence[float], width: int) -> np.ndarray:
    """The mean of each ``width`` neighbouring losses."""
    return np.convolve(losses, np.full(width, 1 / width), "valid")


def figure(title: str, width: float = 9, height: float = 4) -> Figure:
    """An empty picture. Not pyplot's, which would choose a backend for the whole process."""
    picture = Figure(figsize=(width, height), dpi=100, layout="constrained")
    picture.suptitle(title, fontweight="bold")
    return picture


def tidy(axes: Any, x: str, y: str, title: str = "") -> None:
    """Labels, a light grid, and no frame above and to the right."""
    axes.set(xlabel=x, ylabel=y)
    axes.set_title(title, fontsize="medium")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def save(picture: Figure, args: argparse.Namespace, script: str) -> Path:
    """Write the picture as a PNG named after the script, and say where it is."""
    folder = Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / Path(script).with_suffix(".png").name
    picture.savefig(path)
    print(f"wrote {path}")
    return path
