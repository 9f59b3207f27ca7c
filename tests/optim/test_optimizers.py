"""Optimisers: their formulas over several updates, clipping, state, bad input."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes
from support import TOLERANCE, assert_same, normal

import fastdl
from fastdl import optim

Arrays = dict[str, np.ndarray]

#: Every optimiser, with settings under which each part of its formula counts.
OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {
    "SGD": lambda **o: optim.SGD(0.1, **o),
    "Momentum": lambda **o: optim.Momentum(0.1, 0.8, **o),
    "Nesterov": lambda **o: optim.Nesterov(0.1, 0.8, **o),
    "AdaGrad": lambda **o: optim.AdaGrad(0.1, **o),
    "RMSProp": lambda **o: optim.RMSProp(0.1, 0.7, **o),
    "Adam": lambda **o: optim.Adam(0.1, (0.8, 0.95), 1e-3, **o),
    "AdamW": lambda **o: optim.AdamW(0.1, (0.8, 0.95), 1e-3, 0.5, **o),
}
USUAL = next(name for name, reason in fastdl.available_backends().items() if reason is None)
SHAPES = {"0.weight": (4, 3, 3, 3), "0.bias": (4,), "1.weight": (4,), "2.weight": (5, 36)}


def formula(name: str, w: float, gradients: list[float], lr: float = 0.1) -> float:
    """What becomes of one weight, by hand."""
    v = h = m = 0.0
    for t, g in enumerate(gradients, 1):
        if name == "SGD":
            w -= lr * g
        elif name == "Momentum":
            v = 0.8 * v - lr * g
            w += v
        elif name == "Nesterov":
            v = 0.8 * v - lr * g
            w += 0.8 * v - lr * g
        elif name == "AdaGrad":
            h += g**2
            w -= lr * g / (math.sqrt(h) + 1e-7)
        elif name == "RMSProp":
            h = 0.7 * h + 0.3 * g**2
            w -= lr * g / (math.sqrt(h) + 1e-8)
        else:
            m, h = 0.8 * m + 0.2 * g, 0.95 * h + 0.05 * g**2
            if name == "AdamW":
                w -= lr * 0.5 * w
            w -= lr * (m / (1 - 0.8**t)) / (math.sqrt(h / (1 - 0.95**t)) + 1e-3)
    return w


def params_of(dtype: Any = np.float64) -> Arrays:
    return {name: normal(shape, dtype, 1) for name, shape in SHAPES.items()}


def grads_of(dtype: Any = np.float64, seed: int = 2) -> Arrays:
    return {name: normal(shape, dtype, seed) for name, shape in SHAPES.items()}


def follow(optimizer: optim.Optimizer, params: Arrays, seeds: range) -> Arrays:
    """``params`` after an update with each of the gradients."""
    for seed in seeds:
        optimizer.update(params, grads_of(params["0.bias"].dtype, seed))
    return params


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_formula(name: str, dtype: type, backend: str) -> None:
    gradients = [0.5, -1.0, 0.25, 0.0, 2.0]
    w = np.array([[1.5]], dtype)
    optimizer = OPTIMIZERS[name]()
    with fastdl.use_backend(backend):
        for g in gradients:
            optimizer.update({"w": w}, {"w": np.array([[g]], dtype)})
    assert w.dtype == dtype
    rel = TOLERANCE[np.dtype(dtype)]
    assert w[0, 0] == pytest.approx(formula(name, 1.5, gradients), rel=rel)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_finds_the_minimum(name: str) -> None:
    w = np.float32([[3.0, -2.0]])
    optimizer = OPTIMIZERS[name]()
    if name == "AdamW":  # its decay moves the minimum
        optimizer = optim.AdamW(0.1, weight_decay=0)
    for step in range(300):
        # AdaGrad's own steps fall already.
        optimizer.lr = 1 if name == "AdaGrad" else 0.1 * 0.99**step
        optimizer.update({"w": w}, {"w": 2 * (w - np.float32([1.0, 1.5]))})
    np.testing.assert_allclose(w, [[1.0, 1.5]], atol=0.05)


@given(shape=array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6), steps=st.integers(1, 3))
def test_any_shape_is_the_reference(shape: tuple[int, ...], steps: int) -> None:
    results = []
    for backend in ("reference", USUAL):
        w, optimizer = np.asarray(normal(shape)), optim.AdamW(0.1, regularizer=optim.L2(0.1))
        for step in range(steps):
            with fastdl.use_backend(backend):
                optimizer.update({"w": w}, {"w": np.asarray(normal(shape, seed=step + 1))})
        results.append(w)
    np.testing.assert_allclose(results[1], results[0], rtol=1e-12, atol=1e-14)


def test_the_rate_may_change() -> None:
    w, optimizer = np.ones(1), optim.SGD(0.5)
    optimizer.update({"w": w}, {"w": np.ones(1)})
    optimizer.lr = 0.125
    optimizer.update({"w": w}, {"w": np.ones(1)})
    optimizer.lr = 0
    optimizer.update({"w": w}, {"w": np.ones(1)})
    assert w == 0.375


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_clipping_by_the_norm(name: str, backend: str) -> None:
    """As if the gradients were scaled before, but they are left alone."""
    grads = grads_of()
    norm = math.sqrt(sum((g**2).sum() for g in grads.values()))
    for max_norm in (norm / 4, norm * 1.01):
        scale = min(1, max_norm / norm)
        expected, found = params_of(), params_of()
        with fastdl.use_backend(backend):
            OPTIMIZERS[name]().update(expected, {key: scale * g for key, g in grads.items()})
            OPTIMIZERS[name](max_norm=max_norm).update(found, grads)
        for key, array in expected.items():
            np.testing.assert_allclose(found[key], array, rtol=1e-12, atol=1e-14)
    for key, array in grads_of().items():
        assert_same(grads[key], array)


def test_decay_leaves_out_biases_and_norms() -> None:
    grads = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    for applies_to, decayed in (
        (None, {"0.weight", "2.weight"}),
        ("*.bias", {"0.bias"}),
        (["0.*", "1.weight"], {"0.weight", "0.bias", "1.weight"}),
        (lambda name, array: array.size == 4, {"0.bias", "1.weight"}),
    ):
        params = params_of()
        optim.AdamW(0.1, weight_decay=0.5, applies_to=applies_to).update(params, grads)
        for name, array in params_of().items():
            factor = 1 - 0.1 * 0.5 if name in decayed else 1
            assert_same(params[name], array * factor)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_resumed_run_gives_the_same_bits(name: str, dtype: type, backend: str) -> None:
    options = {"regularizer": optim.Elastic(1e-3, 1e-2), "max_norm": 5.0}
    if backend == "naive":
        options = {}
    with fastdl.use_backend(backend):
        first = OPTIMIZERS[name](**options)
        params = follow(first, params_of(dtype), range(3))
        state = {key: array.copy() for key, array in first.state_dict().items()}
        stopped, resumed = ({key: a.copy() for key, a in params.items()} for _ in range(2))
        follow(first, params, range(3, 6))
        second = OPTIMIZERS[name](**options)
        follow(second, resumed, range(9, 11))  # what it remembers of these must go
        for key, array in stopped.items():
            resumed[key][...] = array
        second.load_state_dict(state)
        follow(second, resumed, range(3, 6))
    for key, array in params.items():
        assert_same(resumed[key], array)
    for key, array in first.state_dict().items():
        assert_same(second.state_dict()[key], array)


def test_names_of_the_state() -> None:
    kept = {
        "SGD": [],
        "Momentum": ["velocity"],
        "Nesterov": ["velocity"],
        "AdaGrad": ["squares"],
        "RMSProp": ["square"],
        "Adam": ["mean", "square", "steps"],
        "AdamW": ["mean", "square", "steps"],
    }
    for name, make in OPTIMIZERS.items():
        optimizer = make()
        assert optimizer.state_dict() == {}
        follow(optimizer, params_of(), range(2))
        keys = {f"{slot}/{param}" for slot in kept[name] for param in SHAPES}
        assert optimizer.state_dict().keys() == keys
    assert optimizer.state_dict()["steps/0.bias"] == 2


def test_loaded_state_is_a_copy() -> None:
    first, second = OPTIMIZERS["Momentum"](), OPTIMIZERS["Momentum"]()
    params = follow(first, params_of(), range(1))
    second.load_state_dict(first.state_dict())
    before = first.state_dict()["velocity/0.bias"].copy()
    follow(second, params, range(1, 3))
    assert_same(first.state_dict()["velocity/0.bias"], before)


def test_each_parameter_has_its_own_count() -> None:
    """One that joins late is treated as at the first update."""
    late, alone = params_of(), params_of()
    optimizer = OPTIMIZERS["Adam"]()
    for _ in range(3):
        optimizer.update({"0.weight": late["0.weight"]}, grads_of())
    optimizer.update(late, grads_of())
    OPTIMIZERS["Adam"]().update(alone, grads_of())
    for name in ("0.bias", "1.weight", "2.weight"):
        np.testing.assert_allclose(late[name], alone[name], rtol=1e-12)
    counts = {name: int(optimizer.state_dict()[f"steps/{name}"]) for name in SHAPES}
    assert counts == {"0.weight": 4, "0.bias": 1, "1.weight": 1, "2.weight": 1}


def test_both_dtypes_at_once() -> None:
    params = {**params_of(), "0.bias": params_of(np.float32)["0.bias"]}
    grads = {**grads_of(), "0.bias": grads_of(np.float32)["0.bias"]}
    expected, single = params_of(), params_of(np.float32)
    for arrays, slopes in (
        (params, grads),
        (expected, grads_of()),
        (single, grads_of(np.float32)),
    ):
        OPTIMIZERS["AdamW"](regularizer=optim.L1(0.1, "*")).update(arrays, slopes)
    for name, array in params.items():
        assert_same(array, single[name] if name == "0.bias" else expected[name])


def test_new_arrays_of_the_same_names() -> None:
    """They take over the state: nothing hangs on an array's identity."""
    one, other = OPTIMIZERS["Adam"](), OPTIMIZERS["Adam"]()
    params = params_of()
    for seed in range(3):
        one.update(params, grads_of(seed=seed))
    fresh = params_of()
    for seed in range(3):
        fresh = {name: array.copy() for name, array in fresh.items()}
        other.update(fresh, grads_of(seed=seed))
    for name, array in params.items():
        assert_same(fresh[name], array)


