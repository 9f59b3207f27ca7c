"""Learning rate: too large diverges, too small crawls, a falling one wins.

The same network and images, four times: momentum with a constant rate that is
too large, too small, and in between, where it learns and never settles; and with
that one falling to zero along half a cosine.

Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts",
2017, equation 5.
"""

from __future__ import annotations

from collections.abc import Sequence

import common
import numpy as np

from fastdl import nn, optim


def network(shape: tuple[int, ...]) -> nn.Layer:
    """Two convolutions with pools, and a linear layer."""
    rng = np.random.default_rng(0)
    return nn.Sequential(
        nn.Conv2d(shape[0], 16, 3, padding=1, rng=rng),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1, rng=rng),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * (shape[1] // 4) * (shape[2] // 4), 10, rng=rng),
    )


def main(argv: Sequence[str] | None = None) -> common.Figures:
    args = common.arguments(
        argv, __doc__, "folder of MNIST's files (default: scikit-learn's digits)"
    )
    train, test, name = common.digit_images(args, 600 if args.quick else 12000)
    epochs = 12 if args.quick else 40 if len(train.x) < 2000 else 5
    batch, width = 32, 5 if args.quick else 20
    updates = epochs * -(-len(train.x) // batch)
    cases = {
        "too large: 1": (common.RED, optim.Constant(1.0)),
        "too small: 0.0001": (common.ORANGE, optim.Constant(1e-4)),
        "constant: 0.1": (common.GREEN, optim.Constant(0.1)),
        "0.1 falling to 0": (common.BLUE, optim.Cosine(0.1, updates)),
    }
    picture = common.figure("Learning rate: the same network, four times")
    axes = picture.subplots()
    figures = {}
    for label, (colour, schedule) in cases.items():
        net = network(train.x.shape[1:])
        optimizer = optim.Momentum(0.1, 0.9)
        epoch_losses = common.fit(
            net, optimizer, train, epochs=epochs, batch_size=batch, schedule=schedule
        )
        losses = [loss for losses in epoch_losses for loss in losses]
        wrong = common.error(net, test)
        curve = common.smooth(losses, width)
        axes.semilogy(
            np.arange(len(curve)) + width, curve, color=colour, label=f"{label}; {wrong:.1f} %"
        )
        figures[label], figures[f"{label}, test error"] = float(curve[-1]), wrong
        print(f"{label:18s} training loss {curve[-1]:8.4f} at the end, test error {wrong:.2f} %")
    common.tidy(axes, "updates", f"training loss (mean of {width})", name)
    axes.legend(title="rate; test error", loc="lower left")
    common.save(picture, args, __file__)
    return figures


if __name__ == "__main__":
    common.run(main)
