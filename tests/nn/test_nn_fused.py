"""Layers that are computed together give what they give one by one."""

import copy
import pickle

import numpy as np
import pytest

import fastdl
from fastdl import nn


def one_by_one(net, x):
    for layer in net.layers:
        x = layer.forward(x)
    return x


def backward_one_by_one(net, grad):
    for layer in reversed(net.layers):
        grad = layer.backward(grad)
    return grad


def conv(rng, bias=True):
    return nn.Conv2d(3, 4, 3, padding=1, bias=bias, rng=rng)


def norm(rng, affine=True):
    layer = nn.BatchNorm2d(4, affine=affine)
    for array in [*layer.params.values(), *layer.statistics]:
        array[:] = rng.uniform(0.5, 2, 4)
    return layer


NETS = {
    "conv relu": lambda r: [conv(r), nn.ReLU()],
    "conv tanh pool": lambda r: [conv(r), nn.Tanh(), nn.MaxPool2d(2)],
    "conv relu pool": lambda r: [conv(r), nn.ReLU(), nn.MaxPool2d(3, 2, 1)],
    "conv norm": lambda r: [conv(r), norm(r)],
    "conv norm sigmoid": lambda r: [conv(r, bias=False), norm(r), nn.Sigmoid()],
    "conv norm relu pool": lambda r: [conv(r), norm(r, affine=False), nn.ReLU(), nn.MaxPool2d(2)],
    "conv norm relu": lambda r: [conv(r), norm(r), nn.ReLU()],
    "norm relu": lambda r: [conv(r), nn.Sequential(norm(r), nn.ReLU())],
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NETS)
def test_together_as_one_by_one(name, training, fast_backend):
    rng = np.random.default_rng(0)
    together = nn.Sequential(*NETS[name](rng)).train(training)
    apart = copy.deepcopy(together)
    x = rng.standard_normal((2, 3, 7, 6)).astype(np.float32)
    with fastdl.use_backend(fast_backend):
        for _ in range(2):
            out = together(x)
            np.testing.assert_allclose(out, one_by_one(apart, x), rtol=1e-5, atol=1e-5)
            grad = rng.standard_normal(out.shape).astype(np.float32)
            wanted = backward_one_by_one(apart, grad)
            np.testing.assert_allclose(together.backward(grad), wanted, rtol=1e-4, atol=1e-5)
            for key, array in apart.gradients().items():
                np.testing.assert_allclose(
                    together.gradients()[key], array, rtol=1e-4, atol=1e-4, err_msg=key
                )
        for key, array in apart.state_dict().items():
            np.testing.assert_array_equal(together.state_dict()[key], array)


def test_relu_and_pool_change_places_for_nan_and_zeros():
    layers = [nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(), nn.MaxPool2d(2)]
    layers[0].params["weight"][:] = 1
    net, apart = nn.Sequential(*layers), nn.Sequential(*copy.deepcopy(layers))
    x = np.float32([[-1, -2, np.nan, 1], [-0.0, 0, 2, 3]]).reshape(1, 1, 2, 4)
    grad = np.float32([[[[5, 7]]]])
    np.testing.assert_array_equal(net(x), one_by_one(apart, x))
    np.testing.assert_array_equal(net.backward(grad), backward_one_by_one(apart, grad))


@pytest.mark.parametrize("changed", ["0.weight", "0.bias", "1.weight", "1.running_var"])
def test_a_change_is_folded_anew(changed):
    rng = np.random.default_rng(0)
    net = nn.Sequential(conv(rng), norm(rng), nn.ReLU()).eval()
    x = rng.standard_normal((1, 3, 5, 5)).astype(np.float32)
    before = net(x)
    net.state_dict()[changed][1] += 1
    after = net(x)
    assert (after != before).any()
    np.testing.assert_allclose(after, one_by_one(net, x), rtol=1e-5, atol=1e-5)


def test_folding_leaves_errors_to_the_layers():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, rng=0), nn.BatchNorm2d(5)).eval()
    with pytest.raises(fastdl.ShapeError, match=r"\(N, C, H, W\) with C = 5, got \(1, 4, 3, 3\)"):
        net(np.ones((1, 3, 5, 5), np.float32))
    with pytest.raises(fastdl.DTypeError, match="x must be float32"):
        net(np.ones((1, 3, 5, 5)))


def test_nets_can_be_pickled_after_a_step():
    rng = np.random.default_rng(0)
    net = nn.Sequential(conv(rng), norm(rng), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout())
    x = rng.standard_normal((2, 3, 6, 6)).astype(np.float32)
    net.backward(np.ones_like(net(x)))
    wanted = net.eval()(x)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(net))(x), wanted)
