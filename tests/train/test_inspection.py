"""Callbacks that look at gradients and activations, and log them."""

import sys

import numpy as np
import pytest

import fastdl
from fastdl import nn
from fastdl.data import Samples
from fastdl.optim import SGD
from fastdl.train import ActivationHistograms, GradientNorms, TensorBoard, activations, fit


@pytest.fixture(autouse=True)
def _reference():
    with fastdl.use_backend("reference"):
        yield


def net():
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1, rng=0),
        nn.Residual(nn.Sequential({"norm": nn.BatchNorm2d(2)})),
        nn.Flatten(),
        nn.Linear(8, 3, rng=0),
    )


SAMPLES = Samples(np.random.default_rng(0).random((8, 1, 2, 2), np.float32), np.arange(8) % 3)


def test_gradient_norms(tmp_path):
    model, norms = net(), GradientNorms(tmp_path / "g.png", every=3)
    fit(model, SGD(0.1), SAMPLES, epochs=2, batch_size=8, callbacks=[norms])
    assert [list(epoch) for epoch in norms.epochs] == [["0.weight", "3.weight"]] * 2
    # One step an epoch: the gradients are still those that the last mean is of.
    expected = np.linalg.norm(model.gradients()["3.weight"])
    assert norms.epochs[1]["3.weight"] == pytest.approx(expected)
    assert (tmp_path / "g.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(fastdl.ArgumentError, match="an epoch must have ended"):
        GradientNorms().picture()


def test_activations_are_the_layers_outputs():
    model = net()
    x = SAMPLES.x
    outputs = activations(model, x)
    assert list(outputs) == ["0", "1.body.norm", "1", "2", "3"]
    model.eval()
    first = model.layers[0].forward(x)
    np.testing.assert_array_equal(outputs["0"], first)
    np.testing.assert_allclose(outputs["1"], first + outputs["1.body.norm"], rtol=1e-6)
    np.testing.assert_array_equal(outputs["3"], model.predict(x))
    before = {name: array.copy() for name, array in model.state_dict().items()}
    model.train()
    activations(model, x)
    assert model.training
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_activation_histograms(tmp_path):
    histograms = ActivationHistograms(SAMPLES.x, tmp_path / "a.png")
    fit(net(), SGD(0.1), SAMPLES, epochs=2, callbacks=[histograms])
    assert list(histograms.epochs[1]) == ["0", "1.body.norm", "1", "3"]
    counts, edges = histograms.epochs[1]["3"]
    assert counts.sum() == 8 * 3
    assert len(edges) == len(counts) + 1
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(fastdl.ArgumentError, match="an epoch must have ended"):
        ActivationHistograms(SAMPLES.x).picture()


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    history = fit(net(), SGD(0.1), SAMPLES, SAMPLES, epochs=2, callbacks=[TensorBoard(tmp_path)])
    events = EventAccumulator(str(tmp_path)).Reload()
    written = [(event.step, event.value) for event in events.Scalars("loss/validation")]
    expected = [(epoch.number, epoch.validation_loss) for epoch in history.epochs]
    np.testing.assert_allclose(written, expected, rtol=1e-6)
    assert len(events.Tags()["scalars"]) == 6


def test_tensorboard_is_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.summary_pb2", None)
    with pytest.raises(fastdl.MissingPackageError, match="pip install tensorboard"):
        TensorBoard("log")
