"""im2col and col2im, on every backend."""

from __future__ import annotations

import math

import numpy as np
import pytest
from support import assert_close, assert_same, normal, truth

import fastdl

from .cases import LARGE_CONV, SMALL_CONV, Conv

#: Not the images that outgrow a cache: a column more is a column more.
SOME_LARGE = [case for case in LARGE_CONV if math.prod(case.x) < 100_000][::3]


def _window(case: Conv) -> tuple[object, ...]:
    """kernel_size, dilation, padding, stride."""
    return case.weight[2:], case.dilation, case.padding, case.stride


def _check(case: Conv, dtype: type, backend: str) -> None:
    x = normal(case.x, dtype)
    columns = fastdl.im2col(x, *_window(case), backend=backend)
    expected = truth(fastdl.im2col, x, *_window(case))
    assert_same(columns, expected.astype(dtype))  # a copy rounds nothing
    col = normal(columns.shape, dtype, 1)
    image = fastdl.col2im(col, case.x[2:], *_window(case), backend=backend)
    assert_close(image, truth(fastdl.col2im, col, case.x[2:], *_window(case)), dtype)


@pytest.mark.parametrize("case", SMALL_CONV, ids=str)
def test_geometries(case: Conv, dtype: type, backend: str) -> None:
    _check(case, dtype, backend)


@pytest.mark.parametrize("case", SOME_LARGE, ids=str)
def test_sizes(case: Conv, dtype: type, fast_backend: str) -> None:
    _check(case, dtype, fast_backend)


def test_an_example_by_hand(backend: str) -> None:
    x = np.arange(6.0).reshape(1, 1, 2, 3)
    columns = fastdl.im2col(x, 2, padding=(0, 1), backend=backend)
    expected = [[0, 0, 1, 2], [0, 1, 2, 0], [0, 3, 4, 5], [3, 4, 5, 0]]
    np.testing.assert_array_equal(columns[0], expected)
    image = fastdl.col2im(columns, (2, 3), 2, padding=(0, 1), backend=backend)
    np.testing.assert_array_equal(image[0, 0], 2 * x[0, 0])


@pytest.mark.parametrize("case", [SMALL_CONV[8], SMALL_CONV[12], SMALL_CONV[25]], ids=str)
def test_each_is_the_other_s_gradient(case: Conv, backend: str) -> None:
    """``<im2col(x), c> = <x, col2im(c)>``: both are linear, and transposes."""
    x = normal(case.x, seed=1)
    columns = fastdl.im2col(x, *_window(case), backend=backend)
    col = normal(columns.shape, seed=2)
    image = fastdl.col2im(col, case.x[2:], *_window(case), backend=backend)
    assert np.vdot(columns, col) == pytest.approx(np.vdot(x, image), rel=1e-12)


def test_empty_batch(dtype: type, backend: str) -> None:
    columns = fastdl.im2col(np.empty((0, 2, 4, 5), dtype), 3, padding=1, backend=backend)
    assert columns.shape == (0, 18, 20)
    image = fastdl.col2im(columns, (4, 5), 3, padding=1, backend=backend)
    assert image.shape == (0, 2, 4, 5)


def test_values_that_are_not_finite(dtype: type, backend: str) -> None:
    x = normal((1, 2, 5, 5), dtype)
    x[0, 1, 2, 2] = np.nan
    x[0, 0, 4, 4] = -np.inf
    columns = fastdl.im2col(x, 3, padding=1, backend=backend)
    assert np.isnan(columns).sum() == 9
    assert np.isneginf(columns).sum() == 4
    image = fastdl.col2im(columns, (5, 5), 3, padding=1, backend=backend)
    np.testing.assert_array_equal(np.isfinite(image), np.isfinite(x))


def test_same_bits_each_time(dtype: type, backend: str) -> None:
    col = normal((2, 27, 30), dtype)
    first = fastdl.col2im(col, (5, 6), 3, padding=1, backend=backend)
    for _ in range(3):
        assert_same(fastdl.col2im(col, (5, 6), 3, padding=1, backend=backend), first)
