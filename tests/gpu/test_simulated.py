"""Arrays on a simulated GPU, through the public functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import assert_close, normal

import fastdl
from fastdl.backends import gpu
from fastdl.functional import on_device

if not gpu.simulated() or fastdl.available_backends()["cuda"] is not None:
    pytest.skip("needs NUMBA_ENABLE_CUDASIM=1 and numba-cuda", allow_module_level=True)

from fastdl.backends.cuda import arrays, dlpack, launch, memory, pooling

X = normal((4, 3, 6, 6), np.float32, 1)
WEIGHT = normal((5, 3, 3, 3), np.float32, 2)
CHANNELS = abs(normal((3,), np.float32, 3))
TARGET = np.array([0, 2, 1, 4, 3])
DEPTHWISE = normal((4, 6, 3, 3), np.float32, 1), X, normal((6, 1, 3, 3), np.float32, 2)
LARGE_DEPTHWISE = normal((4, 3, 6, 6), np.float32, 1), X, normal((3, 1, 7, 7), np.float32, 2)
WIDE = normal((5, 1100), np.float32, 4)  # a block for each row, and not a warp


def _moved(value: Any) -> Any:
    return fastdl.to_device(value) if isinstance(value, np.ndarray) else value


def _back(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_back, value))
    assert isinstance(value, arrays.DeviceArray)
    return fastdl.to_host(value)


@pytest.mark.parametrize(
    ("function", "args", "options"),
    [
        (fastdl.conv2d, (X, WEIGHT, WEIGHT[:, 0, 0, 0]), {"stride": 2, "padding": 1}),
        (fastdl.conv2d_backward, (normal((4, 5, 4, 4), np.float32), X, WEIGHT), {}),
        (fastdl.conv2d_backward, DEPTHWISE, {"groups": 3, "stride": 2, "padding": 1}),
        (fastdl.conv2d_backward, LARGE_DEPTHWISE, {"groups": 3, "padding": 3}),
        (fastdl.conv_transpose2d, (normal((2, 5, 4, 4), np.float32), WEIGHT, CHANNELS), {}),
        (fastdl.linear, (normal((7, 10), np.float32), normal((6, 10), np.float32)), {}),
        (fastdl.linear, (normal((2, 3, 10), np.float32), normal((8, 10), np.float32)), {}),
        (
            fastdl.linear_backward,
            (normal((7, 6), np.float32), normal((7, 10), np.float32), normal((6, 10), np.float32)),
            {},
        ),
        (
            fastdl.batch_norm,
            (X, CHANNELS, CHANNELS, CHANNELS, CHANNELS),
            {"activation": "relu", "return_stats": True},
        ),
        (fastdl.batch_norm_backward, (X, X, CHANNELS, CHANNELS, CHANNELS), {}),
        (fastdl.batch_norm_backward, (X, X, CHANNELS, CHANNELS, None, True), {"y": -X}),
        (fastdl.cross_entropy, (normal((5, 6), np.float32), TARGET), {"reduction": "none"}),
        (
            fastdl.cross_entropy_backward,
            (normal((5, 6), np.float32), TARGET),
            {"label_smoothing": 0.1},
        ),
        (fastdl.cross_entropy, (WIDE, TARGET), {"reduction": "none", "label_smoothing": 0.2}),
        (fastdl.cross_entropy_backward, (WIDE, TARGET), {}),
        (fastdl.softmax, (X,), {}),
        (fastdl.relu, (X,), {}),
        (fastdl.relu, (X.transpose(0, 2, 3, 1)[:, ::-2],), {}),
        (fastdl.max_pool2d, (X, 2), {}),
        (fastdl.avg_pool2d, (X, 3, 2, 1), {}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_arrays_on_the_gpu_stay_there(function: Any, args: Any, options: Any) -> None:
    moved = {name: _moved(value) for name, value in options.items()}
    found = _back(function(*map(_moved, args), **moved))
    assert_close(found, function(*args, **options, backend="reference"), np.float32, slack=2)


def test_the_loss_is_a_number_of_the_host() -> None:
    x = normal((5, 6), np.float32)
    loss = fastdl.cross_entropy(fastdl.to_device(x), TARGET)
    assert loss == pytest.approx(fastdl.cross_entropy(x, TARGET), rel=1e-6)


def test_classes_that_are_none_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU's, found with the loss: a target is looked at once."""
    x, message = (
        fastdl.to_device(normal((5, 6), np.float32)),
        "target must be at least 0 and below 6",
    )
    for bad in (-1, 6, 2**40):
        target = TARGET.copy()
        target[3] = bad
        for kind in (target, fastdl.to_device(target)):
            for function in (fastdl.cross_entropy, fastdl.cross_entropy_backward):
                for reduction in ("mean", "none"):
                    with pytest.raises(fastdl.ArgumentError, match=f"{message}, got .*{bad}"):
                        function(x, kind, reduction=reduction)
    target = fastdl.to_device(TARGET)
    fastdl.cross_entropy(x, target)
    monkeypatch.setattr(arrays.DeviceArray, "copy_to_host", None)
    fastdl.cross_entropy_backward(x, target)


