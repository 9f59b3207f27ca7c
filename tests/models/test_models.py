import numpy as np
import pytest

import fastdl
from fastdl import io, models


@pytest.fixture(autouse=True)
def _reference():
    with fastdl.use_backend("reference"):
        yield


def test_trained_model_comes_back(tmp_path):
    model = models.digits_cnn(rng=0)
    x = np.random.default_rng(0).random((5, 1, 8, 8), np.float32)
    model(x)
    io.save_state(tmp_path / "m", model.state_dict(), {"model": "digits_cnn"})
    np.testing.assert_array_equal(models.load(tmp_path / "m").predict(x), model.predict(x))


@pytest.mark.parametrize(
    ("change", "metadata", "message"),
    [
        (lambda s: s, {}, r"metadata 'model' must be one of \['digits_cnn'\], got None"),
        (lambda s: s, {"model": "alexnet"}, "must be one of .* got 'alexnet'"),
        (
            lambda s: s.pop("0.weight"),
            {"model": "digits_cnn"},
            r"does not fit .* lacks \['0.weight",
        ),
        (
            lambda s: s.update({"0.weight": s["0.weight"][:1]}),
            {"model": "digits_cnn"},
            r"does not fit the network digits_cnn: state\['0.weight'\] must be",
        ),
        (
            lambda s: s.update({"0.weight": s["0.weight"].astype("f8")}),
            {"model": "digits_cnn"},
            r"state\['0.weight'\] must be float32, got float64",
        ),
    ],
)
def test_files_that_are_no_model(tmp_path, change, metadata, message):
    state = models.digits_cnn(rng=0).state_dict()
    change(state)
    io.save_state(tmp_path / "m.safetensors", state, metadata)
    with pytest.raises(fastdl.DataError, match=message) as caught:
        models.load(tmp_path / "m.safetensors")
    assert "m.safetensors" in str(caught.value)


def test_digits_cnn_float64():
    scores = models.digits_cnn(rng=0, dtype=np.float64)(np.zeros((2, 1, 8, 8)))
    assert scores.dtype == np.float64
    assert scores.shape == (2, 10)
