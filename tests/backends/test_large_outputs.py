"""Outputs that kernels write past the caches: the same as in small pieces."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from support import assert_same, normal

import fastdl

#: 17 MiB in odd sizes, so that rows and planes begin and end anywhere in a cache line.
SHAPES = [(31, 203, 27, 27), (91, 1021, 7, 7), (17, 3, 293, 299)]

KERNELS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "relu": fastdl.relu,
    "sigmoid": fastdl.sigmoid,
    "softmax": fastdl.softmax,
    "max": lambda x: fastdl.max_pool2d(x, 3, 1, 1),
    "indices": lambda x: fastdl.max_pool2d(x, 3, 2, 1, return_indices=True)[1],
    "average": lambda x: fastdl.avg_pool2d(x, 3, 1, 1),
    "average-gradient": lambda x: fastdl.avg_pool2d_backward(x, x.shape, 3, 1, 1),
    "max-gradient": lambda x: fastdl.max_pool2d_backward(
        x, np.broadcast_to(np.arange(x[0, 0].size).reshape(x.shape[2:]), x.shape), x.shape
    ),
    "global-gradient": lambda x: fastdl.global_avg_pool2d_backward(
        np.ascontiguousarray(x[..., :1, :1]), x.shape
    ),
    "normalize": lambda x: fastdl.batch_norm(
        x, normal(x.shape[1:2], x.dtype, 1), normal(x.shape[1:2], x.dtype, 2) ** 2
    ),
}


#: Those that the jit backend writes so.
JIT_KERNELS = ["relu", "normalize"]

CASES = [
    *(("compiled", name) for name in KERNELS),
    *(("jit", name) for name in JIT_KERNELS),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("backend", "name"), CASES)
def test_pieces_agree(backend: str, name: str, shape: tuple[int, ...]) -> None:
    missing = fastdl.available_backends()[backend]
    if missing is not None:
        pytest.skip(missing)
    x = normal(shape, np.float32)
    with fastdl.use_backend(backend):
        found = KERNELS[name](x)
        pieces = [KERNELS[name](x[i : i + 1]) for i in range(len(x))]
    assert_same(found, np.concatenate(pieces))
