import numpy as np
import pytest

import fastdl
from fastdl import io, models

#: Images (C, H, W) that each network takes.
IMAGES = {
    "alexnet": (3, 63, 65),
    "alexnet_32": (3, 32, 32),
    "digits_cnn": (1, 8, 8),
    "gap_net": (3, 4, 9),
    "lenet5": (1, 28, 28),
    "mnist_cnn": (1, 28, 28),
    "resnet9": (3, 32, 32),
    "resnet18": (3, 33, 40),
    "resnet20": (3, 9, 16),
    "resnet50": (3, 33, 40),
    "vgg11": (3, 32, 33),
    "vgg11_32": (3, 32, 32),
    "vgg16": (3, 32, 33),
    "vgg16_32": (3, 32, 32),
}
#: Those that take no seconds.
SMALL = sorted(IMAGES.keys() - {"alexnet", "resnet50", "vgg11", "vgg16", "vgg16_32"})


def images(name, count=2, seed=0):
    shape = (count, *IMAGES[name])
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_every_network_has_a_case():
    assert IMAGES.keys() == models.BUILDERS.keys()
    assert models.BUILDERS.keys() | {"BUILDERS", "load"} == set(models.__all__)


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_gets_a_gradient(name):
    model = models.BUILDERS[name](rng=0)
    scores = model(images(name))
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    model.backward(np.ones_like(scores))
    parameters, gradients = model.parameters(), model.gradients()
    assert gradients.keys() == parameters.keys()
    for key, gradient in gradients.items():
        assert gradient.shape == parameters[key].shape


@pytest.mark.parametrize("name", ["digits_cnn", "gap_net", "lenet5", "mnist_cnn", "resnet20"])
def test_trained_model_comes_back(name, tmp_path):
    model, x = models.BUILDERS[name](rng=0), images(name)
    model(x)
    io.save_state(tmp_path / "m", model.state_dict(), {"model": name})
    np.testing.assert_array_equal(models.load(tmp_path / "m").predict(x), model.predict(x))


def test_classes_and_channels_come_back(tmp_path):
    model = models.resnet20(classes=7, channels=2, rng=0)
    metadata = {"model": "resnet20", "classes": "7", "channels": "2"}
    io.save_state(tmp_path / "m", model.state_dict(), metadata)
    loaded = models.load(tmp_path / "m")
    assert not loaded.training
    assert loaded.predict(np.zeros((3, 2, 32, 32), np.float32)).shape == (3, 7)


@pytest.mark.parametrize("name", ["gap_net", "mnist_cnn", "resnet20"])
def test_same_seed_same_weights(name):
    first, again, other = (models.BUILDERS[name](rng=seed).parameters() for seed in (3, 3, 4))
    assert all((first[key] == again[key]).all() for key in first)
    assert any((first[key] != other[key]).any() for key in first)


@pytest.mark.parametrize(
    ("change", "metadata", "message"),
    [
        (lambda s: s, {}, r"metadata 'model' must be one of \['alexnet', .*\], got None"),
        (lambda s: s, {"model": "lenet"}, "must be one of .* got 'lenet'"),
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
        (
            lambda s: s,
            {"model": "digits_cnn", "classes": "64"},
            r"does not fit .* must be \(64, 256\), got \(10, 256\)",
        ),
        (
            lambda s: s,
            {"model": "digits_cnn", "classes": "1000000000000"},
            "metadata 'classes' must be the length of an axis .*, got '1000000000000'",
        ),
        (
            lambda s: s.update(empty=np.zeros(0)),
            {"model": "digits_cnn", "channels": "0"},
            "does not fit .* in_channels must be at least 1, got 0",
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


@pytest.mark.parametrize("name", ["digits_cnn", "lenet5", "resnet20", "gap_net"])
def test_float64(name):
    scores = models.BUILDERS[name](rng=0, dtype=np.float64)(images(name).astype(np.float64))
    assert scores.dtype == np.float64
    assert scores.shape == (2, 10)
