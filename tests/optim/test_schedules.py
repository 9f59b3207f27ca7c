"""Schedules of the learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastdl
from fastdl import optim


def rates(schedule: optim.Schedule, steps: int) -> list[float]:
    return [schedule(step) for step in range(steps)]


def test_by_hand() -> None:
    assert rates(optim.Constant(0.1), 3) == [0.1] * 3
    assert rates(optim.Step(1.0, 2, 0.5), 5) == [1, 1, 0.5, 0.5, 0.25]
    assert rates(optim.Exponential(1.0, 0.5), 4) == [1, 0.5, 0.25, 0.125]
    assert rates(optim.Warmup(optim.Step(1.0, 2, 0.5), 4), 5) == [0.25, 0.5, 0.375, 0.5, 0.25]


def test_cosine() -> None:
    values = rates(optim.Cosine(2.0, steps=10, final=1.0), 13)
    assert values[0] == 2
    assert values[5] == pytest.approx(1.5)
    assert values[3] == pytest.approx(1 + (1 + math.cos(0.3 * math.pi)) / 2)
    assert values[10:] == [1, 1, 1]
    assert values == sorted(values, reverse=True)


@given(
    steps=st.integers(1, 40),
    warmup=st.integers(0, 40),
    lr=st.floats(1e-6, 10),
    share=st.floats(0, 1),
)
def test_cosine_stays_between_its_ends(steps: int, warmup: int, lr: float, share: float) -> None:
    warmup = min(warmup, steps)
    schedule = optim.Cosine(lr, steps, final=share * lr, warmup=warmup)
    values = rates(schedule, steps + 2)
    assert all(0 <= value <= lr * (1 + 1e-12) for value in values)
    assert values[:warmup] == sorted(values[:warmup])
    assert values[warmup:] == sorted(values[warmup:], reverse=True)
    assert values[-1] == share * lr


@given(steps=st.integers(1, 60), rise=st.floats(0, 1), lr=st.floats(1e-6, 10))
def test_one_cycle_rises_and_falls(steps: int, rise: float, lr: float) -> None:
    values = rates(optim.OneCycle(lr, steps, rise), steps + 3)
    top = values.index(max(values))
    assert max(values) <= lr * (1 + 1e-12)
    assert values[: top + 1] == sorted(values[: top + 1])
    assert values[top:] == sorted(values[top:], reverse=True)
    assert values[-1] == pytest.approx(lr / 25 / 1e4)


def test_plateau() -> None:
    schedule = optim.ReduceOnPlateau(1.0, 0.5, patience=1, threshold=0.1, lowest=0.2)
    seen = []
    for loss in (10, 9.5, 8, math.nan, 7.5, 7.3, 7.25, 7.1, 7.0, 6.9, 6.8, 0):
        schedule.observe(loss)
        seen.append(schedule(99))
    assert seen == [1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.2, 0.2, 0.2]


def test_plateau_of_an_accuracy() -> None:
    schedule = optim.ReduceOnPlateau(1.0, 0.5, patience=0, mode="max")
    for accuracy, rate in ((0.1, 1), (0.2, 1), (0.2, 0.5), (0.3, 0.5), (0.1, 0.25)):
        schedule.observe(accuracy)
        assert schedule(0) == rate


def test_a_resumed_plateau_goes_on() -> None:
    make = lambda: optim.Warmup(optim.ReduceOnPlateau(1.0, 0.5, patience=2), 3)  # noqa: E731
    losses = [5.0, 4.0, 4.0, 4.0, 4.0, 3.0, 3.0, 3.0, 3.0]
    for stop in range(len(losses)):
        whole, first, second = make(), make(), make()
        for loss in losses:
            whole.observe(loss)
        for loss in losses[:stop]:
            first.observe(loss)
        second.load_state_dict({key: array.copy() for key, array in first.state_dict().items()})
        for loss in losses[stop:]:
            second.observe(loss)
        assert second(10) == whole(10)
        assert second.state_dict() == whole.state_dict()


def test_state_of_those_without() -> None:
    schedule = optim.Cosine(1.0, 10)
    schedule.observe(3.0)
    assert schedule.state_dict() == {}
    schedule.load_state_dict({})
    with pytest.raises(fastdl.ArgumentError, match=r"state must have nothing for Cosine, got"):
        schedule.load_state_dict({"lr": np.array(1.0)})
    plateau = optim.ReduceOnPlateau(1.0)
    with pytest.raises(fastdl.ArgumentError, match=r"state must have \['best', 'lr', 'waited'\]"):
        plateau.load_state_dict({"lr": np.array(0.5)})
    assert plateau(0) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.Constant(0), "lr must be a finite number above 0, got 0"),
        (lambda: optim.Step(1, 0), "every must be at least 1, got 0"),
        (lambda: optim.Step(1, 10, -1), "factor must be a finite number above 0, got -1"),
        (lambda: optim.Exponential(1, 0), "factor must be a finite number above 0, got 0"),
        (lambda: optim.Cosine(1, 0), "steps must be at least 1, got 0"),
        (lambda: optim.Cosine(1, 10, warmup=11), "warmup must be at most steps=10, got 11"),
        (lambda: optim.Cosine(1, 10, final=-1), "final must be a finite number of at least 0"),
        (lambda: optim.Warmup(optim.Constant(1), 0), "steps must be at least 1, got 0"),
        (lambda: optim.Warmup(0.1, 5), "schedule must be a Schedule, got 0.1"),
        (lambda: optim.OneCycle(1, 10, rise=2), "rise must be between 0 and 1, got 2"),
        (lambda: optim.OneCycle(1, 10, start_divisor=0), "start_divisor must be a finite number"),
        (lambda: optim.ReduceOnPlateau(1, 2), "factor must be between 0 and 1, got 2"),
        (lambda: optim.ReduceOnPlateau(1, patience=-1), "patience must be at least 0, got -1"),
        (lambda: optim.ReduceOnPlateau(1, mode="low"), "mode must be one of min, max, got 'low'"),
    ],
)
def test_bad_settings(make: Callable[[], object], message: str) -> None:
    with pytest.raises(fastdl.FastdlError, match=message):
        make()
