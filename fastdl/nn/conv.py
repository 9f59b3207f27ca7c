"""The convolution layer."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from .. import functional
from ..errors import ArgumentError
from ..functional.plan import Conv2dPlan
from ..geometry import IntPair, Padding, integer, pair
from .base import Array
from .init import Initializer, Seed, he_normal
from .weighted import Weighted


class Conv2d(Weighted):
    """A 2-D convolution (in truth a cross-correlation) with its own weights.

    ``out[n,o,i,j] = bias[o] + sum_{c,a,b} x[n,c,i*s-p+a*d,j*s-p+b*d] * weight[o,c,a,b]``.

    Parameters
    ----------
    in_channels, out_channels : int
        C of the input (N, C, H, W) and O of the output (N, O, OH, OW).
    kernel_size, stride, dilation, groups
        As in `fastdl.conv2d`; stride, dilation and groups are 1 by default.
    padding
        As in `fastdl.conv2d`; 0 by default.
    bias : bool, default True
        Whether to add a bias (O,). Before a batch normalisation it does nothing.
    init : callable, default `he_normal`
        Draws the weight (O, C/groups, KH, KW). The bias starts at zero.
    rng : numpy.random.Generator or int, optional
        Where the first weights come from.
    dtype : float32 (default) or float64

    Raises
    ------
    ArgumentError
        If a size is not positive or ``groups`` does not divide both channels.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import nn
    >>> conv = nn.Conv2d(1, 4, 3, padding=1, rng=0)
    >>> conv(np.ones((2, 1, 8, 8), np.float32)).shape
    (2, 4, 8, 8)

    Notes
    -----
    In evaluation the layer holds a `fastdl.Conv2dPlan` for the latest shape of
    input, if there is something to pack for it. Before it is used the weights are
    compared with those that were packed, and packed anew if one bit differs. So
    whatever changed them (an optimiser, `load_state_dict`, an assignment) counts
    from the next call on. A plan of your own saves the comparison, too.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntPair,
        stride: IntPair = 1,
        padding: Padding = 0,
        dilation: IntPair = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        init: Initializer = he_normal,
        rng: Seed = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        channels = integer("in_channels", in_channels, 1)
        filters = integer("out_channels", out_channels, 1)
        groups = integer("groups", groups, 1)
        if channels % groups or filters % groups:
            raise ArgumentError(
                f"groups must divide in_channels and out_channels, "
                f"got groups={groups}, in_channels={channels}, out_channels={filters}"
            )
        shape = (filters, channels // groups, *pair("kernel_size", kernel_size, 1))
        super().__init__(shape, bias, init, rng, dtype)
        self.geometry = (stride, padding, dilation, groups)
        self._plan: Conv2dPlan | None = None

    def forward(self, x: Array) -> Array:
        self._saved = x
        if not self.training and isinstance(x, np.ndarray) and x.dtype == self.weight.dtype:
            plan = self._planned(x)
            if plan.packed_bytes:
                return plan(x)
        return functional.conv2d(x, self.weight, self.bias, *self.geometry)

    def _planned(self, x: Array) -> Conv2dPlan:
        """The plan for ``x``, of the weights as they are now."""
        plan = self._plan
        if plan is None or not plan.serves(x.shape):
            plan = Conv2dPlan(x.shape, self.weight, self.bias, *self.geometry)
            self._plan = plan
        elif plan.packed_bytes and not plan.holds(self.weight, self.bias):
            plan.pack(self.weight, self.bias)
        return plan

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_plan": None}

    def backward(self, grad: Array) -> Array:
        return self._keep(
            functional.conv2d_backward(
                grad, self._recall(), self.weight, *self.geometry, needs=self._needs
            )
        )
