"""Optimisers: paths on an elongated bowl, and losses on images.

On ``x**2 / 20 + y**2`` the gradient points across the valley, not along it. Plain
descent zigzags; momentum rolls along; AdaGrad, RMSProp and Adam measure each
direction by its own gradients.

Duchi et al., "Adaptive subgradient methods", 2011; Tieleman and Hinton, "RMSProp",
2012; Kingma and Ba, "Adam", 2015.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import common
import numpy as np

from fastdl import nn, optim

START, STEPS = (-7.0, 2.0), 60

#: Colour, the optimiser for the bowl, and that for the images.
CASES: dict[str, tuple[str, Callable[[], optim.Optimizer], Callable[[], optim.Optimizer]]] = {
    "SGD": (common.RED, lambda: optim.SGD(0.9), lambda: optim.SGD(0.01)),
    "Momentum": (common.ORANGE, lambda: optim.Momentum(0.1), lambda: optim.Momentum(0.01)),
    "AdaGrad": (common.GREEN, lambda: optim.AdaGrad(1.5), lambda: optim.AdaGrad(0.005)),
    "RMSProp": (common.PINK, lambda: optim.RMSProp(0.3, 0.9), lambda: optim.RMSProp(0.001)),
    "Adam": (common.BLUE, lambda: optim.Adam(0.5), lambda: optim.Adam(0.001)),
}


def bowl(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A valley twenty times as steep across as along."""
    return x**2 / 20 + y**2


def path(optimizer: optim.Optimizer) -> np.ndarray:
    """The points (STEPS + 1, 2) that ``optimizer`` visits from START."""
    point = np.array(START)
    points = [point.copy()]
    for _ in range(STEPS):
        optimizer.update({"point": point}, {"point": point * (0.1, 2.0)})
        points.append(point.copy())
    return np.array(points)


def network(inputs: int) -> nn.Layer:
    """Four fully connected layers."""
    rng = np.random.default_rng(0)
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(inputs, 100, rng=rng),
        nn.ReLU(),
        nn.Linear(100, 100, rng=rng),
        nn.ReLU(),
        nn.Linear(100, 100, rng=rng),
        nn.ReLU(),
        nn.Linear(100, 10, rng=rng),
    )


def main(argv: Sequence[str] | None = None) -> common.Figures:
    args = common.arguments(
        argv, __doc__, "folder of MNIST's files (default: scikit-learn's digits)"
    )
    train, _, name = common.digit_images(args, 1000 if args.quick else 30000)
    epochs, width = (4, 5) if args.quick else (12, 10) if len(train.x) < 2000 else (2, 20)
    picture = common.figure("Five optimisers: an elongated bowl, and images", 10, 4.6)
    left, right = picture.subplots(1, 2)
    x, y = np.meshgrid(np.linspace(-8, 4, 200), np.linspace(-3, 3, 200))
    left.contour(x, y, bowl(x, y), (0.05, 0.3, 1, 2, 3.5, 6), colors="lightgrey")
    figures = {}
    for label, (colour, on_bowl, on_images) in CASES.items():
        points = path(on_bowl())
        left.plot(*points.T, marker=".", markersize=4, linewidth=1, color=colour, label=label)
        # How often the path goes from one slope of the valley to the other.
        crossings = int((np.diff(np.sign(points[: STEPS // 2, 1])) != 0).sum())
        figures[f"{label}, crossings"] = crossings
        net = network(train.x[0].size)
        epoch_losses = common.fit(net, on_images(), train, epochs=epochs, batch_size=100)
        losses = common.smooth([loss for losses in epoch_losses for loss in losses], width)
        right.semilogy(np.arange(len(losses)) + width, losses, color=colour, label=label)
        figures[f"{label}, loss"] = float(losses[-1])
        print(
            f"{label:9s} bowl: crosses the valley {crossings:2d} times in {STEPS // 2} steps; "
            f"{name}: loss {losses[-1]:.3f} after {len(losses) + width - 1} updates"
        )
    left.plot(*START, "ko")
    left.annotate("start", START, (0, 7), textcoords="offset points", ha="center")
    left.plot(0, 0, "k*", markersize=10)
    common.tidy(left, "x", "y", f"x²/20 + y², {STEPS} steps (the star is the lowest point)")
    common.tidy(right, "updates", f"training loss (mean of {width})", name)
    right.legend()
    common.save(picture, args, __file__)
    return figures


if __name__ == "__main__":
    common.run(main)
