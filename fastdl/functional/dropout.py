"""Dropout."""

from __future__ import annotations

from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..backends import registry
from ..backends.table import Array, Backend
from ..errors import DTypeError
from ..geometry import Shape
from . import on_device
from .arguments import real
from .inputs import booleans, floats
from .layout import Order, image, in_memory_order, memory_order
from .outputs import deliver, elementwise_output, empty_image

#: What `numpy.random.default_rng` takes.
Rng = np.random.Generator | int | None


@overload
def dropout(
    x: ArrayLike,
    p: float = 0.5,
    training: bool = True,
    *,
    rng: Rng = None,
    return_mask: Literal[False] = False,
    out: Array | None = None,
    backend: str | None = None,
) -> Array: ...
@overload
def dropout(
    x: ArrayLike,
    p: float = 0.5,
    training: bool = True,
    *,
    rng: Rng = None,
    return_mask: Literal[True],
    out: Array | None = None,
    backend: str | None = None,
) -> tuple[Array, Array]: ...
def dropout(
    x: ArrayLike,
    p: float = 0.5,
    training: bool = True,
    *,
    rng: Rng = None,
    return_mask: bool = False,
    out: Array | None = None,
    backend: str | None = None,
) -> Array | tuple[Array, Array]:
    """Set each element to zero with probability p, and scale the others by 1 / (1 - p).

    ``out = x * mask / (1 - p)`` in training, ``out = x`` in evaluation. ``p=1``
    gives zeros.

    Parameters
    ----------
    x : array of any shape, float32 or float64
        The input, in any memory layout.
    p : float, default 0.5
        The probability, in [0, 1].
    training : bool, default True
        Whether anything is dropped.
    rng : numpy.random.Generator or seed, optional
        Draws the mask, the same one for every backend and dtype; fresh entropy
        by default.
    return_mask : bool, default False
        Also return the mask, which `dropout_backward` needs.
    out : array like x, optional
        Takes the result. It may be x itself, but not overlap it otherwise.
    backend : str, optional
        The backend that computes; see `fastdl.backends`.

    Returns
    -------
    out : array like x
        The result.
    mask : array like x, bool
        Only with ``return_mask``: True where x was kept (everywhere in evaluation).

    Raises
    ------
    ArgumentError, DTypeError, OutputError, BackendError
        As `conv2d`.

    References
    ----------
    N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever and R. Salakhutdinov,
    "Dropout: a simple way to prevent neural networks from overfitting", JMLR
    15(56), 2014, sections 4 and 10.

    Examples
    --------
    >>> import fastdl
    >>> import numpy as np
    >>> y = fastdl.dropout(np.ones(1000), p=0.25, rng=0)
    >>> np.unique(y)
    array([0.        , 1.33333333])
    """
    kernels = registry.get(backend, x)
    p = real("p", p, 0, 1)
    x = floats("x", x)
    generator = _generator(rng)
    if on_device.is_device(x):
        result, mask = on_device.dropout(x, p, bool(training), scale(p), generator, out)
        return (result, mask) if return_mask else result
    order = memory_order(x)
    target = elementwise_output(out, x, order=order)
    if training:
        mask = image(kernels, draw(generator, x.shape, p), order)
        _apply(kernels, x, mask, p, target, order)
    else:
        mask = np.ones(x.shape, np.bool_)
        np.copyto(target, x)
    result = deliver(target, out, order)
    return (result, mask) if return_mask else result


def dropout_backward(
    grad: ArrayLike, mask: ArrayLike, p: float = 0.5, *, backend: str | None = None
) -> Array:
    """Gradient of `dropout` in training: ``grad * mask / (1 - p)``.

    Parameters
    ----------
    grad : array of any shape, float32 or float64
        Gradient with respect to dropout's result.
    mask : array like grad, bool
        As `dropout` returned it.
    p : float, default 0.5
        As it was given to `dropout`; 0 for an evaluation.
    backend : str, optional
        The backend that computes; see `fastdl.backends`.

    Returns
    -------
    array like grad
        The gradient with respect to x.

    Raises
    ------
    ShapeError, ArgumentError, DTypeError, BackendError
        As `dropout`.

    Examples
    --------
    >>> import fastdl
    >>> import numpy as np
    >>> fastdl.dropout_backward(np.array([1.0, 2.0]), np.array([True, False]))
    array([2., 0.])
    """
    kernels = registry.get(backend, grad)
    p = real("p", p, 0, 1)
    grad = floats("grad", grad)
    mask = booleans("mask", mask, grad.shape)
    order = memory_order(grad)
    target = empty_image(grad.shape, grad.dtype, grad, order)
    _apply(kernels, grad, mask, p, target, order)
    return target


def _apply(
    kernels: Backend, x: Array, mask: NDArray[np.bool_], p: float, target: Array, order: Order
) -> None:
    kernels.dropout(
        in_memory_order(image(kernels, x, order), order),
        in_memory_order(image(kernels, mask, order), order),
        scale(p),
        in_memory_order(target, order),
    )


def draw(generator: np.random.Generator, shape: Shape, p: float) -> NDArray[np.bool_]:
    """What dropout keeps: True with probability ``1 - p``."""
    return np.asarray(generator.random(shape, np.float32) >= p)


def scale(p: float) -> float:
    """``1 / (1 - p)``; at p = 1, where nothing is kept to be scaled, 0."""
    return 1 / (1 - p) if p < 1 else 0.0


def _generator(rng: Any) -> np.random.Generator:
    try:
        return np.random.default_rng(rng)
    except (TypeError, ValueError) as error:
        raise DTypeError(
            f"rng must be a numpy.random.Generator or a seed, got {rng!r}: {error}"
        ) from None
