"""Every wrong argument is refused by the right exception, which says what is wrong.

And a call that is refused has written nothing: neither ``out`` nor the running
statistics nor any other array.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from support import normal

import fastdl
from fastdl import ArgumentError, BackendError, DTypeError, OutputError, ShapeError
from fastdl.backends import registry

from .calls import CALLS, ELEMENTWISE, INPUTS, WITH_OUT, float_arguments

NAN = float("nan")


def refuse(
    name: str, error: type[Exception], message: str, /, backend: Any = "reference", **changed: Any
) -> None:
    """The valid call of ``name``, with some arguments ``changed``, is refused and writes nothing."""
    arguments = {**CALLS[name](), **changed}
    arrays = [value for value in arguments.values() if isinstance(value, np.ndarray)]
    before = [array.tobytes() for array in arrays]
    with pytest.raises(error, match=message) as caught:
        getattr(fastdl, name)(**arguments, backend=backend)
    assert caught.type is error
    assert before == [array.tobytes() for array in arrays]


@pytest.mark.parametrize("name", CALLS)
def test_the_calls_that_the_table_varies_are_valid(name: str, backend: str) -> None:
    arguments = CALLS[name]()
    result = getattr(fastdl, name)(**arguments, backend=backend)
    if "out" in arguments:
        assert result is arguments["out"]


def test_every_public_kernel_is_in_the_table() -> None:
    from fastdl import functional

    assert sorted(CALLS) == sorted(functional.__all__)
    assert set(functional.__all__) < set(fastdl.__all__)


# --- backends ----------------------------------------------------------------


@pytest.mark.parametrize("name", CALLS)
def test_unknown_backend(name: str) -> None:
    refuse(name, BackendError, r"^backend must be one of compiled, jit, .*, got 'cudnn'$", "cudnn")
    refuse(name, DTypeError, r"^backend must be a backend's name, got 3$", 3)


def test_unknown_backend_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match=r"^backend must be one of .*, got 'cudnn'$"):
        fastdl.use_backend("cudnn").__enter__()
    monkeypatch.setenv("FASTDL_BACKEND", "cudnn")
    refuse("relu", BackendError, r"^FASTDL_BACKEND must be one of .*, got 'cudnn'$", None)


# --- dtypes --------------------------------------------------------------------


@pytest.mark.parametrize(("name", "key"), INPUTS)
@pytest.mark.parametrize(
    "dtype", ["float16", "int64", "bool", "longdouble", "complex64", "float64-swapped"]
)
def test_unserved_dtype(name: str, key: str, dtype: str) -> None:
    value = CALLS[name]()[key]
    swapped = dtype == "float64-swapped"
    value = value.astype(value.dtype.newbyteorder() if swapped else dtype)
    # Half of a complex number would be lost.
    remedy = "" if dtype == "complex64" else rf"; convert it with {key}\.astype\(np\.float\d\d\)"
    message = (
        rf"^{key} must be (float32 or float64|float64 like the call's other arrays), "
        rf"got {re.escape(str(value.dtype))}{remedy}$"
    )
    refuse(name, DTypeError, message, **{key: value})


@pytest.mark.parametrize(("name", "key"), INPUTS)
def test_mixed_dtypes(name: str, key: str) -> None:
    arguments = CALLS[name]()
    if len(float_arguments(name)) == 1:
        if "out" in arguments:
            refuse(
                name,
                OutputError,
                r"^out must be float32 like the input, got float64$",
                **{key: arguments[key].astype(np.float32)},
            )
        return
    message = (
        r"must be float\d\d like the call's other arrays, got float\d\d; "
        r"convert it with \w+\.astype\(np\.float\d\d\)$"
    )
    refuse(name, DTypeError, message, **{key: arguments[key].astype(np.float32)})


@pytest.mark.parametrize(("name", "key"), INPUTS)
@pytest.mark.parametrize(
    ("value", "got"),
    [
        ("abc", "str"),
        (b"abc", "bytes"),
        (object(), "object"),
        ({}, "dict"),
        ([[1.0], [1.0, 2.0]], "list, which NumPy cannot read: .*"),
        (3, r"int64; convert it with \w+\.astype\(np\.float\d\d\)"),
        ([1, 2], r"int64; convert it with \w+\.astype\(np\.float\d\d\)"),
    ],
)
def test_not_an_array(name: str, key: str, value: Any, got: str) -> None:
    refuse(name, DTypeError, rf"^{key} must be .*, got {got}$", **{key: value})


@pytest.mark.parametrize(("name", "key"), INPUTS)
def test_masked_arrays_are_refused(name: str, key: str) -> None:
    value = np.ma.masked_greater(CALLS[name]()[key], 0)
    message = rf"^{key} must be a plain array, got a masked array, .* with {key}\.filled\(\.\.\.\)$"
    refuse(name, DTypeError, message, **{key: value})


@pytest.mark.parametrize(("name", "key"), [pair for pair in INPUTS if pair[1] in ("x", "grad")])
def test_none_is_no_array(name: str, key: str) -> None:
    refuse(name, DTypeError, rf"^{key} must be an array of .*, got None$", **{key: None})


class OnDevice:
    """What a tensor on a GPU shows through DLPack."""

    def __dlpack__(self, **_: Any) -> Any:
        raise AssertionError("must not be exported")

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)


class CudaOnly:
    """What a device array of Numba shows."""

    __cuda_array_interface__ = {}  # noqa: RUF012

    def __array__(self) -> Any:
        raise AssertionError("must not be copied")


class Unreadable:
    """A tensor that refuses to be exported, as one that requires its gradient does."""

    def __dlpack__(self, **_: Any) -> Any:
        raise BufferError("use tensor.detach()")

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


@pytest.mark.parametrize("value", [OnDevice(), CudaOnly()])
def test_device_arrays_are_refused_without_the_cuda_backend(
    value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "why_missing", {"cuda": "told so"}.get)
    kind = type(value).__name__
    message = rf"^got {kind} on a GPU, and the cuda backend is not available here: told so; or copy"
    refuse("relu", BackendError, message, backend=None, x=value)
    refuse("relu", BackendError, message, x=value)
    message = rf"^weight must be in the CPU's memory, got {kind} on a device, .* \(told so\); copy"
    refuse("linear", DTypeError, message, weight=value)


@pytest.mark.parametrize("value", [OnDevice(), CudaOnly()])
def test_device_arrays_are_refused_by_other_backends(
    value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "why_missing", {}.get)
    refuse("relu", BackendError, r"^backend must be 'cuda' .* got 'reference'; ", x=value)


def test_what_cannot_be_exported_is_refused() -> None:
    message = r"^x must be an array, got Unreadable, .*: use tensor\.detach\(\)$"
    refuse("relu", DTypeError, message, x=Unreadable())


# --- out -----------------------------------------------------------------------


@pytest.mark.parametrize("name", WITH_OUT)
def test_unusable_out(name: str) -> None:
    good = CALLS[name]()["out"]
    shape = re.escape(str(good.shape))
    read_only = good.copy()
    read_only.flags.writeable = False
    for out, message in (
        (np.zeros((*good.shape, 1)), rf"^out must have shape {shape}, got {shape[:-2]}, 1\\\)$"),
        (good[1:], rf"^out must have shape {shape}, got \({good.shape[0] - 1}, "),
        (good.astype(np.float32), r"^out must be float64 like the input, got float32$"),
        (good.astype(np.int64), r"^out must be float64 like the input, got int64$"),
        (good.astype(good.dtype.newbyteorder()), r"^out must be float64 like the input, got .f8$"),
        (read_only, r"^out must be writable, got a read-only array$"),
        (good.tolist(), r"^out must be a NumPy array, got list$"),
        (np.ma.array(good), r"^out must be a NumPy array, got MaskedArray$"),
    ):
        refuse(name, OutputError, message.replace(r"\\\)", r"\)"), out=out)


@pytest.mark.parametrize(
    ("name", "key"), [(name, key) for name in WITH_OUT for key in float_arguments(name)]
)
def test_out_that_shares_one_element_with_an_input(name: str, key: str) -> None:
    arguments = CALLS[name]()
    value, out = arguments[key], arguments["out"]
    memory = normal((value.size + out.size - 1,))
    memory[: value.size] = value.ravel()
    shared = {
        key: memory[: value.size].reshape(value.shape),
        "out": memory[value.size - 1 :].reshape(out.shape),
    }
    message = rf"^out must share no memory with {key}, got one that overlaps it$"
    refuse(name, OutputError, message, **shared)


@pytest.mark.parametrize("name", WITH_OUT)
def test_out_that_is_the_input(name: str) -> None:
    arguments = CALLS[name]()
    x = arguments.get("x")
    if x is None or x.shape != arguments["out"].shape:
        return
    if name in ELEMENTWISE:
        flipped = x[..., ::-1]
        refuse(name, OutputError, r"^out must share no memory with x", x=x, out=flipped)
    else:
        refuse(name, OutputError, r"^out must share no memory with x", x=x, out=x)


def test_interleaved_out_is_no_overlap() -> None:
    memory = normal((6, 8))
    expected = np.maximum(memory[:, ::2], 0)
    fastdl.relu(memory[:, ::2], out=memory[:, 1::2], backend="reference")
    np.testing.assert_array_equal(memory[:, 1::2], expected)


# --- integers --------------------------------------------------------------------

#: The integers of each function, with the smallest one allowed.
INTEGERS = [
    ("conv2d", "stride", 1),
    ("conv2d", "padding", 0),
    ("conv2d", "dilation", 1),
    ("conv2d", "groups", 1),
    ("conv2d_backward", "stride", 1),
    ("conv2d_backward", "padding", 0),
    ("conv2d_backward", "dilation", 1),
    ("conv2d_backward", "groups", 1),
    ("conv_transpose2d", "stride", 1),
    ("conv_transpose2d", "padding", 0),
    ("conv_transpose2d", "output_padding", 0),
    ("conv_transpose2d", "dilation", 1),
    ("conv_transpose2d", "groups", 1),
    ("conv_transpose2d_backward", "stride", 1),
    ("conv_transpose2d_backward", "padding", 0),
    ("conv_transpose2d_backward", "output_padding", 0),
    ("conv_transpose2d_backward", "dilation", 1),
    ("conv_transpose2d_backward", "groups", 1),
    ("im2col", "kernel_size", 1),
    ("im2col", "dilation", 1),
    ("im2col", "padding", 0),
    ("im2col", "stride", 1),
    ("col2im", "output_size", 1),
    ("col2im", "kernel_size", 1),
    ("col2im", "dilation", 1),
    ("col2im", "padding", 0),
    ("col2im", "stride", 1),
    ("max_pool2d", "kernel_size", 1),
    ("max_pool2d", "stride", 1),
    ("max_pool2d", "padding", 0),
    ("max_pool2d", "dilation", 1),
    ("avg_pool2d", "kernel_size", 1),
    ("avg_pool2d", "stride", 1),
    ("avg_pool2d", "padding", 0),
    ("avg_pool2d", "divisor_override", 1),
    ("avg_pool2d_backward", "kernel_size", 1),
    ("avg_pool2d_backward", "stride", 1),
    ("avg_pool2d_backward", "padding", 0),
    ("avg_pool2d_backward", "divisor_override", 1),
    ("adaptive_avg_pool2d", "output_size", 1),
    ("softmax", "dim", -2),
    ("softmax_backward", "dim", -2),
    ("log_softmax", "dim", -2),
    ("log_softmax_backward", "dim", -2),
]
SINGLE = ("groups", "divisor_override", "dim")


@pytest.mark.parametrize(("name", "key", "minimum"), INTEGERS)
def test_integers(name: str, key: str, minimum: int) -> None:
    for value in (1.0, np.float64(2), True, np.True_, "1" if key != "padding" else b"1", 1j, {}):
        message = rf"^{key}(\[\d\])? must be an integer, got {re.escape(repr(value))}$"
        refuse(name, DTypeError, message, **{key: value})
    message = rf"^{key}(\[\d\])? must be at least {minimum}, got {minimum - 1}$"
    refuse(name, ArgumentError, message, **{key: minimum - 1})
    if key != "dim":
        message = rf"^{key}(\[\d\])? must be below 2\*\*31, got {2**31}$"
        refuse(name, ArgumentError, message, **{key: 2**31})


@pytest.mark.parametrize(
    ("name", "key", "minimum"), [row for row in INTEGERS if row[1] not in SINGLE]
)
def test_pairs_of_integers(name: str, key: str, minimum: int) -> None:
    # Geometries are remembered, and (1, 1) == (1.0, 1.0) == (True, True).
    getattr(fastdl, name)(**CALLS[name](), backend="reference")
    given = CALLS[name]().get(key, minimum)
    good = given[0] if isinstance(given, tuple) else given
    for bad in (float(good), True, None):
        if bad is None and name == "adaptive_avg_pool2d":
            continue
        for value in ((good, bad), [bad, good], (bad, bad)):
            message = rf"^{key}(\[\d\])? must be an integer, got {re.escape(repr(bad))}$"
            refuse(name, DTypeError, message, **{key: value})
    message = rf"^{key}(\[\d\])? must be at least {minimum}, got {minimum - 1}$"
    refuse(name, ArgumentError, message, **{key: (good, minimum - 1)})
    for value in ((), (1,), [1, 1, 1]):
        message = rf"^{key} must be an integer or a pair.*, got {re.escape(repr(value))}$"
        refuse(name, ArgumentError, message, **{key: value})


@pytest.mark.parametrize(
    "name",
    [
        "max_pool2d_backward",
        "avg_pool2d_backward",
        "adaptive_avg_pool2d_backward",
        "global_avg_pool2d_backward",
    ],
)
def test_input_shape(name: str) -> None:
    for shape in ((2, 3, 4), [2, 3, 4, 5, 1], 4, None, "2345"):
        message = (
            rf"^input_shape must be four integers \(N, C, H, W\), got {re.escape(repr(shape))}$"
        )
        refuse(name, ShapeError, message, input_shape=shape)
    refuse(
        name,
        DTypeError,
        r"^input_shape\[2\] must be an integer, got 4\.0$",
        input_shape=(2, 3, 4.0, 5),
    )
    refuse(
        name,
        ArgumentError,
        r"^input_shape\[3\] must be at least 0, got -5$",
        input_shape=(2, 3, 4, -5),
    )
    refuse(name, ShapeError, r"^grad must have shape \(7, 3, ", input_shape=(7, 3, 4, 5))


@pytest.mark.parametrize(
    "name", ["conv2d_backward", "conv_transpose2d_backward", "linear_backward"]
)
def test_needs(name: str) -> None:
    for needs in ((True, True), True, None, "yes"):
        message = (
            rf"^needs must be three booleans \(x, weight, bias\), got {re.escape(repr(needs))}$"
        )
        refuse(name, ArgumentError, message, needs=needs)


# --- shapes ------------------------------------------------------------------------

RANKS = [
    ("conv2d", "x", r"4 dimensions \(N, C, H, W\)"),
    ("conv2d", "weight", r"4 dimensions \(O, C / groups, KH, KW\)"),
    ("conv2d_backward", "x", r"4 dimensions \(N, C, H, W\)"),
    ("conv2d_backward", "weight", r"4 dimensions \(O, C / groups, KH, KW\)"),
    ("conv_transpose2d", "x", r"4 dimensions \(N, C, H, W\)"),
    ("conv_transpose2d", "weight", r"4 dimensions \(C, O / groups, KH, KW\)"),
    ("conv_transpose2d_backward", "x", r"4 dimensions \(N, C, H, W\)"),
    ("conv_transpose2d_backward", "weight", r"4 dimensions \(C, O / groups, KH, KW\)"),
    ("im2col", "x", r"4 dimensions \(N, C, H, W\)"),
    ("col2im", "col", r"3 dimensions \(N, C \* KH \* KW, OH \* OW\)"),
    ("max_pool2d", "x", r"4 dimensions \(N, C, H, W\)"),
    ("avg_pool2d", "x", r"4 dimensions \(N, C, H, W\)"),
    ("global_avg_pool2d", "x", r"4 dimensions \(N, C, H, W\)"),
    ("adaptive_avg_pool2d", "x", r"4 dimensions \(N, C, H, W\)"),
    ("adaptive_avg_pool2d_backward", "grad", r"4 dimensions \(N, C, OH, OW\)"),
    ("linear", "weight", r"2 dimensions \(O, I\)"),
    ("linear_backward", "weight", r"2 dimensions \(O, I\)"),
    ("cross_entropy", "x", r"2 dimensions \(N, K\)"),
    ("cross_entropy_backward", "x", r"2 dimensions \(N, K\)"),
]


@pytest.mark.parametrize(("name", "key", "expected"), RANKS)
def test_wrong_rank(name: str, key: str, expected: str) -> None:
    good = CALLS[name]()[key]
    for value in (good[0], good[None], good.sum()):
        shape = re.escape(str(value.shape))
        refuse(
            name, ShapeError, rf"^{key} must have {expected}, got shape {shape}$", **{key: value}
        )


#: Function, changed arguments, exception, message.
TABLE: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    # convolution: channels, groups, kernel, padding
    ("conv2d", {"weight": normal((6, 4, 3, 3))}, ShapeError,
     r"^weight must have 2 channels a filter \(x has 4 channels, groups=2\), got weight of shape \(6, 4, 3, 3\)$"),
    ("conv2d", {"groups": 3}, ShapeError,
     r"^groups must divide the channels of x, got groups=3 and x of shape \(2, 4, 6, 5\)$"),
    ("conv2d", {"groups": 4}, ShapeError,
     r"^groups must divide the filters of weight, got groups=4 and weight of shape \(6, 2, 3, 3\)$"),
    ("conv2d", {"weight": normal((6, 2, 9, 3))}, ShapeError,
     r"^the kernel must fit the padded input: kernel \(9, 3\) with dilation \(1, 1\) covers \(9, 3\), the padded input is \(8, 7\)$"),
    ("conv2d", {"dilation": (1, 4)}, ShapeError,
     r"^the kernel must fit the padded input: .* covers \(3, 9\), the padded input is \(8, 7\)$"),
    ("conv2d", {"weight": normal((6, 2, 0, 3))}, ShapeError,
     r"^weight must have no empty dimension, got shape \(6, 2, 0, 3\)$"),
    ("conv2d", {"weight": normal((0, 2, 3, 3))}, ShapeError,
     r"^weight must have no empty dimension, got shape \(0, 2, 3, 3\)$"),
    ("conv2d", {"bias": normal((5,))}, ShapeError, r"^bias must have shape \(6,\), got \(5,\)$"),
    ("conv2d", {"bias": normal((6, 1))}, ShapeError, r"^bias must have shape \(6,\), got \(6, 1\)$"),
    ("conv2d", {"padding": "full"}, ArgumentError,
     r"^padding must be 'same', 'valid', an integer, .*, got 'full'$"),
    ("conv2d", {"padding": "same", "stride": 2}, ArgumentError,
     r"^padding='same' needs stride 1, got stride=\(2, 2\)$"),
    ("conv2d", {"padding": (1, (0, -1))}, ArgumentError,
     r"^padding\[1\]\[1\] must be at least 0, got -1$"),
    ("conv2d", {"padding": ((1, 1.5), (0, 0))}, DTypeError,
     r"^padding\[0\]\[1\] must be an integer, got 1\.5$"),
    ("conv2d", {"padding": ((1, 1, 1), (0, 0))}, ArgumentError,
     r"^padding\[0\] must be an integer or a pair of integers, got \(1, 1, 1\)$"),
    ("conv2d", {"activation": "gelu"}, ArgumentError,
     r"^activation must be one of relu, sigmoid, tanh, got 'gelu'$"),
    ("conv2d", {"activation": np.array(["relu", "tanh"])}, ArgumentError, r"^activation must be one of "),
    ("conv2d", {"activation": True}, ArgumentError, r"^activation must be one of .*, got True$"),
    ("conv2d_backward", {"grad": normal((2, 6, 6, 6))}, ShapeError,
     r"^grad must have shape \(2, 6, 6, 5\), got \(2, 6, 6, 6\)$"),
    ("conv2d_backward", {"groups": 1}, ShapeError, r"^weight must have 4 channels a filter "),
    # transposed convolution
    ("conv_transpose2d", {"weight": normal((3, 3, 3, 3))}, ShapeError,
     r"^weight must have as many rows as x has channels, got weight of shape \(3, 3, 3, 3\) and x of shape \(2, 4, 3, 4\)$"),
    ("conv_transpose2d", {"groups": 3}, ShapeError,
     r"^groups must divide the channels of x, got groups=3 and x of shape \(2, 4, 3, 4\)$"),
    ("conv_transpose2d", {"output_padding": 2}, ArgumentError,
     r"^output_padding must be smaller than stride or dilation, got output_padding=\(2, 2\), stride=\(2, 2\), dilation=\(1, 1\)$"),
    ("conv_transpose2d", {"padding": 5}, ShapeError,
     r"^the output must have a positive size, got \(-2, 0\) from x of shape \(2, 4, 3, 4\)"),
    ("conv_transpose2d", {"bias": normal((4,))}, ShapeError, r"^bias must have shape \(6,\), got \(4,\)$"),
    ("conv_transpose2d", {"weight": normal((4, 0, 3, 3))}, ShapeError, r"^weight must have no empty dimension"),
    ("conv_transpose2d_backward", {"grad": normal((2, 6, 8, 9))}, ShapeError,
     r"^grad must have shape \(2, 6, 7, 9\), got \(2, 6, 8, 9\)$"),
    # im2col
    ("im2col", {"kernel_size": (5, 2)}, ShapeError, r"^the kernel must fit the padded input: kernel \(5, 2\)"),
    ("im2col", {"x": normal((2, 0, 4, 5))}, ShapeError,
     r"^x must have at least one channel, got shape \(2, 0, 4, 5\)$"),
    ("col2im", {"output_size": (5, 5)}, ShapeError, r"^col must have shape \(2, 12, 16\), got \(2, 12, 12\)$"),
    ("col2im", {"kernel_size": (2, 5)}, ShapeError,
     r"^col must have a multiple of 10 rows \(kernel_size=\(2, 5\)\), got shape \(2, 12, 12\)$"),
    ("col2im", {"col": normal((2, 0, 12))}, ShapeError, r"^col must have a multiple of 4 rows .*, got shape \(2, 0, 12\)$"),
    # pools
    ("max_pool2d", {"kernel_size": 6}, ShapeError, r"^the kernel must fit the padded input: kernel \(6, 6\)"),
    ("max_pool2d", {"padding": 2}, ArgumentError,
     r"^padding must be at most half of what the kernel covers, got padding=\(2, 2\), kernel_size=\(2, 2\), dilation=\(1, 1\)$"),
    ("max_pool2d", {"x": normal((1, 1, 0, 5)), "padding": 1}, ShapeError, r"^every window must hold an element of x"),
    ("max_pool2d", {"x": normal((1, 1, 1, 1)), "dilation": 4, "padding": 2}, ShapeError,
     r"^every window must hold an element of x, got x of shape \(1, 1, 1, 1\), kernel_size=\(2, 2\)"),
    ("max_pool2d_backward", {"indices": np.full((2, 3, 2, 2), 20)}, ArgumentError,
     r"^indices must be at least 0 and below 20, got values from 20 to 20$"),
    ("max_pool2d_backward", {"indices": np.full((2, 3, 2, 2), -1)}, ArgumentError,
     r"^indices must be at least 0 and below 20, got values from -1 to -1$"),
    ("max_pool2d_backward", {"indices": np.zeros((2, 3, 2, 2), np.int32)}, DTypeError,
     r"^indices must be int64, got int32; convert it with indices\.astype\(np\.int64\)$"),
    ("max_pool2d_backward", {"indices": np.zeros((2, 3, 2, 2))}, DTypeError,
     r"^indices must be int64, got float64; convert it with indices\.astype\(np\.int64\)$"),
    ("max_pool2d_backward", {"indices": np.zeros((2, 3, 2, 1), int)}, ShapeError,
     r"^indices must have shape \(2, 3, 2, 2\), got \(2, 3, 2, 1\)$"),
    ("max_pool2d_backward", {"grad": normal((2, 3, 4))}, ShapeError, r"^grad must have 4 dimensions \(N, C, OH, OW\)"),
    ("avg_pool2d", {"padding": (0, 2)}, ArgumentError, r"^padding must be at most half of what the kernel covers"),
    ("avg_pool2d", {"kernel_size": (5, 1)}, ShapeError, r"^the kernel must fit the padded input"),
    ("avg_pool2d_backward", {"grad": normal((2, 3, 2, 3))}, ShapeError,
     r"^grad must have shape \(2, 3, 2, 2\), got \(2, 3, 2, 3\)$"),
    ("global_avg_pool2d", {"x": normal((2, 3, 0, 5))}, ShapeError,
     r"^x must have at least one row and one column, got shape \(2, 3, 0, 5\)$"),
    ("global_avg_pool2d_backward", {"grad": normal((2, 3, 1, 2))}, ShapeError,
     r"^grad must have shape \(2, 3, 1, 1\), got \(2, 3, 1, 2\)$"),
    ("adaptive_avg_pool2d", {"output_size": (1, 2, 3)}, ArgumentError,
     r"^output_size must be an integer or a pair.*, got \(1, 2, 3\)$"),
    ("adaptive_avg_pool2d_backward", {"grad": normal((2, 3, 0, 2))}, ShapeError,
     r"^grad must have at least one row and one column, got shape \(2, 3, 0, 2\)$"),
    ("adaptive_avg_pool2d_backward", {"input_shape": (2, 3, 0, 2)}, ShapeError,
     r"^input_shape must have at least one row and one column, got shape \(2, 3, 0, 2\)$"),
    # batch norm
    ("batch_norm", {"x": normal((3,))}, ShapeError, r"^x must have 2 or more dimensions \(N, C, \.\.\.\), got shape \(3,\)$"),
    ("batch_norm", {"running_mean": normal((4,))}, ShapeError, r"^running_mean must have shape \(3,\), got \(4,\)$"),
    ("batch_norm", {"running_var": normal((3, 1))}, ShapeError, r"^running_var must have shape \(3,\), got \(3, 1\)$"),
    ("batch_norm", {"weight": normal((2,))}, ShapeError, r"^weight must have shape \(3,\), got \(2,\)$"),
    ("batch_norm", {"bias": normal((2,))}, ShapeError, r"^bias must have shape \(3,\), got \(2,\)$"),
    ("batch_norm", {"running_mean": None}, DTypeError, r"^running_mean must be an array of float64 .*, got None$"),
    ("batch_norm", {"momentum": NAN, "training": True}, ArgumentError, r"^momentum must be between 0 and 1, got nan$"),
    ("batch_norm", {"momentum": 1.5, "training": True}, ArgumentError, r"^momentum must be between 0 and 1, got 1\.5$"),
    ("batch_norm", {"momentum": None, "training": True}, DTypeError, r"^momentum must be a real number, got None$"),
    ("batch_norm", {"eps": -1e-5}, ArgumentError, r"^eps must be at least 0, got -1e-05$"),
    ("batch_norm", {"eps": NAN}, ArgumentError, r"^eps must be at least 0, got nan$"),
    ("batch_norm", {"eps": "1"}, DTypeError, r"^eps must be a real number, got '1'$"),
    ("batch_norm", {"activation": "gelu", "training": True}, ArgumentError,
     r"^activation must be one of relu, sigmoid, tanh, got 'gelu'$"),
    ("batch_norm", {"x": normal((1, 3, 1, 1)), "out": None, "training": True}, ShapeError,
     r"^x must have more than 1 value per channel in training, got shape \(1, 3, 1, 1\)$"),
    ("batch_norm", {"training": True, "running_var": normal((4,))}, ShapeError,
     r"^running_var must have shape \(3,\), got \(4,\)$"),
    ("batch_norm", {"training": True, "running_mean": [0.0, 0.0, 0.0]}, DTypeError,
     r"^running_mean must be a NumPy array \(training updates it in place\), got list$"),
    ("batch_norm", {"training": True, "running_var": np.broadcast_to(1.0, (3,))}, OutputError,
     r"^running_var must be writable \(training updates it in place\), got a read-only array$"),
    ("batch_norm", {"training": True, "running_var": np.zeros(3, np.float32)}, DTypeError,
     r"^running_var must be float64 like the call's other arrays, got float32"),
    ("batch_norm", {"training": True, "out": normal((2, 3, 4, 4))}, OutputError,
     r"^out must have shape \(2, 3, 4, 5\), got \(2, 3, 4, 4\)$"),
    ("batch_norm_backward", {"x": normal((2, 3, 4))}, ShapeError,
     r"^x must have shape \(2, 3, 4, 5\), got \(2, 3, 4\)$"),
    ("batch_norm_backward", {"mean": normal((2,))}, ShapeError, r"^mean must have shape \(3,\), got \(2,\)$"),
    ("batch_norm_backward", {"inv_std": normal((2,))}, ShapeError, r"^inv_std must have shape \(3,\), got \(2,\)$"),
    ("batch_norm_backward", {"weight": normal((2,))}, ShapeError, r"^weight must have shape \(3,\), got \(2,\)$"),
    ("batch_norm_backward", {"y": normal((2, 3, 4))}, ShapeError,
     r"^y must have shape \(2, 3, 4, 5\), got \(2, 3, 4\)$"),
    ("batch_norm_backward", {"grad": normal((2,))}, ShapeError, r"^grad must have 2 or more dimensions"),
    # linear
    ("linear", {"x": normal((2, 3, 4))}, ShapeError,
     r"^x must have shape \(\.\.\., 5\) for weight of shape \(4, 5\), got \(2, 3, 4\)$"),
    ("linear", {"x": normal(())}, ShapeError, r"^x must have shape \(\.\.\., 5\) for weight of shape \(4, 5\), got \(\)$"),
    ("linear", {"bias": normal((5,))}, ShapeError, r"^bias must have shape \(4,\), got \(5,\)$"),
    ("linear_backward", {"grad": normal((2, 3, 5))}, ShapeError, r"^grad must have shape \(2, 3, 4\), got \(2, 3, 5\)$"),
    # element by element, and along one dimension
    ("relu_backward", {"x": normal((3, 4))}, ShapeError, r"^x must have shape \(3, 5\), got \(3, 4\)$"),
    ("sigmoid_backward", {"y": normal((5,))}, ShapeError, r"^y must have shape \(3, 5\), got \(5,\)$"),
    ("tanh_backward", {"y": normal((3, 1))}, ShapeError, r"^y must have shape \(3, 5\), got \(3, 1\)$"),
    ("softmax", {"dim": 2}, ArgumentError, r"^dim must be at most 1, got 2$"),
    ("softmax", {"x": normal(())}, ShapeError, r"^x must have at least 1 dimension, got shape \(\)$"),
    ("softmax_backward", {"y": normal((3, 4))}, ShapeError, r"^y must have shape \(3, 5\), got \(3, 4\)$"),
    ("log_softmax", {"dim": 2}, ArgumentError, r"^dim must be at most 1, got 2$"),
    ("log_softmax_backward", {"y": normal((3,))}, ShapeError, r"^y must have shape \(3, 5\), got \(3,\)$"),
    # cross-entropy
    ("cross_entropy", {"target": np.array([0, 1, 5])}, ArgumentError,
     r"^target must be at least 0 and below 5, got values from 0 to 5$"),
    ("cross_entropy", {"target": np.array([0, -100, 1])}, ArgumentError,
     r"^target must be at least 0 and below 5, got values from -100 to 1$"),
    ("cross_entropy", {"target": np.array([0.0, 1.0, 2.0])}, DTypeError,
     r"^target must be integers, got float64; convert it with target\.astype\(np\.int64\)$"),
    ("cross_entropy", {"target": np.array([True, False, True])}, DTypeError, r"^target must be integers, got bool"),
    ("cross_entropy", {"target": np.array([0, 1])}, ShapeError, r"^target must have shape \(3,\), got \(2,\)$"),
    ("cross_entropy", {"target": np.zeros((3, 5), int)}, ShapeError, r"^target must have shape \(3,\), got \(3, 5\)$"),
    ("cross_entropy", {"target": None}, DTypeError, r"^target must be an array of integers, got None$"),
    ("cross_entropy", {"reduction": "max"}, ArgumentError, r"^reduction must be one of mean, sum, none, got 'max'$"),
    ("cross_entropy", {"reduction": None}, ArgumentError, r"^reduction must be one of mean, sum, none, got None$"),
    ("cross_entropy", {"label_smoothing": 1.1}, ArgumentError, r"^label_smoothing must be between 0 and 1, got 1\.1$"),
    ("cross_entropy", {"label_smoothing": NAN}, ArgumentError, r"^label_smoothing must be between 0 and 1, got nan$"),
    ("cross_entropy_backward", {"target": np.array([0, 1, 5])}, ArgumentError, r"^target must be at least 0 and below 5"),
    ("cross_entropy_backward", {"grad": np.ones(3)}, DTypeError, r"^grad must be a real number, got array"),
    ("cross_entropy_backward", {"grad": np.ones(2), "reduction": "none"}, ShapeError,
     r"^grad must have shape \(3,\), got \(2,\)$"),
    # dropout
    ("dropout", {"p": NAN}, ArgumentError, r"^p must be between 0 and 1, got nan$"),
    ("dropout", {"p": -0.1}, ArgumentError, r"^p must be between 0 and 1, got -0\.1$"),
    ("dropout", {"p": 1.1, "training": False}, ArgumentError, r"^p must be between 0 and 1, got 1\.1$"),
    ("dropout", {"p": "half"}, DTypeError, r"^p must be a real number, got 'half'$"),
    ("dropout", {"p": True}, DTypeError, r"^p must be a real number, got True$"),
    ("dropout", {"rng": "seed"}, DTypeError, r"^rng must be a numpy\.random\.Generator or a seed, got 'seed'"),
    ("dropout", {"rng": -1}, DTypeError, r"^rng must be a numpy\.random\.Generator or a seed, got -1"),
    ("dropout_backward", {"p": 2}, ArgumentError, r"^p must be between 0 and 1, got 2$"),
    ("dropout_backward", {"mask": np.ones((3, 5))}, DTypeError,
     r"^mask must be bool, got float64; convert it with mask\.astype\(np\.bool_\)$"),
    ("dropout_backward", {"mask": np.ones((3, 4), bool)}, ShapeError, r"^mask must have shape \(3, 5\), got \(3, 4\)$"),
    ("dropout_backward", {"mask": None}, DTypeError, r"^mask must be an array of bool, got None$"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "changed", "error", "message"),
    TABLE,
    ids=[f"{row[0]}-{'-'.join(row[1])}-{position}" for position, row in enumerate(TABLE)],
)
def test_table(name: str, changed: dict[str, Any], error: type[Exception], message: str) -> None:
    refuse(name, error, message, **changed)


def test_running_statistics_must_be_apart() -> None:
    memory = np.ones(5)
    message = r"^running_var must share no memory with running_mean, got one that overlaps it$"
    statistics = {"running_mean": memory[:3], "running_var": memory[2:]}
    refuse("batch_norm", OutputError, message, training=True, **statistics)


def test_refused_dropout_draws_no_numbers() -> None:
    rng = np.random.default_rng(0)
    refuse("dropout", OutputError, "^out must have shape", rng=rng, out=np.empty(3))
    assert rng.random() == np.random.default_rng(0).random()


def test_errors_are_the_built_in_ones_too() -> None:
    for error in (ArgumentError, ShapeError, OutputError, BackendError):
        assert issubclass(error, (fastdl.FastdlError, ValueError))
        assert issubclass(error, ValueError)
    assert issubclass(DTypeError, TypeError)
    assert issubclass(DTypeError, fastdl.FastdlError)


# --- sizes that no memory holds --------------------------------------------------------


def test_more_elements_than_an_index_counts() -> None:
    image = np.broadcast_to(np.float32(1), (4, 1, 2**31, 4))
    one = np.ones((1, 1, 1, 1), np.float32)
    far = 2**31 - 1
    too_many = r"would have shape .*: \d+ elements, more than 2\*\*63 - 1$"
    with pytest.raises(ShapeError, match=rf"^the output {too_many}"):
        fastdl.conv2d(image, one, padding=far)
    with pytest.raises(ShapeError, match=rf"^the output {too_many}"):
        fastdl.conv_transpose2d(image, one, stride=far)
    with pytest.raises(ShapeError, match=rf"^the columns {too_many}"):
        fastdl.im2col(image[:, :, :, :1], (2**16, 1), padding=(2**15, 2**15))


def test_more_bytes_than_an_address_counts() -> None:
    x = np.ones((1, 1, 1, 1))
    with pytest.raises(ShapeError, match=r"^the output would have shape .*, too large for memory$"):
        fastdl.conv2d(x, x, padding=2**30)


def test_more_bytes_than_there_are() -> None:
    x = np.ones((1, 1, 1, 1))
    with pytest.raises(MemoryError, match="Unable to allocate"):
        fastdl.conv2d(x, x, padding=2**23)
