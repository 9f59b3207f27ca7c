"""What only the reference promises: it is the truth, so it takes any floating dtype."""

from __future__ import annotations

import numpy as np
import pytest
from support import normal, relative_error

from fastdl.backends import reference
from fastdl.geometry import conv_geometry, pool_geometry


@pytest.mark.parametrize("dtype", [np.float16, np.longdouble])
def test_other_dtypes(dtype: type) -> None:
    x, weight, bias = normal((2, 3, 6, 6)), normal((4, 3, 3, 3)), normal((4,))
    geometry = conv_geometry(x.shape, weight.shape, padding=1)
    pool = pool_geometry(geometry.out_shape, 2)

    def network(dtype: type) -> np.ndarray:
        out = np.empty(geometry.out_shape, dtype)
        arrays = (array.astype(dtype) for array in (x, weight, bias))
        reference.conv2d(*arrays, geometry, "tanh", out)
        flat = out.reshape(2, 4, -1)
        normalised, mean, var = np.empty_like(flat), np.empty(4, dtype), np.empty(4, dtype)
        reference.batch_norm_train(flat, None, None, 1e-3, "sigmoid", normalised, mean, var)
        result = np.empty(pool.out_shape, dtype)
        reference.avg_pool2d(normalised.reshape(out.shape), pool, True, None, result)
        return result

    found, expected = network(dtype), network(np.float64)
    assert found.dtype == dtype
    error = relative_error(found, expected)
    assert error <= {np.float16: 5e-3, np.longdouble: 1e-14}[dtype]
    assert error > 0  # the wider type rounds elsewhere


def test_float64_is_as_precise_as_it_claims() -> None:
    x, weight = normal((2, 17, 9, 9)), normal((5, 17, 3, 3))
    geometry = conv_geometry(x.shape, weight.shape, 2, 1)
    out = np.empty(geometry.out_shape)
    reference.conv2d(x, weight, None, geometry, None, out)
    wide = np.empty(geometry.out_shape, np.longdouble)
    reference.conv2d(
        x.astype(np.longdouble), weight.astype(np.longdouble), None, geometry, None, wide
    )
    assert relative_error(out, wide) <= 1e-15
