"""Winograd beyond 3x3 and stride 1, of the compiled backend: kernels cut into parts, dilation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import assert_gradients, assert_same, normal, relative_error, truth

import fastdl
from fastdl.errors import ArgumentError

from .cases import Conv

#: Largest relative error: Winograd's bar in float32.
TOLERANCE = {np.float32: 1.5e-6, np.float64: 1e-12}

BACKENDS = [
    variant
    for variant in ("compiled", "compiled:baseline")
    if fastdl.available_backends()["compiled"] is None
]
pytestmark = pytest.mark.parametrize("backend", BACKENDS, indirect=True)


@pytest.fixture
def chosen(backend: str) -> dict[str, Any]:
    """The arguments that choose it."""
    return {"algorithm": "winograd", "backend": backend}


#: (kernel, stride, dilation): one of each way to be cut.
CUTS = [
    *((kernel, 1, 1) for kernel in (2, 4, 5, 6, 7, 8)),
    *((kernel, 2, 1) for kernel in range(3, 9)),
    (3, 1, 2), (3, 1, (3, 1)), (5, 1, 2), (7, 1, 3), (2, 1, 5),
]  # fmt: skip


def _conv(cut: Any, x: Any, filters: int, **options: Any) -> Conv:
    kernel, stride, dilation = cut
    weight = (filters, x[1] // options.get("groups", 1), kernel, kernel)
    return Conv(x, weight, stride=stride, dilation=dilation, **options)


def _padding(cut: Any) -> Any:
    """Padding that keeps the size at stride 1."""
    steps = np.broadcast_to(cut[2], 2) * (cut[0] - 1)
    return tuple((int(step) // 2, int(step) - int(step) // 2) for step in steps)


CASES = [
    *(_conv(cut, (2, 5, 15, 22), 18, padding=_padding(cut)) for cut in CUTS),
    *(_conv(cut, (1, 20, 20, 19), 12, groups=2) for cut in CUTS[1::2]),
    # Several blocks of tiles, chunks of channels and panels of filters.
    *(_conv(cut, (2, 67, 16, 19), 40, padding=2) for cut in ((5, 1, 1), (3, 2, 1), (3, 1, 2))),
    # Every remainder of a tile and of a run.
    *(_conv((3, 2, 1), (1, 3, size, 2 * size + 41), 4, padding=1) for size in range(9, 20)),
    *(_conv((7, 1, 1), (1, 3, size, size + 27), 4, padding=3) for size in range(4, 11)),
    # One image row, more dilation than image, padding beyond the kernel.
    _conv((3, 1, 4), (1, 8, 3, 9), 8, padding=4),
    *(_conv((5, 2, 1), (1, 8, 6, 7), 8, padding=padding) for padding in (0, 1, 5, 6)),
    _conv((3, 2, 1), (2, 8, 9, 8), 8, padding=((0, 1), (4, 0))),
]


def _within(out: np.ndarray, expected: np.ndarray) -> None:
    assert out.shape == expected.shape
    error = relative_error(out, expected)
    assert error <= TOLERANCE[out.dtype.type], f"relative error {error:.2e}"


def _check(case: Conv, dtype: type, chosen: dict[str, Any]) -> None:
    x, weight, bias = case.arrays(dtype)
    grad = case.grad(dtype)
    out = fastdl.conv2d(x, weight, bias, **case.options, **chosen)
    _within(out, truth(fastdl.conv2d, x, weight, bias, **case.options))
    plan = fastdl.Conv2dPlan(x.shape, weight, bias, **case.options, **chosen)
    # A plan's filters may be divided otherwise, but sums keep their order.
    assert_same(plan(x), out)
    found = fastdl.conv2d_backward(grad, x, weight, **case.options, **chosen)[:2]
    expected = truth(fastdl.conv2d_backward, grad, x, weight, **case.options)
    for one, other in zip(found, expected, strict=False):
        _within(one, other)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_sizes(case: Conv, chosen: dict[str, Any]) -> None:
    _check(case, np.float32, chosen)


@pytest.mark.parametrize("cut", [(5, 1, 1), (3, 2, 1), (3, 1, 2), (7, 2, 1)], ids=str)
def test_double_precision(cut: Any, chosen: dict[str, Any]) -> None:
    _check(_conv(cut, (2, 9, 15, 14), 10, padding=1), np.float64, chosen)


@settings(max_examples=12, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 12), st.integers(1, 24), st.integers(1, 24)),
    filters=st.integers(1, 12),
    kernel=st.integers(2, 8),
    stride=st.integers(1, 2),
    dilation=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    padding=st.tuples(*[st.tuples(st.integers(0, 9), st.integers(0, 9))] * 2),
)
def test_any_shape(
    shape: Any, filters: int, kernel: int, stride: int, dilation: Any, padding: Any, chosen: Any
) -> None:
    cut = (kernel, stride, dilation if stride == 1 else 1)
    case = _conv(cut, shape, filters, padding=padding)
    try:
        fastdl.explain(case.x, case.weight, **case.options, **chosen)
    except ArgumentError:  # the kernel is larger than the image, or not for this algorithm
        return
    _check(case, np.float32, chosen)


@pytest.mark.parametrize("cut", [(5, 1, 1), (3, 2, 1), (3, 1, 2)], ids=str)
def test_gradients(cut: Any, chosen: dict[str, Any]) -> None:
    case = _conv(cut, (1, 2, 8, 7), 3, padding=1)
    x, weight, _ = case.arrays(np.float64)

    def function(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return fastdl.conv2d(x, weight, **case.options, **chosen)

    def backward(grad: np.ndarray, x: np.ndarray, weight: np.ndarray) -> tuple[Any, Any]:
        grad_x, grad_weight, _ = fastdl.conv2d_backward(grad, x, weight, **case.options, **chosen)
        return grad_x, grad_weight

    assert_gradients(function, backward, x, weight)


@pytest.mark.parametrize("place", ["x", "weight", "grad"])
@pytest.mark.parametrize("cut", [(5, 1, 1), (3, 2, 1), (3, 1, 2)], ids=str)
def test_what_is_not_finite_stays_where_it_belongs(
    cut: Any, place: str, chosen: dict[str, Any]
) -> None:
    case = _conv(cut, (2, 4, 9, 11), 5, padding=1)
    x, weight, _ = case.arrays(np.float32)
    arrays = {"grad": case.grad(np.float32), "x": x, "weight": weight}
    size = arrays[place].shape[3]
    # Every column once: each is another element of a tile, of another part.
    for column in range(size):
        answers = {}
        spoiled = {name: array.copy() for name, array in arrays.items()}
        row = column % spoiled[place].shape[2]
        spoiled[place][1, 3, row, column] = (np.inf, np.nan)[column % 2]
        with np.errstate(all="ignore"):
            for algorithm in ("winograd", "direct"):
                options = {**chosen, **case.options, "algorithm": algorithm}
                out = fastdl.conv2d(spoiled["x"], spoiled["weight"], **options)
                gradients = fastdl.conv2d_backward(*spoiled.values(), **options)[:2]
                answers[algorithm] = (out, *gradients)
        for found, expected in zip(answers["winograd"], answers["direct"], strict=True):
            np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
            np.testing.assert_array_equal(np.isinf(found), np.isinf(expected))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("cut", [(5, 1, 1), (3, 2, 1), (3, 1, 2)], ids=str)
def test_the_same_bits_on_any_number_of_threads(cut: Any, chosen: dict[str, Any]) -> None:
    case = _conv(cut, (2, 40, 21, 23), 40, padding=2)
    x, weight, bias = case.arrays(np.float32)
    grad = case.grad(np.float32)
    answers = []
    for threads in (1, 2, 3, 5):
        fastdl.set_num_threads(threads)
        out = fastdl.conv2d(x, weight, bias, **case.options, **chosen)
        gradients = fastdl.conv2d_backward(grad, x, weight, **case.options, **chosen)
        answers.append((out, *gradients))
    for other in answers[1:]:
        assert_same(other, answers[0])


@pytest.mark.parametrize(
    ("kernel", "options"),
    [(3, {"stride": 3}), (3, {"stride": (2, 1)}), (3, {"stride": 2, "dilation": 2}), (9, {})],
)
def test_what_it_does_not_serve(kernel: int, options: Any, chosen: dict[str, Any]) -> None:
    weight = normal((8, 8, kernel, kernel), np.float32)
    with pytest.raises(fastdl.ArgumentError, match=r"^algorithm "):
        fastdl.conv2d(normal((1, 8, 20, 20), np.float32), weight, **options, **chosen)
