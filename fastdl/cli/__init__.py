"""The command ``fastdl``."""

from .main import main

__all__ = ["main"]
