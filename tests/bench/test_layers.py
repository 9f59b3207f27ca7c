"""The list of layers, and what a layer says about itself."""

from dataclasses import replace
from math import prod

import numpy as np
import pytest
from support import is_channels_last

from fastdl.bench.layer import BACKWARD, KINDS, random_inputs, scaled_down
from fastdl.bench.layers import LAYERS, REPRESENTATIVE, select
from fastdl.errors import ArgumentError

from .small import COL2IM, CONV, DILATED, EVERY, IM2COL, MAX_BACKWARD, MAX_POOL, NORM_RELU, RELU

CONVOLUTIONS = [
    layer for layer in LAYERS if layer.operation == "conv2d" and layer.activation is None
]


def of_network(network):
    return [layer for layer in CONVOLUTIONS if layer.name.startswith(network) and layer.batch == 1]


@pytest.mark.parametrize(
    ("network", "flops", "shapes"),
    [
        ("lenet", 2 * (28**2 * 6 * 25 + 10**2 * 16 * 150 + 120 * 400), 3),
        # The paper's 5 layers, and VGG's 13 convolutions of 9 shapes.
        ("alexnet", 2 * 665_784_864, 5),
        ("vgg16", None, 9),
        ("resnet50", None, 1 + 4 + 3 * 6),
    ],
)
def test_each_network_has_its_shapes(network, flops, shapes):
    layers = of_network(network)
    assert len(layers) == shapes
    if flops is not None:
        assert sum(layer.flops for layer in layers) == flops


def test_resnet_in_full_is_four_gigaflops():
    """Every layer as often as the network has it: torchvision's 4.09 G multiply-adds."""
    flops = {layer.name.removeprefix("resnet50-"): layer.flops for layer in of_network("resnet50")}
    total = flops["conv1_7x7"]
    for stage, blocks in zip((2, 3, 4, 5), (3, 4, 6, 3), strict=True):
        name = f"conv{stage}"
        first_3x3 = flops.get(f"{name}_3x3_s2", flops[f"{name}_3x3"])
        expand = flops[f"{name}_1x1_expand"]
        total += flops[f"{name}_1x1_first"] + first_3x3 + expand
        total += flops.get(f"{name}_shortcut", expand)
        total += (blocks - 1) * (flops[f"{name}_1x1_reduce"] + flops[f"{name}_3x3"] + expand)
    assert total / 2 == pytest.approx(4.087e9, rel=1e-3)


def test_mobilenet_has_17_depthwise_layers_of_10_shapes():
    depthwise = [layer for layer in of_network("mobilenetv2") if layer.groups > 1]
    assert len(depthwise) == 10
    assert all(layer.groups == layer.channels == layer.filters for layer in depthwise)


def test_every_layer_has_its_own_label_and_those_of_networks_two_batch_sizes():
    labels = [layer.label for layer in LAYERS]
    assert len(set(labels)) == len(labels)
    of_networks = [
        layer for layer in LAYERS if not layer.name.startswith(("more-", "odd-", "nhwc-"))
    ]
    assert len(of_networks) == 2 * len({layer.name for layer in of_networks})
    assert {layer.batch for layer in of_networks} == {1, 8, 16}


def test_no_layer_is_listed_twice():
    shapes = {replace(layer, name="") for layer in LAYERS}
    assert len(shapes) == len(LAYERS)


def test_every_class_is_there_forward_and_backward():
    assert {layer.kind for layer in LAYERS} == {
        name for kind in KINDS for name in (kind, BACKWARD.format(kind))
    }


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("vgg16-conv3_2", "3x3 stride 1"),
        ("resnet50-conv3_3x3_s2", "other dense"),
        ("resnet50-conv3_1x1_expand", "1x1"),
        ("resnet50-conv3_shortcut", "other dense"),
        ("alexnet-conv2", "other dense"),
        ("more-dilated", "other dense"),
        ("odd-3x3_narrow", "other dense"),
        ("resnet50-conv1_7x7_backward", "stem, backward"),
        ("mobilenetv2-block2_depthwise", "depthwise"),
        ("resnet50-pool5_backward", "average pool, backward"),
        ("resnet50-bn1_train", "batch norm"),
        ("resnet50-bn1_relu", "batch norm"),
        ("more-im2col_backward", "columns, backward"),
        ("vgg16-softmax", "elementwise"),
        ("more-small", "small call"),
    ],
)
def test_the_class_of_a_layer(name, kind):
    assert {layer.kind for layer in select([name])} == {kind}


