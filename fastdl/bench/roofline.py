"""The roofline: speed against arithmetic intensity, below the machine's limits."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

from ..packages import needed
from .limits import Limit, Limits
from .run import LayerTimes

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
    # Not pyplot: that would choose a backend, and keep the figure, for the whole process.
    figure_module: Any = needed("matplotlib.figure", "matplotlib", "the roofline")
    shown = sorted((t for t in times if t.layer.flops), key=_intensity)
    figure = figure_module.Figure(figsize=(13, 9), dpi=110, layout="constrained")
    figure.suptitle(title, fontsize=11)
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("arithmetic intensity: operations per byte of input and output (FLOP/B)")
    axes.set_ylabel("speed of the direct algorithm's operations (GFLOP/s)")
    low, high = _span(shown, limits.all)
    axes.set_xlim(low, high)
    _roof(axes, limits.all, "-", low, high)
    if limits.one != limits.all:
        _roof(axes, limits.one, "--", low, high)
    _points(axes, shown)
    _names(axes, shown, low, high)
    axes.grid(which="major", color=_GUIDE, linewidth=0.5)
    axes.set_axisbelow(True)
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
    label = f"limit, {threads}: {limit.peak / 1e9:.0f} GFLOP/s, {limit.bandwidth / 1e9:.0f} GB/s"
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
