"""Runs that are kept, and what the README's table is made of."""

import json
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from fastdl.bench import machine
from fastdl.bench.record import load, newest, save
from fastdl.bench.run import LayerTimes, Row
from fastdl.bench.timing import Timing
from fastdl.errors import ArgumentError

from .small import CONV, DILATED, LIMITS, MAX_BACKWARD

ROOT = Path(__file__).parents[2]


def row(name, seconds, measured=None):
    return Row(name, 1.5e-7, Timing(seconds, seconds, seconds, 9), measured)


TIMES = (
    LayerTimes(CONV, (row("compiled", 1.234e-6), row("torch", 2e-6), row("naive", 3.0, CONV))),
    LayerTimes(DILATED, (row("compiled", 1e-7), Row("jit", 0.5, None))),
    LayerTimes(MAX_BACKWARD, (row("jit", 1e-7),)),
)


def kept(folder, times=TIMES, reuse=False):
    return save(folder, times, LIMITS, "fastdl bench --save", 2.0, reuse)


def test_what_is_saved_is_loaded(tmp_path):
    path = kept(tmp_path / "results", reuse=True)
    (record,) = load(tmp_path / "results")
    conv, dilated, pool = record.times
    assert (conv, pool) == (TIMES[0], TIMES[2])
    assert dilated.rows == TIMES[1].rows[:1]  # a wrong result is not kept
    assert (record.limits, record.reuse, record.command) == (LIMITS, True, "fastdl bench --save")
    assert record.machine == json.loads(json.dumps(machine.describe()))
    assert path.name.endswith("-reuse.json")
    assert sum(line.startswith('  {"layer"') for line in path.read_text().splitlines()) == 3


def test_a_file_of_something_else_is_told(tmp_path):
    (tmp_path / "odd.json").write_text('{"date": "2026-01-01T00:00:00+00:00"}')
    with pytest.raises(ArgumentError, match=r"odd\.json is not a file of"):
        load(tmp_path)


def test_the_newest_times_of_a_layer_count(tmp_path):
    kept(tmp_path)
    (record,) = load(tmp_path)
    faster = LayerTimes(CONV, (row("compiled", 1e-9),))
    later = replace(record, date=record.date + timedelta(1), times=(faster,))
    other = replace(record, date=record.date + timedelta(2), reuse=True)
    assert newest([record, later, other], reuse=False) == [faster, *record.times[1:]]
    assert newest([record, other], reuse=False) == list(record.times)
    assert newest([record, later], reuse=True) == []


def test_the_commit(monkeypatch):
    commit = machine.commit()
    assert commit is None or len(commit.rstrip("+")) >= 7
    monkeypatch.setenv("PATH", "")
    assert machine.commit() is None


def report(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.report", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_readme_shows_the_runs_that_are_in_the_repository():
    if not list((ROOT / "benchmarks" / "results").glob("*.json")):
        pytest.skip("no runs")
    result = report("--check")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture
def pages(tmp_path):
    """A repository of two pages and two runs."""
    (tmp_path / "docs").mkdir()
    for name, part in (("README.md", "table"), ("docs/benchmarks.md", "layers")):
        (tmp_path / name).write_text(
            f"before\n<!-- benchmarks.report: begin {part} -->\nold\n"
            f"<!-- benchmarks.report: end {part} -->\nafter\n"
        )
    kept(tmp_path / "results")
    kept(tmp_path / "results", reuse=True)
    return tmp_path


def test_the_report(pages):
    pytest.importorskip("matplotlib")
    arguments = ("--results", pages / "results", "--root", pages)
    assert report(*arguments, "--check").returncode == 1
    result = report(*arguments)
    assert result.returncode == 0, result.stderr
    assert report(*arguments, "--check").returncode == 0
    readme = (pages / "README.md").read_text()
    assert readme.startswith("before\n")
    assert readme.endswith("after\n")
    assert "old" not in readme
    assert "| small call | 1 | 1.62 | 1.62 tiny-conv@2 | 1.62 | 1.62 tiny-conv@2 | - |" in readme
    assert "tiny-max_backward@2<br>" in (pages / "docs/benchmarks.md").read_text()
    assert (pages / "results" / "roofline.png").read_bytes().startswith(b"\x89PNG")


def test_a_page_without_its_markers_is_told(pages):
    (pages / "README.md").write_text("bare\n")
    result = report("--results", pages / "results", "--root", pages)
    assert result.returncode == 1
    assert "has no lines <!-- benchmarks.report: begin table -->" in result.stderr
    assert (pages / "README.md").read_text() == "bare\n"


def test_without_runs_it_says_how_to_make_some(tmp_path):
    result = report("--results", tmp_path)
    assert result.returncode == 1
    assert "--measure" in result.stdout
