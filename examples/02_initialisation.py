"""Initialisation: what five layers make of their input, by the spread of the first weights.

Weights of standard deviation 1 drive tanh to its ends, where it has no slope;
with 0.01 every layer shrinks its input, until all images look the same. Xavier's
spread for tanh, and He's for ReLU, give each layer values as wide as the one before.

Glorot and Bengio, "Understanding the difficulty of training deep feedforward
neural networks", 2010, section 4.2; He et al., "Delving deep into rectifiers",
2015, section 2.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import common
import numpy as np

from fastdl import nn

DEPTH, WIDTH = 5, 200


CASES = {
    "sd 1, tanh": (common.RED, nn.init.normal(1.0), nn.Tanh),
    "sd 0.01, tanh": (common.ORANGE, nn.init.normal(0.01), nn.Tanh),
    "Xavier, tanh": (common.GREEN, nn.xavier_normal, nn.Tanh),
    "He, ReLU (> 0)": (common.BLUE, nn.he_normal, nn.ReLU),
}


def activations(
    init: nn.init.Initializer, activation: type[nn.Layer], x: np.ndarray
) -> list[np.ndarray]:
    """What each of the fully connected layers gives for the images ``x``."""
    rng = np.random.default_rng(0)
    outputs, features = [], nn.Flatten()(x)
    for _ in range(DEPTH):
        linear = nn.Linear(features.shape[1], WIDTH, init=init, rng=rng)
        features = activation()(linear(features))
        outputs.append(features)
    return outputs


def main(argv: Sequence[str] | None = None) -> common.Figures:
    args = common.arguments(
        argv, __doc__, "folder of MNIST's files (default: scikit-learn's digits)"
    )
    train, _, name = common.digit_images(args, 100 if args.quick else 1000)
    picture = common.figure(f"Activations of {DEPTH} layers ({name})", 9, 6.4)
    rows = picture.subplots(len(CASES), DEPTH)
    figures = {}
    for row, (case, (colour, init, activation)) in zip(rows, CASES.items(), strict=True):
        outputs = activations(init, activation, train.x)
        limits = (-1.05, 1.05) if activation is nn.Tanh else (0, 4)
        for number, (axes, out) in enumerate(zip(row, outputs, strict=True), start=1):
            # Half of what ReLU gives is 0; the other half is what there is to see.
            shown = out if activation is nn.Tanh else out[out > 0]
            axes.hist(shown.ravel(), 41, range=limits, color=colour)
            axes.set_yticks([])
            axes.set_xlim(limits)
            axes.spines[["top", "right", "left"]].set_visible(False)
            axes.set_title(f"rms {np.sqrt(np.square(out).mean()):.2g}", fontsize="small")
            if row is rows[-1]:
                axes.set_xlabel(f"layer {number}")
        row[0].set_ylabel(case, fontweight="bold")
        first, last = (float(np.sqrt(np.square(out).mean())) for out in (outputs[0], outputs[-1]))
        figures[case] = last / first
        print(f"{case:15s} layer {DEPTH} is {last / first:.2g} times as wide as layer 1", end="")
        if activation is nn.Tanh:
            saturated = float((np.abs(outputs[-1]) > 0.95).mean())
            figures[f"{case}, saturated"] = saturated
            print(f"; {saturated:.0%} of its values are beyond 0.95", end="")
        print()
    common.save(picture, args, __file__)
    return figures


if __name__ == "__main__":
    common.run(main)