def test_gradients_may_be_of_other_kinds() -> None:
    """What speaks of its memory, read-only, more than are asked for."""
    grad = np.arange(4.0)
    grad.flags.writeable = False
    params = {"a": np.zeros(4), "b": np.zeros(4)}
    optim.SGD(1).update(params, {"b": memoryview(grad), "a": grad, "c": np.ones(1)})
    assert_same(params["a"], -grad)
    assert_same(params["b"], -grad)


def _bad(params: Any, grads: Any) -> Any:
    ones = {"a": np.ones(2), "b": np.ones(3)}
    return tuple(None if given is None else {**ones, **given} for given in (params, grads))


READ_ONLY = np.ones(3)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize("name", ["SGD", "Adam"])
@pytest.mark.parametrize(
    ("params", "grads", "error", "message"),
    [
        ({}, {"b": None}, fastdl.ArgumentError, "grads lacks 'b': run backward before update"),
        ({}, {"b": np.ones(1)}, fastdl.ShapeError, r"grads\['b'\] must be \(3,\), got \(1,\)"),
        ({}, {"b": np.ones(3, np.float32)}, fastdl.DTypeError, r"grads\['b'\] must be float64"),
        ({}, {"b": "text"}, fastdl.DTypeError, r"grads\['b'\] must be"),
        ({"b": [1.0]}, {}, fastdl.DTypeError, r"params\['b'\] must be a NumPy array, got list"),
        ({"b": np.ones(3, int)}, {}, fastdl.DTypeError, r"params\['b'\] must be float32 or"),
        ({"b": READ_ONLY}, {}, fastdl.ArgumentError, r"params\['b'\] must be writable"),
        (None, {}, fastdl.DTypeError, "params must be a mapping of names to arrays, got None"),
        ({}, None, fastdl.DTypeError, "grads must be a mapping of names to arrays, got None"),
    ],
)
def test_bad_arrays_change_nothing(
    name: str, params: Any, grads: Any, error: type[Exception], message: str
) -> None:
    given, slopes = _bad(params, grads)
    optimizer = OPTIMIZERS[name]()
    with pytest.raises(error, match=message):
        optimizer.update(given, slopes)
    assert given is None or (given["a"] == 1).all()
    assert optimizer.state_dict() == {}


