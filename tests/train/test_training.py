import json
import math
import sys

import numpy as np
import pytest

import fastdl
from fastdl import models, nn
from fastdl.data import Samples
from fastdl.io import load_state
from fastdl.optim import SGD, Adam
from fastdl.train import (
    Epoch,
    History,
    Run,
    evaluate,
    fit,
    learning_curve,
    naive_images_per_second,
    training_step,
)


@pytest.fixture(autouse=True)
def _reference():
    with fastdl.use_backend("reference"):
        yield


def clouds(count, seed=0):
    """Three classes of 1 x 2 x 2 images, far apart."""
    rng = np.random.default_rng(seed)
    y = np.arange(count) % 3
    x = rng.normal(0, 0.3, (count, 1, 2, 2)).astype(np.float32)
    x[np.arange(count), 0, y // 2, y % 2] += 2
    return Samples(x, y)


def tiny_net():
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3, rng=0))


def epoch(number, accuracy=0.9, loss=0.3):
    return Epoch(number, 0.5, 0.8, loss, accuracy, 100.0 * number)


def train_tiny(**options):
    net, steps = tiny_net(), []
    arguments = {"epochs": 4, "batch_size": 8, "rng": 0, **options}
    optimizer = SGD(arguments.pop("lr", 0.5))
    train, validation = clouds(60), clouds(30, seed=1)
    epochs = fit(
        net,
        optimizer,
        train,
        validation,
        after_step=lambda: steps.append(optimizer.lr),
        **arguments,
    )
    return net, epochs, steps


def test_fit_learns():
    net, epochs, steps = train_tiny()
    seen = list(epochs)
    assert [epoch.number for epoch in seen] == [1, 2, 3, 4]
    assert seen[-1].train_loss < seen[0].train_loss
    assert seen[-1].validation_accuracy == 1
    assert (seen[-1].validation_loss, 1.0) == evaluate(net, clouds(30, seed=1))
    assert len(steps) == 4 * 8
    assert steps[0] == 0.5
    assert steps == sorted(steps, reverse=True)
    assert 0 < steps[-1] < 0.01
    assert all(epoch.images_per_second > 0 for epoch in seen)


def test_fit_is_repeatable():
    nets = []
    for seed in (0, 0, 1):
        net, epochs, _ = train_tiny(rng=seed)
        list(epochs)
        nets.append(net.parameters()["1.weight"])
    np.testing.assert_array_equal(nets[0], nets[1])
    assert (nets[0] != nets[2]).any()


def test_epoch_figures_are_means_over_all_images():
    # 60 images in batches of 8: the last batch has 4, and must count less.
    net = tiny_net()
    loss = nn.CrossEntropyLoss()
    frozen = SGD(1e-30)
    (one,) = fit(net, frozen, clouds(60), clouds(3), epochs=1, batch_size=8, rng=0)
    expected, accuracy = evaluate(net, clouds(60), loss)
    assert one.train_loss == pytest.approx(expected, rel=1e-5)
    assert one.train_accuracy == accuracy


@pytest.mark.parametrize("name", ["epochs", "batch_size"])
def test_fit_checks_its_counts(name):
    _, epochs, _ = train_tiny(**{name: 0})
    with pytest.raises(fastdl.ArgumentError, match=f"{name} must be at least 1, got 0"):
        next(epochs)


def test_diverging_is_an_error():
    _, epochs, _ = train_tiny(lr=1e300)
    with pytest.raises(
        fastdl.ArgumentError, match=r"training loss became (nan|inf) in epoch 1.*lr=1e\+300"
    ):
        list(epochs)


def test_training_step_changes_the_parameters():
    net, samples = tiny_net(), clouds(9)
    before = net.parameters()["1.weight"].copy()
    value, right = training_step(net, nn.CrossEntropyLoss(), Adam(0.1), *samples)
    assert math.isfinite(value)
    assert 0 <= right <= 9
    assert (net.parameters()["1.weight"] != before).all()


def test_naive_speed_is_that_of_the_naive_backend():
    class Spy(nn.Flatten):
        def forward(self, x):
            from fastdl.backends.registry import current_name

            seen.append((current_name(), len(x), self.training))
            return super().forward(x)

    seen = []
    net = nn.Sequential(Spy(), nn.Linear(4, 3, rng=0))
    assert naive_images_per_second(net, clouds(2)) > 0
    assert seen == [("naive", 2, True)]


def test_better_epoch():
    assert epoch(2, loss=0.2).better_than(epoch(1, loss=0.3))
    assert not epoch(2, accuracy=1.0, loss=0.3).better_than(epoch(1, accuracy=0.9, loss=0.2))
    assert not epoch(2).better_than(epoch(1))


