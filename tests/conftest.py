"""The backends that the tests run on."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

import hypothesis
import numpy as np
import pytest

import fastdl
from fastdl.backends import gpu

hypothesis.settings.register_profile(
    "fastdl",
    deadline=None,
    max_examples=20,
    derandomize="CI" in os.environ,
    # The backend is the same for every example.
    suppress_health_check=[
        hypothesis.HealthCheck.function_scoped_fixture,
        hypothesis.HealthCheck.too_slow,
    ],
)
hypothesis.settings.load_profile("fastdl")


def _variants() -> list[str]:
    """Every backend that works here; the compiled one also at each lower instruction set."""
    if gpu.simulated():
        # The simulator is slow: a run of its own, of nothing but its backend.
        return ["cuda"] if fastdl.available_backends()["cuda"] is None else []
    names = [name for name, reason in fastdl.available_backends().items() if reason is None]
    if "compiled" in names:
        isa = importlib.import_module("fastdl.backends.compiled.isa")
        isas = isa.supported_isas()
        names += [f"compiled:{lower}" for lower in isas[: isas.index(isa.current_isa())]]
    return sorted(names)


VARIANTS = _variants()

#: Those that would take seconds for large cases.
SLOW = {"naive", "cuda"} if gpu.simulated() else {"naive"}

if VARIANTS == ["cuda"] and gpu.simulated():
    from gpu_simulation import install

    install()


@contextmanager
def _served_by(variant: str) -> Iterator[str]:
    name, _, lower = variant.partition(":")
    if not lower:
        yield name
        return
    isa = importlib.import_module("fastdl.backends.compiled.isa")
    usual = isa.current_isa()
    isa.select_isa(lower)
    try:
        yield name
    finally:
        isa.select_isa(usual)


@pytest.fixture(params=VARIANTS)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every backend, to be given as ``backend=``."""
    with _served_by(request.param) as name:
        yield name


@pytest.fixture(params=[name for name in VARIANTS if name not in SLOW])
def fast_backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every backend but the slow ones, for cases that would take them seconds."""
    with _served_by(request.param) as name:
        yield name


@pytest.fixture(params=[name for name in VARIANTS if name.startswith("compiled")])
def compiled(request: pytest.FixtureRequest) -> Iterator[str]:
    """The compiled backend, at each instruction set."""
    with _served_by(request.param) as name:
        yield name


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> type:
    return request.param


@pytest.fixture
def threads() -> Iterator[None]:
    """Lets a test set the number of threads, and sets it back."""
    usual = fastdl.get_num_threads()
    yield
    fastdl.set_num_threads(usual)
