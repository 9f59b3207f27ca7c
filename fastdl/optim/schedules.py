"""Schedules: the learning rate of each update."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Literal

import numpy as np

from ..errors import ArgumentError, DTypeError
from ..functional.arguments import check_choice, real
from ..geometry import integer
from .selection import Array
from .settings import not_negative, positive


class Schedule(ABC):
    """The learning rate as a function of the number of updates done.

    ``optimizer.lr = schedule(step)`` before update number ``step``, counted from
    0. Those that follow what training measures are told by `observe`.
    """

    @abstractmethod
    def __call__(self, step: int) -> float:
        """The learning rate after ``step`` updates."""

    def observe(self, value: float) -> None:
        """Take note of a measured value, such as the validation loss of an epoch."""
        return

    def state_dict(self) -> dict[str, Array]:
        """What `observe` has left behind; nothing, for most."""
        return {}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Go on from ``state``.

        Raises
        ------
        ArgumentError
            If it is of another kind of schedule. Nothing is changed then.
        """
        own = self.state_dict().keys()
        if own != state.keys():
            raise ArgumentError(
                f"state must have {sorted(own) or 'nothing'} for {type(self).__name__}, "
                f"got {sorted(state)}"
            )


class Constant(Schedule):
    """Always ``lr``.

    Parameters
    ----------
    lr : float
        Above 0.

    Raises
    ------
    ArgumentError, DTypeError
        If ``lr`` is no finite number above 0.

    Examples
    --------
    >>> from fastdl import optim
    >>> optim.Constant(0.1)(1000)
    0.1
    """

    def __init__(self, lr: float) -> None:
        self.lr = positive("lr", lr)

    def __call__(self, step: int) -> float:
        return self.lr


