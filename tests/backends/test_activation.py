"""Activations and their gradients, on every backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import assert_close, assert_gradients, assert_same, normal, truth

import fastdl
from fastdl.backends import registry

from .cases import LARGE_SIZES, SMALL_SIZES

ACTIVATIONS = ["relu", "sigmoid", "tanh"]


def _check(name: str, x: np.ndarray, backend: str) -> None:
    forward, backward = getattr(fastdl, name), getattr(fastdl, f"{name}_backward")
    out = forward(x, backend=backend)
    assert_close(out, truth(forward, x), x.dtype)
    grad = normal(x.shape, x.dtype, 1)
    saved = x if name == "relu" else out
    assert_close(backward(grad, saved, backend=backend), truth(backward, grad, saved), x.dtype)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("size", SMALL_SIZES)
def test_values(name: str, size: int, dtype: type, backend: str) -> None:
    _check(name, 3 * normal((size,), dtype), backend)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("size", LARGE_SIZES)
def test_sizes(name: str, size: int, dtype: type, fast_backend: str) -> None:
    _check(name, 3 * normal((size,), dtype), fast_backend)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (2, 3, 4, 5), (0,), (2, 0, 3)], ids=str)
def test_any_shape(name: str, shape: tuple[int, ...], dtype: type, backend: str) -> None:
    _check(name, np.asarray(normal(shape, dtype)), backend)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_element_is_precise(name: str, dtype: type, fast_backend: str) -> None:
    """Near zero and far out too, where the norm of all errors would hide one."""
    magnitude = np.geomspace(1e-30, 80, 997)
    x = np.concatenate([-magnitude[::-1], [0], magnitude]).astype(dtype)
    found = getattr(fastdl, name)(x, backend=fast_backend)
    expected = truth(getattr(fastdl, name), x)
    precision = 1e-6 if dtype is np.float32 else 1e-14
    np.testing.assert_allclose(found, expected, rtol=precision, atol=0)


@pytest.mark.parametrize("activation", [None, *ACTIVATIONS])
@pytest.mark.parametrize("shape", [(0,), (7,), (2, 3, 5), (3, 70_001)], ids=str)
def test_a_sum_and_its_activation(
    activation: Any, shape: tuple[int, ...], dtype: type, fast_backend: str
) -> None:
    x, y, out = normal(shape, dtype, 1), normal(shape, dtype, 2), np.empty(shape, dtype)
    registry.get(fast_backend).add(x, y, activation, out)
    total = x.astype(np.float64) + y
    expected = total if activation is None else truth(getattr(fastdl, activation), total)
    assert_close(out, expected, dtype)


def test_a_sum_number_by_number(dtype: type) -> None:
    x, y, out = np.array([1, 2], dtype), np.array([-3, 2], dtype), np.empty(2, dtype)
    registry.get("naive").add(x, y, "relu", out)
    assert out.tolist() == [0, 4]


def test_by_hand(dtype: type, backend: str) -> None:
    inf, nan = np.inf, np.nan
    x = np.array([-inf, -1000, -1, 0, 1, 1000, inf, nan], dtype)
    expected = {
        "relu": [0, 0, 0, 0, 1, 1000, inf, nan],
        "sigmoid": [0, 0, 1 / (1 + np.e), 0.5, np.e / (1 + np.e), 1, 1, nan],
        "tanh": [-1, -1, -np.tanh(1), 0, np.tanh(1), 1, 1, nan],
    }
    for name, values in expected.items():
        out = getattr(fastdl, name)(x, backend=backend)
        np.testing.assert_allclose(out, np.array(values, dtype), rtol=1e-6, atol=0)
    grad = np.array([inf, 2, 3, 4, 5, 6, 7, 8], dtype)
    found = fastdl.relu_backward(grad, x, backend=backend)
    np.testing.assert_array_equal(found, np.array([0, 0, 0, 0, 5, 6, 7, 8], dtype))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_nan_in_every_lane(name: str, dtype: type, fast_backend: str) -> None:
    for size in range(1, 40):
        x = normal((size, size), dtype)
        np.fill_diagonal(x, np.nan)
        out = getattr(fastdl, name)(x, backend=fast_backend)
        np.testing.assert_array_equal(np.isnan(out), np.eye(size, dtype=bool))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_in_place(name: str, dtype: type, backend: str) -> None:
    x = normal((3, 17), dtype)
    forward = getattr(fastdl, name)
    expected = forward(x, backend=backend)
    assert forward(x, out=x, backend=backend) is x
    assert_same(x, expected)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_finite_differences(name: str, backend: str) -> None:
    forward, backward = getattr(fastdl, name), getattr(fastdl, f"{name}_backward")

    def gradient(grad: np.ndarray, x: np.ndarray) -> Any:
        saved = x if name == "relu" else forward(x, backend=backend)
        return backward(grad, saved, backend=backend)

    x = normal((3, 5))
    assert abs(x).min() > 1e-3  # relu is smooth there
    assert_gradients(lambda x: forward(x, backend=backend), gradient, x)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_same_bits_each_time(name: str, dtype: type, backend: str) -> None:
    x = normal((7, 19), dtype)
    first = getattr(fastdl, name)(x, backend=backend)
    for _ in range(3):
        assert_same(getattr(fastdl, name)(x, backend=backend), first)
