"""Data sets in files: what is whole is read, what is not is named."""

import gzip
import os
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

import fastdl
from fastdl.data import load_cifar10, load_folder, load_mnist, read_idx, read_image

RNG = np.random.default_rng(0)
REAL = Path(os.environ.get("FASTDL_DATA", "/nowhere"))
needs_real = pytest.mark.skipif(
    not (REAL / "mnist").is_dir(),
    reason="needs the real MNIST: set FASTDL_DATA to a folder that has its four files in mnist/",
)


def idx(array, code=0x08, dtype=">u1"):
    header = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
    return header + array.astype(dtype).tobytes()


@pytest.mark.parametrize(
    ("code", "dtype"),
    [(0x08, ">u1"), (0x09, ">i1"), (0x0B, ">i2"), (0x0C, ">i4"), (0x0D, ">f4"), (0x0E, ">f8")],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_types(tmp_path, code, dtype, suffix):
    array = RNG.integers(0, 100, (3, 4, 5)).astype(dtype)
    path, content = tmp_path / f"a{suffix}", idx(array, code, dtype)
    path.write_bytes(gzip.compress(content) if suffix else content)
    read = read_idx(path)
    assert read.dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(read, array)


WHOLE = idx(np.arange(12).reshape(3, 4))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a", b"", "a is cut short: 4 of 4 bytes missing"),
        ("a", b"\x89PNG1234", "a is not an IDX file: it begins with the bytes 89 50 4e 47"),
        ("a", b"\0\0\x07\x01" + WHOLE[4:], "a is not an IDX file"),
        ("a", b"\0\0\x08\0", "a is not an IDX file"),
        ("a", WHOLE[:9], "a is cut short: 3 of 8 bytes missing"),
        ("a", WHOLE[:-5], "a is cut short: 5 of 12 bytes missing"),
        ("a", WHOLE + b"!", r"a goes on after the 12 bytes of its array \(3, 4\)"),
        ("a", b"\0\0\x08\x04" + b"\xff" * 16, "a is cut short"),
        ("a.gz", WHOLE, "a.gz is not a whole gzip file"),
        ("a.gz", gzip.compress(WHOLE)[:-9], "a.gz is not a whole gzip file"),
        ("a.gz", gzip.compress(WHOLE)[:12] + bytes(20), "a.gz is not a whole gzip file"),
        ("a.gz", gzip.compress(WHOLE[:-1]), "a.gz is cut short: 1 of 12 bytes missing"),
    ],
)
def test_broken_idx(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(fastdl.DataError, match=message):
        read_idx(tmp_path / name)


def write_mnist(folder, count=40, **changed):
    parts = {}
    for part, number in (("train", count), ("t10k", 10)):
        parts[f"{part}-images-idx3-ubyte"] = idx(RNG.integers(0, 256, (number, 6, 5)))
        parts[f"{part}-labels-idx1-ubyte"] = idx(np.arange(number) % 3)
    for name, content in (parts | changed).items():
        if content is not None:
            (folder / name).write_bytes(content)
    return parts


def test_mnist(tmp_path):
    parts = write_mnist(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte").unlink()
    compressed = gzip.compress(parts["t10k-images-idx3-ubyte"])
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(compressed)
    mnist = load_mnist(tmp_path)
    assert [part.x.shape for part in mnist.parts] == [(37, 1, 6, 5), (3, 1, 6, 5), (10, 1, 6, 5)]
    assert mnist.classes == ("0", "1", "2")
    assert mnist.test.y.tolist() == [0, 1, 2] * 3 + [0]
    assert all(part.x.dtype == np.uint8 and part.y.dtype == np.int64 for part in mnist.parts)
    again = load_mnist(tmp_path)
    np.testing.assert_array_equal(mnist.validation.x, again.validation.x)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train-labels-idx1-ubyte": None}, "has no train-labels-idx1-ubyte"),
        ({"train-labels-idx1-ubyte": idx(np.zeros(39))}, "ubyte has 40 images, .* 39"),
        ({"t10k-images-idx3-ubyte": idx(np.zeros((10, 6)))}, "3 axes, got uint8"),
        ({"t10k-labels-idx1-ubyte": idx(np.zeros(10), 0x0B, ">i2")}, "1 axes, got int16"),
        ({"t10k-images-idx3-ubyte": idx(np.zeros((10, 6, 6)))}, "those to test"),
        ({"train-images-idx3-ubyte": b"\0"}, "train-images-idx3-ubyte is cut short"),
    ],
)
def test_broken_mnist(tmp_path, changed, message):
    write_mnist(tmp_path, **changed)
    with pytest.raises(fastdl.DataError, match=message):
        load_mnist(tmp_path)


@needs_real
def test_real_mnist():
    mnist = load_mnist(REAL / "mnist")
    assert [len(part.x) for part in mnist.parts] == [54001, 5999, 10000]
    assert mnist.image_shape == (1, 28, 28)
    assert mnist.test.y[:5].tolist() == [7, 2, 1, 0, 4]


def cifar(count, offset=0):
    labels = (np.arange(count) + offset) % 10
    planes = RNG.integers(0, 256, (count, 3072))
    return np.concatenate([labels[:, None], planes], 1).astype(np.uint8)


