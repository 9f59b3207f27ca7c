"""Convolution and its three gradients, on every backend."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from support import assert_close, assert_gradients, assert_same, normal, truth

import fastdl

from .cases import LARGE_CONV, SMALL_CONV, Conv

NETWORK = Conv((2, 9, 10, 11), (13, 9, 3, 3), padding=1)


@cache
def _expected(case: Conv, dtype: Any) -> Any:
    """The result with bias, and the gradients."""
    x, weight, bias = case.arrays(dtype)
    grad = case.grad(dtype)
    return (
        truth(fastdl.conv2d, x, weight, bias, **case.options),
        truth(fastdl.conv2d_backward, grad, x, weight, **case.options),
    )


def _check(case: Conv, dtype: Any, backend: str) -> None:
    x, weight, bias = case.arrays(dtype)
    grad = case.grad(dtype)
    out, gradients = _expected(case, dtype)
    assert_close(fastdl.conv2d(x, weight, bias, **case.options, backend=backend), out, dtype)
    found = fastdl.conv2d_backward(grad, x, weight, **case.options, backend=backend)
    assert_close(found, gradients, dtype)


@pytest.mark.parametrize("case", SMALL_CONV, ids=str)
def test_geometries(case: Conv, dtype: type, backend: str) -> None:
    _check(case, dtype, backend)


@pytest.mark.parametrize("case", LARGE_CONV, ids=str)
def test_sizes(case: Conv, dtype: type, fast_backend: str) -> None:
    _check(case, dtype, fast_backend)


def test_an_example_by_hand(backend: str) -> None:
    x = np.arange(9.0).reshape(1, 1, 3, 3)
    weight = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])
    out = fastdl.conv2d(x, weight, np.array([10.0]), backend=backend)
    np.testing.assert_array_equal(out, [[[[37.0, 47.0], [67.0, 77.0]]]])
    grad = np.array([[[[1.0, 0.0], [0.0, 2.0]]]])
    grad_x, grad_weight, grad_bias = fastdl.conv2d_backward(grad, x, weight, backend=backend)
    np.testing.assert_array_equal(grad_x, [[[[1, 2, 0], [3, 6, 4], [0, 6, 8]]]])
    np.testing.assert_array_equal(grad_weight, [[[[8, 11], [17, 20]]]])
    np.testing.assert_array_equal(grad_bias, [3])


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "out"), [(8, 3, 2, 4), (6, 2, 1, 7)], ids=["8x8", "6x6"]
)
def test_output_size(size: int, kernel: int, stride: int, out: int, backend: str) -> None:
    x, weight = normal((1, 1, size, size)), normal((1, 1, kernel, kernel))
    found = fastdl.conv2d(x, weight, stride=stride, padding=1, backend=backend)
    assert found.shape == (1, 1, out, out)


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh"])
@pytest.mark.parametrize("with_bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("case", [SMALL_CONV[1], SMALL_CONV[15], SMALL_CONV[17]], ids=str)
def test_fused_activation(
    case: Conv, with_bias: bool, activation: Any, dtype: type, backend: str
) -> None:
    x, weight, bias = case.arrays(dtype)
    args = (x, weight, bias if with_bias else None)
    out = fastdl.conv2d(*args, **case.options, activation=activation, backend=backend)
    separate = getattr(fastdl, activation)
    expected = truth(separate, truth(fastdl.conv2d, *args, **case.options))
    assert_close(out, expected, dtype)


@pytest.mark.parametrize(
    "case",
    [
        Conv((1, 64, 9, 9), (33, 64, 3, 3), padding=1),
        Conv((1, 17, 9, 21), (17, 1, 3, 3), padding=1, groups=17),
        Conv((2, 300, 3, 7), (19, 300, 1, 1)),
        Conv((1, 9, 9, 9), (18, 3, 5, 5), stride=2, padding=2, groups=3),
    ],
    ids=str,
)
@pytest.mark.parametrize("activation", [None, "relu", "tanh"])
def test_fused_activation_after_blocks(
    case: Conv, activation: Any, dtype: type, fast_backend: str
) -> None:
    """The bias goes in once, the activation comes last, however the reduction is cut."""
    args = case.arrays(dtype)
    options = {**case.options, "activation": activation, "backend": fast_backend}
    if case.groups == 1:
        options["algorithm"] = "direct"  # Winograd has bounds of its own, in test_winograd.py
    out = fastdl.conv2d(*args, **options)
    expected = truth(fastdl.conv2d, *args, **case.options, activation=activation)
    assert_close(out, expected, dtype)


@pytest.mark.parametrize(
    "needs", [(True, False, False), (False, True, False), (False, False, True)]
)
def test_only_the_needed_gradients(needs: tuple[bool, bool, bool], backend: str) -> None:
    case = SMALL_CONV[1]
    args = (case.grad(np.float32), *case.arrays(np.float32)[:2])
    every = fastdl.conv2d_backward(*args, backend=backend)
    some = fastdl.conv2d_backward(*args, needs=needs, backend=backend)
    for needed, found, expected in zip(needs, some, every, strict=True):
        assert (found is not None) == needed
        if needed:
            assert_same(found, expected)


@pytest.mark.parametrize(
    "case",
    [
        Conv((2, 2, 4, 5), (3, 2, 3, 2), padding=1),
        Conv((1, 4, 4, 4), (4, 2, 2, 2), stride=2, padding=((1, 0), (0, 2)), groups=2),
        Conv((1, 2, 5, 5), (2, 1, 2, 3), padding=1, dilation=2, groups=2),
    ],
    ids=str,
)
def test_finite_differences(case: Conv, backend: str) -> None:
    options = {**case.options, "backend": backend}
    assert_gradients(
        lambda x, weight, bias: fastdl.conv2d(x, weight, bias, **options),
        lambda grad, x, weight, bias: fastdl.conv2d_backward(grad, x, weight, **options),
        *case.arrays(np.float64),
    )


def test_empty_batch(dtype: type, backend: str) -> None:
    x, weight = np.empty((0, 3, 5, 6), dtype), normal((4, 3, 3, 3), dtype)
    out = fastdl.conv2d(x, weight, np.ones(4, dtype), padding=1, backend=backend)
    assert out.shape == (0, 4, 5, 6)
    grad_x, grad_weight, grad_bias = fastdl.conv2d_backward(
        out, x, weight, padding=1, backend=backend
    )
    assert grad_x.shape == x.shape
    np.testing.assert_array_equal(grad_weight, np.zeros_like(weight))
    np.testing.assert_array_equal(grad_bias, np.zeros(4, dtype))


def test_image_of_padding_only(dtype: type, backend: str) -> None:
    x, weight = np.empty((1, 2, 0, 3), dtype), normal((3, 2, 2, 2), dtype)
    bias = normal((3,), dtype)
    out = fastdl.conv2d(x, weight, bias, padding=1, backend=backend)
    np.testing.assert_array_equal(out, np.broadcast_to(bias[:, None, None], (1, 3, 1, 4)))
    grad_x, grad_weight, _ = fastdl.conv2d_backward(out, x, weight, padding=1, backend=backend)
    assert grad_x.shape == x.shape
    np.testing.assert_array_equal(grad_weight, np.zeros_like(weight))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(value: float, dtype: type, backend: str) -> None:
    """They reach every window that sees them, and no other."""
    x, weight = normal((2, 3, 6, 9), dtype), normal((5, 3, 3, 3), dtype)
    x[1, 2, 3, 4] = value
    out = fastdl.conv2d(x, weight, padding=1, backend=backend)
    seen = np.zeros(out.shape, bool)
    seen[1, :, 2:5, 3:6] = True
    np.testing.assert_array_equal(~np.isfinite(out), seen)
    if np.isinf(value):
        taps = weight[:, 2, ::-1, ::-1]
        np.testing.assert_array_equal(out[1, :, 2:5, 3:6], taps * dtype(value))


def test_nan_in_a_filter(dtype: type, backend: str) -> None:
    """It fills the planes of its filter, not its neighbours' in a register tile."""
    x, weight = normal((1, 3, 5, 7), dtype), normal((11, 3, 3, 3), dtype)
    weight[6, 1, 2, 0] = np.nan
    out = fastdl.conv2d(x, weight, backend=backend)
    assert np.isnan(out[:, 6]).all()
    assert np.isfinite(np.delete(out, 6, axis=1)).all()


