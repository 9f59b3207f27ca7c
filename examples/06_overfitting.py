"""Overfitting: 300 images to learn from, and what keeps a network from learning them by heart.

The same network and images, four times: as it is, with a penalty on the absolute
weights (L1), on their squares (L2), and with dropout. Alone, the network soon
knows all 300 images and still errs on new ones; each of the three narrows that gap.

Krogh and Hertz, "A simple weight decay can improve generalization", 1991;
Srivastava et al., "Dropout", 2014.
"""

from __future__ import annotations

from collections.abc import Sequence

import common
import numpy as np

from fastdl import nn, optim

IMAGES = 300


def network(inputs: int, dropout: float) -> nn.Layer:
    """Three fully connected layers, as many weights as it takes to overfit."""
    rng = np.random.default_rng(0)
    return nn.Sequential(
        nn.Flatten(),
        nn.Dropout(dropout, rng=rng),
        nn.Linear(inputs, 256, rng=rng),
        nn.ReLU(),
        nn.Dropout(dropout, rng=rng),
        nn.Linear(256, 256, rng=rng),
        nn.ReLU(),
        nn.Dropout(dropout, rng=rng),
        nn.Linear(256, 10, rng=rng),
    )


def main(argv: Sequence[str] | None = None) -> common.Figures:
    args = common.arguments(
        argv, __doc__, "folder of MNIST's files (default: scikit-learn's digits)"
    )
    train, test, name = common.digit_images(args, IMAGES)
    epochs = 61 if args.quick else 151
    cases = {
        "no regularisation": (0.0, None),
        "L1": (0.0, optim.L1(2e-3)),
        "L2": (0.0, optim.L2(0.03)),
        "dropout": (0.5, None),
    }
    picture = common.figure(
        f"{IMAGES} images ({name}): overfitting, and three ways against it", 9, 5
    )
    panels = picture.subplots(2, 2, sharex=True, sharey=True)
    figures = {}
    for axes, (label, (dropout, regularizer)) in zip(panels.flat, cases.items(), strict=True):
        net = network(train.x[0].size, dropout)
        optimizer = optim.Momentum(0.005, 0.9, regularizer=regularizer)
        losses = []
        for number, _ in enumerate(common.fit(net, optimizer, train, epochs=epochs, batch_size=50)):
            if number % 5 == 0:
                losses.append((number + 1, common.loss(net, train), common.loss(net, test)))
        at, seen, new = np.array(losses).T
        gap, wrong = float(new[-1] - seen[-1]), common.error(net, test)
        axes.fill_between(at, seen, new, color=common.SKY, alpha=0.25)
        axes.plot(at, new, color=common.RED, label="test")
        axes.plot(at, seen, color=common.BLUE, label="training")
        common.tidy(axes, "", "", f"{label}: gap {gap:.2f}, {wrong:.1f} % of test images wrong")
        figures |= {label: gap, f"{label}, loss": float(new[-1]), f"{label}, test error": wrong}
        print(
            f"{label:18s} loss {seen[-1]:.3f} in training, {new[-1]:.3f} in the test: gap {gap:.2f}; "
            f"{common.error(net, train):.1f} % and {wrong:.1f} % of the images wrong"
        )
    panels[0, 0].set_ylim(0, 1.3 * max(figures[f"{label}, loss"] for label in cases))
    panels[0, 0].legend()
    picture.supxlabel("epoch")
    picture.supylabel("cross-entropy loss")
    common.save(picture, args, __file__)
    return figures


if __name__ == "__main__":
    common.run(main)
