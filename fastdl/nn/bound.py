"""A layer that kernels serve: what a call needs is found out once for a shape of input."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np

from ..backends import registry
from ..backends.table import Activation, Backend
from ..device import where
from ..errors import DeviceError
from ..functional.inputs import check_shape, floats, shaped_floats
from ..geometry import Shape
from ..memory import Empty, allocator
from .arrays import IsPlain, device_memory, is_plain, plain, plain_test
from .base import Array, Layer


class Bound(Layer):
    """A layer bound to the shape and dtype of its latest input, and to a backend.

    The first input of a shape is checked, and `_bind` works out what the kernels
    are to be told. From then on a call makes sure that its array is as that one
    was, and goes on to the kernels: that takes a microsecond or two.

    Results are arrays of their own. Their memory comes from that of earlier
    results (see `fastdl.memory_pool`), so a training step after the first takes no
    new one. Gradients of parameters are written into the same arrays every time.
    """

    def __init__(self) -> None:
        super().__init__()
        self._shapes: dict[str, Shape] = {}
        self._unbind()

    def _own(self, params: dict[str, Array]) -> None:
        """Take these parameters, which keep their shapes."""
        self.params = params
        self._shapes = {name: array.shape for name, array in params.items()}

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """That of the arrays which the layer has; None if it takes float32 and float64."""
        return None

    @property
    def kernels(self) -> Backend:
        """The backend that served the latest `forward`."""
        kernels: Backend = self._kernels
        return kernels

    def _unbind(self) -> None:
        self._kernels: Any = None
        self._x_shape: Shape = ()
        self._out_shape: Shape = ()
        self._dtype: Any = None
        self._checked: dict[str, Array] = {}
        self._place: int | None = None
        self._is_plain: IsPlain = is_plain
        self._empty: Empty = np.empty

    def __getstate__(self) -> dict[str, object]:
        """Everything but what belongs to a call, such as a module, which cannot be pickled."""
        copied = object.__new__(type(self))
        copied.__dict__ = dict(self.__dict__)
        copied._unbind()
        copied._saved = None
        return copied.__dict__

    def forward(self, x: Array) -> Array:
        kernels = registry.get()
        if kernels is not self._kernels or not self._is_plain(x, self._x_shape, self._dtype):
            x = self._admit(x, kernels)
        return self._compute(x, None)

    def forward_activated(self, x: Array, activation: Activation) -> Array:
        """``activation(forward(x))`` in one go; `backward` leaves the activation out.

        For layers whose kernel takes an activation.
        """
        kernels = registry.get()
        if kernels is not self._kernels or not self._is_plain(x, self._x_shape, self._dtype):
            x = self._admit(x, kernels)
        return self._compute(x, activation)

    def backward(self, grad: Array) -> Array:
        if not self._is_plain(grad, self._out_shape, self._dtype):
            grad = self._admit_grad(grad)
        return self._differentiate(grad)

    @abstractmethod
    def _bind(self, kernels: Backend, shape: Shape, dtype: np.dtype[Any]) -> None:
        """Check such an input, and work out what `_compute` and `_differentiate` tell the kernels."""

    @abstractmethod
    def _compute(self, x: Array, activation: Activation) -> Array:
        """The output, ``x`` being checked; keeps what `_differentiate` needs."""

    @abstractmethod
    def _differentiate(self, grad: Array) -> Array:
        """The gradient of the input, ``grad`` being checked."""

    def _admit(self, x: Any, kernels: Backend) -> Array:
        """``x`` as an array that kernels can take, after every check."""
        x = floats("x", x, self.dtype)
        if type(x) is not np.ndarray:
            kernels = registry.get(None, x)
        if kernels is not self._kernels or x.shape != self._x_shape or x.dtype != self._dtype:
            self._kernels = None
            for name, array in (self.params | self.buffers).items():
                self._check_place(name, array, x)
            self._bind(kernels, x.shape, x.dtype)
            self._out_shape = self.output_shape(x.shape)
            self._x_shape, self._dtype, self._kernels = x.shape, x.dtype, kernels
            self._place, self._is_plain, self._empty = where(x), plain_test(), allocator()
        if self._place is not None:
            self._is_plain, self._empty = device_memory(x)
        return plain(x)

    def _check_place(self, name: str, array: Array, x: Array) -> None:
        if array.dtype.kind == "f" and where(array) != where(x):
            raise DeviceError(
                f"x must be where {name} of the layer is, {_words(array)}, got one {_words(x)}: "
                f"move the layer by its to(), or x by fastdl.to_device or fastdl.to_host"
            )

    def _move(self, number: int | None) -> None:
        super()._move(number)
        self._unbind()

    def _admit_grad(self, grad: Any) -> Array:
        self._recall()
        grad = floats("grad", grad, self._dtype)
        check_shape("grad", grad, self._out_shape)
        return plain(grad)

    def _param(self, name: str) -> Array:
        """The parameter as a kernel can take it; checked again if it was replaced."""
        array = self.params[name]
        if array is self._checked.get(name):
            return array
        shape = self._shapes[name]
        if where(array) != self._place:
            raise DeviceError(f"{name} must be where x is, got one {_words(array)}")
        array = plain(shaped_floats(name, array, self._dtype, shape))
        if array is self.params[name]:
            self._checked[name] = array
        return array

    def _grad(self, name: str) -> Array:
        """Where the gradient of the parameter goes."""
        if not self._is_plain(self.grads.get(name), self._shapes[name], self._dtype):
            self.grads[name] = self._empty(self._shapes[name], self._dtype)
        return self.grads[name]


def _words(array: Array) -> str:
    number = where(array)
    return "in the CPU's memory" if number is None else f"on GPU {number}"
