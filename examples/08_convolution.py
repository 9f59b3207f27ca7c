"""Convolution: what padding, stride and channels do to an image, and what its filters learn.

Above, one image under a hand-made edge filter: without padding it loses its rim,
with padding it keeps its size, with a stride of 2 it halves; two filters give two
channels. Below, the sixteen filters of a first layer before and after training:
noise becomes strokes and edges.

Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import common
import numpy as np

import fastdl
from fastdl import nn, optim

FILTERS = 16
#: Sobel's filters: edges across, and edges along.
EDGES = np.array(
    [[[[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]], [[[-1, -2, -1], [0, 0, 0], [1, 2, 1]]]], np.float32
)


def network(shape: tuple[int, ...], kernel: int) -> nn.Sequential:
    """A convolution of large kernels, whose filters can be looked at, and two more layers."""
    rng = np.random.default_rng(0)
    return nn.Sequential(
        nn.Conv2d(shape[0], FILTERS, kernel, padding="same", rng=rng),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(FILTERS, 32, 3, padding=1, rng=rng),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * (shape[1] // 4) * (shape[2] // 4), 10, rng=rng),
    )


def smoothness(filters: np.ndarray) -> float:
    """How alike neighbouring taps are: the correlation, 0 for noise."""
    left = np.concatenate([filters[..., :-1].ravel(), filters[..., :-1, :].ravel()])
    right = np.concatenate([filters[..., 1:].ravel(), filters[..., 1:, :].ravel()])
    return float(np.corrcoef(left, right)[0, 1])


def show(axes: Any, image: np.ndarray, title: str, colours: str = "gray") -> None:
    """An image, its title above and nothing else."""
    limit = float(np.nanmax(np.abs(image)))
    axes.imshow(image, cmap=colours, vmin=-limit if colours == "RdBu" else None, vmax=limit)
    axes.set_title(title, fontsize="small")
    axes.set(xticks=[], yticks=[])


def strip(filters: np.ndarray) -> np.ndarray:
    """The filters (FILTERS, K, K) side by side, a gap between them."""
    scaled = filters / np.abs(filters).max((1, 2), keepdims=True)
    padded = np.pad(scaled, ((0, 0), (1, 1), (1, 1)), constant_values=np.nan)
    return np.concatenate(list(padded), 1)


def main(argv: Sequence[str] | None = None) -> common.Figures:
    args = common.arguments(
        argv, __doc__, "folder of MNIST's files (default: scikit-learn's digits)"
    )
    train, test, name = common.digit_images(args, 1000 if args.quick else 20000)
    epochs = 6 if args.quick else 60 if len(train.x) < 2000 else 3
    image = train.x[:1]
    convolved = {
        "no padding": fastdl.conv2d(image, EDGES[:1]),
        "padding 1": fastdl.conv2d(image, EDGES[:1], padding=1),
        "padding 1, stride 2": fastdl.conv2d(image, EDGES[:1], stride=2, padding=1),
    }
    both = fastdl.conv2d(image, EDGES, padding=1)

    net = network(train.x.shape[1:], 7 if train.x.shape[2] > 8 else 5)
    before = net.parameters()["0.weight"][:, 0].copy()
    optimizer = optim.Nesterov(0.05, regularizer=optim.L2(0.03))
    for _ in common.fit(net, optimizer, train, epochs=epochs):
        pass
    after = net.parameters()["0.weight"][:, 0].copy()

    picture = common.figure(f"Convolution ({name})", 9, 4.6)
    above, middle, below = picture.subfigures(3, 1, height_ratios=(2, 1, 1))
    panels = above.subplots(1, 6)
    show(panels[0], image[0, 0], "image\n" + size(image))
    for axes, (label, out) in zip(panels[1:4], convolved.items(), strict=True):
        show(axes, out[0, 0], f"{label}\n{size(out)}", "RdBu")
        print(f"{label:20s} {size(image)} -> {size(out)}")
    for axes, channel, label in zip(panels[4:], both[0], ("across", "along"), strict=True):
        show(axes, channel, f"channel of edges\n{label}", "RdBu")
    print(f"{'two filters':20s} {image.shape[1]} channel -> {both.shape[1]} channels")
    for part, filters, when in ((middle, before, "before"), (below, after, "after")):
        show(
            part.subplots(),
            strip(filters),
            f"{FILTERS} filters {when} training: neighbouring taps correlate by {smoothness(filters):.2f}",
            "RdBu",
        )
    wrong = common.error(net, test)
    print(
        f"neighbouring taps correlate by {smoothness(before):.2f} before and "
        f"{smoothness(after):.2f} after training (test error {wrong:.1f} %)"
    )
    common.save(picture, args, __file__)
    sizes = {label: float(out.shape[2]) for label, out in convolved.items()}
    return sizes | {
        "image": float(image.shape[2]),
        "before": smoothness(before),
        "after": smoothness(after),
        "test error": wrong,
    }


def size(images: np.ndarray) -> str:
    """Height x width."""
    return f"{images.shape[2]} x {images.shape[3]}"


if __name__ == "__main__":
    common.run(main)
