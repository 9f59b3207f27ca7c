"""The pytest-benchmark suite in benchmarks/ runs."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pytest_benchmark")
ROOT = Path(__file__).parents[2]


def run_suite(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "pytest", "benchmarks", "-p", "no:cacheprovider", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_group_a_layer_a_row_a_backend():
    result = run_suite("--layers", "vgg16-softmax@1", "--against", "none")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "vgg16-softmax@1: softmax 1x1000" in result.stdout
    assert "vgg16-softmax@1-reference" in result.stdout
    assert "vgg16-softmax@1-naive" in result.stdout


def test_an_unknown_layer():
    result = run_suite("--layers", "nosuch", "--against", "none")
    assert result.returncode != 0
    assert "no layer is called 'nosuch'" in result.stdout + result.stderr
