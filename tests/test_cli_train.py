"""``fastdl train`` as a user types it."""

import io
import json
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

import fastdl
from fastdl import models
from fastdl.cli import main, sources
from fastdl.cli import train as command
from fastdl.data import Dataset, Samples, load_digits
from fastdl.train import Epoch, evaluate

for package in ("sklearn", "tqdm", "matplotlib", "safetensors"):
    pytest.importorskip(package)

FILES = {"model.safetensors", "last.safetensors", "history.json", "learning-curve.png"}


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "fastdl", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job ignores SIGINT, and would hand that down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def type_command(*arguments):
    process = start(*arguments)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def read_until(process, text):
    for line in process.stdout:
        if text in line:
            return
    pytest.fail(f"no {text!r}; stderr: {process.stderr.read()}")


@pytest.fixture
def few(monkeypatch):
    """In this process: a training set so small that an epoch takes no time."""
    digits = load_digits()
    parts = [
        Samples(x[:size], y[:size]) for (x, y), size in zip(digits.parts, (40, 20, 30), strict=True)
    ]
    small = Dataset(*parts, digits.classes)
    monkeypatch.setattr(sources, "load_digits", lambda: small)
    monkeypatch.setattr(command, "naive_images_per_second", lambda model, samples: 0.5)
    return small


def train(folder, *options):
    return main(["train", "--output", str(folder), "--backend", "reference", *options])


def test_one_epoch_as_typed(tmp_path):
    status, out, err = type_command("train", "--epochs", 1, "--output", tmp_path / "run")
    assert status == 0, err
    assert "Traceback" not in err
    assert re.search(
        r"^epoch 1/1  loss \d\.\d+  accuracy .*%  validation loss .*  best$", out, re.M
    )
    accuracy = float(re.search(r"^test accuracy: (\d+\.\d+)% \(\d+ of 359 images", out, re.M)[1])
    assert re.search(r"^training speed: \d+ images/s", out, re.M)
    assert re.search(r"^\d+ times as fast as the naive loops .* on a batch of 2\)", out, re.M)
    assert {file.name for file in (tmp_path / "run").iterdir()} == FILES
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert history["finished"] is True
    assert history["results"]["test_accuracy"] == pytest.approx(accuracy / 100, abs=1e-4)
    model = models.load(tmp_path / "run" / "model.safetensors")
    test = load_digits().test
    assert (model.predict(test.x).argmax(1) == test.y).mean() == history["results"]["test_accuracy"]


def test_interrupted_run_keeps_the_best_model(tmp_path):
    process = start("train", "--epochs", 100_000, "--output", tmp_path)
    read_until(process, "epoch      1/100000")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert re.search(r"^fastdl: interrupted; the best model so far \(epoch \d+, ", err, re.M)
    assert {file.name for file in tmp_path.iterdir()} == FILES
    history = json.loads((tmp_path / "history.json").read_text())
    assert history["finished"] is False
    assert history["epochs"]
    test = load_digits().test
    scores = models.load(tmp_path / "model.safetensors").predict(test.x)
    assert (scores.argmax(1) == test.y).mean() > 0.2


def test_interrupted_before_the_first_epoch_writes_nothing(tmp_path):
    # On the naive loops an epoch takes an hour.
    process = start("train", "--backend", "naive", "--output", tmp_path / "run")
    read_until(process, "digits: ")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "interrupted; no epoch had ended, so nothing was written" in err
    assert not (tmp_path / "run").exists()


def test_version():
    assert type_command("--version") == (0, f"fastdl {fastdl.__version__}\n", "")


def test_interrupt_after_the_last_epoch_keeps_the_results(tmp_path, few, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(command, "naive_images_per_second", interrupt)
    assert train(tmp_path, "--epochs", "2") == 130
    assert "the best model so far (epoch " in capsys.readouterr().err
    assert {file.name for file in tmp_path.iterdir()} == FILES
    history = json.loads((tmp_path / "history.json").read_text())
    assert "test_accuracy" in history["results"]
    assert len(history["epochs"]) == 2
    assert signal.getsignal(signal.SIGINT) is before


def test_interrupt_elsewhere_has_no_traceback(tmp_path, monkeypatch, capsys):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(sources, "load_digits", interrupt)
    assert train(tmp_path) == 130
    assert capsys.readouterr().err == "fastdl: interrupted\n"


def test_again_in_the_same_folder(tmp_path, few, capsys):
    assert train(tmp_path, "--epochs", "3") == 0
    assert "replaced" not in capsys.readouterr().out
    (tmp_path / "notes.txt").write_text("mine")
    assert train(tmp_path, "--epochs", "1") == 0
    assert f"the earlier run in {tmp_path} will be replaced" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "history.json").read_text())["epochs"]) == 1
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_seed_makes_the_run(tmp_path, few):
    weights = []
    for folder, seed in (("a", "5"), ("b", "5"), ("c", "6")):
        assert train(tmp_path / folder, "--epochs", "1", "--seed", seed) == 0
        weights.append(
            models.load(tmp_path / folder / "model.safetensors").parameters()["0.weight"]
        )
    np.testing.assert_array_equal(weights[0], weights[1])
    assert (weights[0] != weights[2]).any()


