"""Output sizes, against counting the windows one by one."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fastdl.errors import ArgumentError, DTypeError, ShapeError
from fastdl.geometry import (
    adaptive_window,
    conv_geometry,
    conv_transpose_geometry,
    integer,
    out_size,
    pair,
    pool_geometry,
    window_geometry,
)

SIZES = st.integers(1, 20)
KERNELS = st.integers(1, 6)
STRIDES = st.integers(1, 5)
PADDINGS = st.integers(0, 6)
DILATIONS = st.integers(1, 4)


def count_windows(
    size: int, kernel: int, stride: int, before: int, after: int, dilation: int
) -> int:
    """Windows that lie wholly inside the padded input, one after the other."""
    count = 0
    while count * stride + dilation * (kernel - 1) < before + size + after:
        count += 1
    return count


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "dilation", "expected"),
    [
        (8, 3, 2, 1, 1, 4),
        (6, 2, 1, 1, 1, 7),
        (224, 7, 2, 3, 1, 112),
        (227, 11, 4, 0, 1, 55),
        (5, 5, 1, 0, 1, 1),
        (7, 3, 1, 2, 2, 7),
        (1, 1, 5, 0, 9, 1),
    ],
)
def test_known_sizes(
    size: int, kernel: int, stride: int, padding: int, dilation: int, expected: int
) -> None:
    assert out_size(size, kernel, stride, 2 * padding, dilation) == expected
    geometry = conv_geometry((2, 3, size, size), (4, 3, kernel, kernel), stride, padding, dilation)
    assert geometry.out_shape == (2, 4, expected, expected)


@given(
    sizes=st.tuples(SIZES, SIZES),
    kernel=st.tuples(KERNELS, KERNELS),
    stride=st.tuples(STRIDES, STRIDES),
    pads=st.tuples(st.tuples(PADDINGS, PADDINGS), st.tuples(PADDINGS, PADDINGS)),
    dilation=st.tuples(DILATIONS, DILATIONS),
    groups=st.integers(1, 3),
    channels=st.integers(1, 3),
    filters=st.integers(1, 3),
)
def test_conv_counts_windows(
    sizes: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pads: tuple[tuple[int, int], tuple[int, int]],
    dilation: tuple[int, int],
    groups: int,
    channels: int,
    filters: int,
) -> None:
    expected = tuple(
        count_windows(sizes[axis], kernel[axis], stride[axis], *pads[axis], dilation[axis])
        for axis in (0, 1)
    )
    x_shape = (2, channels * groups, *sizes)
    weight_shape = (filters * groups, channels, *kernel)
    if 0 in expected:
        with pytest.raises(ShapeError, match="must fit the padded input"):
            conv_geometry(x_shape, weight_shape, stride, pads, dilation, groups)
        return
    geometry = conv_geometry(x_shape, weight_shape, stride, pads, dilation, groups)
    assert geometry.out_shape == (2, filters * groups, *expected)
    assert geometry.x_shape == x_shape
    assert geometry.weight_shape == weight_shape
    assert (geometry.group_channels, geometry.group_filters) == (channels, filters)
    assert (geometry.pad_top, geometry.pad_left) == (pads[0][0], pads[1][0])
    columns = (2, channels * groups * kernel[0] * kernel[1], expected[0] * expected[1])
    assert geometry.col_shape == columns
    assert geometry.flops == 2 * channels * kernel[0] * kernel[1] * geometry.filters * (
        2 * columns[2]
    )
    unfolded = window_geometry(x_shape, kernel, dilation, pads, stride)
    assert unfolded.col_shape == columns


@given(size=SIZES, kernel=KERNELS, dilation=DILATIONS)
def test_same_keeps_the_size(size: int, kernel: int, dilation: int) -> None:
    geometry = conv_geometry(
        (1, 1, size, size), (1, 1, kernel, kernel), padding="same", dilation=dilation
    )
    assert geometry.out_shape == (1, 1, size, size)
    # The odd one of an odd total goes to the bottom and the right.
    assert geometry.pad_top == geometry.pad_left == dilation * (kernel - 1) // 2


def test_valid_is_no_padding() -> None:
    shapes = ((1, 2, 5, 6), (3, 2, 2, 3))
    assert conv_geometry(*shapes, 2, "valid") == conv_geometry(*shapes, 2, 0)


@given(
    size=SIZES,
    kernel=KERNELS,
    stride=STRIDES,
    padding=PADDINGS,
    dilation=DILATIONS,
    extra=st.integers(0, 4),
)
def test_transposed_leads_back(
    size: int, kernel: int, stride: int, padding: int, dilation: int, extra: int
) -> None:
    assume(extra < max(stride, dilation))
    grown = (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + extra + 1
    arguments = ((2, 6, size, size), (6, 2, kernel, kernel), stride, padding, extra, 3, dilation)
    if grown < 1:
        with pytest.raises(ShapeError, match="must have a positive size"):
            conv_transpose_geometry(*arguments)
        return
    geometry = conv_transpose_geometry(*arguments)
    assert geometry.x_shape == (2, 6, grown, grown)
    assert geometry.out_shape == (2, 6, size, size)
    if extra < stride:
        back = conv_geometry(
            geometry.x_shape, geometry.weight_shape, stride, padding, dilation, groups=3
        )
        assert back == geometry


@given(
    size=SIZES,
    kernel=KERNELS,
    stride=STRIDES,
    padding=PADDINGS,
    dilation=DILATIONS,
    ceil_mode=st.booleans(),
)
def test_pool_counts_windows(
    size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool
) -> None:
    extent = dilation * (kernel - 1) + 1
    arguments = ((2, 3, size, size), kernel, stride, padding, dilation, ceil_mode)
    if 2 * padding > extent:
        with pytest.raises(ArgumentError, match="at most half of what the kernel covers"):
            pool_geometry(*arguments)
        return
    expected = count_windows(size, kernel, stride, padding, padding, dilation)
    if expected == 0:
        with pytest.raises(ShapeError, match="must fit the padded input"):
            pool_geometry(*arguments)
        return
    # One more window, if the last one leaves elements over and the next starts before the
    # padding on the far side.
    last_end = (expected - 1) * stride + extent
    if ceil_mode and last_end < size + 2 * padding and expected * stride < size + padding:
        expected += 1
    inside = [
        any(0 <= i * stride - padding + a * dilation < size for a in range(kernel))
        for i in range(expected)
    ]
    if not all(inside):
        with pytest.raises(ShapeError, match="every window must hold an element of x"):
            pool_geometry(*arguments)
        return
    geometry = pool_geometry(*arguments)
    assert geometry.out_shape == (2, 3, expected, expected)
    assert geometry.x_shape == (2, 3, size, size)


def test_ceil_mode_as_pytorch_defines_it() -> None:
    assert pool_geometry((1, 1, 5, 5), 2, ceil_mode=True).out_shape == (1, 1, 3, 3)
    # A third window would start in the padding on the far side.
    assert pool_geometry((1, 1, 3, 3), 2, 2, 1, ceil_mode=True).out_shape == (1, 1, 2, 2)
    assert pool_geometry((1, 1, 4, 4), 1, 5, ceil_mode=True).out_shape == (1, 1, 1, 1)


def test_pool_stride_is_the_kernel_by_default() -> None:
    assert pool_geometry((1, 1, 7, 9), (2, 3)) == pool_geometry((1, 1, 7, 9), (2, 3), (2, 3))


@given(size=SIZES, out=SIZES)
def test_adaptive_windows_cover_the_input(size: int, out: int) -> None:
    windows = [adaptive_window(i, size, out) for i in range(out)]
    assert windows[0][0] == 0
    assert windows[-1][1] == size
    for first, last in windows:
        assert 0 <= first < last <= size
    for (_, last), (first, _) in pairwise(windows):
        assert first <= last
    if size % out == 0:
        assert windows == [(i * size // out, (i + 1) * size // out) for i in range(out)]


def test_empty_batch_and_channels() -> None:
    assert conv_geometry((0, 1, 3, 3), (1, 1, 2, 2)).out_shape == (0, 1, 2, 2)
    assert pool_geometry((2, 0, 4, 4), 2).out_shape == (2, 0, 2, 2)
    assert conv_geometry((1, 1, 0, 3), (1, 1, 2, 2), padding=1).out_shape == (1, 1, 1, 4)


def test_integers() -> None:
    class Index:
        def __index__(self) -> int:
            return 3

    assert integer("n", Index(), 0) == 3
    assert pair("n", [1, 2], 1) == (1, 2)
    assert pair("n", 4, 1) == (4, 4)
    for value in (True, 1.0, "1", None):
        with pytest.raises(DTypeError, match=r"^n must be an integer, got "):
            integer("n", value, 0)


def test_what_a_geometry_remembers_hides_no_error() -> None:
    shapes = ((1, 1, 4, 4), (1, 1, 2, 2))
    for good, bad in (((1, 1), (1.0, 1)), ((1, 1), (True, True)), (1, 1.0), (1, True)):
        conv_geometry(*shapes, good)
        pool_geometry(shapes[0], good)
        conv_transpose_geometry(*shapes, good)
        for refused in (
            lambda bad=bad: conv_geometry(*shapes, bad),
            lambda bad=bad: pool_geometry(shapes[0], bad),
            lambda bad=bad: conv_transpose_geometry(*shapes, bad),
        ):
            with pytest.raises(DTypeError, match="must be an integer"):
                refused()
    assert conv_geometry(*shapes, [1, 1], [[1, 0], [0, 1]]).out_shape == (1, 1, 4, 4)
