"""The floating-point mode: what happens to denormals, and that the caller's mode stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import assert_same, normal

import fastdl

#: Large enough for several threads, whose mode must stay as well.
SHAPE = (4, 8, 64, 96)


def _float32_kernels(x: np.ndarray, backend: str) -> None:
    """Kernels that compute with denormals as zero."""
    y = fastdl.sigmoid(x, backend=backend)
    fastdl.sigmoid_backward(x, y, backend=backend)
    fastdl.softmax(x, backend=backend)
    fastdl.dropout(x, 0.5, rng=0, backend=backend)
    fastdl.avg_pool2d(x, 3, 2, 1, backend=backend)
    _, mean, inv_std = fastdl.batch_norm(
        x, None, None, training=True, return_stats=True, backend=backend
    )
    fastdl.batch_norm_backward(x, x, mean, inv_std, backend=backend)


def _denormals(dtype: Any) -> tuple[Any, Any]:
    """What this thread makes of a denormal result and of a denormal operand."""
    smallest = np.finfo(dtype).smallest_normal
    halves = np.full(64, smallest, dtype) * dtype(0.5)
    return float(halves.sum()), float((halves * dtype(4)).sum())


@pytest.mark.parametrize("scale", [1, 1e-42], ids=["normal", "denormal"])
def test_the_callers_mode_stays(scale: float, backend: str) -> None:
    shape = (1, 2, 4, 6) if backend == "naive" else SHAPE
    expected = [_denormals(np.float32), _denormals(np.float64)]
    assert all(all(pair) for pair in expected)
    with np.errstate(all="ignore"):
        _float32_kernels((scale * normal(shape)).astype(np.float32), backend)
    assert [_denormals(np.float32), _denormals(np.float64)] == expected


def test_no_exception_is_left_behind(fast_backend: str) -> None:
    """NumPy would report what a kernel met in its own next operation."""
    x = np.full(SHAPE, 1e-42, np.float32)
    with np.errstate(all="raise"):
        fastdl.avg_pool2d(x, 3, 2, 1, backend=fast_backend)
        assert np.float32(1) + np.float32(1) == 2


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("number", [1, 2, 3])
def test_double_precision_keeps_denormals(number: int, fast_backend: str) -> None:
    """On every thread, after float32 kernels ran there too."""
    fastdl.set_num_threads(number)
    _float32_kernels(normal(SHAPE, np.float32), fast_backend)
    x = np.full(SHAPE, 3e-310)
    assert_same(fastdl.avg_pool2d(x, 2, backend=fast_backend), np.full((4, 8, 32, 48), 3e-310))
    zeros, ones = np.zeros(8), np.ones(8)
    assert_same(fastdl.batch_norm(x, zeros, ones, eps=0, backend=fast_backend), x)
    assert_same(fastdl.relu(x, backend=fast_backend), x)


def test_comparisons_keep_denormals(dtype: type, backend: str) -> None:
    """Relu and max pooling compute nothing: they pass denormals on, and tell them apart."""
    tiny = np.finfo(dtype).smallest_subnormal
    x = tiny * np.arange(-8, 8, dtype=dtype).reshape(1, 1, 4, 4)
    assert_same(fastdl.relu(x, backend=backend), np.maximum(x, 0))
    value, indices = fastdl.max_pool2d(x, 2, return_indices=True, backend=backend)
    assert_same(value, x[..., 1::2, 1::2])
    assert_same(indices, np.array([[[[5, 7], [13, 15]]]]))


@pytest.mark.parametrize("value", [1e-42, -1e-42])
def test_denormals_count_as_zero_at_most(value: float, backend: str) -> None:
    """In float32 a denormal gives its exact result or that of zero."""
    x = np.full((1, 2, 4, 4), value, np.float32)
    average = fastdl.avg_pool2d(x, 2, backend=backend)
    assert np.isin(average, [np.float32(value), 0]).all()
    np.testing.assert_array_equal(fastdl.sigmoid(x, backend=backend), np.float32(0.5))
