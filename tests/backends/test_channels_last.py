"""Images that are (N, H, W, C) in memory: the same results, in the same order, on every backend."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from support import assert_close, assert_same, channels_last, is_channels_last, normal, truth

import fastdl

from .cases import Conv, Pool

CONVOLUTIONS = [
    Conv((2, 3, 5, 6), (4, 3, 3, 3)),
    Conv((1, 6, 4, 4), (9, 2, 2, 2), stride=2, groups=3),
    Conv((2, 5, 3, 4), (7, 5, 1, 1)),
    Conv((1, 3, 5, 7), (6, 1, 3, 3), stride=2, padding=1, groups=3),
    Conv((1, 2, 9, 9), (2, 2, 3, 2), stride=(2, 1), padding=(2, 1), dilation=(1, 3)),
    Conv((1, 2, 2, 2), (3, 2, 2, 2), padding=4),
]
LARGE_CONVOLUTIONS = [
    # One, two, three and more vectors of filters, and parts of them; tiles of every height.
    *(
        Conv((1, 10, 3, 7), (filters, 10, 3, 2), padding=1)
        for filters in (1, 8, 9, 17, 24, 33, 100)
    ),
    *(Conv((2, 7, 4, width), (20, 7, 1, 1)) for width in (1, 2, 5, 13)),
    Conv((2, 300, 3, 7), (19, 300, 1, 1)),
    # Several blocks and images, columns that are cut, whole rows of padding.
    Conv((3, 24, 17, 13), (20, 24, 3, 5), padding=2),
    Conv((1, 3, 9, 300), (24, 3, 7, 7), stride=2, padding=3),
    Conv((3, 70, 8, 9), (40, 70, 3, 3), stride=2, padding=((0, 1), (3, 2))),
    Conv((2, 32, 15, 15), (40, 32, 1, 1), stride=2),
    Conv((2, 32, 9, 9), (48, 8, 3, 3), padding=1, groups=4),
    Conv((2, 8, 23, 21), (12, 8, 3, 3), padding=4, dilation=(3, 4)),
    # Winograd.
    Conv((2, 17, 13, 27), (33, 17, 3, 3), padding=1),
    Conv((1, 32, 20, 30), (40, 32, 5, 5), padding=2),
    Conv((1, 24, 20, 30), (24, 12, 3, 3), padding=2, dilation=2, groups=2),
    # Depthwise.
    *(
        Conv(
            (2, channels, 9, 16),
            (channels, 1, kernel, kernel),
            stride,
            kernel // 2,
            groups=channels,
        )
        for channels, kernel, stride in ((9, 3, 1), (33, 3, 2), (16, 5, 1), (100, 5, 2), (5, 2, 1))
    ),
    Conv((1, 40, 30, 3), (40, 1, 3, 3), padding=2, dilation=2, groups=40),
]
#: Relative error of Winograd in float32.
WINOGRAD_SLACK = 1.5


@cache
def _expected(case: Conv, dtype: Any) -> Any:
    args = case.arrays(dtype)
    return (
        truth(fastdl.conv2d, *args, **case.options),
        truth(fastdl.conv2d_backward, case.grad(dtype), *args[:2], **case.options),
    )


def _check_conv(case: Conv, dtype: Any, backend: str) -> tuple[np.ndarray, ...]:
    x, weight, bias = case.arrays(dtype)
    x, grad = channels_last(x), channels_last(case.grad(dtype))
    expected, gradients = _expected(case, dtype)
    out = fastdl.conv2d(x, weight, bias, **case.options, backend=backend)
    assert_close(out, expected, dtype, WINOGRAD_SLACK)
    assert is_channels_last(out)
    found = fastdl.conv2d_backward(grad, x, weight, **case.options, backend=backend)
    assert_close(found, gradients, dtype, WINOGRAD_SLACK)
    assert is_channels_last(found[0])
    return out, *found


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_convolution(case: Conv, dtype: type, backend: str) -> None:
    _check_conv(case, dtype, backend)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("case", LARGE_CONVOLUTIONS, ids=str)
def test_sizes_of_convolutions(case: Conv, dtype: type, compiled: str) -> None:
    fastdl.set_num_threads(2)
    results = _check_conv(case, dtype, compiled)
    fastdl.set_num_threads(1)
    assert_same(results, _check_conv(case, dtype, compiled))


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh"])
@pytest.mark.parametrize(
    "case",
    [
        Conv((1, 9, 9, 9), (19, 9, 2, 2), stride=2),
        Conv((1, 18, 8, 9), (18, 1, 3, 3), padding=1, groups=18),
        Conv((1, 16, 12, 12), (16, 16, 3, 3), padding=1),
    ],
    ids=str,
)
def test_fused_activation(case: Conv, activation: Any, dtype: type, compiled: str) -> None:
    x, weight, bias = case.arrays(dtype)
    weight /= dtype(np.sqrt(weight[0].size))
    options = {**case.options, "activation": activation}
    out = fastdl.conv2d(channels_last(x), weight, bias, **options, backend=compiled)
    expected = truth(fastdl.conv2d, x, weight, bias, **options)
    assert_close(out, expected, dtype, WINOGRAD_SLACK)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("filters", [5, 40])
def test_values_that_are_not_finite(value: float, filters: int, compiled: str) -> None:
    """They reach every window that sees them, and no other, whatever the algorithm."""
    x, weight = normal((2, 40, 12, 13), np.float32), normal((filters, 40, 3, 3), np.float32)
    x[1, 2, 5, 6] = value
    out = fastdl.conv2d(channels_last(x), weight, padding=1, backend=compiled)
    seen = np.zeros(out.shape, bool)
    seen[1, :, 4:7, 5:8] = True
    np.testing.assert_array_equal(~np.isfinite(out), seen)


POOLS = [
    Pool((1, 2, 7, 9), 3, 2, 1, ceil_mode=True),
    Pool((2, 3, 6, 7), (3, 2), (1, 3), (1, 0)),
]
LARGE_POOLS = [
    *(Pool((2, channels, 9, 8), 2) for channels in (5, 8, 17, 64)),
    Pool((2, 65, 13, 30), 3, 1, 1),
    Pool((1, 33, 24, 40), (18, 20), 9, 4),
]


def _check_pools(case: Pool, dtype: Any, backend: str) -> None:
    plain = normal(case.x, dtype, 1)
    x = channels_last(plain)
    values, indices = truth(fastdl.max_pool2d, plain, **case.options, return_indices=True)
    found = fastdl.max_pool2d(x, **case.options, return_indices=True, backend=backend)
    assert_same(tuple(found), (values.astype(dtype), indices))
    assert_same(fastdl.max_pool2d(x, **case.options, backend=backend), found[0])
    grad = channels_last(normal(values.shape, dtype, 2))
    spread = fastdl.max_pool2d_backward(grad, indices, x.shape, backend=backend)
    assert_close(spread, truth(fastdl.max_pool2d_backward, grad, indices, x.shape), dtype)
    results = [*found, spread]
    for include_pad in (True, False):
        options = {**case.options, "count_include_pad": include_pad}
        out = fastdl.avg_pool2d(x, **options, backend=backend)
        assert_close(out, truth(fastdl.avg_pool2d, plain, **options), dtype)
        spread = fastdl.avg_pool2d_backward(grad, x.shape, **options, backend=backend)
        assert_close(spread, truth(fastdl.avg_pool2d_backward, grad, x.shape, **options), dtype)
        results += [out, spread]
    assert all(map(is_channels_last, results))


@pytest.mark.parametrize("case", POOLS, ids=str)
def test_pools(case: Pool, dtype: type, backend: str) -> None:
    _check_pools(case, dtype, backend)


@pytest.mark.parametrize("case", LARGE_POOLS, ids=str)
def test_sizes_of_pools(case: Pool, dtype: type, compiled: str) -> None:
    _check_pools(case, dtype, compiled)


def test_max_pool_of_what_is_not_finite(dtype: type, backend: str) -> None:
    x = normal((2, 9, 7, 7), dtype)
    x.flat[::5], x.flat[::7] = np.nan, -np.inf
    options = {"kernel_size": 3, "stride": 2, "padding": 1, "return_indices": True}
    expected = fastdl.max_pool2d(x, **options, backend="reference")
    assert_same(fastdl.max_pool2d(channels_last(x), **options, backend=backend), expected)


@pytest.mark.parametrize("index", [-1, 64, 2**40])
def test_indices_out_of_range(index: int, backend: str) -> None:
    grad, indices = normal((1, 9, 4, 4)), np.zeros((1, 9, 4, 4), np.int64)
    indices[0, 3, 2, 1] = index
    with pytest.raises(fastdl.ArgumentError, match="indices must be at least 0 and below 64"):
        fastdl.max_pool2d_backward(
            channels_last(grad), channels_last(indices), (1, 9, 8, 8), backend=backend
        )


@pytest.mark.parametrize(
    ("shape", "size"), [((2, 3, 7, 5), (3, 2)), ((1, 70, 20, 23), (2, 1)), ((3, 300, 7, 8), 1)]
)
def test_adaptive_pool(shape: Any, size: Any, dtype: type, fast_backend: str) -> None:
    x = normal(shape, dtype)
    expected = truth(fastdl.adaptive_avg_pool2d, x, size)
    out = fastdl.adaptive_avg_pool2d(channels_last(x), size, backend=fast_backend)
    assert_close(out, expected, dtype)
    grad = channels_last(normal(out.shape, dtype, 1))
    spread = fastdl.adaptive_avg_pool2d_backward(grad, shape, backend=fast_backend)
    assert_close(spread, truth(fastdl.adaptive_avg_pool2d_backward, grad, shape), dtype)


NORMS = [(2, 3, 4, 5), (3, 10, 9, 7), (4, 24, 14, 30), (2, 300, 9, 9), (1, 2056, 2, 3)]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", NORMS, ids=str)
def test_batch_norm(shape: Any, training: bool, dtype: type, fast_backend: str) -> None:
    x, grad, y = (normal(shape, dtype, seed) for seed in (1, 2, 3))
    x += dtype(3)
    numbers = [normal(shape[1:2], dtype, seed) for seed in (4, 5, 6)]
    var = normal(shape[1:2], dtype, 7) ** 2 + dtype(0.5)
    mean, weight, bias = numbers
    options = {"training": training, "activation": "relu", "return_stats": True}
    expected = truth(fastdl.batch_norm, x, mean, var, weight, bias, **options)
    out, *statistics = fastdl.batch_norm(
        channels_last(x), mean.copy(), var.copy(), weight, bias, **options, backend=fast_backend
    )
    assert_close((out, *statistics), expected, dtype)
    args = (mean, var, weight, training)
    found = fastdl.batch_norm_backward(
        channels_last(grad), channels_last(x), *args, y=channels_last(y), backend=fast_backend
    )
    assert_close(found, truth(fastdl.batch_norm_backward, grad, x, *args, y=y), dtype)
    assert is_channels_last(out)
    assert is_channels_last(found[0])


def test_a_plan_and_calls_seen_before(dtype: type, backend: str) -> None:
    case = Conv((1, 5, 4, 5), (9, 5, 3, 3), padding=1)
    x, weight, bias = case.arrays(dtype)
    x = channels_last(x)
    options = {**case.options, "activation": "relu", "backend": backend}
    expected = fastdl.conv2d(x, weight, bias, **options)
    again = fastdl.conv2d(x, weight, bias, **options)
    assert_same(again, expected)
    assert is_channels_last(again)
    plan = fastdl.Conv2dPlan(x.shape, weight, bias, **options)
    assert_close(plan(x), expected, dtype, 2)
    assert is_channels_last(plan(x))
    # `out` has the order that it has.
    for out in (np.empty_like(expected), np.empty(expected.shape, dtype)):
        assert fastdl.conv2d(x, weight, bias, **options, out=out) is out
        assert_same(out, expected)
        assert plan(x, out) is out


def test_one_channel_or_pixel_counts_as_planes(backend: str) -> None:
    for shape in ((2, 1, 3, 4), (2, 3, 1, 1)):
        out = fastdl.conv2d(
            channels_last(normal(shape)), normal((5, shape[1], 1, 1)), padding=1, backend=backend
        )
        assert out.flags.c_contiguous


@pytest.mark.parametrize(
    "name", ["max_pool2d", "avg_pool2d", "avg_pool2d_backward", "batch_norm", "conv2d"]
)
def test_outputs_past_the_caches(name: str, compiled: str) -> None:
    """The same as in small pieces: 18 MiB, pixels of whole vectors."""
    x = channels_last(normal((31, 208, 27, 27), np.float32))
    numbers = np.float32(np.abs(normal((208,))) + 0.5)
    arguments: dict[str, tuple[Any, ...]] = {
        "max_pool2d": (3, 1, 1),
        "avg_pool2d": (3, 1, 1),
        "avg_pool2d_backward": (x.shape, 3, 1, 1),
        "batch_norm": (numbers, numbers),
        "conv2d": (normal((208, 1, 3, 3), np.float32), None, 1, 1, 1, 208),
    }
    function = getattr(fastdl, name)
    found = function(x, *arguments[name], backend=compiled)
    rest = arguments[name]
    if name.endswith("backward"):
        rest = ((1, *x.shape[1:]), *rest[1:])
    for i in (0, 1, 30):
        assert_same(found[i : i + 1], function(x[i : i + 1], *rest, backend=compiled))