def test_what_changed_since_the_last_update_is_seen() -> None:
    optimizer, w = OPTIMIZERS["Adam"](), np.ones(3)
    optimizer.update({"w": w}, {"w": np.ones(3)})
    before = w.copy()
    w.flags.writeable = False
    with pytest.raises(fastdl.ArgumentError, match=r"params\['w'\] must be writable"):
        optimizer.update({"w": w}, {"w": np.ones(3)})
    assert_same(w, before)
    with pytest.raises(fastdl.DTypeError, match="params must be a mapping"):
        optimizer.update([w], {})  # type: ignore[arg-type]
    with pytest.raises(fastdl.ShapeError, match="mean/w is"):
        optimizer.update({"w": np.ones(4)}, {"w": np.ones(4)})


def test_shared_memory_is_refused() -> None:
    room = np.ones(8)
    params = {"a": room[:5], "b": room[4:]}
    with pytest.raises(fastdl.ArgumentError, match=r"params\['b'\] must share no memory"):
        optim.SGD(0.1).update(params, params)
    assert (room == 1).all()
    optim.SGD(0.5).update({"a": room[:4], "b": room[4:]}, {"a": np.ones(4), "b": np.ones(4)})
    assert (room == 0.5).all()


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        ({"velocity/a": np.ones(2)}, fastdl.ArgumentError, "has 'velocity/a', which is no state"),
        ({"mean": np.ones(2)}, fastdl.ArgumentError, "has 'mean', which is no state of Adam"),
        (
            {"mean/a": np.ones(2), "square/a": np.ones(2)},
            fastdl.ArgumentError,
            "state lacks 'steps/a' to 'mean/a'",
        ),
        ({"steps/a": np.ones(2)}, fastdl.DTypeError, r"state\['steps/a'\] must be an array of one"),
        ({"mean/a": np.ones(2, int)}, fastdl.DTypeError, r"state\['mean/a'\] must be float32 or"),
    ],
)
def test_bad_state_changes_nothing(state: Arrays, error: type[Exception], message: str) -> None:
    optimizer = OPTIMIZERS["Adam"]()
    optimizer.update({"a": np.ones(2)}, {"a": np.ones(2)})
    before = {key: array.copy() for key, array in optimizer.state_dict().items()}
    with pytest.raises(error, match=message):
        optimizer.load_state_dict(state)
    for key, array in optimizer.state_dict().items():
        assert_same(array, before[key])


