import json
import os
import struct
import sys

import numpy as np
import pytest

import fastdl
from fastdl.io import load_state, save_state, write_atomically

STATE = {"0.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(7)}


def test_round_trip_keeps_names_dtypes_layouts_and_metadata(tmp_path):
    path = tmp_path / "a.safetensors"
    square = np.arange(12.0).reshape(3, 4)
    state = {
        **STATE,
        "transposed": square.T,
        "strided": square[::-1, ::2],
        "empty": np.empty((0, 3), np.float32),
        "flags": np.array([True, False]),
        "big endian": square.astype(">f8"),
    }
    save_state(path, state, {"model": "none", "note": "ä"})
    loaded, metadata = load_state(path)
    assert metadata == {"model": "none", "note": "ä"}
    assert loaded.keys() == state.keys()
    for name, array in state.items():
        assert loaded[name].dtype == array.dtype.newbyteorder("=")
        np.testing.assert_array_equal(loaded[name], array)
    save_state(str(path), {})
    assert load_state(str(path)) == ({}, {})


def test_other_writers_are_read(tmp_path):
    from safetensors.numpy import save_file

    save_file({"w": STATE["0.weight"]}, tmp_path / "b")
    loaded, metadata = load_state(tmp_path / "b")
    np.testing.assert_array_equal(loaded["w"], STATE["0.weight"])
    assert metadata == {}


def _header(**tensor):
    text = json.dumps({"w": tensor}).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a model",
        bytes(1000),
        b"\xff" * 64,
        _header(dtype="F32", shape=[4], data_offsets=[0, 16]) + bytes(8),
        _header(dtype="F32", shape=[2**40], data_offsets=[0, 16]) + bytes(16),
        _header(dtype="F99", shape=[4], data_offsets=[0, 16]) + bytes(16),
        _header(dtype="BF16", shape=[8], data_offsets=[0, 16]) + bytes(16),
    ],
    ids=["empty", "text", "zeros", "ones", "cut", "huge", "unknown dtype", "bfloat16"],
)
def test_broken_files(tmp_path, content):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    with pytest.raises(fastdl.DataError, match=r"broken.safetensors is not a readable safetensors"):
        load_state(path)


def test_every_cut_is_noticed(tmp_path):
    path = tmp_path / "a"
    save_state(path, STATE)
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(fastdl.DataError):
            load_state(path)


def test_missing_file_is_the_systems_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_state(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        load_state(tmp_path)


@pytest.mark.parametrize(
    ("state", "metadata", "message"),
    [
        ({"w": [1.0]}, None, r"state\['w'\] must be an array of numbers, got \[1.0\]"),
        ({"w": np.array(["a"])}, None, r"state\['w'\] must be an array of numbers"),
        ({"w": np.ones(1, complex)}, None, r"state\['w'\] must be an array of numbers"),
        ({}, {"epoch": 3}, r"metadata\['epoch'\] must be a str, got 3"),
    ],
)
def test_bad_states_write_nothing(tmp_path, state, metadata, message):
    with pytest.raises(fastdl.DTypeError, match=message):
        save_state(tmp_path / "a", state, metadata)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch, error):
    path = tmp_path / "a"
    write_atomically(path, b"old")

    def fail(*_):
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(type(error)):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_written_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    write_atomically(tmp_path / "a", b"")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_safetensors_is_needed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(fastdl.MissingPackageError, match="pip install safetensors"):
        save_state(tmp_path / "a", STATE)
    with pytest.raises(fastdl.MissingPackageError, match="pip install safetensors"):
        load_state(tmp_path / "a")
