"""Transposed convolution and its gradients, on every backend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from support import assert_close, assert_gradients, normal, truth

import fastdl


@dataclass(frozen=True)
class Transpose:
    """A transposed convolution of x (N, C, H, W) with weight (C, O / groups, KH, KW)."""

    x: tuple[int, int, int, int]
    weight: tuple[int, int, int, int]
    stride: Any = 1
    padding: Any = 0
    output_padding: Any = 0
    groups: int = 1
    dilation: Any = 1

    @property
    def options(self) -> dict[str, Any]:
        return {
            "stride": self.stride,
            "padding": self.padding,
            "output_padding": self.output_padding,
            "groups": self.groups,
            "dilation": self.dilation,
        }

    def arrays(self, dtype: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x, weight and bias."""
        bias = (self.weight[1] * self.groups,)
        return normal(self.x, dtype, 1), normal(self.weight, dtype, 2), normal(bias, dtype, 3)


SMALL = [
    Transpose((1, 1, 2, 2), (1, 1, 2, 2)),
    Transpose((2, 3, 4, 5), (3, 2, 3, 3), stride=2, padding=1, output_padding=1),
    Transpose((1, 2, 4, 3), (2, 3, 2, 4), stride=(1, 2), padding=(0, 1)),
    Transpose((1, 4, 3, 3), (4, 2, 3, 3), stride=3, output_padding=(2, 0), groups=2),
    Transpose((1, 2, 4, 4), (2, 2, 3, 2), padding=(2, 1), dilation=(2, 3)),
    Transpose((1, 3, 4, 4), (3, 1, 3, 3), stride=2, padding=1, groups=3),
    Transpose((1, 2, 2, 3), (2, 2, 1, 1), stride=3),
]
LARGE = [
    *(Transpose((1, 5, 3, width), (5, 4, 3, 3), 2, 1, 1) for width in range(1, 40, 2)),
    *(Transpose((1, c, 4, 5), (c, o, 3, 3), 1, 1) for c in (8, 17, 65) for o in (1, 8, 17, 65)),
    Transpose((2, 32, 7, 9), (32, 16, 4, 4), stride=2, padding=1),
    Transpose((2, 32, 7, 9), (32, 4, 3, 3), stride=2, groups=8),
]


def _check(case: Transpose, dtype: Any, backend: str) -> None:
    x, weight, bias = case.arrays(dtype)
    out = fastdl.conv_transpose2d(x, weight, bias, **case.options, backend=backend)
    assert_close(out, truth(fastdl.conv_transpose2d, x, weight, bias, **case.options), dtype)
    grad = normal(out.shape, dtype, 4)
    found = fastdl.conv_transpose2d_backward(grad, x, weight, **case.options, backend=backend)
    expected = truth(fastdl.conv_transpose2d_backward, grad, x, weight, **case.options)
    assert_close(found, expected, dtype)


@pytest.mark.parametrize("case", SMALL, ids=repr)
def test_geometries(case: Transpose, dtype: type, backend: str) -> None:
    _check(case, dtype, backend)


@pytest.mark.parametrize("case", LARGE, ids=repr)
def test_sizes(case: Transpose, dtype: type, fast_backend: str) -> None:
    _check(case, dtype, fast_backend)


def test_an_example_by_hand(backend: str) -> None:
    x = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])
    weight = np.array([[[[1.0, 10.0], [100.0, 1000.0]]]])
    out = fastdl.conv_transpose2d(x, weight, np.array([0.5]), backend=backend)
    expected = [[1, 12, 20], [103, 1234, 2040], [300, 3400, 4000]]
    np.testing.assert_array_equal(out[0, 0], np.array(expected) + 0.5)


def test_it_is_the_input_gradient_of_a_convolution(dtype: type, backend: str) -> None:
    x, weight = normal((2, 4, 5, 6), dtype, 1), normal((4, 3, 3, 3), dtype, 2)
    image = np.empty((2, 3, 10, 12), dtype)
    out = fastdl.conv_transpose2d(x, weight, stride=2, padding=1, output_padding=1, backend=backend)
    gradients = fastdl.conv2d_backward(x, image, weight, 2, 1, backend="reference")
    assert_close(out, gradients[0].astype(np.float64), dtype, slack=2)


@pytest.mark.parametrize("case", [SMALL[1], SMALL[3], SMALL[4]], ids=repr)
def test_finite_differences(case: Transpose, backend: str) -> None:
    options = {**case.options, "backend": backend}
    x, weight, bias = case.arrays(np.float64)
    assert_gradients(
        lambda x, weight, bias: fastdl.conv_transpose2d(x, weight, bias, **options),
        lambda grad, x, weight, bias: fastdl.conv_transpose2d_backward(grad, x, weight, **options),
        x[:1],
        weight,
        bias,
    )


def test_empty_batch(dtype: type, backend: str) -> None:
    x, weight = np.empty((0, 3, 4, 4), dtype), normal((3, 2, 3, 3), dtype)
    out = fastdl.conv_transpose2d(x, weight, stride=2, backend=backend)
    assert out.shape == (0, 2, 9, 9)
    grad_x, grad_weight, _ = fastdl.conv_transpose2d_backward(
        out, x, weight, stride=2, backend=backend
    )
    assert grad_x.shape == x.shape
    np.testing.assert_array_equal(grad_weight, np.zeros_like(weight))
