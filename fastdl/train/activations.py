"""What the layers give: histograms of their outputs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import nn
from ..device import placed, to_host
from ..errors import ArgumentError
from ..io import write_atomically
from .callback import Callback
from .plot import new_figure, png
from .training import Training

Array = NDArray[Any]
#: These only move or drop values.
_LEFT_OUT = (nn.Flatten, nn.Dropout)
_BINS, _COLUMNS = 50, 5


def activations(model: nn.Layer, x: Array) -> dict[str, Array]:
    """The output of every layer for the images x, in evaluation, by the layer's name.

    Parameters
    ----------
    model : Layer
        A `Sequential` is looked into, and the body of a `Residual`; any other
        layer is one.
    x : ndarray (N, C, H, W)

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import nn, train
    >>> net = nn.Sequential(nn.Linear(2, 3, rng=0), nn.ReLU())
    >>> list(train.activations(net, np.ones((4, 2), np.float32)))
    ['0', '1']
    """
    training = model.training
    model.eval()
    try:
        outputs = _outputs(model, "", placed(x, model.device))
        return {name: to_host(output) for name, output in outputs}
    finally:
        model.train(training)


def _outputs(layer: nn.Layer, name: str, x: Array) -> Iterator[tuple[str, Array]]:
    """Name and output of ``layer`` and, before it, of those inside."""
    if isinstance(layer, nn.Sequential):
        for child_name, child in layer.children().items():
            full = f"{name}.{child_name}" if name else child_name
            for found in _outputs(child, full, x):
                yield found
                x = found[1]
        return
    if isinstance(layer, nn.Residual):
        yield from _outputs(layer.body, f"{name}.body" if name else "body", x)
    # A copy: the layer may write its next output into the same memory.
    yield name or type(layer).__name__, layer.forward(x).copy()


class ActivationHistograms(Callback):
    """Histograms of every layer's output after each epoch, on the same images.

    Parameters
    ----------
    images : ndarray (N, C, H, W)
        As the network takes them: normalised. A hundred will do.
    path : path, optional
        Where the picture goes, written anew after every epoch.

    Attributes
    ----------
    epochs : list of dict of str to (counts, edges)
        As `numpy.histogram` gives them, by the layer's name.

    References
    ----------
    Glorot and Bengio, "Understanding the difficulty of training deep feedforward
    neural networks", AISTATS 2010, figure 6.
    """

    def __init__(self, images: Array, path: str | os.PathLike[str] | None = None) -> None:
        self.images, self.path = images, path
        self.epochs: list[dict[str, tuple[Array, Array]]] = []
        self._kinds: dict[str, str] = {}

    def on_epoch(self, training: Training) -> None:
        outputs = activations(training.model, self.images)
        layers = _named_layers(training.model, "")
        self._kinds = {name: type(layer).__name__ for name, layer in layers.items()}
        self.epochs.append(
            {
                name: np.histogram(output, _BINS)
                for name, output in outputs.items()
                if not isinstance(layers.get(name), _LEFT_OUT)
            }
        )
        if self.path is not None:
            write_atomically(self.path, self.picture())

    def picture(self) -> bytes:
        """A PNG: a panel a layer, the first epoch beside the last.

        Raises
        ------
        ArgumentError
            Before the first epoch has ended.
        MissingPackageError
            If matplotlib is not installed.
        """
        if not self.epochs:
            raise ArgumentError("an epoch must have ended before there are histograms to show")
        names = list(self.epochs[0])
        columns = min(_COLUMNS, len(names))
        rows = -(-len(names) // columns)
        figure = new_figure(2.4 * columns, 0.8 + 1.7 * rows, "the picture of activations")
        figure.suptitle("Output of each layer: how often each value comes")
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        last = len(self.epochs)
        shown = {1: "#9ecae1"} | {last: "#d95f02"} if last > 1 else {1: "#d95f02"}
        for axes, name in zip(panels, names, strict=False):
            for number, color in shown.items():
                counts, edges = self.epochs[number - 1][name]
                axes.stairs(
                    counts, edges, color=color, fill=number != last, label=f"epoch {number}"
                )
            axes.set_title(f"{name} {self._kinds.get(name, '')}", fontsize=8)
            axes.set_yscale("log")
            axes.tick_params(labelsize=6)
        for axes in panels[len(names) :]:
            axes.set_axis_off()
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower right", ncols=2)
        return png(figure)


def _named_layers(layer: nn.Layer, name: str) -> dict[str, nn.Layer]:
    found = {name: layer}
    for child_name, child in layer.children().items():
        found |= _named_layers(child, f"{name}.{child_name}" if name else child_name)
    return found
