"""A training step after the first takes no new memory for anything large."""

import numpy as np
import pytest

import fastdl
from fastdl import nn
from fastdl.backends.registry import why_missing

pytestmark = pytest.mark.skipif(why_missing("compiled") is not None, reason="needs `compiled`")


def test_a_step_reuses_its_memory():
    rng = np.random.default_rng(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, rng=rng),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Residual(nn.Conv2d(16, 16, 3, padding=1, rng=rng), activation=nn.ReLU()),
        nn.Dropout(0.5, rng=rng),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(1024, 300, rng=rng),
        nn.Tanh(),
    )
    x = rng.standard_normal((32, 3, 32, 32)).astype(np.float32)
    made, gradients = [], []
    with fastdl.use_backend("compiled"):
        for _ in range(5):
            net.backward_params(net(x))
            made.append(fastdl.memory_pool().made)
            gradients.append(net.gradients())
    assert made[2:] == [made[2]] * 3
    for name, array in gradients[0].items():
        assert array is gradients[-1][name]
