"""What comes in and what goes out: other arrays than NumPy's, memory layouts, empty arrays."""

from __future__ import annotations

import array
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import assert_close, assert_same, channels_last, normal

import fastdl
from fastdl.functional.inputs import floats
from fastdl.functional.outputs import overlap

from .calls import CALLS, ELEMENTWISE, INPUTS, WITH_OUT

# --- memory layouts ------------------------------------------------------------


def _transposed(value: np.ndarray) -> np.ndarray:
    return np.array(value, order="F")


def _backwards(value: np.ndarray) -> np.ndarray:
    return np.flip(np.flip(value).copy())


def _sliced(value: np.ndarray) -> np.ndarray:
    window = tuple(slice(1, 2 * size + 1, 2) for size in value.shape)
    memory = np.zeros([2 * size + 1 for size in value.shape], value.dtype)
    memory[window] = value
    return memory[window]


def _read_only(value: np.ndarray) -> np.ndarray:
    value = value.copy()
    value.flags.writeable = False
    return value


def _misaligned(value: np.ndarray) -> np.ndarray:
    memory = np.zeros(value.nbytes + 8, np.uint8)
    start = -memory.ctypes.data % 8 + max(value.itemsize // 2, 1)
    moved = memory[start : start + value.nbytes].view(value.dtype).reshape(value.shape)
    moved[...] = value
    return moved


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "transposed": _transposed,
    "backwards": _backwards,
    "sliced": _sliced,
    "misaligned": _misaligned,
    "read-only": _read_only,
    "channels-last": lambda value: channels_last(value) if value.ndim > 2 else value.copy(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.bool_])
def test_layouts_are_what_they_say(layout: str, dtype: Any) -> None:
    value = (10 * normal((3, 4, 5, 6))).astype(dtype)
    moved = LAYOUTS[layout](value)
    assert_same(moved, value)
    flags = moved.flags
    plain = flags.c_contiguous and flags.writeable and flags.aligned
    assert not plain or (layout == "misaligned" and dtype is np.bool_)


def _results(name: str, backend: str, **changed: Any) -> Any:
    return getattr(fastdl, name)(**{**CALLS[name](), **changed}, backend=backend)


def _moved(name: str, layout: str, dtype: Any) -> dict[str, Any]:
    """The valid call's inputs in another layout and dtype."""
    changed = {
        key: LAYOUTS[layout](value.astype(dtype) if value.dtype.kind == "f" else value)
        for key, value in CALLS[name]().items()
        if isinstance(value, np.ndarray) and key != "out"
    }
    return {**changed, "out": None} if name in WITH_OUT else changed


@pytest.mark.parametrize("name", CALLS)
def test_any_input_layout(name: str, backend: str, dtype: Any) -> None:
    plain = {
        key: np.ascontiguousarray(value) if isinstance(value, np.ndarray) else value
        for key, value in _moved(name, "transposed", dtype).items()
    }
    expected = _results(name, backend, **plain)
    for layout in LAYOUTS:
        inputs = _moved(name, layout, dtype)
        before = {key: None if value is None else value.copy() for key, value in inputs.items()}
        result = _results(name, backend, **inputs)
        if name == "cross_entropy":
            result, expected = np.asarray(result), np.asarray(expected)
        assert_close(result, expected, dtype)
        for key, value in inputs.items():
            if value is not None:
                assert_same(value, before[key])


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "read-only"])
@pytest.mark.parametrize("name", WITH_OUT)
def test_any_out_layout(name: str, layout: str, backend: str) -> None:
    expected = _results(name, backend, out=None)
    out = LAYOUTS[layout](CALLS[name]()["out"])
    assert _results(name, backend, out=out) is out
    assert_same(np.ascontiguousarray(out), expected)


