"""Which instruction set the compiled kernels use."""

from ...errors import BackendError
from . import _kernels


def supported_isas() -> tuple[str, ...]:
    """What was built and runs on this processor and operating system, from the lowest up."""
    return _kernels.isa_names()


def current_isa() -> str:
    """The instruction set that serves the next call."""
    return _kernels.selected_name()


def select_isa(name: str, source: str = "name") -> None:
    """Serve every later call, in every thread, by instruction set ``name``.

    Raises
    ------
    BackendError
        If ``name`` was not built or does not run here.
    """
    if name not in supported_isas():
        raise BackendError(
            f"{source} must be one of {', '.join(supported_isas())} on this machine, got {name!r}"
        )
    _kernels.select_table(name)
