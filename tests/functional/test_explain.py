"""`explain` tells what `conv2d` does."""

from __future__ import annotations

import numpy as np
import pytest
from support import normal

import fastdl
from fastdl.backends import registry


def test_it_tells_every_fact(backend: str) -> None:
    found = fastdl.explain((2, 16, 20, 20), (32, 16, 3, 3), padding=1, backend=backend)
    assert found.backend == backend
    assert found.backend_reason == "named by backend="
    assert found.shape_out == (2, 32, 20, 20)
    assert found.operations == 2 * 2 * 32 * 400 * 144
    assert found.threads == fastdl.get_num_threads()
    assert (found.isa is None) == (backend != "compiled")
    text = str(found)
    for fact in (found.backend, found.algorithm, found.accuracy, "operations", "in a plan"):
        assert fact in text


@pytest.mark.parametrize("size", [(3, 3), (8, 8), (40, 40)])
@pytest.mark.parametrize("kernel", [1, 3])
def test_it_is_what_a_plan_takes(size: tuple[int, int], kernel: int, backend: str) -> None:
    x, weight = (2, 16, *size), normal((32, 16, kernel, kernel), np.float32)
    found = fastdl.explain(x, weight.shape, backend=backend)
    plan = fastdl.Conv2dPlan(x, weight, backend=backend)
    assert plan.algorithm == found.planned_algorithm
    assert plan.packed_bytes == found.packed_bytes
    assert plan.isa == found.isa
    assert plan.shape_out == found.shape_out
    assert plan.workspace_bytes is None or plan.workspace_bytes >= 0


def test_arrays_and_shapes_say_the_same(dtype: type) -> None:
    x, weight = normal((1, 8, 9, 9), dtype), normal((8, 8, 3, 3), dtype)
    assert fastdl.explain(x, weight) == fastdl.explain(x.shape, weight.shape, dtype=dtype)
    assert fastdl.explain(x, weight.shape) == fastdl.explain(x.shape, weight.shape, dtype=dtype)


def test_who_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = (1, 8, 9, 9), (8, 8, 3, 3)
    monkeypatch.delenv("FASTDL_BACKEND", raising=False)
    assert fastdl.explain(*shapes).backend == registry.current_name()
    assert fastdl.explain(*shapes).backend_reason.startswith("the first that works here")
    monkeypatch.setenv("FASTDL_BACKEND", "naive")
    assert fastdl.explain(*shapes).backend_reason == "named by FASTDL_BACKEND"
    with fastdl.use_backend("reference"):
        assert fastdl.explain(*shapes).backend_reason == "chosen by use_backend"
    assert fastdl.explain(*shapes, algorithm="direct").algorithm_reason == "named by algorithm="


def test_wrong_arguments() -> None:
    with pytest.raises(fastdl.ShapeError, match=r"^x must be four integers"):
        fastdl.explain((1, 8, 9), (8, 8, 3, 3))
    with pytest.raises(fastdl.ShapeError, match=r"^weight must have 8 channels"):
        fastdl.explain((1, 8, 9, 9), (8, 4, 3, 3))
    with pytest.raises(fastdl.DTypeError, match=r"^dtype must be float32 or float64, got int64"):
        fastdl.explain((1, 8, 9, 9), (8, 8, 3, 3), dtype=np.int64)