def test_seed_is_of_weights_and_order(tmp_path, few, monkeypatch):
    def spy(model, optimizer, loader, *arguments, **options):
        seen.append((model.parameters()["0.weight"].copy(), loader.seed))
        return fit(model, optimizer, loader, *arguments, **options)

    fit, seen = command.fit, []
    monkeypatch.setattr(command, "fit", spy)
    assert train(tmp_path, "--epochs", "1", "--seed", "5") == 0
    ((weight, order),) = seen
    np.testing.assert_array_equal(weight, models.digits_cnn(rng=5).parameters()["0.weight"])
    assert order == 5


def test_reported_model_is_the_kept_one(tmp_path, few, monkeypatch, capsys):
    # No later epoch is better: the first is kept, and the last must not be the one tested.
    monkeypatch.setattr(Epoch, "better_than", lambda self, other: False)
    assert train(tmp_path, "--epochs", "4") == 0
    assert "the model of epoch 1)" in capsys.readouterr().out
    history = json.loads((tmp_path / "history.json").read_text())
    results = history["results"]
    assert history["best_epoch"] == 1
    with fastdl.use_backend("reference"):
        expected = evaluate(models.load(tmp_path / "model.safetensors"), few.test)
    assert results["test_loss"] == pytest.approx(expected.loss, rel=1e-6)
    assert results["test_accuracy"] == expected.accuracy
    assert results["times_as_fast_as_naive"] == results["images_per_second"] / 0.5


def test_best_epoch_is_the_best_by_validation(tmp_path, few):
    assert train(tmp_path, "--epochs", "6") == 0
    history = json.loads((tmp_path / "history.json").read_text())
    losses = [epoch["validation_loss"] for epoch in history["epochs"]]
    assert history["best_epoch"] == 1 + losses.index(min(losses))


def test_divergence_is_an_error_that_keeps_the_best(tmp_path, few, capsys):
    assert train(tmp_path, "--lr", "1e38") == 2
    err = capsys.readouterr().err
    assert "no epoch had ended" in err
    assert re.search(
        r"^fastdl: error: the .* loss became (nan|inf) in epoch 1: .*lr=\S+e\+3", err, re.M
    )


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


def test_bar_only_on_a_terminal(tmp_path, few, monkeypatch, capsys):
    assert train(tmp_path, "--epochs", "2") == 0
    assert "step" not in capsys.readouterr().err
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert train(tmp_path, "--epochs", "2") == 0
    assert "4/4" in sys.stderr.getvalue()
    assert capsys.readouterr().out.count("validation loss") == 2
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert train(tmp_path, "--epochs", "2", "--no-progress") == 0
    assert sys.stderr.getvalue() == ""


@pytest.mark.parametrize(
    ("module", "package"),
    [
        ("sklearn.datasets", "scikit-learn"),
        ("tqdm", "tqdm"),
        ("matplotlib.figure", "matplotlib"),
        ("safetensors.numpy", "safetensors"),
    ],
)
def test_missing_package(tmp_path, monkeypatch, capsys, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    assert train(tmp_path / "run") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(rf"fastdl: error: .*pip install {package}\n", err)
    assert not (tmp_path / "run").exists()


def test_tqdm_is_not_needed_without_the_bar(tmp_path, few, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert train(tmp_path, "--epochs", "1", "--no-progress") == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epochs", "0"], "argument --epochs: must be from 1 to .*, got 0"),
        (["--epochs", "many"], "argument --epochs: must be a whole number, got 'many'"),
        (["--batch-size", "-3"], "argument --batch-size: must be from 1 to .*, got -3"),
        (["--lr", "0"], "argument --lr: must be a finite number above 0, got 0"),
        (["--lr", "nan"], "argument --lr: must be a finite number above 0, got nan"),
        (["--lr", "fast"], "argument --lr: must be a number, got 'fast'"),
        (["--seed", "-1"], "argument --seed: must be from 0 to .*, got -1"),
        (["--threads", "0"], "argument --threads: must be from 1 to 1024, got 0"),
        (["--backend", "opencl"], "argument --backend: invalid choice: 'opencl'"),
        (["--speed"], "unrecognized arguments: --speed"),
        (["--data", "imagenet:x"], r"--data: must be digits \| mnist:PATH .*, got 'imagenet:x'"),
        (["--data", "mnist"], "--data: must be mnist:PATH, the folder of its files, got 'mnist'"),
        (["--data", "digits:x"], "--data: must be digits, got 'digits:x'"),
        (["--model", "lenet6"], "--model: invalid choice: 'lenet6'"),
        (["--size", "32x"], "--size: must be HEIGHTxWIDTH in pixels, such as 64x64, got '32x'"),
        (["--l2", "-1"], "--l2: must be a finite number of at least 0, got -1"),
        (["--label-smoothing", "2"], "--label-smoothing: must be a finite number from 0 to 1"),
    ],
)
def test_bad_options(options, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["train", *options])
    assert caught.value.code == 2
    assert re.search(message, capsys.readouterr().err)


