"""The same numbers as PyTorch, for every combination of arguments that both take."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from support import normal, relative_error

import fastdl

torch = pytest.importorskip("torch")
F = torch.nn.functional

pytestmark = pytest.mark.peer

Options = dict[str, Any]


def _tensor(array: np.ndarray) -> Any:
    return torch.from_numpy(array.copy()).requires_grad_(array.dtype.kind == "f")


def _assert_close(found: Any, expected: Any) -> None:
    """Tensors and arrays of float64, equal but for rounding."""
    expected = expected.detach().numpy()
    assert found.shape == expected.shape
    assert relative_error(found, expected) <= 1e-12


def _gradients(result: Any, grad: np.ndarray, *tensors: Any) -> tuple[Any, ...]:
    result.backward(torch.from_numpy(grad))
    return tuple(tensor.grad for tensor in tensors)


def _combinations(**choices: list[Any]) -> list[Options]:
    return [dict(zip(choices, values, strict=True)) for values in product(*choices.values())]


def _compare(
    forward: Any, backward: Any, peer: Any, arrays: tuple[np.ndarray, ...], options: Options
) -> None:
    """Compare ``forward`` with ``peer``, and ``backward(grad)`` with PyTorch's gradients."""
    tensors = tuple(map(_tensor, arrays))
    expected = peer(*tensors, **options)
    found = forward(*arrays, **options)
    _assert_close(found, expected)
    grad = normal(found.shape, seed=9)
    gradients = backward(grad)
    if not isinstance(gradients, tuple):
        gradients = (gradients,)
    for mine, theirs in zip(gradients, _gradients(expected, grad, *tensors), strict=True):
        _assert_close(mine, theirs)


CONV = [
    options
    for options in _combinations(
        stride=[1, 2, (1, 3)],
        padding=[0, 2, (1, 0), "same", "valid"],
        dilation=[1, 2, (2, 1)],
        groups=[1, 2, 4],
    )
    if options["padding"] != "same" or options["stride"] == 1
]


