"""Training: the loop, its history, the picture of it, and the folder they are kept in."""

from .compare import naive_images_per_second
from .history import Epoch, History
from .loop import evaluate, fit, training_step
from .plot import learning_curve
from .run import Run

__all__ = [
    "Epoch",
    "History",
    "Run",
    "evaluate",
    "fit",
    "learning_curve",
    "naive_images_per_second",
    "training_step",
]
