"""Networks by name, and reading trained ones back.

Every builder is ``name(classes=..., channels=..., rng=None, dtype=float32)``.
"""

from .alexnet import alexnet, alexnet_32
from .digits import digits_cnn
from .gap import gap_net
from .lenet import lenet5
from .mnist import mnist_cnn
from .resnet import resnet9, resnet18, resnet20, resnet50
from .store import BUILDERS, load
from .vgg import vgg11, vgg11_32, vgg16, vgg16_32

__all__ = [
    "BUILDERS",
    "alexnet",
    "alexnet_32",
    "digits_cnn",
    "gap_net",
    "lenet5",
    "load",
    "mnist_cnn",
    "resnet9",
    "resnet18",
    "resnet20",
    "resnet50",
    "vgg11",
    "vgg11_32",
    "vgg16",
    "vgg16_32",
]
