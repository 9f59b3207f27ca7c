import json
import math
import sys

import numpy as np
import pytest

import fastdl
from fastdl import models, nn
from fastdl.data import Loader, Normalize, Samples
from fastdl.io import load_state
from fastdl.optim import SGD, Adam, Cosine, ReduceOnPlateau
from fastdl.train import (
    Callback,
    EarlyStopping,
    Epoch,
    History,
    Run,
    Training,
    accuracy,
    evaluate,
    fit,
    learning_curve,
    naive_images_per_second,
    top_k_accuracy,
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
    return Epoch(number, 0.5, 0.8, loss, accuracy, 100.0 * number, 0.1)


class Rates(Callback):
    """Notes the learning rate of every step."""

    def __init__(self):
        self.rates = []

    def on_step(self, training):
        self.rates.append(training.optimizer.lr)


def train_tiny(**options):
    net, rates = tiny_net(), Rates()
    arguments = {"epochs": 4, "batch_size": 8, **options}
    lr = arguments.pop("lr", 0.5)
    history = fit(
        net,
        SGD(lr),
        clouds(60),
        clouds(30, seed=1),
        schedule=Cosine(lr, 4 * 8),
        callbacks=[rates, *arguments.pop("callbacks", ())],
        **arguments,
    )
    return net, history, rates.rates


def test_fit_learns():
    net, history, rates = train_tiny(metrics={"top2": top_k_accuracy(2)})
    seen = history.epochs
    assert [epoch.number for epoch in seen] == [1, 2, 3, 4]
    assert seen[-1].train_loss < seen[0].train_loss
    result = evaluate(net, clouds(30, seed=1))
    assert (seen[-1].validation_loss, seen[-1].validation_accuracy) == (result.loss, 1)
    assert seen[-1].metrics == {"top2": 1.0}
    assert len(rates) == 4 * 8
    assert rates[0] == 0.5
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] == seen[-1].learning_rate < 0.01
    assert all(epoch.images_per_second > 0 for epoch in seen)


