"""The layers that the bench times: every convolution of five networks, and what stands between.

LeNet-5 (LeCun et al., 1998), AlexNet (Krizhevsky et al., 2012, with its two
groups), VGG-16 (Simonyan and Zisserman, 2015), ResNet-50 (He et al., 2016, with
the stride in the 3x3 convolution) and MobileNetV2 (Sandler et al., 2018), each
shape once, at batch 1 and at batch 8 (LeNet: 16).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from difflib import get_close_matches
from fnmatch import fnmatchcase

from ..errors import ArgumentError
from .layer import Layer


def _conv(
    name: str,
    channels: int,
    size: int,
    filters: int,
    kernel: int,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
) -> Layer:
    return Layer(name, "conv2d", 1, channels, size, size, filters, kernel, stride, padding, groups)


def _lenet() -> Iterator[Layer]:
    yield _conv("lenet-conv1", 1, 32, 6, 5)
    yield Layer("lenet-pool1", "avg_pool2d", 1, 6, 28, 28, kernel=2, stride=2)
    yield _conv("lenet-conv2", 6, 14, 16, 5)
    yield _conv("lenet-conv3", 16, 5, 120, 5)


def _alexnet() -> Iterator[Layer]:
    yield _conv("alexnet-conv1", 3, 227, 96, 11, stride=4)
    yield Layer("alexnet-pool1", "max_pool2d", 1, 96, 55, 55, kernel=3, stride=2)
    yield _conv("alexnet-conv2", 96, 27, 256, 5, padding=2, groups=2)
    yield _conv("alexnet-conv3", 256, 13, 384, 3, padding=1)
    yield _conv("alexnet-conv4", 384, 13, 384, 3, padding=1, groups=2)
    yield _conv("alexnet-conv5", 384, 13, 256, 3, padding=1, groups=2)


def _vgg16() -> Iterator[Layer]:
    channels, size = 3, 224
    for block, filters in enumerate((64, 128, 256, 512, 512), start=1):
        yield _conv(f"vgg16-conv{block}_1", channels, size, filters, 3, padding=1)
        yield _conv(f"vgg16-conv{block}_2", filters, size, filters, 3, padding=1)
        channels, size = filters, size // 2
    yield Layer("vgg16-im2col3_2", "im2col", 1, 256, 56, 56, kernel=3, padding=1)
    yield Layer("vgg16-relu1_2", "relu", 1, 64, 224, 224)
    yield Layer("vgg16-pool1", "max_pool2d", 1, 64, 224, 224, kernel=2, stride=2)
    yield Layer("vgg16-softmax", "softmax", 1, 1000)


def _resnet50() -> Iterator[Layer]:
    yield _conv("resnet50-conv1_7x7", 3, 224, 64, 7, stride=2, padding=3)
    yield Layer("resnet50-bn1", "batch_norm", 1, 64, 112, 112)
    yield Layer("resnet50-relu1", "relu", 1, 64, 112, 112)
    yield Layer("resnet50-pool1", "max_pool2d", 1, 64, 112, 112, kernel=3, stride=2, padding=1)
    channels, size = 64, 56
    for stage, width in enumerate((64, 128, 256, 512), start=2):
        stride, name = (1 if stage == 2 else 2), f"resnet50-conv{stage}"
        yield _conv(f"{name}_1x1_first", channels, size, width, 1)
        if stride == 2:
            yield _conv(f"{name}_3x3_s2", width, size, width, 3, stride=2, padding=1)
        before, size = size, size // stride
        yield _conv(f"{name}_1x1_reduce", 4 * width, size, width, 1)
        yield _conv(f"{name}_3x3", width, size, width, 3, padding=1)
        yield _conv(f"{name}_1x1_expand", width, size, 4 * width, 1)
        yield _conv(f"{name}_shortcut", channels, before, 4 * width, 1, stride=stride)
        channels = 4 * width
    yield Layer("resnet50-bn3", "batch_norm", 1, 128, 28, 28)
    yield Layer("resnet50-im2col3_3x3", "im2col", 1, 128, 28, 28, kernel=3, padding=1)
    yield Layer("resnet50-pool5", "global_avg_pool2d", 1, 2048, 7, 7)


def _mobilenetv2() -> Iterator[Layer]:
    yield _conv("mobilenetv2-conv1", 3, 224, 32, 3, stride=2, padding=1)
    channels, size, block = 32, 112, 0
    # Expansion, output channels, repeats, first stride: table 2 of the paper.
    for expansion, filters, repeats, first_stride in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for repeat in range(repeats):
            block += 1
            stride, hidden = (first_stride if repeat == 0 else 1), expansion * channels
            name = f"mobilenetv2-block{block}"
            if expansion > 1:
                yield _conv(f"{name}_expand", channels, size, hidden, 1)
            yield _conv(
                f"{name}_depthwise", hidden, size, hidden, 3, stride, padding=1, groups=hidden
            )
            size //= stride
            yield _conv(f"{name}_project", hidden, size, filters, 1)
            channels = filters
    yield _conv("mobilenetv2-conv18", 320, 7, 1280, 1)


#: Convolutions whose backward is timed too.
_BACKWARD = (
    "lenet-conv2",
    "vgg16-conv3_2",
    "resnet50-conv3_1x1_expand",
    "resnet50-conv3_3x3",
    "resnet50-conv3_3x3_s2",
    "mobilenetv2-block5_depthwise",
)


def _all_layers() -> Iterator[Layer]:
    seen = set()
    for network in (_lenet, _alexnet, _vgg16, _resnet50, _mobilenetv2):
        for layer in network():
            shape = replace(layer, name="")
            if shape in seen:  # networks repeat their layers
                continue
            seen.add(shape)
            batches = (1, 16) if network is _lenet else (1, 8)
            variants = [layer]
            if layer.name in _BACKWARD:
                name = f"{layer.name}_backward"
                variants.append(replace(layer, name=name, operation="conv2d_backward"))
            for variant in variants:
                for batch in batches:
                    yield replace(variant, batch=batch)


#: Every layer, each at two batch sizes.
LAYERS = tuple(_all_layers())

#: One or two of each class: what is timed when nobody says which.
REPRESENTATIVE = (
    "lenet-conv2@16",
    "alexnet-conv2@1",
    "vgg16-conv3_2@1",
    "resnet50-conv1_7x7@1",
    "resnet50-conv3_3x3@8",
    "resnet50-conv3_1x1_expand@8",
    "mobilenetv2-block5_depthwise@8",
    "resnet50-conv3_3x3_backward@8",
    "resnet50-im2col3_3x3@8",
    "lenet-pool1@16",
    "resnet50-pool1@8",
    "resnet50-pool5@8",
    "resnet50-bn1@8",
    "resnet50-relu1@8",
    "vgg16-softmax@8",
)


def select(patterns: Iterable[str], layers: tuple[Layer, ...] = LAYERS) -> list[Layer]:
    """The layers that any of the patterns names, in the list's order.

    A pattern is a name or a shell glob; without ``@`` it stands for every batch
    size. ``all`` is every layer.

    Raises
    ------
    ArgumentError
        If a pattern names no layer.

    Examples
    --------
    >>> [layer.label for layer in select(["resnet50-conv3_3x3"])]
    ['resnet50-conv3_3x3@1', 'resnet50-conv3_3x3@8']
    """
    chosen = set()
    for pattern in patterns:
        glob = "*" if pattern == "all" else pattern
        matched = [
            layer
            for layer in layers
            if fnmatchcase(layer.label if "@" in glob else layer.name, glob)
        ]
        if not matched:
            raise ArgumentError(_unknown(pattern, layers))
        chosen.update(matched)
    return [layer for layer in layers if layer in chosen]


def _unknown(pattern: str, layers: tuple[Layer, ...]) -> str:
    names = {layer.label if "@" in pattern else layer.name: None for layer in layers}
    close = get_close_matches(pattern, names, n=3)
    nearest = f" (did you mean {', '.join(close)}?)" if close else ""
    return f"layers: no layer is called {pattern!r}{nearest}; `fastdl bench --list` lists them"
