"""Any memory layout of the same array gives the same result, on every backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import assert_close as assert_within
from support import assert_order, channels_last, normal, truth

import fastdl


def _as_is(array: np.ndarray) -> np.ndarray:
    return array


def _transposed(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array.T).T


def _sliced(array: np.ndarray) -> np.ndarray:
    """Every other element, with a margin, of memory that holds nonsense elsewhere."""
    elsewhere = np.nan if array.dtype.kind == "f" else -1
    memory = np.full([2 * size + 3 for size in array.shape], elsewhere, array.dtype)
    view = memory[tuple(slice(2, 2 * size + 2, 2) for size in array.shape)]
    view[...] = array
    return view


def _reversed(array: np.ndarray) -> np.ndarray:
    backwards = (slice(None, None, -1),) * array.ndim
    return array[backwards].copy()[backwards]


def _read_only(array: np.ndarray) -> np.ndarray:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def _misaligned(array: np.ndarray) -> np.ndarray:
    """Four bytes from where NumPy puts it: float64 is then not aligned at all."""
    memory = np.empty(array.nbytes + 12, np.uint8)
    view = memory[4 : 4 + array.nbytes].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def _off_by_a_byte(array: np.ndarray) -> np.ndarray:
    memory = np.empty(array.nbytes + 8, np.uint8)
    view = memory[1 : 1 + array.nbytes].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def _broadcast(array: np.ndarray) -> np.ndarray:
    """All images alike, with a stride of zero between them."""
    return np.broadcast_to(array[:1], array.shape)


LAYOUTS = [
    _as_is,
    _transposed,
    channels_last,
    _sliced,
    _reversed,
    _read_only,
    _misaligned,
    _off_by_a_byte,
    _broadcast,
]
VECTOR_LAYOUTS = [_as_is, _sliced, _reversed, _read_only, _misaligned, _off_by_a_byte]


def assert_close(out: Any, expected: Any, dtype: Any) -> None:
    """A wrong element is off by far more; a sum of few terms may nearly cancel."""
    assert_within(out, expected, dtype, slack=10)


layouts = st.sampled_from(LAYOUTS)
vector_layouts = st.sampled_from(VECTOR_LAYOUTS)
dtypes = st.sampled_from([np.float32, np.float64])
pairs = {size: st.tuples(st.integers(1, size), st.integers(1, size)) for size in (2, 3, 4)}


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]:
    """Shapes of x and weight that fit each other, and the options."""
    groups = draw(st.integers(1, 3))
    channels, filters = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    kernel, stride, dilation = draw(pairs[3]), draw(pairs[3]), draw(pairs[2])
    sides = st.tuples(st.integers(0, 2), st.integers(0, 2))
    padding = draw(sides), draw(sides)
    size = [
        max(1, dilation[axis] * (kernel[axis] - 1) + 1 - sum(padding[axis]))
        + draw(st.integers(0, 3))
        for axis in (0, 1)
    ]
    x = (draw(st.integers(0, 2)), groups * channels, *size)
    weight = (groups * filters, channels, *kernel)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return x, weight, options


@st.composite
def images(draw: st.DrawFn) -> tuple[int, ...]:
    sizes = st.integers(2, 7)
    return draw(st.integers(0, 2)), draw(st.integers(1, 4)), draw(sizes), draw(sizes)


@given(convolutions(), dtypes, layouts, layouts, vector_layouts)
def test_conv(
    backend: str, case: Any, dtype: Any, x_layout: Any, weight_layout: Any, bias_layout: Any
) -> None:
    x_shape, weight_shape, options = case
    x = x_layout(normal(x_shape, dtype, 1))
    weight = weight_layout(normal(weight_shape, dtype, 2))
    bias = bias_layout(normal(weight_shape[:1], dtype, 3))
    out = fastdl.conv2d(x, weight, bias, **options, backend=backend)
    assert_close(out, truth(fastdl.conv2d, x, weight, bias, **options), dtype)
    assert_order(out, x)


@given(convolutions(), dtypes, layouts, layouts, layouts)
def test_conv_backward(
    backend: str, case: Any, dtype: Any, x_layout: Any, weight_layout: Any, grad_layout: Any
) -> None:
    x_shape, weight_shape, options = case
    x = x_layout(normal(x_shape, dtype, 1))
    weight = weight_layout(normal(weight_shape, dtype, 2))
    out = fastdl.conv2d(x, weight, **options, backend="reference")
    grad = grad_layout(normal(out.shape, dtype, 3))
    found = fastdl.conv2d_backward(grad, x, weight, **options, backend=backend)
    assert_close(found, truth(fastdl.conv2d_backward, grad, x, weight, **options), dtype)
    assert_order(found[0], x)


@given(convolutions(), dtypes, layouts, st.sampled_from([_as_is, _transposed, _sliced, _reversed]))
def test_columns(backend: str, case: Any, dtype: Any, layout: Any, col_layout: Any) -> None:
    x_shape, (_, _, *kernel), options = case
    x = layout(normal(x_shape, dtype, 1))
    window = (tuple(kernel), options["dilation"], options["padding"], options["stride"])
    col = fastdl.im2col(x, *window, backend=backend)
    assert_close(col, truth(fastdl.im2col, x, *window), dtype)
    col = col_layout(normal(col.shape, dtype, 2))
    image = fastdl.col2im(col, x_shape[2:], *window, backend=backend)
    assert_close(image, truth(fastdl.col2im, col, x_shape[2:], *window), dtype)


@given(images(), pairs[2], pairs[3], st.booleans(), dtypes, layouts, layouts)
def test_pools(
    backend: str,
    shape: tuple[int, ...],
    kernel: Any,
    stride: Any,
    ceil_mode: bool,
    dtype: Any,
    layout: Any,
    grad_layout: Any,
) -> None:
    x = layout(normal(shape, dtype, 1))
    options = {"kernel_size": kernel, "stride": stride, "ceil_mode": ceil_mode}
    found = fastdl.max_pool2d(x, **options, return_indices=True, backend=backend)
    value, indices = truth(fastdl.max_pool2d, x, **options, return_indices=True)
    np.testing.assert_array_equal(found[0], value)
    np.testing.assert_array_equal(found[1], indices)
    assert_order(found[0], x)
    assert_order(found[1], x)
    grad = grad_layout(normal(value.shape, dtype, 2))
    indices = grad_layout(indices)
    image = fastdl.max_pool2d_backward(grad, indices, shape, backend=backend)
    assert_close(image, truth(fastdl.max_pool2d_backward, grad, indices, shape), dtype)
    assert_order(image, grad)

    average = fastdl.avg_pool2d(x, **options, backend=backend)
    assert_close(average, truth(fastdl.avg_pool2d, x, **options), dtype)
    assert_order(average, x)
    image = fastdl.avg_pool2d_backward(grad, shape, **options, backend=backend)
    assert_close(image, truth(fastdl.avg_pool2d_backward, grad, shape, **options), dtype)
    assert_order(image, grad)


@given(images(), pairs[4], dtypes, layouts, layouts)
def test_adaptive_pool(
    backend: str, shape: Any, size: Any, dtype: Any, layout: Any, grad_layout: Any
) -> None:
    x = layout(normal(shape, dtype, 1))
    out = fastdl.adaptive_avg_pool2d(x, size, backend=backend)
    assert_close(out, truth(fastdl.adaptive_avg_pool2d, x, size), dtype)
    assert_order(out, x)
    grad = grad_layout(normal(out.shape, dtype, 2))
    image = fastdl.adaptive_avg_pool2d_backward(grad, shape, backend=backend)
    assert_close(image, truth(fastdl.adaptive_avg_pool2d_backward, grad, shape), dtype)
    assert_order(image, grad)


@given(images(), st.booleans(), dtypes, layouts, layouts, vector_layouts)
def test_batch_norm(
    backend: str,
    shape: Any,
    training: bool,
    dtype: Any,
    layout: Any,
    grad_layout: Any,
    vector_layout: Any,
) -> None:
    channels = shape[1:2]
    x = layout(normal(shape, dtype, 1) + 1)
    weight, bias, mean = (vector_layout(normal(channels, dtype, seed)) for seed in (2, 3, 4))
    var = vector_layout(normal(channels, dtype, 5) ** 2 + 1)
    if training:  # they must be writable
        mean, var = mean.copy(), var.copy()
    args = (x, mean, var, weight, bias, training)
    expected = truth(fastdl.batch_norm, *args)
    out = fastdl.batch_norm(*args, backend=backend)
    assert_close(out, expected, dtype)
    assert_order(out, x)
    grad = grad_layout(normal(shape, dtype, 6))
    args = (grad, x, mean, var, weight, training)
    y = grad_layout(normal(shape, dtype, 7))
    expected = truth(fastdl.batch_norm_backward, *args, y=y)
    found = fastdl.batch_norm_backward(*args, y=y, backend=backend)
    assert_close(found, expected, dtype)
    assert_order(found[0], grad)


@pytest.mark.parametrize("name", ["relu", "sigmoid", "tanh", "softmax", "log_softmax"])
@given(images(), dtypes, layouts, layouts)
def test_elementwise(
    backend: str, name: str, shape: Any, dtype: Any, layout: Any, grad_layout: Any
) -> None:
    forward, backward = getattr(fastdl, name), getattr(fastdl, f"{name}_backward")
    x, grad = layout(normal(shape, dtype, 1)), grad_layout(normal(shape, dtype, 2))
    out, spread = forward(x, backend=backend), backward(grad, x, backend=backend)
    assert_close(out, truth(forward, x), dtype)
    assert_close(spread, truth(backward, grad, x), dtype)
    if "softmax" not in name:
        assert_order(out, x)
        assert_order(spread, grad)


@given(images(), dtypes, layouts, layouts)
def test_linear_and_dropout(
    backend: str, shape: Any, dtype: Any, layout: Any, weight_layout: Any
) -> None:
    x = layout(normal(shape, dtype, 1))
    weight = weight_layout(normal((3, shape[-1]), dtype, 2))
    assert_close(fastdl.linear(x, weight, backend=backend), truth(fastdl.linear, x, weight), dtype)
    out, mask = fastdl.dropout(x, 0.4, rng=1, return_mask=True, backend=backend)
    expected = np.where(mask, x.astype(np.float64) / 0.6, 0)
    assert_close(out, expected, dtype)
    assert_order(out, x)
    mask = layout(mask)
    found = fastdl.dropout_backward(x, mask, 0.4, backend=backend)
    assert_close(found, np.where(mask, x.astype(np.float64) / 0.6, 0), dtype)


@given(convolutions(), dtypes, st.sampled_from([_transposed, channels_last, _sliced, _reversed]))
def test_out_of_any_layout(backend: str, case: Any, dtype: Any, layout: Any) -> None:
    x_shape, weight_shape, options = case
    x, weight = normal(x_shape, dtype, 1), normal(weight_shape, dtype, 2)
    expected = fastdl.conv2d(x, weight, **options, backend=backend)
    out = layout(np.zeros_like(expected))
    assert fastdl.conv2d(x, weight, **options, out=out, backend=backend) is out
    np.testing.assert_array_equal(out, expected)
