"""OpenMP's limit on the threads of a loop."""

from ._kernels import max_threads, set_max_threads

__all__ = ["max_threads", "set_max_threads"]
