"""AlexNet on CIFAR-10: the 32 x 32 version learns ten kinds of things from colour photographs.

Five convolutions, three fully connected layers with dropout, images shifted and
mirrored at random, Nesterov momentum with a falling rate: the recipe of the paper
in small. Two minutes show where it goes.

Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep convolutional
neural networks", 2012; the images are those of Krizhevsky, "Learning multiple
layers of features from tiny images", 2009.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import common
import numpy as np

from fastdl import ArgumentError, data, models, nn, optim


def main(argv: Sequence[str] | None = None) -> common.Figures:
    args = common.arguments(
        argv,
        __doc__,
        "folder of CIFAR-10: its .bin files, or train/CLASS/*.jpg and test/CLASS/*.jpg",
    )
    if args.data is None:
        raise ArgumentError(
            "this example needs CIFAR-10 (https://www.cs.toronto.edu/~kriz/cifar.html, "
            "the binary version): name its folder with --data PATH"
        )
    cifar = data.load_cifar10(args.data)
    count, epochs, batch = (270, 8, 16) if args.quick else (10000, 4, 64)
    normalize = data.Normalize.of(cifar.train)
    rng = np.random.default_rng(0)
    chosen = rng.permutation(len(cifar.train.y))[:count]
    train = data.Samples(cifar.train.x[chosen], cifar.train.y[chosen])
    test = data.Samples(normalize(cifar.test.x), cifar.test.y)
    seen = data.Samples(normalize(train.x[:2000]), train.y[:2000])
    net = models.alexnet_32(classes=len(cifar.classes), rng=0)
    loader = data.Loader(
        train,
        batch,
        transforms=(data.RandomCrop(2), data.HorizontalFlip()),
        normalize=normalize,
    )
    updates = epochs * len(loader)
    optimizer = optim.Nesterov(0.02, 0.9, regularizer=optim.L2(5e-4), max_norm=5.0)
    schedule = optim.Cosine(0.02, updates, warmup=updates // 10)
    errors = [(0, common.error(net, seen), common.error(net, test))]
    for number, _ in enumerate(
        common.fit(net, optimizer, loader, epochs=epochs, schedule=schedule), start=1
    ):
        errors.append((number, common.error(net, seen), common.error(net, test)))
        print(
            f"epoch {number}: training error {errors[-1][1]:.1f} %, test error {errors[-1][2]:.1f} %"
        )
    draw(args, net, cifar, test, np.array(errors), count)
    accuracy = 100 - errors[-1][2]
    print(f"test accuracy {accuracy:.1f} % after {epochs} x {count} images")
    return {"test accuracy": accuracy, "training error": errors[-1][1]}


def draw(
    args: argparse.Namespace,
    net: nn.Layer,
    cifar: data.Dataset,
    test: data.Samples,
    errors: np.ndarray,
    count: int,
) -> None:
    """The errors by epoch, and twelve test images with what the network takes them for."""
    picture = common.figure("AlexNet (32 x 32) on CIFAR-10", 10, 4.6)
    left, right = picture.subfigures(1, 2, width_ratios=(1, 1.15))
    axes = left.subplots()
    axes.plot(errors[:, 0], errors[:, 2], marker="o", color=common.RED, label="test")
    axes.plot(errors[:, 0], errors[:, 1], marker="s", color=common.BLUE, label="training")
    common.tidy(
        axes, f"epochs of {count} images", "error (%)", f"test accuracy {100 - errors[-1, 2]:.1f} %"
    )
    axes.set_ylim(0, 100)
    axes.set_xticks(errors[:, 0])
    axes.legend()
    some = np.random.default_rng(1).permutation(len(test.y))[:12]
    taken = net.predict(test.x[some]).argmax(1)
    right.suptitle("test images, and what it takes them for", fontsize="medium")
    for panel, index, guess in zip(right.subplots(3, 4).flat, some, taken, strict=True):
        panel.imshow(cifar.test.x[index].transpose(1, 2, 0))
        right_one = guess == cifar.test.y[index]
        panel.set_title(
            cifar.classes[guess], fontsize="small", color=common.GREEN if right_one else common.RED
        )
        panel.axis("off")
    common.save(picture, args, __file__)


if __name__ == "__main__":
    common.run(main)
