"""From gradients to better parameters: optimisers, schedules, regularisers, clipping."""

from .adam import Adam, AdamW
from .adaptive import AdaGrad, RMSProp
from .base import Optimizer
from .clipping import clip_grad_norm, clip_grad_value
from .regularizers import L1, L2, Elastic, Groups, Lp, Penalty, Regularizer
from .schedules import (
    Constant,
    Cosine,
    Exponential,
    OneCycle,
    ReduceOnPlateau,
    Schedule,
    Step,
    Warmup,
)
from .sgd import SGD, Momentum, Nesterov

__all__ = [
    "L1",
    "L2",
    "SGD",
    "AdaGrad",
    "Adam",
    "AdamW",
    "Constant",
    "Cosine",
    "Elastic",
    "Exponential",
    "Groups",
    "Lp",
    "Momentum",
    "Nesterov",
    "OneCycle",
    "Optimizer",
    "Penalty",
    "RMSProp",
    "ReduceOnPlateau",
    "Regularizer",
    "Schedule",
    "Step",
    "Warmup",
    "clip_grad_norm",
    "clip_grad_value",
]
