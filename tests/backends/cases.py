"""The geometries that every backend is tried on.

``SMALL`` tables are for every backend. ``LARGE`` tables hold the sizes at which
blocked kernels change course: every remainder of a vector, a tile or a block of
the reduction; they are not for the naive loops.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from support import normal

from fastdl.geometry import conv_geometry


@dataclass(frozen=True)
class Conv:
    """A convolution of x (N, C, H, W) with weight (O, C / groups, KH, KW)."""

    x: tuple[int, int, int, int]
    weight: tuple[int, int, int, int]
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    groups: int = 1

    @property
    def options(self) -> dict[str, Any]:
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
        }

    def arrays(self, dtype: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x, weight and bias."""
        return (
            normal(self.x, dtype, 1),
            normal(self.weight, dtype, 2),
            normal(self.weight[:1], dtype, 3),
        )

    def grad(self, dtype: Any) -> np.ndarray:
        """A gradient with respect to the result."""
        geometry = conv_geometry(self.x, self.weight, *self.options.values())
        return normal(geometry.out_shape, dtype, 4)

    def __str__(self) -> str:
        parts = [_by(self.x), _by(self.weight)]
        for letter, value, usual in (
            ("s", self.stride, 1),
            ("p", self.padding, 0),
            ("d", self.dilation, 1),
            ("g", self.groups, 1),
        ):
            if value != usual:
                parts.append(letter + str(value).replace(" ", ""))
        return "-".join(parts)


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


SMALL_CONV = [
    Conv((1, 1, 1, 1), (1, 1, 1, 1)),
    Conv((2, 3, 5, 6), (4, 3, 3, 3)),
    Conv((1, 2, 8, 8), (3, 2, 3, 3), stride=2, padding=1),
    Conv((1, 1, 6, 6), (1, 1, 2, 2), padding=1),
    Conv((2, 2, 5, 7), (3, 2, 3, 3), padding="same"),
    Conv((1, 2, 5, 6), (2, 2, 2, 4), padding="same"),
    Conv((1, 2, 7, 6), (2, 2, 3, 2), padding="same", dilation=(2, 3)),
    Conv((1, 2, 5, 6), (2, 2, 3, 3), padding="valid"),
    Conv((1, 2, 5, 5), (2, 2, 3, 3), padding=((2, 0), (1, 3))),
    Conv((1, 2, 4, 6), (2, 2, 3, 3), stride=2, padding=((0, 1), (2, 1))),
    Conv((1, 2, 7, 9), (2, 2, 2, 3), stride=(2, 3), padding=(1, 0)),
    Conv((1, 2, 9, 8), (2, 2, 3, 3), dilation=2),
    Conv((1, 2, 9, 9), (2, 2, 3, 2), stride=(2, 1), padding=(2, 1), dilation=(1, 3)),
    Conv((2, 4, 5, 5), (6, 2, 3, 3), padding=1, groups=2),
    Conv((1, 6, 4, 4), (9, 2, 2, 2), stride=2, groups=3),
    Conv((1, 5, 6, 6), (5, 1, 3, 3), padding=1, groups=5),
    Conv((1, 3, 5, 7), (6, 1, 3, 3), stride=2, padding=1, groups=3),
    Conv((2, 5, 3, 4), (7, 5, 1, 1)),
    Conv((2, 4, 5, 5), (4, 2, 1, 1), stride=2, groups=2),
    Conv((1, 2, 3, 3), (2, 2, 1, 1), padding=2),
    Conv((1, 2, 5, 6), (3, 2, 5, 6)),
    Conv((1, 1, 3, 3), (2, 1, 7, 7), padding=3),
    Conv((1, 2, 1, 12), (2, 2, 1, 5), padding=(0, 2)),
    Conv((1, 2, 12, 1), (2, 2, 5, 1), padding=(2, 0)),
    # Windows that overlap nothing but padding, and pixels that no window covers.
    Conv((1, 1, 2, 2), (1, 1, 2, 2), padding=4),
    Conv((1, 2, 9, 9), (2, 2, 2, 2), stride=4),
    Conv((1, 2, 7, 7), (2, 2, 1, 1), stride=3),
]

