"""The pytest-benchmark suite: a group a layer, in it a row for each backend and each peer.

    pytest benchmarks                              # one or two layers of each class
    pytest benchmarks --layers 'resnet50-*@8'      # names, globs, or all
    pytest benchmarks --against none               # fastdl's own backends only
    pytest benchmarks --row-seconds 0.01           # does every row run, and is it right?

Rows of one group run one after the other, not in turns as in ``fastdl bench``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from time import perf_counter
from typing import Any

import pytest
from layers import REPRESENTATIVE, Layer, select

import fastdl
from fastdl.backends.table import Array
from fastdl.bench.implementation import Implementation
from fastdl.bench.layer import Arrays, random_inputs, scaled_down
from fastdl.bench.limits import blas_threads
from fastdl.bench.ours import Backend
from fastdl.bench.peers import peers
from fastdl.bench.run import NAIVE, NAIVE_WORK, REFERENCE, TOLERANCE, difference, results
from fastdl.errors import FastdlError

MIN_ROUNDS, MAX_ROUNDS = 3, 200


@dataclass(frozen=True)
class Row:
    """A layer on one implementation; the naive loops get a smaller layer."""

    layer: Layer
    implementation: Implementation

    @property
    def measured(self) -> Layer:
        if self.implementation.name == NAIVE:
            return scaled_down(self.layer, NAIVE_WORK)
        return self.layer

    def __str__(self) -> str:
        name = f"{self.layer.label}-{self.implementation.name}"
        if self.measured == self.layer:
            return name
        return f"{name} on {self.measured.shapes} (1/{self.layer.work / self.measured.work:.0f})"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fastdl")
    group.addoption("--layers", default=",".join(REPRESENTATIVE), help="names, globs, or all")
    group.addoption("--against", default="all", help="peers, all that are installed, or none")
    group.addoption(
        "--row-seconds",
        type=float,
        default=0.3,
        help="what the timed calls of a row take together, if no single one takes longer",
    )


def pytest_configure(config: pytest.Config) -> None:
    if not config.pluginmanager.hasplugin("benchmark"):
        raise pytest.UsageError(
            "benchmarks/ needs pytest-benchmark; install it with: pip install '.[bench]'"
        )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test ``test_relu(row, ...)`` gets the rows of the layers whose operation is relu."""
    operation = metafunc.function.__name__.removeprefix("test_")
    try:
        layers, implementations = _chosen(metafunc.config)
    except FastdlError as error:
        raise pytest.UsageError(str(error)) from None
    rows = [
        Row(layer, implementation)
        for layer in layers
        if layer.operation == operation
        for implementation in implementations
        if implementation.serves(layer)
    ]
    metafunc.parametrize("row", rows, ids=str)


@lru_cache(maxsize=1)
def _chosen(config: pytest.Config) -> tuple[list[Layer], list[Implementation]]:
    ours = [name for name, reason in fastdl.available_backends().items() if reason is None]
    against = config.getoption("--against")
    others = peers([] if against == "none" else against.split(","), fastdl.get_num_threads())
    layers = select(config.getoption("--layers").split(","))
    return layers, [*map(Backend, ours), *others]


@pytest.fixture(scope="session", autouse=True)
def same_threads() -> Iterator[None]:
    """NumPy's matrix product takes as many threads as everyone else."""
    with blas_threads(fastdl.get_num_threads()):
        yield


@lru_cache(maxsize=2)
def expected(layer: Layer) -> tuple[Arrays, tuple[Array, ...]]:
    """The layer's inputs, and what the NumPy reference makes of them."""
    inputs = random_inputs(layer)
    return inputs, results(Backend(REFERENCE).prepare(layer, inputs, reuse=False))


def check_and_time(row: Row, benchmark: Any, budget: float) -> None:
    """Compare the row's result with the reference, then time it for about ``budget`` seconds."""
    inputs, right = expected(row.measured)
    call = row.implementation.prepare(row.measured, inputs, reuse=False)
    start = perf_counter()
    first = results(call)
    seconds = perf_counter() - start
    assert difference(first, right) <= TOLERANCE
    if benchmark.enabled and seconds < budget:
        # The first call may have compiled or packed something: the second tells the time.
        start = perf_counter()
        call.run()
        seconds = perf_counter() - start
    rounds = min(max(int(budget / seconds), MIN_ROUNDS), MAX_ROUNDS)
    benchmark.group = f"{row.layer.label}: {row.layer}"
    benchmark.extra_info.update(
        implementation=row.implementation.name,
        layer=row.layer.describe(),
        measured_on=row.measured.describe(),
    )
    benchmark.pedantic(call.run, rounds=rounds, warmup_rounds=1)


@pytest.fixture
def timed(benchmark: Any, pytestconfig: pytest.Config) -> Any:
    """``timed(row)`` checks a row and times it."""
    return lambda row: check_and_time(row, benchmark, pytestconfig.getoption("--row-seconds"))
