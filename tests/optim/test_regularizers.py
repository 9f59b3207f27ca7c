"""Regularisers: the penalty, its gradient within an update, and whom it concerns."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import assert_same, normal

import fastdl
from fastdl import optim

SHAPES = {"0.weight": (4, 3), "0.bias": (4,), "norm.weight": (4,), "2.weight": (2, 3, 2)}
#: With what each is by hand: the penalty of one weight.
KINDS: dict[str, tuple[optim.Regularizer, Callable[[np.ndarray], np.ndarray]]] = {
    "L1": (optim.L1(0.3), lambda w: 0.3 * abs(w)),
    "L2": (optim.L2(0.3), lambda w: 0.15 * w**2),
    "Elastic": (optim.Elastic(0.3, 0.4), lambda w: 0.3 * abs(w) + 0.2 * w**2),
    "Lp1": (optim.Lp(0.3, 1), lambda w: 0.3 * abs(w)),
    "Lp1.5": (optim.Lp(0.3, 1.5), lambda w: 0.3 / 1.5 * abs(w) ** 1.5),
    "Lp4": (optim.Lp(0.3, 4), lambda w: 0.3 / 4 * w**4),
}


def params_of(dtype: Any = np.float64) -> dict[str, np.ndarray]:
    return {name: normal(shape, dtype) for name, shape in SHAPES.items()}


def zeros_like(params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.zeros_like(array) for name, array in params.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_loss(kind: str, dtype: type, backend: str) -> None:
    regularizer, penalty = KINDS[kind]
    params = params_of(dtype)
    weights = (params[name].astype(np.float64) for name in ("0.weight", "2.weight"))
    expected = sum(penalty(w).sum() for w in weights)
    with fastdl.use_backend(backend):
        assert regularizer.loss(params) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_an_update_follows_the_losss_slope(kind: str, dtype: type, backend: str) -> None:
    """With no other gradient, by finite differences of ``loss``."""
    regularizer, _ = KINDS[kind]
    start, params = params_of(), params_of(dtype)
    with fastdl.use_backend(backend):
        optim.SGD(0.5, regularizer=regularizer).update(params, zeros_like(params))
    for name, array in start.items():
        slope, step = np.empty(array.shape), 1e-6
        for index in np.ndindex(array.shape):
            sides = []
            for shift in (step, -step):
                moved = {key: value.copy() for key, value in start.items()}
                moved[name][index] += shift
                sides.append(regularizer.loss(moved))
            slope[index] = (sides[0] - sides[1]) / (2 * step)
        expected = array - 0.5 * slope
        np.testing.assert_allclose(params[name], expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_norm", [None, 0.5])
def test_gradients_are_clipped_without_it(kind: str, max_norm: float | None, backend: str) -> None:
    """The update is that of ``scale * grad`` plus the penalty's own gradient."""
    regularizer, _ = KINDS[kind]
    params, expected, grads = params_of(), params_of(), params_of()
    scale = 1.0
    if max_norm is not None:
        scale = max_norm / math.sqrt(sum((g**2).sum() for g in grads.values()))
    pull = params_of()
    optim.SGD(1, regularizer=regularizer).update(pull, zeros_like(pull))
    with fastdl.use_backend(backend):
        optim.SGD(1, regularizer=regularizer, max_norm=max_norm).update(params, grads)
    for name, array in expected.items():
        np.testing.assert_allclose(params[name], pull[name] - scale * array, atol=1e-14)
        assert_same(grads[name], array)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_is_what_an_update_takes(kind: str) -> None:
    (penalty, _), params = KINDS[kind], {"w": normal((3, 5))}
    assert isinstance(penalty, optim.Penalty)
    expected = params["w"] - penalty.gradient(params["w"])
    optim.SGD(1, regularizer=penalty).update(params, zeros_like(params))
    np.testing.assert_allclose(params["w"], expected, rtol=1e-13)


