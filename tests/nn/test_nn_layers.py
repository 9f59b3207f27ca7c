import numpy as np
import pytest

import fastdl
from fastdl import nn
from fastdl.nn.init import fans


@pytest.fixture(autouse=True)
def _reference():
    with fastdl.use_backend("reference"):
        yield


@pytest.fixture
def x():
    return np.random.default_rng(1).standard_normal((3, 2, 6, 6)).astype(np.float32)


def small_net(seed=0):
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, rng=seed),
        nn.BatchNorm2d(4),
        nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)),
        nn.Flatten(),
        nn.Linear(36, 5, bias=False, rng=seed),
    )


def test_state_has_torch_names():
    assert set(small_net().state_dict()) == {
        "0.weight",
        "0.bias",
        "1.weight",
        "1.bias",
        "1.running_mean",
        "1.running_var",
        "1.num_batches_tracked",
        "4.weight",
    }
    nested = nn.Sequential(nn.Sequential(nn.Linear(2, 2)), nn.Linear(2, 2, bias=False))
    assert list(nested.parameters()) == ["0.0.weight", "0.0.bias", "1.weight"]


def test_conv_takes_every_argument(x):
    layer = nn.Conv2d(2, 4, (3, 2), (2, 1), ((1, 0), (0, 1)), (1, 2), 2, rng=0)
    layer.params["bias"][:] = [1, 2, 3, 4]
    expected = fastdl.conv2d(
        x,
        layer.params["weight"],
        np.float32([1, 2, 3, 4]),
        stride=(2, 1),
        padding=((1, 0), (0, 1)),
        dilation=(1, 2),
        groups=2,
    )
    assert layer.params["weight"].shape == (4, 1, 3, 2)
    np.testing.assert_array_equal(layer(x), expected)


def test_linear_takes_leading_axes():
    layer = nn.Linear(4, 3, rng=0)
    rows = np.random.default_rng(0).standard_normal((2, 5, 4)).astype(np.float32)
    assert layer(rows).shape == (2, 5, 3)
    assert layer.backward(np.ones((2, 5, 3), np.float32)).shape == rows.shape
    np.testing.assert_allclose(layer.grads["bias"], [10, 10, 10])


def test_same_seed_same_weights():
    first, again, other = small_net(3), small_net(3), small_net(4)
    for name, array in first.parameters().items():
        np.testing.assert_array_equal(array, again.parameters()[name])
    assert (first.parameters()["0.weight"] != other.parameters()["0.weight"]).any()


@pytest.mark.parametrize("layer", [nn.Conv2d(2, 4, 3, dtype="f8"), nn.Linear(2, 4, dtype="f8")])
def test_dtype(layer):
    assert {array.dtype for array in layer.parameters().values()} == {np.dtype(np.float64)}


def test_gradients_are_written_anew(x):
    net = small_net()
    grad = np.ones_like(net(x))
    net.backward(grad)
    once = {name: array.copy() for name, array in net.gradients().items()}
    net.backward(grad)
    assert once.keys() == net.parameters().keys()
    for name, array in net.gradients().items():
        np.testing.assert_array_equal(array, once[name])


def test_batch_norm_follows_the_batches(x):
    layer = nn.BatchNorm2d(2, momentum=0.25)
    before = layer.eval()(x)
    assert layer.buffers["num_batches_tracked"] == 0
    layer.train()(x)
    mean = x.astype(np.float64).mean((0, 2, 3))
    np.testing.assert_allclose(layer.buffers["running_mean"], 0.25 * mean, rtol=1e-5)
    assert layer.buffers["num_batches_tracked"] == 1
    assert (layer.eval()(x) != before).any()


def test_dropout_only_in_training():
    ones = np.ones((50, 40), np.float32)
    layer = nn.Dropout(0.25, rng=0)
    assert (layer.eval()(ones) == 1).all()
    assert (layer.backward(ones) == 1).all()
    out = layer.train()(ones)
    assert set(np.unique(out)) == {0, np.float32(1 / 0.75)}
    np.testing.assert_array_equal(layer.backward(ones), out)
    assert (layer(ones) != out).any()


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.MaxPool2d(2, 1, 1), lambda x: fastdl.max_pool2d(x, 2, 1, 1)),
        (nn.AvgPool2d(3, 2, 1), lambda x: fastdl.avg_pool2d(x, 3, 2, 1)),
        (nn.GlobalAvgPool2d(), lambda x: x.mean((2, 3), keepdims=True)),
        (nn.Sigmoid(), lambda x: 1 / (1 + np.exp(-x))),
        (nn.Tanh(), np.tanh),
    ],
)
def test_layer_is_its_function(layer, expected, x):
    np.testing.assert_allclose(layer(x), expected(x), rtol=1e-5, atol=1e-6)
    assert layer.backward(np.ones_like(layer(x))).shape == x.shape


