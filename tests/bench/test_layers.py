"""The list of layers, and what a layer says about itself."""

from math import prod

import numpy as np
import pytest

from fastdl.bench.layer import random_inputs, scaled_down
from fastdl.bench.layers import LAYERS, REPRESENTATIVE, select
from fastdl.errors import ArgumentError

from .small import CONV, EVERY, IM2COL, MAX_POOL, RELU

CONVOLUTIONS = [layer for layer in LAYERS if layer.operation == "conv2d"]


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


def test_every_layer_has_two_batch_sizes_and_its_own_label():
    labels = [layer.label for layer in LAYERS]
    assert len(set(labels)) == len(labels)
    names = {layer.name for layer in LAYERS}
    assert len(labels) == 2 * len(names)
    assert {layer.batch for layer in LAYERS} == {1, 8, 16}


def test_no_convolution_is_listed_twice():
    shapes = {(layer.conv, layer.operation) for layer in CONVOLUTIONS}
    assert len(shapes) == len(CONVOLUTIONS)


def test_the_representative_layers_exist_and_show_every_operation():
    chosen = select(REPRESENTATIVE)
    assert [layer.label for layer in chosen if layer.label not in REPRESENTATIVE] == []
    assert len(chosen) == len(REPRESENTATIVE)
    assert {layer.operation for layer in chosen} == {layer.operation for layer in LAYERS}


def test_selecting():
    assert [layer.label for layer in select(["vgg16-softmax", "lenet-conv1@16"])] == [
        "lenet-conv1@16",
        "vgg16-softmax@1",
        "vgg16-softmax@8",
    ]
    assert {layer.name for layer in select(["lenet-*"])} == {
        "lenet-conv1",
        "lenet-conv2",
        "lenet-conv2_backward",
        "lenet-conv3",
        "lenet-pool1",
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
    assert MAX_POOL.flops == 2 * 3 * 16 * 9
    assert RELU.nbytes == 2 * 4 * 96


@pytest.mark.parametrize("layer", EVERY, ids=str)
def test_inputs_have_their_shapes_and_repeat(layer):
    inputs = random_inputs(layer)
    assert {name: array.shape for name, array in inputs.items()} == layer.input_shapes
    assert all(array.dtype == np.float32 for array in inputs.values())
    for name, again in random_inputs(layer).items():
        np.testing.assert_array_equal(inputs[name], again)


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.label)
def test_scaled_down_layers_are_small_and_of_the_same_kind(layer):
    small = scaled_down(layer, 1_000_000)
    assert small.work <= 4_000_000
    assert (small.operation, small.kernel, small.stride) == (
        layer.operation,
        layer.kernel,
        layer.stride,
    )
    assert (small.groups == small.channels) == (layer.groups == layer.channels)
    assert all(prod(shape) > 0 for shape in small.output_shapes)


def test_a_small_layer_stays_as_it_is():
    assert scaled_down(CONV, CONV.flops) == CONV
