"""The libraries that fastdl is timed against, each asked for the same work on as many threads.

Weights are constants to ONNX Runtime and OpenVINO, which pack them once;
PyTorch gets them with each call, as fastdl does. All compute in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from importlib.util import find_spec
from typing import Any

from ..backends.table import Array
from ..errors import ArgumentError
from ..packages import needed
from .implementation import Call, Implementation
from .layer import Arrays, Layer

_MEMORY_FORMATS = {"planes": "contiguous_format", "channels_last": "channels_last"}


class Torch:
    """PyTorch's functional calls on tensors that share NumPy's memory, or on a GPU's copies.

    Weights are channels-last where images are, which spares it their reordering.
    """

    name = "torch"

    def __init__(self, threads: int, device: str = "cpu") -> None:
        self._torch: Any = needed("torch", "torch", "--against torch")
        self._torch.set_num_threads(threads)
        self._device = device

    def serves(self, layer: Layer) -> bool:
        return True

    def prepare(self, layer: Layer, inputs: Arrays, reuse: bool) -> Call:
        from_numpy = self._torch.from_numpy
        tensors = {name: from_numpy(array).to(self._device) for name, array in inputs.items()}
        if layer.layout == "channels_last" and "weight" in tensors and tensors["weight"].ndim == 4:
            tensors["weight"] = tensors["weight"].to(memory_format=self._torch.channels_last)
        return Call(partial(self.function_of(layer), **tensors), torch_arrays)

    def function_of(self, layer: Layer) -> Callable[..., Any]:
        """What takes the layer's inputs by name. Backwards are what autograd calls."""
        torch, aten, functional = self._torch, self._torch.ops.aten, self._torch.nn.functional
        size, stride, padding = [layer.kernel] * 2, [layer.stride] * 2, [layer.padding] * 2
        dilation, shape = [layer.dilation] * 2, list(layer.x_shape)
        pool = (size, stride, padding)
        window = (size, dilation, padding, stride)
        # Where a backward asks for x, it looks at its shape alone.
        order = getattr(torch, _MEMORY_FORMATS[layer.layout])
        x_like = None
        if layer.is_backward:
            x_like = torch.empty(shape, device=self._device, memory_format=order)
        match layer.operation:
            case "conv2d":
                conv = functional.conv2d
                return self._activated(
                    layer,
                    lambda x, weight, bias: conv(
                        x, weight, bias, stride, padding, dilation, layer.groups
                    ),
                )
            case "conv2d_backward":
                geometry = (stride, padding, dilation, False, [0, 0], layer.groups, [True] * 3)
                return lambda grad, x, weight: aten.convolution_backward(
                    grad, x, weight, [layer.filters], *geometry
                )
            case "im2col":
                return lambda x: functional.unfold(x, *window)
            case "col2im":
                return lambda col: functional.fold(col, shape[2:], *window)
            case "max_pool2d":
                return lambda x: functional.max_pool2d(x, *pool)
            case "max_pool2d_backward":
                return lambda grad, indices: aten.max_pool2d_with_indices_backward(
                    grad, x_like, *pool, [1, 1], False, indices
                )
            case "avg_pool2d":
                return lambda x: functional.avg_pool2d(x, *pool)
            case "avg_pool2d_backward":
                return lambda grad: aten.avg_pool2d_backward(grad, x_like, *pool, False, True, None)
            case "global_avg_pool2d":
                return lambda x: functional.adaptive_avg_pool2d(x, 1)
            case "global_avg_pool2d_backward":
                pixels = layer.height * layer.width
                return lambda grad: grad.expand(shape) / pixels
            case "batch_norm" | "batch_norm_train":
                norm, training = functional.batch_norm, layer.operation == "batch_norm_train"
                return self._activated(
                    layer,
                    lambda x, running_mean, running_var, weight, bias: norm(
                        x, running_mean, running_var, weight, bias, training
                    ),
                )
            case "batch_norm_backward":
                return lambda grad, x, mean, inv_std, weight: aten.native_batch_norm_backward(
                    grad, x, weight, None, None, mean, inv_std, True, 1e-5, [True] * 3
                )
            case "relu":
                return lambda x: functional.relu(x)
            case "relu_backward":
                return lambda grad, x: aten.threshold_backward(grad, x, 0)
            case "sigmoid":
                return lambda x: torch.sigmoid(x)
            case "softmax":
                return lambda x: functional.softmax(x, -1)

    def _activated(self, layer: Layer, function: Callable[..., Any]) -> Callable[..., Any]:
        """With the activation, in the memory of the result: PyTorch fuses none."""
        if layer.activation is None:
            return function
        activate = getattr(self._torch, f"{layer.activation}_")
        return lambda **inputs: activate(function(**inputs))


def torch_arrays(result: Any) -> tuple[Array, ...]:
    """A call's tensors for NumPy."""
    tensors = result if isinstance(result, tuple) else (result,)
    return tuple(tensor.detach().cpu().numpy() for tensor in tensors)