@pytest.mark.parametrize("name", WITH_OUT)
def test_results_are_new_dense_arrays(name: str, backend: str) -> None:
    result = _results(name, backend, out=None)
    assert type(result) is np.ndarray
    assert result.flags.carray
    for value in CALLS[name]().values():
        assert not isinstance(value, np.ndarray) or not overlap(result, value)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "read-only"])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_in_place(name: str, layout: str, backend: str) -> None:
    expected = _results(name, backend, out=None)
    x = LAYOUTS[layout](CALLS[name]()["x"])
    assert _results(name, backend, x=x, out=x) is x
    assert_same(np.ascontiguousarray(x), expected)
    again = LAYOUTS[layout](CALLS[name]()["x"])
    _results(name, backend, x=again[:], out=again)
    assert_same(np.ascontiguousarray(again), expected)


def test_evaluated_dropout_in_place(backend: str) -> None:
    x = normal((3, 4))
    expected = x.copy()
    assert fastdl.dropout(x, training=False, out=x, backend=backend) is x
    assert_same(x, expected)


@pytest.mark.parametrize("layout", ["backwards", "sliced", "misaligned"])
def test_running_statistics_of_any_layout(layout: str, backend: str) -> None:
    x = normal((4, 3, 5))
    expected_mean, expected_var = np.zeros(3), np.ones(3)
    fastdl.batch_norm(x, expected_mean, expected_var, training=True, backend=backend)
    mean, var = LAYOUTS[layout](np.zeros(3)), LAYOUTS[layout](np.ones(3))
    fastdl.batch_norm(x, mean, var, training=True, backend=backend)
    assert_same(np.ascontiguousarray(mean), expected_mean)
    assert_same(np.ascontiguousarray(var), expected_var)


# --- other arrays than NumPy's -----------------------------------------------------


class Tensor:
    """Speaks DLPack and nothing else."""

    def __init__(self, memory: np.ndarray) -> None:
        self.memory = memory

    def __dlpack__(self, **options: Any) -> Any:
        return self.memory.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.memory.__dlpack_device__()


@pytest.mark.parametrize("wrap", [Tensor, memoryview], ids=["DLPack", "buffer"])
@pytest.mark.parametrize(("name", "key"), INPUTS)
def test_exporters_come_in_without_a_copy(
    name: str, key: str, wrap: Callable[[np.ndarray], Any]
) -> None:
    value = CALLS[name]()[key]
    assert np.shares_memory(floats(key, wrap(value)), value)
    expected = _results(name, "reference")
    result = _results(name, "reference", **{key: wrap(value)})
    assert_same(result, expected)


def test_array_module() -> None:
    values = array.array("f", [-1, 2])
    assert_same(fastdl.relu(values), np.float32([0, 2]))
    assert np.shares_memory(floats("x", values), np.frombuffer(values, np.float32))


def test_torch_tensors() -> None:
    torch = pytest.importorskip("torch")
    x = torch.arange(24, dtype=torch.float32).reshape(1, 2, 3, 4)
    value = floats("x", x.permute(0, 3, 1, 2))
    assert value.shape == (1, 4, 2, 3)
    assert value.ctypes.data == x.data_ptr()
    pooled = fastdl.global_avg_pool2d(x)
    assert_same(pooled, x.numpy().mean((2, 3), keepdims=True))
    with pytest.raises(fastdl.DTypeError, match=r"^x must be an array, got Tensor, .*detach"):
        fastdl.relu(torch.ones(3, requires_grad=True))
    with pytest.raises(fastdl.DTypeError, match=r"^x must be an array, got Tensor, "):
        fastdl.relu(torch.ones(3, dtype=torch.bfloat16))


def test_lists_and_numbers_are_float64() -> None:
    assert_same(fastdl.relu([[-1.0, 2.0]]), np.array([[0.0, 2.0]]))
    assert_same(fastdl.relu(-1.5), np.array(0.0))
    assert_same(fastdl.relu(np.float32(1.5)), np.array(1.5, np.float32))
    assert_same(fastdl.linear([1.0], [[2.0]], [3.0]), np.array([5.0]))


