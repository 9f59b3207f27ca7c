"""Matrix products by cuBLAS: nvmath-python's and CuPy's functions, played by NumPy."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from support import assert_close, normal

import fastdl
from fastdl.backends import gpu

if not gpu.simulated() or fastdl.available_backends()["cuda"] is not None:
    pytest.skip("needs NUMBA_ENABLE_CUDASIM=1 and numba-cuda", allow_module_level=True)

from fastdl.backends.cuda import arrays, cublas

DTYPES = {0: np.dtype(np.float32), 1: np.dtype(np.float64)}
HANDLE = 77


class Stub:
    """cublasGemmStridedBatchedEx as its manual says, and what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.streams: list[int] = []
        self.handles = 0

    def create(self) -> int:
        self.handles += 1
        return HANDLE

    def multiply(
        self, handle: int, turn_a: int, turn_b: int, m: int, n: int, k: int, alpha: int, a: int,
        type_a: int, lda: int, apart_a: int, b: int, type_b: int, ldb: int, apart_b: int, beta: int,
        c: int, type_c: int, ldc: int, apart_c: int, batch: int, compute: int, algorithm: int,
    ) -> None:  # fmt: skip
        assert handle == HANDLE
        assert type_a == type_b == type_c
        assert algorithm == -1
        self.asked.append((m, n, k, batch, compute))
        dtype = DTYPES[type_a]
        kind = {4: ctypes.c_float, 8: ctypes.c_double}[dtype.itemsize]
        factor, old = (kind.from_address(number).value for number in (alpha, beta))
        for number in range(batch):
            left, right = (
                _columns(place + number * apart * dtype.itemsize, size, leading, dtype)
                for place, apart, size, leading in (
                    (a, apart_a, (k, m) if turn_a else (m, k), lda),
                    (b, apart_b, (n, k) if turn_b else (k, n), ldb),
                )
            )
            result = _columns(c + number * apart_c * dtype.itemsize, (m, n), ldc, dtype)
            product = factor * ((left.T if turn_a else left) @ (right.T if turn_b else right))
            result[...] = product + old * result if old else product


def _columns(address: int, size: tuple[int, int], leading: int, dtype: Any) -> np.ndarray:
    """The matrix at ``address``, stored by columns ``leading`` elements long."""
    rows, columns = size
    assert leading >= max(rows, 1)
    memory = (ctypes.c_char * (((columns - 1) * leading + rows) * dtype.itemsize)).from_address(
        address
    )
    flat = np.frombuffer(memory, dtype)
    steps = dtype.itemsize, leading * dtype.itemsize
    return np.lib.stride_tricks.as_strided(flat, size, steps)


def _nvmath(stub: Stub) -> dict[str, ModuleType]:
    functions = ModuleType("nvmath.bindings.cublas")
    functions.create = stub.create
    functions.set_stream = lambda handle, stream: stub.streams.append(stream)
    functions.gemm_strided_batched_ex = stub.multiply
    bindings = ModuleType("nvmath.bindings")
    bindings.cublas = functions
    return {"nvmath": ModuleType("nvmath"), "nvmath.bindings": bindings}


def _cupy(stub: Stub) -> dict[str, ModuleType]:
    @contextmanager
    def stream(handle: int) -> Iterator[None]:
        stub.streams.append(handle)
        yield

    functions, libraries = ModuleType("cublas"), ModuleType("cupy_backends.cuda.libs")
    functions.create, functions.gemmStridedBatchedEx = stub.create, stub.multiply
    libraries.cublas = functions
    streams = ModuleType("cupy.cuda")
    streams.ExternalStream = stream
    packages = ("cupy", "cupy_backends", "cupy_backends.cuda")
    return {name: ModuleType(name) for name in packages} | {
        "cupy.cuda": streams, "cupy_backends.cuda.libs": libraries, "nvmath": None,
    }  # type: ignore[dict-item] # fmt: skip


