"""Threads: the same bits for any number, calls from several of them, forks."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import threadpoolctl
from support import assert_same, normal, run_python

import fastdl


def _everything(backend: str, size: int, dtype: Any) -> tuple[np.ndarray, ...]:
    """Every kernel once, on arrays large enough to be shared out among threads."""
    shape = (3, 9, size, size + 3)
    x, weight = normal(shape, dtype, 1), normal((10, 9, 3, 3), dtype, 2)
    depthwise = normal((9, 1, 3, 3), dtype, 3)
    options: dict[str, Any] = {"padding": 1, "backend": backend}
    out = fastdl.conv2d(x, weight, **options)
    grouped = fastdl.conv2d(x, depthwise, groups=9, **options)
    col = fastdl.im2col(x, 3, backend=backend)
    value, indices = fastdl.max_pool2d(x, 3, 2, 1, return_indices=True, backend=backend)
    average = fastdl.avg_pool2d(x, 3, 2, 1, backend=backend)
    normalised, mean, inv_std = fastdl.batch_norm(
        x, None, None, training=True, return_stats=True, backend=backend
    )
    y = fastdl.softmax(x, backend=backend)
    return (
        out,
        *fastdl.conv2d_backward(out, x, weight, **options),
        grouped,
        *fastdl.conv2d_backward(grouped, x, depthwise, groups=9, **options),
        col,
        fastdl.col2im(col, shape[2:], 3, backend=backend),
        value,
        indices,
        fastdl.max_pool2d_backward(average, indices, shape, backend=backend),
        average,
        fastdl.avg_pool2d_backward(average, shape, 3, 2, 1, backend=backend),
        fastdl.adaptive_avg_pool2d(x, (2, 3), backend=backend),
        fastdl.global_avg_pool2d(x, backend=backend),
        normalised,
        *fastdl.batch_norm_backward(x, normalised, mean, inv_std, backend=backend),
        y,
        fastdl.softmax_backward(x, y, backend=backend),
        fastdl.log_softmax(x, backend=backend),
        fastdl.sigmoid(x, backend=backend),
        fastdl.tanh(x, backend=backend),
        fastdl.relu(x, backend=backend),
    )


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("size", [3, 20])
def test_the_number_changes_no_bit(size: int, dtype: type, fast_backend: str) -> None:
    fastdl.set_num_threads(1)
    first = _everything(fast_backend, size, dtype)
    for number in (2, 3, 5):
        fastdl.set_num_threads(number)
        assert fastdl.get_num_threads() == number
        assert_same(_everything(fast_backend, size, dtype), first)


def test_concurrent_calls(dtype: type, fast_backend: str) -> None:
    sizes = [3, 11, 17, 8] * 3
    expected = {size: _everything(fast_backend, size, dtype) for size in set(sizes)}
    with ThreadPoolExecutor(4) as pool:
        for _ in range(2):
            results = pool.map(lambda size: _everything(fast_backend, size, dtype), sizes)
            for size, found in zip(sizes, results, strict=True):
                assert_same(found, expected[size])


FORK = """
import multiprocessing
import threading
import numpy as np
import fastdl

rng = np.random.default_rng(0)
x = rng.standard_normal((4, 16, 20, 20), np.float32)
weight = rng.standard_normal((16, 16, 3, 3), np.float32)

def compute():
    out = fastdl.conv2d(x, weight, padding=1, backend=BACKEND)
    normal = fastdl.batch_norm(out, None, None, training=True, backend=BACKEND)
    return fastdl.max_pool2d(fastdl.relu(normal, backend=BACKEND), 2, backend=BACKEND)

def child():
    assert np.array_equal(compute(), expected)

fastdl.set_num_threads(2)
expected = compute()
context = multiprocessing.get_context("fork")
for _ in range(2):
    process = context.Process(target=child)
    process.start()
    process.join(60)
    if process.exitcode is None:
        process.kill()
        raise SystemExit("the child hangs")
    assert process.exitcode == 0, process.exitcode
    child()  # the parent goes on
