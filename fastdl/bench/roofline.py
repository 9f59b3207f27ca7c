"""The roofline: speed against arithmetic intensity, below the machine's limits.

`roofline` names each of a few layers and shows who computes it how fast;
`overview` shows many layers by their classes, one backend against its peers.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

from ..packages import needed
from .layer import BACKWARD, KINDS
from .limits import Limit, Limits
from .run import FASTEST, LayerTimes

_STYLES = {
    "compiled": ("#d62728", "o"),
    "jit": ("#ff7f0e", "D"),
    "reference": ("#7f7f7f", "s"),
    "naive": ("#bbbbbb", "v"),
    "torch": ("#1f77b4", "^"),
    "onnxruntime": ("#2ca02c", "P"),
    "openvino": ("#9467bd", "X"),
}
_OTHER = ("#17becf", "*")
#: Of each class, for `overview`. Twelve hues cannot be told apart: shapes help.
_KIND_STYLES = {
    "3x3 stride 1": ("#d62728", "o"),
    "1x1": ("#1f77b4", "s"),
    "other dense": ("#ff7f0e", "D"),
    "stem": ("#8c564b", "p"),
    "depthwise": ("#2ca02c", "^"),
    "max pool": ("#9467bd", "v"),
    "average pool": ("#e377c2", "<"),
    "batch norm": ("#17becf", "h"),
    "columns": ("#bcbd22", ">"),
    "elementwise": ("#555555", "X"),
    "small call": ("#000000", "*"),
    "channels-last": ("#7f7f7f", "P"),
}
_ROOF, _GUIDE = "#222222", "#d9d9d9"
#: More names than this cannot be told apart.
_MOST_NAMES = 60


def roofline(times: Sequence[LayerTimes], limits: Limits, title: str) -> bytes:
    """A PNG: every row a point at (FLOP per byte, GFLOP/s), under the roofs of one and all threads.

    Layers without arithmetic (im2col) have no place on it.

    Raises
    ------
    MissingPackageError
        If matplotlib is not installed.
    """
    shown = sorted((t for t in times if t.layer.flops), key=_intensity)
    figure, axes, low, high = _sheet(shown, limits, title, (13, 9))
    _points(axes, shown)
    _names(axes, shown, low, high)
    return _png(figure)


def overview(times: Sequence[LayerTimes], limits: Limits, title: str, name: str) -> bytes:
    """A PNG: every layer a point of its class, by ``name``; a line to its fastest peer.

    The backwards' points are hollow. Layers without arithmetic have no place.

    Raises
    ------
    MissingPackageError
        If matplotlib is not installed.
    """
    shown = [t for t in times if t.layer.flops and (row := t.row(name)) and row.timing]
    figure, axes, _, _ = _sheet(shown, limits, title, (11, 7.5))
    peer_places, peer_speeds = [], []
    for layer in shown:
        row, peer = layer.row(name), layer.row(FASTEST)
        if row and peer:
            place, flops = _intensity(layer), layer.layer.flops / 1e9
            speeds = [flops / row.seconds, flops / peer.seconds]
            axes.plot([place] * 2, speeds, color="#aaaaaa", linewidth=0.7, zorder=1)
            peer_places.append(place)
            peer_speeds.append(speeds[1])
    for kind in KINDS:
        color, marker = _KIND_STYLES[kind]
        for label, face in ((kind, color), (BACKWARD.format(kind), "white")):
            points = [
                (_intensity(t), t.layer.flops / row.seconds / 1e9)
                for t in shown
                if t.layer.kind == label and (row := t.row(name))
            ]
            if points:
                axes.plot(
                    *zip(*points, strict=True),
                    linestyle="none",
                    marker=marker,
                    markersize=6,
                    markerfacecolor=face,
                    markeredgecolor=color if face == "white" else "white",
                    markeredgewidth=1.0 if face == "white" else 0.5,
                    label=label,
                    zorder=3,
                )
    if peer_places:
        axes.plot(
            peer_places, peer_speeds, linestyle="none", marker="_", color="#777777",
            markersize=7, label="fastest peer", zorder=2,
        )  # fmt: skip
    return _png(figure)


def _sheet(
    times: Sequence[LayerTimes], limits: Limits, title: str, size: tuple[float, float]
) -> tuple[Any, Any, float, float]:
    """A figure with axes and roofs, and the range of its horizontal axis."""
    # Not pyplot: that would choose a backend, and keep the figure, for the whole process.
    figure_module: Any = needed("matplotlib.figure", "matplotlib", "the roofline")
    figure = figure_module.Figure(figsize=size, dpi=110, layout="constrained")
    figure.suptitle(title, fontsize=11)
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("arithmetic intensity: operations per byte of input and output (FLOP/B)")
    axes.set_ylabel("speed of the direct algorithm's operations (GFLOP/s)")
    low, high = _span(times, limits.all)
    axes.set_xlim(low, high)
    _roof(axes, limits.all, "-", low, high)
    if limits.one != limits.all:
        _roof(axes, limits.one, "--", low, high)
    axes.grid(which="major", color=_GUIDE, linewidth=0.5)
    axes.set_axisbelow(True)
    return figure, axes, low, high


def _png(figure: Any) -> bytes:
    figure.legend(loc="outside right center", frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _intensity(times: LayerTimes) -> float:
    return times.layer.flops / times.layer.nbytes


def _span(times: Sequence[LayerTimes], limit: Limit) -> tuple[float, float]:
    """The range of the horizontal axis: every layer, and the ridge where the limits meet."""
    places = [*map(_intensity, times), limit.peak / limit.bandwidth]
    return min(places) / 2, max(places) * 2


def _roof(axes: Any, limit: Limit, line: str, low: float, high: float) -> None:
    ridge = limit.peak / limit.bandwidth
    places = sorted({low, min(max(ridge, low), high), high})
    roof = [min(limit.peak, place * limit.bandwidth) / 1e9 for place in places]
    threads = "1 thread" if limit.threads == 1 else f"{limit.threads} threads"
    label = (
        f"limit, {threads}: {limit.peak / 1e9:.0f} GFLOP/s,\n"
        f"at most {limit.bandwidth / 1e9:.0f} GB/s"
    )
    axes.plot(places, roof, color=_ROOF, linestyle=line, linewidth=1.5, label=label)


def _points(axes: Any, times: Sequence[LayerTimes]) -> None:
    names = dict.fromkeys(row.name for layer in times for row in layer.rows)
    for name in names:
        points = [
            (_intensity(layer), layer.layer.flops / row.timing.seconds / 1e9)
            for layer in times
            for row in layer.rows
            if row.name == name and row.timing
        ]
        color, marker = _STYLES.get(name, _OTHER)
        axes.plot(
            *zip(*points, strict=True),
            linestyle="none",
            marker=marker,
            color=color,
            markersize=7,
            markeredgecolor="white",
            markeredgewidth=0.6,
            label=name,
        )


def _names(axes: Any, times: Sequence[LayerTimes], low: float, high: float) -> None:
    """A guide through each layer's points, its name above: moved aside where names would meet."""
    wanted = [math.log(_intensity(layer) / low) / math.log(high / low) for layer in times]
    for layer, place, free in zip(times, wanted, _apart(wanted), strict=True):
        axes.axvline(_intensity(layer), color=_GUIDE, linewidth=0.8, zorder=0)
        if len(times) > _MOST_NAMES:
            continue
        axes.annotate(
            layer.layer.label,
            xy=(place, 1.0),
            xytext=(free, 1.035),
            xycoords="axes fraction",
            rotation=60,
            ha="left",
            va="bottom",
            rotation_mode="anchor",
            fontsize=8,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": "#999999", "linewidth": 0.6},
        )


def _apart(places: Sequence[float], room: float = 1.0) -> list[float]:
    """Sorted places in [0, room], moved as little as it takes to stand evenly apart."""
    if not places:
        return []
    gap = min(0.022, room / len(places))
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + gap) if moved else place)
    # What was pushed beyond the end comes back, and pushes its neighbours.
    last = room
    for index in reversed(range(len(moved))):
        moved[index] = min(moved[index], last)
        last = moved[index] - gap
    return moved
