"""``--optimizer``, ``--schedule`` and what is added to the loss."""

from __future__ import annotations

from collections.abc import Callable

from .. import optim

OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {
    "sgd": optim.SGD,
    "momentum": optim.Momentum,
    "nesterov": optim.Nesterov,
    "adagrad": optim.AdaGrad,
    "rmsprop": optim.RMSProp,
    "adam": optim.Adam,
    "adamw": optim.AdamW,
}
SCHEDULES: dict[str, Callable[[float, int], optim.Schedule]] = {
    "constant": lambda lr, steps: optim.Constant(lr),
    # Three falls to a tenth, or the same fall to a thousandth a little with every update.
    "step": lambda lr, steps: optim.Step(lr, every=-(-steps // 4)),
    "exponential": lambda lr, steps: optim.Exponential(lr, factor=1e-3 ** (1 / steps)),
    "cosine": lambda lr, steps: optim.Cosine(lr, steps),
    "warmup": lambda lr, steps: optim.Cosine(lr, steps, warmup=steps // 10),
    "one-cycle": lambda lr, steps: optim.OneCycle(lr, steps),
    "plateau": lambda lr, steps: optim.ReduceOnPlateau(lr, factor=0.3, patience=2),
}
SCHEDULES_HELP = (
    "how the learning rate goes: constant; step (falls to a tenth, three times); exponential (falls "
    "to a thousandth, steadily); cosine (falls to zero along half a cosine); warmup (cosine, after a "
    "rise over a tenth of the steps); one-cycle (rises and falls); plateau (falls when the "
    "validation loss no longer does)"
)


def regularizer(l1: float, l2: float) -> optim.Regularizer | None:
    """What ``--l1`` and ``--l2`` ask for."""
    return optim.Elastic(l1, l2) if l1 or l2 else None