@pytest.mark.parametrize("kernel", [(3, 3), (1, 1), (2, 4)], ids=str)
@pytest.mark.parametrize("options", CONV, ids=str)
def test_conv2d(options: Options, kernel: tuple[int, int], fast_backend: str) -> None:
    x, bias = normal((2, 4, 9, 11), seed=1), normal((8,), seed=3)
    weight = normal((8, 4 // options["groups"], *kernel), seed=2)
    with fastdl.use_backend(fast_backend):
        _compare(
            fastdl.conv2d,
            lambda grad: fastdl.conv2d_backward(grad, x, weight, **options),
            F.conv2d,
            (x, weight, bias),
            options,
        )


TRANSPOSE = _combinations(
    stride=[2, 3, (3, 2)],
    padding=[0, 1, (1, 2)],
    output_padding=[0, 1, (0, 1)],
    groups=[1, 2],
    dilation=[1, 2, (1, 2)],
)


@pytest.mark.parametrize("options", TRANSPOSE, ids=str)
def test_conv_transpose2d(options: Options, fast_backend: str) -> None:
    x, weight = normal((2, 4, 4, 5), seed=1), normal((4, 3, 3, 4), seed=2)
    bias = normal((3 * options["groups"],), seed=3)
    with fastdl.use_backend(fast_backend):
        _compare(
            fastdl.conv_transpose2d,
            lambda grad: fastdl.conv_transpose2d_backward(grad, x, weight, **options),
            F.conv_transpose2d,
            (x, weight, bias),
            options,
        )


WINDOWS = _combinations(
    kernel_size=[2, (3, 2)], dilation=[1, (2, 1)], padding=[0, (1, 2)], stride=[1, (2, 3)]
)


@pytest.mark.parametrize("options", WINDOWS, ids=str)
def test_im2col_and_col2im(options: Options, fast_backend: str) -> None:
    x = normal((2, 3, 7, 8))
    with fastdl.use_backend(fast_backend):
        _compare(
            fastdl.im2col,
            lambda grad: fastdl.col2im(grad, (7, 8), **options),
            F.unfold,
            (x,),
            options,
        )
        columns = fastdl.im2col(x, **options)
        _compare(
            lambda col, **options: fastdl.col2im(col, (7, 8), **options),
            lambda grad: fastdl.im2col(grad, **options),
            lambda col, **options: F.fold(col, (7, 8), **options),
            (columns,),
            options,
        )


MAX_POOL = _combinations(
    kernel_size=[2, 3, (3, 2)],
    stride=[None, 1, (2, 3)],
    padding=[0, 1],
    dilation=[1, 2, (1, 2)],
    ceil_mode=[False, True],
)


@pytest.mark.parametrize("kind", ["normal", "ties", "not finite"])
@pytest.mark.parametrize("options", MAX_POOL, ids=str)
def test_max_pool2d(options: Options, kind: str, fast_backend: str) -> None:
    shape = (2, 3, 9, 10)
    rng = np.random.default_rng(0)
    x = {
        "normal": normal(shape),
        "ties": rng.integers(0, 3, shape).astype(np.float64),
        "not finite": rng.choice([np.nan, np.inf, -np.inf, 0.0, 1.0], shape),
    }[kind]
    tensor = _tensor(x)
    expected, positions = F.max_pool2d(tensor, **options, return_indices=True)
    with fastdl.use_backend(fast_backend):
        value, indices = fastdl.max_pool2d(x, **options, return_indices=True)
        np.testing.assert_array_equal(value, expected.detach().numpy())
        np.testing.assert_array_equal(indices, positions.numpy())
        grad = normal(value.shape, seed=1)
        found = fastdl.max_pool2d_backward(grad, indices, shape)
    _assert_close(found, _gradients(expected, grad, tensor)[0])


AVG_POOL = _combinations(
    kernel_size=[2, 3, (3, 2)],
    stride=[None, 1, (2, 3)],
    padding=[0, 1],
    ceil_mode=[False, True],
    count_include_pad=[False, True],
    divisor_override=[None, 5],
)


@pytest.mark.parametrize("options", AVG_POOL, ids=str)
def test_avg_pool2d(options: Options, fast_backend: str) -> None:
    x = normal((2, 3, 8, 9))
    with fastdl.use_backend(fast_backend):
        _compare(
            fastdl.avg_pool2d,
            lambda grad: fastdl.avg_pool2d_backward(grad, x.shape, **options),
            F.avg_pool2d,
            (x,),
            options,
        )


@pytest.mark.parametrize("size", [1, 3, (2, 5), (9, 11), (12, 13), (None, 4), (3, None)], ids=str)
def test_adaptive_avg_pool2d(size: Any, fast_backend: str) -> None:
    x = normal((2, 3, 9, 11))
    with fastdl.use_backend(fast_backend):
        _compare(
            fastdl.adaptive_avg_pool2d,
            lambda grad: fastdl.adaptive_avg_pool2d_backward(grad, x.shape),
            F.adaptive_avg_pool2d,
            (x,),
            {"output_size": size},
        )


BATCH_NORM = _combinations(
    shape=[(6, 3), (4, 3, 5), (2, 3, 4, 5)],
    training=[False, True],
    affine=[False, True],
    running=[False, True],
    momentum=[0.1, 0.7, 1.0],
    eps=[1e-5, 0.1],
)


@pytest.mark.parametrize(
    "case", [case for case in BATCH_NORM if case["running"] or case["training"]], ids=str
)
def test_batch_norm(case: Options, fast_backend: str) -> None:
    training = case["training"]
    options = {name: case[name] for name in ("training", "momentum", "eps")}
    x = 2 * normal(case["shape"], seed=1) + 1
    weight, bias = normal((3,), seed=2), normal((3,), seed=3)
    statistics = (normal((3,), seed=4), normal((3,), seed=5) ** 2 + 0.5)
    affine = (weight, bias) if case["affine"] else (None, None)
    mine = tuple(array.copy() for array in statistics) if case["running"] else (None, None)
    theirs = tuple(map(torch.from_numpy, statistics)) if case["running"] else (None, None)
    tensors = tuple(None if array is None else _tensor(array) for array in (x, *affine))
    expected = F.batch_norm(tensors[0], *theirs, *tensors[1:], **options)
    with fastdl.use_backend(fast_backend):
        found, mean, inv_std = fastdl.batch_norm(x, *mine, *affine, **options, return_stats=True)
        _assert_close(found, expected)
        for running, peer in zip(mine, theirs, strict=True):
            if running is not None:
                _assert_close(running, peer)
        grad = normal(x.shape, seed=6)
        gradients = fastdl.batch_norm_backward(grad, x, mean, inv_std, affine[0], training)
    needed = tensors if case["affine"] else tensors[:1]
    for gradient, peer in zip(gradients, _gradients(expected, grad, *needed), strict=False):
        _assert_close(gradient, peer)


@pytest.mark.parametrize("shape", [(4, 5), (2, 3, 5), (5,)], ids=str)
def test_linear(shape: tuple[int, ...], fast_backend: str) -> None:
    x, weight, bias = normal(shape, seed=1), normal((3, 5), seed=2), normal((3,), seed=3)
    with fastdl.use_backend(fast_backend):
        _compare(
            fastdl.linear,
            lambda grad: fastdl.linear_backward(grad, x, weight),
            F.linear,
            (x, weight, bias),
            {},
        )


@pytest.mark.parametrize("name", ["relu", "sigmoid", "tanh"])
def test_activation(name: str, fast_backend: str) -> None:
    x = 3 * normal((4, 25))
    forward, backward = getattr(fastdl, name), getattr(fastdl, f"{name}_backward")
    with fastdl.use_backend(fast_backend):
        saved = x if name == "relu" else forward(x)
        _compare(forward, lambda grad: backward(grad, saved), getattr(torch, name), (x,), {})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0, -0.0, 1000.0, -1000.0])
