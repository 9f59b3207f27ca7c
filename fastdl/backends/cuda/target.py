"""What kernels are written in: numba.cuda and the instructions beside it, real or simulated."""

from __future__ import annotations

from numba.cuda.core import config

#: Whether Numba simulates the GPU (NUMBA_ENABLE_CUDASIM=1): slow, for tests.
SIMULATED = bool(config.ENABLE_CUDASIM)

if SIMULATED:
    from .simulated import (
        affine128,
        cuda,
        device,
        exp,
        inlined,
        load4,
        load4_at,
        load_at,
        log,
        mma_bf16,
        mma_tf32,
        nanosecond,
        quotient,
        shuffle_xor,
        sqrt,
        store4,
        store4_at,
        store_at,
        tanh,
        to_bf16x2,
        to_tf32,
    )
else:
    from numba import cuda  # type: ignore[no-redef]

    from .instructions import (  # type: ignore[assignment]
        affine128,
        device,
        exp,
        inlined,
        load4,
        load4_at,
        load_at,
        log,
        mma_bf16,
        mma_tf32,
        nanosecond,
        quotient,
        shuffle_xor,
        sqrt,
        store4,
        store4_at,
        store_at,
        tanh,
        to_bf16x2,
        to_tf32,
    )

__all__ = [
    "SIMULATED",
    "affine128",
    "cuda",
    "device",
    "exp",
    "inlined",
    "load4",
    "load4_at",
    "load_at",
    "log",
    "mma_bf16",
    "mma_tf32",
    "nanosecond",
    "quotient",
    "shuffle_xor",
    "sqrt",
    "store4",
    "store4_at",
    "store_at",
    "tanh",
    "to_bf16x2",
    "to_tf32",
]
