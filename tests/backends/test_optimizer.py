"""The rules of the optimisers and the sum of squares, on every backend."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from support import assert_close, assert_same, normal

import fastdl
from fastdl.backends.table import OptimizerStep
from fastdl.functional.optimizer import optimizer_step, sum_of_squares

from .cases import LARGE_SIZES, SMALL_SIZES

#: For each rule the numbers of its formula, and how many arrays of state it keeps.
RULES: dict[str, tuple[dict[str, float], int]] = {
    "sgd": ({}, 0),
    "momentum": ({"beta1": 0.8}, 1),
    "nesterov": ({"beta1": 0.8}, 1),
    "adagrad": ({"eps": 1e-3}, 1),
    "rmsprop": ({"beta1": 0.7, "eps": 1e-3}, 1),
    "adam": ({"beta1": 0.8, "beta2": 0.95, "eps": 1e-3}, 2),
}
PENALTIES = {
    "none": (0, 0, 0),
    "l1": (0.3, 0, 0),
    "l2": (0, 0.4, 0),
    "all": (0.3, 0.4, 0.5),
}


def step_of(rule: Any, **numbers: Any) -> OptimizerStep:
    return OptimizerStep(rule, 0.1, **RULES[rule][0], **{"step": 3, "grad_scale": 0.5, **numbers})


def formula(
    s: OptimizerStep, w: float, g: float, state: list[float], l1: float, l2: float, decay: float
) -> list[float]:
    """The new w and state of one element."""
    g = s.grad_scale * g + l2 * w + l1 * np.sign(w)
    w = w * (1 - s.lr * decay)
    if s.rule == "sgd":
        return [w - s.lr * g]
    if s.rule in ("momentum", "nesterov"):
        v = s.beta1 * state[0] - s.lr * g
        return [w + v if s.rule == "momentum" else w + s.beta1 * v - s.lr * g, v]
    if s.rule == "adagrad":
        h = state[0] + g * g
        return [w - s.lr * g / (math.sqrt(h) + s.eps), h]
    if s.rule == "rmsprop":
        h = s.beta1 * state[0] + (1 - s.beta1) * g * g
        return [w - s.lr * g / (math.sqrt(h) + s.eps), h]
    m = s.beta1 * state[0] + (1 - s.beta1) * g
    v = s.beta2 * state[1] + (1 - s.beta2) * g * g
    m_hat, v_hat = m / (1 - s.beta1**s.step), v / (1 - s.beta2**s.step)
    return [w - s.lr * m_hat / (math.sqrt(v_hat) + s.eps), m, v]


def arrays_of(shape: Any, rule: str, dtype: Any, seed: int = 0) -> list[np.ndarray]:
    """Parameters, their gradients, and the rule's state, which is positive."""
    made = [np.asarray(normal(shape, dtype, seed + i)) for i in range(2 + RULES[rule][1])]
    if made[0].size:
        made[0].flat[0] = 0  # whose sign is 0
    return made[:2] + [np.asarray(abs(array)) for array in made[2:]]


def stepped(
    s: OptimizerStep, arrays: list[np.ndarray], penalty: tuple[float, ...], backend: str
) -> list[np.ndarray]:
    """What becomes of (copies of) the parameters and their state."""
    w, *state = [array.copy() for array in (arrays[0], *arrays[2:])]
    rows = np.array([penalty], np.float64)
    optimizer_step(s, [w], [arrays[1]], [[array] for array in state], rows, backend=backend)
    return [w, *state]


def check(shape: Any, rule: str, penalty: str, dtype: Any, backend: str) -> None:
    s, arrays = step_of(rule), arrays_of(shape, rule, dtype)
    found = stepped(s, arrays, PENALTIES[penalty], backend)
    w, g, *state = (array.astype(np.float64) for array in arrays)
    expected = np.empty((len(found), w.size))
    for i in range(w.size):
        old = [array.item(i) for array in state]
        expected[:, i] = formula(s, w.item(i), g.item(i), old, *PENALTIES[penalty])
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other.reshape(one.shape), dtype)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("penalty", PENALTIES)
def test_formula(rule: str, penalty: str, dtype: type, backend: str) -> None:
    check((3, 11), rule, penalty, dtype, backend)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("size", SMALL_SIZES)
def test_sizes(rule: str, size: int, dtype: type, backend: str) -> None:
    check((size,), rule, "all", dtype, backend)


@pytest.mark.parametrize("rule", ["momentum", "adam"])
@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3)], ids=str)
def test_any_shape(rule: str, shape: tuple[int, ...], dtype: type, backend: str) -> None:
    check(shape, rule, "all", dtype, backend)