def test_predict_goes_batch_by_batch(x):
    net, seen = small_net().eval(), []
    whole, forward = net(x), net.forward
    net.forward = lambda part: (seen.append(len(part)), forward(part))[1]
    np.testing.assert_allclose(net.predict(x, batch_size=2), whole, rtol=1e-5, atol=1e-6)
    assert seen == [2, 1]
    assert net.predict(x[:0]).shape == (0, 5)
    with pytest.raises(fastdl.ArgumentError, match="batch_size must be at least 1, got 0"):
        net.predict(x, 0)
    assert not net.training
    net.train().predict(x)
    assert net.training


def test_train_and_eval_reach_every_layer():
    inner = nn.Dropout()
    net = nn.Sequential(nn.Residual(nn.Sequential(inner), nn.Flatten()))
    assert inner.training
    assert net.eval() is net
    assert not inner.training
    assert net.train() is net
    assert inner.training


def test_layers_have_names():
    net = nn.Sequential({"features": nn.Sequential(nn.Linear(2, 3)), "relu": nn.ReLU()})
    assert list(net.parameters()) == ["features.0.weight", "features.0.bias"]
    with pytest.raises(fastdl.ArgumentError, match=r"word without dots, got 'a\.b'"):
        nn.Sequential({"a.b": nn.ReLU()})
    with pytest.raises(fastdl.DTypeError, match=r"layers\[a\] must be a Layer, got 3"):
        nn.Sequential({"a": 3})


def test_residual_refuses_shapes_that_do_not_add():
    with pytest.raises(fastdl.ShapeError, match=r"as the body's, \(2, 3\), got \(2, 4\)"):
        nn.Residual(nn.Linear(4, 3))(np.ones((2, 4), np.float32))
    with pytest.raises(fastdl.DTypeError, match="body must be a Layer, got None"):
        nn.Residual(None)


def test_load_state_dict_copies():
    source, target = small_net(0), small_net(1)
    weight = target.parameters()["0.weight"]
    target.load_state_dict(source.state_dict())
    assert weight is target.parameters()["0.weight"]
    assert weight is not source.parameters()["0.weight"]
    np.testing.assert_array_equal(weight, source.parameters()["0.weight"])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda s: s.pop("1.bias"), fastdl.ArgumentError, r"lacks \['1.bias'\]"),
        (lambda s: s.update(extra=s["1.bias"]), fastdl.ArgumentError, r"unknown \['extra'\]"),
        (
            lambda s: s.update({"4.weight": s["4.weight"].T}),
            fastdl.ShapeError,
            r"state\['4.weight'\] must be \(5, 36\), got \(36, 5\)",
        ),
        (
            lambda s: s.update({"4.weight": s["4.weight"].astype("f8")}),
            fastdl.DTypeError,
            r"state\['4.weight'\] must be float32, got float64",
        ),
    ],
)
def test_load_state_dict_refuses_and_changes_nothing(change, error, message):
    net, state = small_net(0), small_net(1).state_dict()
    before = net.parameters()["0.weight"].copy()
    change(state)
    with pytest.raises(error, match=message):
        net.load_state_dict(state)
    np.testing.assert_array_equal(net.parameters()["0.weight"], before)


def test_backward_needs_a_forward():
    with pytest.raises(fastdl.ArgumentError, match=r"ReLU.backward was called before any forward"):
        nn.Sequential(nn.ReLU()).backward(np.ones((1, 1)))
    with pytest.raises(fastdl.ArgumentError, match=r"CrossEntropyLoss.backward was called before"):
        nn.CrossEntropyLoss().backward()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: nn.Conv2d(3, 4, 3, groups=2),
            fastdl.ArgumentError,
            "groups must divide .*groups=2",
        ),
        (lambda: nn.Conv2d(0, 4, 3), fastdl.ArgumentError, "in_channels must be at least 1, got 0"),
        (lambda: nn.Conv2d(1, 4, 0), fastdl.ArgumentError, "kernel_size must be at least 1, got 0"),
        (lambda: nn.Linear(4, 2.5), fastdl.DTypeError, "out_features must be an integer, got 2.5"),
        (lambda: nn.Linear(4, 2, dtype="f2"), fastdl.DTypeError, "dtype must be .* got float16"),
        (
            lambda: nn.BatchNorm2d(-1),
            fastdl.ArgumentError,
            "num_features must be at least 1, got -1",
        ),
        (lambda: nn.Dropout(1.5), fastdl.ArgumentError, "p must be a probability.* got 1.5"),
        (
            lambda: nn.Sequential("relu"),
            fastdl.DTypeError,
            r"layers\[0\] must be a Layer, got 'rel",
        ),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("init", "variance"),
    [
        (nn.init.get("xavier"), 1 / 72),
        (nn.init.get("glorot_normal"), 2 / 360),
        (nn.init.normal(0.3), 0.09),
        (nn.he_normal, 2 / 72),
        (nn.he_uniform, 2 / 72),
        (nn.xavier_normal, 2 / 360),
        (nn.xavier_uniform, 2 / 360),
    ],
)
def test_initialisers_have_their_variance(init, variance):
    weight = init((32, 8, 3, 3), np.random.default_rng(0), np.dtype(np.float32))
    assert weight.dtype == np.float32
    assert abs(weight.mean()) < 0.1 * variance**0.5
    assert weight.var() == pytest.approx(variance, rel=0.1)
    if init in (nn.he_uniform, nn.xavier_uniform):
        assert abs(weight).max() <= (3 * variance) ** 0.5


