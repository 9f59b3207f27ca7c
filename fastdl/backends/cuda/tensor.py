"""The product of `gemm` on the tensor cores: rounded factors, sums in float32.

The windows are gathered as there. What goes to shared memory are 32-bit *slots*: one number in
TF32, or two neighbours in k in bfloat16; an mma instruction takes 8 slots of 16 filters and 8
windows, and its registers' layout (PTX manual, section 9.7.15.5) is the same for both.

::

    block   TILE.m filters x TILE.p windows; a warp has 32 x 32 of them: 2 x 4 mma tiles
    step    SLOTS slots of k, in shared memory twice, fetched while the ones before are multiplied
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import scalars
from .gemm import Tile
from .launch import kernel
from .target import (
    SIMULATED,
    cuda,
    inlined,
    load4,
    mma_bf16,
    mma_tf32,
    quotient,
    store4,
    to_bf16x2,
    to_tf32,
)

SLOTS = 16
#: Numbers of k in a slot.
NUMBERS = {"tf32": 1, "bf16": 2}


def tile(kind: str) -> Tile:
    """The tile of a precision. Its quads only say how many sums a thread has: 32."""
    m, p = (32, 32) if SIMULATED else (64, 128)
    return Tile(m, p, SLOTS * NUMBERS[kind], 2, 1)


def _bounds(T: Any, tile: Tile, *_: Any) -> tuple[int, int]:
    return tile.threads, 2


def _warp_product(mma: Any, a_row: int, b_row: int) -> Any:
    """Add 8 slots' products of 32 filters and 32 windows to a thread's 32 sums."""
    LATER_A, LATER_B = 4 * a_row, 4 * b_row

    @inlined
    def one(sums, i, a0, a1, a2, a3, b0, b1):
        c0, c1, c2, c3 = mma(sums[i], sums[i + 1], sums[i + 2], sums[i + 3], a0, a1, a2, a3, b0, b1)
        sums[i] = c0
        sums[i + 1] = c1
        sums[i + 2] = c2
        sums[i + 3] = c3

    @inlined
    def product(tile_a, tile_b, a, b, sums):
        a0, a1, a2, a3 = tile_a[a], tile_a[a + 8], tile_a[a + LATER_A], tile_a[a + LATER_A + 8]
        a4, a5 = tile_a[a + 16], tile_a[a + 24]
        a6, a7 = tile_a[a + LATER_A + 16], tile_a[a + LATER_A + 24]
        b0, b1 = tile_b[b], tile_b[b + LATER_B]
        one(sums, 0, a0, a1, a2, a3, b0, b1)
        one(sums, 16, a4, a5, a6, a7, b0, b1)
        b0, b1 = tile_b[b + 8], tile_b[b + LATER_B + 8]
        one(sums, 4, a0, a1, a2, a3, b0, b1)
        one(sums, 20, a4, a5, a6, a7, b0, b1)
        b0, b1 = tile_b[b + 16], tile_b[b + LATER_B + 16]
        one(sums, 8, a0, a1, a2, a3, b0, b1)
        one(sums, 24, a4, a5, a6, a7, b0, b1)
        b0, b1 = tile_b[b + 24], tile_b[b + LATER_B + 24]
        one(sums, 12, a0, a1, a2, a3, b0, b1)
        one(sums, 28, a4, a5, a6, a7, b0, b1)

    return product


def _put(T: Any, activation: str | None) -> Any:
    f = scalars.activation(T, activation)

    @inlined
    def put(sums, i, out, to, number, out_plane, allowed, more):
        """One mma tile's two sums of a filter: of two windows beside each other."""
        if allowed:
            channel = np.int32(number * out_plane)
            if to[0] >= 0:
                out[np.int32(to[0] + channel)] = f(sums[i] + more)
            if to[1] >= 0:
                out[np.int32(to[1] + channel)] = f(sums[i + 1] + more)

    return put


