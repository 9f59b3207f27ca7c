"""Each network and its twin in plain torch.nn: the same names, shapes, outputs and gradients."""

import numpy as np
import pytest

from fastdl import models
from fastdl.nn import CrossEntropyLoss

torch = pytest.importorskip("torch")
from . import torch_twins  # noqa: E402  (needs torch)

pytestmark = pytest.mark.peer

#: Small inputs that each network takes: ``(classes, (N, C, H, W))``.
INPUTS = {
    "lenet5": (10, (3, 1, 28, 28)),
    "mnist_cnn": (7, (3, 2, 28, 28)),
    "gap_net": (10, (3, 3, 13, 18)),
    "alexnet": (1000, (2, 3, 95, 127)),
    "alexnet_32": (10, (3, 3, 32, 32)),
    "vgg11": (1000, (1, 3, 32, 64)),
    "vgg11_32": (10, (2, 3, 32, 32)),
    "vgg16_32": (100, (2, 3, 32, 32)),
    "resnet9": (10, (3, 3, 32, 32)),
    "resnet18": (10, (2, 3, 64, 47)),
    "resnet50": (1000, (1, 3, 64, 64)),
    "resnet20": (10, (2, 3, 32, 32)),
}


class Quick(np.random.Generator):
    """First weights as good as normal ones for a comparison: VGG's 133 million take no seconds."""

    def __init__(self):
        super().__init__(np.random.PCG64(0))

    def standard_normal(self, size=None, dtype=np.float64, out=None):
        return self.random(size, np.float32) - np.float32(0.5)


def shapes(state):
    return {name: tuple(array.shape) for name, array in state.items()}


@pytest.mark.parametrize("name", INPUTS)
def test_outputs_are_torchs(name):
    classes, shape = INPUTS[name]
    rng = Quick()
    ours = models.BUILDERS[name](classes=classes, channels=shape[1], rng=rng).eval()
    state = ours.state_dict()
    for array in state.values():  # as if it had been trained
        if array.ndim == 1:
            array[...] = rng.uniform(0.5, 1.5, array.shape)
    with torch.device("meta"):
        theirs = getattr(torch_twins, name)(classes, shape[1]).eval()
    theirs.load_state_dict(
        {key: torch.from_numpy(array) for key, array in state.items()}, strict=True, assign=True
    )
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x)).numpy()
    assert np.ptp(expected) > 1e-3  # there is something to compare
    np.testing.assert_allclose(ours(x), expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_vgg16_is_torchvisions():
    # Its functions are those of VGG-11: the shapes are what is left to compare.
    with torch.device("meta"):
        theirs = torch_twins.vgg16()
    assert shapes(models.vgg16(rng=Quick()).state_dict()) == shapes(theirs.state_dict())


@pytest.mark.parametrize("name", ["lenet5", "mnist_cnn", "alexnet_32", "resnet20"])
def test_gradients_are_torchs(name):
    classes, (_, channels, height, width) = INPUTS[name]
    dropout = {} if name in ("lenet5", "resnet20") else {"dropout": 0.0}
    ours = models.BUILDERS[name](
        classes=classes, channels=channels, rng=0, dtype=np.float64, **dropout
    )
    theirs = getattr(torch_twins, name)(classes, channels).double()
    theirs.load_state_dict({k: torch.tensor(v) for k, v in ours.state_dict().items()}, strict=True)
    x = np.random.default_rng(0).standard_normal((4, channels, height, width))
    y = np.arange(4)
    loss = CrossEntropyLoss()
    value = loss.forward(ours(x), y)
    ours.backward(loss.backward())
    their_loss = torch.nn.functional.cross_entropy(theirs(torch.tensor(x)), torch.tensor(y))
    their_loss.backward()
    assert value == pytest.approx(their_loss.item(), rel=1e-9)
    gradients = ours.gradients()
    assert gradients.keys() == {key for key, _ in theirs.named_parameters()}
    for key, param in theirs.named_parameters():
        np.testing.assert_allclose(
            gradients[key], param.grad, rtol=0, atol=1e-9 * param.grad.abs().max(), err_msg=key
        )
