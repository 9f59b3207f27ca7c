"""Every kernel compiled for two GPUs on a machine that has none, and its machine code read."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from pkgutil import iter_modules
from tempfile import NamedTemporaryFile
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fastdl.backends import gpu

if find_spec("numba_cuda") is None or find_spec("nvidia") is None or gpu.simulated():
    pytest.skip("needs numba-cuda, outside the simulator", allow_module_level=True)


def _tool(name: str) -> str:
    """A program of the CUDA wheels."""
    for root in find_spec("nvidia").submodule_search_locations or ():
        found = sorted(Path(root).glob(f"*/bin/{name}"))
        if found:
            return str(found[-1])
    pytest.skip(f"needs the wheel that has {name}", allow_module_level=True)


NVDISASM = _tool("nvdisasm")

from cuda.bindings import nvjitlink  # noqa: E402
from numba import cuda  # noqa: E402
from numba.cuda import dispatcher  # noqa: E402

from fastdl.backends import cuda as backend  # noqa: E402
from fastdl.backends.cuda import gemm, grad_weight, tensor  # noqa: E402
from fastdl.backends.cuda.launch import FACTORIES, THREADS, linked_here  # noqa: E402

for found in iter_modules(backend.__path__):
    if found.name != "simulated":
        import_module(f"{backend.__name__}.{found.name}")  # their kernels come to FACTORIES

CAPABILITIES = [(8, 0), (9, 0)]

#: A kernel: the factory's name, the dtype, and the constants after it.
Key = tuple[str, Any, tuple[Any, ...]]


@dataclass(frozen=True)
class Code:
    """The machine code of a kernel."""

    registers: int
    stack: int
    spills: int
    shared: int
    sass: str

    def count(self, instruction: str) -> int:
        return len(re.findall(rf"\b{instruction}\b", self.sass))


def compiled_together(keys: list[Key]) -> dict[tuple[Key, tuple[int, int]], Code]:
    """Kernels as a launch compiles and links them, but for GPUs that are not here.

    All go into one module: nvdisasm takes as long to start as it takes for a kernel.
    """
    # Functions that a kernel calls ask the current GPU for its kind; there is none.
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=CAPABILITIES[0])
    codes = [_intermediate(f"kernel_{number}_", *key) for number, key in enumerate(keys)]
    found = {}
    for capability in CAPABILITIES:
        for number, code in _machine_code(codes, capability).items():
            found[keys[number], capability] = code
    return found


def _intermediate(entry: str, name: str, dtype: Any, constants: tuple[Any, ...]) -> bytes:
    """What the linker takes, made for the older GPU."""
    kernel = FACTORIES[name](dtype, *constants)
    kernel.function.__qualname__ = entry
    code, _ = cuda.compile(
        kernel.function,
        kernel.signature(),
        cc=CAPABILITIES[0],
        device=False,
        abi="numba",
        output="ltoir",
        launch_bounds=kernel.bounds,
    )
    return bytes(code)


def _machine_code(codes: list[bytes], capability: tuple[int, int]) -> dict[int, Code]:
    """The machine code of each kernel."""
    options = ["-lto", "-Xptxas=-v", f"-arch=sm_{capability[0]}{capability[1]}"]
    linker = nvjitlink.create(len(options), options)
    for code in codes:
        nvjitlink.add_data(linker, nvjitlink.InputType.LTOIR, code, len(code), "kernel")
    nvjitlink.complete(linker)
    log = bytearray(nvjitlink.get_info_log_size(linker))
    nvjitlink.get_info_log(linker, log)
    cubin = bytearray(nvjitlink.get_linked_cubin_size(linker))
    nvjitlink.get_linked_cubin(linker, cubin)
    nvjitlink.destroy(linker)
    with NamedTemporaryFile() as file:
        Path(file.name).write_bytes(cubin)
        sass = subprocess.run(
            [NVDISASM, "-c", file.name], capture_output=True, text=True, check=True
        )
    words = _parts(log.decode(), r"Compiling entry function '\S*?kernel_(\d+)_")
    texts = _parts(sass.stdout, r"^\.text\.\S*?kernel_(\d+)_.*:")

    def code(number: int) -> Code:
        def figure(pattern: str) -> int:
            return sum(map(int, re.findall(pattern, words[number])))

        return Code(
            figure(r"Used (\d+) registers"),
            figure(r"(\d+) bytes stack frame"),
            figure(r"(\d+) bytes spill"),
            figure(r"(\d+) bytes smem"),
            texts[number],
        )

    assert words.keys() == texts.keys() == set(range(len(codes)))
    return {number: code(number) for number in words}


def _parts(text: str, heading: str) -> dict[int, str]:
    """The text after each heading, by the number in that."""
    parts = re.split(heading, text, flags=re.M)
    return dict(zip(map(int, parts[1::2]), parts[2::2], strict=True))


@cache
def everything() -> dict[tuple[Key, tuple[int, int]], Code]:
    """Every kernel for each GPU, the compilers at work side by side."""
    workers = min(4, len(os.sched_getaffinity(0)))
    with get_context("fork").Pool(workers) as pool:
        parts = pool.map(compiled_together, [KEYS[first::workers] for first in range(workers)])
    return {which: code for part in parts for which, code in part.items()}


def compiled(
    name: str, dtype: Any, constants: tuple[Any, ...], capability: tuple[int, int]
) -> Code:
    """The machine code of a kernel for a GPU."""
    return everything()[(name, dtype, constants), capability]


F32, F64 = np.float32, np.float64

#: Every factory's kernels, by the constants after the dtype: what differs in kind, to be quick.
CONSTANTS: dict[str, list[tuple[Any, ...]]] = {
    "gemm.product": [(gemm.TILES[0], "relu", False, False), (gemm.TILES[0], "relu", True, True),
                     (gemm.TILES[2], "relu", False, False)],
    "tensor.product": [(tensor.tile(kind), "relu", kind) for kind in ("tf32", "bf16")],
    "depthwise.forward": [("relu", 3, 3), (None, 0, 0)],
    "depthwise.grad_weight_at_once": [(3, 3), (5, 5)],
    "elementwise.plus": [("relu",)],
    "norm.moments": [(4,)],
    "norm.affine": [("relu", 4)],
    "norm.products": [(4, True)],
    "norm.backward": [(True, 4, True)],
    "gemm.pack": [(True,)],
    "elementwise.unary": [("sigmoid",)],
    "elementwise.binary": [("relu_backward",)],
    "softmax.forward": [(True, 32), (False, THREADS)],
    "softmax.backward": [(True, 32), (False, THREADS)],
    "losses.row_losses": [(True, 32), (False, THREADS)],
    "losses.loss_gradient": [(32,)],
    "losses.element_losses": [("bce",)],
    "losses.element_slopes": [("bce",)],
    "elementwise.adjust": [("shrink",)],
    "pooling.largest": [(True,)],
    "optimizer.change": [("nesterov",), ("adam",)],
}  # fmt: skip

ALL = [(name, constants) for name in FACTORIES for constants in CONSTANTS.get(name, [()])]
#: Those in float64 too.
DOUBLE: dict[str, tuple[Any, ...]] = {
    "gemm.product": (gemm.TILES_DOUBLE[0], None, False, False),
    "grad_weight.partial": (),
    "norm.moments": (4,),
}
KEYS: list[Key] = [(name, F32, constants) for name, constants in ALL]
KEYS += [(name, F64, constants) for name, constants in DOUBLE.items()]
#: What spills nothing and keeps all its arrays in registers, whatever the compiler.
TIGHT = ("gemm", "grad_weight", "depthwise", "tensor", "norm")
#: Kernels that read and write 16 bytes at a time, but for those of a few numbers a channel or that
#: are seldom called.
WIDE = ("elementwise", "norm", "optimizer.change")
NARROW = (
    "statistics",
    "factor",
    "sums",
    "fold",
    "track",
    "sloped",
    "adjust",
    "add_bias",
    "penalised",
)


@pytest.mark.parametrize("capability", CAPABILITIES, ids=["sm_80", "sm_90"])
@pytest.mark.parametrize(("name", "constants"), ALL, ids=lambda value: str(value)[:60])
def test_registers_spills_and_shared_memory(
    name: str, constants: tuple[Any, ...], capability: tuple[int, int]
) -> None:
    kernel = FACTORIES[name](F32, *constants)
    code = compiled(name, F32, constants, capability)
    if name.startswith(TIGHT):
        assert code.spills == 0
        assert code.stack == 0
        assert code.count(r"(LDL|STL)") == 0
    threads, blocks = kernel.bounds or (THREADS, 1)
    assert code.registers * threads * blocks <= 65536
    assert code.shared * blocks <= 98304
    family, _, what = name.partition(".")
    if (family in WIDE or name in WIDE) and what not in NARROW:
        assert code.count(r"LDG\.E\.128(\.CONSTANT)?") >= 1
        if what not in ("moments", "products"):
            assert code.count(r"STG\.E\.128") >= 1


@pytest.mark.parametrize("capability", CAPABILITIES, ids=["sm_80", "sm_90"])
@pytest.mark.parametrize("tile", [gemm.TILES[0], gemm.TILES[2]], ids=str)
def test_the_convolution_loads_and_multiplies_wide(
    tile: gemm.Tile, capability: tuple[int, int]
) -> None:
    for straight in (False, True) if tile == gemm.TILES[0] else (False,):
        code = compiled("gemm.product", F32, (tile, "relu", straight, straight), capability)
        # Two k at a time: every product once, every quad of a k in one load.
        assert code.count("FFMA") >= 2 * 16 * tile.quads_m * tile.quads_p
        assert code.count(r"LDS\.128") >= 2 * (tile.quads_m + tile.quads_p)
        assert code.count(r"LDS") == code.count(r"LDS\.128")
        assert code.count(r"STS\.128") >= 1
        assert code.count(r"LDG\.E\.128(\.CONSTANT)?") >= (2 if straight else 1)
        assert code.count(r"STG\.E\.128") >= (4 if straight else 0)
        assert code.shared == 2 * 4 * tile.k * (tile.m + tile.p)


@pytest.mark.parametrize("capability", CAPABILITIES, ids=["sm_80", "sm_90"])
@pytest.mark.parametrize(
    ("kind", "shape"), [("tf32", r"HMMA\.1688\.F32\.TF32"), ("bf16", r"HMMA\.16816\.F32\.BF16")]
)
def test_the_tensor_cores_are_used(kind: str, shape: str, capability: tuple[int, int]) -> None:
    code = compiled("tensor.product", F32, (tensor.tile(kind), "relu", kind), capability)
    assert code.count(shape) >= 8
    assert code.count("FFMA") == 0


@pytest.mark.parametrize("name", DOUBLE)
def test_float64_too(name: str) -> None:
    code = compiled(name, F64, DOUBLE[name], (9, 0))
    assert code.spills == 0
    assert code.count("DFMA") >= 1
    assert grad_weight.TILE.threads * 4 <= 2048


def test_the_packages_link_for_a_driver_of_their_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another compiles their PTX."""
    major, minor = nvjitlink.version()
    for driver, expected in (
        ((major, 0), True),
        ((major, minor + 1), True),
        ((major + 1, 0), False),
    ):
        monkeypatch.setattr(gpu, "driver_version", lambda driver=driver: driver)
        assert linked_here.__wrapped__() is expected
