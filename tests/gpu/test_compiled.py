"""Every kernel compiled for two GPUs on a machine that has none, and its machine code read."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
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


PTXAS, CUOBJDUMP = _tool("ptxas"), _tool("cuobjdump")

from numba import cuda  # noqa: E402
from numba.cuda import dispatcher  # noqa: E402

from fastdl.backends.cuda import gemm, grad_weight, tensor  # noqa: E402
from fastdl.backends.cuda.launch import FACTORIES, THREADS, Kernel  # noqa: E402

CAPABILITIES = [(8, 0), (9, 0)]


@dataclass(frozen=True)
class Code:
    """What ptxas makes of a kernel."""

    registers: int
    stack: int
    spills: int
    shared: int
    sass: str

    def count(self, instruction: str) -> int:
        return len(re.findall(rf"\b{instruction}\b", self.sass))


@cache
def ptx_of(kernel: Kernel) -> bytes:
    """What the older GPU takes; the newer one takes it too."""
    # Functions that a kernel calls ask the current GPU for its kind; there is none.
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=CAPABILITIES[0])
    ptx, _ = cuda.compile(
        kernel.function,
        kernel.signature(),
        cc=CAPABILITIES[0],
        device=False,
        abi="numba",
        output="ptx",
        launch_bounds=kernel.bounds,
    )
    return ptx if isinstance(ptx, bytes) else ptx.encode()


@cache
def compiled(kernel: Kernel, capability: tuple[int, int]) -> Code:
    """The machine code of ``kernel`` for a GPU."""
    with TemporaryDirectory() as folder:
        source, cubin = Path(folder, "kernel.ptx"), Path(folder, "kernel.cubin")
        source.write_bytes(ptx_of(kernel))
        told = subprocess.run(
            [PTXAS, "-v", f"-arch=sm_{capability[0]}{capability[1]}", source, "-o", cubin],
            capture_output=True,
            text=True,
            check=False,
        )
        words = told.stderr
        assert told.returncode == 0, words
        environment = {**os.environ, "PATH": f"{Path(CUOBJDUMP).parent}:{os.environ['PATH']}"}
        sass = subprocess.run(
            [CUOBJDUMP, "-sass", cubin], env=environment, capture_output=True, text=True, check=True
        ).stdout

    def number(pattern: str) -> int:
        return sum(map(int, re.findall(pattern, words)))

    return Code(
        number(r"Used (\d+) registers"),
        number(r"(\d+) bytes stack frame"),
        number(r"(\d+) bytes spill"),
        number(r"(\d+) bytes smem"),
        sass,
    )


F32, F64 = np.float32, np.float64

#: Every factory's kernels, by the constants after the dtype: what differs in kind, to be quick.
CONSTANTS: dict[str, list[tuple[Any, ...]]] = {
    "gemm.product": [(gemm.TILES[0], "relu", False, False), (gemm.TILES[0], "relu", True, True),
                     (gemm.TILES[2], "relu", False, False)],
    "tensor.product": [(tensor.tile(kind), "relu", kind) for kind in ("tf32", "bf16")],
    "depthwise.forward": [("relu", 3, 3), (None, 0, 0)],
    "norm.moments": [(4,)],
    "norm.affine": [("relu", 4)],
    "norm.products": [(4,)],
    "norm.backward": [(True, 4)],
    "elementwise.unary": [("sigmoid",)],
    "elementwise.binary": [("relu_backward",)],
    "softmax.forward": [(True, 32), (False, THREADS)],
    "softmax.backward": [(True, 32), (False, THREADS)],
    "pooling.largest": [(True,)],
    "optimizer.change": [("nesterov",), ("adam",)],
}  # fmt: skip

ALL = [(name, constants) for name in FACTORIES for constants in CONSTANTS.get(name, [()])]
#: What spills nothing and keeps all its arrays in registers, whatever the compiler.
TIGHT = ("gemm", "grad_weight", "depthwise", "tensor", "norm")
#: Kernels that read and write 16 bytes at a time: all but those of a few numbers a channel.
WIDE = ("elementwise", "norm")


@pytest.mark.parametrize("capability", CAPABILITIES, ids=["sm_80", "sm_90"])
@pytest.mark.parametrize(("name", "constants"), ALL, ids=lambda value: str(value)[:60])
def test_registers_spills_and_shared_memory(
    name: str, constants: tuple[Any, ...], capability: tuple[int, int]
) -> None:
    kernel = FACTORIES[name](F32, *constants)
    code = compiled(kernel, capability)
    if name.startswith(TIGHT):
        assert code.spills == 0
        assert code.stack == 0
        assert code.count(r"(LDL|STL)") == 0
    threads, blocks = kernel.bounds or (THREADS, 1)
    assert code.registers * threads * blocks <= 65536
    assert code.shared * blocks <= 98304
    family, _, what = name.partition(".")
    if family in WIDE and what not in ("statistics", "factor", "sums"):
        assert code.count(r"LDG\.E\.128(\.CONSTANT)?") >= 1
        if what not in ("moments", "products"):
            assert code.count(r"STG\.E\.128") >= 1


@pytest.mark.parametrize("capability", CAPABILITIES, ids=["sm_80", "sm_90"])
@pytest.mark.parametrize("tile", [gemm.TILES[0], gemm.TILES[2]], ids=str)
def test_the_convolution_loads_and_multiplies_wide(
    tile: gemm.Tile, capability: tuple[int, int]
) -> None:
    for straight in (False, True) if tile == gemm.TILES[0] else (False,):
        code = compiled(
            FACTORIES["gemm.product"](F32, tile, "relu", straight, straight), capability
        )
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
    code = compiled(FACTORIES["tensor.product"](F32, tensor.tile(kind), "relu", kind), capability)
    assert code.count(shape) >= 8
    assert code.count("FFMA") == 0


@pytest.mark.parametrize("name", ["gemm.product", "grad_weight.partial", "norm.moments"])
def test_float64_too(name: str) -> None:
    constants = {"gemm.product": (gemm.TILES_DOUBLE[0], None, False, False), "norm.moments": (4,)}
    code = compiled(FACTORIES[name](F64, *constants.get(name, ())), (9, 0))
    assert code.spills == 0
    assert code.count("DFMA") >= 1
    assert grad_weight.TILE.threads * 4 <= 2048
