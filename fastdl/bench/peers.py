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


class Torch:
    """PyTorch's functional calls on tensors that share NumPy's memory."""

    name = "torch"

    def __init__(self, threads: int) -> None:
        self._torch: Any = needed("torch", "torch", "--against torch")
        self._torch.set_num_threads(threads)

    def serves(self, layer: Layer) -> bool:
        return True

    def prepare(self, layer: Layer, inputs: Arrays, reuse: bool) -> Call:
        tensors = {name: self._torch.from_numpy(array) for name, array in inputs.items()}
        return Call(partial(self._function(layer), **tensors), _torch_arrays)

    def _function(self, layer: Layer) -> Callable[..., Any]:
        functional = self._torch.nn.functional
        window = {"kernel_size": layer.kernel, "stride": layer.stride, "padding": layer.padding}
        match layer.operation:
            case "conv2d":
                return partial(
                    functional.conv2d,
                    stride=layer.stride,
                    padding=layer.padding,
                    groups=layer.groups,
                )
            case "conv2d_backward":
                return self._conv2d_backward(layer)
            case "im2col":
                return partial(_first, functional.unfold, **window)
            case "max_pool2d":
                return partial(_first, functional.max_pool2d, **window)
            case "avg_pool2d":
                return partial(_first, functional.avg_pool2d, **window)
            case "global_avg_pool2d":
                return partial(_first, functional.adaptive_avg_pool2d, output_size=1)
            case "batch_norm":
                return partial(_batch_norm, functional.batch_norm)
            case "relu":
                return partial(_first, functional.relu)
            case "softmax":
                return partial(_first, functional.softmax, dim=-1)

    def _conv2d_backward(self, layer: Layer) -> Callable[..., Any]:
        kernel = self._torch.ops.aten.convolution_backward
        stride, padding = [layer.stride] * 2, [layer.padding] * 2
        geometry = (stride, padding, [1, 1], False, [0, 0], layer.groups, [True, True, True])

        def backward(grad: Any, x: Any, weight: Any) -> Any:
            return kernel(grad, x, weight, [layer.filters], *geometry)

        return backward


def _first(function: Callable[..., Any], x: Any, **options: Any) -> Any:
    """PyTorch calls the first argument ``input``."""
    return function(x, **options)


def _batch_norm(
    function: Callable[..., Any], x: Any, running_mean: Any, running_var: Any, **affine: Any
) -> Any:
    return function(x, running_mean, running_var, **affine)


def _torch_arrays(result: Any) -> tuple[Array, ...]:
    tensors = result if isinstance(result, tuple) else (result,)
    return tuple(tensor.numpy() for tensor in tensors)


def onnx_model(layer: Layer, inputs: Arrays) -> bytes:
    """The layer as an ONNX model of one node: input ``x``, output ``y``, the rest constants."""
    onnx: Any = needed("onnx", "onnx", "timing ONNX Runtime or OpenVINO")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    pads = [layer.padding] * 4
    window = {"kernel_shape": [layer.kernel] * 2, "strides": [layer.stride] * 2, "pads": pads}
    nodes: dict[str, tuple[str, list[str], dict[str, Any]]] = {
        "conv2d": ("Conv", ["weight", "bias"], {**window, "group": layer.groups}),
        "max_pool2d": ("MaxPool", [], window),
        "avg_pool2d": ("AveragePool", [], {**window, "count_include_pad": 1}),
        "global_avg_pool2d": ("GlobalAveragePool", [], {}),
        "batch_norm": (
            "BatchNormalization",
            ["weight", "bias", "running_mean", "running_var"],
            {"epsilon": 1e-5},
        ),
        "relu": ("Relu", [], {}),
        "softmax": ("Softmax", [], {"axis": -1}),
    }
    operator, constants, attributes = nodes[layer.operation]
    node = helper.make_node(operator, ["x", *constants], ["y"], **attributes)
    value = partial(helper.make_tensor_value_info, elem_type=onnx.TensorProto.FLOAT)
    graph = helper.make_graph(
        [node],
        layer.name,
        [value("x", shape=layer.x_shape)],
        [value("y", shape=layer.output_shapes[0])],
        [numpy_helper.from_array(inputs[name], name) for name in constants],
    )
    opset = [helper.make_opsetid("", 17)]
    model: bytes = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    return model


def _in_onnx(layer: Layer) -> bool:
    return layer.operation not in ("conv2d_backward", "im2col")


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
