"""The same updates and rates as PyTorch's, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import normal

from fastdl import optim

pytestmark = pytest.mark.peer
torch = pytest.importorskip("torch")

OPTIMIZERS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "SGD": (
        lambda: optim.SGD(0.05, regularizer=optim.L2(0.1, "*")),
        lambda p: torch.optim.SGD(p, 0.05, weight_decay=0.1),
    ),
    "Momentum": (
        lambda: optim.Momentum(0.05, 0.8),
        lambda p: torch.optim.SGD(p, 0.05, momentum=0.8),
    ),
    "Nesterov": (
        lambda: optim.Nesterov(0.05, 0.8),
        lambda p: torch.optim.SGD(p, 0.05, momentum=0.8, nesterov=True),
    ),
    "AdaGrad": (
        lambda: optim.AdaGrad(0.05),
        lambda p: torch.optim.Adagrad(p, 0.05, eps=1e-7),
    ),
    "RMSProp": (lambda: optim.RMSProp(0.05), lambda p: torch.optim.RMSprop(p, 0.05)),
    "Adam": (
        lambda: optim.Adam(0.05, regularizer=optim.L2(0.1, "*")),
        lambda p: torch.optim.Adam(p, 0.05, weight_decay=0.1),
    ),
    "AdamW": (
        lambda: optim.AdamW(0.05, applies_to="*"),
        lambda p: torch.optim.AdamW(p, 0.05, weight_decay=0.01),
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("max_norm", [None, 0.5])
def test_updates(name: str, max_norm: float | None) -> None:
    make, make_theirs = OPTIMIZERS[name]
    params = {"w": normal((3, 4)), "b": normal((4,))}
    tensors = [torch.tensor(array, requires_grad=True) for array in params.values()]
    ours, theirs = make(), make_theirs(tensors)
    ours.max_norm = max_norm
    for step in range(6):
        grads = {key: normal(array.shape, seed=step) for key, array in params.items()}
        ours.update(params, grads)
        for tensor, grad in zip(tensors, grads.values(), strict=True):
            tensor.grad = torch.tensor(grad)
        if max_norm is not None:
            torch.nn.utils.clip_grad_norm_(tensors, max_norm)
        theirs.step()
    # PyTorch divides by the norm plus 1e-6.
    rtol = 1e-10 if max_norm is None else 1e-5
    for array, tensor in zip(params.values(), tensors, strict=True):
        np.testing.assert_allclose(array, tensor.detach(), rtol=rtol)


SCHEDULES: dict[str, tuple[optim.Schedule, Callable[[Any], Any]]] = {
    "Step": (optim.Step(0.5, 3, 0.5), lambda o: torch.optim.lr_scheduler.StepLR(o, 3, 0.5)),
    "Exponential": (
        optim.Exponential(0.5, 0.9),
        lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9),
    ),
    "Cosine": (
        optim.Cosine(0.5, 20, final=0.1),
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 20, 0.1),
    ),
    "OneCycle": (
        optim.OneCycle(0.5, 20),
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.5, 20, cycle_momentum=False),
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_rates(name: str) -> None:
    ours, make_theirs = SCHEDULES[name]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.5)
    theirs = make_theirs(optimizer)
    for step in range(20):
        assert ours(step) == pytest.approx(theirs.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        if step < 19:
            theirs.step()


def test_plateau() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.5)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=2)
    ours = optim.ReduceOnPlateau(0.5, factor=0.5, patience=2)
    for value in np.abs(normal((60,))) + 1 / (1 + np.arange(60)):
        theirs.step(value)
        ours.observe(value)
        assert ours(0) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
