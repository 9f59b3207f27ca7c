"""Optimisers: from gradients to better parameters."""

from .adam import Adam
from .base import Optimizer
from .schedule import cosine
from .sgd import SGD

__all__ = ["SGD", "Adam", "Optimizer", "cosine"]
