"""What a user reads: the table and the picture."""

import io
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from fastdl.bench.report import report
from fastdl.bench.roofline import _apart, overview, roofline
from fastdl.bench.run import LayerTimes, Row
from fastdl.bench.table import duration, notes, table
from fastdl.bench.timing import Timing

from .small import CONV, IM2COL, LIMITS, RELU


def row(name, seconds, measured=None):
    return Row(name, 1e-7, Timing(seconds, seconds, seconds, 9), measured)


TIMES = [
    LayerTimes(
        CONV,
        (
            row("compiled", 1e-6),
            row("reference", 5e-6),
            row("torch", 2e-6),
            row("naive", 3e-3, replace(CONV, batch=1)),
        ),
    ),
    LayerTimes(RELU, (row("compiled", 1e-7), Row("jit", 0.5, None))),
]


def cells(text, layer, name):
    """The words of a row."""
    block = next(block for block in text.split("\n\n") if block.startswith(layer.label))
    return next(line.split() for line in block.splitlines() if line.split()[0] == name)


def test_the_table():
    text = table(TIMES, LIMITS.all, ["torch"])
    head = text.splitlines()[0]
    assert [word for word in ("time", "speed", "of limit", "x naive", "x reference", "x torch")
            if word not in head] == []  # fmt: skip
    limit = LIMITS.all.seconds(CONV)
    assert limit > CONV.flops / 200e9
    assert cells(text, CONV, "compiled") == [
        "compiled", "1.00", "us", f"{CONV.flops / 1e-6 / 1e9:.1f}", "GFLOP/s",
        f"{100 * limit / 1e-6:.0f}%", "memory", "3000", "5.00", "2.00",
    ]  # fmt: skip
    assert cells(text, CONV, "reference")[-3:] == ["600", "-", "0.40"]
    assert " ".join(cells(text, CONV, "naive")).endswith("(timed on 1x4x9x9 -> 6)")
    assert cells(text, RELU, "compiled")[3:5] == [f"{RELU.nbytes / 1e-7 / 1e9:.2f}", "GB/s"]
    assert cells(text, RELU, "jit")[1] == "refused:"


def test_columns_stand_below_their_heads():
    lines = table(TIMES, LIMITS.all, ["torch"]).splitlines()
    compiled = next(line for line in lines if "compiled" in line)
    assert len(compiled) == len(lines[0])


def test_the_fastest_of_several_peers_has_a_column():
    times = [LayerTimes(CONV, (*TIMES[0].rows, row("openvino", 1.5e-6)))]
    text = table(times, LIMITS.all, ["torch", "openvino"])
    assert text.splitlines()[0].endswith("x torch  x openvino  x fastest peer")
    assert cells(text, CONV, "compiled")[-3:] == ["2.00", "1.50", "1.50"]
    assert "fastest" not in table(times, LIMITS.all, ["torch"])


def test_the_notes_say_how_memory_was_used_and_what_naive_is():
    assert "--reuse" in notes(TIMES, reuse=False)
    assert "reused by all" in notes(TIMES, reuse=True)
    assert "smaller layer" in notes(TIMES, reuse=False)
    assert "smaller layer" not in notes(TIMES[1:], reuse=False)


def test_durations():
    assert [duration(s) for s in (1.5, 0.5, 1e-3, 9.99e-4, 3e-8)] == [
        "1.50 s",
        "500 ms",
        "1.00 ms",
        "999 us",
        "0.03 us",
    ]


def test_the_report():
    fields = report(TIMES, LIMITS, "fastdl bench", 2.0, reuse=True)
    assert fields["method"]["memory"] == "reused"
    assert fields["limits"]["all"] == {
        "threads": 2, "peak": 200e9, "read": 15e9, "copy": 20e9, "write": 12e9,
    }  # fmt: skip
    compiled, *_, naive = fields["results"][0]["rows"]
    assert compiled["times_as_fast_as"] == pytest.approx(
        {"reference": 5, "torch": 2, "naive": 3000, "fastest peer": 2}
    )
    assert compiled["fraction_of_limit"] == pytest.approx(LIMITS.all.seconds(CONV) / 1e-6)
    assert naive["measured_on"]["batch"] == 1
    assert fields["results"][1]["rows"][1] == {
        "name": "jit",
        "error": 0.5,
        "right": False,
        "measured_on": None,
    }


def test_the_roofline_is_a_picture():
    image = pytest.importorskip("matplotlib.image")
    png = roofline([*TIMES, LayerTimes(IM2COL, (row("compiled", 1e-6),))], LIMITS, "a title")
    pixels = image.imread(io.BytesIO(png), format="png")
    assert pixels.shape[0] > 600
    assert pixels.shape[1] > 900
    for color in ((0xD6, 0x27, 0x28), (0x1F, 0x77, 0xB4)):  # compiled and torch
        assert np.any(np.all(np.round(pixels[..., :3] * 255) == color, axis=-1))


def test_the_overview_is_a_picture():
    image = pytest.importorskip("matplotlib.image")
    png = overview([*TIMES, LayerTimes(IM2COL, (row("jit", 1.0),))], LIMITS, "a title", "compiled")
    pixels = image.imread(io.BytesIO(png), format="png")
    assert pixels.shape[1] > pixels.shape[0] > 600


def test_a_roofline_of_nothing_but_moves():
    assert roofline([LayerTimes(IM2COL, (row("compiled", 1e-6),))], LIMITS, "moves")


def test_names_stand_apart():
    places = [0.1, 0.1, 0.11, 0.5, 0.995, 1.0]
    moved = _apart(places)
    assert all(right - left > 0.02 for left, right in pairwise(moved))
    assert moved[3] == 0.5
    assert max(moved) <= 1
    assert _apart([]) == []