LARGE_CONV = [
    # Filters, for register tiles and their remainders.
    *(Conv((1, 3, 5, 18), (filters, 3, 3, 3), padding=1) for filters in range(1, 22)),
    *(Conv((2, 7, 4, 5), (filters, 7, 1, 1)) for filters in (*range(1, 20), 31, 32, 33, 63, 65)),
    # Output widths, for vectors and their remainders.
    *(Conv((1, 2, 3, width), (5, 2, 3, 3), padding=1) for width in range(1, 51)),
    *(Conv((1, 2, 5, width), (3, 2, 3, 3), stride=2, padding=1) for width in range(1, 51, 3)),
    *(Conv((1, 8, 1, width), (9, 8, 1, 1)) for width in (*range(1, 20), 31, 33, 47, 48, 49)),
    # Channels.
    *(
        Conv((1, channels, 6, 7), (filters, channels, 3, 3), padding=1)
        for channels, filters in product((1, 3, 4, 5, 8, 17, 64, 65), (1, 8, 17, 64, 65))
    ),
    # Products a filter, at the edges of a block.
    *(Conv((1, c, 4, 5), (9, c, 1, 1)) for c in (255, 256, 257, 511, 512, 513)),
    *(Conv((1, c, 5, 5), (9, c, 3, 3), padding=1) for c in (28, 29, 56, 57, 114)),
    # Windows, at the edges of a block.
    *(Conv((1, 3, 1, width), (4, 3, 1, 1)) for width in (127, 128, 129, 255, 257, 511, 513)),
    # Few pixels, whose vectors hold filters; several images, a tile's and a panel's remainder.
    Conv((3, 200, 5, 5), (37, 200, 1, 1)),
    Conv((2, 240, 9, 7), (58, 120, 3, 3), stride=2, padding=1, groups=2),
    # Rows: long filters of few channels, few filters of many channels, the widths of strided gradients.
    Conv((1, 3, 40, 47), (9, 3, 11, 11), stride=4, padding=2),
    Conv((2, 3, 19, 41), (18, 3, 7, 7), stride=2, padding=3),
    Conv((1, 70, 6, 9), (2, 70, 5, 5), padding=2),
    Conv((1, 40, 12, 7), (24, 40, 3, 3), padding=1, dilation=2),
    # The weights' gradient of 1x1 filters, over many images and in several slices.
    Conv((5, 33, 7, 9), (18, 33, 1, 1)),
    Conv((3, 5, 50, 51), (7, 5, 1, 1)),
    # One window an image.
    *(Conv((batch, 6, 4, 5), (19, 6, 4, 5)) for batch in (1, 2, 17)),
    # Depthwise and other groups.
    *(
        Conv((1, channels, 7, 9), (channels, 1, 3, 3), stride=stride, padding=1, groups=channels)
        for channels, stride in product((1, 3, 8, 16, 17, 33, 64), (1, 2))
    ),
    *(
        Conv((2, 2, 4, width), (2, 1, 3, 3), stride=stride, padding=1, groups=2)
        for width, stride in product((1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 34, 50), (1, 2))
    ),
    *(
        Conv((1, 2, height, 11), (2, 1, kernel, kernel), stride, kernel // 2, groups=2)
        for height, kernel, stride in product((1, 3, 4, 5, 8, 10, 13), (3, 5, 7), (1, 2))
    ),
    *(
        Conv((2, 3, 9, width), (3, 1, 5, 5), stride, padding=2, groups=3)
        for width, stride in product((3, 13, 27, 29, 55), (1, 2, (1, 2), (2, 1), 3))
    ),
    # Straight from the planes: rows of every length, beyond two vectors; windows over every edge.
    *(
        Conv((1, 3, height, width), (3, 1, kernel, kernel), stride, kernel // 2, groups=3)
        for kernel, height in ((3, 9), (5, 13), (7, 8))
        for stride, width in ((1, 35), (1, 50), (2, 70), (2, 95))
    ),
    Conv((1, 2, 8, 43), (2, 1, 3, 3), padding=((0, 2), (2, 0)), groups=2),
    Conv((1, 2, 7, 62), (2, 1, 5, 5), padding=((5, 9), (1, 5)), groups=2),
    Conv((1, 2, 3, 80), (2, 1, 7, 7), stride=2, padding=((6, 0), (1, 6)), groups=2),
    Conv((1, 2, 90, 101), (2, 1, 3, 3), padding=1, groups=2),
    Conv((1, 2, 131, 150), (4, 1, 5, 5), stride=2, padding=2, groups=2),
    Conv((1, 24, 322, 318), (24, 1, 3, 3), padding=1, groups=24),
    Conv((2, 3, 9, 10), (9, 1, 3, 3), stride=2, padding=((0, 1), (3, 2)), groups=3),
    Conv((1, 2, 14, 15), (2, 1, 3, 3), stride=2, padding=2, dilation=2, groups=2),
    Conv((1, 2, 14, 15), (2, 1, 4, 3), stride=(2, 3), padding=3, dilation=(3, 2), groups=2),
    Conv((1, 2, 5, 6), (2, 1, 1, 1), stride=(3, 2), padding=1, groups=2),
    Conv((1, 2, 12, 13), (2, 1, 9, 4), padding=(10, 5), groups=2),
    Conv((40, 3, 7, 7), (3, 1, 3, 3), padding=1, groups=3),
    Conv((2, 17, 11, 12), (17, 1, 5, 5), padding=2, groups=17),
    Conv((2, 9, 11, 12), (9, 1, 7, 7), stride=2, padding=3, groups=9),
    Conv((1, 9, 14, 15), (9, 1, 3, 3), padding=2, dilation=2, groups=9),
    # In lanes of channels: rows of every length, several strips of rows, columns that no window reads,
    # more taps than its tables hold.
    *(
        Conv((2, 9, 5, width), (9, 1, kernel, kernel), stride, kernel // 2, groups=9)
        for kernel, stride in ((3, 1), (3, 2), (5, 1), (5, 2))
        for width in range(1, 19, 2)
    ),
    Conv((1, 10, 67, 70), (10, 1, 3, 3), stride=2, padding=1, groups=10),
    Conv((1, 8, 8, 10), (8, 1, 2, 3), stride=2, groups=8),
    Conv((2, 20, 6, 7), (20, 1, 1, 1), stride=2, groups=20),
    Conv((1, 9, 9, 10), (9, 1, 8, 9), padding=4, groups=9),
    Conv((1, 6, 9, 10), (18, 1, 3, 3), padding=1, groups=6),
    Conv((2, 32, 9, 9), (48, 8, 3, 3), padding=1, groups=4),
    Conv((1, 34, 8, 9), (34, 17, 3, 3), stride=2, padding=1, groups=2),
    Conv((1, 64, 7, 7), (64, 16, 1, 1), groups=4),
    # Kernels as in networks, and odder.
    Conv((1, 3, 34, 37), (16, 3, 7, 7), stride=2, padding=3),
    Conv((1, 3, 39, 39), (8, 3, 11, 11), stride=4, padding=2),
    Conv((2, 16, 14, 14), (24, 16, 5, 5), padding=2),
    Conv((1, 4, 20, 21), (4, 4, 13, 13), padding=6),
    Conv((1, 8, 10, 20), (8, 8, 1, 9), padding=(0, 4)),
    Conv((1, 8, 20, 10), (8, 8, 9, 1), padding=(4, 0)),
    Conv((1, 40, 6, 6), (50, 40, 6, 6)),
    Conv((1, 16, 17, 19), (20, 16, 3, 3), padding=((0, 2), (3, 1))),
    Conv((1, 16, 17, 19), (20, 16, 3, 3), stride=(3, 1), padding=(1, 2)),
    Conv((2, 8, 23, 21), (12, 8, 3, 3), padding=4, dilation=(3, 4)),
    Conv((1, 8, 21, 23), (12, 8, 3, 3), stride=2, padding=2, dilation=2),
    Conv((2, 32, 15, 15), (40, 32, 1, 1), stride=2),
    Conv((1, 16, 6, 6), (16, 16, 1, 1), padding=1),
    Conv((3, 48, 28, 28), (40, 48, 3, 3), padding=1),
    Conv((5, 20, 9, 13), (33, 20, 3, 3), padding=1),
]


@dataclass(frozen=True)
class Pool:
    """A pool of x (N, C, H, W)."""

    x: tuple[int, int, int, int]
    kernel_size: Any
    stride: Any = None
    padding: Any = 0
    dilation: Any = 1
    ceil_mode: bool = False

    @property
    def options(self) -> dict[str, Any]:
        return {
            "kernel_size": self.kernel_size,
            "stride": self.stride,
            "padding": self.padding,
            "ceil_mode": self.ceil_mode,
        }

    @property
    def max_options(self) -> dict[str, Any]:
        return {**self.options, "dilation": self.dilation}

    def __str__(self) -> str:
        window = str((self.kernel_size, self.stride, self.padding, self.dilation))
        return f"{_by(self.x)}-{window.replace(' ', '')}{'-ceil' * self.ceil_mode}"


SMALL_POOL = [
    Pool((2, 3, 6, 8), 2),
    Pool((1, 2, 7, 9), 2),
    Pool((1, 2, 7, 9), 2, ceil_mode=True),
    Pool((1, 2, 7, 9), 3, 2, 1),
    Pool((1, 2, 8, 6), 3, 2, 1, ceil_mode=True),
    Pool((1, 2, 6, 6), 3, 1, 1),
    Pool((1, 2, 6, 7), (1, 3), (2, 1), (0, 1)),
    Pool((1, 2, 6, 7), (3, 2), (1, 3), (1, 0), ceil_mode=True),
    Pool((1, 1, 9, 9), 2, 3),
    Pool((1, 1, 9, 9), 2, 3, 1, ceil_mode=True),
    Pool((1, 1, 5, 5), 1),
    Pool((1, 1, 5, 4), (5, 4)),
    Pool((1, 1, 1, 1), 1),
    Pool((1, 1, 1, 1), 2, 2, 1),
]

#: Only max pooling dilates.
DILATED_POOL = [
    Pool((1, 2, 8, 9), 2, 1, 0, 2),
    Pool((1, 2, 9, 9), 3, 2, 1, 2, True),
    Pool((1, 2, 9, 10), (2, 3), (3, 1), (1, 2), (3, 2)),
    Pool((1, 1, 7, 7), 2, 1, 3, 5),
]

LARGE_POOL = [
    *(Pool((1, 3, 4, width), 2) for width in range(2, 52)),
    *(Pool((1, 2, 5, width), 3, 2, 1) for width in range(1, 40)),
    *(Pool((1, 2, 5, width), 3, 1, 1) for width in (*range(1, 20), 31, 32, 33)),
    Pool((2, 65, 7, 7), 3, 2, 1, ceil_mode=True),
    Pool((2, 17, 31, 33), 5, 2, 2),
    Pool((1, 4, 40, 41), 7, 3, 3, ceil_mode=True),
]

#: Input shape and output size of adaptive pools.
SMALL_ADAPTIVE = [
    ((2, 3, 6, 6), (2, 3)),
    ((1, 2, 7, 5), (3, 2)),
    ((1, 2, 3, 4), (5, 7)),
    ((1, 2, 5, 6), (5, 6)),
    ((2, 3, 5, 7), (1, 1)),
    ((1, 1, 1, 1), (1, 1)),
]
LARGE_ADAPTIVE = [
    *(((1, 3, 3, width), (1, 1)) for width in (*range(1, 35), 63, 64, 65)),
    ((2, 65, 7, 7), (1, 1)),
    ((2, 17, 32, 31), (7, 6)),
    ((1, 5, 13, 11), (20, 3)),
]

#: Shapes of batch normalisation's input: (N, C), (N, C, L), (N, C, H, W).
SMALL_NORM = [(4, 3), (2, 3, 5), (2, 3, 4, 5), (3, 1, 1, 2), (1, 2, 3, 3), (5, 17, 1, 1)]
LARGE_NORM = [
    *((5, 3, 1, size) for size in (*range(1, 40), 63, 64, 65, 127, 129)),
    *((3, channels, 5, 5) for channels in (1, 7, 8, 9, 16, 31, 64, 65)),
    (33, 65),
    (4, 32, 28, 28),
    # Rows around the length from which a row is taken by itself, in several pieces, ...
    *((2, 2, 1, size) for size in (511, 512, 515, 2048, 2049, 4099)),
    # ... and few channels, whose images are shared out.
    (23, 3, 31, 33),
    (701, 97),
]

#: Lengths of vectors for the elementwise kernels and of rows for softmax.
SMALL_SIZES = [1, 2, 7, 33]
LARGE_SIZES = [*range(3, 70), 127, 128, 129, 1000, 1025]
