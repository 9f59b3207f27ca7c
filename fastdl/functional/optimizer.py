"""What optimisers stand on: named arrays checked, the update, the norm of gradients."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends import registry
from ..backends.table import Array, OptimizerStep
from ..errors import ArgumentError, DTypeError, ShapeError
from . import on_device
from .inputs import FLOAT32, FLOAT64, dense, floats
from .outputs import overlap


def check_mapping(name: str, value: Any) -> None:
    """Raise DTypeError unless ``value`` is a mapping."""
    if not isinstance(value, Mapping):
        raise DTypeError(f"{name} must be a mapping of names to arrays, got {value!r:.60}")


def named_arrays(name: str, arrays: Mapping[str, Any]) -> list[Array]:
    """The values of ``arrays``, called ``name`` by the caller, all of which can be written to."""
    check_mapping(name, arrays)
    for key, array in arrays.items():
        if type(array) is not np.ndarray and not _is_array(array):
            raise DTypeError(f"{name}[{key!r}] must be a NumPy array, got {type(array).__name__}")
        kind = array.dtype
        if kind is not FLOAT32 and kind is not FLOAT64:
            floats(f"{name}[{key!r}]", array)
        if not array.flags.writeable:
            raise ArgumentError(f"{name}[{key!r}] must be writable, got a read-only array")
    return list(arrays.values())


def _is_array(value: Any) -> bool:
    """Whether it is NumPy's, or what `fastdl.to_device` gives."""
    if isinstance(value, np.ndarray):
        return not isinstance(value, np.ma.MaskedArray)
    return isinstance(value, getattr(registry.loaded_cuda(), "DeviceArray", ()))


def gradients_of(params: Mapping[str, Array], grads: Mapping[str, Any]) -> list[Array]:
    """The gradient of each of ``params``, in their order.

    Raises
    ------
    ArgumentError
        If one is missing.
    ShapeError, DTypeError
        If one has another shape or dtype than its parameter.
    """
    check_mapping("grads", grads)
    found = []
    for name, param in params.items():
        grad = grads.get(name)
        if grad is None:
            raise ArgumentError(f"grads lacks {name!r}: run backward before update")
        if type(grad) is not np.ndarray or grad.dtype is not param.dtype:
            grad = floats(f"grads[{name!r}]", grad, param.dtype)
        if grad.shape != param.shape:
            raise ShapeError(f"grads[{name!r}] must be {param.shape}, got {grad.shape}")
        found.append(grad)
    return found


def check_parameters(params: Mapping[str, Any]) -> None:
    """Raise an error unless ``params`` are arrays to be changed, no two of which share memory."""
    named_arrays("params", params)
    for (name, param), (other_name, other) in combinations(params.items(), 2):
        if _overlap(param, other):
            raise ArgumentError(
                f"params[{other_name!r}] must share no memory with params[{name!r}]; "
                f"give a shared array once, with the sum of its gradients"
            )


def _overlap(first: Any, second: Any) -> bool:
    on_gpu = _on_gpu(first), _on_gpu(second)
    if not any(on_gpu):
        return overlap(first, second)
    return all(on_gpu) and on_device.share_memory(first, second)


def _on_gpu(array: Any) -> bool:
    return not isinstance(array, np.ndarray)


def optimizer_step(
    step: OptimizerStep,
    params: Sequence[Array],
    grads: Sequence[Array],
    states: Sequence[Sequence[Array]],
    penalties: NDArray[np.float64],
    *,
    backend: str | None = None,
) -> None:
    """Change ``params`` and ``states`` in place; see `fastdl.backends.table` for the formulas.

    All arrays are checked and of one dtype; those of a state are C-contiguous,
    those of ``params`` and ``grads`` have any layout.
    """
    if params and _on_gpu(params[0]):
        on_device.optimizer_step(step, params, grads, states, penalties)
        return
    kernels = registry.get(backend)
    targets = [param if param.flags.carray else dense(kernels, param) for param in params]
    sources = [grad if grad.flags.carray else dense(kernels, grad) for grad in grads]
    sources = [
        # Two arrays with memory of their own need no look at their addresses.
        grad if grad.base is None and param.base is None else _apart(grad, param)
        for grad, param in zip(sources, targets, strict=True)
    ]
    first, second = (*map(list, states), [], [])[:2]
    kernels.optimizer_step(step, targets, sources, first, second, penalties)
    for param, target in zip(params, targets, strict=True):
        if target is not param:
            np.copyto(param, target)


def _apart(grad: Array, param: Array) -> Array:
    """``grad``, or a copy if it lies partly on its parameter, whose elements change meanwhile."""
    if grad is param or not np.may_share_memory(grad, param):
        return grad
    return grad.copy()


def sum_of_squares(arrays: Iterable[Array], *, backend: str | None = None) -> float:
    """``sum(x**2)`` of all elements of all arrays, in double precision."""
    arrays = list(arrays)
    if arrays and _on_gpu(arrays[0]):
        return on_device.sum_of_squares(arrays)
    kernels = registry.get(backend)
    return sum(kernels.sum_of_squares(dense(kernels, array)) for array in arrays)


def norm(arrays: Iterable[Array], *, backend: str | None = None) -> float:
    """The square root of `sum_of_squares`."""
    return math.sqrt(sum_of_squares(arrays, backend=backend))