@pytest.mark.parametrize("name", ["relu", "sigmoid", "tanh"])
def test_activation_of_special_values(name: str, value: float, fast_backend: str) -> None:
    x = np.full(21, value)
    tensor = _tensor(x)
    expected = getattr(torch, name)(tensor)
    with fastdl.use_backend(fast_backend):
        found = getattr(fastdl, name)(x)
        saved = x if name == "relu" else found
        gradient = getattr(fastdl, f"{name}_backward")(np.ones(21), saved)
    np.testing.assert_array_equal(found, expected.detach().numpy())
    theirs = _gradients(expected, np.ones(21), tensor)[0].numpy()
    np.testing.assert_allclose(gradient, theirs, rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax(name: str, dim: int, fast_backend: str) -> None:
    x = 3 * normal((3, 4, 5))
    forward, backward = getattr(fastdl, name), getattr(fastdl, f"{name}_backward")
    with fastdl.use_backend(fast_backend):
        y = forward(x, dim)
        _compare(
            forward,
            lambda grad: backward(grad, y, dim),
            lambda x, dim: getattr(torch, name)(x, dim),
            (x,),
            {"dim": dim},
        )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_cross_entropy(smoothing: float, reduction: Any, fast_backend: str) -> None:
    x, target = 3 * normal((5, 7)), np.array([0, 6, 3, 3, 1])
    tensor = _tensor(x)
    options: Options = {"label_smoothing": smoothing, "reduction": reduction}
    expected = F.cross_entropy(tensor, torch.from_numpy(target), **options)
    with fastdl.use_backend(fast_backend):
        found = np.asarray(fastdl.cross_entropy(x, target, **options))
        _assert_close(found, expected)
        grad = normal(found.shape, seed=1)
        upstream = grad if reduction == "none" else float(grad)
        gradient = fastdl.cross_entropy_backward(x, target, grad=upstream, **options)
    _assert_close(gradient, _gradients(expected, np.asarray(grad), tensor)[0])


def test_dropout_keeps_as_much(fast_backend: str) -> None:
    x = np.ones(5000)
    mine = fastdl.dropout(x, 0.3, rng=0, backend=fast_backend)
    theirs = F.dropout(torch.from_numpy(x), 0.3)
    np.testing.assert_allclose(np.unique(mine), np.unique(theirs.numpy()))


def test_a_tensor_comes_in(fast_backend: str) -> None:
    """PyTorch's tensors are read where they are."""
    tensors = torch.randn(2, 3, 6, 7), torch.randn(4, 3, 3, 3)
    found = fastdl.conv2d(*tensors, padding=1, backend=fast_backend)
    assert isinstance(found, np.ndarray)
    assert relative_error(found, F.conv2d(*tensors, padding=1).double().numpy()) <= 2e-6
