"""Fully connected layers and dropout, on every backend."""

from __future__ import annotations

import numpy as np
import pytest
from support import assert_close, assert_gradients, assert_same, normal, truth

import fastdl

from .cases import LARGE_SIZES, SMALL_SIZES


@pytest.mark.parametrize("shape", [(4, 7), (2, 3, 7), (7,), (1, 7), (0, 7)], ids=str)
@pytest.mark.parametrize("with_bias", [True, False], ids=["bias", "no-bias"])
def test_linear(shape: tuple[int, ...], with_bias: bool, dtype: type, backend: str) -> None:
    x, weight = normal(shape, dtype, 1), normal((5, 7), dtype, 2)
    bias = normal((5,), dtype, 3) if with_bias else None
    out = fastdl.linear(x, weight, bias, backend=backend)
    expected = x.astype(np.float64) @ weight.T.astype(np.float64)
    assert_close(out, expected + (0 if bias is None else bias), dtype)
    grad = normal(out.shape, dtype, 4)
    found = fastdl.linear_backward(grad, x, weight, backend=backend)
    assert_close(found, truth(fastdl.linear_backward, grad, x, weight), dtype)


#: (samples, inputs, outputs): edges of tiles and blocks, long sums, many samples.
SIZES = [(3, 1100, 21), (7, 16, 4097), (131, 70, 10), (300, 259, 33), (1, 1, 1), (16, 576, 100)]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_linear_of_any_size(sizes: tuple[int, int, int], dtype: type, fast_backend: str) -> None:
    batch, inputs, outputs = sizes
    x, weight = normal((batch, inputs), dtype, 1), normal((outputs, inputs), dtype, 2)
    grad = normal((batch, outputs), dtype, 3)
    x64, weight64, grad64 = (array.astype(np.float64) for array in (x, weight, grad))
    out = fastdl.linear(x, weight, backend=fast_backend)
    assert_close(out, x64 @ weight64.T, dtype)
    grads = fastdl.linear_backward(grad, x, weight, backend=fast_backend)
    assert_close(grads, (grad64 @ weight64, grad64.T @ x64, grad64.sum(0)), dtype)


def test_linear_by_hand(backend: str) -> None:
    x, weight = np.array([[1.0, 2.0]]), np.array([[3.0, 4.0], [5.0, 6.0]])
    out = fastdl.linear(x, weight, np.array([100.0, 200.0]), backend=backend)
    np.testing.assert_array_equal(out, [[111, 217]])
    grad_x, grad_weight, grad_bias = fastdl.linear_backward(
        np.array([[1.0, 10.0]]), x, weight, backend=backend
    )
    np.testing.assert_array_equal(grad_x, [[53, 64]])
    np.testing.assert_array_equal(grad_weight, [[1, 2], [10, 20]])
    np.testing.assert_array_equal(grad_bias, [1, 10])


@pytest.mark.parametrize("shape", [(3, 4), (2, 2, 4), (4,)], ids=str)
def test_linear_finite_differences(shape: tuple[int, ...], backend: str) -> None:
    assert_gradients(
        lambda x, weight, bias: fastdl.linear(x, weight, bias, backend=backend),
        lambda grad, x, weight, bias: fastdl.linear_backward(grad, x, weight, backend=backend),
        normal(shape, seed=1),
        normal((3, 4), seed=2),
        normal((3,), seed=3),
    )


def _check_dropout(size: int, dtype: type, backend: str) -> None:
    x = normal((size,), dtype)
    out, mask = fastdl.dropout(x, 0.25, rng=5, return_mask=True, backend=backend)
    assert_close(out, np.where(mask, x.astype(np.float64) / 0.75, 0), dtype)
    found = fastdl.dropout_backward(x, mask, 0.25, backend=backend)
    assert_same(found, out)
    assert_same(mask, fastdl.dropout(x, 0.25, rng=5, return_mask=True, backend="reference")[1])


@pytest.mark.parametrize("size", [0, *SMALL_SIZES])
def test_dropout(size: int, dtype: type, backend: str) -> None:
    _check_dropout(size, dtype, backend)


@pytest.mark.parametrize("size", LARGE_SIZES)
def test_dropout_sizes(size: int, dtype: type, fast_backend: str) -> None:
    _check_dropout(size, dtype, fast_backend)


def test_dropout_share(backend: str) -> None:
    _, mask = fastdl.dropout(np.ones(4000), 0.3, rng=0, return_mask=True, backend=backend)
    assert 0.67 < mask.mean() < 0.73


def test_dropout_drops_what_is_not_finite(dtype: type, backend: str) -> None:
    x = np.array([np.nan, np.inf, -np.inf, 1] * 50, dtype)
    out, mask = fastdl.dropout(x, 0.5, rng=1, return_mask=True, backend=backend)
    np.testing.assert_array_equal(out[~mask], 0)
    np.testing.assert_array_equal(out[mask], 2 * x[mask])


def test_dropout_of_nothing_and_of_everything(dtype: type, backend: str) -> None:
    x = normal((3, 5), dtype)
    assert_same(fastdl.dropout(x, 0, backend=backend), x)
    assert_same(fastdl.dropout(x, 0.5, training=False, backend=backend), x)
    assert_same(fastdl.dropout(x, 1, backend=backend), np.zeros_like(x))


def test_dropout_finite_differences(backend: str) -> None:
    def gradient(grad: np.ndarray, x: np.ndarray) -> np.ndarray:
        _, mask = fastdl.dropout(x, 0.4, rng=3, return_mask=True, backend=backend)
        return fastdl.dropout_backward(grad, mask, 0.4, backend=backend)

    assert_gradients(
        lambda x: fastdl.dropout(x, 0.4, rng=3, backend=backend), gradient, normal((4, 5))
    )