@pytest.fixture(params=[_nvmath, _cupy], ids=["nvmath", "cupy"])
def stub(request: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    """cuBLAS, of either package."""
    made = Stub()
    for name, module in request.param(made).items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(cublas, "SIMULATED", False)
    monkeypatch.setattr(cublas, "RUN", 4)
    for cached in (cublas.library, cublas._handle):
        cached.cache_clear()
    yield made
    for cached in (cublas.library, cublas._handle):
        cached.cache_clear()


def _on_gpu(function: Any, *arguments: Any, **options: Any) -> Any:
    moved = [fastdl.to_device(each) if isinstance(each, np.ndarray) else each for each in arguments]
    found = function(*moved, **options)
    return tuple(map(fastdl.to_host, found)) if isinstance(found, tuple) else fastdl.to_host(found)


X, WEIGHT, GRAD = normal((3, 10)), normal((7, 10), seed=1), normal((3, 7), seed=2)
IMAGES, FILTERS = normal((2, 5, 17, 16)), normal((6, 5, 1, 1), seed=1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("function", "arguments", "calls"),
    [
        (fastdl.linear, (X, WEIGHT, GRAD[0]), 1),
        (fastdl.linear_backward, (GRAD, X, WEIGHT), 2),
        (fastdl.conv2d, (IMAGES, FILTERS, FILTERS[:, 0, 0, 0]), 1),
        (fastdl.conv2d_backward, (normal((2, 6, 17, 16), seed=3), IMAGES, FILTERS), 2),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_products_of_rows(
    function: Any, arguments: Any, calls: int, dtype: Any, stub: Stub
) -> None:
    arguments = [array.astype(dtype) for array in arguments]
    found = _on_gpu(function, *arguments)
    assert_close(found, function(*arguments, backend="reference"), dtype, slack=2)
    assert stub.handles == 1
    firsts = [asked for asked in stub.asked if asked[4] == (68 if dtype == np.float32 else 70)]
    assert firsts == stub.asked
    assert len(stub.asked) == calls if dtype == np.float64 else len(stub.asked) > calls
    assert set(stub.streams) == {0}


def test_it_rounds_only_where_it_is_told_to(stub: Stub) -> None:
    for precision, number in (("float32", 68), ("tf32", 77), ("bf16", 75)):
        stub.asked.clear()
        with fastdl.use_precision(precision):
            _on_gpu(fastdl.linear, X.astype(np.float32), WEIGHT.astype(np.float32))
        assert {asked[4] for asked in stub.asked} == {number}
        assert len(stub.asked) == (3 if number == 68 else 1)


def test_the_result_s_stream(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    joined = []
    monkeypatch.setattr(arrays, "join", lambda later, earlier: joined.append((later, earlier)))
    x = fastdl.to_device(X)
    with fastdl.use_stream(5):
        weight = fastdl.to_device(WEIGHT)
    fastdl.linear(x, weight)
    assert stub.streams == [0]
    assert joined == [(0, 5), (5, 0)]
    fastdl.linear_backward(fastdl.to_device(GRAD), x, weight, needs=(True, False, False))
    assert stub.handles == 1


def test_what_is_no_plain_product_is_not_its(stub: Stub) -> None:
    images, filters = fastdl.to_device(IMAGES), fastdl.to_device(FILTERS)
    fastdl.conv2d(images, filters, activation="relu")
    fastdl.conv2d(images, filters, stride=2)
    fastdl.conv2d(images, filters, padding=1)
    fastdl.conv2d(images, fastdl.to_device(normal((10, 1, 1, 1))), groups=5)
    fastdl.linear(fastdl.to_device(X[:0]), fastdl.to_device(WEIGHT))
    assert stub.asked == []


def test_where_it_does_not_work_the_kernels_do(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> int:
        raise RuntimeError("no libcublas.so")

    monkeypatch.setattr(cublas, "library", lambda: cublas.Library(broken, stub.multiply))
    with pytest.warns(UserWarning, match=r"not used: no libcublas\.so"):
        found = _on_gpu(fastdl.linear, X, WEIGHT)
    assert_close(found, X @ WEIGHT.T, np.float64)
    monkeypatch.undo()
    monkeypatch.setattr(cublas, "SIMULATED", False)
    monkeypatch.setenv("FASTDL_CUBLAS", "0")
    cublas.library.cache_clear()
    assert cublas.library() is None
