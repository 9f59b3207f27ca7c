"""A convolution of one geometry, planned once for many calls."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ..backends import registry
from ..backends.table import Activation, Algorithm, Array
from ..geometry import IntPair, Padding, Shape, conv_geometry
from .arguments import check_activation, check_algorithm, image_shape
from .inputs import floats, optional_floats, shaped_floats
from .layout import image, order_of
from .outputs import deliver, output


class Conv2dPlan:
    """`conv2d` for images of one shape and weights that stay, decided and packed once.

    A plan is to inference what a plan of FFTW is to a transform: the checks, the
    choice of the algorithm and the packing of the weights happen here, and a call
    only computes. Several threads may call one plan at the same time.

    Parameters
    ----------
    x_shape : (int, int, int, int)
        The shape (N, C, H, W) of the images to come.
    weight : array (O, C / groups, KH, KW), float32 or float64
        The filters. The plan has a copy of its own; see `pack`.
    bias, stride, padding, dilation, groups, activation, algorithm, backend
        As for `conv2d`. Where algorithm is None, packed weights count as free, so
        that a plan takes 'winograd' more often than `conv2d` does.

    Attributes
    ----------
    shape_x, shape_out : (int, int, int, int)
        The shapes (N, C, H, W) and (N, O, OH, OW).
    dtype : dtype
        That of the weights, and so of every array.
    activation : {None, 'relu', 'sigmoid', 'tanh'}
        What is applied to the result.
    algorithm, backend : str
        What serves.
    isa : str or None
        The instruction set, for the compiled backend. A plan keeps to that of its making.
    packed_bytes : int
        What the packed weights take; 0 where the algorithm reads them as they are, or
        where there are so many that reading the packed ones would take longer.
    workspace_bytes : int or None
        What a call works in, on all threads together. The threads keep it and
        every call shares it. None where the backend does not tell.

    Raises
    ------
    ShapeError, ArgumentError, DTypeError, BackendError
        As `conv2d`.

    See Also
    --------
    explain : what a call would take, and why.

    Examples
    --------
    >>> import fastdl
    >>> import numpy as np
    >>> weight = np.ones((1, 1, 3, 3), np.float32)
    >>> plan = fastdl.Conv2dPlan((1, 1, 4, 4), weight, padding=1, algorithm="direct")
    >>> plan.shape_out
    (1, 1, 4, 4)
    >>> x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    >>> plan(x)[0, 0, 1:3, 1:3]
    array([[45., 54.],
           [81., 90.]], dtype=float32)
    >>> plan.pack(2 * weight)
    >>> plan(x)[0, 0, 1:3, 1:3]
    array([[ 90., 108.],
           [162., 180.]], dtype=float32)
    """

    def __init__(
        self,
        x_shape: tuple[int, int, int, int],
        weight: ArrayLike,
        bias: ArrayLike | None = None,
        stride: IntPair = 1,
        padding: Padding = 0,
        dilation: IntPair = 1,
        groups: int = 1,
        *,
        activation: Activation = None,
        algorithm: Algorithm = None,
        backend: str | None = None,
    ) -> None:
        self.backend = registry.current_name(backend)
        self._kernels = registry.get(self.backend)
        check_activation(activation)
        shape = image_shape("x_shape", x_shape)
        weight = floats("weight", weight)
        geometry = conv_geometry(shape, weight.shape, stride, padding, dilation, groups)
        check_algorithm(algorithm, self._kernels, geometry, weight.dtype)
        self.dtype: np.dtype[np.floating] = weight.dtype
        self.shape_x, self.shape_out = geometry.x_shape, geometry.out_shape
        self.algorithm: str = (
            algorithm or self._kernels.conv2d_algorithms(geometry, self.dtype, prepared=True)[0]
        )
        self._geometry, self.activation = geometry, activation
        self._bias: Array | None = None
        self.pack(weight, bias)
        self.workspace_bytes, self.packed_bytes = self._kernels.conv2d_bytes(
            geometry, self.dtype, self.algorithm, prepared=True
        )

    @property
    def isa(self) -> str | None:
        """The instruction set that serves, for the compiled backend."""
        return self._prepared.isa

    def pack(self, weight: ArrayLike, bias: ArrayLike | None = None) -> None:
        """Take other weights of the same shape, and another bias where one is given.

        Calls that run in other threads meanwhile use the old ones or the new ones,
        never some of both.

        Raises
        ------
        ShapeError, DTypeError
            If shape or dtype are not those of the plan.
        """
        g = self._geometry
        weight = shaped_floats("weight", weight, self.dtype, g.weight_shape)
        bias = optional_floats("bias", bias, self.dtype, (g.filters,))
        if bias is not None:
            self._bias = np.array(bias, order="C")
        self._prepared = self._kernels.conv2d_prepared(
            np.array(weight, order="C"), self._bias, g, self.activation, self.algorithm
        )

    def __call__(self, x: ArrayLike, out: Array | None = None) -> Array:
        """The convolution of ``x``, as `conv2d` returns it; in ``out`` where that is given.

        Raises
        ------
        ShapeError, DTypeError, OutputError
            If x has not the shape and dtype of the plan, or out cannot take the result.
        """
        prepared = self._prepared
        result = prepared.ordinary_call(x, out)
        if result is not None:
            return result
        x = shaped_floats("x", x, self.dtype, self.shape_x)
        order = order_of(self._kernels, "conv2d", x)
        target = output(out, self.shape_out, x, order, x=x)
        prepared.run(image(self._kernels, x, order), target)
        return deliver(target, out, order)

    def serves(self, x_shape: Shape) -> bool:
        """Whether images of this shape, on the backend that a call now takes, are this plan's."""
        return x_shape == self.shape_x and registry.current_name() == self.backend

    def holds(self, weight: Array, bias: Array | None) -> bool:
        """Whether the plan's copies have the same bits as these arrays of their shapes and dtype."""
        return self._prepared.holds(weight, bias)

    def __repr__(self) -> str:
        shapes = f"{self.shape_x} -> {self.shape_out}"
        return f"<Conv2dPlan {shapes} {self.dtype} {self.backend}:{self.algorithm}>"

    @property
    def weight_shape(self) -> Shape:
        """The shape (O, C / groups, KH, KW) of the weights."""
        return self._geometry.weight_shape
