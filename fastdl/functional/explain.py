"""What a convolution would take, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from ..backends import registry
from ..backends.table import Algorithm
from ..errors import DTypeError
from ..geometry import ConvGeometry, IntPair, Padding, Shape, conv_geometry
from ..threads import get_num_threads
from .arguments import check_algorithm, image_shape
from .inputs import FLOAT32, FLOAT64, floats

_ACCURACY = {
    "direct": "single elements err by about 1e-6 of sum|x||w| in float32",
    "depthwise": "single elements err by about 1e-6 of sum|x||w| in float32",
    "winograd": "single elements err by about 1e-5 of sum|x||w| in float32 on data of wide dynamic "
    "range, where direct errs by 1e-6; on ordinary data both keep the relative error of the whole "
    "near 1e-6",
}


@dataclass(frozen=True, slots=True)
class Explanation:
    """What `explain` found; ``str()`` of it is for people.

    Attributes
    ----------
    backend, backend_reason : str
        What computes, and what chose it.
    isa : str or None
        The instruction set, for the compiled backend.
    algorithm, algorithm_reason : str
        How it computes, and why so.
    planned_algorithm : str
        What a `Conv2dPlan` takes, for which packed weights are free.
    shape_out : (int, int, int, int)
        Shape of the result.
    operations : int
        Multiplications and additions of the direct sum, each counted.
    threads : int
        Threads that a call made here may use.
    workspace_bytes : int or None
        What `conv2d` works in, on all threads; None where the backend does not tell.
    packed_bytes : int
        What the packed weights of a `Conv2dPlan` take.
    accuracy : str
        How far the result may be from the true one.
    """

    backend: str
    backend_reason: str
    isa: str | None
    algorithm: str
    algorithm_reason: str
    planned_algorithm: str
    shape_out: Shape
    operations: int
    threads: int
    workspace_bytes: int | None
    packed_bytes: int
    accuracy: str

    def __str__(self) -> str:
        facts = {
            "backend": f"{self.backend} ({self.backend_reason})",
            "instructions": self.isa,
            "algorithm": f"{self.algorithm} ({self.algorithm_reason})",
            "in a plan": f"{self.planned_algorithm}, {_bytes(self.packed_bytes)} of packed weights",
            "output": str(self.shape_out),
            "operations": f"{self.operations:.3g}",
            "threads": f"at most {self.threads}",
            "workspace": None
            if self.workspace_bytes is None
            else f"{_bytes(self.workspace_bytes)} on all threads",
            "accuracy": self.accuracy,
        }
        return "\n".join(f"{name:<14}{fact}" for name, fact in facts.items() if fact is not None)


def explain(
    x: ArrayLike | tuple[int, int, int, int],
    weight: ArrayLike | tuple[int, int, int, int],
    stride: IntPair = 1,
    padding: Padding = 0,
    dilation: IntPair = 1,
    groups: int = 1,
    *,
    dtype: DTypeLike | None = None,
    algorithm: Algorithm = None,
    backend: str | None = None,
) -> Explanation:
    """Tell which backend, instruction set and algorithm `conv2d` takes for a call, and why.

    Parameters
    ----------
    x, weight : array or (int, int, int, int)
        As for `conv2d`, or their shapes (N, C, H, W) and (O, C / groups, KH, KW).
    stride, padding, dilation, groups, algorithm, backend
        As for `conv2d`.
    dtype : float32 or float64, optional
        That of the arrays, where x is a shape; float32 if not given.

    Returns
    -------
    Explanation
        Each fact as an attribute; print it to read them.

    Raises
    ------
    ShapeError, ArgumentError, DTypeError, BackendError
        As `conv2d`.

    Examples
    --------
    >>> import fastdl
    >>> found = fastdl.explain((8, 64, 56, 56), (64, 64, 3, 3), padding=1, backend="reference")
    >>> found.algorithm, found.shape_out
    ('direct', (8, 64, 56, 56))
    >>> print(found)  # doctest: +ELLIPSIS
    backend       reference (named by backend=)
    algorithm     direct (the only one of this backend)
    ...
    """
    name, reason = registry.choice(backend)
    kernels = registry.get(name)
    kind = _dtype(x, dtype)
    geometry = conv_geometry(
        _shape("x", x, kind), _shape("weight", weight, kind), stride, padding, dilation, groups
    )
    check_algorithm(algorithm, kernels, geometry, kind)
    serving = kernels.conv2d_algorithms(geometry, kind)
    taken = algorithm or serving[0]
    planned = algorithm or kernels.conv2d_algorithms(geometry, kind, prepared=True)[0]
    return Explanation(
        backend=name,
        backend_reason=reason,
        isa=_isa(name),
        algorithm=taken,
        algorithm_reason="named by algorithm="
        if algorithm
        else _algorithm_reason(name, geometry, kind, serving),
        planned_algorithm=planned,
        shape_out=geometry.out_shape,
        operations=geometry.flops,
        threads=get_num_threads(),
        workspace_bytes=kernels.conv2d_bytes(geometry, kind, taken)[0],
        packed_bytes=kernels.conv2d_bytes(geometry, kind, planned, prepared=True)[1],
        accuracy=_ACCURACY[taken]
        if kind == FLOAT32
        else "exact to the rounding of sums in float64",
    )


def _algorithm_reason(
    backend: str, geometry: ConvGeometry, dtype: np.dtype[Any], serving: tuple[str, ...]
) -> str:
    if serving[0] == "winograd":
        return "its transforms cost less than the multiplications that they save"
    if serving[0] == "depthwise":
        return "a filter sees one channel"
    if backend not in ("compiled", "jit"):
        return "the only one of this backend"
    if "winograd" not in serving:
        return "no other serves this geometry"
    if dtype != FLOAT32:
        return "winograd would serve too, but it keeps the digits of float64 less well"
    return "winograd would serve too, but its transforms cost more than they save here"


def _isa(backend: str) -> str | None:
    if backend != "compiled":
        return None
    from ..backends.compiled import isa

    return isa.current_isa()


def _is_shape(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and all(
        isinstance(size, (int, np.integer)) for size in value
    )


def _dtype(x: Any, dtype: DTypeLike | None) -> np.dtype[Any]:
    """The dtype of the call."""
    if dtype is None:
        return FLOAT32 if _is_shape(x) else floats("x", x).dtype
    kind = np.dtype(dtype)
    if kind != FLOAT32 and kind != FLOAT64:
        raise DTypeError(f"dtype must be float32 or float64, got {kind}")
    return kind


def _shape(name: str, value: Any, dtype: np.dtype[Any]) -> Shape:
    return image_shape(name, value) if _is_shape(value) else floats(name, value, dtype).shape


def _bytes(count: int) -> str:
    if count < 2**20:
        return f"{count / 2**10:.1f} KiB"
    return f"{count / 2**20:.1f} MiB"