def test_places_that_are_none_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    grad, bad = (
        fastdl.to_device(np.ones((1, 1, 1, 2), np.float32)),
        np.zeros((1, 1, 1, 2), np.int64),
    )
    for place in (-1, 4):
        bad[..., 1] = place
        with pytest.raises(fastdl.ArgumentError, match="indices must be at least 0 and below 4"):
            fastdl.max_pool2d_backward(grad, fastdl.to_device(bad), (1, 1, 2, 2))
    pooled, indices = fastdl.max_pool2d(fastdl.to_device(X), 2, return_indices=True)
    monkeypatch.setattr(arrays.DeviceArray, "copy_to_host", None)
    fastdl.max_pool2d_backward(pooled, indices, X.shape)


@pytest.mark.parametrize(
    "options",
    [{}, {"stride": 1}, {"stride": 3}, {"stride": 2, "padding": 1}, {"dilation": 2, "stride": 1}],
    ids=str,
)
def test_a_pool_s_gradient_needs_no_lists_where_its_windows_are_known(
    options: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.round(normal((2, 3, 9, 8), np.float32, 1))  # with equal values
    pooled, indices = fastdl.max_pool2d(x, 3, return_indices=True, **options)
    grad = normal(pooled.shape, np.float32, 2)
    expected = fastdl.max_pool2d_backward(grad, indices, x.shape, backend="reference")
    _, on_gpu = fastdl.max_pool2d(fastdl.to_device(x), 3, return_indices=True, **options)
    lists = fastdl.max_pool2d_backward(fastdl.to_device(grad), fastdl.to_device(indices), x.shape)
    np.testing.assert_array_equal(fastdl.to_host(lists), expected)
    monkeypatch.setattr(pooling, "link", None)
    found = fastdl.max_pool2d_backward(fastdl.to_device(grad), on_gpu, x.shape)
    np.testing.assert_array_equal(fastdl.to_host(found), expected)


def test_what_others_may_have_written_is_looked_at_anew() -> None:
    _, indices = fastdl.max_pool2d(fastdl.to_device(X), 2, return_indices=True)
    assert (indices.below, indices.windows is None) == (36, False)
    assert indices.__cuda_array_interface__["version"] == 3
    assert (indices.below, indices.windows) == (None, None)
    indices.below = 36
    indices[...] = np.full(indices.shape, 36)
    with pytest.raises(fastdl.ArgumentError, match="indices must be at least 0 and below 36"):
        fastdl.max_pool2d_backward(fastdl.to_device(X[..., :3, :3]), indices, X.shape)


def test_empty_batches_are_as_on_the_cpu() -> None:
    none = fastdl.to_device(np.empty((0, 6), np.float32))
    assert np.isnan(fastdl.cross_entropy(none, np.empty(0, np.int64)))
    assert fastdl.cross_entropy(none, np.empty(0, np.int64), reduction="sum") == 0
    images, mean, var = np.empty((0, 3, 2, 2), np.float32), CHANNELS.copy(), CHANNELS.copy()
    on_gpu = fastdl.to_device(mean), fastdl.to_device(var)
    out, *statistics = fastdl.batch_norm(
        fastdl.to_device(images), *on_gpu, training=True, return_stats=True
    )
    assert out.shape == images.shape
    assert all(np.isnan(fastdl.to_host(each)).all() for each in statistics)
    for array in on_gpu:
        np.testing.assert_array_equal(fastdl.to_host(array), CHANNELS)
    with pytest.raises(fastdl.ShapeError, match="more than 1 value per channel"):
        fastdl.batch_norm(fastdl.to_device(X[:1, :, :1, :1]), None, None, training=True)


def test_running_statistics_in_one_memory_are_an_error() -> None:
    mean = fastdl.to_device(CHANNELS)
    with pytest.raises(fastdl.OutputError, match="running_var must share no memory with running_m"):
        fastdl.batch_norm(fastdl.to_device(X), mean, mean, training=True)


def test_running_statistics_move_in_place() -> None:
    mean, var = np.zeros(3, np.float32), np.ones(3, np.float32)
    on_gpu = fastdl.to_device(mean), fastdl.to_device(var)
    fastdl.batch_norm(fastdl.to_device(X), *on_gpu, training=True)
    fastdl.batch_norm(X, mean, var, training=True, backend="reference")
    assert_close(tuple(map(fastdl.to_host, on_gpu)), (mean, var), np.float32, slack=2)


def test_the_first_of_the_largest_scores_counts() -> None:
    """As NumPy's argmax: NaN is the largest, and -inf may be."""
    scores = np.round(normal((9, 70), np.float32, 5))
    scores[1, 40], scores[2, [3, 60]], scores[3] = np.nan, np.nan, -np.inf
    largest = scores.argmax(axis=1)
    for target in (largest, (largest + 1) % 70):
        expected = np.count_nonzero(target == largest)
        assert on_device.correct(fastdl.to_device(scores), fastdl.to_device(target)) == expected


@pytest.mark.parametrize("p", [0.0, 0.3, 0.5, 1 - 2**-24, 1.0])
@pytest.mark.parametrize("shape", [(1,), (31, 1), (64, 35), (3, 0)])
@pytest.mark.parametrize("before", [0, 3])
def test_dropout_draws_what_it_draws_on_the_cpu(
    shape: tuple[int, ...], p: float, before: int, copies: list[int]
) -> None:
    """And the generator goes on as there, also from half an output that was left over."""
    host, device = np.random.default_rng(7), np.random.default_rng(7)
    for generator in (host, device):
        generator.random(before, np.float32)
    x = np.ones(shape, np.float32)
    for _ in range(2):
        expected = fastdl.dropout(x, p, rng=host, return_mask=True)
        found = fastdl.dropout(fastdl.to_device(x), p, rng=device, return_mask=True)
        assert copies == []
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(fastdl.to_host(one), other)
        copies.clear()
        assert device.bit_generator.state == host.bit_generator.state


def test_dropout_with_another_generator() -> None:
    masks = [
        fastdl.dropout(x, 0.4, rng=np.random.Generator(np.random.Philox(1)), return_mask=True)[1]
        for x in (X, fastdl.to_device(X))
    ]
    np.testing.assert_array_equal(fastdl.to_host(masks[1]), masks[0])


def test_dropout_in_evaluation_keeps_everything() -> None:
    y, mask = fastdl.dropout(fastdl.to_device(X), 0.4, False, return_mask=True)
    assert fastdl.to_host(mask).all()
    np.testing.assert_array_equal(fastdl.to_host(y), X)


@pytest.mark.parametrize(("name", "bar"), [("tf32", 1e-3), ("bf16", 8e-3)])
def test_tensor_cores(name: str, bar: float) -> None:
    x, bias = normal((1, 3, 5, 7), np.float32, 1), normal((5,), np.float32, 3)
    with fastdl.use_precision(name):
        out = fastdl.to_host(fastdl.conv2d(*map(_moved, (x, WEIGHT, bias)), padding=1))
    truth = fastdl.conv2d(x, WEIGHT, bias, padding=1, backend="reference")
    error = np.linalg.norm(out - truth) / np.linalg.norm(truth)
    assert bar / 50 < error < bar
    with pytest.raises(fastdl.ArgumentError, match="precision must be one of float32, tf32"):
        fastdl.use_precision("half").__enter__()


class Foreign:
    """Another library's array, on the simulated GPU."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        interface = array.__array_interface__
        self.__cuda_array_interface__ = {**interface, "version": 3, "stream": 1}


def test_another_library_s_array_comes_in_without_a_copy() -> None:
    array = X.copy()
    out = fastdl.relu(Foreign(array))
    np.testing.assert_array_equal(fastdl.to_host(out), np.maximum(X, 0))
    interface = fastdl.to_device(Foreign(array)).__cuda_array_interface__
    assert interface["data"][0] == array.ctypes.data
    assert interface["shape"] == X.shape
    target = np.zeros_like(X)
    fastdl.relu(Foreign(array), out=Foreign(target))
    np.testing.assert_array_equal(target, np.maximum(X, 0))


class Exported:
    """A DeviceArray that says to be the CPU's: NumPy can take it."""

    def __init__(self, array: arrays.DeviceArray) -> None:
        self.array = array

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0

    def __dlpack__(self, **options: Any) -> Any:
        a = self.array
        return dlpack.capsule(a, a.pointer, a.shape, a.strides, a.dtype, (1, 0))


def test_results_go_out_by_dlpack() -> None:
    """Without a copy, and their memory lives as long as who took it."""
    array = fastdl.to_device(X)[1:]
    before = len(dlpack._held)
    view = np.from_dlpack(Exported(array))
    np.testing.assert_array_equal(view, X[1:])
    assert view.ctypes.data == array.pointer
    assert len(dlpack._held) == before + 1
    del view
    assert len(dlpack._held) == before
    assert array.__dlpack_device__() == (2, 0)
    assert "dltensor" in repr(array.__dlpack__(stream=1))  # and nobody takes it
    assert len(dlpack._held) == before
    with pytest.raises(BufferError, match="on GPU 0"):
        array.__dlpack__(dl_device=(1, 0))


def test_no_stream_waits_for_what_never_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for a convolution's taps, which the default stream's call made."""
    fastdl.conv2d(fastdl.to_device(X), fastdl.to_device(WEIGHT))
    with fastdl.use_stream(7):
        x, weight = fastdl.to_device(X), fastdl.to_device(WEIGHT)
    monkeypatch.setattr(arrays, "join", None)
    assert fastdl.conv2d(x, weight).stream == 7


def test_work_is_done_on_the_caller_s_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    joined: list[tuple[int, int]] = []
    monkeypatch.setattr(arrays, "join", lambda later, earlier: joined.append((later, earlier)))
    weight = fastdl.to_device(WEIGHT[:, :, 0, 0])
    stream = type("Stream", (), {"cuda_stream": 8})()
    with fastdl.use_stream(stream):
        x = fastdl.to_device(normal((2, 3), np.float32))
        foreign = Foreign(np.ones((2, 2), np.float32))
        del foreign.__cuda_array_interface__["stream"]
        assert fastdl.to_device(foreign).stream == 8
    assert (x.stream, weight.stream) == (8, 0)
    assert fastdl.relu(x).stream == 8
    assert not joined
    assert fastdl.linear(x, weight).stream == 8
    assert (8, 0) in joined  # the caller's waits for the weight
    with pytest.raises(fastdl.DTypeError, match="stream must be a CUDA stream"):
        fastdl.use_stream("one").__enter__()


def test_arrays_in_two_memories_are_an_error() -> None:
    with pytest.raises(fastdl.DeviceError, match="weight must be where x is: x is on GPU 0"):
        fastdl.conv2d(fastdl.to_device(X), WEIGHT)
    with pytest.raises(fastdl.DeviceError, match="one memory"):
        fastdl.conv2d(X, fastdl.to_device(WEIGHT), backend="reference")
    with pytest.raises(fastdl.BackendError, match="backend must be 'cuda'"):
        fastdl.relu(fastdl.to_device(X), backend="reference")


def test_arrays_on_two_gpus_are_an_error() -> None:
    there = fastdl.to_device(WEIGHT)
    there.device = 1
    with pytest.raises(fastdl.DeviceError, match="x is on GPU 0, weight on GPU 1"):
        fastdl.conv2d(fastdl.to_device(X), there)


def test_a_grid_is_long_and_not_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has at most 65535 blocks in its second and third dimensions, 2**31 - 1 in the first."""
    grids = []
    monkeypatch.setattr(launch.Kernel, "__call__", lambda self, grid, *rest: grids.append(grid))
    grad = arrays.empty((200, 2048, 40, 1), np.float32)
    fastdl.conv2d_backward(
        grad, arrays.empty((200, 2048, 40, 1), np.float32),
        arrays.empty((2048, 2, 1, 1), np.float32), groups=1024,
    )  # fmt: skip
    fastdl.linear(arrays.empty((2**22, 4), np.float32), arrays.empty((4, 4), np.float32))
    assert max(grid if isinstance(grid, int) else grid[0] for grid in grids) > 65535
    assert all(max(grid[1:]) <= 65535 for grid in grids if isinstance(grid, tuple))


def test_a_gpu_without_memory_is_an_error_and_works_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **options: Any) -> None:
        error = RuntimeError("out of memory")
        error.code = 2  # type: ignore[attr-defined]
        raise error

    x = fastdl.to_device(X)
    fastdl.relu(x)
    fastdl.empty_memory_pool()
    with monkeypatch.context() as patch:
        patch.setattr(arrays.cuda, "device_array", full)
        with pytest.raises(fastdl.DeviceMemoryError, match=r"no 0\.0 MiB left.*\(4, 3, 6, 6\)"):
            fastdl.relu(x)
    assert fastdl.relu(x).shape == X.shape