print("fine")
"""


def _backend_names() -> list[str]:
    return [name for name, reason in fastdl.available_backends().items() if reason is None]


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("name", [name for name in _backend_names() if name != "naive"])
def test_fork_in_the_middle(name: str) -> None:
    assert run_python(f"BACKEND = {name!r}\n{FORK}") == "fine"


COUNT = """
import os
import numpy as np
import fastdl

def tasks():
    return len(os.listdir("/proc/self/task"))

before = tasks()
x, weight = np.ones((4, 32, 40, 40), np.float32), np.ones((32, 32, 3, 3), np.float32)
fastdl.conv2d(x, weight, backend=BACKEND)
fastdl.relu(np.ones(10**6, np.float32), backend=BACKEND)
print(fastdl.get_num_threads(), tasks() - before)
"""

linux = pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="no /proc")


MOVE = """
import ctypes
import os
import numpy as np
import fastdl

here = ctypes.CDLL(None).sched_getcpu
x, weight = np.ones((4, 32, 40, 40), np.float32), np.ones((32, 32, 3, 3), np.float32)
before = set(os.listdir("/proc/self/task"))
fastdl.conv2d(x, weight, backend=BACKEND)
helpers = [int(task) for task in set(os.listdir("/proc/self/task")) - before]
for _ in range(100):  # until this thread did not move meanwhile
    own = here()
    for helper in helpers:
        os.sched_setaffinity(helper, {own})
    fastdl.conv2d(x, weight, backend=BACKEND)
    left = [helper for helper in helpers if own not in os.sched_getaffinity(helper)]
    if left:
        break
print(bool(left))
"""


@linux
@pytest.mark.skipif(
    len(getattr(os, "sched_getaffinity", lambda _: ())(0)) < 2, reason="1 processor"
)
@pytest.mark.parametrize("name", [name for name in _backend_names() if name in ("compiled", "jit")])
def test_a_helper_leaves_the_processor_of_the_caller(name: str) -> None:
    assert run_python(f"BACKEND = {name!r}\n{MOVE}", OMP_NUM_THREADS="2") == "True"


@linux
@pytest.mark.parametrize("name", [name for name in _backend_names() if name != "naive"])
def test_omp_num_threads_is_obeyed(name: str) -> None:
    assert run_python(f"BACKEND = {name!r}\n{COUNT}", OMP_NUM_THREADS="1") == "1 0"


def test_omp_num_threads_sets_the_number() -> None:
    code = "import fastdl; print(fastdl.get_num_threads())"
    assert run_python(code, OMP_NUM_THREADS="3") == "3"


@pytest.mark.skipif(
    fastdl.available_backends()["compiled"] is not None,
    reason="threadpoolctl acts on the OpenMP library",
)
@pytest.mark.usefixtures("threads")
def test_threadpoolctl_is_obeyed() -> None:
    fastdl.set_num_threads(3)
    with threadpoolctl.threadpool_limits(1, user_api="openmp"):
        assert fastdl.get_num_threads() == 1
        _everything("compiled", 5, np.float32)
    assert fastdl.get_num_threads() == 3


def _in_a_thread(function: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


@pytest.mark.usefixtures("threads")
def test_the_number_holds_in_every_thread() -> None:
    usual = fastdl.get_num_threads()
    fastdl.set_num_threads(1)
    assert _in_a_thread(fastdl.get_num_threads) == 1
    fastdl.set_num_threads(usual)
    assert _in_a_thread(fastdl.get_num_threads) == usual


@pytest.mark.parametrize("number", [0, -1, 1.5, "2", True, None])
def test_a_number_that_is_none_is_an_error(number: Any) -> None:
    usual = fastdl.get_num_threads()
    with pytest.raises((fastdl.ArgumentError, fastdl.DTypeError), match="threads"):
        fastdl.set_num_threads(number)
    assert fastdl.get_num_threads() == usual
