"""What tests of the cuda backend watch."""

from __future__ import annotations

import pytest


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many elements each copy to the host has."""
    from fastdl.backends.cuda import arrays

    found: list[int] = []
    real = arrays.DeviceArray.copy_to_host
    monkeypatch.setattr(
        arrays.DeviceArray, "copy_to_host", lambda self: found.append(self.size) or real(self)
    )
    return found