def test_history_round_trip(tmp_path):
    history = History({"lr": 0.1}, [epoch(1), epoch(2)], 2, True, {"test_accuracy": 0.9})
    (tmp_path / "h.json").write_text(history.to_json())
    assert History.load(tmp_path / "h.json") == history
    assert history.images_per_second == 150


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"format": "fastdl-history-0"}',
        b'{"format": "fastdl-history-1", "epochs": [{"number": 1}]}',
        b'{"format": "fastdl-history-1", "epochs": []}',
    ],
)
def test_history_that_is_none(tmp_path, content):
    (tmp_path / "h.json").write_bytes(content)
    with pytest.raises(fastdl.DataError, match=r"h.json is not a fastdl training history"):
        History.load(tmp_path / "h.json")


def test_learning_curve_is_a_picture():
    history = History({}, [epoch(1), epoch(2)], 2, True, {"test_accuracy": 0.9})
    picture = learning_curve(history)
    assert picture.startswith(b"\x89PNG")
    assert learning_curve(History({}, [epoch(1)], 1)) != picture
    with pytest.raises(fastdl.ArgumentError, match="at least one epoch"):
        learning_curve(History())


def make_run(folder):
    return Run(folder, {"model": "tiny"}, {"lr": 0.1})


def test_run_keeps_the_best_model(tmp_path):
    run, net = make_run(tmp_path / "a" / "b"), tiny_net()
    for number, loss in ((1, 0.5), (2, 0.3), (3, 0.4)):
        net.parameters()["1.weight"][:] = number
        run.add(epoch(number, loss=loss), net)
        # On disk at once: nothing may come after.
        assert History.load(run.record).epochs == run.history.epochs
    state, metadata = load_state(run.model)
    assert (state["1.weight"] == 2).all()
    assert metadata == {"model": "tiny", "epoch": "2"}
    assert History.load(run.record).best_epoch == run.best.number == 2
    assert not run.picture.exists()
    run.restore_best(net)
    assert (net.parameters()["1.weight"] == 2).all()
    run.finish()
    assert History.load(run.record).finished
    assert run.picture.read_bytes().startswith(b"\x89PNG")
    assert {file.name for file in run.folder.iterdir()} == {file.name for file in run.files}


def test_run_stopped_before_its_first_epoch_writes_nothing(tmp_path):
    run = make_run(tmp_path / "a")
    run.stop()
    assert not run.folder.exists()


def test_run_replaces_an_earlier_run_and_nothing_else(tmp_path):
    first = make_run(tmp_path)
    assert not first.replaces
    first.add(epoch(1), tiny_net())
    first.finish()
    (tmp_path / "notes.txt").write_text("mine")
    second = make_run(tmp_path)
    assert second.replaces
    assert first.picture.exists()
    second.add(epoch(1, accuracy=0.1), tiny_net())
    assert not second.picture.exists()
    assert History.load(second.record).epochs[0].validation_accuracy == 0.1
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["model.safetensors", "history.json", "learning-curve.png"])
def test_run_refuses_files_of_others(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(fastdl.ArgumentError, match=f"holds {name} that no training run"):
        make_run(tmp_path)
    assert (tmp_path / name).read_text() == "mine"


def test_run_refuses_what_cannot_be_a_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(fastdl.ArgumentError, match="output must be a folder, got the file"):
        make_run(tmp_path / "file")
    with pytest.raises(fastdl.ArgumentError, match="cannot be written"):
        make_run(tmp_path / "file" / "below")
    with pytest.raises(fastdl.ArgumentError, match="cannot be written"):
        make_run("/proc/fastdl-run")


@pytest.mark.parametrize(
    ("module", "package"),
    [("safetensors.numpy", "safetensors"), ("matplotlib.figure", "matplotlib")],
)
def test_run_needs_its_packages(tmp_path, monkeypatch, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(fastdl.MissingPackageError, match=f"pip install {package}"):
        make_run(tmp_path)


def test_history_is_plain_json(tmp_path):
    run = make_run(tmp_path)
    run.add(epoch(1), tiny_net())
    content = json.loads(run.record.read_text())
    assert content["settings"] == {"lr": 0.1}
    assert content["epochs"][0]["validation_accuracy"] == 0.9
    assert content["best_epoch"] == 1
    assert content["finished"] is False


def test_digits_cnn_learns_a_handful():
    digits = np.random.default_rng(0).random((16, 1, 8, 8), np.float32)
    few = Samples(digits, np.arange(16) % 10)
    net = models.digits_cnn(rng=0, dropout=0.0)
    seen = list(fit(net, Adam(3e-3), few, few, epochs=12, batch_size=8, rng=0))
    assert seen[-1].train_loss < 0.3 * seen[0].train_loss
