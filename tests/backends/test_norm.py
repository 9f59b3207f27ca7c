"""Batch normalisation and its gradients, on every backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import assert_close, assert_gradients, assert_same, normal, relative_error, truth

import fastdl

from .cases import LARGE_NORM, SMALL_NORM

Shape = tuple[int, ...]


def _arrays(shape: Shape, dtype: Any) -> tuple[np.ndarray, ...]:
    """The input, each channel with a mean of its own; running mean and variance, weight, bias."""
    channels = shape[1:2]
    offset = np.arange(1, channels[0] + 1).reshape(-1, *[1] * (len(shape) - 2))
    x = (2 * normal(shape, seed=1) + offset).astype(dtype)
    variance = 0.5 + normal(channels, seed=3) ** 2
    return (
        x,
        normal(channels, dtype, 2),
        variance.astype(dtype),
        normal(channels, dtype, 4),
        normal(channels, dtype, 5),
    )


def _check(shape: Shape, dtype: Any, training: bool, backend: str) -> None:
    arrays = _arrays(shape, dtype)
    x, running_mean, running_var, weight, _ = arrays
    mine = (x, running_mean.copy(), running_var.copy(), *arrays[3:])
    wide = tuple(array.astype(np.float64) for array in arrays)
    options: dict[str, Any] = {"training": training, "momentum": 0.3, "return_stats": True}
    found = fastdl.batch_norm(*mine, **options, backend=backend)
    expected = fastdl.batch_norm(*wide, **options, backend="reference")
    assert_close(found, expected, dtype)
    assert_close(mine[1:3], wide[1:3], dtype)
    if not training:
        assert_same(mine[1:3], (running_mean, running_var))
    grad = normal(shape, dtype, 6)
    args = (grad, x, *(statistic.astype(dtype) for statistic in expected[1:]), weight, training)
    for y in (None, normal(shape, dtype, 7)):
        found = fastdl.batch_norm_backward(*args, y=y, backend=backend)
        assert_close(found, truth(fastdl.batch_norm_backward, *args, y=y), dtype, slack=2)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("shape", SMALL_NORM, ids=str)
def test_geometries(shape: Shape, training: bool, dtype: type, backend: str) -> None:
    _check(shape, dtype, training, backend)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("shape", LARGE_NORM, ids=str)
def test_sizes(shape: Shape, training: bool, dtype: type, fast_backend: str) -> None:
    _check(shape, dtype, training, fast_backend)


def test_an_example_by_hand(backend: str) -> None:
    x = np.array([[1.0, 0.0], [3.0, 4.0]])
    mean, var = np.zeros(2), np.ones(2)
    weight, bias = np.array([2.0, 3.0]), np.array([10.0, 20.0])
    out = fastdl.batch_norm(
        x, mean, var, weight, bias, training=True, momentum=0.5, eps=0, backend=backend
    )
    np.testing.assert_allclose(out, [[8, 17], [12, 23]])
    # The running variance takes the unbiased one: 2 and 8.
    np.testing.assert_allclose(mean, [1, 1])
    np.testing.assert_allclose(var, [1.5, 4.5])
    out = fastdl.batch_norm(x, mean, np.full(2, 4.0), weight, bias, eps=0, backend=backend)
    np.testing.assert_allclose(out, [[10, 18.5], [12, 24.5]])


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("activation", [None, "relu", "sigmoid", "tanh"])
@pytest.mark.parametrize("affine", [(True, True), (True, False), (False, True), (False, False)])
def test_affine_and_activation(
    affine: tuple[bool, bool], activation: Any, training: bool, dtype: type, backend: str
) -> None:
    x, mean, var, weight, bias = _arrays((2, 3, 3, 5), dtype)
    args = (x, mean, var, weight if affine[0] else None, bias if affine[1] else None, training)
    expected = truth(fastdl.batch_norm, *args, activation=activation)
    out = fastdl.batch_norm(*args, activation=activation, backend=backend)
    assert_close(out, expected, dtype)


@pytest.mark.parametrize("shape", [(4, 2, 5, 5), (2, 3, 3, 33)], ids=str)
def test_variance_far_from_zero(shape: Shape, backend: str) -> None:
    """A difference of squares would lose every digit here."""
    x = (normal(shape) + 10_000).astype(np.float32)
    options: dict[str, Any] = {"training": True, "return_stats": True, "eps": 0}
    out, mean, inv_std = fastdl.batch_norm(x, None, None, **options, backend=backend)
    wide = fastdl.batch_norm(x.astype(np.float64), None, None, **options, backend="reference")
    assert relative_error(mean, wide[1]) <= 1e-6
    assert relative_error(inv_std, wide[2]) <= 1e-4
    assert relative_error(out, wide[0]) <= 2e-3


def test_constant_channel(dtype: type, backend: str) -> None:
    x = np.full((2, 3, 4, 4), 3, dtype)
    bias = np.array([1, 2, 3], dtype)
    out = fastdl.batch_norm(x, None, None, None, bias, training=True, backend=backend)
    np.testing.assert_array_equal(out, np.broadcast_to(bias[:, None, None], x.shape))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(value: float, dtype: type, backend: str) -> None:
    """In training they take their channel with them, in evaluation nothing else."""
    x, mean, var, *_ = _arrays((2, 3, 4, 5), dtype)
    x[1, 1, 2, 3] = value
    out = fastdl.batch_norm(x, mean, var, backend=backend)
    np.testing.assert_array_equal(np.isfinite(out), np.isfinite(x))
    out = fastdl.batch_norm(x, None, None, training=True, backend=backend)
    assert not np.isfinite(out[:, 1]).any()
    assert np.isfinite(out[:, ::2]).all()


@pytest.mark.parametrize("weighted", [True, False], ids=["weight", "no-weight"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_finite_differences(training: bool, weighted: bool, backend: str) -> None:
    x, mean, var, weight, bias = _arrays((2, 2, 2, 3), np.float64)

    def forward(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, **options: Any) -> Any:
        return fastdl.batch_norm(
            x, mean.copy(), var.copy(), weight, bias, training, backend=backend, **options
        )

    def backward(grad: np.ndarray, x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> Any:
        _, saved_mean, inv_std = forward(x, weight, bias, return_stats=True)
        return fastdl.batch_norm_backward(
            grad, x, saved_mean, inv_std, weight if weighted else None, training, backend=backend
        )

    assert_gradients(forward, backward, x, weight if weighted else np.ones(2), bias)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_finite_differences_with_relu(training: bool, backend: str) -> None:
    x, mean, var, weight, bias = _arrays((2, 2, 2, 3), np.float64)

    def forward(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, **options: Any) -> Any:
        return fastdl.batch_norm(
            x, mean.copy(), var.copy(), weight, bias, training, activation="relu",
            backend=backend, **options,
        )  # fmt: skip

    def backward(grad: np.ndarray, x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> Any:
        y, saved_mean, inv_std = forward(x, weight, bias, return_stats=True)
        return fastdl.batch_norm_backward(
            grad, x, saved_mean, inv_std, weight, training, y=y, backend=backend
        )

    assert_gradients(forward, backward, x, weight, bias)


def test_where_relu_gave_zero_there_is_no_gradient(dtype: type, backend: str) -> None:
    x, mean, var, *_ = _arrays((2, 3, 4, 5), dtype)
    y = normal(x.shape, dtype, 7)
    y[0, 0, 0, 0] = np.nan
    grad_x, _, grad_bias = fastdl.batch_norm_backward(
        np.ones_like(x), x, mean, 1 / var, training=False, y=y, backend=backend
    )
    np.testing.assert_array_equal(grad_x == 0, y <= 0)
    np.testing.assert_array_equal(grad_bias, np.sum(~(y <= 0), axis=(0, 2, 3)))


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_empty_batch(training: bool, dtype: type, backend: str) -> None:
    x = np.empty((0, 3, 4, 4), dtype)
    mean, var = np.zeros(3, dtype), np.ones(3, dtype)
    out = fastdl.batch_norm(x, mean, var, training=training, backend=backend)
    assert out.shape == x.shape
    np.testing.assert_array_equal(mean, np.zeros(3))
    np.testing.assert_array_equal(var, np.ones(3))
    grad_x, *sums = fastdl.batch_norm_backward(out, x, mean, var, None, training, backend=backend)
    assert grad_x.shape == x.shape
    np.testing.assert_array_equal(sums, np.zeros((2, 3)))


def test_same_bits_each_time(dtype: type, backend: str) -> None:
    x, _, _, weight, bias = _arrays((2, 3, 5, 7), dtype)

    def everything() -> tuple[np.ndarray, ...]:
        found = fastdl.batch_norm(
            x, None, None, weight, bias, True, return_stats=True, backend=backend
        )
        return found + fastdl.batch_norm_backward(found[0], x, *found[1:], weight, backend=backend)

    first = everything()
    for _ in range(3):
        assert_same(everything(), first)
