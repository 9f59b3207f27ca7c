"""The GPU's own limits, measured: copies, float32 arithmetic, tensor cores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastdl.backends.cuda.arrays import DeviceArray, empty
from fastdl.backends.cuda.launch import THREADS, blocks_for, kernel, processors
from fastdl.backends.cuda.target import SIMULATED, cuda, load4, mma_bf16, mma_tf32, store4

from .clock import once

#: Of each of the two arrays that are copied: far beyond any cache.
_COPY_BYTES = 1 << 10 if SIMULATED else 1 << 29
#: Steps of the loops of arithmetic, and blocks on each multiprocessor.
_STEPS, _BLOCKS = (1, 1) if SIMULATED else (4096, 8)
_REPEATS = 5
#: Seconds in which the host starts a call.
_HEAD_START = 1e-3
#: Products and sums of a step: 16 chains of a thread; 4 instructions of a warp.
_CHAINS, _INSTRUCTIONS = 16, 4
_MMA_FLOPS = {"tf32": 2 * 16 * 8 * 8, "bf16": 2 * 16 * 8 * 16}


@dataclass(frozen=True)
class Limits:
    """Bytes a second read and written by a copy; operations a second by precision."""

    copy: float
    float32: float
    tf32: float
    bf16: float

    def seconds(self, flops: int, nbytes: int, precision: str) -> float:
        """The least time for so much work."""
        return max(flops / getattr(self, precision), nbytes / self.copy)

    def binding(self, flops: int, nbytes: int, precision: str) -> str:
        """Which of the two limits that is."""
        arithmetic = flops / getattr(self, precision) > nbytes / self.copy
        return "compute" if arithmetic else "memory"

    def __str__(self) -> str:
        tera = ", ".join(f"{getattr(self, n) / 1e12:.1f} {n}" for n in ("float32", "tf32", "bf16"))
        return f"copy {self.copy / 1e9:.0f} GB/s; TFLOP/s: {tera} (the last two by mma.sync)"


@kernel("T* T* i", bounds=(THREADS, 4))
def copy(T: Any) -> Any:
    """``out = x``, 16 bytes at a time."""

    def run(x, out, quads):
        e = cuda.grid(1)
        if e < quads:
            a, b, c, d = load4(x, 4 * e)
            store4(out, 4 * e, a, b, c, d)

    return run


@kernel("T* T T i", bounds=(THREADS, 2))
def multiply_add(T: Any) -> Any:
    """16 chains of ``v = v * factor + more`` a thread, each ``steps`` long."""

    def run(out, factor, more, steps):
        start = T(cuda.threadIdx.x)
        a, b, c, d = start, start + T(1), start + T(2), start + T(3)
        e, f, g, h = start + T(4), start + T(5), start + T(6), start + T(7)
        p, q, r, s = start + T(8), start + T(9), start + T(10), start + T(11)
        t, u, v, w = start + T(12), start + T(13), start + T(14), start + T(15)
        for _ in range(steps):
            a, b, c, d = a * factor + more, b * factor + more, c * factor + more, d * factor + more
            e, f, g, h = e * factor + more, f * factor + more, g * factor + more, h * factor + more
            p, q, r, s = p * factor + more, q * factor + more, r * factor + more, s * factor + more
            t, u, v, w = t * factor + more, u * factor + more, v * factor + more, w * factor + more
        total = (a + b + c + d) + (e + f + g + h) + (p + q + r + s) + (t + u + v + w)
        # Never so, and the compiler cannot know it.
        if total == T(12345.678):
            out[0] = total

    return run


@kernel("T* i i", bounds=(THREADS, 2))
def tensor_multiply(T: Any, kind: str) -> Any:
    """4 independent chains of mma instructions a warp, each ``steps`` long."""
    mma = mma_tf32 if kind == "tf32" else mma_bf16
    zero = T(0)

    def run(out, bits, steps):
        a0, a1, a2, a3 = zero, zero, zero, zero
        b0, b1, b2, b3 = zero, zero, zero, zero
        c0, c1, c2, c3 = zero, zero, zero, zero
        d0, d1, d2, d3 = zero, zero, zero, zero
        for _ in range(steps):
            a0, a1, a2, a3 = mma(a0, a1, a2, a3, bits, bits, bits, bits, bits, bits)
            b0, b1, b2, b3 = mma(b0, b1, b2, b3, bits, bits, bits, bits, bits, bits)
            c0, c1, c2, c3 = mma(c0, c1, c2, c3, bits, bits, bits, bits, bits, bits)
            d0, d1, d2, d3 = mma(d0, d1, d2, d3, bits, bits, bits, bits, bits, bits)
        total = (a0 + a1 + a2 + a3) + (b0 + b1 + b2 + b3) + (c0 + c1 + c2 + c3)
        total += d0 + d1 + d2 + d3
        if total == T(12345.678):
            out[0] = total

    return run


def measure() -> Limits:
    """Measure them all, which takes a second or two beside the compiling."""
    out = empty((1,), np.float32)
    blocks = _BLOCKS * processors()
    threads = blocks * THREADS

    def arithmetic() -> None:
        multiply_add(np.float32)(blocks, THREADS, out, 0.5, 1.0, _STEPS)

    def tensor(kind: str) -> Callable[[], None]:
        return lambda: tensor_multiply(np.float32, kind)(blocks, THREADS, out, 0x3F803F80, _STEPS)

    flops = {
        kind: each * _INSTRUCTIONS * _STEPS * threads // 32 for kind, each in _MMA_FLOPS.items()
    }
    return Limits(
        2 * _COPY_BYTES / min(map(_fastest, _copies())),
        2 * _CHAINS * _STEPS * threads / _fastest(arithmetic),
        flops["tf32"] / _fastest(tensor("tf32")),
        flops["bf16"] / _fastest(tensor("bf16")),
    )


def _copies() -> list[Callable[[], None]]:
    """A kernel's copy and the driver's."""
    source, target = (empty((_COPY_BYTES // 4,), np.float32) for _ in range(2))
    quads = source.size // 4

    def by_kernel() -> None:
        copy(np.float32)(blocks_for(quads), THREADS, source, target, quads)

    return [by_kernel, lambda: _copy_by_driver(source, target)]


def _copy_by_driver(source: DeviceArray, target: DeviceArray) -> None:
    target.data.copy_to_device(source.data)


def _fastest(call: Callable[[], None]) -> float:
    """Of several: a limit is what the GPU can do when nothing disturbs it."""
    call()
    return min(once(call, _HEAD_START) for _ in range(_REPEATS))
