"""The same network in PyTorch: names, outputs and gradients."""

import numpy as np
import pytest

import fastdl
from fastdl import nn
from fastdl.models import digits_cnn
from fastdl.nn import CrossEntropyLoss

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.peer


def torch_digits_cnn():
    def convolution(channels, filters):
        return (
            torch.nn.Conv2d(channels, filters, 3, padding=1, bias=False),
            torch.nn.BatchNorm2d(filters),
            torch.nn.ReLU(),
        )

    return torch.nn.Sequential(
        *convolution(1, 32),
        *convolution(32, 64),
        torch.nn.MaxPool2d(2),
        *convolution(64, 64),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Dropout(0.0),
        torch.nn.Linear(256, 10),
    )


def test_digits_cnn_is_torchs():
    ours, theirs = digits_cnn(dropout=0.0, rng=0), torch_digits_cnn()
    theirs.load_state_dict({k: torch.tensor(v) for k, v in ours.state_dict().items()})
    x = np.random.default_rng(0).random((6, 1, 8, 8), np.float32)
    y = np.arange(6)
    loss = CrossEntropyLoss(0.1)
    with fastdl.use_backend("reference"):
        value = loss.forward(ours(x), y)
        ours.backward(loss.backward())
        evaluated = ours.eval()(x)
    their_loss = torch.nn.functional.cross_entropy(
        theirs(torch.tensor(x)), torch.tensor(y), label_smoothing=0.1
    )
    their_loss.backward()
    assert value == pytest.approx(their_loss.item(), rel=1e-5)
    for name, param in theirs.named_parameters():
        np.testing.assert_allclose(ours.gradients()[name], param.grad, atol=1e-4, err_msg=name)
    for name, array in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[name], array, atol=1e-5, err_msg=name)
    with torch.no_grad():
        np.testing.assert_allclose(evaluated, theirs.eval()(torch.tensor(x)), atol=1e-4)


def test_torch_state_loads():
    theirs = torch_digits_cnn()
    ours = digits_cnn(rng=0)
    ours.load_state_dict({name: array.numpy() for name, array in theirs.state_dict().items()})
    np.testing.assert_array_equal(ours.parameters()["13.bias"], theirs[13].bias.detach())


TWINS = {
    "ConvTranspose2d": ((4, 6, 3, 2, 1, 1, 2), (2, 4, 5, 6)),
    "BatchNorm1d": ((5,), (7, 5)),
    "BatchNorm2d": ((4, 1e-3, 0.2), (3, 4, 5, 2)),
    "AdaptiveAvgPool2d": (((3, 2),), (2, 3, 7, 5)),
    "LeakyReLU": ((0.1,), (3, 4)),
    "Softmax": ((1,), (3, 4)),
    "LocalResponseNorm": ((5, 1e-1, 0.75, 2.0), (2, 9, 4, 5)),
    "Conv2d": ((4, 6, (3, 2), (2, 1), (1, 0), 1, 2), (2, 4, 5, 6)),
    "Linear": ((4, 3), (2, 5, 4)),
    "MaxPool2d": ((3, 2, 1), (2, 3, 7, 5)),
    "AvgPool2d": ((3, 2, 1), (2, 3, 7, 5)),
}


@pytest.mark.parametrize("name", TWINS)
def test_layer_is_torchs(name):
    arguments, shape = TWINS[name]
    ours, theirs = getattr(nn, name)(*arguments), getattr(torch.nn, name)(*arguments)
    ours.load_state_dict({key: array.numpy().copy() for key, array in theirs.state_dict().items()})
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape).astype(np.float32)
    tensor = torch.tensor(x, requires_grad=True)
    out, expected = ours(x), theirs(tensor)
    grad = rng.standard_normal(out.shape).astype(np.float32)
    expected.backward(torch.tensor(grad))
    np.testing.assert_allclose(out, expected.detach(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ours.backward(grad), tensor.grad, rtol=1e-4, atol=1e-5)
    for key, param in theirs.named_parameters():
        np.testing.assert_allclose(ours.grads[key], param.grad, rtol=1e-4, atol=1e-4)
    for key, array in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[key], array, rtol=1e-5, err_msg=key)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("name", ["MSELoss", "BCEWithLogitsLoss"])
def test_loss_is_torchs(name, reduction):
    rng = np.random.default_rng(0)
    x, target = rng.standard_normal((4, 3)) * 20, rng.random((4, 3))
    tensor = torch.tensor(x, requires_grad=True)
    ours, theirs = getattr(nn, name)(reduction), getattr(torch.nn, name)(reduction=reduction)
    expected = theirs(tensor, torch.tensor(target))
    expected.backward()
    assert ours.forward(x, target) == pytest.approx(expected.item(), rel=1e-12)
    np.testing.assert_allclose(ours.backward(), tensor.grad, rtol=1e-10)