def test_state_that_fits_no_parameter() -> None:
    optimizer, params = OPTIMIZERS["Momentum"](), {"a": np.ones(2)}
    optimizer.load_state_dict({"velocity/a": np.ones(3)})
    with pytest.raises(fastdl.ShapeError, match=r"velocity/a is \(3,\), but the parameter is \(2"):
        optimizer.update(params, params)
    optimizer.load_state_dict({"velocity/a": np.ones(2, np.float32)})
    with pytest.raises(fastdl.DTypeError, match="velocity/a is float32, but the parameter is floa"):
        optimizer.update(params, params)
    assert (params["a"] == 1).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.SGD(0), "lr must be a finite number above 0, got 0"),
        (lambda: optim.SGD(math.nan), "lr must be a finite number above 0, got nan"),
        (lambda: optim.SGD("fast"), "lr must be a real number, got 'fast'"),
        (lambda: optim.SGD(0.1, max_norm=0), "max_norm must be a finite number above 0, got 0"),
        (lambda: optim.SGD(0.1, regularizer=0.1), "regularizer must be None, a regulariser"),
        (lambda: optim.Momentum(0.1, 1.0), "momentum must be at least 0 and below 1, got 1.0"),
        (lambda: optim.Nesterov(0.1, -0.1), "momentum must be at least 0 and below 1, got -0.1"),
        (lambda: optim.AdaGrad(0.1, 0), "eps must be a finite number above 0, got 0"),
        (lambda: optim.RMSProp(0.1, 1), "decay must be at least 0 and below 1, got 1"),
        (lambda: optim.RMSProp(0.1, eps=-1), "eps must be a finite number above 0, got -1"),
        (lambda: optim.Adam(-1), "lr must be a finite number above 0, got -1"),
        (lambda: optim.Adam(betas=(0.9, 1.5)), r"betas\[1\] must be at least 0 and below 1"),
        (lambda: optim.Adam(betas=0.9), "betas must be a pair of numbers, got 0.9"),
        (lambda: optim.AdamW(weight_decay=-1), "weight_decay must be a finite number of at least"),
        (lambda: optim.AdamW(applies_to=3), "applies_to must be None, a name or pattern"),
    ],
)
def test_bad_settings(make: Callable[[], object], message: str) -> None:
    with pytest.raises(fastdl.FastdlError, match=message):
        make()


def test_bad_rate_later() -> None:
    optimizer = optim.SGD(0.1)
    with pytest.raises(fastdl.ArgumentError, match="lr must be a finite number of at least 0"):
        optimizer.lr = math.inf
    assert optimizer.lr == 0.1