def test_fit_is_repeatable():
    weights = [train_tiny(seed=seed)[0].parameters()["1.weight"] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(weights[0], weights[1])
    assert (weights[0] != weights[2]).any()


def test_fit_without_validation_or_schedule():
    history = fit(tiny_net(), SGD(0.1), clouds(9), epochs=2)
    assert history.epochs[0].validation_loss is None
    assert history.best_epoch == 2
    assert learning_curve(history).startswith(b"\x89PNG")


def test_schedule_is_told_the_validation_loss():
    schedule = ReduceOnPlateau(0.5, factor=0.1, patience=0, threshold=1.0)
    history = fit(tiny_net(), SGD(0.5), clouds(9), clouds(9), epochs=3, schedule=schedule)
    assert history.epochs[-1].learning_rate < history.epochs[0].learning_rate == 0.5


def test_samples_are_normalised_as_those_to_learn_from():
    x = np.random.default_rng(0).integers(0, 256, (30, 1, 2, 2), np.uint8)
    samples, normalize = Samples(x, np.arange(30) % 3), Normalize([0.5], [0.25])
    loader = Loader(samples, 10, normalize=normalize)
    net = tiny_net()
    history = fit(net, SGD(0.1), loader, samples, epochs=1)
    expected = evaluate(net, Samples(normalize(x), samples.y)).loss
    assert history.epochs[0].validation_loss == pytest.approx(expected, rel=1e-6)


def test_epoch_figures_are_means_over_all_images():
    # 60 images in batches of 8: the last batch has 4, and must count less.
    net = tiny_net()
    history = fit(net, SGD(1e-30), clouds(60), clouds(3), epochs=1, batch_size=8)
    expected = evaluate(net, clouds(60), nn.CrossEntropyLoss())
    assert history.epochs[0].train_loss == pytest.approx(expected.loss, rel=1e-5)
    assert history.epochs[0].train_accuracy == expected.accuracy
    whole = evaluate(net, Loader(clouds(60), 60, shuffle=False))
    assert whole.loss == pytest.approx(expected.loss, rel=1e-6)


def test_evaluation_leaves_the_mode():
    net = tiny_net().train()
    evaluate(net, clouds(3))
    assert net.training
    evaluate(net.eval(), clouds(3))
    assert not net.training


def test_metrics():
    scores = np.array([[1, 2, 3], [3, 2, 1], [1, 3, 2.0]])
    classes = np.array([2, 1, 0])
    assert accuracy(scores, classes) == 1 / 3
    assert [top_k_accuracy(k)(scores, classes) for k in (1, 2, 3)] == [1 / 3, 2 / 3, 1]


def test_early_stopping():
    net = tiny_net()
    # A step that goes up: no epoch is better than the first.
    history = fit(
        net,
        SGD(0.5),
        clouds(60),
        Samples(clouds(30).x, (clouds(30).y + 1) % 3),
        epochs=50,
        callbacks=[EarlyStopping(3)],
    )
    assert history.best_epoch == 1
    assert len(history.epochs) == 4
    with pytest.raises(fastdl.ArgumentError, match="patience must be at least 1, got 0"):
        EarlyStopping(0)


@pytest.mark.parametrize("name", ["epochs", "batch_size"])
def test_fit_checks_its_counts(name):
    with pytest.raises(fastdl.ArgumentError, match=f"{name} must be at least 1, got 0"):
        train_tiny(**{name: 0})


def test_diverging_is_an_error():
    with pytest.raises(
        fastdl.ArgumentError, match=r"training loss became (nan|inf) in epoch 1.*lr=\S+e\+"
    ):
        train_tiny(lr=1e300)


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


def under_way(net, run, losses):
    """A training whose epochs have those validation losses, and whose weights are their numbers."""
    training = Training(net, SGD(0.1), Loader(clouds(3)), epochs=9)
    run.on_start(training)
    for number, loss in enumerate(losses, start=1):
        net.parameters()["1.weight"][:] = number
        training.history.add(epoch(number, loss=loss))
        training.epoch = number
        run.on_epoch(training)
        # On disk at once: nothing may come after.
        assert History.load(run.record).epochs == run.history.epochs
    return training


def test_run_keeps_the_best_model(tmp_path):
    run, net = make_run(tmp_path / "a" / "b"), tiny_net()
    under_way(net, run, (0.5, 0.3, 0.4))
    state, metadata = load_state(run.model)
    assert (state["1.weight"] == 2).all()
    assert metadata == {"model": "tiny", "epoch": "2"}
    assert History.load(run.record).best_epoch == 2
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
    under_way(tiny_net(), first, (0.5,))
    first.finish()
    (tmp_path / "notes.txt").write_text("mine")
    second = make_run(tmp_path)
    assert second.replaces
    assert first.picture.exists()
    under_way(tiny_net(), second, (0.7,))
    assert not second.picture.exists()
    assert History.load(second.record).epochs[0].validation_loss == 0.7
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "name", ["model.safetensors", "last.safetensors", "history.json", "learning-curve.png"]
)
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
    under_way(tiny_net(), run, (0.5,))
    content = json.loads(run.record.read_text())
    assert content["settings"] == {"lr": 0.1}
    assert content["epochs"][0]["validation_accuracy"] == 0.9
    assert content["best_epoch"] == 1
    assert content["finished"] is False


def test_digits_cnn_learns_a_handful():
    digits = np.random.default_rng(0).random((16, 1, 8, 8), np.float32)
    few = Samples(digits, np.arange(16) % 10)
    net = models.digits_cnn(rng=0, dropout=0.0)
    seen = fit(net, Adam(3e-3), few, few, epochs=12, batch_size=8).epochs
    assert seen[-1].train_loss < 0.3 * seen[0].train_loss
