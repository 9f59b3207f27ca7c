"""The instruction sets of the compiled backend.

Every other test of this folder runs at each of them (see the fixture `backend`).
"""

from __future__ import annotations

import os

import pytest
from support import run_python

import fastdl

pytestmark = pytest.mark.skipif(
    fastdl.available_backends()["compiled"] is not None, reason="the compiled backend is not here"
)

CALL = """
import numpy as np
import fastdl
from fastdl.errors import BackendError

x, weight = np.ones((1, 3, 9, 20), np.float32), np.ones((5, 3, 3, 3), np.float32)
try:
    out = fastdl.conv2d(x, weight, backend="compiled")
    assert (out == 27).all()
    from fastdl.backends.compiled.isa import current_isa
    print(current_isa())
except BackendError as error:
    print("BackendError:", error)
"""


def _supported() -> tuple[str, ...]:
    from fastdl.backends.compiled.isa import supported_isas

    return supported_isas()


def test_the_best_is_picked() -> None:
    from fastdl.backends.compiled.isa import current_isa

    assert current_isa() == (os.environ.get("FASTDL_ISA") or _supported()[-1])


def test_every_machine_has_the_baseline() -> None:
    assert len(set(_supported())) == len(_supported())
    assert _supported()[0] == "baseline"


def test_the_environment_lowers_it() -> None:
    for isa in _supported():
        assert run_python(CALL, FASTDL_ISA=isa) == isa


def test_an_unknown_name_is_an_error() -> None:
    answer = run_python(CALL, FASTDL_ISA="mmx")
    assert answer.startswith("BackendError:")
    assert "FASTDL_ISA" in answer
    assert "mmx" in answer
    assert _supported()[0] in answer


def test_selecting_an_unknown_name_is_an_error() -> None:
    from fastdl.backends.compiled.isa import current_isa, select_isa

    before = current_isa()
    with pytest.raises(fastdl.BackendError, match="mmx"):
        select_isa("mmx")
    assert current_isa() == before


def test_selecting_takes_effect() -> None:
    from fastdl.backends.compiled.isa import current_isa, select_isa

    before = current_isa()
    try:
        for isa in _supported():
            select_isa(isa)
            assert current_isa() == isa
    finally:
        select_isa(before)