def test_bad_output(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "model.safetensors").write_text("mine")
    for folder, message in (
        (tmp_path / "file", "output must be a folder, got the file"),
        (tmp_path / "file" / "below", "cannot be written: Not a directory"),
        (tmp_path, "holds model.safetensors that no training run"),
    ):
        assert train(folder) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("fastdl: error: ")
        assert message in err


def test_unknown_backend_in_the_environment(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FASTDL_BACKEND", "gpu")
    assert main(["train", "--output", str(tmp_path / "run")]) == 2
    assert "fastdl: error: FASTDL_BACKEND must be one of" in capsys.readouterr().err


def test_reader_that_leaves(tmp_path):
    process = start("train", "--epochs", 100_000, "--output", tmp_path)
    read_until(process, "digits: ")
    process.stdout.close()
    process.wait(timeout=60)
    assert process.returncode == 1
    assert "Traceback" not in process.stderr.read()


def test_resumed_run_ends_as_an_unbroken_one(tmp_path, few, monkeypatch, capsys):
    options = ("--epochs", "3", "--optimizer", "nesterov", "--lr", "0.01", "--l2", "1e-3",
               "--schedule", "one-cycle", "--augment", "crop+flip", "--batch-size", "16")  # fmt: skip
    assert train(tmp_path / "a", *options) == 0

    def interrupt(training):
        if training.epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(command.Progress, "on_epoch", lambda self, training: interrupt(training))
        assert train(tmp_path / "b", *options) == 130
    assert "fastdl train --resume --output" in capsys.readouterr().err
    assert train(tmp_path / "b", "--resume", "--lr", "0.1") == 2
    assert "--lr cannot be given with --resume" in capsys.readouterr().err
    assert main(["train", "--output", str(tmp_path / "b"), "--resume"]) == 0
    out = capsys.readouterr().out
    assert "backend reference" in out
    assert f"going on with the run in {tmp_path / 'b'}" in out
    assert re.findall(r"^epoch (\d)/3", out, re.M) == ["3"]
    one, other = (
        models.load(tmp_path / name / "model.safetensors").state_dict() for name in ("a", "b")
    )
    for name, array in one.items():
        np.testing.assert_array_equal(other[name], array, err_msg=name)
    assert train(tmp_path / "b", "--resume") == 2
    assert "has come to its end, with epoch 3" in capsys.readouterr().err
    assert train(tmp_path / "c", "--resume") == 2
    assert "there is no run in" in capsys.readouterr().err


def test_options_reach_the_training(tmp_path, few, capsys):
    options = ("--epochs", "9", "--optimizer", "sgd", "--lr", "1e-12", "--schedule", "constant",
               "--l1", "1e-4", "--max-norm", "1", "--augment", "shift", "--patience", "2",
               "--batch-size", "40", "--inspect")  # fmt: skip
    assert train(tmp_path, *options) == 0
    assert "digits_cnn: 9 epochs, batches of 40" in capsys.readouterr().out
    settings = json.loads((tmp_path / "history.json").read_text())["settings"]
    assert (settings["l1"], settings["max_norm"], settings["patience"]) == (1e-4, 1, 2)
    pictures = {"gradient-norms.png", "activations.png"}
    assert {file.name for file in tmp_path.iterdir()} == FILES | pictures


def test_a_model_for_other_images(tmp_path, few, capsys):
    assert train(tmp_path / "run", "--model", "alexnet") == 2
    err = capsys.readouterr().err
    assert "--model alexnet does not take images of 1 x 8 x 8 (channels, height, width)" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["mnist", "cifar10", "folder"])
def test_data_that_are_not_there(tmp_path, capsys, name):
    assert train(tmp_path / "run", "--data", f"{name}:{tmp_path / 'none'}") == 2
    assert re.match(r"fastdl: error: \S*none ", capsys.readouterr().err)
    assert train(tmp_path / "run", "--size", "8") == 2
    assert "--size and --channels are for --data folder:PATH" in capsys.readouterr().err


def test_every_optimizer_and_schedule(tmp_path, few, monkeypatch):
    from fastdl.cli.optimizers import OPTIMIZERS, SCHEDULES

    few = Samples(few.train.x[:2], few.train.y[:2])
    monkeypatch.setattr(sources, "load_digits", lambda: Dataset(few, few, few, tuple("0123456789")))
    for optimizer in OPTIMIZERS:
        assert train(tmp_path, "--epochs", "1", "--optimizer", optimizer, "--lr", "1e-4") == 0
    for schedule in SCHEDULES:
        assert train(tmp_path, "--epochs", "2", "--schedule", schedule) == 0