@pytest.mark.parametrize("case", [SMALL_CONV[1], SMALL_CONV[16]], ids=str)
def test_same_bits_each_time(case: Conv, dtype: type, backend: str) -> None:
    args = case.arrays(dtype)
    grad = case.grad(dtype)
    first = fastdl.conv2d(*args, **case.options, backend=backend)
    first_gradients = fastdl.conv2d_backward(grad, *args[:2], **case.options, backend=backend)
    for _ in range(3):
        assert_same(fastdl.conv2d(*args, **case.options, backend=backend), first)
        again = fastdl.conv2d_backward(grad, *args[:2], **case.options, backend=backend)
        assert_same(again, first_gradients)


def test_inputs_stay_as_they_were(dtype: type, backend: str) -> None:
    case = SMALL_CONV[1]
    arrays = (*case.arrays(dtype), case.grad(dtype))
    copies = tuple(array.copy() for array in arrays)
    x, weight, bias, grad = arrays
    fastdl.conv2d(x, weight, bias, activation="relu", backend=backend)
    fastdl.conv2d_backward(grad, x, weight, backend=backend)
    assert_same(arrays, copies)


def test_out_is_filled_and_nothing_beyond_it(dtype: type, fast_backend: str) -> None:
    """Vector stores at the end of the last row stay inside."""
    x, weight, bias = NETWORK.arrays(dtype)
    expected = fastdl.conv2d(x, weight, bias, padding=1, backend=fast_backend)
    memory = np.full(expected.size + 128, 7, dtype)
    out = memory[64:-64].reshape(expected.shape)
    assert fastdl.conv2d(x, weight, bias, padding=1, out=out, backend=fast_backend) is out
    assert_same(out, expected)
    np.testing.assert_array_equal(memory[:64], 7)
    np.testing.assert_array_equal(memory[-64:], 7)
