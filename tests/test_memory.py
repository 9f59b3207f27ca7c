"""Memory of results: it is used again, bounded, given back, and survives threads and forks."""

from __future__ import annotations

import gc
import itertools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from support import run_python

import fastdl

pytestmark = pytest.mark.skipif(
    fastdl.available_backends()["compiled"] is not None, reason="the compiled backend keeps memory"
)

MEGABYTE = 2**20


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    gc.collect()
    limit = fastdl.memory_pool().limit_bytes
    fastdl.empty_memory_pool()
    yield
    fastdl.set_memory_pool(limit)


def result(megabytes: float) -> np.ndarray:
    return fastdl.relu(np.ones(int(megabytes * MEGABYTE / 4), np.float32))


def test_memory_is_used_again() -> None:
    out = result(3)
    address = out.ctypes.data
    assert address % 64 == 0
    before = fastdl.memory_pool()
    assert before.kept_bytes == 0
    assert before.used_bytes >= out.nbytes
    del out
    kept = fastdl.memory_pool()
    assert before.used_bytes == kept.used_bytes + kept.kept_bytes
    out = result(3)
    assert out.ctypes.data == address
    after = fastdl.memory_pool()
    assert (after.reused, after.made) == (before.reused + 1, before.made)
    assert np.all(out == 1)


def test_a_view_keeps_it() -> None:
    view = result(3)[5:7]
    other = result(3)
    other[:] = 9
    assert np.all(view == 1)


@pytest.mark.parametrize("size", [2**18, 2**18 + 4, 300_004, 2**20 - 64, 2**20, 5 * 10**6 + 4])
def test_a_block_holds_its_array(size: int) -> None:
    before = fastdl.memory_pool().used_bytes
    out = result(size / MEGABYTE)
    assert out.nbytes == size
    assert size + 64 <= fastdl.memory_pool().used_bytes - before <= 1.125 * (size + 64) + 4096


def test_every_block_has_its_own_array() -> None:
    arrays = [result(1) for _ in range(5)]
    for number, array in enumerate(arrays):
        array[:] = number
    del arrays[1], arrays[2]
    arrays += [result(1) for _ in range(4)]
    spans = sorted((array.ctypes.data, array.ctypes.data + array.nbytes) for array in arrays)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    assert [array[7] for array in arrays[:3]] == [0, 2, 4]


def test_the_limit_holds() -> None:
    fastdl.set_memory_pool(10 * MEGABYTE)
    assert fastdl.memory_pool().limit_bytes == 10 * MEGABYTE
    arrays = [result(size) for size in (1, 2, 3, 4, 5, 6)]
    while arrays:
        arrays.pop(0)
        assert fastdl.memory_pool().kept_bytes <= 10 * MEGABYTE
    # The ones that have waited longest went.
    made = fastdl.memory_pool().made
    arrays = [result(6)]
    assert fastdl.memory_pool().made == made
    arrays.append(result(1))
    assert fastdl.memory_pool().made == made + 1
    fastdl.set_memory_pool(0)
    arrays.clear()
    assert fastdl.memory_pool().kept_bytes == 0
    del arrays
    big = result(20)
    del big
    assert fastdl.memory_pool().kept_bytes == 0


def test_it_can_be_emptied() -> None:
    array = result(5)
    assert array.size
    del array
    assert fastdl.memory_pool().kept_bytes >= 5 * MEGABYTE
    fastdl.empty_memory_pool()
    assert fastdl.memory_pool().kept_bytes == 0
    assert fastdl.memory_pool().limit_bytes > 0


def test_small_results_are_numpys() -> None:
    before = fastdl.memory_pool()
    keep = fastdl.relu(np.ones(100, np.float32))
    assert fastdl.memory_pool() == before
    assert keep.size == 100


def test_the_arrays_are_ordinary() -> None:
    out = result(2)
    assert out.flags.owndata
    assert out.base is None
    out.resize(3 * MEGABYTE // 4, refcheck=False)
    assert np.all(out[: 2 * MEGABYTE // 4] == 1)
    assert np.all(out[2 * MEGABYTE // 4 :] == 0)
    out.resize(8, refcheck=False)
    assert out.tolist() == [1] * 8
    # Only results come from there.
    made = fastdl.memory_pool().made
    other = np.ones(2 * MEGABYTE)
    assert fastdl.memory_pool().made == made
    assert other.size


def test_threads_use_it_at_once() -> None:
    def work(seed: int) -> bool:
        right = True
        for step in range(30):
            value = np.float32(100 * seed + step)
            x = np.full(70_000 * (1 + (seed + step) % 3), value)
            right &= bool(np.all(fastdl.relu(x) == value))
        return right

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(12)))
    pool_state = fastdl.memory_pool()
    assert 0 <= pool_state.kept_bytes <= pool_state.limit_bytes


FORK = """
import os
import numpy as np
import fastdl
x = np.ones(10**6, np.float32)
alive, dead = fastdl.relu(x), fastdl.relu(x)
del dead
child = os.fork()
if child == 0:
    kept = fastdl.memory_pool().kept_bytes
    fine = kept == 0 and np.all(alive == 1) and np.all(fastdl.relu(x) == 1)
    del alive
    os._exit(0 if fine else 1)
assert os.waitpid(child, 0)[1] == 0
assert fastdl.memory_pool().kept_bytes > 0
assert np.all(fastdl.relu(x) == 1) and np.all(alive == 1)
print("fine")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_fork() -> None:
    assert run_python(FORK) == "fine"


@pytest.mark.parametrize("limit", [-1, 1.5, "2", True, None, 2**63])
def test_a_wrong_limit(limit: Any) -> None:
    before = fastdl.memory_pool()
    with pytest.raises((fastdl.ArgumentError, fastdl.DTypeError), match=r"^limit_bytes must be"):
        fastdl.set_memory_pool(limit)
    assert fastdl.memory_pool() == before


def test_without_the_compiled_backend() -> None:
    code = (
        "import sys; sys.modules['fastdl.backends.compiled'] = None\n"
        "import fastdl, numpy as np\n"
        "fastdl.set_memory_pool(5); fastdl.empty_memory_pool()\n"
        "out = fastdl.relu(np.ones(10**6))\n"
        "print(fastdl.memory_pool().limit_bytes, out.flags.owndata)"
    )
    assert run_python(code) == "0 True"
