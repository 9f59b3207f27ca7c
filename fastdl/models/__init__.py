"""Networks by name, and reading trained ones back."""

from .digits import digits_cnn
from .store import BUILDERS, load

__all__ = ["BUILDERS", "digits_cnn", "load"]
