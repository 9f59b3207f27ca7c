"""The benchmark of the cuda backend, at tiny size on the simulator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastdl
from fastdl.backends import gpu
from fastdl.bench import peers
from fastdl.bench.run import difference

if not gpu.simulated() or fastdl.available_backends()["cuda"] is not None:
    pytest.skip("needs NUMBA_ENABLE_CUDASIM=1 and numba-cuda", allow_module_level=True)

main = pytest.importorskip("benchmarks.gpu.__main__", reason="needs the repository").main

WORKS = "resnet50-conv5_3x3@*,odd-bn*,linear,dropout,cross_entropy,adam update,conv + batch*"
TINY = ["--small", "--seconds", "0", "--calls", "1", "--works"]


def test_every_kind_of_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TINY, WORKS, "--output", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "simulated: copy" in out
    found = json.loads((tmp_path / "gpu-simulated.json").read_text())
    assert [row["name"].partition("@")[0] for row in found["results"]] == [
        "resnet50-conv5_3x3", "odd-bn_27x55", "linear", "cross_entropy", "dropout",
        "conv + batch norm + relu", "adam update",
    ]  # fmt: skip
    assert {"date", "device", "machine", "limits", "command", "left_out"} <= found.keys()
    conv = found["results"][0]
    assert conv["right"]
    assert conv["times"].keys() == conv["errors"].keys() == {"float32", "tf32", "bf16"}
    assert conv["errors"]["float32"] < 1e-6 < conv["errors"]["tf32"] < conv["errors"]["bf16"] < 8e-3


def test_pytorch_does_the_same_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU, as there is no GPU."""
    torch = pytest.importorskip("torch")
    from benchmarks.gpu import works

    monkeypatch.setattr(works, "Torch", lambda threads, device: peers.Torch(threads))
    for work in works.works(small=True):
        if work.theirs is not None:
            inputs = work.inputs()
            tensors = {name: torch.from_numpy(array.copy()) for name, array in inputs.items()}
            found = peers.torch_arrays(work.theirs(torch)(**tensors))
            if work.expected is None and not work.name.endswith("update"):
                expected = tuple(map(np.asarray, work.truth(inputs, found)))
                assert difference(found, expected) < 1e-5, work.name


def test_a_wrong_kernel_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fastdl.linear

    def linear(x: Any, weight: Any, bias: Any, backend: Any = None) -> Any:
        return real(x, weight, bias if backend else None, backend=backend)

    monkeypatch.setattr(fastdl, "linear", linear)
    assert main([*TINY, "linear", "--output", str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert "WRONG" in told.out
    assert "wrong results: linear" in told.err


def test_what_cannot_be_is_an_error_of_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TINY, "none", "--output", "x"]) == 2
    assert "--works: none of vgg16" in capsys.readouterr().err
    assert main(TINY[:1]) == 2
    assert "a simulated GPU's figures are none" in capsys.readouterr().err
