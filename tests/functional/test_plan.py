"""Plans and the choice of an algorithm: what a plan returns, keeps and refuses."""

from __future__ import annotations

import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import assert_close, assert_same, normal, truth

import fastdl
from fastdl import nn
from fastdl.backends import registry
from fastdl.geometry import conv_geometry

CASES: dict[str, dict[str, Any]] = {
    "small": {"x": (1, 16, 8, 8), "weight": (16, 16, 3, 3), "padding": 1},
    "odd": {"x": (2, 10, 13, 7), "weight": (24, 10, 3, 3), "padding": ((1, 0), (0, 2))},
    "strided": {"x": (2, 3, 11, 9), "weight": (5, 3, 3, 2), "stride": (2, 1)},
    "grouped": {"x": (2, 6, 9, 9), "weight": (4, 3, 3, 3), "groups": 2, "dilation": 2},
    "depthwise": {"x": (2, 6, 9, 9), "weight": (6, 1, 3, 3), "groups": 6, "padding": "same"},
    "no batch": {"x": (0, 3, 9, 9), "weight": (4, 3, 3, 3)},
}


def _arrays(case: str, dtype: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
    options = dict(CASES[case])
    x, weight = options.pop("x"), options.pop("weight")
    return normal(x, dtype, 1), normal(weight, dtype, 2), normal(weight[:1], dtype, 3), options


def _serving(case: str, dtype: Any, backend: str) -> tuple[str, ...]:
    x, weight, _, options = _arrays(case, dtype)
    geometry = conv_geometry(x.shape, weight.shape, **options)
    return registry.get(backend).conv2d_algorithms(geometry, x.dtype)


@pytest.mark.parametrize("activation", [None, "relu", "tanh"])
@pytest.mark.parametrize("case", CASES)
def test_a_plan_returns_what_conv2d_returns(
    case: str, activation: Any, dtype: type, backend: str
) -> None:
    x, weight, bias, options = _arrays(case, dtype)
    for algorithm in (None, *_serving(case, dtype, backend)):
        plan = fastdl.Conv2dPlan(
            x.shape, weight, bias, **options, activation=activation, algorithm=algorithm,
            backend=backend,
        )  # fmt: skip
        assert plan.algorithm in _serving(case, dtype, backend)
        expected = fastdl.conv2d(
            x, weight, bias, **options, activation=activation, algorithm=plan.algorithm,
            backend=backend,
        )  # fmt: skip
        assert plan.shape_out == expected.shape
        assert_same(plan(x), expected)
        out = np.full_like(expected, np.nan)
        assert plan(x, out) is out
        assert_same(out, expected)
        strided = np.full((*expected.shape[:3], 2 * expected.shape[3]), np.nan, dtype)[..., ::2]
        assert plan(np.asfortranarray(x), out=strided) is strided
        assert_same(strided, expected)


@pytest.mark.parametrize("case", CASES)
def test_every_algorithm_is_right(case: str, dtype: type, backend: str) -> None:
    x, weight, bias, options = _arrays(case, dtype)
    expected = truth(fastdl.conv2d, x, weight, bias, **options)
    grad = normal(expected.shape, dtype, 4)
    gradients = truth(fastdl.conv2d_backward, grad, x, weight, **options)
    serving = _serving(case, dtype, backend)
    assert len(set(serving)) == len(serving) >= 1
    for algorithm in serving:
        chosen = {"algorithm": algorithm, "backend": backend, **options}
        # Winograd's bar is 1.5e-6.
        assert_close(fastdl.conv2d(x, weight, bias, **chosen), expected, dtype, slack=1.5)
        found = fastdl.conv2d_backward(grad, x, weight, **chosen)
        assert_close(found, gradients, dtype, slack=3)


@pytest.mark.parametrize(
    ("case", "algorithm"), [("strided", "winograd"), ("small", "depthwise"), ("odd", "depthwise")]
)
def test_an_algorithm_that_does_not_serve_is_refused(
    case: str, algorithm: Any, backend: str
) -> None:
    x, weight, _, options = _arrays(case, np.float32)
    serving = ", ".join(_serving(case, np.float32, backend))
    message = (
        rf"^algorithm must be one that serves this convolution on this backend "
        rf"\({re.escape(serving)}\), got '{algorithm}'$"
    )
    chosen = {"algorithm": algorithm, "backend": backend, **options}
    grad = fastdl.conv2d(x, weight, **options)
    for _ in range(2):
        with pytest.raises(fastdl.ArgumentError, match=message):
            fastdl.conv2d(x, weight, **chosen)
    with pytest.raises(fastdl.ArgumentError, match=message):
        fastdl.conv2d_backward(grad, x, weight, **chosen)
    with pytest.raises(fastdl.ArgumentError, match=message):
        fastdl.Conv2dPlan(x.shape, weight, **chosen)
    with pytest.raises(fastdl.ArgumentError, match=message):
        fastdl.explain(x, weight, **chosen)


@pytest.mark.parametrize("algorithm", ["fft", "", 3, ["direct"]])
def test_an_unknown_algorithm_is_refused(algorithm: Any) -> None:
    x, weight, _, options = _arrays("small", np.float32)
    message = "^algorithm must be one of direct, depthwise, winograd, got "
    with pytest.raises(fastdl.ArgumentError, match=message):
        fastdl.conv2d(x, weight, **options, algorithm=algorithm)
    with pytest.raises(fastdl.ArgumentError, match=message):
        fastdl.Conv2dPlan(x.shape, weight, **options, algorithm=algorithm)


def test_a_call_that_was_seen_is_checked_like_the_first(backend: str) -> None:
    """The arguments equal those of the calls before, in the eyes of a dictionary."""
    x, weight, bias, options = _arrays("small", np.float32)
    expected = fastdl.conv2d(x, weight, bias, **options, backend=backend)
    assert_same(fastdl.conv2d(x, weight, bias, **options, backend=backend), expected)
    wrong: list[tuple[type[Exception], dict[str, Any]]] = [
        (fastdl.DTypeError, {"stride": True}),
        (fastdl.DTypeError, {"stride": 1.0}),
        (fastdl.DTypeError, {"dilation": (1, True)}),
        (fastdl.DTypeError, {"padding": (1.0, 1)}),
        (fastdl.DTypeError, {"groups": True}),
        (fastdl.ArgumentError, {"activation": "selu"}),
        (fastdl.ArgumentError, {"activation": ["relu"]}),
        (fastdl.ArgumentError, {"padding": "full"}),
        (fastdl.ArgumentError, {"padding": -1}),
        (fastdl.ArgumentError, {"padding": -2}),
        (fastdl.ArgumentError, {"stride": 2**70}),
        (fastdl.DTypeError, {"bias": bias.astype(np.float64)}),
        (fastdl.ShapeError, {"bias": bias[1:]}),
        (fastdl.DTypeError, {"x": x.astype(np.float64)}),
        (fastdl.DTypeError, {"x": x.astype(np.int32)}),
        (fastdl.OutputError, {"out": expected.astype(np.float64)}),
        (fastdl.OutputError, {"out": expected[:, 1:]}),
        (fastdl.OutputError, {"out": x}),
        (fastdl.OutputError, {"out": [1.0]}),
        (fastdl.OutputError, {"out": np.broadcast_to(expected[:1, :1], expected.shape)}),
    ]
    valid = {"x": x, "weight": weight, "bias": bias, **options, "backend": backend}
    for error, changed in wrong:
        with pytest.raises(error):
            fastdl.conv2d(**{**valid, **changed})
        assert_same(fastdl.conv2d(**valid), expected)


@given(
    padding=st.sampled_from([0, 1, (1, 1), (0, 1), ((1, 1), (1, 1)), ((0, 1), (1, 0)), "same",
                             "valid", ((0, 1), 1), [1, 1], np.int64(1)]),
    stride=st.sampled_from([1, (1, 1), (2, 1), [1, 2]]),
    swapped=st.booleans(),
)  # fmt: skip
def test_calls_in_any_order_keep_apart(padding: Any, stride: Any, swapped: bool) -> None:
    """The calls that are kept never serve one another's arguments."""
    if padding == "same" and stride != 1:
        stride = 1
    x, weight = normal((2, 8, 6, 5), np.float32), normal((8, 8, 3, 3), np.float32, 1)
    if swapped:
        x = x.swapaxes(2, 3)
    for _ in range(2):
        found = fastdl.conv2d(x, weight, None, stride, padding)
        assert_close(found, truth(fastdl.conv2d, x, weight, None, stride, padding), np.float32, 1.5)


@pytest.mark.parametrize(
    ("error", "message", "changed"),
    [
        (fastdl.ShapeError, "^x_shape must be four integers", {"x_shape": (1, 16, 8)}),
        (fastdl.ShapeError, "^weight must have 16 channels", {"weight": normal((4, 3, 3, 3))}),
        (fastdl.DTypeError, "^weight must be float32 or float64", {"weight": np.ones((4, 16, 3, 3), int)}),
        (fastdl.ShapeError, r"^bias must have shape \(16,\)", {"bias": normal((3,))}),
        (fastdl.ArgumentError, "^stride must be at least 1", {"stride": 0}),
        (fastdl.ArgumentError, "^activation must be one of", {"activation": "selu"}),
        (fastdl.BackendError, "^backend must be one of", {"backend": "gpu"}),
    ],
)  # fmt: skip
def test_wrong_arguments(error: Any, message: str, changed: dict[str, Any]) -> None:
    arguments = {"x_shape": (1, 16, 8, 8), "weight": normal((16, 16, 3, 3)), **changed}
    with pytest.raises(error, match=message):
        fastdl.Conv2dPlan(**arguments)


def test_wrong_inputs(backend: str) -> None:
    x, weight, bias, options = _arrays("small", np.float32)
    plan = fastdl.Conv2dPlan(x.shape, weight, bias, **options, backend=backend)
    with pytest.raises(fastdl.ShapeError, match=r"^x must have shape \(1, 16, 8, 8\), got"):
        plan(x[:, :, 1:])
    with pytest.raises(fastdl.DTypeError, match=r"^x must be float32"):
        plan(x.astype(np.float64))
    with pytest.raises(fastdl.OutputError, match=r"^out must share no memory with x"):
        plan(x, x)
    with pytest.raises(fastdl.ShapeError, match=r"^weight must have shape"):
        plan.pack(weight[1:])
    with pytest.raises(fastdl.DTypeError, match=r"^weight must be float32"):
        plan.pack(weight.astype(np.float64))


def test_a_plan_owns_its_weights(backend: str) -> None:
    x, weight, bias, options = _arrays("small", np.float32)
    plan = fastdl.Conv2dPlan(x.shape, weight, bias, **options, backend=backend)
    before = plan(x)
    other = weight[::-1].copy()
    weight *= 2
    bias += 1
    assert_same(plan(x), before)
    plan.pack(other, bias)
    expected = fastdl.conv2d(x, other, bias, **options, algorithm=plan.algorithm, backend=backend)
    assert_same(plan(x), expected)


@pytest.mark.parametrize("case", ["small", "strided", "depthwise"])
def test_threads_share_a_plan(case: str, fast_backend: str) -> None:
    x, weight, bias, options = _arrays(case, np.float32)
    plan = fastdl.Conv2dPlan(x.shape, weight, bias, **options, backend=fast_backend)
    inputs = [normal(x.shape, np.float32, seed) for seed in range(8)]
    expected = [plan(x) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for found, wanted in zip(pool.map(plan, inputs), expected, strict=True):
                assert_same(found, wanted)


def test_a_plan_keeps_its_instruction_set() -> None:
    if fastdl.available_backends()["compiled"] is not None:
        pytest.skip("instruction sets are those of the compiled backend")
    from fastdl.backends.compiled import isa

    x, weight, bias, options = _arrays("odd", np.float32)
    usual = isa.current_isa()
    expected = {}
    plans = {}
    try:
        for name in isa.supported_isas():
            isa.select_isa(name)
            plans[name] = fastdl.Conv2dPlan(x.shape, weight, bias, **options, backend="compiled")
            expected[name] = plans[name](x)
        for plan in plans.values():
            for name in isa.supported_isas():
                isa.select_isa(name)
                assert_same(plan(x), expected[plan.isa])
                assert_same(plan(np.asfortranarray(x)), expected[plan.isa])
    finally:
        isa.select_isa(usual)


# --- the layer ---------------------------------------------------------------


def _layer() -> tuple[nn.Conv2d, np.ndarray]:
    return nn.Conv2d(16, 32, 3, padding=1, rng=0).eval(), normal((2, 16, 12, 12), np.float32)


def _expected(layer: nn.Conv2d, x: np.ndarray) -> np.ndarray:
    return truth(fastdl.conv2d, x, layer.weight, layer.bias, *layer.geometry)


@pytest.mark.parametrize("change", ["in place", "bias", "load", "other array", "held"])
def test_a_layer_sees_changed_weights(change: str) -> None:
    layer, x = _layer()
    held = layer.weight
    assert_close(layer(x), _expected(layer, x), np.float32, 1.5)
    if change == "in place":
        layer.weight[3, 2, 1] += 1
    elif change == "bias":
        layer.params["bias"][5] = 7
    elif change == "load":
        layer.load_state_dict({name: 2 * array for name, array in layer.state_dict().items()})
    elif change == "other array":
        layer.params["weight"] = layer.weight[::-1]
    else:
        held *= -1
    for _ in range(2):
        assert_close(layer(x), _expected(layer, x), np.float32, 1.5)
    assert_close(layer(x[:1]), _expected(layer, x[:1]), np.float32, 1.5)


def test_a_layer_packs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = _layer()
    packed = []
    pack = fastdl.Conv2dPlan.pack
    monkeypatch.setattr(
        fastdl.Conv2dPlan, "pack", lambda *arguments: (packed.append(1), pack(*arguments))[1]
    )
    for _ in range(3):
        layer(x)
    assert len(packed) == 1
    layer.train()(x)
    assert len(packed) == 1


def test_a_layer_that_evaluated_can_be_pickled() -> None:
    layer, x = _layer()
    expected = layer(x)
    assert_same(pickle.loads(pickle.dumps(layer))(x), expected)


def test_a_layer_still_names_what_is_wrong() -> None:
    layer, x = _layer()
    layer(x)
    with pytest.raises(fastdl.ShapeError, match=r"^weight must have 3 channels"):
        layer(x[:, :3])
    with pytest.raises(fastdl.DTypeError, match=r"^x must be float32"):
        layer(x.astype(np.float64))
