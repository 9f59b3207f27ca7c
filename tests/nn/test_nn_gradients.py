"""Every layer's backward against finite differences, through whole networks, in float64."""

import numpy as np
import pytest

import fastdl
from fastdl import nn

STEP = 1e-6


class Repeatable(nn.Dropout):
    """Dropout that draws the same mask in every forward."""

    def forward(self, x):
        self.rng = np.random.default_rng(7)
        return super().forward(x)


def convolutional(activation, pool):
    rng = np.random.default_rng(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, groups=2, rng=rng, dtype="f8"),
        nn.BatchNorm2d(4, dtype="f8"),
        activation,
        pool,
        Repeatable(0.3),
        nn.Conv2d(4, 3, 2, stride=2, bias=False, rng=rng, dtype="f8"),
        nn.Flatten(),
        nn.Linear(3, 3, rng=rng, dtype="f8"),
    )


NETS = {
    "relu and max pool": lambda: convolutional(nn.ReLU(), nn.MaxPool2d(2)),
    "tanh and average pool": lambda: convolutional(nn.Tanh(), nn.AvgPool2d(2)),
    "sigmoid and overlapping windows": lambda: convolutional(nn.Sigmoid(), nn.MaxPool2d(3, 1)),
    "residuals": lambda: nn.Sequential(
        nn.Residual(nn.Sequential(nn.Conv2d(2, 2, 3, padding=1, rng=0, dtype="f8"), nn.Tanh())),
        nn.Residual(nn.AvgPool2d(2), nn.Conv2d(2, 2, 1, stride=2, rng=1, dtype="f8")),
        nn.Flatten(),
        nn.Linear(8, 3, rng=2, dtype="f8"),
    ),
    "global pool": lambda: nn.Sequential(
        nn.Conv2d(2, 3, 3, dilation=1, rng=0, dtype="f8"), nn.GlobalAvgPool2d(), nn.Flatten()
    ),
}


def numeric(value, array):
    """The gradient of ``value()`` with respect to ``array``, by central differences."""
    grad = np.empty_like(array)
    for index in np.ndindex(array.shape):
        kept = array[index]
        array[index] = kept + STEP
        above = value()
        array[index] = kept - STEP
        below = value()
        array[index] = kept
        grad[index] = (above - below) / (2 * STEP)
    return grad


#: Every layer by itself, with a shape of input.
LAYERS = {
    "transposed convolution": (
        lambda: nn.ConvTranspose2d(4, 2, 3, 2, 1, 1, groups=2, rng=0, dtype="f8"),
        (2, 4, 3, 2),
    ),
    "transposed, dilated": (
        lambda: nn.ConvTranspose2d(2, 3, (2, 3), bias=False, dilation=2, rng=0, dtype="f8"),
        (1, 2, 2, 3),
    ),
    "batch norm of vectors": (lambda: nn.BatchNorm1d(3, dtype="f8"), (5, 3)),
    "batch norm of sequences": (lambda: nn.BatchNorm1d(3, dtype="f8"), (2, 3, 4)),
    "batch norm without weights": (
        lambda: nn.BatchNorm2d(2, affine=False, dtype="f8"),
        (2, 2, 2, 2),
    ),
    "adaptive pool": (lambda: nn.AdaptiveAvgPool2d((2, None)), (1, 2, 5, 3)),
    "leaky relu": (lambda: nn.LeakyReLU(0.2), (3, 4)),
    "softmax over channels": (lambda: nn.Softmax(1), (2, 3, 2)),
    "local response": (lambda: nn.LocalResponseNorm(3, 0.5, k=2), (2, 5, 2, 2)),
    "local response, even and wide": (lambda: nn.LocalResponseNorm(6, 0.9, 1.3, 1), (2, 4, 3)),
    "residual with activation": (
        lambda: nn.Residual(nn.Linear(3, 3, rng=0, dtype="f8"), activation=nn.Sigmoid()),
        (4, 3),
    ),
    "linear on sequences": (lambda: nn.Linear(3, 2, rng=0, dtype="f8"), (2, 4, 3)),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_layer_gradients(name, training, fast_backend):
    make, shape = LAYERS[name]
    rng = np.random.default_rng(1)
    layer, x = make().train(training), rng.standard_normal(shape)
    for array in layer.parameters().values():
        array += rng.uniform(0.1, 1, array.shape)
    with fastdl.use_backend(fast_backend):
        upstream = rng.standard_normal(layer(x).shape)

        def value():
            return float((layer(x) * upstream).sum())

        value()
        grad_x = layer.backward(upstream)
        assert layer(x).shape == layer.output_shape(shape)
        grads = {key: array.copy() for key, array in layer.gradients().items()}
        assert grads.keys() == layer.parameters().keys()
        np.testing.assert_allclose(grad_x, numeric(value, x), rtol=1e-5, atol=1e-7)
        for key, param in layer.parameters().items():
            np.testing.assert_allclose(
                grads[key], numeric(value, param), rtol=1e-5, atol=1e-7, err_msg=key
            )
        layer(x)
        for array in layer.gradients().values():
            array[...] = np.nan
        layer.backward_params(upstream)
        for key, grad in grads.items():
            np.testing.assert_allclose(layer.gradients()[key], grad, rtol=1e-10, err_msg=key)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (nn.CrossEntropyLoss, np.array([2, 0, 1])),
        (nn.MSELoss, np.random.default_rng(5).standard_normal((3, 4))),
        (nn.BCEWithLogitsLoss, np.random.default_rng(5).random((3, 4))),
    ],
)
def test_loss_gradients(kind, target, reduction):
    loss, x = kind(reduction=reduction), 3 * np.random.default_rng(2).standard_normal((3, 4))
    loss.forward(x, target)
    expected = numeric(lambda: loss.forward(x, target), x)
    loss.forward(x, target)
    np.testing.assert_allclose(loss.backward(), expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NETS)
def test_network_gradients(name, training):
    rng = np.random.default_rng(1)
    net, loss = NETS[name]().train(training), nn.CrossEntropyLoss(label_smoothing=0.1)
    x, target = rng.standard_normal((3, 2, 4, 4)), np.array([0, 2, 1])
    for layer in net.layers:
        if isinstance(layer, nn.BatchNorm2d):
            layer.params["weight"][:] = rng.uniform(0.5, 2, 4)
            layer.buffers["running_mean"][:] = rng.standard_normal(4)
            layer.buffers["running_var"][:] = rng.uniform(0.5, 2, 4)

    def value():
        return loss.forward(net(x), target)

    with fastdl.use_backend("reference"):
        value()
        grad_x = net.backward(loss.backward())
        grads = {key: array.copy() for key, array in net.gradients().items()}
        assert grads.keys() == net.parameters().keys()
        np.testing.assert_allclose(grad_x, numeric(value, x), rtol=1e-5, atol=1e-8)
        for key, param in net.parameters().items():
            np.testing.assert_allclose(
                grads[key], numeric(value, param), rtol=1e-5, atol=1e-8, err_msg=key
            )


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss_is_its_formula(smoothing):
    scores, target = np.random.default_rng(0).standard_normal((4, 3)), np.array([0, 1, 2, 1])
    log_p = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    wanted = np.full((4, 3), smoothing / 3)
    wanted[np.arange(4), target] += 1 - smoothing
    with fastdl.use_backend("reference"):
        value = nn.CrossEntropyLoss(smoothing).forward(scores, target)
    assert isinstance(value, float)
    assert value == pytest.approx(-(wanted * log_p).sum() / 4, rel=1e-12)
