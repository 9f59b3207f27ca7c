"""The pytest-benchmark suite in benchmarks/ runs."""

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from fastdl.backends.registry import NAMES, why_missing
from fastdl.bench.layer import Operation
from fastdl.bench.layers import LAYERS

pytest.importorskip("pytest_benchmark")
ROOT = Path(__file__).parents[2]
FILES = list((ROOT / "benchmarks").glob("test_*.py"))


def run_suite(*arguments):
    return subprocess.run(
        # Not the sources in the folder, which -m would put first: what is installed.
        [sys.executable, "-P", "-m", "pytest", "benchmarks", "-p", "no:cacheprovider", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_group_a_layer_a_row_a_backend():
    result = run_suite("--layers", "vgg16-softmax@1", "--against", "none", "--row-seconds", "0.001")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "vgg16-softmax@1: softmax 1x1000" in result.stdout
    for name in NAMES:
        assert (f"vgg16-softmax@1-{name}" in result.stdout) == (why_missing(name) is None)


def test_every_operation_has_a_benchmark():
    tests = set(re.findall(r"^def test_(\w+)", "".join(map(Path.read_text, FILES)), re.M))
    assert tests == set(get_args(Operation)) == {layer.operation for layer in LAYERS}


def test_an_unknown_layer():
    result = run_suite("--layers", "nosuch", "--against", "none")
    assert result.returncode != 0
    assert "no layer is called 'nosuch'" in result.stdout + result.stderr