def onnx_model(layer: Layer, inputs: Arrays) -> bytes:
    """The layer as an ONNX model of one node, and its activation's: input ``x``, output ``y``, the rest constants."""
    onnx: Any = needed("onnx", "onnx", "timing ONNX Runtime or OpenVINO")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    pads, dilations = [layer.padding] * 4, [layer.dilation] * 2
    window = {"kernel_shape": [layer.kernel] * 2, "strides": [layer.stride] * 2, "pads": pads}
    operators: dict[str, tuple[str, list[str], dict[str, Any]]] = {
        "conv2d": (
            "Conv",
            ["weight", "bias"],
            {**window, "dilations": dilations, "group": layer.groups},
        ),
        "max_pool2d": ("MaxPool", [], window),
        "avg_pool2d": ("AveragePool", [], {**window, "count_include_pad": 1}),
        "global_avg_pool2d": ("GlobalAveragePool", [], {}),
        "batch_norm": (
            "BatchNormalization",
            ["weight", "bias", "running_mean", "running_var"],
            {"epsilon": 1e-5},
        ),
        "relu": ("Relu", [], {}),
        "sigmoid": ("Sigmoid", [], {}),
        "softmax": ("Softmax", [], {"axis": -1}),
    }
    operator, constants, attributes = operators[layer.operation]
    result = "y" if layer.activation is None else "z"
    nodes = [helper.make_node(operator, ["x", *constants], [result], **attributes)]
    if layer.activation is not None:
        nodes.append(helper.make_node(layer.activation.capitalize(), [result], ["y"]))
    value = partial(helper.make_tensor_value_info, elem_type=onnx.TensorProto.FLOAT)
    graph = helper.make_graph(
        nodes,
        layer.name,
        [value("x", shape=layer.x_shape)],
        [value("y", shape=layer.output_shapes[0])],
        [numpy_helper.from_array(inputs[name], name) for name in constants],
    )
    opset = [helper.make_opsetid("", 17)]
    model: bytes = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    return model


def _in_onnx(layer: Layer) -> bool:
    """Single operators of inference, in planes; of training ONNX has none that are alike."""
    return layer.layout == "planes" and not (
        layer.is_backward or layer.operation in ("im2col", "batch_norm_train")
    )


class OnnxRuntime:
    """ONNX Runtime's CPU provider."""

    name = "onnxruntime"

    def __init__(self, threads: int) -> None:
        self._ort: Any = needed("onnxruntime", "onnxruntime", "--against onnxruntime")
        needed("onnx", "onnx", "--against onnxruntime")
        self._threads = threads

    def serves(self, layer: Layer) -> bool:
        return _in_onnx(layer)

    def prepare(self, layer: Layer, inputs: Arrays, reuse: bool) -> Call:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        # Threads that go on spinning between its turns would slow its neighbours.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        session = self._ort.InferenceSession(
            onnx_model(layer, inputs), options, providers=["CPUExecutionProvider"]
        )
        if not reuse:
            return Call(partial(session.run, None, {"x": inputs["x"]}), tuple)
        binding = session.io_binding()
        binding.bind_cpu_input("x", inputs["x"])
        binding.bind_output("y", "cpu")
        session.run_with_iobinding(binding)
        # Bound once more, now to the memory of the first result.
        binding.bind_ortvalue_output("y", binding.get_outputs()[0])
        return Call(
            partial(session.run_with_iobinding, binding),
            lambda _: tuple(binding.copy_outputs_to_cpu()),
        )


class OpenVino:
    """OpenVINO's CPU plugin."""

    name = "openvino"

    def __init__(self, threads: int) -> None:
        self._openvino: Any = needed("openvino", "openvino", "--against openvino")
        needed("onnx", "onnx", "--against openvino")
        self._threads = threads

    def serves(self, layer: Layer) -> bool:
        return _in_onnx(layer)

    def prepare(self, layer: Layer, inputs: Arrays, reuse: bool) -> Call:
        options = {
            "INFERENCE_NUM_THREADS": self._threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            # By default it takes bfloat16 where the processor has it.
            "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": False,
        }
        core = self._openvino.Core()
        model = core.read_model(onnx_model(layer, inputs), b"")
        request = core.compile_model(model, "CPU", options).create_infer_request()
        run = partial(request.infer, [inputs["x"]], share_inputs=True, share_outputs=reuse)
        return Call(run, lambda result: (result[0],))


PEERS: dict[str, Callable[[int], Implementation]] = {
    "torch": Torch,
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
}


def peers(names: Iterable[str], threads: int) -> list[Implementation]:
    """The peers of these names, each on ``threads`` threads; ``all`` is every one installed.

    Raises
    ------
    ArgumentError
        If a name is not a peer's.
    MissingPackageError
        If a peer is not installed.
    """
    wanted: dict[str, None] = {}
    for name in names:
        if name != "all" and name not in PEERS:
            raise ArgumentError(f"against: must be of {', '.join(PEERS)} or all, got {name!r}")
        wanted |= dict.fromkeys(installed() if name == "all" else [name])
    return [PEERS[name](threads) for name in wanted]


def installed() -> list[str]:
    """The peers that can be timed here."""
    found = [name for name in PEERS if find_spec(name) is not None]
    has_onnx = find_spec("onnx") is not None
    return [name for name in found if has_onnx or name == "torch"]
