"""A training that was interrupted, or killed, goes on as if nothing had happened."""

import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import fastdl
from fastdl import nn
from fastdl.data import HorizontalFlip, Loader, RandomCrop, Samples
from fastdl.io import load_state, save_state
from fastdl.optim import Adam, Momentum, OneCycle, ReduceOnPlateau
from fastdl.train import Callback, History, Run, fit

EPOCHS = 4


@pytest.fixture(autouse=True)
def _reference():
    with fastdl.use_backend("reference"):
        yield


class StopAfter(Callback):
    """An interruption in the middle of the epoch that follows."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_step(self, training):
        if training.epoch == self.epoch and training.step % len(training.loader) == 2:
            raise KeyboardInterrupt


def noisy_net():
    """With all that has a state: running statistics, and a generator for the dropout."""
    rng = np.random.default_rng(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1, rng=rng),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.3, rng=rng),
        nn.Linear(3 * 16, 3, rng=rng),
    )


def train(net, folder, schedule, optimizer, stop_after=None, resume=None):
    rng = np.random.default_rng(1)
    samples = Samples(rng.integers(0, 256, (40, 1, 4, 4), np.uint8), np.arange(40) % 3)
    loader = Loader(samples, 8, transforms=[RandomCrop(1), HorizontalFlip()], seed=5)
    run = Run(folder)
    callbacks = [run] if stop_after is None else [run, StopAfter(stop_after)]
    history = fit(
        net, optimizer, loader, samples, epochs=EPOCHS, schedule=schedule, callbacks=callbacks,
        resume=resume,
    )  # fmt: skip
    return history, run


@pytest.mark.parametrize(
    ("optimizer", "schedule"),
    [
        (lambda: Adam(1e-2), lambda: OneCycle(1e-2, EPOCHS * 5)),
        (lambda: Momentum(1e-2), lambda: ReduceOnPlateau(1e-2, patience=0, threshold=0.9)),
        (lambda: Adam(1e-2), lambda: None),
    ],
)
def test_resumed_run_has_the_same_bits(tmp_path, optimizer, schedule):
    unbroken = noisy_net()
    expected, run = train(unbroken, tmp_path / "a", schedule(), optimizer())
    with pytest.raises(KeyboardInterrupt):
        train(noisy_net(), tmp_path / "b", schedule(), optimizer(), stop_after=2)
    net = noisy_net()
    last = tmp_path / "b" / "last.safetensors"
    history, resumed = train(net, tmp_path / "b", schedule(), optimizer(), resume=last)
    for name, array in unbroken.state_dict().items():
        np.testing.assert_array_equal(net.state_dict()[name], array, err_msg=name)
    for one, other in zip(history.epochs, expected.epochs, strict=True):
        assert (one.train_loss, one.validation_loss) == (other.train_loss, other.validation_loss)
    assert history.best_epoch == expected.best_epoch
    ours, theirs = load_state(resumed.last)[0], load_state(run.last)[0]
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array, err_msg=name)


def test_what_is_no_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError):
        train(noisy_net(), tmp_path, None, Adam(), resume=tmp_path / "none")
    _, run = train(noisy_net(), tmp_path, None, Adam())
    other = nn.Sequential(nn.Flatten(), nn.Linear(16, 3, rng=0))
    for net, optimizer, path in (
        (other, Adam(), run.last),
        (noisy_net(), Momentum(0.1), run.last),
        (noisy_net(), Adam(), run.model),
    ):
        with pytest.raises(fastdl.DataError, match="is no checkpoint of this training"):
            train(net, tmp_path / "c", None, optimizer, resume=path)
    arrays, _ = load_state(run.last)
    save_state(tmp_path / "bad", arrays, {"training": '{"format": "fastdl-checkpoint-0"}'})
    with pytest.raises(fastdl.DataError, match="checkpoint-0"):
        train(noisy_net(), tmp_path / "c", None, Adam(), resume=tmp_path / "bad")


ENDLESS = """
import sys
import numpy as np
import fastdl
from fastdl import data, nn, optim, train
samples = data.Samples(np.random.default_rng(0).random((8, 1, 2, 2), np.float32), np.arange(8) % 3)
net = nn.Sequential(nn.Flatten(), nn.Linear(4, 20000, rng=0), nn.Linear(20000, 3, rng=0))
run = train.Run(sys.argv[1])
with fastdl.use_backend("reference"):
    print("ready", flush=True)
    train.fit(net, optim.Adam(1e-4), samples, samples, epochs=10**6, callbacks=[run])
"""


def test_a_kill_at_any_moment_leaves_files_that_load(tmp_path):
    root = Path(fastdl.__file__).parents[1]
    moments = random.Random(0)
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", ENDLESS, str(tmp_path)], cwd=root, stdout=subprocess.PIPE
        )
        try:
            process.stdout.readline()
            while not (tmp_path / "last.safetensors").exists():
                time.sleep(0.01)
            time.sleep(moments.uniform(0, 0.2))
        finally:
            process.kill()
            process.communicate()
        history = History.load(tmp_path / "history.json")
        model, _ = load_state(tmp_path / "model.safetensors")
        last, _ = load_state(tmp_path / "last.safetensors")
        assert history.epochs
        assert model["1.weight"].shape == last["model/1.weight"].shape == (20000, 4)
