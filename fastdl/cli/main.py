"""From the command line to a subcommand, and from its errors to an exit status."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from .. import __version__
from ..errors import FastdlError
from . import bench, info, predict, train
from .status import BAD_USE, INTERRUPTED


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command ``fastdl``.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; by default the process's own.

    Returns
    -------
    int
        The exit status: 0, 2 after an error that is the user's to mend, 130 after Ctrl-C.
    """
    args = _parser().parse_args(argv)
    try:
        status: int = args.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("fastdl: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has left (`fastdl ... | head`); Python's own last flush must not meet that.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (FastdlError, OSError) as error:
        print(f"fastdl: error: {error}", file=sys.stderr)
        return BAD_USE
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastdl", description="Kernels of a convolutional network for NumPy arrays."
    )
    parser.add_argument("--version", action="version", version=f"fastdl {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (info, bench, train, predict):
        command.add_parser(subparsers)
    return parser
