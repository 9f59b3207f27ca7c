"""The roofline's arithmetic, and the measurement without the compiled kernels."""

import pytest

from fastdl.bench import limits
from fastdl.bench.limits import Limit


def test_the_binding_limit():
    limit = Limit(1, peak=100e9, bandwidth=10e9)
    assert limit.binding(1000, 10) == "compute"
    assert limit.seconds(1000, 10) == pytest.approx(1000 / 100e9)
    assert limit.binding(1000, 1000) == "memory"
    assert limit.seconds(1000, 1000) == pytest.approx(1000 / 10e9)


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
    assert measured.all.bandwidth >= measured.one.bandwidth > 0
