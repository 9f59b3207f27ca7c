"""Softmax, its logarithm and cross-entropy, on every backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import assert_close, assert_gradients, assert_same, normal, truth

import fastdl

from .cases import LARGE_SIZES, SMALL_SIZES

NAMES = ["softmax", "log_softmax"]
REDUCTIONS = ["mean", "sum", "none"]


def _check(name: str, x: np.ndarray, dim: int, backend: str) -> None:
    forward, backward = getattr(fastdl, name), getattr(fastdl, f"{name}_backward")
    out = forward(x, dim, backend=backend)
    assert_close(out, truth(forward, x, dim), x.dtype)
    grad = normal(x.shape, x.dtype, 1)
    found = backward(grad, out, dim, backend=backend)
    assert_close(found, truth(backward, grad, out, dim), x.dtype, slack=2)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [size for size in SMALL_SIZES if size > 1])
def test_rows(name: str, size: int, dtype: type, backend: str) -> None:
    _check(name, 3 * normal((3, size), dtype), -1, backend)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", LARGE_SIZES)
def test_sizes(name: str, size: int, dtype: type, fast_backend: str) -> None:
    _check(name, 3 * normal((5, size), dtype), 1, fast_backend)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dim", [0, 1, 2, -1, -3])
def test_any_dimension(name: str, dim: int, dtype: type, backend: str) -> None:
    _check(name, normal((2, 3, 5), dtype), dim, backend)


def test_by_hand(dtype: type, backend: str) -> None:
    x = np.log(np.array([[1, 3], [2, 2]], dtype))
    out = fastdl.softmax(x, backend=backend)
    np.testing.assert_allclose(out, [[0.25, 0.75], [0.5, 0.5]], rtol=1e-6)
    out = fastdl.log_softmax(x, backend=backend)
    np.testing.assert_allclose(out, np.log([[0.25, 0.75], [0.5, 0.5]]), rtol=1e-6)
    single = normal((4, 1), dtype)
    np.testing.assert_array_equal(fastdl.softmax(single, backend=backend), np.ones((4, 1)))
    np.testing.assert_array_equal(fastdl.log_softmax(single, backend=backend), np.zeros((4, 1)))


@pytest.mark.parametrize("offset", [-1e4, 1e4])
def test_large_scores_do_not_overflow(offset: float, dtype: type, backend: str) -> None:
    x = (normal((3, 9)) + offset).astype(dtype)
    x[0, 0] = 2 * offset
    for name in NAMES:
        _check(name, x, 1, backend)


def test_values_that_are_not_finite(dtype: type, backend: str) -> None:
    """NaN and infinity stay in their rows; minus infinity is a class that cannot be."""
    x = normal((5, 20), dtype)
    x[0, 17] = np.nan
    x[1, 3] = np.inf
    x[2] = -np.inf
    x[3, 5] = -np.inf
    out = fastdl.softmax(x, backend=backend)
    assert np.isnan(out[0]).all()
    assert np.isnan(out[1, 3])
    assert np.isnan(out[2]).all()
    assert out[3, 5] == 0
    assert np.isfinite(out[3:]).all()
    out = fastdl.log_softmax(x, backend=backend)
    assert np.isnan(out[0]).all()
    assert np.isnan(out[1, 3])
    assert np.isnan(out[2]).all()
    assert out[3, 5] == -np.inf
    assert np.isfinite(np.delete(out[3:], 5, axis=1)).all()


@pytest.mark.parametrize("name", NAMES)
def test_softmax_finite_differences(name: str, backend: str) -> None:
    forward, backward = getattr(fastdl, name), getattr(fastdl, f"{name}_backward")
    assert_gradients(
        lambda x: forward(x, 1, backend=backend),
        lambda grad, x: backward(grad, forward(x, 1, backend=backend), 1, backend=backend),
        normal((2, 5, 3)),
    )


@pytest.mark.parametrize("name", NAMES)
def test_empty_batch(name: str, dtype: type, backend: str) -> None:
    out = getattr(fastdl, name)(np.empty((0, 4), dtype), backend=backend)
    assert out.shape == (0, 4)
    found = getattr(fastdl, f"{name}_backward")(out, out, backend=backend)
    assert found.shape == (0, 4)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (3, 4), (5, 17)], ids=str)
def test_cross_entropy(
    shape: tuple[int, int], smoothing: float, reduction: Any, dtype: type, backend: str
) -> None:
    x = 3 * normal(shape, dtype)
    target = np.random.default_rng(0).integers(0, shape[1], shape[0])
    options = {"label_smoothing": smoothing, "reduction": reduction}
    loss = fastdl.cross_entropy(x, target, **options, backend=backend)
    log_p = x - np.log(np.exp(x.astype(np.float64)).sum(axis=1, keepdims=True))
    wanted = smoothing / shape[1] + (1 - smoothing) * np.eye(shape[1])[target]
    losses = -(wanted * log_p).sum(axis=1)
    expected = {"mean": losses.mean(), "sum": losses.sum(), "none": losses}[reduction]
    np.testing.assert_allclose(loss, expected, rtol=2e-6, atol=1e-6)
    assert loss.dtype == dtype
    found = fastdl.cross_entropy_backward(x, target, **options, backend=backend)
    share = shape[0] if reduction == "mean" else 1
    np.testing.assert_allclose(found, (np.exp(log_p) - wanted) / share, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_finite_differences(smoothing: float, reduction: Any, backend: str) -> None:
    target = np.array([1, 0, 3])
    options = {"label_smoothing": smoothing, "reduction": reduction, "backend": backend}

    def gradient(grad: np.ndarray, x: np.ndarray) -> np.ndarray:
        upstream = grad if reduction == "none" else float(grad)
        return fastdl.cross_entropy_backward(x, target, grad=upstream, **options)

    assert_gradients(
        lambda x: np.asarray(fastdl.cross_entropy(x, target, **options)), gradient, normal((3, 4))
    )


def test_cross_entropy_of_an_empty_batch(dtype: type, backend: str) -> None:
    x, target = np.empty((0, 4), dtype), np.empty(0, np.int64)
    assert np.isnan(fastdl.cross_entropy(x, target, backend=backend))
    assert fastdl.cross_entropy(x, target, reduction="sum", backend=backend) == 0
    assert fastdl.cross_entropy_backward(x, target, backend=backend).shape == (0, 4)


def test_same_bits_each_time(dtype: type, backend: str) -> None:
    x, target = normal((5, 19), dtype), np.arange(5)

    def everything() -> tuple[np.ndarray, ...]:
        return (
            fastdl.softmax(x, backend=backend),
            fastdl.log_softmax(x, 0, backend=backend),
            fastdl.cross_entropy_backward(x, target, backend=backend),
        )

    first = everything()
    for _ in range(3):
        assert_same(everything(), first)
