"""Data sets and the batches that training takes from them."""

from .cifar import load_cifar10
from .digits import load_digits
from .folder import load_folder
from .idx import read_idx
from .images import read_image
from .loader import Batch, Loader
from .mnist import load_mnist
from .normalize import Normalize
from .samples import Dataset, Samples
from .split import stratified_split
from .transforms import HorizontalFlip, RandomCrop, Shift, Transform

__all__ = [
    "Batch",
    "Dataset",
    "HorizontalFlip",
    "Loader",
    "Normalize",
    "RandomCrop",
    "Samples",
    "Shift",
    "Transform",
    "load_cifar10",
    "load_digits",
    "load_folder",
    "load_mnist",
    "read_idx",
    "read_image",
    "stratified_split",
]
