"""The fully connected layer and its gradients: matrix products, which NumPy's BLAS computes."""

from __future__ import annotations

import numpy as np

from ..table import Array


@np.errstate(all="ignore")
def linear(x: Array, weight: Array, bias: Array | None, out: Array) -> None:
    """``x @ weight.T + bias``."""
    np.matmul(x, weight.T, out=out)
    if bias is not None:
        out += bias


@np.errstate(all="ignore")
def linear_grad_input(grad: Array, weight: Array, out: Array) -> None:
    """``grad @ weight``."""
    np.matmul(grad, weight, out=out)


@np.errstate(all="ignore")
def linear_grad_weight(grad: Array, x: Array, out: Array) -> None:
    """``grad.T @ x``."""
    np.matmul(grad.T, x, out=out)
