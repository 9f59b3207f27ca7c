"""The Winograd algorithm of the backends that have it, forward and both gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import assert_gradients, assert_same, normal, relative_error, truth

import fastdl

from .cases import Conv

#: Largest relative error: Winograd's bar in float32.
TOLERANCE = {np.float32: 1.5e-6, np.float64: 1e-12}

#: The backends that have it, where they work; the compiled one also at its lowest instruction set.
BACKENDS = [
    variant
    for variant in ("compiled", "compiled:baseline", "jit")
    if fastdl.available_backends()[variant.partition(":")[0]] is None
]
pytestmark = pytest.mark.parametrize("backend", BACKENDS, indirect=True)


@pytest.fixture
def chosen(backend: str) -> dict[str, Any]:
    """The arguments that choose it."""
    return {"algorithm": "winograd", "backend": backend}


def _square(
    batch: int, channels: int, height: int, width: int, filters: int, **options: Any
) -> Conv:
    weight = (filters, channels // options.get("groups", 1), 3, 3)
    return Conv((batch, channels, height, width), weight, **{"padding": 1, **options})


CASES = [
    # Tiles: every remainder of a tile, of a register tile and of a run of tiles.
    *(_square(1, 9, size, size + 1, 7) for size in (1, 2, 3, 4, 5, 6, 7, 8, 9)),
    *(_square(1, 3, 4, 4 * tiles, 5) for tiles in range(1, 18)),
    *(_square(1, 8, 13, width, 16) for width in (27, 31, 32, 33, 36, 55, 66)),
    # Channels and filters: every remainder of a vector, a panel and a block.
    *(
        _square(1, channels, 6, 7, 17)
        for channels in (*range(1, 18), 24, 33, 100, 127, 128, 129, 300)
    ),
    *(_square(2, 17, 5, 6, filters) for filters in (*range(1, 34), 48, 65, 100, 129)),
    # Blocks of tiles and parts of the filters, transformed filters in a task's memory and shared.
    _square(8, 64, 28, 28, 64),
    _square(3, 130, 40, 21, 70),
    _square(1, 256, 14, 14, 260),
    _square(40, 16, 30, 30, 16),
    _square(1, 300, 3, 3, 300),
    # Padding, also beyond the filter, and groups.
    *(_square(2, 5, 8, 9, 6, padding=padding) for padding in (0, 2, 3, ((0, 1), (2, 0)))),
    _square(2, 20, 9, 10, 36, groups=2),
    _square(1, 12, 7, 7, 12, groups=4),
]


def _within(out: np.ndarray, expected: np.ndarray) -> None:
    assert out.shape == expected.shape
    error = relative_error(out, expected)
    assert error <= TOLERANCE[out.dtype.type], f"relative error {error:.2e}"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_sizes(case: Conv, dtype: type, chosen: dict[str, Any]) -> None:
    x, weight, bias = case.arrays(dtype)
    grad = case.grad(dtype)
    out = fastdl.conv2d(x, weight, bias, **case.options, **chosen)
    grad_x, grad_weight, _ = fastdl.conv2d_backward(grad, x, weight, **case.options, **chosen)
    _within(out, truth(fastdl.conv2d, x, weight, bias, **case.options))
    gradients = truth(fastdl.conv2d_backward, grad, x, weight, **case.options)
    _within(grad_x, gradients[0])
    _within(grad_weight, gradients[1])


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 20), st.integers(1, 40)),
    filters=st.integers(1, 40),
    padding=st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * 2),
    activation=st.sampled_from([None, "relu", "sigmoid", "tanh"]),
)
def test_any_shape(
    shape: Any, filters: int, padding: Any, activation: Any, chosen: dict[str, Any]
) -> None:
    batch, channels, height, width = shape
    (top, bottom), (left, right) = padding
    if height + top + bottom < 3 or width + left + right < 3:
        return
    case = _square(batch, channels, height, width, filters, padding=padding)
    x, weight, bias = case.arrays(np.float32)
    options = {**case.options, "activation": activation}
    out = fastdl.conv2d(x, weight, bias, **options, **chosen)
    # No activation is steeper than 1, so that the sum's error is the most that it leaves. It is
    # measured against the usual size of a sum of normal numbers: a few may all be near 0.
    error = np.linalg.norm(out - truth(fastdl.conv2d, x, weight, bias, **options))
    assert error <= TOLERANCE[np.float32] * np.sqrt(out.size * (weight[0].size + 1))


def test_gradients(chosen: dict[str, Any]) -> None:
    x, weight = normal((2, 3, 6, 7)), normal((4, 3, 3, 3))

    def function(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return fastdl.conv2d(x, weight, padding=1, **chosen)

    def backward(grad: np.ndarray, x: np.ndarray, weight: np.ndarray) -> tuple[Any, Any]:
        grad_x, grad_weight, _ = fastdl.conv2d_backward(grad, x, weight, padding=1, **chosen)
        return grad_x, grad_weight

    assert_gradients(function, backward, x, weight)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("place", ["x", "weight", "grad"])
def test_what_is_not_finite_stays_where_it_belongs(
    value: float, place: str, chosen: dict[str, Any]
) -> None:
    """A whole tile would be NaN; the direct algorithm's answer is given."""
    arrays = {
        "grad": normal((2, 16, 12, 13), np.float32, 4),
        "x": normal((2, 8, 12, 13), np.float32, 1),
        "weight": normal((16, 8, 3, 3), np.float32, 2),
    }
    arrays[place][1, 3, 1, 2] = value
    answers = {}
    with np.errstate(all="ignore"):
        for algorithm in ("winograd", "direct"):
            options = {**chosen, "padding": 1, "algorithm": algorithm}
            out = fastdl.conv2d(arrays["x"], arrays["weight"], **options)
            answers[algorithm] = (out, *fastdl.conv2d_backward(*arrays.values(), **options)[:2])
    for found, expected in zip(answers["winograd"], answers["direct"], strict=True):
        np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
        np.testing.assert_array_equal(np.isinf(found), np.isinf(expected))
    # The test would show nothing if all were finite.
    if place != "grad" and value != 3e38:
        assert not np.isfinite(answers["direct"][0]).all()
        assert np.isfinite(answers["direct"][0]).any()


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    "case",
    [_square(1, 64, 14, 14, 100), _square(9, 24, 33, 17, 40), _square(1, 200, 7, 7, 200)],
    ids=str,
)
def test_the_same_bits_on_any_number_of_threads(case: Conv, chosen: dict[str, Any]) -> None:
    x, weight, bias = case.arrays(np.float32)
    grad = case.grad(np.float32)
    answers = []
    for threads in (1, 2, 3, 5):
        fastdl.set_num_threads(threads)
        out = fastdl.conv2d(x, weight, bias, padding=1, **chosen)
        answers.append((out, *fastdl.conv2d_backward(grad, x, weight, padding=1, **chosen)))
    for other in answers[1:]:
        assert_same(other, answers[0])


def test_it_is_the_choice_for_large_3x3_layers_only(backend: str) -> None:
    def choice(x: Any, weight: Any, **options: Any) -> str:
        return fastdl.explain(x, weight, backend=backend, **options).algorithm

    assert choice((1, 64, 56, 56), (64, 64, 3, 3), padding=1) == "winograd"
    assert choice((1, 64, 56, 56), (64, 64, 3, 3), padding=1, dtype=np.float64) == "direct"
    assert choice((1, 64, 56, 56), (64, 64, 3, 3), padding=1, stride=3) == "direct"
    assert choice((1, 3, 56, 56), (64, 3, 3, 3), padding=1) == "direct"
    assert choice((1, 64, 2, 2), (64, 64, 3, 3), padding=1) == "direct"
    depthwise = "depthwise" if backend == "compiled" else "direct"
    assert choice((1, 64, 56, 56), (64, 1, 3, 3), padding=1, groups=64) == depthwise
