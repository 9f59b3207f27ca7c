"""The layers that the bench times: every convolution of five networks, what stands between, others.

LeNet-5 (LeCun et al., 1998), AlexNet (Krizhevsky et al., 2012, with its two
groups), VGG-16 (Simonyan and Zisserman, 2015), ResNet-50 (He et al., 2016, with
the stride in the 3x3 convolution) and MobileNetV2 (Sandler et al., 2018), each
shape once, at batch 1 and at batch 8 (LeNet: 16). Then what these networks lack: ``more-``
and, of sizes that no vector length divides, ``odd-``, each at one batch size.
Some of each are there once more with channels-last images, as ``nhwc-``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, cast

from ..errors import ArgumentError
from .layer import Layer, Operation


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


#: Layers that are timed in other ways too: the operation, or what is fused into it.
_BACKWARD: dict[str, Any] = {"backward": {"operation": "conv2d_backward"}}
_VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "lenet-conv1": _BACKWARD,
    "lenet-conv2": _BACKWARD,
    "lenet-pool1": {"backward": {"operation": "avg_pool2d_backward"}},
    "alexnet-conv1": _BACKWARD,
    "alexnet-conv2": _BACKWARD,
    "alexnet-conv3": _BACKWARD,
    "alexnet-pool1": {"backward": {"operation": "max_pool2d_backward"}},
    "vgg16-conv1_1": _BACKWARD,
    "vgg16-conv3_2": _BACKWARD | {"relu": {"activation": "relu"}},
    "vgg16-conv5_1": _BACKWARD,
    "vgg16-im2col3_2": {"col2im": {"operation": "col2im"}},
    "vgg16-pool1": {"backward": {"operation": "max_pool2d_backward"}},
    "resnet50-conv1_7x7": _BACKWARD,
    "resnet50-bn1": {
        "relu": {"activation": "relu"},
        "train": {"operation": "batch_norm_train"},
        "backward": {"operation": "batch_norm_backward"},
    },
    "resnet50-relu1": {"backward": {"operation": "relu_backward"}},
    "resnet50-pool1": {"backward": {"operation": "max_pool2d_backward"}},
    "resnet50-conv2_1x1_first": _BACKWARD,
    "resnet50-conv2_3x3": _BACKWARD,
    "resnet50-conv3_1x1_expand": _BACKWARD | {"relu": {"activation": "relu"}},
    "resnet50-conv3_3x3": _BACKWARD | {"relu": {"activation": "relu"}},
    "resnet50-conv3_3x3_s2": _BACKWARD,
    "resnet50-conv4_shortcut": _BACKWARD,
    "resnet50-conv5_1x1_reduce": _BACKWARD,
    "resnet50-conv5_3x3": _BACKWARD,
    "resnet50-pool5": {"backward": {"operation": "global_avg_pool2d_backward"}},
    "mobilenetv2-block2_depthwise": _BACKWARD,
    "mobilenetv2-block3_depthwise": _BACKWARD | {"relu": {"activation": "relu"}},
    "mobilenetv2-block5_depthwise": _BACKWARD,
    "mobilenetv2-block14_depthwise": _BACKWARD,
}


def _networks() -> Iterator[Layer]:
    """Every shape once, with its variants, at two batch sizes."""
    seen = set()
    for network in (_lenet, _alexnet, _vgg16, _resnet50, _mobilenetv2):
        for layer in network():
            shape = replace(layer, name="")
            if shape in seen:  # networks repeat their layers
                continue
            seen.add(shape)
            batches = (1, 16) if network is _lenet else (1, 8)
            for variant in (layer, *_variants(layer)):
                for batch in batches:
                    yield replace(variant, batch=batch)


def _variants(layer: Layer) -> Iterator[Layer]:
    for suffix, changes in _VARIANTS.get(layer.name, {}).items():
        yield replace(layer, name=f"{layer.name}_{suffix}", **changes)


def _with_backward(layer: Layer) -> Iterator[Layer]:
    yield layer
    operation = "col2im" if layer.operation == "im2col" else f"{layer.operation}_backward"
    operation = operation.replace("_train", "")
    yield replace(layer, name=f"{layer.name}_backward", operation=cast(Operation, operation))


def _more() -> Iterator[Layer]:
    """Kinds that the five networks lack, and arrays that no cache holds."""
    small = Layer("more-small", "conv2d", 1, 16, 8, 8, 16, kernel=3, padding=1)
    yield from _with_backward(small)
    yield replace(small, name="more-small_relu", activation="relu")
    dilated = Layer("more-dilated", "conv2d", 8, 256, 28, 28, 256, kernel=3, padding=2, dilation=2)
    yield from _with_backward(dilated)  # DeepLab's
    grouped = Layer("more-grouped", "conv2d", 8, 128, 56, 56, 128, kernel=3, padding=1, groups=32)
    yield from _with_backward(grouped)  # ResNeXt-50's
    strided = Layer("more-5x5_s2", "conv2d", 8, 64, 56, 56, 128, kernel=5, stride=2, padding=2)
    yield from _with_backward(strided)
    wide = Layer("more-7x7", "conv2d", 8, 64, 28, 28, 64, kernel=7, padding=3)
    yield from _with_backward(wide)
    for channels, size, stride in ((240, 28, 1), (144, 56, 2), (672, 14, 1)):  # EfficientNet-B0's
        name = f"more-depthwise5x5_{size}" + ("_s2" if stride == 2 else "")
        yield from _with_backward(
            Layer(
                name, "conv2d", 8, channels, size, size, channels,
                kernel=5, stride=stride, padding=2, groups=channels,
            )
        )  # fmt: skip
    large = Layer("more-depthwise3x3_large", "conv2d", 32, 96, 112, 112, 96, 3, 1, 1, 96)
    yield from _with_backward(large)
    yield replace(large, name="more-depthwise3x3_large_s2", stride=2)
    pool = Layer("more-max2x2", "max_pool2d", 32, 64, 112, 112, kernel=2, stride=2)
    average = replace(pool, operation="avg_pool2d")
    yield from _with_backward(pool)
    yield from _with_backward(replace(pool, name="more-max3x3", kernel=3, padding=1))
    yield from _with_backward(replace(average, name="more-avg2x2"))
    yield from _with_backward(replace(average, name="more-avg3x3", kernel=3, padding=1))
    flat = Layer("more-global", "global_avg_pool2d", 32, 64, 112, 112)
    yield from _with_backward(flat)
    norm = Layer("more-bn_train", "batch_norm_train", 32, 64, 56, 56)
    yield replace(norm, name="more-bn", operation="batch_norm")
    yield replace(norm, name="more-bn_relu", operation="batch_norm", activation="relu")
    yield from _with_backward(norm)
    yield from _with_backward(Layer("more-im2col", "im2col", 32, 64, 56, 56, kernel=3, padding=1))
    yield from _with_backward(Layer("more-relu", "relu", 32, 64, 112, 112))
    yield Layer("more-sigmoid", "sigmoid", 32, 64, 56, 56)


def _odd() -> Iterator[Layer]:
    """Channels and sizes that no vector length divides, oblong images, odd batches."""
    for layer in (
        Layer("odd-3x3_7", "conv2d", 64, 96, 7, 7, 100, kernel=3, padding=1),
        Layer("odd-3x3_13", "conv2d", 5, 100, 13, 13, 96, kernel=3, padding=1),
        Layer("odd-3x3_27x55", "conv2d", 3, 96, 27, 55, 96, kernel=3, padding=1),
        Layer("odd-3x3_55x13", "conv2d", 1, 100, 55, 13, 100, kernel=3, padding=1),
        Layer("odd-3x3_narrow", "conv2d", 8, 10, 55, 55, 24, kernel=3, padding=1),
        Layer("odd-1x1_7", "conv2d", 64, 100, 7, 7, 24),
        Layer("odd-1x1_13", "conv2d", 17, 24, 13, 13, 96),
        Layer("odd-1x1_27x55", "conv2d", 3, 96, 27, 55, 100),
        Layer("odd-1x1_55", "conv2d", 1, 10, 55, 55, 100),
        Layer("odd-5x5_27", "conv2d", 7, 24, 27, 27, 100, kernel=5, padding=2),
        Layer("odd-3x3_s2_55", "conv2d", 3, 96, 55, 55, 100, kernel=3, stride=2, padding=1),
        Layer("odd-1x1_s2_27x13", "conv2d", 16, 100, 27, 13, 96, stride=2),
        Layer("odd-dilated_27x13", "conv2d", 9, 96, 27, 13, 96, kernel=3, padding=3, dilation=3),
        Layer("odd-grouped_27", "conv2d", 8, 96, 27, 27, 96, kernel=3, padding=1, groups=3),
        Layer("odd-grouped_13", "conv2d", 32, 100, 13, 13, 50, kernel=3, padding=1, groups=10),
        Layer("odd-stem_55", "conv2d", 64, 3, 55, 55, 24, kernel=3, stride=2, padding=1),
        Layer("odd-stem_55x27", "conv2d", 3, 3, 55, 27, 10, kernel=7, padding=3),
        Layer("odd-stem_gray", "conv2d", 33, 1, 27, 27, 10, kernel=5),
        Layer("odd-depthwise_7", "conv2d", 64, 100, 7, 7, 100, 3, 1, 1, 100),
        Layer("odd-depthwise_27x55", "conv2d", 5, 24, 27, 55, 24, 3, 1, 1, 24),
        Layer("odd-depthwise_55_s2", "conv2d", 3, 100, 55, 55, 100, 3, 2, 1, 100),
        Layer("odd-depthwise5x5_13", "conv2d", 17, 96, 13, 13, 96, 5, 1, 2, 96),
        Layer("odd-max2x2_27x55", "max_pool2d", 16, 100, 27, 55, kernel=2, stride=2),
        Layer("odd-max3x3_13", "max_pool2d", 64, 96, 13, 13, kernel=3, stride=2, padding=1),
        Layer("odd-avg3x3_55", "avg_pool2d", 8, 24, 55, 55, kernel=3, stride=1, padding=1),
        Layer("odd-global_13x7", "global_avg_pool2d", 32, 100, 13, 7),
        Layer("odd-bn_27x55", "batch_norm_train", 7, 100, 27, 55),
        Layer("odd-bn_7", "batch_norm_train", 64, 96, 7, 7),
        Layer("odd-im2col_55x27", "im2col", 8, 10, 55, 27, kernel=3, padding=1),
    ):
        yield from _with_backward(layer)
    yield Layer("odd-bn_eval_13", "batch_norm", 17, 24, 13, 13)


#: Layers that are timed with channels-last images too.
_CHANNELS_LAST = (
    "resnet50-conv3_3x3@8",
    "resnet50-conv3_3x3_backward@8",
    "resnet50-conv3_1x1_expand@8",
    "resnet50-conv3_1x1_expand_backward@8",
    "resnet50-conv3_3x3_s2@8",
    "resnet50-conv1_7x7@8",
    "alexnet-conv2@8",
    "mobilenetv2-block5_depthwise@8",
    "mobilenetv2-block14_depthwise@8",
    "more-depthwise5x5_28@8",
    "more-max2x2@32",
    "more-max2x2_backward@32",
    "more-avg3x3@32",
    "more-global@32",
    "more-bn@32",
    "more-bn_relu@32",
    "more-bn_train@32",
    "more-bn_train_backward@32",
    "resnet50-relu1@8",
    "odd-3x3_27x55@3",
    "odd-1x1_27x55@3",
    "odd-depthwise_55_s2@3",
    "odd-max3x3_13@64",
)


def _channels_last(layers: tuple[Layer, ...]) -> Iterator[Layer]:
    for layer in layers:
        if layer.label in _CHANNELS_LAST:
            yield replace(layer, name=f"nhwc-{layer.name}", layout="channels_last")


_PLANES = (*_networks(), *_more(), *_odd())
#: Every layer: those of the networks at two batch sizes, the others at one.
LAYERS = (*_PLANES, *_channels_last(_PLANES))

#: One or two of each class: what is timed when nobody says which.
REPRESENTATIVE = (
    "vgg16-conv3_2@1",
    "resnet50-conv3_3x3@8",
    "resnet50-conv3_3x3_backward@8",
    "resnet50-conv3_1x1_expand@8",
    "alexnet-conv2@1",
    "resnet50-conv3_3x3_s2@8",
    "resnet50-conv1_7x7@8",
    "mobilenetv2-block5_depthwise@8",
    "mobilenetv2-block5_depthwise_backward@8",
    "more-max2x2@32",
    "more-max2x2_backward@32",
    "more-avg3x3@32",
    "more-global@32",
    "more-bn@32",
    "more-bn_relu@32",
    "more-bn_train@32",
    "more-bn_train_backward@32",
    "more-im2col@32",
    "more-im2col_backward@32",
    "resnet50-relu1@8",
    "vgg16-softmax@8",
    "more-small@1",
    "odd-3x3_27x55@3",
    "odd-stem_gray@33",
    "nhwc-resnet50-conv3_3x3@8",
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
