"""Pools and their gradients, on every backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import assert_close, assert_gradients, assert_same, normal, truth

import fastdl

from .cases import DILATED_POOL, LARGE_ADAPTIVE, LARGE_POOL, SMALL_ADAPTIVE, SMALL_POOL, Pool

DIVISORS = [
    {"count_include_pad": True},
    {"count_include_pad": False},
    {"divisor_override": 5},
]


def _check_max(x: np.ndarray, case: Pool, backend: str) -> None:
    """Values and positions are exact; the gradient is a sum."""
    options = case.max_options
    value, indices = fastdl.max_pool2d(x, **options, return_indices=True, backend=backend)
    true_value, true_indices = truth(fastdl.max_pool2d, x, **options, return_indices=True)
    assert_same(value, true_value.astype(x.dtype))
    assert_same(indices, true_indices)
    assert_same(fastdl.max_pool2d(x, **options, backend=backend), value)
    grad = normal(value.shape, x.dtype, 1)
    found = fastdl.max_pool2d_backward(grad, indices, x.shape, backend=backend)
    assert_close(found, truth(fastdl.max_pool2d_backward, grad, indices, x.shape), x.dtype)


def _check_average(x: np.ndarray, case: Pool, divisor: dict[str, Any], backend: str) -> None:
    options = {**case.options, **divisor}
    out = fastdl.avg_pool2d(x, **options, backend=backend)
    assert_close(out, truth(fastdl.avg_pool2d, x, **options), x.dtype)
    grad = normal(out.shape, x.dtype, 1)
    found = fastdl.avg_pool2d_backward(grad, x.shape, **options, backend=backend)
    assert_close(found, truth(fastdl.avg_pool2d_backward, grad, x.shape, **options), x.dtype)


def _check_adaptive(x: np.ndarray, size: tuple[int, int], backend: str) -> None:
    out = fastdl.adaptive_avg_pool2d(x, size, backend=backend)
    assert_close(out, truth(fastdl.adaptive_avg_pool2d, x, size), x.dtype)
    grad = normal(out.shape, x.dtype, 1)
    found = fastdl.adaptive_avg_pool2d_backward(grad, x.shape, backend=backend)
    assert_close(found, truth(fastdl.adaptive_avg_pool2d_backward, grad, x.shape), x.dtype)


@pytest.mark.parametrize("case", SMALL_POOL + DILATED_POOL, ids=str)
def test_max_geometries(case: Pool, dtype: type, backend: str) -> None:
    _check_max(normal(case.x, dtype), case, backend)


@pytest.mark.parametrize("case", LARGE_POOL, ids=str)
def test_max_sizes(case: Pool, dtype: type, fast_backend: str) -> None:
    _check_max(normal(case.x, dtype), case, fast_backend)


@pytest.mark.parametrize("case", SMALL_POOL + DILATED_POOL, ids=str)
def test_max_with_ties(case: Pool, dtype: type, backend: str) -> None:
    """The first of equal values gives the position."""
    x = np.random.default_rng(0).integers(0, 2, case.x).astype(dtype)
    _check_max(x, case, backend)


@pytest.mark.parametrize("case", SMALL_POOL + DILATED_POOL, ids=str)
def test_max_of_values_that_are_not_finite(case: Pool, dtype: type, backend: str) -> None:
    rng = np.random.default_rng(0)
    specials = np.array([np.nan, np.inf, -np.inf, 0, 1], dtype)
    _check_max(rng.choice(specials, case.x, p=[0.1, 0.1, 0.5, 0.15, 0.15]), case, backend)


@pytest.mark.parametrize("width", range(2, 40, 3))
def test_max_keeps_nan_in_every_lane(width: int, dtype: type, fast_backend: str) -> None:
    case = Pool((width, 1, 3, width), 3, 1, 1)
    x = normal(case.x, dtype)
    x[np.arange(width), 0, 1, np.arange(width)] = np.nan
    _check_max(x, case, fast_backend)


#: Sizes that windows of 2x2 and 3x3 with stride 2 make, in rows of some vectors.
WINDOWS_OF_STRIDE_2 = [
    ((2, 3, 8, 64), (4, 32)),
    ((2, 3, 9, 75), (4, 37)),
    ((2, 3, 9, 75), (5, 38)),
    ((2, 3, 8, 66), (3, 32)),
    ((2, 3, 13, 13), (6, 6)),
    ((1, 1, 6, 2100), (3, 1050)),
]


def _check_max_gradient(
    indices: np.ndarray, shape: tuple[int, int, int, int], dtype: type, backend: str
) -> None:
    grad = normal(indices.shape, dtype)
    found = fastdl.max_pool2d_backward(grad, indices, shape, backend=backend)
    assert_close(found, truth(fastdl.max_pool2d_backward, grad, indices, shape), dtype)


@pytest.mark.parametrize(("shape", "out"), WINDOWS_OF_STRIDE_2, ids=str)
@pytest.mark.parametrize(("kernel", "padding"), [(2, 0), (3, 0), (3, 1)])
def test_max_gradients_of_odd_indices(
    shape: tuple[int, int, int, int], out: tuple[int, int], kernel: int, padding: int, dtype: type,
    fast_backend: str,
) -> None:  # fmt: skip
    """Indices of windows, whole or with one in the last plane that lies elsewhere."""
    x = normal(shape)
    _, indices = fastdl.max_pool2d(x, kernel, 2, padding, ceil_mode=True, return_indices=True)
    indices = np.ascontiguousarray(indices[:, :, : out[0], : out[1]])
    _check_max_gradient(indices, shape, dtype, fast_backend)
    for place in [(-1, -1), (1, 3)]:
        for value in [0, shape[3], shape[2] * shape[3] - 1]:
            moved = indices.copy()
            moved[-1, -1, *place] = value
            _check_max_gradient(moved, shape, dtype, fast_backend)


@pytest.mark.parametrize(("shape", "out"), WINDOWS_OF_STRIDE_2, ids=str)
def test_max_gradients_of_any_indices(
    shape: tuple[int, int, int, int], out: tuple[int, int], dtype: type, fast_backend: str
) -> None:
    rng = np.random.default_rng(0)
    _check_max_gradient(
        rng.integers(0, shape[2] * shape[3], (*shape[:2], *out)), shape, dtype, fast_backend
    )


def test_max_gradients_of_windows_further_apart(dtype: type, fast_backend: str) -> None:
    """As many values are reached as with windows of stride 2, one of them by a row of no window."""
    shape, (rows, columns) = (2, 2, 9, 39), (3, 18)
    corners = 2 * np.arange(rows)[:, np.newaxis] * shape[3] + 2 * np.arange(columns)
    indices = np.broadcast_to(corners + 2, (*shape[:2], rows, columns)).copy()
    indices[-1, -1, 1, 0] = corners[1, 0] + 2 * shape[3]
    indices[-1, -1, 0, 0] = 8 * shape[3] + 20
    _check_max_gradient(indices, shape, dtype, fast_backend)


@pytest.mark.parametrize("value", [-1, 9 * 75, 2**32, 2**32 + 1, -(2**63), 2**63 - 1])
def test_max_gradients_of_indices_out_of_range(value: int, dtype: type, fast_backend: str) -> None:
    for kernel, padding in ((2, 0), (3, 0), (3, 1), (2, 1)):
        value_of_window, indices = fastdl.max_pool2d(
            normal((2, 3, 9, 75), dtype), kernel, 2, padding, return_indices=True
        )
        indices[-1, 1, 2, 1] = value
        with pytest.raises(
            fastdl.errors.ArgumentError, match=rf"^indices must be .* (to|from) {value}( to|$)"
        ):
            fastdl.max_pool2d_backward(
                value_of_window, indices, (2, 3, 9, 75), backend=fast_backend
            )


def test_max_by_hand(backend: str) -> None:
    nan = np.nan
    x = np.array([[[[1.0, 5, 5, 2], [3, 5, -np.inf, -np.inf], [nan, 1, 0, 0], [2, nan, 0, -1]]]])
    value, indices = fastdl.max_pool2d(x, 2, return_indices=True, backend=backend)
    np.testing.assert_array_equal(value, [[[[5, 5], [nan, 0]]]])
    np.testing.assert_array_equal(indices, [[[[1, 2], [13, 10]]]])
    found = fastdl.max_pool2d_backward(np.ones((1, 1, 2, 2)), indices, x.shape, backend=backend)
    np.testing.assert_array_equal(found[0, 0].nonzero(), [[0, 0, 2, 3], [1, 2, 2, 1]])


def test_max_of_minus_infinity_has_a_position(dtype: type, backend: str) -> None:
    x = np.full((1, 1, 4, 4), -np.inf, dtype)
    value, indices = fastdl.max_pool2d(x, 3, 2, 1, return_indices=True, backend=backend)
    assert np.isneginf(value).all()
    np.testing.assert_array_equal(indices[0, 0], [[0, 1], [4, 5]])


def test_max_gradients_meet(backend: str) -> None:
    """Windows that share their largest element add up there."""
    x = np.zeros((1, 1, 5, 5))
    x[0, 0, 2, 2] = 1
    value, indices = fastdl.max_pool2d(x, 3, 1, return_indices=True, backend=backend)
    grad = np.arange(9.0).reshape(1, 1, 3, 3)
    found = fastdl.max_pool2d_backward(grad, indices, x.shape, backend=backend)
    assert (value == 1).all()
    np.testing.assert_array_equal(found, 36 * x)


def test_max_window_with_nothing_in_it_is_refused(backend: str) -> None:
    with pytest.raises(fastdl.ShapeError, match="every window"):
        fastdl.max_pool2d(np.ones((1, 1, 2, 2)), 2, 1, 1, dilation=3, backend=backend)


@pytest.mark.parametrize("divisor", DIVISORS, ids=str)
@pytest.mark.parametrize("case", SMALL_POOL, ids=str)
def test_average_geometries(case: Pool, divisor: dict[str, Any], dtype: type, backend: str) -> None:
    _check_average(normal(case.x, dtype), case, divisor, backend)


@pytest.mark.parametrize("divisor", DIVISORS[:2], ids=str)
@pytest.mark.parametrize("case", LARGE_POOL, ids=str)
def test_average_sizes(case: Pool, divisor: dict[str, Any], dtype: type, fast_backend: str) -> None:
    _check_average(normal(case.x, dtype), case, divisor, fast_backend)


def test_average_by_hand(backend: str) -> None:
    x = np.arange(9.0).reshape(1, 1, 3, 3)
    options = {"ceil_mode": True, "backend": backend}
    out = fastdl.avg_pool2d(x, 2, 2, 1, **options)
    np.testing.assert_array_equal(out[0, 0], [[0, 3 / 4], [9 / 4, 6]])
    out = fastdl.avg_pool2d(x, 2, 2, 1, count_include_pad=False, **options)
    np.testing.assert_array_equal(out[0, 0], [[0, 3 / 2], [9 / 2, 6]])
    # The last windows reach beyond the padding: what lies there is not counted.
    out = fastdl.avg_pool2d(x[..., :2, :2] + 1, 2, **options)
    np.testing.assert_array_equal(out[0, 0], [[3]])
    out = fastdl.avg_pool2d(x, 2, **options)
    np.testing.assert_array_equal(out[0, 0], [[2, 3.5], [6.5, 8]])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_average_of_values_that_are_not_finite(value: float, dtype: type, backend: str) -> None:
    """They reach every window that sees them, and no other."""
    x = normal((1, 2, 6, 9), dtype)
    x[0, 1, 2, 4] = value
    out = fastdl.avg_pool2d(x, 3, 1, 1, backend=backend)
    expected = np.zeros(out.shape, bool)
    expected[0, 1, 1:4, 3:6] = True
    np.testing.assert_array_equal(~np.isfinite(out), expected)


@pytest.mark.parametrize(("shape", "size"), SMALL_ADAPTIVE, ids=str)
def test_adaptive_geometries(
    shape: tuple[int, ...], size: tuple[int, int], dtype: type, backend: str
) -> None:
    _check_adaptive(normal(shape, dtype), size, backend)


@pytest.mark.parametrize(("shape", "size"), LARGE_ADAPTIVE, ids=str)
def test_adaptive_sizes(
    shape: tuple[int, ...], size: tuple[int, int], dtype: type, fast_backend: str
) -> None:
    _check_adaptive(normal(shape, dtype), size, fast_backend)


def test_adaptive_by_hand(backend: str) -> None:
    x = np.arange(5.0).reshape(1, 1, 1, 5)
    out = fastdl.adaptive_avg_pool2d(x, (1, 3), backend=backend)
    np.testing.assert_array_equal(out[0, 0], [[0.5, 2, 3.5]])
    found = fastdl.adaptive_avg_pool2d_backward(out, x.shape, backend=backend)
    third = 2 / 3
    np.testing.assert_allclose(found[0, 0], [[0.25, 0.25 + third, third, third + 1.75, 1.75]])


def test_global_average(dtype: type, backend: str) -> None:
    x = normal((2, 3, 5, 7), dtype)
    out = fastdl.global_avg_pool2d(x, backend=backend)
    assert_close(out, x.astype(np.float64).mean(axis=(2, 3), keepdims=True), dtype)
    found = fastdl.global_avg_pool2d_backward(out, x.shape, backend=backend)
    assert_close(found, np.broadcast_to(out.astype(np.float64) / 35, x.shape), dtype)


@pytest.mark.parametrize(
    ("forward", "backward"),
    [
        (
            lambda x, **o: fastdl.max_pool2d(x, 3, 2, 1, **o),
            lambda grad, x, **o: fastdl.max_pool2d_backward(
                grad, fastdl.max_pool2d(x, 3, 2, 1, return_indices=True, **o)[1], x.shape, **o
            ),
        ),
        (
            lambda x, **o: fastdl.avg_pool2d(x, 3, 2, 1, True, False, **o),
            lambda grad, x, **o: fastdl.avg_pool2d_backward(
                grad, x.shape, 3, 2, 1, True, False, **o
            ),
        ),
        (
            lambda x, **o: fastdl.adaptive_avg_pool2d(x, (3, 2), **o),
            lambda grad, x, **o: fastdl.adaptive_avg_pool2d_backward(grad, x.shape, **o),
        ),
        (
            lambda x, **o: fastdl.global_avg_pool2d(x, **o),
            lambda grad, x, **o: fastdl.global_avg_pool2d_backward(grad, x.shape, **o),
        ),
    ],
    ids=["max", "average", "adaptive", "global"],
)
def test_finite_differences(forward: Any, backward: Any, backend: str) -> None:
    assert_gradients(
        lambda x: forward(x, backend=backend),
        lambda grad, x: backward(grad, x, backend=backend),
        normal((1, 2, 5, 6)),
    )


def test_empty_batch(dtype: type, backend: str) -> None:
    x = np.empty((0, 3, 4, 6), dtype)
    value, indices = fastdl.max_pool2d(x, 2, return_indices=True, backend=backend)
    assert value.shape == indices.shape == (0, 3, 2, 3)
    average = fastdl.avg_pool2d(x, 2, backend=backend)
    adaptive = fastdl.adaptive_avg_pool2d(x, (2, 3), backend=backend)
    assert average.shape == adaptive.shape == (0, 3, 2, 3)
    gradients = (
        fastdl.max_pool2d_backward(value, indices, x.shape, backend=backend),
        fastdl.avg_pool2d_backward(value, x.shape, 2, backend=backend),
        fastdl.adaptive_avg_pool2d_backward(value, x.shape, backend=backend),
    )
    assert all(gradient.shape == x.shape for gradient in gradients)


def test_same_bits_each_time(dtype: type, backend: str) -> None:
    case = SMALL_POOL[3]
    x = normal(case.x, dtype)

    def everything() -> tuple[np.ndarray, ...]:
        value, indices = fastdl.max_pool2d(x, 3, 1, return_indices=True, backend=backend)
        average = fastdl.avg_pool2d(x, 3, 1, backend=backend)
        return (
            value,
            average,
            fastdl.max_pool2d_backward(average, indices, x.shape, backend=backend),
            fastdl.avg_pool2d_backward(average, x.shape, 3, 1, backend=backend),
            fastdl.global_avg_pool2d(x, backend=backend),
        )

    first = everything()
    for _ in range(3):
        assert_same(everything(), first)