def write_cifar(folder, **changed):
    files = {f"data_batch_{number}": cifar(20) for number in range(1, 6)} | {
        "test_batch": cifar(10, 3)
    }
    for name, records in (files | changed).items():
        if records is not None:
            (folder / f"{name}.bin").write_bytes(np.asarray(records).tobytes())
    return files


@pytest.mark.parametrize("below", ["", "cifar-10-batches-bin"])
def test_cifar10_binary(tmp_path, below):
    folder = tmp_path / below
    folder.mkdir(exist_ok=True)
    files = write_cifar(folder)
    data = load_cifar10(tmp_path)
    assert [part.x.shape for part in data.parts] == [(n, 3, 32, 32) for n in (90, 10, 10)]
    assert data.classes[3] == "cat"
    np.testing.assert_array_equal(data.test.x.reshape(10, -1), files["test_batch"][:, 1:])
    assert data.test.y[0] == 3


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data_batch_4": None}, "data_batch_4.bin is missing"),
        ({"data_batch_2": cifar(3).ravel()[:-1]}, "data_batch_2.bin has 9218 bytes, expected a mu"),
        ({"data_batch_2": []}, "data_batch_2.bin has 0 bytes"),
        ({"test_batch": cifar(3) + np.uint8(100)}, "test_batch.bin names a class 102"),
        ({"data_batch_1": None}, "must have the binary version of CIFAR-10"),
    ],
)
def test_broken_cifar10(tmp_path, changed, message):
    write_cifar(tmp_path, **changed)
    with pytest.raises(fastdl.DataError, match=message):
        load_cifar10(tmp_path)


@pytest.fixture
def pil():
    return pytest.importorskip("PIL.Image")


def write_images(pil, root, count=5, classes=("cat", "dog"), size=(6, 4)):
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for position in range(count):
            color = (100 * number, position, 7)
            pil.new("RGB", size, color).save(root / name / f"{position}.png")


def test_folder(tmp_path, pil):
    write_images(pil, tmp_path)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("mine")
    data = load_folder(tmp_path)
    assert data.classes == ("cat", "dog")
    assert data.image_shape == (3, 4, 6)
    assert [len(part.x) for part in data.parts] == [6, 2, 2]
    for part in data.parts:
        np.testing.assert_array_equal(part.x[:, 0, 0, 0], 100 * part.y)
    seen = np.concatenate([part.x[:, :2, 0, 0] for part in data.parts])
    assert len(np.unique(seen, axis=0)) == 10
    assert load_folder(tmp_path, (8, 2), 1).image_shape == (1, 8, 2)


def test_folder_with_its_own_split(tmp_path, pil):
    write_images(pil, tmp_path / "train")
    write_images(pil, tmp_path / "test", 1)
    data = load_folder(tmp_path)
    assert [len(part.x) for part in data.parts] == [8, 2, 2]
    write_images(pil, tmp_path / "test", 1, ("cow",))
    with pytest.raises(fastdl.DataError, match=r"has the classes \['cat', 'dog'\], .*'cow'"):
        load_folder(tmp_path)


def test_cifar10_as_images(tmp_path, pil):
    write_images(pil, tmp_path / "train", size=(32, 32))
    write_images(pil, tmp_path / "test", size=(32, 32))
    assert load_cifar10(tmp_path).image_shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda root, pil: (root / "empty").mkdir(), "empty has 0 images"),
        (lambda root, pil: (root / "cat" / "0.png").write_bytes(b"x"), "0.png is not a readable"),
        (lambda root, pil: cut(root / "dog" / "1.png"), "1.png is not a readable image"),
        (
            lambda root, pil: pil.new("RGB", (9, 9)).save(root / "dog" / "3.png"),
            "3.png has 9 x 9 pixels, .* give a size",
        ),
    ],
)
def test_broken_folder(tmp_path, pil, break_it, message):
    write_images(pil, tmp_path)
    break_it(tmp_path, pil)
    with pytest.raises(fastdl.DataError, match=message):
        load_folder(tmp_path)


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def test_folder_that_is_none(tmp_path, pil):
    with pytest.raises(fastdl.DataError, match="is not a folder"):
        load_folder(tmp_path / "none")
    with pytest.raises(fastdl.DataError, match="a folder for each of two or more classes, got"):
        load_folder(tmp_path)


def test_images_are_upright(tmp_path, pil):
    image = pil.new("RGB", (2, 1))
    image.putpixel((0, 0), (255, 0, 0))
    exif = pil.Exif()
    exif[0x0112] = 6  # the camera was turned: the top is at the right
    image.save(tmp_path / "a.png", exif=exif)
    assert read_image(tmp_path / "a.png").shape == (3, 2, 1)
    assert read_image(tmp_path / "a.png")[0, :, 0].tolist() == [255, 0]
    with pytest.raises(fastdl.ArgumentError, match="channels must be 1"):
        read_image(tmp_path / "a.png", channels=2)
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "b.png")


def test_images_need_pillow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(fastdl.MissingPackageError, match="pip install pillow"):
        read_image(tmp_path / "a.png")
