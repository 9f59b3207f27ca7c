"""What every layer is: a function, its gradient, and the arrays they need."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..device import place, placed, to_host, where
from ..errors import ArgumentError, DTypeError, ShapeError
from ..geometry import Shape, integer
from .summary import Summary, summarize

Array = NDArray[Any]
State = dict[str, Array]


class Layer(ABC):
    """A differentiable function of one array.

    Attributes
    ----------
    params : dict of str to ndarray
        What training changes, in place.
    grads : dict of str to ndarray
        The loss's gradients with respect to ``params``: `backward` writes them anew each time.
    buffers : dict of str to ndarray
        What `forward` keeps from call to call, such as running statistics.
    training : bool
        Whether `forward` works as in training (a new layer does) or as in evaluation;
        `train` and `eval` set it.
    """

    #: Whether the output takes memory of its own.
    makes_array = True

    def __init__(self) -> None:
        self.params: State = {}
        self.grads: State = {}
        self.buffers: State = {}
        self.training = True
        self._saved: Any = None

    @abstractmethod
    def forward(self, x: Array) -> Array:
        """The layer's output; keeps what `backward` needs."""

    @abstractmethod
    def backward(self, grad: Array) -> Array:
        """From the output's gradient, that of the input of the latest `forward`; fills `grads`."""

    def backward_params(self, grad: Array) -> None:
        """Fill `grads` as `backward` does, without the gradient of the input.

        That is all a training step wants of a network, and it saves work in the first layer.
        """
        self.backward(grad)

    def __call__(self, x: Array) -> Array:
        """``forward(x)``."""
        return self.forward(x)

    def train(self, mode: bool = True) -> Self:
        """Work as in training (or, with False, as in evaluation), the layers inside too."""
        self.training = bool(mode)
        for child in self.children().values():
            child.train(mode)
        return self

    def eval(self) -> Self:
        """Work as in evaluation: ``train(False)``."""
        return self.train(False)

    def to(self, device: str) -> Self:
        """Bring parameters and buffers, of the layers inside too, to a GPU's memory or back.

        The layer then takes and gives arrays that are there; see `fastdl.to_device`.

        Parameters
        ----------
        device : str
            ``"cuda"``, ``"cuda:1"`` (the second GPU) or ``"cpu"``.

        Raises
        ------
        ArgumentError, BackendError
            If there is no such place here; the message says why.
        DeviceMemoryError
            If the GPU has not so much memory left.

        Examples
        --------
        >>> from fastdl import nn
        >>> nn.Linear(4, 3, rng=0).to("cpu").weight.shape
        (3, 4)
        """
        self._move(place(device))
        return self

    @property
    def device(self) -> int | None:
        """The number of the GPU that its arrays are on; None for the CPU's memory."""
        for arrays in (self.params, self.buffers):
            for array in arrays.values():
                if array.dtype.kind == "f":
                    return where(array)
        found = (child.device for child in self.children().values())
        return next((number for number in found if number is not None), None)

    def _move(self, number: int | None) -> None:
        for arrays in (self.params, self.buffers):
            for name, array in arrays.items():
                # Counts stay with the CPU, which counts.
                if array.dtype.kind == "f":
                    arrays[name] = placed(array, number)
        self.grads, self._saved = {}, None
        for child in self.children().values():
            child._move(number)

    def children(self) -> dict[str, Layer]:
        """The layers inside this one, by name."""
        return {}

    def output_shape(self, shape: Shape) -> Shape:
        """The shape of the output for inputs of ``shape``: the same, unless a layer says so.

        Raises
        ------
        ShapeError
            If the layer cannot take such inputs.
        """
        return shape

    def flops(self, shape: Shape) -> int:
        """Operations of a `forward` of inputs of ``shape``, a multiplication and an addition each one.

        Those of the layers inside, or one for each element of the output, unless a
        layer says otherwise.
        """
        parts = self.parts(shape)
        if parts:
            return sum(layer.flops(part_shape) for _, layer, part_shape in parts)
        return math.prod(self.output_shape(shape))

    def parts(self, shape: Shape) -> list[tuple[str, Layer, Shape]]:
        """Of each layer inside its name, itself and the shape of its input, in order."""
        return []

    def summary(self, input_shape: Shape) -> Summary:
        """A table of the layers for inputs of ``input_shape``, the batch included.

        Its text has for each layer the output's shape, the parameters, the
        floating-point operations of a `forward` and the bytes of the output, which
        training keeps; and their sums. Nothing is computed.

        Raises
        ------
        ShapeError
            If a layer cannot take such inputs.

        Examples
        --------
        >>> from fastdl import nn
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3, rng=0), nn.Flatten(), nn.Linear(144, 10, rng=0))
        >>> print(net.summary((1, 1, 8, 8)))
        layer     kind     output        parameters   FLOPs  activation
        0         Conv2d   (1, 4, 6, 6)          40  2.74 k       576 B
        1         Flatten  (1, 144)               0       0         0 B
        2         Linear   (1, 10)            1,450  2.89 k        40 B
        3 layers                              1,490  5.63 k       616 B
        """
        return summarize(self, input_shape)

    def has_params(self) -> bool:
        """Whether training changes anything in this layer or inside it."""
        return bool(self.params) or any(child.has_params() for child in self.children().values())

    def parameters(self) -> State:
        """Every parameter by its full name; the arrays themselves, not copies."""
        return self._named("params")

    def gradients(self) -> State:
        """Every gradient of the latest `backward`, by its parameter's full name."""
        return self._named("grads")

    def state_dict(self) -> State:
        """Parameters and buffers by full name, as PyTorch names them: NumPy arrays.

        They are the layers' own, not copies, except of those on a GPU.
        """
        return {name: to_host(array) for name, array in self._stateful().items()}

    def _stateful(self) -> State:
        return self._named("params") | self._named("buffers")

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Copy ``state`` into the parameters and buffers.

        Raises
        ------
        ArgumentError
            If names are missing or unknown. Nothing is changed then, nor below.
        ShapeError, DTypeError
            If an array has another shape or dtype than the layer's own.
        """
        own = self._stateful()
        missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
        if missing or unknown:
            raise ArgumentError(f"state lacks {missing or 'nothing'} and has unknown {unknown}")
        for name, array in own.items():
            given = state[name]
            if given.shape != array.shape:
                raise ShapeError(f"state[{name!r}] must be {array.shape}, got {given.shape}")
            if given.dtype != array.dtype:
                raise DTypeError(f"state[{name!r}] must be {array.dtype}, got {given.dtype}")
        for name, array in own.items():
            array[...] = to_host(state[name])

    def predict(self, x: Array, batch_size: int = 256) -> Array:
        """``forward`` in evaluation, ``batch_size`` samples at a time, for inputs of any length.

        NumPy arrays in and out, also where the layer is on a GPU.
        """
        size = integer("batch_size", batch_size, 1)
        starts = range(0, max(len(x), 1), size)
        training, number = self.training, self.device
        self.eval()
        try:
            parts = (placed(x[start : start + size], number) for start in starts)
            return np.concatenate([to_host(self.forward(part)) for part in parts])
        finally:
            self.train(training)

    def _named(self, kind: str) -> State:
        arrays: State = dict(getattr(self, kind))
        for prefix, child in self.children().items():
            arrays |= {f"{prefix}.{name}": array for name, array in child._named(kind).items()}
        return arrays

    def _recall(self) -> Any:
        """What the latest `forward` kept."""
        if self._saved is None:
            raise ArgumentError(f"{type(self).__name__}.backward was called before any forward")
        return self._saved
