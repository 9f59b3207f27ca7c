"""What the tests share: random inputs, the error measure, finite differences, subprocesses."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fastdl

#: Largest relative error against the float64 truth.
TOLERANCE = {np.dtype(np.float32): 1e-6, np.dtype(np.float64): 1e-12}


def normal(shape: Sequence[int], dtype: Any = np.float64, seed: int = 0) -> np.ndarray:
    """Standard normal numbers; the same shape and seed give the same ones."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def truth(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """What the reference backend makes of the same call in float64."""
    wide = {name: _upcast(value) for name, value in options.items()}
    return function(*map(_upcast, args), **wide, backend="reference")


def _upcast(value: Any) -> Any:
    is_float = isinstance(value, np.ndarray) and value.dtype.kind == "f"
    return value.astype(np.float64) if is_float else value


def channels_last(array: np.ndarray) -> np.ndarray:
    """The same array (N, C, ...), in memory (N, ..., C)."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1)


def is_channels_last(array: np.ndarray) -> bool:
    """Whether an array (N, C, ...) is (N, ..., C) in memory, without gaps."""
    return np.moveaxis(array, 1, -1).flags.c_contiguous


def assert_order(out: np.ndarray, x: np.ndarray) -> None:
    """The result ``out`` of images ``x`` is channels-last where they are, and else in C order."""
    if is_channels_last(x) and not x.flags.c_contiguous:
        assert is_channels_last(out)
    else:
        assert out.flags.c_contiguous


def relative_error(out: np.ndarray, expected: np.ndarray) -> float:
    """``|out - expected| / |expected|`` in the Euclidean norm."""
    difference = np.linalg.norm(np.ravel(out.astype(np.float64) - expected))
    scale = np.linalg.norm(np.ravel(expected))
    return float(difference / scale) if scale else float(difference)


def assert_close(out: Any, expected: Any, dtype: Any, slack: float = 1.0) -> None:
    """Each array of ``out`` is of ``dtype`` and near ``expected``, ``slack`` times the tolerance."""
    if isinstance(out, tuple):
        assert len(out) == len(expected)
        for one, other in zip(out, expected, strict=True):
            assert_close(one, other, dtype, slack)
        return
    assert out.dtype == dtype
    assert out.shape == expected.shape
    error = relative_error(out, expected)
    assert error <= slack * TOLERANCE[np.dtype(dtype)], f"relative error {error:.2e}"


def assert_same(out: Any, expected: Any) -> None:
    """The same bits, NaN equal to NaN."""
    if isinstance(out, tuple):
        for one, other in zip(out, expected, strict=True):
            assert_same(one, other)
        return
    assert out.dtype == expected.dtype
    np.testing.assert_array_equal(out, expected, strict=True)


def assert_gradients(
    function: Callable[..., np.ndarray],
    backward: Callable[..., Any],
    *args: np.ndarray,
    step: float = 1e-5,
) -> None:
    """``backward(grad, *args)`` gives the derivatives of ``sum(grad * function(*args))``.

    Central differences, one element at a time. The function must be smooth
    where it is asked.
    """
    grad = normal(function(*args).shape, seed=99)
    gradients = backward(grad, *args)
    if not isinstance(gradients, tuple):
        gradients = (gradients,)
    assert len(gradients) == len(args)
    for position, gradient in enumerate(gradients):
        assert gradient.shape == args[position].shape
        numeric = np.empty(gradient.shape)
        for index in np.ndindex(gradient.shape):
            sides = []
            for shift in (step, -step):
                moved = [argument.copy() for argument in args]
                moved[position][index] += shift
                sides.append(np.vdot(grad, function(*moved)))
            numeric[index] = (sides[0] - sides[1]) / (2 * step)
        error = relative_error(gradient, numeric)
        assert error <= 1e-7, f"argument {position}: relative error {error:.2e}"


def run_python(code: str, timeout: float = 120, **environment: str) -> str:
    """What a fresh interpreter prints; it imports the same fastdl."""
    root = Path(fastdl.__file__).parents[1]
    result = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={**os.environ, "PYTHONPATH": str(root), **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()