def test_subclasses_are_plain_arrays(tmp_path: Path) -> None:
    x = np.memmap(tmp_path / "x", np.float32, "w+", shape=(2, 3))
    out = np.memmap(tmp_path / "out", np.float32, "w+", shape=(2, 3))
    x[...] = normal((2, 3))
    assert type(fastdl.relu(x)) is np.ndarray
    assert fastdl.relu(x, out=out) is out
    assert_same(np.asarray(out), np.maximum(np.asarray(x), 0))


# --- empty arrays --------------------------------------------------------------------

BATCHED = ("x", "grad", "out", "col", "indices", "mask", "target", "y")


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", CALLS)
def test_empty_batch(name: str, training: bool, backend: str, dtype: Any) -> None:
    if training and not name.startswith("batch_norm"):
        return
    arguments = CALLS[name]()
    for key, value in arguments.items():
        if isinstance(value, np.ndarray):
            value = value.astype(dtype) if value.dtype.kind == "f" else value
            arguments[key] = value[:0] if key in BATCHED else value
        elif key == "input_shape":
            arguments[key] = (0, *value[1:])
    if name.startswith("batch_norm"):
        arguments["training"] = training
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = getattr(fastdl, name)(**arguments, backend=backend)
    if name == "cross_entropy":
        assert result.dtype == dtype
        assert np.isnan(result)
        return
    first, *gradients = result if isinstance(result, tuple) else (result,)
    full = _results(name, "reference")
    full = full[0] if isinstance(full, tuple) else full
    assert first.shape == (0, *full.shape[1:])
    assert first.dtype == dtype
    for gradient in gradients:
        assert_same(gradient, np.zeros_like(gradient))


def test_empty_batch_leaves_running_statistics_alone(backend: str) -> None:
    mean, var = np.full(3, 0.25), np.full(3, 0.75)
    result, batch_mean, inv_std = fastdl.batch_norm(
        np.zeros((0, 3)), mean, var, training=True, return_stats=True, backend=backend
    )
    assert result.shape == (0, 3)
    assert np.isnan(batch_mean).all()
    assert np.isnan(inv_std).all()
    assert_same((mean, var), (np.full(3, 0.25), np.full(3, 0.75)))


def test_empty_batch_of_losses(backend: str) -> None:
    x, target = np.zeros((0, 4)), np.zeros(0, int)
    assert fastdl.cross_entropy(x, target, reduction="sum", backend=backend) == 0
    losses = fastdl.cross_entropy(x, target, reduction="none", backend=backend)
    assert_same(losses, np.zeros(0))


def test_empty_channels_rows_and_columns(backend: str) -> None:
    x = np.zeros((2, 0, 4, 5))
    assert fastdl.max_pool2d(x, 2, backend=backend).shape == (2, 0, 2, 2)
    assert fastdl.avg_pool2d(x, 2, backend=backend).shape == (2, 0, 2, 2)
    assert fastdl.global_avg_pool2d(x, backend=backend).shape == (2, 0, 1, 1)
    none = np.zeros(0)
    for training in (False, True):
        result = fastdl.batch_norm(x, none, none, training=training, backend=backend)
        assert result.shape == x.shape
    for function in (fastdl.relu, fastdl.softmax, fastdl.log_softmax):
        assert function(np.zeros((3, 0)), backend=backend).shape == (3, 0)
    assert fastdl.softmax(np.zeros((3, 0, 2)), 1, backend=backend).shape == (3, 0, 2)
    assert fastdl.softmax_backward(x, x, 0, backend=backend).shape == x.shape
    assert fastdl.dropout(x, backend=backend).shape == x.shape


def test_empty_linear_is_the_bias() -> None:
    bias = np.array([1.0, 2.0])
    result = fastdl.linear(np.zeros((3, 0)), np.zeros((2, 0)), bias)
    assert_same(result, np.tile(bias, (3, 1)))
    assert fastdl.linear(np.zeros((3, 4)), np.zeros((0, 4))).shape == (3, 0)
    grads = fastdl.linear_backward(np.ones((3, 2)), np.zeros((3, 0)), np.zeros((2, 0)))
    assert_same(grads, (np.zeros((3, 0)), np.zeros((2, 0)), np.array([3.0, 3.0])))


