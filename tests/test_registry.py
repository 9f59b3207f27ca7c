"""Which backends are here, and which one serves a call."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from support import run_python

import fastdl
from fastdl.backends import registry, table

HERE = [name for name, reason in fastdl.available_backends().items() if reason is None]


@pytest.mark.skipif(
    os.environ.get("FASTDL_NO_EXT", "") not in ("", "0"), reason="installed without extension"
)
def test_the_compiled_backend_is_here() -> None:
    assert fastdl.available_backends()["compiled"] is None


def test_the_others_need_no_compiler() -> None:
    assert {"jit", "reference", "naive"} <= set(HERE)


@pytest.mark.parametrize("name", HERE)
def test_every_backend_has_every_kernel(name: str) -> None:
    module = registry.get(name)
    missing = [kernel for kernel in table.KERNELS if not callable(getattr(module, kernel, None))]
    assert not missing
    assert isinstance(module.DENSE, bool)


def test_the_table_is_whole() -> None:
    assert len(table.KERNELS) == 36
    assert {"conv2d", "batch_norm_backward", "dropout"} <= set(table.KERNELS)


BLOCK = """
import sys
for name in {missing!r}:
    sys.modules[name] = None
import numpy as np
import fastdl
from fastdl.backends.registry import current_name
assert fastdl.relu(np.float32([-1, 2])).tolist() == [0, 2]
print(current_name())
"""


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ([], HERE[0]),
        (["fastdl.backends.compiled"], "jit"),
        (["fastdl.backends.compiled", "numba"], "reference"),
    ],
    ids=["nothing", "compiled", "compiled and numba"],
)
def test_fallback(missing: list[str], expected: str) -> None:
    assert run_python(BLOCK.format(missing=missing), FASTDL_BACKEND="") == expected


@pytest.mark.parametrize(
    ("name", "module", "remedy"),
    [("jit", "numba", "pip install numba"), ("compiled", "fastdl.backends.compiled", "compiler")],
)
def test_a_missing_backend_says_what_to_install(name: str, module: str, remedy: str) -> None:
    answer = run_python(
        f"import sys; sys.modules[{module!r}] = None\n"
        f"import fastdl\n"
        f"try: fastdl.relu([1.0], backend={name!r})\n"
        f"except fastdl.BackendError as error: print(error)"
    )
    assert remedy in answer
    assert f"backend={name!r}" in answer


def test_use_backend_nests_and_ends() -> None:
    before = registry.current_name()
    with fastdl.use_backend("naive"):
        assert registry.current_name() == "naive"
        with fastdl.use_backend("reference"):
            assert registry.current_name() == "reference"
            assert registry.current_name("naive") == "naive"
        assert registry.current_name() == "naive"
    assert registry.current_name() == before


def test_use_backend_ends_after_an_error() -> None:
    before = registry.current_name()
    with pytest.raises(RuntimeError), fastdl.use_backend("naive"):
        raise RuntimeError
    assert registry.current_name() == before


def test_use_backend_is_the_thread_s_own() -> None:
    before = registry.current_name()
    with fastdl.use_backend("naive"), ThreadPoolExecutor(1) as pool:
        assert pool.submit(registry.current_name).result() == before


def test_the_environment_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTDL_BACKEND", "naive")
    assert registry.current_name() == "naive"
    with fastdl.use_backend("reference"):
        assert registry.current_name() == "reference"
    monkeypatch.setenv("FASTDL_BACKEND", "gpu")
    with pytest.raises(fastdl.BackendError, match=r"FASTDL_BACKEND must be one of .*'gpu'"):
        fastdl.relu(np.ones(3))


def test_a_choice_reaches_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    module = registry.get("naive")
    monkeypatch.setattr(module, "relu", lambda x, out: calls.append(x.shape))
    fastdl.relu(np.ones(3), backend="naive")
    with fastdl.use_backend("naive"):
        fastdl.relu(np.ones(4))
    fastdl.relu(np.ones(5), backend="reference")
    assert calls == [(3,), (4,)]


@pytest.mark.parametrize("name", ["gpu", "", "Compiled"])
def test_an_unknown_name_is_an_error(name: str) -> None:
    with pytest.raises(fastdl.BackendError, match="backend must be one of compiled, jit"):
        fastdl.relu(np.ones(3), backend=name)
    with pytest.raises(fastdl.BackendError, match="backend must be one of compiled, jit"):
        fastdl.use_backend(name).__enter__()


@pytest.mark.parametrize("name", [1, ["jit"], np])
def test_a_name_that_is_no_string_is_an_error(name: object) -> None:
    with pytest.raises(fastdl.DTypeError, match="backend must be a backend's name"):
        fastdl.relu(np.ones(3), backend=name)


def test_the_import_is_light() -> None:
    heavy = ["numba", "llvmlite", "matplotlib", "sklearn", "scipy", "torch", "tqdm", "safetensors"]
    code = f"import sys, fastdl; print([name for name in {heavy} if name in sys.modules])"
    assert run_python(code) == "[]"


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts threads in /proc")
def test_the_import_starts_no_thread() -> None:
    code = "import os; print(len(os.listdir('/proc/self/task')))"
    # NumPy's BLAS may have its own; one thread keeps it from that.
    assert run_python(f"import fastdl; {code}", OPENBLAS_NUM_THREADS="1") == "1"
