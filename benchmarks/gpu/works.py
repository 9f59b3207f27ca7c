"""What is timed: layers of networks at a GPU's batch sizes, and the kernels that are no layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any

import numpy as np

import fastdl
from fastdl import functional
from fastdl.backends.table import OptimizerStep
from fastdl.bench.layer import Arrays, Layer, random_inputs, scaled_down
from fastdl.bench.layers import select
from fastdl.bench.ours import as_tuple, function_of
from fastdl.bench.peers import Torch
from fastdl.functional.optimizer import optimizer_step, sum_of_squares
from fastdl.geometry import Shape

#: Layers by their batch. The arrays of what is bound by memory are larger than an H100's cache.
BATCHES = {
    "vgg16-conv3_2@1": 16,
    "vgg16-conv1_1@1": 16,
    "resnet50-conv1_7x7@8": 64,
    "resnet50-conv2_3x3@8": 32,
    "resnet50-conv3_3x3@8": 32,
    "resnet50-conv3_3x3_relu@8": 32,
    "resnet50-conv4_3x3@8": 32,
    "resnet50-conv5_3x3@8": 64,
    "resnet50-conv3_1x1_expand@8": 32,
    "resnet50-conv4_1x1_reduce@8": 32,
    "resnet50-conv3_3x3_s2@8": 32,
    "alexnet-conv1@8": 64,
    "alexnet-conv2@8": 64,
    "more-dilated@8": 32,
    "more-grouped@8": 32,
    "more-7x7@8": 32,
    "odd-3x3_27x55@3": 33,
    "odd-1x1_27x55@3": 33,
    "resnet50-conv1_7x7_backward@8": 64,
    "resnet50-conv3_3x3_backward@8": 32,
    "resnet50-conv3_1x1_expand_backward@8": 32,
    "resnet50-conv3_3x3_s2_backward@8": 32,
    "odd-3x3_27x55_backward@3": 33,
    "mobilenetv2-block5_depthwise@8": 128,
    "more-depthwise3x3_large@32": 64,
    "more-depthwise5x5_56_s2@8": 128,
    "more-depthwise3x3_large_backward@32": 64,
    "more-max2x2@32": 64,
    "more-max2x2_backward@32": 64,
    "more-max3x3@32": 64,
    "more-max3x3_backward@32": 64,
    "more-avg3x3@32": 64,
    "more-avg3x3_backward@32": 64,
    "more-global@32": 64,
    "more-global_backward@32": 64,
    "more-bn@32": 128,
    "more-bn_relu@32": 128,
    "more-bn_train@32": 128,
    "more-bn_train_backward@32": 128,
    "odd-bn_27x55@7": 128,
    "more-im2col@32": 32,
    "more-im2col_backward@32": 32,
    "more-relu@32": 64,
    "more-relu_backward@32": 64,
    "more-sigmoid@32": 128,
}
#: Operations, or bytes, of what is set against the truth in float64, which NumPy computes.
_CHECKED_WORK = 1_000_000_000
_CONVOLUTIONS = ("conv2d", "conv2d_backward")

Function = Callable[..., Any]


@dataclass(frozen=True)
class Work:
    """A call, as fastdl and PyTorch do it, and what it takes at the least.

    ``ours`` takes the arrays of ``inputs`` by name, and ``backend``; ``theirs`` makes of the
    module torch what takes tensors. Where the result is random, ``expected`` makes of inputs in
    float64 and of the result what that should have been.
    """

    name: str
    title: str
    inputs: Callable[[], Arrays]
    ours: Function
    theirs: Callable[[Any], Function] | None
    flops: int
    nbytes: int
    tensor_cores: bool = False
    expected: Callable[[Arrays, tuple[Any, ...]], Any] | None = None
    #: A smaller one of the kind, where this is too large for NumPy.
    checked: Work | None = None

    def truth(self, inputs: Arrays, found: tuple[Any, ...]) -> tuple[Any, ...]:
        """The result in float64."""
        exact = {
            name: array.astype(np.float64) if array.dtype == np.float32 else array
            for name, array in inputs.items()
        }
        if self.expected is not None:
            return as_tuple(self.expected(exact, found))
        return as_tuple(self.ours(**exact, backend="reference"))


def works(small: bool) -> Iterator[Work]:
    """All of them; ``small`` ones a simulator can do."""
    for label, batch in BATCHES.items():
        layer = replace(select([label])[0], batch=batch)
        yield _of_layer(_tiny(layer) if small else layer)
    yield from _functions(small)


def _tiny(layer: Layer) -> Layer:
    """A layer of the same kind with few outputs, for the simulator."""
    groups = min(layer.groups, 2)
    size = (layer.kernel - 1) * layer.dilation + 1 + layer.stride
    return replace(
        layer,
        batch=2,
        channels=groups * min(layer.channels // layer.groups, 3),
        filters=groups * min(layer.filters // layer.groups, 3),
        groups=groups,
        height=size,
        width=size + 1,
    )


def _of_layer(layer: Layer, checked: bool = False) -> Work:
    reduced = scaled_down(layer, _CHECKED_WORK)
    return Work(
        layer.label,
        str(layer),
        partial(random_inputs, layer),
        function_of(layer),
        lambda torch: Torch(1, "cuda").function_of(layer),
        layer.flops,
        layer.nbytes,
        layer.operation in _CONVOLUTIONS and layer.groups < layer.channels,
        checked=None if checked or reduced == layer else _of_layer(reduced, checked=True),
    )


def _normal(shapes: dict[str, Shape]) -> Arrays:
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def _function(
    name: str,
    shapes: dict[str, Shape],
    ours: Function,
    theirs: Callable[[Any], Function] | None,
    written: int,
    flops: int = 0,
    inputs: Callable[[], Arrays] | None = None,
    **more: Any,
) -> Work:
    """A work on normal inputs, that writes so many float32 numbers."""
    title = f"{name} " + ", ".join("x".join(map(str, shape)) for shape in shapes.values())
    make = inputs or partial(_normal, shapes)
    nbytes = 4 * (sum(map(prod, shapes.values())) + written)
    return Work(name, title, make, ours, theirs, flops, nbytes, **more)


def _functions(small: bool) -> Iterator[Work]:
    """Kernels that no layer of the bench has."""
    yield from _products(small)
    yield from _rows(small)
    yield from _elements(small)
    yield from _images(small)
    yield from _updates(small)


def _products(small: bool) -> Iterator[Work]:
    rows, inputs, outputs = (5, 12, 9) if small else (1024, 4096, 4096)
    x, weight, y = (rows, inputs), (outputs, inputs), (rows, outputs)
    flops = 2 * rows * inputs * outputs
    yield _function(
        "linear", {"x": x, "weight": weight, "bias": (outputs,)}, fastdl.linear,
        lambda torch: torch.nn.functional.linear, prod(y), flops, tensor_cores=True,
    )  # fmt: skip

    def backward(torch: Any) -> Function:
        return lambda grad, x, weight: (grad @ weight, grad.T @ x, grad.sum(0))

    yield _function(
        "linear_backward", {"grad": y, "x": x, "weight": weight}, fastdl.linear_backward, backward,
        prod(x) + prod(weight) + outputs, 2 * flops, tensor_cores=True,
    )  # fmt: skip


def _rows(small: bool) -> Iterator[Work]:
    shape = (5, 11) if small else (65536, 1000)
    size, one, two = prod(shape), {"x": shape}, {"grad": shape, "y": shape}
    yield _function("softmax", one, fastdl.softmax, lambda t: partial(t.softmax, dim=-1), size)
    yield _function(
        "log_softmax", one, fastdl.log_softmax, lambda t: partial(t.log_softmax, dim=-1), size
    )
    for name in ("softmax", "log_softmax"):
        yield _function(
            f"{name}_backward", two, getattr(fastdl, f"{name}_backward"),
            partial(_rows_backward, name), size,
        )  # fmt: skip

    def scores() -> Arrays:
        rng = np.random.default_rng(0)
        return _normal(one) | {"target": rng.integers(0, shape[1], shape[0])}

    yield _function(
        "cross_entropy", one, fastdl.cross_entropy,
        lambda torch: lambda x, target: torch.nn.functional.cross_entropy(x, target), 0,
        inputs=scores,
    )  # fmt: skip
    yield _function("cross_entropy_backward", one, fastdl.cross_entropy_backward, None, size,
                    inputs=scores)  # fmt: skip


def _rows_backward(name: str, torch: Any) -> Function:
    kernel = getattr(torch.ops.aten, f"_{name}_backward_data")
    return lambda grad, y: kernel(grad, y, -1, torch.float32)


def _element_backward(name: str, torch: Any) -> Function:
    kernel = getattr(torch.ops.aten, f"{name}_backward")
    return lambda grad, y: kernel(grad, y)


def _elements(small: bool) -> Iterator[Work]:
    shape = (4, 3, 5, 5) if small else (128, 64, 56, 56)
    size, two = prod(shape), {"grad": shape, "y": shape}
    yield _function("tanh", {"x": shape}, fastdl.tanh, lambda torch: torch.tanh, size)
    for name in ("sigmoid", "tanh"):
        yield _function(
            f"{name}_backward", two, getattr(fastdl, f"{name}_backward"),
            partial(_element_backward, name), size,
        )  # fmt: skip
    yield _function(
        "dropout", {"x": shape}, partial(fastdl.dropout, rng=0, return_mask=True),
        lambda torch: lambda x: torch.nn.functional.dropout(x), size + size // 4,
        expected=lambda exact, found: (2 * exact["x"] * found[1], found[1]),
    )  # fmt: skip

    def masked() -> Arrays:
        rng = np.random.default_rng(1)
        return _normal({"grad": shape}) | {"mask": rng.random(shape, np.float32) < 0.5}

    yield _function(
        "dropout_backward", {"grad": shape}, fastdl.dropout_backward,
        lambda torch: lambda grad, mask: torch.ops.aten.native_dropout_backward(grad, mask, 2.0),
        size + size // 4, inputs=masked,
    )  # fmt: skip


def _images(small: bool) -> Iterator[Work]:
    n, c, o, size = (1, 3, 4, 5) if small else (32, 128, 64, 28)
    x, weight = (n, c, size, size), (c, o, 4, 4)
    flops = 2 * prod(x) * o * 16
    yield _function(
        "conv_transpose2d", {"x": x, "weight": weight},
        partial(fastdl.conv_transpose2d, stride=2, padding=1),
        lambda torch: partial(torch.nn.functional.conv_transpose2d, stride=2, padding=1),
        n * o * 4 * size * size, flops, tensor_cores=True,
    )  # fmt: skip
    images = (2, 3, 7, 9) if small else (64, 256, 56, 56)
    pooled = (*images[:2], 5, 5)
    yield _function(
        "adaptive_avg_pool2d", {"x": images}, partial(fastdl.adaptive_avg_pool2d, output_size=5),
        lambda torch: lambda x: torch.nn.functional.adaptive_avg_pool2d(x, 5), prod(pooled),
    )  # fmt: skip
    yield _function(
        "adaptive_avg_pool2d_backward", {"grad": pooled},
        partial(fastdl.adaptive_avg_pool2d_backward, input_shape=images), None, prod(images),
    )  # fmt: skip
    filters = (o, c, 3, 3)
    vectors = dict.fromkeys(("mean", "var", "scale", "shift"), (o,))
    yield _function(
        "conv + batch norm + relu", {"x": x, "weight": filters, **vectors}, _fused, _unfused,
        n * o * size * size, 2 * n * o * size * size * prod(filters[1:]), tensor_cores=True,
        inputs=lambda: _positive("var", {"x": x, "weight": filters, **vectors}),
    )  # fmt: skip


def _positive(name: str, shapes: dict[str, Shape]) -> Arrays:
    arrays = _normal(shapes)
    arrays["weight"] /= np.float32(np.sqrt(prod(shapes["weight"][1:])))
    return arrays | {name: np.abs(arrays[name]) + np.float32(0.5)}


def _fused(
    x: Any, weight: Any, mean: Any, var: Any, scale: Any, shift: Any, backend: Any = None
) -> Any:
    """In evaluation, as `fastdl.nn.Sequential` does it: on a GPU the normalisation is folded in."""
    if functional.on_device.is_device(x):
        weight, bias = functional.on_device.folded(weight, None, mean, var, scale, shift, 1e-5)
        return fastdl.conv2d(x, weight, bias, padding=1, activation="relu")
    y = fastdl.conv2d(x, weight, padding=1, backend=backend)
    return fastdl.batch_norm(y, mean, var, scale, shift, activation="relu", backend=backend)


def _unfused(torch: Any) -> Function:
    ops = torch.nn.functional

    def run(x: Any, weight: Any, mean: Any, var: Any, scale: Any, shift: Any) -> Any:
        y = ops.conv2d(x, weight, padding=1)
        return torch.relu_(ops.batch_norm(y, mean, var, scale, shift))

    return run


def _updates(small: bool) -> Iterator[Work]:
    size = 50 if small else 1 << 25
    for rule, states, optimizer in (
        ("sgd", 0, "SGD"), ("momentum", 1, "SGD"), ("nesterov", 1, "SGD"), ("adagrad", 1, None),
        ("rmsprop", 1, None), ("adam", 2, "Adam"),
    ):  # fmt: skip
        names = ["w", "grad", "first", "second"][: 2 + states]
        shapes = dict.fromkeys(names, (size,))
        step = OptimizerStep(rule, 1e-3, 0.9, 0.999, 1e-8)  # type: ignore[arg-type]
        yield _function(
            f"{rule} update", shapes, partial(_update, step),
            optimizer and partial(_their_update, optimizer, rule),  # type: ignore[arg-type]
            size * (1 + states), inputs=partial(_not_negative, shapes),
        )  # fmt: skip
    yield _function(
        "sum of squares", {"x": (size,)}, lambda x, backend=None: sum_of_squares([x]),
        lambda torch: lambda x: torch.linalg.vector_norm(x) ** 2, 0,
    )  # fmt: skip


def _not_negative(shapes: dict[str, Shape]) -> Arrays:
    return {
        name: np.abs(array) if name in ("first", "second") else array
        for name, array in _normal(shapes).items()
    }


def _update(step: OptimizerStep, w: Any, grad: Any, *, backend: Any = None, **states: Any) -> Any:
    optimizer_step(step, [w], [grad], [[state] for state in states.values()], np.zeros((1, 3)),
                   backend=backend)  # fmt: skip
    return w


def _their_update(name: str, rule: str, torch: Any) -> Function:
    made: list[Any] = []

    def run(w: Any, grad: Any, **_: Any) -> Any:
        if not made:
            w.grad = grad
            options: dict[str, Any] = {"lr": 1e-3, "fused": True}
            if name == "SGD":
                options |= {
                    "momentum": 0.0 if rule == "sgd" else 0.9,
                    "nesterov": rule == "nesterov",
                }
            made.append(getattr(torch.optim, name)([w], **options))
        made[0].step()
        return w

    return run
