"""The table of kernels that every backend offers.

A backend is a package whose functions have these names and arguments. They are
called only by `fastdl.functional`, which has checked every argument and made
every output:

- Arrays of one call have one dtype, float32 or float64, except ``indices``
  (int64) and ``mask`` (bool). Sizes agree with the geometry. Any size but the
  kernel's may be zero where the geometry allows it (an empty batch).
- Inputs may have any strides and may be read-only. A backend that sets
  ``DENSE = True`` gets C-contiguous, aligned inputs instead.
- Outputs are C-contiguous, aligned, writable and share no memory with an
  input (the elementwise kernels may get ``out is x``). They come
  uninitialised, and the backend writes every element.
- A kernel that the backend names in ``CHANNELS_LAST`` may get images that are
  channels-last instead, (N,C,H,W) as seen and (N,H,W,C) in memory without gaps:
  then all of the call's four-dimensional inputs and outputs but weights are.
  Batch norm's stay (N,C,H,W) then, where they else are (N,C,S).
- The result depends on nothing but the arguments: the same call gives the same
  bits whatever the number of threads.

Shapes below: N batch, C channels, O filters, G groups, K = C/G * KH * KW.
Kernels that no hand-written loop makes faster are shared by all backends and
stand in `fastdl.functional`: ``cross_entropy`` (a gather after ``log_softmax``),
``conv_transpose2d`` (the input gradient of a convolution) and the drawing of
dropout's mask.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..geometry import ConvGeometry, PoolGeometry

Array = NDArray[Any]
Activation = Literal["relu", "sigmoid", "tanh"] | None
#: How a convolution is computed; None: as the backend chooses.
Algorithm = Literal["direct", "depthwise", "winograd"] | None
#: What an optimiser does with a gradient; AdamW is "adam" with a decay.
Rule = Literal["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam"]


class OptimizerStep(NamedTuple):
    """The numbers of one update; a rule reads those that its formula names."""

    rule: Rule
    lr: float
    beta1: float = 0.0
    beta2: float = 0.0
    eps: float = 0.0
    #: Every gradient is multiplied by it first.
    grad_scale: float = 1.0
    #: Updates done, this one included.
    step: int = 1


class PreparedConv2d(Protocol):
    """A convolution of one geometry with its weights, as a backend keeps it for many calls."""

    @property
    def isa(self) -> str | None:
        """The instruction set that it was prepared for; None where that means nothing."""

    def holds(self, weight: Array, bias: Array | None) -> bool:
        """Whether it was prepared with arrays of the same values as these."""

    def ordinary_call(self, x: Any, out: Any) -> Array | None:
        """The result of a call that needs no further check: None if this is not such a one."""

    def run(self, x: Array, out: Array) -> None:
        """Compute it, x and out being checked."""


class Backend(Protocol):
    """What `fastdl.functional` calls. See the module's docstring for the rules."""

    #: Whether inputs must come C-contiguous and aligned.
    DENSE: bool
    #: The kernels that serve channels-last images as they lie. The three gradients of conv2d stand
    #: here together or not at all.
    CHANNELS_LAST: frozenset[str]
    #: The public conv2d's arguments without ``backend``, unchecked: its result where they are known
    #: to need no check, else None. And what makes them known, once they passed: the same without
    #: bias and out, and their geometry. None where a backend has no such thing.
    ordinary_conv2d: Callable[..., Array | None] | None
    remember_conv2d: Callable[..., None] | None
    #: Likewise of batch_norm in evaluation (x, mean, var, weight, bias, momentum, eps, activation, out),
    #: of an activation (its name, x, out) and of softmax (x, dim, whether its logarithm, out).
    ordinary_normalize: Callable[..., Array | None] | None
    ordinary_activation: Callable[..., Array | None] | None
    ordinary_softmax: Callable[..., Array | None] | None

    # --- convolution -----------------------------------------------------

    def conv2d(
        self,
        x: Array,
        weight: Array,
        bias: Array | None,
        geometry: ConvGeometry,
        activation: Activation,
        out: Array,
        algorithm: Algorithm = None,
    ) -> None:
        """``out[n,o,i,j] = f(bias[o] + sum_{c,a,b} x[n,c,i*s-p+a*d,j*s-p+b*d] * weight[o,c,a,b])``.

        x (N,C,H,W), weight (O,C/G,KH,KW), bias (O,) or None, out (N,O,OH,OW).
        ``c`` runs over the channels of ``o``'s group; outside x reads as zero.
        Here and below ``algorithm`` is one of `conv2d_algorithms`, or None.
        """

    def conv2d_algorithms(
        self, geometry: ConvGeometry, dtype: np.dtype[Any], prepared: bool = False
    ) -> tuple[str, ...]:
        """Every algorithm that serves such a convolution; the backend's own choice comes first.

        ``prepared``: for `conv2d_prepared`, which packs weights beforehand.
        """

    def conv2d_bytes(
        self,
        geometry: ConvGeometry,
        dtype: np.dtype[Any],
        algorithm: str,
        prepared: bool = False,
    ) -> tuple[int | None, int]:
        """What a call works in, on all threads, and what packed weights take.

        The first is None where the backend does not tell.
        """

    def conv2d_prepared(
        self,
        weight: Array,
        bias: Array | None,
        geometry: ConvGeometry,
        activation: Activation,
        algorithm: str,
    ) -> PreparedConv2d:
        """conv2d with these weights, which it may keep, and with what can be done beforehand done."""

    def conv2d_grad_input(
        self,
        grad: Array,
        weight: Array,
        geometry: ConvGeometry,
        out: Array,
        algorithm: Algorithm = None,
    ) -> None:
        """Gradient of conv2d with respect to x.

        grad (N,O,OH,OW), weight (O,C/G,KH,KW), out (N,C,H,W). Positions of x
        that no window covers get zero.
        """

    def conv2d_grad_weight(
        self,
        grad: Array,
        x: Array,
        geometry: ConvGeometry,
        out: Array,
        algorithm: Algorithm = None,
    ) -> None:
        """Gradient of conv2d with respect to weight: grad (N,O,OH,OW), x (N,C,H,W), out (O,C/G,KH,KW).

        Zero for an empty batch.
        """

    def conv2d_grad_bias(self, grad: Array, out: Array) -> None:
        """Gradient of conv2d with respect to bias: grad (N,O,OH,OW) summed to out (O,)."""

    def im2col(self, x: Array, geometry: ConvGeometry, out: Array) -> None:
        """``out[n, (c*KH + a)*KW + b, i*OW + j] = x[n, c, i*s-p+a*d, j*s-p+b*d]``.

        x (N,C,H,W), out (N, C*KH*KW, OH*OW). Groups play no part.
        """

    def col2im(self, col: Array, geometry: ConvGeometry, out: Array) -> None:
        """The transpose of im2col: every column element added to where it came from.

        col (N, C*KH*KW, OH*OW), out (N,C,H,W).
        """

    # --- pooling ---------------------------------------------------------

    def max_pool2d(
        self, x: Array, geometry: PoolGeometry, out: Array, indices: Array | None
    ) -> None:
        """Largest value of each window, padding left out; NaN wins over every number.

        x (N,C,H,W), out (N,C,OH,OW), indices None or int64 (N,C,OH,OW): the flat
        position ``row * W + column`` of the value in its plane, the first one
        (in row-major order) among equals, and the last NaN of the window where
        there is one (as PyTorch: ``value > best or isnan(value)`` replaces).
        A window that lies wholly in the padding cannot occur.
        """

    def max_pool2d_backward(self, grad: Array, indices: Array, out: Array) -> bool:
        """Add each grad element to the position its index names.

        grad and indices (N,C,OH,OW), out (N,C,H,W). Indices are not checked
        before: where one is not in ``[0, H*W)`` the result is False, nothing is
        written outside out, and out holds anything.
        """

    def avg_pool2d(
        self,
        x: Array,
        geometry: PoolGeometry,
        count_include_pad: bool,
        divisor: int | None,
        out: Array,
    ) -> None:
        """Sum of each window over its divisor.

        The divisor is ``divisor`` if given; with ``count_include_pad`` the
        window's size clipped to the padded input (``[-p, H + p)``), else its
        size clipped to the input. x (N,C,H,W), out (N,C,OH,OW); dilation is 1.
        """

    def avg_pool2d_backward(
        self,
        grad: Array,
        geometry: PoolGeometry,
        count_include_pad: bool,
        divisor: int | None,
        out: Array,
    ) -> None:
        """Spread each grad element, over its divisor, on its window: grad (N,C,OH,OW), out (N,C,H,W)."""

    def adaptive_avg_pool2d(self, x: Array, out: Array) -> None:
        """Mean over windows ``floor(i*H/OH)`` to ``ceil((i+1)*H/OH)``: x (N,C,H,W), out (N,C,OH,OW).

        Output size (1, 1) is global average pooling.
        """

    def adaptive_avg_pool2d_backward(self, grad: Array, out: Array) -> None:
        """Spread each grad element, over its window's size, on its window: grad (N,C,OH,OW), out (N,C,H,W)."""

    # --- normalisation ---------------------------------------------------

    def batch_norm_train(
        self,
        x: Array,
        weight: Array | None,
        bias: Array | None,
        eps: float,
        activation: Activation,
        out: Array,
        mean: Array,
        var: Array,
    ) -> None:
        """Normalise each channel by its own mean and (biased) variance.

        ``out = f((x - mean) / sqrt(var + eps) * weight + bias)``. x and out
        (N,C,S), weight and bias (C,) or None; mean and var (C,) are written.
        N*S is at least 1. The variance is the mean of ``(x - mean)**2``, not a
        difference of squares.
        """

    def batch_norm_track(
        self,
        mean: Array,
        var: Array,
        count: int,
        momentum: float,
        eps: float,
        running_mean: Array | None,
        running_var: Array | None,
        inv_std: Array,
    ) -> None:
        """What `batch_norm_train` leaves to be done with a batch's mean and variance.

        ``inv_std = 1 / sqrt(var + eps)``, computed in float64. The running arrays, where given,
        move in place: ``running = (1 - momentum) * running + momentum * batch``, the variance
        made unbiased, ``var * count / (count - 1)`` for the ``count`` values of a channel. All are
        (C,); the running ones may have any strides.
        """

    def normalize(
        self,
        x: Array,
        mean: Array,
        var: Array,
        weight: Array | None,
        bias: Array | None,
        eps: float,
        activation: Activation,
        out: Array,
    ) -> None:
        """Normalise each channel by a given mean and variance.

        ``out = f((x - mean) / sqrt(var + eps) * weight + bias)``, where the
        factor of ``x - mean`` is computed in float64. x and out (N,C,S), the
        others (C,), weight and bias or None.
        """

    def batch_norm_backward(
        self,
        grad: Array,
        x: Array,
        mean: Array,
        inv_std: Array,
        weight: Array | None,
        training: bool,
        y: Array | None,
        grad_x: Array,
        grad_weight: Array,
        grad_bias: Array,
    ) -> None:
        """Gradients of batch normalisation, with ``x_hat = (x - mean) * inv_std`` and M = N*S.

        ``grad_bias = sum(grad)``, ``grad_weight = sum(grad * x_hat)``; in training
        ``grad_x = weight * inv_std * (grad - grad_bias/M - x_hat * grad_weight/M)``,
        in evaluation ``grad_x = weight * inv_std * grad``. Where y, relu's result
        if it was the activation, is 0, grad counts as 0. grad, x, y, grad_x
        (N,C,S), the others (C,); weight None means ones.
        """

    # --- linear ----------------------------------------------------------

    def linear(self, x: Array, weight: Array, bias: Array | None, out: Array) -> None:
        """``out[n,o] = bias[o] + sum_i x[n,i] * weight[o,i]``.

        x (N,I), weight (O,I), bias (O,) or None, out (N,O).
        """

    def linear_grad_input(self, grad: Array, weight: Array, out: Array) -> None:
        """Gradient of linear with respect to x: grad (N,O) @ weight (O,I) in out (N,I)."""

    def linear_grad_weight(self, grad: Array, x: Array, out: Array) -> None:
        """Gradient of linear with respect to weight: grad.T (O,N) @ x (N,I) in out (O,I)."""

    # --- activations -----------------------------------------------------

    def add(self, x: Array, y: Array, activation: Activation, out: Array) -> None:
        """``f(x + y)``. Any shape, C order; ``out`` may be ``x``."""

    def relu(self, x: Array, out: Array) -> None:
        """``x < 0 ? 0 : x`` (NaN passes). Any shape, C order; ``out`` may be ``x``."""

    def relu_backward(self, grad: Array, x: Array, out: Array) -> None:
        """``x <= 0 ? 0 : grad``. Here and below ``out`` may be ``grad``."""

    def sigmoid(self, x: Array, out: Array) -> None:
        """``1 / (1 + exp(-x))``, without overflow for any x. ``out`` may be ``x``."""

    def sigmoid_backward(self, grad: Array, y: Array, out: Array) -> None:
        """``grad * y * (1 - y)``, where y is sigmoid's result."""

    def tanh(self, x: Array, out: Array) -> None:
        """The hyperbolic tangent. ``out`` may be ``x``."""

    def tanh_backward(self, grad: Array, y: Array, out: Array) -> None:
        """``grad * (1 - y*y)``, where y is tanh's result."""

    def softmax(self, x: Array, out: Array) -> None:
        """``exp(x - max) / sum(exp(x - max))`` of each row: x and out (rows, columns >= 1)."""

    def softmax_backward(self, grad: Array, y: Array, out: Array) -> None:
        """``y * (grad - sum(grad * y))`` of each row, where y is softmax's result."""

    def log_softmax(self, x: Array, out: Array) -> None:
        """``(x - max) - log(sum(exp(x - max)))`` of each row."""

    def log_softmax_backward(self, grad: Array, y: Array, out: Array) -> None:
        """``grad - exp(y) * sum(grad)`` of each row, where y is log_softmax's result."""

    def dropout(self, x: Array, mask: NDArray[np.bool_], scale: float, out: Array) -> None:
        """``x * scale`` where mask is true, else 0 (also for NaN and infinity): its own backward."""

    # --- optimisers ------------------------------------------------------

    def optimizer_step(
        self,
        step: OptimizerStep,
        params: list[Array],
        grads: list[Array],
        first: list[Array],
        second: list[Array],
        penalties: NDArray[np.float64],
    ) -> None:
        """Change parameters w against their gradients, and the state ``first``, ``second``, in place.

        All lists are as long as ``params``, with arrays of the same shapes; those
        of a state that the rule does not keep are empty. ``params`` share no
        memory with each other; a gradient may be its parameter itself.
        ``penalties`` (params, 3), C-contiguous, has ``l1, l2, decay`` of each.
        First of all ::

            g = grad_scale * grad + l2 * w + l1 * sign(w)
            w = w * (1 - lr * decay)

        and then, with ``v`` or ``h`` or ``m`` for first, ``s`` for second, by rule ::

            sgd       w = w - lr * g
            momentum  v = beta1 * v - lr * g;              w = w + v
            nesterov  v = beta1 * v - lr * g;              w = w + beta1 * v - lr * g
            adagrad   h = h + g**2;                        w = w - lr * g / (sqrt(h) + eps)
            rmsprop   h = beta1 * h + (1 - beta1) * g**2;  w = w - lr * g / (sqrt(h) + eps)
            adam      m = beta1 * m + (1 - beta1) * g
                      s = beta2 * s + (1 - beta2) * g**2
                      w = w - lr * (m / (1 - beta1**step)) / (sqrt(s / (1 - beta2**step)) + eps)
        """

    def sum_of_squares(self, x: Array) -> float:
        """``sum(x**2)`` in double precision: any shape, 0 for no element."""


#: The names of the kernels, in the order above.
KERNELS = tuple(
    name for name, value in vars(Backend).items() if callable(value) and not name.startswith("_")
)
