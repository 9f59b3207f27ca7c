import math

import numpy as np
import pytest

import fastdl
from fastdl.optim import SGD, Adam, cosine

GRADS = [0.5, -1.0, 0.25, 0.0, 2.0]


def sgd_formula(w, lr=0.1, momentum=0.9):
    v = 0.0
    for g in GRADS:
        v = momentum * v + g
        w -= lr * v
    return w


def adam_formula(w, lr=0.1, beta1=0.8, beta2=0.95, eps=1e-3):
    m = v = 0.0
    for t, g in enumerate(GRADS, 1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        w -= lr * (m / (1 - beta1**t)) / (math.sqrt(v / (1 - beta2**t)) + eps)
    return w


def follow(make):
    w = np.array([[1.5]])
    optimizer = make({"w": w})
    for g in GRADS:
        optimizer.step({"w": np.array([[g]])})
    return w[0, 0]


def test_sgd_is_its_formula():
    assert follow(lambda p: SGD(p, 0.1, 0.9)) == pytest.approx(sgd_formula(1.5), rel=1e-13)
    assert follow(lambda p: SGD(p, 0.1)) == pytest.approx(1.5 - 0.1 * sum(GRADS), rel=1e-13)


def test_adam_is_its_formula():
    result = follow(lambda p: Adam(p, 0.1, (0.8, 0.95), 1e-3))
    assert result == pytest.approx(adam_formula(1.5), rel=1e-13)


@pytest.mark.parametrize("make", [lambda p: SGD(p, 0.1, 0.5), lambda p: Adam(p, 0.1)])
def test_steps_are_in_place_and_find_the_minimum(make):
    w = np.float32([3.0, -2.0])
    optimizer = make({"w": w})
    for _ in range(200):
        optimizer.step({"w": 2 * (w - np.float32([1.0, 5.0]))})
    assert w.dtype == np.float32
    np.testing.assert_allclose(w, [1.0, 5.0], atol=0.05)


@pytest.mark.parametrize("make", [lambda p: SGD(p, 0.1), lambda p: Adam(p, 0.1)])
def test_bad_gradients_change_nothing(make):
    params = {"a": np.ones(2), "b": np.ones(3)}
    optimizer = make(params)
    with pytest.raises(fastdl.ArgumentError, match="grads lacks 'b': run backward before step"):
        optimizer.step({"a": np.ones(2)})
    with pytest.raises(fastdl.ShapeError, match=r"grads\['b'\] must be \(3,\), got \(1,\)"):
        optimizer.step({"a": np.ones(2), "b": np.ones(1)})
    assert (params["a"] == 1).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD({}, 0), "lr must be a finite number above 0, got 0"),
        (lambda: SGD({}, math.nan), "lr must be a finite number above 0, got nan"),
        (lambda: SGD({}, 0.1, 1.0), "momentum must be at least 0 and below 1, got 1.0"),
        (lambda: Adam({}, -1), "lr must be a finite number above 0, got -1"),
        (lambda: Adam({}, betas=(0.9, 1.5)), r"betas\[1\] must be at least 0 and below 1, got 1.5"),
        (lambda: Adam({}, eps=0), "eps must be a finite number above 0, got 0"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(fastdl.ArgumentError, match=message):
        make()


def test_cosine_falls():
    values = [cosine(step / 10) for step in range(11)]
    assert values[0] == 1
    assert values[-1] == pytest.approx(0, abs=1e-15)
    assert values == sorted(values, reverse=True)


@pytest.mark.peer
def test_as_torch():
    torch = pytest.importorskip("torch")
    start = np.random.default_rng(0).standard_normal((3, 4))
    for ours, theirs in (
        (lambda p: SGD(p, 0.05, 0.9), lambda p: torch.optim.SGD(p, 0.05, 0.9)),
        (lambda p: Adam(p, 0.05), lambda p: torch.optim.Adam(p, 0.05)),
    ):
        w, t = start.copy(), torch.tensor(start, requires_grad=True)
        mine, other = ours({"w": w}), theirs([t])
        for step in range(5):
            grad = np.sin(start * (step + 1))
            mine.step({"w": grad})
            t.grad = torch.tensor(grad)
            other.step()
        np.testing.assert_allclose(w, t.detach(), rtol=1e-10)
