"""Batch normalisation: the same deep network learns faster with it.

Three networks of six convolutions, alike but for the normalisation: none, before
each ReLU, or after it. Same first weights, same images, same learning rate.

Ioffe and Szegedy, "Batch normalization: accelerating deep network training by
reducing internal covariate shift", 2015.
"""

from __future__ import annotations

from collections.abc import Sequence

import common
import numpy as np

from fastdl import nn, optim

FILTERS = (8, 8, 16, 16, 32, 32)
GOAL = 0.2


def network(batch_norm: str) -> nn.Layer:
    """Six 3 x 3 convolutions and ReLUs, a global average and a linear layer."""
    rng = np.random.default_rng(0)
    layers: list[nn.Layer] = []
    channels = 1
    for filters in FILTERS:
        stride = 1 if filters == channels else 2
        layers.append(nn.Conv2d(channels, filters, 3, stride, 1, rng=rng))
        if batch_norm == "before":
            layers.append(nn.BatchNorm2d(filters))
        layers.append(nn.ReLU())
        if batch_norm == "after":
            layers.append(nn.BatchNorm2d(filters))
        channels = filters
    return nn.Sequential(
        *layers, nn.GlobalAvgPool2d(), nn.Flatten(), nn.Linear(channels, 10, rng=rng)
    )


def main(argv: Sequence[str] | None = None) -> common.Figures:
    args = common.arguments(
        argv, __doc__, "folder of MNIST's files (default: scikit-learn's digits)"
    )
    train, test, name = common.digit_images(args, 600 if args.quick else 12000)
    epochs = 8 if args.quick else 30 if len(train.x) < 2000 else 4
    width = 10 if args.quick else 20
    picture = common.figure("Batch normalisation: the same network, learning faster")
    axes = picture.subplots()
    cases = {
        "without": (common.RED, "none"),
        "after each ReLU": (common.GREEN, "after"),
        "before each ReLU": (common.BLUE, "before"),
    }
    figures = {}
    for label, (colour, place) in cases.items():
        net = network(place)
        epoch_losses = common.fit(net, optim.SGD(0.05), train, epochs=epochs, batch_size=50)
        losses = common.smooth([loss for losses in epoch_losses for loss in losses], width)
        below = np.flatnonzero(losses < GOAL)
        steps = float(below[0] + width) if below.size else float("inf")
        wrong = common.error(net, test)
        axes.semilogy(
            np.arange(len(losses)) + width, losses, color=colour, label=f"{label}: {wrong:.1f} %"
        )
        figures[label], figures[f"{label}, updates"] = float(losses[-1]), steps
        print(
            f"{label:17s} loss {losses[-1]:.3f} at the end, below {GOAL} after {steps:.0f} updates; "
            f"test error {wrong:.1f} %"
        )
    axes.axhline(GOAL, color=common.GREY, linestyle=":")
    common.tidy(axes, "updates", f"training loss (mean of {width})", name)
    axes.legend(title="batch norm: test error")
    common.save(picture, args, __file__)
    return figures


if __name__ == "__main__":
    common.run(main)