class Step(Schedule):
    """``lr * factor ** (step // every)``: falls by a factor at regular intervals.

    Parameters
    ----------
    lr : float
        The first rate, above 0.
    every : int
        Updates between two falls, at least 1.
    factor : float, default 0.1
        Above 0.

    Raises
    ------
    ArgumentError, DTypeError
        If an argument is out of its range, or no number.

    Examples
    --------
    >>> from fastdl import optim
    >>> schedule = optim.Step(0.8, every=10, factor=0.5)
    >>> [schedule(step) for step in (0, 9, 10, 20)]
    [0.8, 0.8, 0.4, 0.2]
    """

    def __init__(self, lr: float, every: int, factor: float = 0.1) -> None:
        self.lr = positive("lr", lr)
        self.every = integer("every", every, 1)
        self.factor = positive("factor", factor)

    def __call__(self, step: int) -> float:
        return self.lr * self.factor ** (step // self.every)


class Exponential(Schedule):
    """``lr * factor ** step``: falls by a factor with every update.

    Parameters
    ----------
    lr : float
        The first rate, above 0.
    factor : float
        Above 0; of each update. ``0.1 ** (1 / n)`` falls to a tenth in n.

    Raises
    ------
    ArgumentError, DTypeError
        As `Step`.

    Examples
    --------
    >>> from fastdl import optim
    >>> schedule = optim.Exponential(0.8, factor=0.5)
    >>> [schedule(step) for step in range(3)]
    [0.8, 0.4, 0.2]
    """

    def __init__(self, lr: float, factor: float) -> None:
        self.lr = positive("lr", lr)
        self.factor = positive("factor", factor)

    def __call__(self, step: int) -> float:
        return self.lr * self.factor**step


class Cosine(Schedule):
    """Half a cosine from ``lr`` down to ``final``, after a linear rise.

    ``final + (lr - final) * (1 + cos(pi * t)) / 2`` with
    ``t = (step - warmup) / (steps - warmup)``; before, ``lr * (step + 1) / warmup``;
    afterwards ``final``.

    Parameters
    ----------
    lr : float
        The highest rate, above 0.
    steps : int
        All updates, at least 1.
    final : float, default 0
        The rate when they are done.
    warmup : int, default 0
        Updates of the rise, of the ``steps``.

    Raises
    ------
    ArgumentError, DTypeError
        As `Step`, and if ``warmup`` is above ``steps``.

    References
    ----------
    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm
    restarts", ICLR 2017, equation 5 (without restarts).

    Examples
    --------
    >>> from fastdl import optim
    >>> schedule = optim.Cosine(0.8, steps=8, warmup=2)
    >>> [round(schedule(step), 3) for step in (0, 1, 2, 5, 8)]
    [0.4, 0.8, 0.8, 0.4, 0.0]
    """

    def __init__(self, lr: float, steps: int, final: float = 0.0, warmup: int = 0) -> None:
        self.lr = positive("lr", lr)
        self.steps = integer("steps", steps, 1)
        self.final = not_negative("final", final)
        self.warmup = integer("warmup", warmup, 0)
        if self.warmup > self.steps:
            raise ArgumentError(f"warmup must be at most steps={steps}, got {warmup}")

    def __call__(self, step: int) -> float:
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        if step >= self.steps:
            return self.final
        progress = (step - self.warmup) / (self.steps - self.warmup)
        return _half_cosine(self.lr, self.final, progress)


class Warmup(Schedule):
    """Another schedule times ``min(1, (step + 1) / steps)``: a linear rise at its beginning.

    Parameters
    ----------
    schedule : Schedule
        What is followed; its own count goes on during the rise.
    steps : int
        Updates of the rise, at least 1.

    Raises
    ------
    ArgumentError, DTypeError
        If ``schedule`` is none, or ``steps`` no integer of at least 1.

    References
    ----------
    Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour",
    2017, section 2.2.

    Examples
    --------
    >>> from fastdl import optim
    >>> schedule = optim.Warmup(optim.Constant(0.8), steps=4)
    >>> [round(schedule(step), 3) for step in range(5)]
    [0.2, 0.4, 0.6, 0.8, 0.8]
    """

    def __init__(self, schedule: Schedule, steps: int) -> None:
        if not isinstance(schedule, Schedule):
            raise DTypeError(f"schedule must be a Schedule, got {schedule!r}")
        self.schedule = schedule
        self.steps = integer("steps", steps, 1)

    def __call__(self, step: int) -> float:
        return self.schedule(step) * min(1.0, (step + 1) / self.steps)

    def observe(self, value: float) -> None:
        self.schedule.observe(value)

    def state_dict(self) -> dict[str, Array]:
        return self.schedule.state_dict()

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        self.schedule.load_state_dict(state)


class OneCycle(Schedule):
    """Up to ``lr`` in the first part of training, then down to almost nothing.

    Half a cosine from ``lr / start_divisor`` to ``lr``, which is reached at step
    ``rise * steps - 1``, and another one down to
    ``lr / start_divisor / final_divisor`` at the last step, ``steps - 1``.

    Parameters
    ----------
    lr : float
        The highest rate, above 0.
    steps : int
        All updates, at least 1.
    rise : float, default 0.3
        The part of the steps that goes up, between 0 and 1.
    start_divisor : float, default 25
        Above 0.
    final_divisor : float, default 10000
        Above 0.

    Raises
    ------
    ArgumentError, DTypeError
        As `Step`.

    References
    ----------
    Smith and Topin, "Super-convergence: very fast training of neural networks
    using large learning rates", 2017, section 3.

    Examples
    --------
    >>> from fastdl import optim
    >>> schedule = optim.OneCycle(1.0, steps=10, rise=0.5)
    >>> [round(schedule(step), 3) for step in (0, 2, 4, 9)]
    [0.04, 0.52, 1.0, 0.0]
    """

    def __init__(
        self,
        lr: float,
        steps: int,
        rise: float = 0.3,
        start_divisor: float = 25.0,
        final_divisor: float = 1e4,
    ) -> None:
        self.lr = positive("lr", lr)
        self.steps = integer("steps", steps, 1)
        self.rise = real("rise", rise, 0, 1)
        self.start = self.lr / positive("start_divisor", start_divisor)
        self.final = self.start / positive("final_divisor", final_divisor)

    def __call__(self, step: int) -> float:
        last, top = self.steps - 1, max(self.rise * self.steps - 1, 0)
        if step < top:
            return _half_cosine(self.start, self.lr, step / top)
        if step >= last:
            return self.final
        return _half_cosine(self.lr, self.final, (step - top) / (last - top))


class ReduceOnPlateau(Schedule):
    """Falls by a factor when a measured value has not become better for a while.

    A value is better if it is below ``best * (1 - threshold)`` (``"min"``), or
    above ``best * (1 + threshold)`` (``"max"``). After more than ``patience``
    values in a row that are not, the rate falls, and the count begins anew.

    Parameters
    ----------
    lr : float
        The first rate, above 0.
    factor : float, default 0.1
        Between 0 and 1.
    patience : int, default 10
        At least 0.
    mode : {"min", "max"}, default "min"
        Whether small values are good (a loss) or large ones (an accuracy).
    threshold : float, default 1e-4
        At least 0.
    lowest : float, default 0
        The rate does not fall below it.

    Raises
    ------
    ArgumentError, DTypeError
        If an argument is out of its range, or no number.

    Examples
    --------
    >>> from fastdl import optim
    >>> schedule = optim.ReduceOnPlateau(0.8, factor=0.5, patience=1)
    >>> for loss in (3.0, 2.0, 2.0, 2.0):
    ...     schedule.observe(loss)
    >>> schedule(4)
    0.4
    """

    def __init__(
        self,
        lr: float,
        factor: float = 0.1,
        patience: int = 10,
        mode: Literal["min", "max"] = "min",
        threshold: float = 1e-4,
        lowest: float = 0.0,
    ) -> None:
        self.lr = positive("lr", lr)
        self.factor = real("factor", factor, 0, 1)
        self.patience = integer("patience", patience, 0)
        check_choice("mode", mode, ("min", "max"))
        self.mode = mode
        self.threshold = not_negative("threshold", threshold)
        self.lowest = not_negative("lowest", lowest)
        self._best = math.inf if mode == "min" else -math.inf
        self._waited = 0

    def __call__(self, step: int) -> float:
        return self.lr

    def observe(self, value: float) -> None:
        """Take note of a value; NaN is no better one."""
        if self._better(value):
            self._best, self._waited = value, 0
            return
        self._waited += 1
        if self._waited > self.patience:
            self.lr, self._waited = max(self.lr * self.factor, self.lowest), 0

    def state_dict(self) -> dict[str, Array]:
        """The rate, the best value, and how many were no better since."""
        return {
            "lr": np.array(self.lr),
            "best": np.array(self._best),
            "waited": np.array(self._waited),
        }

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        super().load_state_dict(state)
        self.lr, self._best = float(state["lr"]), float(state["best"])
        self._waited = int(state["waited"])

    def _better(self, value: float) -> bool:
        if self.mode == "min":
            return value < self._best * (1 - self.threshold)
        return value > self._best * (1 + self.threshold)


def _half_cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
