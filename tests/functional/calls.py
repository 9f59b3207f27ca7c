"""One valid call of every public kernel: what the tests of inputs and errors vary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from support import normal

Arguments = dict[str, Any]


def _conv() -> Arguments:
    return {"x": normal((2, 4, 6, 5)), "weight": normal((6, 2, 3, 3)), "padding": 1, "groups": 2}


def _transpose() -> Arguments:
    return {"x": normal((2, 4, 3, 4)), "weight": normal((4, 3, 3, 3)), "stride": 2, "groups": 2}


def _statistics() -> Arguments:
    return {"running_mean": normal((3,)), "running_var": np.abs(normal((3,))) + 0.5}


def _affine() -> Arguments:
    return {"weight": normal((3,), seed=1), "bias": normal((3,), seed=2)}


_IMAGE = (2, 3, 4, 5)
_MATRIX = (3, 5)

#: Makes fresh arguments for each function, by name. All arrays are float64 where they may be.
CALLS: dict[str, Callable[[], Arguments]] = {
    "conv2d": lambda: {**_conv(), "bias": normal((6,)), "out": normal((2, 6, 6, 5))},
    "conv2d_backward": lambda: {"grad": normal((2, 6, 6, 5)), **_conv()},
    "conv_transpose2d": lambda: {
        **_transpose(),
        "bias": normal((6,)),
        "output_padding": 1,
        "out": normal((2, 6, 8, 10)),
    },
    "conv_transpose2d_backward": lambda: {"grad": normal((2, 6, 7, 9)), **_transpose()},
    "im2col": lambda: {"x": normal(_IMAGE), "kernel_size": 2, "out": normal((2, 12, 12))},
    "col2im": lambda: {
        "col": normal((2, 12, 12)),
        "output_size": (4, 5),
        "kernel_size": 2,
        "out": normal(_IMAGE),
    },
    "max_pool2d": lambda: {"x": normal(_IMAGE), "kernel_size": 2, "out": normal((2, 3, 2, 2))},
    "max_pool2d_backward": lambda: {
        "grad": normal((2, 3, 2, 2)),
        "indices": np.full((2, 3, 2, 2), 19),
        "input_shape": _IMAGE,
    },
    "avg_pool2d": lambda: {"x": normal(_IMAGE), "kernel_size": 2, "out": normal((2, 3, 2, 2))},
    "avg_pool2d_backward": lambda: {
        "grad": normal((2, 3, 2, 2)),
        "input_shape": _IMAGE,
        "kernel_size": 2,
    },
    "global_avg_pool2d": lambda: {"x": normal(_IMAGE), "out": normal((2, 3, 1, 1))},
    "global_avg_pool2d_backward": lambda: {"grad": normal((2, 3, 1, 1)), "input_shape": _IMAGE},
    "adaptive_avg_pool2d": lambda: {
        "x": normal(_IMAGE),
        "output_size": (3, 2),
        "out": normal((2, 3, 3, 2)),
    },
    "adaptive_avg_pool2d_backward": lambda: {
        "grad": normal((2, 3, 3, 2)),
        "input_shape": _IMAGE,
    },
    "batch_norm": lambda: {
        "x": normal(_IMAGE),
        **_statistics(),
        **_affine(),
        "out": normal(_IMAGE, seed=3),
    },
    "batch_norm_backward": lambda: {
        "grad": normal(_IMAGE),
        "x": normal(_IMAGE, seed=1),
        "mean": normal((3,)),
        "inv_std": np.abs(normal((3,))) + 0.5,
        "weight": normal((3,), seed=1),
        "y": normal(_IMAGE, seed=2),
    },
    "linear": lambda: {
        "x": normal((2, 3, 5)),
        "weight": normal((4, 5)),
        "bias": normal((4,)),
        "out": normal((2, 3, 4)),
    },
    "linear_backward": lambda: {
        "grad": normal((2, 3, 4)),
        "x": normal((2, 3, 5)),
        "weight": normal((4, 5)),
    },
    "cross_entropy": lambda: {"x": normal(_MATRIX), "target": np.array([4, 0, 2])},
    "cross_entropy_backward": lambda: {"x": normal(_MATRIX), "target": np.array([4, 0, 2])},
    "dropout": lambda: {"x": normal(_MATRIX), "rng": 0, "out": normal(_MATRIX)},
    "dropout_backward": lambda: {"grad": normal(_MATRIX), "mask": normal(_MATRIX) > 0},
}
for _name in ("relu", "sigmoid", "tanh", "softmax", "log_softmax"):
    CALLS[_name] = lambda: {"x": normal(_MATRIX), "out": normal(_MATRIX, seed=1)}
    _saved = "x" if _name == "relu" else "y"
    CALLS[f"{_name}_backward"] = lambda saved=_saved: {
        "grad": normal(_MATRIX),
        saved: normal(_MATRIX, seed=1),
    }

#: The functions whose ``out`` may be their input.
ELEMENTWISE = ("relu", "sigmoid", "tanh", "dropout")


def float_arguments(name: str) -> list[str]:
    """The inputs of floats that function ``name`` takes."""
    return [
        key
        for key, value in CALLS[name]().items()
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and key != "out"
    ]


#: Every input of floats of every function.
INPUTS = [(name, key) for name in CALLS for key in float_arguments(name)]
#: Every function that takes ``out``.
WITH_OUT = [name for name, make in CALLS.items() if "out" in make()]
