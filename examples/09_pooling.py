"""Pooling: maximum, average, and the global average that makes fully connected layers needless.

Above, one image after pools of 2 x 2 and 4 x 4: the maximum keeps the strokes, the
average blurs them. Below, a network that ends in a global average against the same
convolutions with a fully connected layer of 256: nearly all parameters are gone.

Lin, Chen and Yan, "Network in network", 2014, section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import common
import numpy as np

import fastdl
from fastdl import models, nn, optim


def fully_connected(shape: tuple[int, ...]) -> nn.Sequential:
    """The convolutions of `models.gap_net`, then two fully connected layers."""
    rng = np.random.default_rng(0)
    convolutions = models.gap_net(channels=shape[0], rng=rng).layers[:-3]
    features = 128 * (shape[1] // 4) * (shape[2] // 4)
    return nn.Sequential(
        *convolutions,
        nn.Flatten(),
        nn.Linear(features, 256, rng=rng),
        nn.ReLU(),
        nn.Linear(256, 10, rng=rng),
    )


def main(argv: Sequence[str] | None = None) -> common.Figures:
    args = common.arguments(
        argv, __doc__, "folder of MNIST's files (default: scikit-learn's digits)"
    )
    train, test, name = common.digit_images(args, 600 if args.quick else 10000)
    batch = 64
    epochs = 4 if args.quick else 15 if len(train.x) < 2000 else 2
    schedule = optim.Cosine(5e-3, epochs * -(-len(train.x) // batch))
    shape = train.x.shape[1:]
    networks = {
        "fully connected": (common.RED, fully_connected(shape)),
        "global average": (common.BLUE, models.gap_net(channels=shape[0], rng=0)),
    }
    picture = common.figure(f"Pooling ({name})", 9, 4.6)
    above, below = picture.subfigures(2, 1, height_ratios=(1.4, 1))
    image = train.x[:1]
    pooled = {
        "image": image,
        "maximum of 2 x 2": fastdl.max_pool2d(image, 2),
        "average of 2 x 2": fastdl.avg_pool2d(image, 2),
        "maximum of 4 x 4": fastdl.max_pool2d(image, 4),
        "average of 4 x 4": fastdl.avg_pool2d(image, 4),
        "global average": fastdl.global_avg_pool2d(image),
    }
    for axes, (label, out) in zip(above.subplots(1, len(pooled)), pooled.items(), strict=True):
        axes.imshow(out[0, 0], cmap="gray", vmin=image.min(), vmax=image.max())
        axes.set_title(f"{label}\n{out.shape[2]} x {out.shape[3]}", fontsize="small")
        axes.set(xticks=[], yticks=[])
    axes, figures = below.subplots(), {}
    for label, (colour, net) in networks.items():
        for _ in common.fit(
            net, optim.Adam(), train, epochs=epochs, batch_size=batch, schedule=schedule
        ):
            pass
        count = sum(array.size for array in net.parameters().values())
        wrong = common.error(net, test)
        bar = axes.barh(label, count, color=colour, zorder=2)
        axes.bar_label(bar, [f"{count:,} parameters, test error {wrong:.1f} %"], padding=4)
        figures[f"{label}, parameters"], figures[f"{label}, test error"] = count, wrong
        print(f"{label:15s} {count:9,} parameters, test error {wrong:.2f} %")
    saved = 1 - figures["global average, parameters"] / figures["fully connected, parameters"]
    print(f"global average pooling saves {saved:.1%} of the parameters")
    common.tidy(
        axes, "parameters", "", f"global average pooling saves {saved:.1%} of the parameters"
    )
    axes.margins(x=0.65)
    axes.grid(visible=False)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    common.save(picture, args, __file__)
    return figures | {"saved": saved}


if __name__ == "__main__":
    common.run(main)