def many(rule: str, dtype: Any) -> list[list[np.ndarray]]:
    """Arrays of many sizes, some beyond one task of a kernel."""
    sizes = [*LARGE_SIZES, 0, 16384, 33333, 5, 16385, 1]
    columns = [arrays_of((size,), rule, dtype, seed) for seed, size in enumerate(sizes)]
    return [list(column) for column in zip(*columns, strict=True)]


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("rule", RULES)
def test_many_arrays_and_threads(rule: str, dtype: type, fast_backend: str) -> None:
    """Each array gets the bits that it gets alone, whatever the number of threads."""
    params, grads, *states = many(rule, dtype)
    rows = np.array(list(PENALTIES.values()), np.float64)
    s, penalties = step_of(rule), rows[np.arange(len(params)) % len(rows)]
    fastdl.set_num_threads(1)
    alone = [
        stepped(s, list(arrays), tuple(penalty), fast_backend)
        for *arrays, penalty in zip(params, grads, *states, penalties, strict=True)
    ]
    for number in (1, 2, 5):
        fastdl.set_num_threads(number)
        w, *state = [[array.copy() for array in column] for column in (params, *states)]
        optimizer_step(s, w, grads, state, penalties, backend=fast_backend)
        for found, expected in zip(zip(w, *state, strict=True), alone, strict=True):
            assert_same(found, tuple(expected))


@pytest.mark.parametrize("rule", RULES)
def test_what_is_not_finite_stays_in_its_place(rule: str, dtype: type, backend: str) -> None:
    w, g, *state = arrays_of((19,), rule, dtype)
    w[3] = g[7] = np.nan
    g[11] = np.inf
    found = stepped(step_of(rule), [w, g, *state], PENALTIES["all"], backend)
    good = np.isfinite(found[0])
    assert not good[[3, 7, 11]].any()
    assert good.sum() == 16
    expected = stepped(step_of(rule), [w, g, *state], PENALTIES["all"], "reference")
    np.testing.assert_array_equal(np.isnan(found[0]), np.isnan(expected[0]))


@pytest.mark.parametrize("penalty", [(0, 0, 0), (0, 0, 0.5)])
def test_no_penalty_leaves_infinity(penalty: tuple[float, ...], dtype: type, backend: str) -> None:
    arrays = [np.array([np.inf, -np.inf, 1], dtype), np.ones(3, dtype)]
    found = stepped(step_of("sgd"), arrays, penalty, backend)[0]
    np.testing.assert_array_equal(found[:2], arrays[0][:2])


@pytest.mark.parametrize("rule", RULES)
def test_layouts(rule: str, dtype: type, backend: str) -> None:
    """Parameters of any strides are changed in place, and nothing around them."""
    s, arrays = step_of(rule), arrays_of((6, 7), rule, dtype)
    expected = stepped(s, arrays, PENALTIES["all"], backend)
    room = np.full((13, 15), 7, dtype)
    w, g = room[1:13:2, 14:0:-2], np.asfortranarray(arrays[1])
    w[...] = arrays[0]
    g.flags.writeable = False
    state = [[array.copy()] for array in arrays[2:]]
    optimizer_step(s, [w], [g], state, np.array([PENALTIES["all"]]), backend=backend)
    assert_same(w.copy(), expected[0])
    w[...] = 7
    assert (room == 7).all()


@pytest.mark.parametrize("rule", RULES)
def test_a_gradient_on_its_parameters_memory(rule: str, dtype: type, backend: str) -> None:
    """The parameter itself (half a square's gradient), and a part of it."""
    room = normal((90,), dtype)
    _, _, *state = arrays_of((40,), rule, dtype)
    for place in (slice(10, 50), slice(11, 51), slice(3, 43), slice(49, 9, -1)):
        memory = room.copy()
        w, g = memory[10:50], memory[place]
        arrays = [w.copy(), g.copy(), *state]
        expected = stepped(step_of(rule), arrays, PENALTIES["l2"], backend)
        kept = [[array.copy()] for array in state]
        rows = np.array([PENALTIES["l2"]], np.float64)
        optimizer_step(step_of(rule), [w], [g], kept, rows, backend=backend)
        assert_same(w, expected[0])


@pytest.mark.parametrize("size", [0, *SMALL_SIZES, 129])
def test_sum_of_squares(size: int, dtype: type, backend: str) -> None:
    x = normal((size,), dtype)
    expected = float((x.astype(np.float64) ** 2).sum())
    assert sum_of_squares([x], backend=backend) == pytest.approx(expected, rel=1e-14)


def test_sum_of_squares_is_in_double_precision(backend: str) -> None:
    x = np.full((2, 3), 1e30, np.float32).T
    total = sum_of_squares([x, x], backend=backend)
    assert total == pytest.approx(12 * float(np.float32(1e30)) ** 2, rel=1e-14)
    small = np.float32([1e-40, -1e-30])
    exact = float((small.astype(np.float64) ** 2).sum())
    assert sum_of_squares([small], backend=backend) == pytest.approx(exact, rel=1e-14)
    assert math.isnan(sum_of_squares([np.float32([1, np.nan])], backend=backend))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("size", [16384, 16385, 100003])
def test_sum_of_squares_and_threads(size: int, dtype: type, fast_backend: str) -> None:
    x = normal((size,), dtype)
    fastdl.set_num_threads(1)
    first = sum_of_squares([x], backend=fast_backend)
    assert first == pytest.approx(float((x.astype(np.float64) ** 2).sum()), rel=1e-13)
    for number in (2, 3):
        fastdl.set_num_threads(number)
        assert sum_of_squares([x], backend=fast_backend) == first
