"""Gradients kept within bounds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..device import where
from ..functional import on_device
from ..functional.optimizer import named_arrays, norm
from .selection import Array
from .settings import positive


def clip_grad_norm(grads: Mapping[str, Array], max_norm: float) -> float:
    """Scale all gradients, in place, so that their common norm is at most ``max_norm``.

    ``g = g * max_norm / norm`` where ``norm = sqrt(sum(g**2))``, over all
    elements of all arrays, is above ``max_norm``. An optimiser with ``max_norm``
    does it within its update, and leaves the gradients as they are.

    Parameters
    ----------
    grads : mapping of str to ndarray
        The gradients, float32 or float64.
    max_norm : float
        Above 0.

    Returns
    -------
    float
        The norm before, summed in double precision.

    Raises
    ------
    ArgumentError, DTypeError
        If ``max_norm`` is no finite number above 0, or a gradient is no such
        array or read-only. Nothing is changed then.

    References
    ----------
    Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural
    networks", ICML 2013, algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import optim
    >>> grads = {"w": np.array([3.0, 0.0]), "b": np.array([4.0])}
    >>> optim.clip_grad_norm(grads, 1)
    5.0
    >>> grads["w"].round(3), grads["b"].round(3)
    (array([0.6, 0. ]), array([0.8]))
    """
    arrays = named_arrays("grads", grads)
    total = norm(arrays)
    scale = clipping_scale(total, positive("max_norm", max_norm))
    if scale != 1:
        with np.errstate(all="ignore"):
            for array in arrays:
                if where(array) is None:
                    array *= scale
                else:
                    on_device.adjust("scale", array, scale)
    return total


def clip_grad_value(grads: Mapping[str, Array], limit: float) -> None:
    """Bring every element, in place, into ``[-limit, limit]``; NaN stays.

    Parameters
    ----------
    grads : mapping of str to ndarray
        The gradients, float32 or float64.
    limit : float
        Above 0.

    Raises
    ------
    ArgumentError, DTypeError
        As `clip_grad_norm`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import optim
    >>> grads = {"w": np.array([3.0, -0.5, -7.0])}
    >>> optim.clip_grad_value(grads, 1)
    >>> grads["w"]
    array([ 1. , -0.5, -1. ])
    """
    bound = positive("limit", limit)
    for array in named_arrays("grads", grads):
        if where(array) is None:
            np.clip(array, -bound, bound, out=array)
        else:
            on_device.adjust("clip", array, bound)


def clipping_scale(norm: float, max_norm: float) -> float:
    """What brings ``norm`` down to ``max_norm``; 1 if it is not above."""
    return max_norm / norm if norm > max_norm else 1.0
