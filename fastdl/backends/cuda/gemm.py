"""The matrix product behind every convolution: filters times gathered pixels.

``C[m][p] = sum_k A[k][m] * B[k][p]`` where m is a filter, p a window and k a product of a
window: B is never stored, its elements are read from the image as the tiles need them
(implicit GEMM). A is the weight, packed with m running fastest and padded with zeros.

::

    grid    a block computes TILE_M filters x TILE_P windows of one group; all filters of the
            windows one after another, so that windows are read from memory once
    block   steps over k, TILE_K at a time: A and B tiles in shared memory, two of each,
            so that the next ones are fetched while these are multiplied
    warp    4 x 8 squares, neighbours in a column of them: a load of the warp's quads is then 64 or
            128 bytes of shared memory, the rest being the same ones
    thread  QUADS_M x QUADS_P squares of 4 x 4 in registers, each quad of a row one 16-byte
            load from shared memory

What k means stands in ``taps``, four int32 a product: where to find the element from the window's
corner, the tap's row and column, and (for packing) where its weight is. So the same kernel
serves the forward convolution and, for each residue of the stride, its input gradient.

Sums in float32 are cut into runs of RUN products, which are added to the result in memory: so
the error grows with the root of the run and not of the whole reduction.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from . import scalars
from .arrays import DeviceArray, empty
from .launch import THREADS, blocks_for, kernel
from .target import SIMULATED, cuda, inlined, load4, quotient, store4

#: Products summed in registers before they are added to the result.
RUN = 8 if SIMULATED else 512


class Tile(NamedTuple):
    """How a block's work is cut; see the module's picture."""

    m: int
    p: int
    k: int
    quads_m: int
    quads_p: int

    @property
    def threads(self) -> int:
        return self.m * self.p // (16 * self.quads_m * self.quads_p)


#: From the largest, which reads shared memory least, to those for few filters or windows.
TILES = (
    (Tile(16, 8, 4, 1, 1), Tile(64, 32, 4, 2, 2))
    if SIMULATED
    else (
        Tile(128, 128, 8, 2, 2),
        Tile(64, 128, 8, 2, 2),
        Tile(64, 64, 8, 1, 2),
        Tile(32, 128, 8, 1, 2),
    )
)
#: float64 has half the registers and a tile of its own.
TILES_DOUBLE = TILES[:1] if SIMULATED else (Tile(64, 64, 8, 1, 1),)


def _bounds(T: Any, tile: Tile, *_: Any) -> tuple[int, int]:
    """Two blocks on a multiprocessor, so that one multiplies while the other waits."""
    return tile.threads, 2


#: Edge of the squares that `pack` turns.
_EDGE = 8 if SIMULATED else 32


@kernel("T* i* T* i i i i i i", bounds=(THREADS, 4))
def pack(T: Any, turned: bool) -> Any:
    """``packed[g][k][m]``: the weight's element of product k and filter m, zero beyond them.

    ``turned``: a filter's products are neighbours in the weight, so that squares of _EDGE products
    by _EDGE filters are read along the ones and written along the others.
    """
    zero, EDGE, LINES = T(0), _EDGE, THREADS // _EDGE
    SQUARE = _EDGE * (_EDGE + 1)

    def straight(weight, taps, packed, total, filters, padded, depth, group_step, filter_step):
        e = np.int32(cuda.grid(1))
        if e < total:
            line = quotient(e, padded)
            m = e - line * padded
            group = quotient(line, depth)
            tap = taps[4 * (line - group * depth) + 3]
            if m < filters and tap >= 0:
                packed[e] = weight[group * group_step + m * filter_step + tap]
            else:
                packed[e] = zero

    def run(weight, taps, packed, total, filters, padded, depth, group_step, filter_step):
        square = cuda.shared.array(SQUARE, T)
        wide = quotient(padded + (EDGE - 1), EDGE)
        above = quotient(cuda.blockIdx.x, wide)
        first_m = (cuda.blockIdx.x - above * wide) * EDGE
        high = quotient(depth + (EDGE - 1), EDGE)
        group = quotient(above, high)
        first_k = (above - group * high) * EDGE
        column, top = cuda.threadIdx.x % EDGE, cuda.threadIdx.x // EDGE
        for line in range(top, EDGE, LINES):
            m, k, value = first_m + line, first_k + column, zero
            if m < filters and k < depth:
                tap = taps[4 * k + 3]
                if tap >= 0:
                    value = weight[group * group_step + m * filter_step + tap]
            square[line * (EDGE + 1) + column] = value
        cuda.syncthreads()
        for line in range(top, EDGE, LINES):
            m, k = first_m + column, first_k + line
            if m < padded and k < depth:
                packed[(group * depth + k) * padded + m] = square[column * (EDGE + 1) + line]

    return run if turned else straight


def packed_weight(
    weight: DeviceArray,
    taps: DeviceArray,
    groups: int,
    filters: int,
    padded: int,
    group_step: int,
    filter_step: int,
) -> DeviceArray:
    """The weight as `product` takes it; in it, groups and filters are the given steps apart."""
    depth = taps.shape[0]
    out = empty((groups, depth, padded), weight.dtype, weight)
    turned = filter_step > 1
    squares = groups * -(-depth // _EDGE) * -(-padded // _EDGE)
    pack(weight.dtype, turned)(
        squares if turned else blocks_for(out.size), THREADS, weight, taps, out, out.size, filters,
        padded, depth, group_step, filter_step,
    )  # fmt: skip
    return out


#: Blocks that a grid can have in its second and third dimensions.
MOST = 65535


def tiled(filters: int, windows: int, tile: Tile) -> tuple[int, int]:
    """Tiles of a group: filters are the grid's first dimension, windows the second."""
    return -(-filters // tile.m), -(-windows // tile.p)


def square_of(tile: Tile) -> Any:
    """Where a thread's squares begin in the block's tile: see the module's picture."""
    COLUMNS = tile.p // (4 * tile.quads_p)  # of the block's grid of squares
    WIDE = min(COLUMNS, 8)
    HIGH, WARPS = 32 // WIDE, COLUMNS // WIDE

    @inlined
    def square(thread):
        warp, lane = thread // 32, thread % 32
        row = warp // WARPS * HIGH + lane // (2 * WIDE) * 2 + lane % 2
        column = warp % WARPS * WIDE + lane % (2 * WIDE) // 2
        return np.int32(4 * row), np.int32(4 * column)

    return square


def _multiply(tile: Tile) -> Any:
    """Add the products of one k to the thread's sums: no loop, so that the sums are registers."""
    QUADS_M, QUADS_P = tile.quads_m, tile.quads_p
    APART_M, APART_P = tile.m // QUADS_M, tile.p // QUADS_P
    WIDTH = 4 * QUADS_P

    @inlined
    def square(sums, i, a0, a1, a2, a3, b0, b1, b2, b3):
        sums[i] += a0 * b0
        sums[i + 1] += a0 * b1
        sums[i + 2] += a0 * b2
        sums[i + 3] += a0 * b3
        sums[i + WIDTH] += a1 * b0
        sums[i + WIDTH + 1] += a1 * b1
        sums[i + WIDTH + 2] += a1 * b2
        sums[i + WIDTH + 3] += a1 * b3
        sums[i + 2 * WIDTH] += a2 * b0
        sums[i + 2 * WIDTH + 1] += a2 * b1
        sums[i + 2 * WIDTH + 2] += a2 * b2
        sums[i + 2 * WIDTH + 3] += a2 * b3
        sums[i + 3 * WIDTH] += a3 * b0
        sums[i + 3 * WIDTH + 1] += a3 * b1
        sums[i + 3 * WIDTH + 2] += a3 * b2
        sums[i + 3 * WIDTH + 3] += a3 * b3

    @inlined
    def multiply(tile_a, tile_b, a, b, sums):
        a0, a1, a2, a3 = load4(tile_a, a)
        b0, b1, b2, b3 = load4(tile_b, b)
        square(sums, 0, a0, a1, a2, a3, b0, b1, b2, b3)
        if QUADS_P == 2:
            b4, b5, b6, b7 = load4(tile_b, b + APART_P)
            square(sums, 4, a0, a1, a2, a3, b4, b5, b6, b7)
        if QUADS_M == 2:
            a4, a5, a6, a7 = load4(tile_a, a + APART_M)
            square(sums, 4 * WIDTH, a4, a5, a6, a7, b0, b1, b2, b3)
            if QUADS_P == 2:
                square(sums, 4 * WIDTH + 4, a4, a5, a6, a7, b4, b5, b6, b7)

    return multiply


def _deliver(T: Any, tile: Tile, activation: str | None, plain: bool) -> Any:
    """Add the thread's sums to the result; the last time with bias and activation."""
    QUADS_M, QUADS_P = tile.quads_m, tile.quads_p
    APART_M, APART_P = tile.m // QUADS_M, tile.p // QUADS_P
    WIDTH = 4 * QUADS_P
    f = scalars.activation(T, activation)
    zero, nowhere = T(0), np.int32(-1)

    @inlined
    def place(
        p, windows, grid_h, grid_w, out_image, out_width, step_h, step_w, out_h, out_w, plane
    ):
        """Where window p of filter 0 goes, or -1."""
        if p >= windows:
            return nowhere
        if plain:
            image = quotient(p, plane)
            return np.int32(image * out_image + (p - image * plane))
        above = quotient(p, grid_w)
        image = quotient(above, grid_h)
        line = (above - image * grid_h) * step_h + out_h
        return np.int32(
            image * out_image + line * out_width + (p - above * grid_w) * step_w + out_w
        )

    @inlined
    def put(value, out, to, channel, more, begun, last):
        if to >= 0:
            at = np.int32(to + channel)
            if begun:
                value += out[at]
            out[at] = f(value + more) if last else value

    @inlined
    def put4(a, b, c, d, out, to, channel, more, begun, last):
        if to >= 0:
            at = np.int32(to + channel)
            if begun:
                e, g, h, o = load4(out, at)
                a, b, c, d = a + e, b + g, c + h, d + o
            if last:
                a, b, c, d = f(a + more), f(b + more), f(c + more), f(d + more)
            store4(out, at, a, b, c, d)

    @inlined
    def line(sums, i, m, filters, group, out_plane, bias, biased, out, t0, t1, t2, t3, begun, last):
        """Four sums of one filter."""
        if m < filters:
            number = np.int32(group * filters + m)
            channel = np.int32(number * out_plane)
            more = bias[number] if biased else zero
            a, b, c, d = sums[i], sums[i + 1], sums[i + 2], sums[i + 3]
            if plain:
                put4(a, b, c, d, out, t0, channel, more, begun, last)
            else:
                put(a, out, t0, channel, more, begun, last)
                put(b, out, t1, channel, more, begun, last)
                put(c, out, t2, channel, more, begun, last)
                put(d, out, t3, channel, more, begun, last)

    @inlined
    def lines(
        sums, i, m, filters, group, out_plane, bias, biased, out, t0, t1, t2, t3, begun, last
    ):
        """A square of 4 x 4 sums."""
        line(sums, i, m, filters, group, out_plane, bias, biased, out, t0, t1, t2, t3, begun, last)
        line(
            sums, i + WIDTH, m + 1, filters, group, out_plane, bias, biased, out,
            t0, t1, t2, t3, begun, last,
        )  # fmt: skip
        line(
            sums, i + 2 * WIDTH, m + 2, filters, group, out_plane, bias, biased, out,
            t0, t1, t2, t3, begun, last,
        )  # fmt: skip
        line(
            sums, i + 3 * WIDTH, m + 3, filters, group, out_plane, bias, biased, out,
            t0, t1, t2, t3, begun, last,
        )  # fmt: skip

    @inlined
    def deliver(
        sums, bias, out, group, m, p, begun, last, filters, windows, grid_h, grid_w, out_image,
        out_plane, out_width, step_h, step_w, out_h, out_w, biased, plane,
    ):  # fmt: skip
        t0 = place(
            p, windows, grid_h, grid_w, out_image, out_width, step_h, step_w, out_h, out_w, plane
        )
        t1, t2, t3 = t0, t0, t0
        if not plain:
            t1 = place(
                p + 1, windows, grid_h, grid_w, out_image, out_width, step_h, step_w, out_h, out_w,
                plane,
            )  # fmt: skip
            t2 = place(
                p + 2, windows, grid_h, grid_w, out_image, out_width, step_h, step_w, out_h, out_w,
                plane,
            )  # fmt: skip
            t3 = place(
                p + 3, windows, grid_h, grid_w, out_image, out_width, step_h, step_w, out_h, out_w,
                plane,
            )  # fmt: skip
        lines(sums, 0, m, filters, group, out_plane, bias, biased, out, t0, t1, t2, t3, begun, last)
        if QUADS_M == 2:
            lines(
                sums, 4 * WIDTH, m + APART_M, filters, group, out_plane, bias, biased, out,
                t0, t1, t2, t3, begun, last,
            )  # fmt: skip
        if QUADS_P == 2:
            q = np.int32(p + APART_P)
            t0 = place(
                q, windows, grid_h, grid_w, out_image, out_width, step_h, step_w, out_h, out_w,
                plane,
            )  # fmt: skip
            if not plain:
                t1 = place(
                    q + 1, windows, grid_h, grid_w, out_image, out_width, step_h, step_w, out_h,
                    out_w, plane,
                )  # fmt: skip
                t2 = place(
                    q + 2, windows, grid_h, grid_w, out_image, out_width, step_h, step_w, out_h,
                    out_w, plane,
                )  # fmt: skip
                t3 = place(
                    q + 3, windows, grid_h, grid_w, out_image, out_width, step_h, step_w, out_h,
                    out_w, plane,
                )  # fmt: skip
            lines(
                sums, 4, m, filters, group, out_plane, bias, biased, out, t0, t1, t2, t3, begun,
                last,
            )  # fmt: skip
            if QUADS_M == 2:
                lines(
                    sums, 4 * WIDTH + 4, m + APART_M, filters, group, out_plane, bias, biased, out,
                    t0, t1, t2, t3, begun, last,
                )  # fmt: skip

    return deliver


@kernel(f"T* i* T* T* T* {'i ' * 24}", bounds=_bounds)
def product(T: Any, tile: Tile, activation: str | None, straight: bool, plain: bool) -> Any:
    """The kernel of the module's picture.

    ``straight``: the windows are the image's pixels, in order, and their number a multiple of 4
    (a 1x1 convolution, a matrix product): B comes in 16-byte loads. ``start``: the tiles of windows
    that another launch has. ``plain``: the result's
    pixels are the windows, in order, and their number a multiple of 4: 16-byte stores.
    """
    TILE_M, TILE_P, TILE_K, QUADS_M, QUADS_P = tile
    THREADS = tile.threads
    assert THREADS % TILE_P == 0 or straight, "a thread gathers for one window"
    square = square_of(tile)
    A_QUADS = TILE_K * TILE_M // 4
    A_LOADS = -(-A_QUADS // THREADS)
    A_EVEN = A_QUADS % THREADS == 0
    B_QUADS = TILE_K * TILE_P // 4
    B_QUAD_LOADS = -(-B_QUADS // THREADS)
    B_QUADS_EVEN = B_QUADS % THREADS == 0
    B_LOADS = TILE_K * TILE_P // THREADS
    B_ROWS = THREADS // TILE_P  # rows of k that the block gathers at a time
    B_KEPT = 4 * B_QUAD_LOADS if straight else B_LOADS
    A_SIZE, B_SIZE = TILE_K * TILE_M, TILE_K * TILE_P
    A_MEMORY, B_MEMORY, A_KEPT = 2 * A_SIZE, 2 * B_SIZE, 4 * A_LOADS
    ACCUMULATORS = 16 * QUADS_M * QUADS_P
    STEPS_A_RUN = RUN // TILE_K
    NOWHERE = np.int32(-(2**29))
    multiply = _multiply(tile)
    deliver = _deliver(T, tile, activation, plain)
    zero = T(0)

    def run(
        packed, taps, x, bias, out,
        start, padded, depth, filters, windows, grid_h, grid_w, step_h, step_w, origin_h, origin_w,
        height, width, x_image, x_group, out_image, out_plane, out_width, out_step_h, out_step_w,
        out_h, out_w, biased, plane,
    ):  # fmt: skip
        tile_a = cuda.shared.array(A_MEMORY, T, 16)
        tile_b = cuda.shared.array(B_MEMORY, T, 16)
        sums = cuda.local.array(ACCUMULATORS, T)
        kept_a = cuda.local.array(A_KEPT, T)
        kept_b = cuda.local.array(B_KEPT, T)

        thread = np.int32(cuda.threadIdx.x)
        group = np.int32(cuda.blockIdx.z)
        first_m = np.int32(cuda.blockIdx.x * TILE_M)
        first_p = np.int32((cuda.blockIdx.y + start) * TILE_P)

        # What of A and B this thread fetches at every step.
        a_base = np.int32(group * depth * padded + first_m)
        my_p = np.int32(first_p + (4 * (thread % (TILE_P // 4)) if straight else thread % TILE_P))
        my_k = np.int32(thread // (TILE_P // 4) if straight else thread // TILE_P)
        top, left, corner = NOWHERE, NOWHERE, np.int32(0)
        if my_p < windows:
            if straight:
                image = quotient(my_p, plane)
                corner = np.int32(image * x_image + group * x_group + (my_p - image * plane))
                top = np.int32(0)
            else:
                above = quotient(my_p, grid_w)
                image = quotient(above, grid_h)
                top = np.int32((above - image * grid_h) * step_h + origin_h)
                left = np.int32((my_p - above * grid_w) * step_w + origin_w)
                corner = np.int32(image * x_image + group * x_group + top * width + left)

        # Which quads of the tile this thread multiplies.
        row, column = square(thread)

        steps = quotient(depth, TILE_K)
        # The step whose tiles are fetched runs one before the step that is multiplied.
        for step in range(-1, steps):
            ahead = np.int32(step + 1)
            if ahead < steps:
                for load in range(A_LOADS):
                    quad = np.int32(thread + load * THREADS)
                    if A_EVEN or quad < A_QUADS:
                        k = np.int32(ahead * TILE_K + quad // (TILE_M // 4))
                        a, b, c, d = load4(
                            packed, np.int32(a_base + k * padded + 4 * (quad % (TILE_M // 4)))
                        )
                        kept_a[4 * load] = a
                        kept_a[4 * load + 1] = b
                        kept_a[4 * load + 2] = c
                        kept_a[4 * load + 3] = d
                if straight:
                    for load in range(B_QUAD_LOADS):
                        inner = np.int32(my_k + load * (THREADS // (TILE_P // 4)))
                        k = np.int32(ahead * TILE_K + inner)
                        a, b, c, d = zero, zero, zero, zero
                        if (B_QUADS_EVEN or inner < TILE_K) and top == 0 and taps[4 * k + 1] >= 0:
                            a, b, c, d = load4(x, np.int32(corner + taps[4 * k]))
                        kept_b[4 * load] = a
                        kept_b[4 * load + 1] = b
                        kept_b[4 * load + 2] = c
                        kept_b[4 * load + 3] = d
                else:
                    for load in range(B_LOADS):
                        k = np.int32(ahead * TILE_K + my_k + load * B_ROWS)
                        offset, down, right, _ = load4(taps, 4 * k)
                        y, z = np.int32(top + down), np.int32(left + right)
                        value = zero
                        if y >= 0 and y < height and z >= 0 and z < width:
                            value = x[np.int32(corner + offset)]
                        kept_b[load] = value
            if step >= 0:
                if step % STEPS_A_RUN == 0:
                    for i in range(ACCUMULATORS):
                        sums[i] = zero
                a_now = np.int32((step & 1) * A_SIZE + row)
                b_now = np.int32((step & 1) * B_SIZE + column)
                # By twos: the loads of the second hide behind the products of the first.
                for k in range(0, TILE_K, 2):
                    multiply(tile_a, tile_b, a_now + k * TILE_M, b_now + k * TILE_P, sums)
                    multiply(
                        tile_a, tile_b, a_now + (k + 1) * TILE_M, b_now + (k + 1) * TILE_P, sums
                    )
                last = ahead == steps
                if ahead % STEPS_A_RUN == 0 or last:
                    deliver(
                        sums, bias, out, group, np.int32(first_m + row),
                        np.int32(first_p + column), step >= STEPS_A_RUN, last, filters, windows,
                        grid_h, grid_w, out_image, out_plane, out_width, out_step_h, out_step_w,
                        out_h, out_w, biased, plane,
                    )  # fmt: skip
            if ahead < steps:
                a_next, b_next = (ahead & 1) * A_SIZE, (ahead & 1) * B_SIZE
                for load in range(A_LOADS):
                    quad = np.int32(thread + load * THREADS)
                    if A_EVEN or quad < A_QUADS:
                        store4(
                            tile_a, a_next + 4 * quad,
                            kept_a[4 * load], kept_a[4 * load + 1],
                            kept_a[4 * load + 2], kept_a[4 * load + 3],
                        )  # fmt: skip
                if straight:
                    for load in range(B_QUAD_LOADS):
                        quad = np.int32(thread + load * THREADS)
                        if B_QUADS_EVEN or quad < B_QUADS:
                            store4(
                                tile_b, b_next + 4 * quad,
                                kept_b[4 * load], kept_b[4 * load + 1],
                                kept_b[4 * load + 2], kept_b[4 * load + 3],
                            )  # fmt: skip
                else:
                    for load in range(B_LOADS):
                        tile_b[b_next + thread + load * THREADS] = kept_b[load]
            cuda.syncthreads()

    return run