@kernel(f"T* i* T* T* T* {'i ' * 24}", bounds=_bounds)
def product(T: Any, tile: Tile, activation: str | None, kind: str) -> Any:
    """The kernel of the module's picture; arguments as those of `gemm.product`."""
    TILE_M, TILE_P, TILE_K = tile.m, tile.p, tile.k
    THREADS = tile.threads
    NUMBER = NUMBERS[kind]
    # Rows of the tiles: 8 beyond a multiple of the 32 banks, so that a fragment's lanes, four rows
    # by eight columns, are all in banks of their own.
    A_ROW, B_ROW = TILE_M + 8, TILE_P + 8
    A_SIZE, B_SIZE = SLOTS * A_ROW, SLOTS * B_ROW
    A_MEMORY, B_MEMORY = 2 * A_SIZE, 2 * B_SIZE
    A_LOADS = SLOTS * TILE_M // 4 // THREADS
    A_KEPT = 4 * A_LOADS
    B_LOADS = SLOTS * TILE_P // THREADS
    B_ROWS = THREADS // TILE_P
    WARPS_P = TILE_P // 32
    NOWHERE = np.int32(-(2**29))
    warp_product = _warp_product(mma_tf32 if kind == "tf32" else mma_bf16, A_ROW, B_ROW)
    put = _put(T, activation)
    zero = T(0)

    @inlined
    def gathered(x, taps, k, top, left, corner, height, width):
        offset, down, right, _ = load4(taps, 4 * k)
        y, z = np.int32(top + down), np.int32(left + right)
        value = zero
        if y >= 0 and y < height and z >= 0 and z < width:
            value = x[np.int32(corner + offset)]
        return value

    @inlined
    def place(p, windows, grid_h, grid_w, out_image, out_width, step_h, step_w, out_h, out_w):
        if p >= windows:
            return np.int32(-1)
        above = quotient(p, grid_w)
        image = quotient(above, grid_h)
        line = (above - image * grid_h) * step_h + out_h
        return np.int32(
            image * out_image + line * out_width + (p - above * grid_w) * step_w + out_w
        )

    def run(
        packed, taps, x, bias, out,
        start, padded, depth, filters, windows, grid_h, grid_w, step_h, step_w, origin_h, origin_w,
        height, width, x_image, x_group, out_image, out_plane, out_width, out_step_h, out_step_w,
        out_h, out_w, biased, plane,
    ):  # fmt: skip
        tile_a = cuda.shared.array(A_MEMORY, np.int32, 16)
        tile_b = cuda.shared.array(B_MEMORY, np.int32, 16)
        sums = cuda.local.array(32, T)
        kept_a = cuda.local.array(A_KEPT, np.int32)
        kept_b = cuda.local.array(B_LOADS, np.int32)

        thread = np.int32(cuda.threadIdx.x)
        group = np.int32(cuda.blockIdx.z)
        first_m = np.int32(cuda.blockIdx.x * TILE_M)
        first_p = np.int32((cuda.blockIdx.y + start) * TILE_P)
        a_base = np.int32(group * depth * padded + first_m)
        my_p, my_slot = np.int32(first_p + thread % TILE_P), np.int32(thread // TILE_P)
        top, left, corner = NOWHERE, NOWHERE, np.int32(0)
        if my_p < windows:
            above = quotient(my_p, grid_w)
            image = quotient(above, grid_h)
            top = np.int32((above - image * grid_h) * step_h + origin_h)
            left = np.int32((my_p - above * grid_w) * step_w + origin_w)
            corner = np.int32(image * x_image + group * x_group + top * width + left)

        warp, lane = np.int32(thread // 32), np.int32(thread % 32)
        warp_m, warp_p = np.int32(warp // WARPS_P * 32), np.int32(warp % WARPS_P * 32)
        # A lane's first slot, filter and window of a fragment.
        a_lane = np.int32((lane % 4) * A_ROW + warp_m + lane // 4)
        b_lane = np.int32((lane % 4) * B_ROW + warp_p + lane // 4)
        for i in range(32):
            sums[i] = zero

        steps = quotient(depth, TILE_K)
        for step in range(-1, steps):
            ahead = np.int32(step + 1)
            if ahead < steps:
                for load in range(A_LOADS):
                    quad = np.int32(thread + load * THREADS)
                    k = np.int32(ahead * TILE_K + quad // (TILE_M // 4) * NUMBER)
                    at = np.int32(a_base + k * padded + 4 * (quad % (TILE_M // 4)))
                    a, b, c, d = load4(packed, at)
                    if NUMBER == 1:
                        kept_a[4 * load] = to_tf32(a)
                        kept_a[4 * load + 1] = to_tf32(b)
                        kept_a[4 * load + 2] = to_tf32(c)
                        kept_a[4 * load + 3] = to_tf32(d)
                    else:
                        p, q, r, s = load4(packed, np.int32(at + padded))
                        kept_a[4 * load] = to_bf16x2(a, p)
                        kept_a[4 * load + 1] = to_bf16x2(b, q)
                        kept_a[4 * load + 2] = to_bf16x2(c, r)
                        kept_a[4 * load + 3] = to_bf16x2(d, s)
                for load in range(B_LOADS):
                    k = np.int32(ahead * TILE_K + (my_slot + load * B_ROWS) * NUMBER)
                    value = gathered(x, taps, k, top, left, corner, height, width)
                    if NUMBER == 1:
                        kept_b[load] = to_tf32(value)
                    else:
                        kept_b[load] = to_bf16x2(
                            value,
                            gathered(x, taps, np.int32(k + 1), top, left, corner, height, width),
                        )
            if step >= 0:
                a_now = np.int32((step & 1) * A_SIZE + a_lane)
                b_now = np.int32((step & 1) * B_SIZE + b_lane)
                for slot in range(0, SLOTS, 8):
                    warp_product(tile_a, tile_b, a_now + slot * A_ROW, b_now + slot * B_ROW, sums)
            if ahead < steps:
                a_next, b_next = (ahead & 1) * A_SIZE, (ahead & 1) * B_SIZE
                for load in range(A_LOADS):
                    quad = np.int32(thread + load * THREADS)
                    to = a_next + quad // (TILE_M // 4) * A_ROW + 4 * (quad % (TILE_M // 4))
                    store4(
                        tile_a, to,
                        kept_a[4 * load], kept_a[4 * load + 1],
                        kept_a[4 * load + 2], kept_a[4 * load + 3],
                    )  # fmt: skip
                for load in range(B_LOADS):
                    to = b_next + (my_slot + load * B_ROWS) * B_ROW + thread % TILE_P
                    tile_b[to] = kept_b[load]
            cuda.syncthreads()

        m0 = np.int32(first_m + warp_m + lane // 4)
        m1, m2, m3 = np.int32(m0 + 8), np.int32(m0 + 16), np.int32(m0 + 24)
        n0 = np.int32(group * filters + m0)
        n1, n2, n3 = np.int32(n0 + 8), np.int32(n0 + 16), np.int32(n0 + 24)
        more0 = bias[n0] if biased and m0 < filters else zero
        more1 = bias[n1] if biased and m1 < filters else zero
        more2 = bias[n2] if biased and m2 < filters else zero
        more3 = bias[n3] if biased and m3 < filters else zero
        for column in range(4):
            p = np.int32(first_p + warp_p + 8 * column + 2 * (lane % 4))
            to = (
                place(
                    p, windows, grid_h, grid_w, out_image, out_width, out_step_h, out_step_w,
                    out_h, out_w,
                ),
                place(
                    np.int32(p + 1), windows, grid_h, grid_w, out_image, out_width, out_step_h,
                    out_step_w, out_h, out_w,
                ),
            )  # fmt: skip
            i = 4 * column
            put(sums, i, out, to, n0, out_plane, m0 < filters, more0)
            put(sums, i + 2, out, to, n1, out_plane, m1 < filters, more1)
            put(sums, i + 16, out, to, n2, out_plane, m2 < filters, more2)
            put(sums, i + 18, out, to, n3, out_plane, m3 < filters, more3)

    return run