def test_the_odd_layers_are_odd():
    odd = [layer for layer in LAYERS if layer.name.startswith("odd-")]
    assert {7, 13, 27, 55} <= {layer.height for layer in odd}
    assert {3, 10, 24, 96, 100} <= {layer.channels for layer in odd}
    assert any(layer.height != layer.width for layer in odd)
    assert max(layer.batch for layer in odd) == 64
    assert {layer.kind for layer in odd if not layer.is_backward} >= set(KINDS) - {
        "elementwise",
        "small call",
        "channels-last",
    }


def test_the_representative_layers_exist_and_show_every_operation():
    chosen = select(REPRESENTATIVE)
    assert [layer.label for layer in chosen if layer.label not in REPRESENTATIVE] == []
    assert len(chosen) == len(REPRESENTATIVE)
    assert {layer.kind for layer in chosen if not layer.is_backward} == set(KINDS)


def test_selecting():
    assert [layer.label for layer in select(["vgg16-softmax", "lenet-conv1@16"])] == [
        "lenet-conv1@16",
        "vgg16-softmax@1",
        "vgg16-softmax@8",
    ]
    assert {layer.name for layer in select(["lenet-*"])} == {
        "lenet-conv1",
        "lenet-conv1_backward",
        "lenet-conv2",
        "lenet-conv2_backward",
        "lenet-conv3",
        "lenet-pool1",
        "lenet-pool1_backward",
    }
    assert tuple(select(["all"])) == LAYERS


def test_an_unknown_layer_names_the_nearest():
    with pytest.raises(ArgumentError, match=r"'resnet50-conv3_3x4'.*resnet50-conv3_3x3.*--list"):
        select(["resnet50-conv3_3x4"])
    with pytest.raises(ArgumentError, match="'zzz'"):
        select(["lenet-conv1", "zzz"])


def test_work_of_a_convolution():
    # 2 images, 6 filters of 2 channels, 5x5 outputs.
    assert CONV.flops == 2 * (2 * 6 * 25) * (2 * 9)
    assert CONV.nbytes == 4 * (2 * 4 * 81 + 6 * 2 * 9 + 6 + 2 * 6 * 25)


def test_work_of_the_others():
    assert (IM2COL.flops, IM2COL.nbytes) == (0, 4 * (2 * 36 + 18 * 36))
    assert (IM2COL.bytes_read, IM2COL.bytes_written) == (4 * 2 * 36, 4 * 18 * 36)
    assert COL2IM.flops == 18 * 9
    assert MAX_BACKWARD.bytes_read == 2 * 3 * 16 * (4 + 8)
    assert NORM_RELU.flops == 3 * 2 * 3 * 16
    assert DILATED.flops == DILATED.conv.flops + 2 * 9 * 7
    assert MAX_POOL.flops == 2 * 3 * 16 * 9
    assert RELU.nbytes == 2 * 4 * 96


@pytest.mark.parametrize("layer", EVERY, ids=str)
def test_inputs_have_their_shapes_and_repeat(layer):
    inputs = random_inputs(layer)
    assert {name: array.shape for name, array in inputs.items()} == layer.input_shapes
    for name, array in inputs.items():
        assert array.dtype == (np.int64 if name == "indices" else np.float32)
        if array.ndim == 4 and name != "weight" and layer.layout == "channels_last":
            assert is_channels_last(array)
        else:
            assert array.flags.c_contiguous
    for name, again in random_inputs(layer).items():
        np.testing.assert_array_equal(inputs[name], again)


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.label)
def test_scaled_down_layers_are_small_and_of_the_same_kind(layer):
    small = scaled_down(layer, 1_000_000)
    assert small.work <= 4_000_000
    for name in ("operation", "kernel", "stride", "dilation", "activation"):
        assert getattr(small, name) == getattr(layer, name)
    assert (small.groups == small.channels) == (layer.groups == layer.channels)
    assert all(prod(shape) > 0 for shape in small.output_shapes)


def test_a_small_layer_stays_as_it_is():
    assert scaled_down(CONV, CONV.flops) == CONV