def test_memory_of_dead_arrays_serves_again() -> None:
    """On its stream only; what another library has seen does not."""
    fastdl.empty_memory_pool()
    x = fastdl.to_device(X)
    y = fastdl.relu(x)
    pointer, part = y.pointer, y.reshape(-1)[4:]
    del y
    assert memory.kept_bytes() == 0  # a part lives
    del part
    assert memory.kept_bytes() == memory.rounded(X.nbytes)
    assert arrays.empty(X.shape, X.dtype, arrays.Place(0, 7)).pointer != pointer
    y = fastdl.relu(x)
    assert y.pointer == pointer
    assert y.__cuda_array_interface__["data"] == (pointer, False)
    del y
    kept = memory.kept_bytes()
    fastdl.relu(x)
    assert memory.kept_bytes() == kept + memory.rounded(X.nbytes)
    fastdl.empty_memory_pool()
    assert memory.kept_bytes() == 0


def test_kept_memory_is_given_up_before_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    x, failures = fastdl.to_device(X), []
    fastdl.relu(fastdl.to_device(np.zeros(5000, np.float32)))
    real = memory.cuda.device_array

    def once_full(*args: Any, **options: Any) -> Any:
        if not failures:
            failures.append(1)
            raise MemoryError
        return real(*args, **options)

    memory._kept.pop((0, 0, memory.rounded(X.nbytes)), None)
    monkeypatch.setattr(memory.cuda, "device_array", once_full)
    assert fastdl.relu(x).shape == X.shape
    assert failures