# --- sizes beyond 32 bits ---------------------------------------------------------------

#: 2**32 + 2**16 elements on four bytes of memory.
VAST = np.broadcast_to(np.float32(2), (1, 1, 65536, 65537))


@pytest.mark.parametrize("backend", ["reference", "naive"])
def test_more_elements_than_32_bits_count(backend: str) -> None:
    one = np.ones((1, 1, 1, 1), np.float32)
    expected = np.full((1, 1, 1, 2), 2, np.float32)
    assert_same(fastdl.conv2d(VAST, one, stride=65536, backend=backend), expected)
    assert_same(fastdl.avg_pool2d(VAST, 1, 65536, backend=backend), expected)
    assert_same(fastdl.im2col(VAST, 1, stride=65536, backend=backend), expected[:, 0])


def test_indices_beyond_32_bits() -> None:
    values, indices = fastdl.max_pool2d(
        VAST, 1, (65535, 65536), return_indices=True, backend="naive"
    )
    assert_same(values, np.full((1, 1, 2, 2), 2, np.float32))
    last = 65535 * 65537
    assert_same(indices[0, 0], np.array([[0, 65536], [last, last + 65536]]))


# --- results that are not arrays of the backends ---------------------------------------


def test_infinity_and_nan_pass_without_a_warning(backend: str) -> None:
    wild = np.array([[np.inf, -np.inf, np.nan], [1e308, -1e308, 0.0]])
    target = np.array([0, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fastdl.linear(wild, wild, backend=backend)
        fastdl.linear_backward(wild[:, :2], wild, wild, backend=backend)
        fastdl.cross_entropy(wild, target, label_smoothing=0.5, backend=backend)
        fastdl.cross_entropy_backward(wild, target, label_smoothing=0.5, backend=backend)
        mean, var = np.zeros(3), -np.ones(3)
        fastdl.batch_norm(wild, mean, var, eps=0, backend=backend)
        fastdl.batch_norm(np.ones((2, 3)), mean, var, training=True, eps=0, backend=backend)
        fastdl.batch_norm(wild, mean, var, training=True, backend=backend)


def test_statistics_of_both_modes(backend: str) -> None:
    x = normal((6, 3, 4))
    mean, var = np.full(3, 0.5), np.full(3, 2.0)
    _, used, inv_std = fastdl.batch_norm(x, mean, var, return_stats=True, backend=backend)
    assert_same(used, mean)
    assert not np.shares_memory(used, mean)
    assert_close(inv_std, 1 / np.sqrt(var + 1e-5), np.float64)
    _, used, inv_std = fastdl.batch_norm(
        x, None, None, training=True, return_stats=True, backend=backend
    )
    assert_close(used, x.mean((0, 2)), np.float64)
    assert_close(inv_std, 1 / np.sqrt(x.var((0, 2)) + 1e-5), np.float64)


def test_running_statistics_take_the_unbiased_variance(backend: str) -> None:
    x = normal((6, 3, 4))
    mean, var = np.full(3, 0.5), np.full(3, 2.0)
    fastdl.batch_norm(x, mean, var, training=True, momentum=0.3, backend=backend)
    assert_close(mean, 0.7 * 0.5 + 0.3 * x.mean((0, 2)), np.float64)
    assert_close(var, 0.7 * 2.0 + 0.3 * x.var((0, 2), ddof=1), np.float64)


def test_either_running_statistic_may_be_left_out(backend: str) -> None:
    x = normal((6, 3))
    mean = np.zeros(3)
    fastdl.batch_norm(x, mean, None, training=True, momentum=1, backend=backend)
    assert_close(mean, x.mean(0), np.float64)


@pytest.mark.parametrize(
    "needs", [(True, False, False), (False, True, False), (False, False, True)]
)
@pytest.mark.parametrize(
    "name", ["conv2d_backward", "conv_transpose2d_backward", "linear_backward"]
)
def test_only_needed_gradients(name: str, needs: tuple[bool, bool, bool], backend: str) -> None:
    full = _results(name, backend)
    some = _results(name, backend, needs=needs)
    for needed, gradient, expected in zip(needs, some, full, strict=True):
        assert (gradient is not None) == needed
        if needed:
            assert_same(gradient, expected)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0, 0.1])
