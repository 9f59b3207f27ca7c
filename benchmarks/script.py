"""What the scripts do with an error that is the user's to mend."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

from fastdl.errors import FastdlError


def run(main: Callable[[], int | None]) -> NoReturn:
    """Run a script to its end; an error's message takes the place of its traceback."""
    try:
        sys.exit(main())
    except (FastdlError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
