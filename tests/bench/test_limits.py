"""The roofline's arithmetic, and the measurement without the compiled kernels."""

import pytest

from fastdl.bench import limits
from fastdl.bench.layer import Layer
from fastdl.bench.limits import Limit

LIMIT = Limit(1, peak=100e9, read=10e9, copy=16e9, write=8e9)


def test_arithmetic_binds_a_convolution():
    layer = Layer("conv", "conv2d", 1, 64, 56, 56, 64, kernel=3, padding=1)
    assert LIMIT.binding(layer) == "compute"
    assert LIMIT.seconds(layer) == pytest.approx(layer.flops / 100e9)
    assert LIMIT.fraction(layer, 4 * LIMIT.seconds(layer)) == pytest.approx(0.25)


def test_memory_binds_a_copy_a_sum_and_a_spread():
    copies = Layer("relu", "relu", 8, 64, 56, 56)
    assert LIMIT.binding(copies) == "memory"
    assert LIMIT.seconds(copies) == pytest.approx(copies.nbytes / 16e9)
    reads = Layer("mean", "global_avg_pool2d", 1, 1, 100, 101)
    assert LIMIT.seconds(reads) == pytest.approx(2 * 4 / 16e9 + (4 * 10100 - 4) / 10e9)
    writes = Layer("spread", "global_avg_pool2d_backward", 1, 1, 100, 101)
    assert LIMIT.seconds(writes) == pytest.approx(2 * 4 / 16e9 + (4 * 10100 - 4) / 8e9)


@pytest.mark.parametrize("missing", [False, True])
def test_measuring(monkeypatch, missing):
    if missing:
        monkeypatch.setattr(limits, "why_missing", lambda name: "no compiler")
        monkeypatch.setattr(limits, "_COPY_BYTES", 1 << 20)
        monkeypatch.setattr(limits, "_MATRIX", 64)
    elif limits.why_missing("compiled") is None:
        compiled = pytest.importorskip("fastdl.backends.compiled.limits")
        monkeypatch.setattr(compiled, "_REPETITIONS", 1)
    measured = limits.measure(2)
    assert ("missing" in measured.source) == (missing or limits.why_missing("compiled") is not None)
    assert (measured.one.threads, measured.all.threads) == (1, 2)
    assert measured.all.peak >= measured.one.peak > 0
    for name in ("read", "copy", "write"):
        assert getattr(measured.all, name) >= getattr(measured.one, name) > 0
    assert measured.all.bandwidth == max(measured.all.read, measured.all.copy, measured.all.write)
