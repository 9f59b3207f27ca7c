"""Packages that only some calls need."""

from __future__ import annotations

import importlib
from types import ModuleType

from .errors import MissingPackageError


def needed(module: str, package: str, purpose: str) -> ModuleType:
    """Import ``module``, or say which ``package`` to install and for what ``purpose``.

    >>> needed("json", "json", "this example").dumps([1])
    '[1]'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackageError(
            f"{purpose} needs the package {package} ({error}); "
            f"install it with: pip install {package}",
            name=module,
        ) from error
