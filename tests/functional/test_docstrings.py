"""Every docstring's example runs, and every public function documents all that it takes."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil

import pytest

import fastdl

MODULES = [
    "fastdl",
    *(
        module.name
        for module in pkgutil.walk_packages(fastdl.__path__, "fastdl.", onerror=lambda _: None)
        if not module.name.endswith("__main__")
    ),
]
FUNCTIONS = [name for name in fastdl.__all__ if inspect.isfunction(getattr(fastdl, name))]


def _is_optional(name: str, error: ImportError) -> bool:
    """Whether ``error`` says that a package, or the compiled extension, is not installed."""
    if name.startswith("fastdl.backends.compiled"):
        return fastdl.available_backends()["compiled"] is not None
    return not (error.name or "fastdl").startswith("fastdl")


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        if not _is_optional(name, error):
            raise
        return
    results = doctest.testmod(module)
    assert results.failed == 0


@pytest.mark.parametrize("name", FUNCTIONS)
def test_public_functions_are_documented(name: str) -> None:
    function = getattr(fastdl, name)
    text = inspect.getdoc(function) or ""
    assert ">>> " in text
    for parameter in inspect.signature(function).parameters:
        assert f"\n{parameter} :" in text or f", {parameter}" in text or f"\n{parameter}, " in text
    if inspect.signature(function).parameters:
        assert "\nParameters\n----------\n" in text
        assert "\nRaises\n------\n" in text
