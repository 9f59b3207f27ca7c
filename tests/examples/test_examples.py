"""Each example at small scale: it draws its picture, and what it claims holds."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("[0-9]*.py"))


@pytest.fixture
def example(tmp_path, monkeypatch, capsys):
    """``example(number, *arguments)``: the figures of a quick run, and what it printed."""
    monkeypatch.syspath_prepend(FOLDER)

    def run(number, *arguments):
        (name,) = (script for script in SCRIPTS if script.startswith(f"{number:02d}_"))
        output = tmp_path / "new"
        figures = importlib.import_module(name).main(
            ["--quick", "--output", str(output), *arguments]
        )
        assert (output / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        printed = capsys.readouterr().out
        assert f"wrote {output / name}.png" in printed
        return figures, printed

    return run


def test_all_are_in_the_gallery():
    gallery = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert [script[:2] for script in SCRIPTS] == [f"{number:02d}" for number in range(1, 11)]
    for script in SCRIPTS:
        assert f"    python examples/{script}.py" in gallery
    pictures = re.findall(r"\((pictures/.*?)\)", gallery)
    assert {path.name for path in (FOLDER / "pictures").iterdir()} == {
        Path(picture).name for picture in pictures
    }
    for picture in pictures:
        assert (FOLDER / picture).stat().st_size < 60_000


def test_the_gradient_vanishes_in_sigmoids(example):
    shares, printed = example(1)
    assert shares["sigmoid, Xavier"] < 1e-5
    assert min(shares[k] for k in ("sigmoid, batch norm", "tanh, Xavier", "ReLU, He")) > 0.05
    assert shares["factor"] > 4
    assert "divides the gradient by 4." in printed


def test_initialisation_keeps_the_width(example):
    figures, _ = example(2)
    assert figures["sd 1, tanh, saturated"] > 0.8
    assert figures["sd 0.01, tanh"] < 1e-3
    assert figures["Xavier, tanh"] > 0.3
    assert 0.5 < figures["He, ReLU (> 0)"] < 2


def test_batch_norm_learns_faster(example):
    losses, _ = example(3)
    assert losses["before each ReLU"] < 0.5 * losses["without"]
    assert losses["after each ReLU"] < 0.5 * losses["without"]


def test_a_falling_learning_rate_wins(example):
    figures, _ = example(4)
    good = figures["0.1 falling to 0"]
    assert not figures["too large: 1"] < 2  # about log(10), infinite, or not a number
    assert figures["too small: 0.0001"] > 5 * good
    assert good < figures["constant: 0.1"]


def test_optimisers_differ(example):
    figures, _ = example(5)
    assert figures["SGD, crossings"] > 4 * figures["Momentum, crossings"]
    assert figures["AdaGrad, crossings"] == 0
    others = [figures[f"{name}, loss"] for name in ("Momentum", "AdaGrad", "RMSProp", "Adam")]
    assert max(others) < 0.5 * figures["SGD, loss"]


def test_regularisation_closes_the_gap(example):
    gaps, _ = example(6)
    for name in ("L1", "L2", "dropout"):
        assert gaps[name] < 0.95 * gaps["no regularisation"]


def test_lasso_has_zeros_and_ridge_none(example):
    figures, _ = example(7)
    assert figures["ridge, zeros"] == 0
    assert figures["ridge, size"] < 0.05 * figures["ridge, size at the start"]
    assert 0 < figures["lasso, zeros halfway"] < figures["lasso, zeros"]


def test_lasso_and_ridge_are_scikit_learns(example, monkeypatch):
    example(7)
    from sklearn.linear_model import Lasso, Ridge

    from fastdl import optim

    regression = importlib.import_module("07_ridge_lasso").regression
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, 4))
    y = x @ [[2.0], [-1.0], [0.0], [0.1]] + rng.standard_normal((50, 1))
    lasso = regression(x, y, 0.1, optim.L1(0.4, proximal=True), 1000)
    ridge = regression(x, y, 0.1, optim.L2(0.4), 1000)
    expected = Lasso(alpha=0.2, fit_intercept=False, tol=1e-12).fit(x, y).coef_
    np.testing.assert_allclose(lasso, expected, atol=1e-6)
    expected = Ridge(alpha=0.2 * len(x), fit_intercept=False).fit(x, y).coef_
    np.testing.assert_allclose(ridge, expected.ravel(), atol=1e-6)


def test_convolutions_have_sizes_and_learn_filters(example):
    figures, printed = example(8)
    assert (figures["no padding"], figures["padding 1"]) == (6, 8)
    assert figures["padding 1, stride 2"] == 4
    assert abs(figures["before"]) < 0.1
    assert figures["after"] > figures["before"] + 0.1
    assert "8 x 8 -> 6 x 6" in printed


def test_global_average_saves_parameters(example):
    figures, _ = example(9)
    assert figures["saved"] > 0.5
    assert figures["global average, test error"] < figures["fully connected, test error"] + 3


@pytest.fixture
def cifar(tmp_path):
    """Files as CIFAR-10's binary version has them, each class a colour."""
    folder = tmp_path / "cifar"
    folder.mkdir()
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (10, 3, 1))
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        classes = rng.integers(0, 10, (60, 1))
        pixels = colours[classes[:, 0]] + rng.integers(-40, 41, (60, 3, 1024))
        records = np.concatenate([classes, pixels.clip(0, 255).reshape(60, 3072)], 1)
        (folder / f"{name}.bin").write_bytes(records.astype(np.uint8).tobytes())
    return folder


def test_alexnet_learns(example, cifar):
    figures, printed = example(10, "--data", str(cifar))
    assert figures["test accuracy"] > 50  # ten are guessed
    assert "test accuracy" in printed


def test_a_mistake_is_said_in_a_line():
    script = FOLDER / "10_alexnet_cifar10.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("10_alexnet_cifar10.py: this example needs CIFAR-10 (https://")
    assert "Traceback" not in done.stderr
