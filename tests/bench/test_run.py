"""What is timed is checked first."""

from dataclasses import replace

import numpy as np
import pytest

import fastdl
from fastdl.bench.implementation import Call
from fastdl.bench.layer import random_inputs
from fastdl.bench.ours import Backend
from fastdl.bench.peers import PEERS
from fastdl.bench.run import (
    FASTEST,
    TOLERANCE,
    LayerTimes,
    Row,
    difference,
    naive_row,
    results,
    time_layer,
)
from fastdl.bench.timing import Timing

from .small import CONV, EVERY, GLOBAL, IN_ONNX, RELU

OURS = [name for name, reason in fastdl.available_backends().items() if reason is None]


class Wrong:
    """Claims to be fast, and is off by one."""

    name = "wrong"

    def serves(self, layer):
        return True

    def prepare(self, layer, inputs, reuse):
        return Call(lambda: fastdl.relu(inputs["x"]) + 1, lambda result: (result,))


@pytest.mark.parametrize("layer", EVERY, ids=str)
@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize("name", OURS)
def test_every_backend_computes_every_operation(name, reuse, layer):
    inputs = random_inputs(layer)
    found = results(Backend(name).prepare(layer, inputs, reuse))
    expected = results(Backend("reference").prepare(layer, inputs, reuse=False))
    assert [array.shape for array in found] == list(layer.output_shapes)
    assert sum(array.nbytes for array in inputs.values()) == layer.bytes_read
    assert sum(array.nbytes for array in found) == layer.bytes_written
    assert difference(found, expected) < 1e-6


@pytest.mark.peer
@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize("name", PEERS)
def test_every_peer_computes_what_it_serves(name, reuse):
    pytest.importorskip(name)
    if name != "torch":
        pytest.importorskip("onnx")
    peer = PEERS[name](fastdl.get_num_threads())
    served = [layer for layer in EVERY if peer.serves(layer)]
    assert set(served) == set(EVERY if name == "torch" else IN_ONNX)
    for layer in served:
        inputs = random_inputs(layer)
        call = peer.prepare(layer, inputs, reuse)
        expected = results(Backend("reference").prepare(layer, inputs, reuse=False))
        call.run()
        assert difference(results(call), expected) < 1e-5, layer


def test_with_reuse_the_output_is_the_same_memory():
    call = Backend("reference").prepare(RELU, random_inputs(RELU), reuse=True)
    assert call.run() is call.run()


def test_rows_times_and_ratios():
    times = time_layer(CONV, [Backend("reference"), Backend("naive")], 0.01, False)
    reference, naive = times.rows
    assert (reference.name, naive.name) == ("reference", "naive")
    assert max(reference.error, naive.error) <= TOLERANCE
    assert times.ratio(reference, "naive") == naive.timing.seconds / reference.timing.seconds
    assert times.ratio(reference, "torch") is None
    assert times.wrong == []


def test_a_wrong_result_is_refused():
    times = time_layer(RELU, [Wrong(), Backend("reference")], 0.01, False)
    (row,) = times.wrong
    assert (row.name, row.timing) == ("wrong", None)
    assert row.error > 0.1
    assert times.ratio(times.rows[1], "wrong") is None


def test_a_wrong_reference_is_refused_by_the_naive_loops(monkeypatch):
    from fastdl.backends import reference

    layer = replace(RELU, name="another-relu")  # not one whose check is remembered
    monkeypatch.setattr(reference, "relu", lambda x, out: np.copyto(out, x))
    times = time_layer(layer, [Backend("reference")], 0.01, False)
    assert [row.name for row in times.wrong] == ["reference"]


def test_the_fastest_peer():
    def row(name, seconds):
        return Row(name, 0.0, Timing(seconds, seconds, seconds, 9) if seconds else None)

    rows = (row("compiled", 1.0), row("torch", 4.0), row("openvino", 3.0), row("onnxruntime", None))
    times = LayerTimes(CONV, (*rows, row("reference", 0.5)))
    assert times.row(FASTEST).name == "openvino"
    assert times.ratio(rows[0], FASTEST) == 3.0
    assert LayerTimes(CONV, rows[:1]).ratio(rows[0], FASTEST) is None


def test_the_naive_time_of_a_large_layer_is_scaled_up():
    large = replace(GLOBAL, batch=512, channels=512)
    row = naive_row(large)
    assert row.error <= TOLERANCE
    assert row.measured.work < large.work
    assert row.measured.kernel == large.kernel
    small = naive_row(row.measured)
    scale = large.work / row.measured.work
    assert row.timing.seconds == pytest.approx(small.timing.seconds * scale)


@pytest.mark.parametrize(
    ("found", "error"),
    [([3.0, 4.0], 0.0), ([3.0, 4.5], 0.1), ([3.0, np.nan], np.inf), ([3.0], np.inf)],
)
def test_difference(found, error):
    assert difference([np.array(found)], [np.array([3.0, 4.0])]) == pytest.approx(error)
