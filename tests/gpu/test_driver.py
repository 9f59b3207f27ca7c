"""What a machine without a GPU, or with a driver that does not work, is told."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support import run_python

from fastdl.backends import gpu

ASK = """
from importlib.machinery import ModuleSpec
from fastdl.backends import gpu
gpu.find_spec = lambda name: ModuleSpec(name, None)
gpu.np.__version__ = "2.4.0"
print(gpu.why_missing())
"""


def test_the_package_is_asked_for() -> None:
    code = "from fastdl.backends import gpu\ngpu.find_spec = lambda name: None\n"
    told = run_python(code + "print(gpu.why_missing())", NUMBA_ENABLE_CUDASIM="")
    assert "numba-cuda is not installed" in told
    assert gpu.INSTALL in told


def test_no_driver() -> None:
    told = run_python(ASK, NUMBA_CUDA_DRIVER="/no/libcuda.so", NUMBA_ENABLE_CUDASIM="")
    assert "no NVIDIA driver is here" in told


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.parametrize(
    ("status", "count", "expected"),
    [
        (100, 0, "reports no GPU"),
        (0, 0, "reports no GPU"),
        (803, 0, "error 803 (told by a stub)"),
        (0, 1, "None"),
    ],
)
def test_a_driver_that_says_so(status: int, count: int, expected: str, tmp_path: Path) -> None:
    source, library = tmp_path / "stub.c", tmp_path / "libstub.so"
    source.write_text(
        f"int cuInit(unsigned f) {{ return {status}; }}\n"
        f"int cuDeviceGetCount(int *n) {{ *n = {count}; return 0; }}\n"
        "int cuGetErrorString(int s, const char **t) "
        '{ *t = "told by a stub"; return 0; }\n'
        "int cuDriverGetVersion(int *v) { *v = 13000; return 0; }\n"
        "int cuDeviceGet(int *d, int n) { *d = n; return 0; }\n"
        "int cuDeviceGetName(char *s, int n, int d) { s[0] = 'G'; s[1] = 0; return 0; }\n"
        "int cuDeviceTotalMem_v2(unsigned long *m, int d) { *m = 1ul << 34; return 0; }\n"
        "int cuDeviceGetAttribute(int *v, int a, int d) { *v = a; return 0; }\n"
    )
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    environment = {"NUMBA_CUDA_DRIVER": str(library), "NUMBA_ENABLE_CUDASIM": ""}
    assert expected in run_python(ASK, **environment)
    if count:
        told = run_python("from fastdl.backends import gpu; print(*gpu.gpus())", **environment)
        assert told == "G, compute capability 75.76, 16 GiB"


@pytest.mark.parametrize(
    ("driver", "packages", "expected"),
    [
        ((13, 0), 13, None),
        ((12, 2), 12, None),
        ((13, 1), 12, None),
        ((12, 4), 13, "CUDA up to 12.4, and the packages here are of CUDA 13; install a newer"),
        ((11, 8), 12, "a newer driver (of CUDA 12 or later)"),
    ],
)
def test_a_driver_older_than_the_packages(
    driver: tuple[int, int], packages: int, expected: str | None
) -> None:
    told = gpu._too_old(driver, packages)
    assert (told is None) == (expected is None)
    assert (expected or "") in (told or "")
    assert (gpu.INSTALL_OLD in (told or "")) == (driver == (12, 4))


def test_commands_say_in_a_line_that_there_is_no_gpu() -> None:
    for command in ("fastdl train --device cuda", "fastdl predict none.safetensors --device cuda x",
                    "benchmarks.gpu"):  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", *command.split()],
            capture_output=True,
            text=True,
            env={**os.environ, "NUMBA_CUDA_DRIVER": "/no/libcuda.so", "NUMBA_ENABLE_CUDASIM": ""},
        )
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1
        assert re.search("backend='cuda' is not available here|No such file", done.stderr)


def test_a_tensor_of_the_cpu_is_not_on_a_gpu() -> None:
    """PyTorch's type has the interface of both; those of the CPU raise when asked for it."""

    class Tensor:
        @property
        def __cuda_array_interface__(self) -> dict[str, object]:
            raise AttributeError("only on a GPU")

    assert not gpu.on_device(Tensor())
    assert not gpu.on_device(np.ones(3))
