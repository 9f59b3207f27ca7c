"""The benchmark of the cuda backend, at tiny size on the simulator."""

from __future__ import annotations

import json
from pathlib import Path
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import pytest

import fastdl
from fastdl.backends import gpu
from fastdl.bench import peers

if not gpu.simulated() or fastdl.available_backends()["cuda"] is not None:
    pytest.skip("needs NUMBA_ENABLE_CUDASIM=1 and numba-cuda", allow_module_level=True)

script = pytest.importorskip("benchmarks.gpu.__main__", reason="needs the repository")
from benchmarks.gpu import clock, results, works  # noqa: E402

main = script.main

TINY = ["--small", "--seconds", "0", "--calls", "1"]


class Event:
    """CUDA's event, by the CPU's clock."""

    def record(self) -> None:
        self.seconds = perf_counter()

    def synchronize(self) -> None:
        pass


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The script's way on a GPU: its events, what it tells of the driver, PyTorch's CUDA.

    The kernels run on the simulator, PyTorch's on the CPU.
    """
    torch = pytest.importorskip("torch")
    paused: list[str] = []

    def elapsed(begin: Event, end: Event) -> float:
        return 1e3 * (end.seconds - begin.seconds)

    device = gpu.Gpu("NVIDIA Stub 1", 2**34, (9, 0), 2)
    for place, name, value in (
        (clock, "SIMULATED", False),
        (clock, "cuda", SimpleNamespace(
            event=Event, event_elapsed_time=elapsed, synchronize=lambda: None)),
        (clock, "_pause", {(1, 1): lambda nanoseconds: paused.append(str(nanoseconds))}),
        (results, "SIMULATED", False),
        (gpu, "gpus", lambda: (device,)),
        (gpu, "driver_version", lambda: (13, 0)),
        (script, "_torch", lambda: torch),
        (works, "Torch", lambda threads, device: peers.Torch(threads)),
    ):  # fmt: skip
        monkeypatch.setattr(place, name, value)
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self.clone())
    return paused


#: One convolution each way, and all that is none.
KINDS = (
    "odd-3x3_27x55_backward*,mobilenet*,more-depthwise3*,more-[!dg3x7]*,more-gl*,odd-bn*,linear*,"
    "*softmax*,cross*,tanh*,sigmoid*,dropout*,conv_t*,adaptive*,conv +*,*update,sum*"
)


def measured(folder: Path, patterns: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The rows of the file that the script writes, by name."""
    assert main([*TINY, "--works", patterns, "--output", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert "NVIDIA Stub 1: copy" in out
    assert err == ""
    found = json.loads((folder / "gpu-nvidia_stub_1.json").read_text())
    assert {"date", "device", "machine", "limits", "command", "left_out"} <= found.keys()
    return {row["name"]: row for row in found["results"]}


def test_a_convolution_as_on_a_gpu(
    as_on_a_gpu: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = measured(tmp_path, "resnet50-conv5_3x3@*", capsys)
    (conv,) = rows.values()
    assert conv["right"]
    assert conv["times"].keys() == {"float32", "tf32", "bf16", "torch", "torch tf32"}
    assert conv["errors"]["float32"] < 1e-6 < conv["errors"]["tf32"] < conv["errors"]["bf16"] < 8e-3
    assert all(int(nanoseconds) >= 1e5 for nanoseconds in as_on_a_gpu)


def test_every_kind_of_work_as_on_a_gpu(
    as_on_a_gpu: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(results, "PRECISIONS", ("float32",))
    rows = measured(tmp_path, KINDS, capsys)
    others = [work.name for work in works.works(small=True) if work.name not in rows]
    assert all("conv" in name or name.startswith(("more-", "odd-")) for name in others)
    # Of PyTorch's, only what draws and what changes its inputs is not compared.
    alone = {
        name for name, row in rows.items()
        if "torch" in row["times"] and row["apart_from_torch"] is None
    }  # fmt: skip
    updates = {f"{rule} update" for rule in ("sgd", "momentum", "nesterov", "adam")}
    assert alone == {"dropout", *updates}


def test_the_simulator_s_figures_are_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = ["--limit", "0", "--output", str(tmp_path)]
    assert main([*TINY, "--works", "linear", *limits]) == 0
    assert "left out after 0 s: linear" in capsys.readouterr().out
    assert json.loads((tmp_path / "gpu-simulated.json").read_text())["left_out"] == ["linear"]


def test_a_wrong_kernel_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fastdl.linear

    def linear(x: Any, weight: Any, bias: Any, backend: Any = None) -> Any:
        return real(x, weight, bias if backend else None, backend=backend)

    monkeypatch.setattr(fastdl, "linear", linear)
    assert main([*TINY, "--works", "linear", "--output", str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert "WRONG" in told.out
    assert "wrong results: linear" in told.err


def test_what_cannot_be_is_an_error_of_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TINY, "--works", "none", "--output", "x"]) == 2
    assert "--works: none of vgg16" in capsys.readouterr().err
    assert main(TINY[:1]) == 2
    assert "a simulated GPU's figures are none" in capsys.readouterr().err
