"""Clipping of gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from support import assert_same, normal

import fastdl
from fastdl import optim


def grads_of(dtype: Any) -> dict[str, np.ndarray]:
    shapes = {"a": (3, 4), "b": (5,), "c": (), "none": (0, 2)}
    return {name: np.asarray(normal(shape, dtype)) for name, shape in shapes.items()}


def norm_of(grads: dict[str, np.ndarray]) -> float:
    return math.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in grads.values()))


def test_norm(dtype: type, backend: str) -> None:
    grads, start = grads_of(dtype), grads_of(dtype)
    norm = norm_of(grads)
    with fastdl.use_backend(backend):
        assert optim.clip_grad_norm(grads, 2 * norm) == pytest.approx(norm, rel=1e-13)
        for name, array in start.items():
            assert_same(grads[name], array)
        assert optim.clip_grad_norm(grads, norm / 3) == pytest.approx(norm, rel=1e-13)
    assert norm_of(grads) == pytest.approx(norm / 3, rel=1e-6)
    for name, array in start.items():
        np.testing.assert_allclose(grads[name], array / 3, rtol=1e-6)


def test_a_norm_beyond_float32() -> None:
    grads = {"a": np.float32([3e30]), "b": np.float32([4e30])}
    assert optim.clip_grad_norm(grads, 1) == pytest.approx(5e30, rel=1e-6)
    assert grads["b"] == pytest.approx(0.8, rel=1e-6)


def test_what_is_not_finite_is_told() -> None:
    grads = {"a": np.array([1.0, np.nan])}
    assert math.isnan(optim.clip_grad_norm(grads, 1))
    np.testing.assert_array_equal(grads["a"], [1.0, np.nan])
    assert optim.clip_grad_norm({"a": np.array([1.0, np.inf])}, 1) == math.inf


def test_any_layout() -> None:
    room = np.ones((4, 6))
    optim.clip_grad_norm({"a": room[::2, ::-3]}, 1)
    assert (room[::2, ::-3] == 0.5).all()
    assert room.sum() == 24 - 4 * 0.5


def test_value(dtype: type) -> None:
    grads = {"a": np.array([[3, -0.5], [-7, np.nan]], dtype), "b": np.asarray(dtype(2))}
    optim.clip_grad_value(grads, 1)
    np.testing.assert_array_equal(grads["a"], np.array([[1, -0.5], [-1, np.nan]], dtype))
    assert grads["a"].dtype == dtype
    assert grads["b"] == 1


@pytest.mark.parametrize("clip", [optim.clip_grad_norm, optim.clip_grad_value])
def test_bad_arguments_change_nothing(clip: Any) -> None:
    good = np.full(3, 5.0)
    read_only = np.ones(2)
    read_only.flags.writeable = False
    for grads, bound, message in (
        ({"a": good}, 0, "must be a finite number above 0, got 0"),
        ({"a": good, "b": [1.0]}, 1, r"grads\['b'\] must be a NumPy array, got list"),
        ({"a": good, "b": np.ones(2, int)}, 1, r"grads\['b'\] must be float32 or float64"),
        ({"a": good, "b": read_only}, 1, r"grads\['b'\] must be writable"),
    ):
        with pytest.raises(fastdl.FastdlError, match=message):
            clip(grads, bound)
        assert (good == 5).all()
