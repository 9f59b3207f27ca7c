"""Means and worsts of classes."""

from dataclasses import replace

import pytest

from fastdl.bench.layer import KINDS, Layer
from fastdl.bench.run import LayerTimes, Row
from fastdl.bench.summary import Standing, standings, summary
from fastdl.bench.timing import Timing

from .small import BACKWARD, IM2COL, RELU


def row(name, seconds):
    return Row(name, 1e-7, Timing(seconds, seconds, seconds, 9))


def times(layer, ours, *peers):
    return LayerTimes(layer, (row("compiled", ours), *(row(*peer) for peer in peers)))


POINTWISE = Layer("pointwise", "conv2d", 8, 64, 56, 56, 64)
TIMES = [
    times(RELU, 1.0, ("torch", 2.0), ("openvino", 3.0)),
    times(replace(RELU, name="other"), 1.0, ("torch", 8.0)),
    times(BACKWARD, 2.0, ("torch", 1.0)),
    times(POINTWISE, 2.0, ("torch", 3.0)),
    times(IM2COL, 1.0, ("reference", 9.0)),
]


def test_geometric_means_and_worsts_in_the_order_of_the_classes():
    assert standings(TIMES, "compiled") == [
        Standing("1x1", 1, 1.5, 1.5, "pointwise@8"),
        Standing("elementwise", 2, pytest.approx(4.0), 2.0, "tiny-relu@2"),
        Standing("small call, backward", 1, 0.5, 0.5, "tiny-backward@1"),
    ]
    assert standings(TIMES, "compiled", "reference") == [
        Standing("columns", 1, pytest.approx(9.0), 9.0, "tiny-im2col@1")
    ]
    assert standings(TIMES, "jit") == []


def test_the_text_has_a_line_a_class():
    lines = summary(TIMES, ["compiled", "jit"]).splitlines()
    assert lines[0].split() == ["compiled", "x", "fastest", "peer", "layers", "mean", "worst"]
    assert lines[2].split() == ["elementwise", "2", "4.00", "2.00", "tiny-relu@2"]
    assert len(lines) == 4
    assert summary(TIMES[-1:], ["compiled"]) == ""


def test_every_class_of_the_text_is_known():
    assert {t.layer.kind.removesuffix(", backward") for t in TIMES} <= set(KINDS)
