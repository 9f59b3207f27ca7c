"""Training: the loop, what can be watched and kept meanwhile, and the pictures of it."""

from .activations import ActivationHistograms, activations
from .callback import Callback, EarlyStopping
from .compare import naive_images_per_second
from .evaluate import Evaluation, Metric, accuracy, evaluate, top_k_accuracy
from .gradients import GradientNorms
from .history import Epoch, History
from .loop import fit, training_step
from .plot import learning_curve
from .progress import Progress
from .run import Run
from .tensorboard import TensorBoard
from .training import Training

__all__ = [
    "ActivationHistograms",
    "Callback",
    "EarlyStopping",
    "Epoch",
    "Evaluation",
    "GradientNorms",
    "History",
    "Metric",
    "Progress",
    "Run",
    "TensorBoard",
    "Training",
    "accuracy",
    "activations",
    "evaluate",
    "fit",
    "learning_curve",
    "naive_images_per_second",
    "top_k_accuracy",
    "training_step",
]
