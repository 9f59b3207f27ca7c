"""``fastdl bench`` as a user types it."""

import json
import os
import re
import subprocess
import sys

import pytest
from bench.small import LIMITS

import fastdl
from fastdl.bench import limits, machine, peers
from fastdl.bench.implementation import Call
from fastdl.bench.memory import can_keep_freed_memory
from fastdl.bench.ours import Backend
from fastdl.bench.record import load
from fastdl.cli import bench, main

for package in ("tqdm", "matplotlib", "threadpoolctl"):
    pytest.importorskip(package)


@pytest.fixture(autouse=True)
def measured(monkeypatch):
    """A machine whose limits are known, and which is idle."""
    monkeypatch.setattr(limits, "measure", lambda threads: LIMITS)
    monkeypatch.setattr(machine, "busy", lambda: 0.0)


def run(*arguments):
    return main(["bench", *map(str, arguments)])


QUICK = ("--layers", "vgg16-softmax@1,lenet-conv1@1", "--seconds", "0.02")


def test_table_json_and_plot(capsys, tmp_path):
    figures, picture = tmp_path / "figures.json", tmp_path / "roofline.png"
    assert run(*QUICK, "--json", figures, "--plot", picture) == 0
    out = capsys.readouterr().out
    for words in (
        "200 GFLOP/s",
        "15.0 reading, 20.0 copying, 12.0 writing",
        "x reference",
        "lenet-conv1@1: conv2d 1x1x32x32",
    ):
        assert words in out
    assert picture.read_bytes().startswith(b"\x89PNG")
    fields = json.loads(figures.read_text())
    assert {"command", "date", "machine", "limits", "method", "results"} == set(fields)
    assert {"processor", "cores", "instruction_set", "threads", "versions"} <= set(
        fields["machine"]
    )
    assert fields["machine"]["versions"]["fastdl"] == fastdl.__version__
    assert [result["layer"]["label"] for result in fields["results"]] == [
        "lenet-conv1@1",
        "vgg16-softmax@1",
    ]
    works = [name for name, reason in fastdl.available_backends().items() if reason is None]
    for result in fields["results"]:
        assert [row["name"] for row in result["rows"]] == works
        for row in result["rows"]:
            assert row["right"]
            assert row["time"]["low"] <= row["time"]["seconds"] <= row["time"]["high"]
            assert set(row["times_as_fast_as"]) == set(works) - {row["name"]}


def test_chosen_backends_and_threads(capsys, threads):
    assert run(*QUICK, "--backends", "reference", "--threads", 1) == 0
    assert fastdl.get_num_threads() == 1
    out = capsys.readouterr().out
    assert "  reference" in out
    assert "naive" not in out