class Started:
    """A compiled kernel: a launch calls ``function``."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def __getitem__(self, _: Any) -> Any:
        return self.function


class nvJitLinkError(Exception):
    """As the linker's, whose binding the simulator does without."""


class CodedError(Exception):
    """As Numba's: with the driver's number."""

    code = 222


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (CodedError("unsupported version"), r"driver, of CUDA 12\.2, does not take.*unsupported v"),
        (Exception("CUDA_ERROR_UNSUPPORTED_PTX_VERSION: the"), r"CUDA 12\.2, does not take.*PTX"),
        (nvJitLinkError("ERROR_PTX_COMPILE (4)"), r"nvidia-nvjitlink does not take.*--upgrade"),
    ],
)
def test_a_driver_that_refuses_the_code_is_an_error(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> Any:
        raise error

    kernel = launch.FACTORIES["elementwise.unary"](np.float32, "relu")
    monkeypatch.setattr(kernel, "_compiled", {})
    monkeypatch.setattr(kernel, "_compile", lambda: Started(refused))
    monkeypatch.setattr(gpu, "driver_version", lambda: (12, 2))
    with pytest.raises(fastdl.BackendError, match=message):
        fastdl.relu(fastdl.to_device(np.ones(4, np.float32)))


def test_arrays_of_the_host_are_copied_with_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_warned", False)
    with fastdl.use_backend("cuda"):
        with pytest.warns(UserWarning, match=r"fastdl\.to_device") as told:
            out = [fastdl.relu(X), fastdl.relu(X)]
        assert len(told) == 1
    assert isinstance(out[1], np.ndarray)


def test_a_network_trains_without_a_copy(copies: list[int]) -> None:
    """Three steps on the GPU are those of the reference; nothing but the loss comes back."""
    x, target = normal((6, 2, 6, 6), np.float32, 1), np.array([0, 1, 2, 0, 1, 2])
    start = [normal((3, 2, 3, 3), np.float32, 2), normal((3, 27), np.float32, 3) / 9]
    losses: dict[str, list[float]] = {}
    for place in ("host", "device"):
        move = fastdl.to_device if place == "device" else np.copy
        data, (filters, matrix) = move(x), map(move, start)
        losses[place] = []
        for _ in range(3):
            planes = fastdl.conv2d(data, filters, padding=1, activation="relu")
            pooled, indices = fastdl.max_pool2d(planes, 2, return_indices=True)
            flat = pooled.reshape(6, 27)
            scores = fastdl.linear(flat, matrix)
            losses[place].append(float(fastdl.cross_entropy(scores, target)))
            grad = fastdl.cross_entropy_backward(scores, target)
            grad, grad_matrix, _ = fastdl.linear_backward(grad, flat, matrix)
            grad = fastdl.max_pool2d_backward(grad.reshape(6, 3, 3, 3), indices, planes.shape)
            grad = fastdl.relu_backward(grad, planes)
            _, grad_filters, _ = fastdl.conv2d_backward(grad, data, filters, padding=1)
            _descend([filters, matrix], [grad_filters, grad_matrix], place)
    assert copies == [2, 2, 2]  # the loss, and how many classes there are not
    np.testing.assert_allclose(losses["device"], losses["host"], rtol=1e-5)


def _descend(params: list[Any], grads: list[Any], place: str) -> None:
    from fastdl.backends import registry
    from fastdl.backends.table import OptimizerStep

    kernels = registry.get("cuda" if place == "device" else "reference")
    step = OptimizerStep(rule="sgd", lr=0.1, beta1=0.0, beta2=0.0, eps=0.0, step=1, grad_scale=1.0)
    kernels.optimizer_step(step, params, grads, [], [], np.zeros((2, 3)))