def test_cross_entropy(reduction: Any, smoothing: float, backend: str, dtype: Any) -> None:
    x, target = normal((5, 4), dtype), np.array([0, 3, 2, 1, 3], np.uint8)
    options = {"reduction": reduction, "label_smoothing": smoothing}
    log_p = np.log(np.exp(x.astype(float)) / np.exp(x.astype(float)).sum(1, keepdims=True))
    wanted = np.eye(4)[target] * (1 - smoothing) + smoothing / 4
    losses = -(wanted * log_p).sum(1)
    expected = {"mean": losses.mean(), "sum": losses.sum(), "none": losses}[reduction]
    loss = fastdl.cross_entropy(x, target, **options, backend=backend)
    assert np.ndim(loss) == (reduction == "none")
    assert_close(np.asarray(loss), np.asarray(expected), dtype)
    grad = normal((5,), dtype) if reduction == "none" else 3.0
    factor = grad[:, None] if reduction == "none" else 0.6 if reduction == "mean" else 3.0
    result = fastdl.cross_entropy_backward(x, target, **options, grad=grad, backend=backend)
    assert_close(result, factor * (np.exp(log_p) - wanted), dtype)


def test_dropout(backend: str, dtype: Any) -> None:
    x = np.abs(normal((40, 50), dtype)) + 1
    y, mask = fastdl.dropout(x, 0.25, rng=1, return_mask=True, backend=backend)
    assert 0.7 < mask.mean() < 0.8
    assert_close(y, x * mask / 0.75, dtype)
    again = fastdl.dropout(x, 0.25, rng=np.random.default_rng(1), backend=backend)
    assert_same(again, y)
    assert_same(fastdl.dropout_backward(x, mask, 0.25, backend=backend), y)
    assert_same(fastdl.dropout(x, 0, backend=backend), x)
    assert_same(fastdl.dropout(x, 1, backend=backend), np.zeros_like(x))
    kept, mask = fastdl.dropout(x, training=False, return_mask=True, backend=backend)
    assert mask.all()
    assert_same(kept, x)


def test_linear() -> None:
    x, weight, bias = normal((2, 3, 5)), normal((4, 5)), normal((4,))
    grad = normal((2, 3, 4))
    assert_close(fastdl.linear(x, weight, bias), np.einsum("abi,oi->abo", x, weight) + bias, float)
    assert_close(fastdl.linear(x[0, 0], weight), weight @ x[0, 0], float)
    expected = (grad @ weight, np.einsum("abo,abi->oi", grad, x), grad.sum((0, 1)))
    assert_close(fastdl.linear_backward(grad, x, weight), expected, float)


@pytest.mark.parametrize("dim", [0, 1, 2, -1, -3])
def test_softmax_along_any_dimension(dim: int, backend: str) -> None:
    x, grad = normal((3, 4, 5)), normal((3, 4, 5), seed=1)
    y = np.exp(x) / np.exp(x).sum(dim, keepdims=True)
    assert_close(fastdl.softmax(x, dim, backend=backend), y, float)
    assert_close(fastdl.log_softmax(x, dim, backend=backend), np.log(y), float)
    expected = y * (grad - (grad * y).sum(dim, keepdims=True))
    assert_close(fastdl.softmax_backward(grad, y, dim, backend=backend), expected, float)
    expected = grad - y * grad.sum(dim, keepdims=True)
    result = fastdl.log_softmax_backward(grad, np.log(y), dim, backend=backend)
    assert_close(result, expected, float)
