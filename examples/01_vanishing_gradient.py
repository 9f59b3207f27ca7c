"""Vanishing gradient: what a deep network's first layers still learn from.

Backpropagation multiplies by the derivative of the activation once a layer, and
the sigmoid's is at most 1/4. Twelve layers down little is left. ReLU with He's
first weights, tanh with Xavier's, or batch normalisation keep the gradient alive.

Glorot and Bengio, "Understanding the difficulty of training deep feedforward
neural networks", 2010; He et al., "Delving deep into rectifiers", 2015.
"""

from __future__ import annotations

from collections.abc import Sequence

import common
import numpy as np

from fastdl import nn

DEPTH, FILTERS = 12, 16


def network(activation: type[nn.Layer], init: nn.init.Initializer, batch_norm: bool) -> nn.Layer:
    """Twelve 3 x 3 convolutions of equal width, then a linear layer."""
    rng = np.random.default_rng(0)
    layers: list[nn.Layer] = []
    channels = 1
    for _ in range(DEPTH):
        layers.append(nn.Conv2d(channels, FILTERS, 3, padding=1, init=init, rng=rng))
        if batch_norm:
            layers.append(nn.BatchNorm2d(FILTERS))
        layers.append(activation())
        channels = FILTERS
    return nn.Sequential(
        nn.Sequential(*layers), nn.GlobalAvgPool2d(), nn.Flatten(), nn.Linear(FILTERS, 10, rng=rng)
    )


def gradient_norms(net: nn.Layer, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The norm of each convolution's weight gradient, first layer first."""
    loss = nn.CrossEntropyLoss()
    loss.forward(net(x), y)
    net.backward(loss.backward())
    gradients = net.gradients()
    return np.array([np.linalg.norm(g) for g in gradients.values() if g.ndim == 4])


def main(argv: Sequence[str] | None = None) -> common.Figures:
    args = common.arguments(
        argv, __doc__, "folder of MNIST's files (default: scikit-learn's digits)"
    )
    train, _, name = common.digit_images(args, 64 if args.quick else 512)
    x, y = train
    networks = {
        "sigmoid, Xavier": (common.RED, "o", network(nn.Sigmoid, nn.xavier_normal, False)),
        "sigmoid, batch norm": (common.ORANGE, "s", network(nn.Sigmoid, nn.xavier_normal, True)),
        "tanh, Xavier": (common.GREEN, "^", network(nn.Tanh, nn.xavier_normal, False)),
        "ReLU, He": (common.BLUE, "D", network(nn.ReLU, nn.he_normal, False)),
    }
    picture = common.figure(f"How much gradient reaches each of {DEPTH} layers")
    axes = picture.subplots()
    shares = {}
    for label, (colour, marker, net) in networks.items():
        norms = gradient_norms(net, x, y)
        axes.semilogy(
            range(1, DEPTH + 1), norms / norms[-1], marker=marker, color=colour, label=label
        )
        # The first layer sees one channel, not sixteen: the second is the fair one to compare.
        shares[label] = float(norms[1] / norms[-1])
        print(f"{label:20s} layer 2 gets {shares[label]:.1e} of layer {DEPTH}'s gradient")
    factor = shares["sigmoid, Xavier"] ** (-1 / (DEPTH - 2))
    print(f"each sigmoid layer divides the gradient by {factor:.1f}")
    common.tidy(
        axes,
        "layer (1 is next to the image)",
        f"norm of the weights' gradient,\nlayer {DEPTH} = 1",
        name,
    )
    axes.set_xticks(range(1, DEPTH + 1))
    axes.legend()
    common.save(picture, args, __file__)
    return shares | {"factor": factor}


if __name__ == "__main__":
    common.run(main)
