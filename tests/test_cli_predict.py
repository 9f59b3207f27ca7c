"""``fastdl predict`` on a model that ``fastdl train`` made."""

import re
import sys

import numpy as np
import pytest

from fastdl import io, models
from fastdl.cli import main

Image = pytest.importorskip("PIL.Image")
for package in ("matplotlib", "safetensors"):
    pytest.importorskip(package)

#: Red and blue, of another size than the network's.
COLORS = {"blue": (20, 30, 220), "red": (220, 30, 20)}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("colors")
    rng = np.random.default_rng(0)
    for name, color in COLORS.items():
        (folder / "data" / name).mkdir(parents=True)
        for number in range(30):
            pixels = np.clip(rng.normal(color, 30, (16, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "data" / name / f"{number}.png")
    arguments = ["train", "--data", f"folder:{folder / 'data'}", "--epochs", "3"]
    arguments += ["--output", str(folder / "run"), "--batch-size", "8", "--backend", "reference"]
    arguments += ["--size", "8", "--model", "digits_cnn", "--no-progress"]
    assert main(arguments) == 0
    return folder / "run" / "model.safetensors"


@pytest.fixture
def pictures(tmp_path):
    paths = []
    for name, color in COLORS.items():
        paths.append(str(tmp_path / f"a {name} one.jpg"))
        Image.new("RGB", (40, 30), color).save(paths[-1])
    return paths


def test_table(model, pictures, capsys):
    assert main(["predict", str(model), *pictures]) == 0
    rows = capsys.readouterr().out.splitlines()
    for name, path, row in zip(COLORS, pictures, rows, strict=True):
        (first, chance), (_, rest) = re.findall(r"(blue|red) +(\d+\.\d)%", row)
        assert row.startswith(path)
        assert first == name
        assert float(chance) > 80
        assert float(chance) + float(rest) == pytest.approx(100, abs=0.11)
    assert main(["predict", str(model), pictures[0], "--top", "1"]) == 0
    assert re.fullmatch(r".*one.jpg  blue +\d+\.\d%\n", capsys.readouterr().out)


def test_invert(model, tmp_path, capsys):
    path = tmp_path / "negative.png"
    Image.new("RGB", (16, 16), tuple(255 - part for part in COLORS["red"])).save(path)
    assert main(["predict", str(model), str(path), "--invert", "--top", "1"]) == 0
    assert "red" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "No such file or directory"),
        (lambda path: path.write_text("hello"), "image.png is not a readable image"),
        (lambda path: path.mkdir(), "Is a directory"),
    ],
)
def test_bad_images(model, tmp_path, capsys, make, message):
    path = tmp_path / "image.png"
    make(path)
    assert main(["predict", str(model), str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("fastdl: error: ")
    assert message in err


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "No such file or directory"),
        (lambda path: path.write_text("hello"), "is not a readable safetensors file"),
        (lambda path: io.save_state(path, {"w": np.zeros(3)}), "metadata 'model' must be one of"),
        (
            lambda path: io.save_state(
                path, models.digits_cnn(rng=0).state_dict(), {"model": "digits_cnn"}
            ),
            "does not tell what images its model takes",
        ),
        (
            lambda path: io.save_state(
                path,
                models.digits_cnn(rng=0).state_dict(),
                {"model": "digits_cnn", "image_shape": "[1, 0, 8]", "class_names": '["a"]'}
                | {"mean": "[0]", "std": "[1]"},
            ),
            "does not tell what images its model takes",
        ),
    ],
)
def test_bad_models(pictures, tmp_path, capsys, make, message):
    path = tmp_path / "m.safetensors"
    make(path)
    assert main(["predict", str(path), pictures[0]]) == 2
    err = capsys.readouterr().err
    assert err.startswith("fastdl: error: ")
    assert message in err


def test_pillow_is_needed(model, pictures, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    assert main(["predict", str(model), pictures[0]]) == 2
    assert "pip install pillow" in capsys.readouterr().err


def test_the_model_of_the_digits(tmp_path, capsys):
    path = tmp_path / "digit.png"
    Image.new("L", (8, 8), 255).save(path)
    run = ["train", "--epochs", "1", "--output", str(tmp_path / "run"), "--no-progress"]
    assert main([*run, "--batch-size", "128"]) == 0
    assert main(["predict", str(tmp_path / "run" / "model.safetensors"), str(path)]) == 0
    assert len(re.findall(r"\d +\d+\.\d%", capsys.readouterr().out)) == 3