def test_fans_need_two_axes():
    with pytest.raises(fastdl.ShapeError, match="shape must have at least 2 axes, got"):
        fans((3,))


def test_initialisers_go_by_name():
    by_name = nn.Linear(8, 4, init="xavier_uniform", rng=3)
    np.testing.assert_array_equal(
        by_name.weight, nn.Linear(8, 4, init=nn.xavier_uniform, rng=3).weight
    )
    assert (nn.Conv2d(1, 2, 3, init=nn.init.constant(0.5)).weight == 0.5).all()
    with pytest.raises(fastdl.ArgumentError, match=r"init must be one of xavier, .* got 'hee'"):
        nn.Linear(2, 2, init="hee")
    with pytest.raises(fastdl.DTypeError, match="init must be a name or a callable, got 3"):
        nn.Linear(2, 2, init=3)
    with pytest.raises(fastdl.ArgumentError, match="sd must be a finite number"):
        nn.init.normal(-1)


def test_summary_counts_layers_inside_layers():
    net = nn.Sequential(
        {
            "stem": nn.Conv2d(3, 8, 3, padding=1, bias=False, rng=0),
            "block": nn.Residual(nn.Sequential(nn.BatchNorm2d(8), nn.ReLU()), activation=nn.ReLU()),
            "head": nn.Sequential(nn.GlobalAvgPool2d(), nn.Flatten(), nn.Linear(8, 10, rng=0)),
        }
    )
    summary = net.summary((2, 3, 4, 4))
    assert [row.name for row in summary.rows] == [
        "stem", "block.body.0", "block.body.1", "block.activation", "block", "head.0", "head.1",
        "head.2",
    ]  # fmt: skip
    assert summary.rows[0].flops == 2 * 2 * 8 * 16 * 27
    assert summary.rows[-1].output_shape == (2, 10)
    assert summary.parameters == sum(array.size for array in net.parameters().values())
    assert summary.flops == net.flops((2, 3, 4, 4))
    # Five outputs as large as the stem's; the pool's and the scores.
    assert summary.activation_bytes == 4 * (5 * 2 * 8 * 16 + 2 * 8 + 2 * 10)
    assert "block.body.0      BatchNorm2d" in str(summary)
    with pytest.raises(fastdl.ShapeError, match="channels"):
        net.summary((2, 4, 4, 4))


def test_a_replaced_parameter_is_checked(x):
    layer = nn.Conv2d(2, 4, 3, rng=0)
    layer(x)
    layer.params["weight"] = np.asfortranarray(layer.weight * 2)
    np.testing.assert_allclose(
        layer(x), fastdl.conv2d(x, layer.weight, layer.bias), rtol=1e-5, atol=1e-5
    )
    layer.params["weight"] = layer.weight[:3]
    with pytest.raises(fastdl.ShapeError, match=r"weight must have shape \(4, 2, 3, 3\)"):
        layer(x)


@pytest.mark.parametrize(
    "layer", [nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(2, 3, 3, rng=0), nn.BatchNorm2d(2)]
)
def test_layers_take_any_layout_and_check_gradients(layer, x):
    strided = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    wanted = layer(x).copy()
    np.testing.assert_array_equal(layer(strided), wanted)
    grad = np.ones(wanted.shape, np.float32)
    there = layer.backward(grad)
    np.testing.assert_array_equal(layer.backward(np.asfortranarray(grad)), there)
    with pytest.raises(fastdl.ShapeError, match="grad must have shape"):
        layer.backward(grad[:1])
    with pytest.raises(fastdl.DTypeError, match="grad must be float32"):
        layer.backward(grad.astype(np.float64))


def test_a_layer_follows_shape_dtype_and_backend(x):
    layer = nn.Tanh()
    for other in (x, x[:1], x.astype(np.float64), x[:, 0]):
        np.testing.assert_allclose(layer(other), np.tanh(other), rtol=1e-6)
        assert layer.backward(other).dtype == other.dtype
    with fastdl.use_backend("naive"):
        np.testing.assert_allclose(layer(x[:1]), np.tanh(x[:1]), rtol=1e-6)


@pytest.mark.parametrize("kind", [nn.MSELoss, nn.BCEWithLogitsLoss])
def test_losses_of_elements_check_their_targets(kind):
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(fastdl.ShapeError, match=r"target must have shape \(2, 3\), got \(2,\)"):
        kind().forward(x, np.zeros(2, np.float32))
    with pytest.raises(fastdl.ArgumentError, match="reduction must be 'mean' or 'sum', got 'max'"):
        kind("max")
    assert np.isnan(kind().forward(x[:0], x[:0]))


def test_the_input_gradient_can_be_left_out(x):
    net = small_net()
    grad = np.ones_like(net(x))
    net.backward(grad)
    wanted = {name: array.copy() for name, array in net.gradients().items()}
    assert net.backward_params(grad) is None
    for name, array in net.gradients().items():
        np.testing.assert_array_equal(array, wanted[name])
    nn.Sequential(nn.ReLU()).backward_params(grad)