def test_a_penalty_of_ones_own() -> None:
    class Cosh(optim.Penalty):
        """``sum(cosh(w))``."""

        def value(self, param: np.ndarray) -> float:
            return float(np.cosh(param).sum())

        def gradient(self, param: np.ndarray) -> np.ndarray:
            return np.sinh(param)

    params = {"w": normal((3, 5))}
    expected = params["w"] - 0.1 * np.sinh(params["w"]) - 0.1
    optim.SGD(0.1, regularizer=Cosh(None)).update(params, {"w": np.ones((3, 5))})
    np.testing.assert_allclose(params["w"], expected, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_zero_is_left_alone(kind: str, dtype: type, backend: str) -> None:
    params = {"w": np.zeros((3, 5), dtype)}
    with fastdl.use_backend(backend):
        optim.SGD(0.5, regularizer=KINDS[kind][0]).update(params, zeros_like(params))
    assert_same(params["w"], np.zeros((3, 5), dtype))


@pytest.mark.parametrize(
    ("applies_to", "chosen"),
    [
        (None, {"0.weight", "2.weight"}),
        ("*", set(SHAPES)),
        ("norm.*", {"norm.weight"}),
        (["0.bias", "2.*"], {"0.bias", "2.weight"}),
        ((), set()),
        (lambda name, array: name.startswith("0") or array.ndim == 3, {"0.weight", "0.bias"}),
    ],
)
@pytest.mark.parametrize("make", [optim.L2, lambda strength, to: optim.Lp(strength, 3, to)])
def test_applies_to(applies_to: Any, chosen: set[str], make: Callable[..., Any]) -> None:
    if callable(applies_to):
        chosen = {*chosen, "2.weight"}
    regularizer, params = make(0.1, applies_to), params_of()
    one_by_one = {name: regularizer.loss({name: array}) for name, array in params.items()}
    assert {name for name, value in one_by_one.items() if value} == chosen
    optim.SGD(0.5, regularizer=regularizer).update(params, zeros_like(params))
    changed = {name for name, array in params_of().items() if (array != params[name]).any()}
    assert changed == chosen


def test_groups(backend: str) -> None:
    """The first pattern counts; a regulariser's own choice holds as well."""
    groups = {"0.*": optim.L1(0.3), "norm.*": optim.Lp(0.2, 3, "*"), "*": optim.L2(0.4)}
    params, start = params_of(), params_of()
    with fastdl.use_backend(backend):
        optimizer = optim.SGD(1, regularizer=groups)
        optimizer.update(params, zeros_like(params))
    w, norm, last = (start[name] for name in ("0.weight", "norm.weight", "2.weight"))
    assert_same(params["0.bias"], start["0.bias"])
    np.testing.assert_allclose(params["0.weight"], w - 0.3 * np.sign(w))
    np.testing.assert_allclose(params["norm.weight"], norm - 0.2 * np.sign(norm) * norm**2)
    np.testing.assert_allclose(params["2.weight"], last * 0.6)
    expected = 0.3 * abs(w).sum() + 0.2 / 3 * (abs(norm) ** 3).sum() + 0.2 * (last**2).sum()
    assert optimizer.regularizer is not None
    assert optimizer.regularizer.loss(start) == pytest.approx(expected)


def test_ridge_has_its_closed_form(dtype: type) -> None:
    """Least squares with L2 goes where the normal equations say."""
    x, y = normal((40, 5), dtype, 1), normal((40, 1), dtype, 2)
    w = {"w": np.zeros((5, 1), dtype)}
    optimizer = optim.Momentum(0.1, regularizer=optim.L2(0.5))
    for _ in range(500):
        optimizer.update(w, {"w": x.T @ (x @ w["w"] - y) / 40})
    expected = np.linalg.solve(x.T @ x / 40 + 0.5 * np.eye(5), x.T @ y / 40)
    np.testing.assert_allclose(w["w"], expected, rtol=1e-5, atol=1e-8)


def test_lasso_has_exact_zeros(dtype: type, backend: str) -> None:
    """The optimum's conditions: a zero weight's slope is within the strength, another's is it."""
    x, y, strength = normal((40, 6), dtype, 1), normal((40, 1), dtype, 2), 0.12
    w = {"w": np.zeros((6, 1), dtype)}
    optimizer = optim.SGD(0.2, regularizer=optim.L1(strength, proximal=True))
    with fastdl.use_backend(backend):
        for _ in range(300):
            optimizer.update(w, {"w": x.T @ (x @ w["w"] - y) / 40})
    slope, zero = x.T @ (x @ w["w"] - y) / 40, w["w"] == 0
    assert 0 < zero.sum() < 6
    assert (abs(slope[zero]) < strength).all()
    np.testing.assert_allclose(slope[~zero], -strength * np.sign(w["w"][~zero]), rtol=1e-4)


def test_a_soft_threshold_beside_l2_and_of_nan() -> None:
    w = {"w": np.array([[2.0, -0.1, np.nan]])}
    elastic = optim.Elastic(0.4, 0.5, proximal=True)
    optim.SGD(0.5, regularizer=elastic).update(w, {"w": np.zeros((1, 3))})
    np.testing.assert_allclose(w["w"], [[2 * 0.75 - 0.2, 0, np.nan]])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.L1(-1), "strength must be a finite number of at least 0, got -1"),
        (lambda: optim.L2(math.inf), "strength must be a finite number of at least 0, got inf"),
        (lambda: optim.Elastic(0.1, "much"), "l2 must be a real number, got 'much'"),
        (lambda: optim.Lp(0.1, 0.5), "p must be at least 1, got 0.5"),
        (lambda: optim.L2(0.1, applies_to=[1]), "applies_to must be None, a name or pattern"),
        (lambda: optim.Groups({"*": 0.1}), r"regularizer must map patterns to regularisers"),
    ],
)
def test_bad_settings(make: Callable[[], object], message: str) -> None:
    with pytest.raises(fastdl.FastdlError, match=message):
        make()