def test_list(capsys):
    assert run("--list") == 0
    every = capsys.readouterr().out.splitlines()
    assert len(every) == len(bench.LAYERS)
    assert run("--list", "--layers", "resnet50-conv3_3x3") == 0
    assert capsys.readouterr().out.splitlines() == [
        line for line in every if line.startswith("resnet50-conv3_3x3@")
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--layers", "nosuch"), ["'nosuch'", "--list"]),
        (("--against", "caffe"), ["'caffe'", "torch"]),
        (("--backends", "fortran"), ["'fortran'", "compiled"]),
        (("--json", "no/such/folder/x.json"), ["no/such/folder"]),
        (("--plot", "."), ["'.'"]),
        (("--save", "no/such/folder"), ["no/such/folder"]),
        (("--save", __file__), ["test_cli_bench.py"]),
    ],
)
def test_errors_come_before_the_timing(capsys, monkeypatch, arguments, words):
    monkeypatch.setattr(bench, "time_layers", lambda *_: pytest.fail("it was timed"))
    assert run(*arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("fastdl: error: ")
    assert [word for word in words if word not in err] == []


@pytest.mark.parametrize("arguments", [("--seconds", "0"), ("--layers", ","), ("--threads", "0")])
def test_bad_values_are_the_parsers_errors(capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    assert stop.value.code == 2
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.parametrize("name", peers.PEERS)
def test_a_missing_peer_says_how_to_install_it(capsys, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    assert run(*QUICK, "--against", name) == 2
    assert f"pip install {name}" in capsys.readouterr().err


def test_against_all_is_what_is_installed(capsys, monkeypatch):
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    assert run("--layers", "vgg16-softmax@1", "--seconds", 0.01, "--against", "all") == 0
    assert "x torch" not in capsys.readouterr().out


class Wrong:
    """A peer that answers zero."""

    name = "torch"

    def __init__(self, threads):
        self.threads = threads

    def serves(self, layer):
        return True

    def prepare(self, layer, inputs, reuse):
        return Call(lambda: 0 * inputs["x"], lambda result: (result,))


def test_a_wrong_result_is_told_and_not_timed(capsys, monkeypatch):
    monkeypatch.setitem(peers.PEERS, "torch", Wrong)
    arguments = ("--layers", "vgg16-softmax@1", "--seconds", 0.01, "--against", "torch")
    assert run(*arguments) == bench.WRONG
    captured = capsys.readouterr()
    assert "refused" in captured.out
    assert "torch is wrong on vgg16-softmax@1" in captured.err


def test_ctrl_c_shows_what_there_is(capsys, monkeypatch, tmp_path):
    usual = bench.time_layers

    def interrupted(*arguments):
        yield next(usual(*arguments))
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "time_layers", interrupted)
    figures = tmp_path / "figures.json"
    assert run(*QUICK, "--json", figures) == 130
    assert "lenet-conv1@1" in capsys.readouterr().out
    assert len(json.loads(figures.read_text())["results"]) == 1


def test_a_busy_machine_is_told(capsys, monkeypatch):
    monkeypatch.setattr(machine, "busy", lambda: 1.5)
    assert run("--layers", "vgg16-softmax@1", "--seconds", 0.01) == 0
    assert "1.5 of" in capsys.readouterr().err


def test_the_run_is_kept(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "benchmarks").mkdir()
    assert run(*QUICK, "--backends", "reference", "--save") == 0
    out = capsys.readouterr().out
    (record,) = load(tmp_path / "benchmarks" / "results")
    assert [layer.layer.label for layer in record.times] == ["lenet-conv1@1", "vgg16-softmax@1"]
    assert record.machine["versions"]["fastdl"] == fastdl.__version__
    assert record.limits == LIMITS
    assert not record.reuse
    assert "wrote benchmarks/results/" in out
    assert run(*QUICK, "--backends", "reference", "--save", tmp_path / "mine") == 0
    assert len(load(tmp_path / "mine")) == 1


def test_the_fastest_peer_and_the_classes(capsys, monkeypatch):
    class Reference(Backend):
        """A peer that is never wrong."""

        def __init__(self, threads):
            super().__init__("reference")

    class Named(Reference):
        name = property(lambda self: "torch", lambda self, value: None)

        def prepare(self, layer, inputs, reuse):
            return Backend("reference").prepare(layer, inputs, reuse)

    monkeypatch.setitem(peers.PEERS, "torch", Named)
    assert run(*QUICK, "--backends", "jit", "--against", "torch") == 0
    out = capsys.readouterr().out
    assert re.search(r"^jit x fastest peer +layers +mean +worst$", out, re.M)
    assert re.search(r"^  elementwise +1 +[\d.]+ +[\d.]+  vgg16-softmax@1$", out, re.M)


def test_quick(capsys, monkeypatch):
    seen = []
    monkeypatch.setattr(bench, "time_layers", lambda *given: seen.append(given) or ())
    assert run("--quick", "--calls", 7) == 0
    (_, _, seconds, _, calls) = seen[0]
    assert (seconds, calls) == (0.1, 7)


REUSE = """
import os, sys
from fastdl.bench import limits
from fastdl.bench.limits import Limit, Limits
made_up = Limit(1, 1e9, 1e9, 1e9, 1e9)
limits.measure = lambda threads: Limits(made_up, made_up, "made up")
print("started with", os.environ.get("MALLOC_MMAP_MAX_"), sys.argv[1:], flush=True)
from fastdl.cli import main
sys.exit(main())
"""


def test_reuse_starts_the_process_again():
    """The C library reads how to handle memory when a process starts."""
    arguments = ("bench", "--layers", "lenet-conv1@1", "--backends", "reference", "--quick")
    result = subprocess.run(
        [sys.executable, "-c", REUSE, *arguments, "--reuse"],
        capture_output=True, text=True, check=False,
        env={name: value for name, value in os.environ.items() if "MALLOC" not in name},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "memory: reused by all" in result.stdout
    starts = [line for line in result.stdout.splitlines() if line.startswith("started with")]
    if can_keep_freed_memory():
        assert starts == [f"started with {n} {[*arguments, '--reuse']}" for n in (None, 0)]
    else:
        assert "not glibc" in result.stderr
