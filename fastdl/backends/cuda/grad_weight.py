"""Weight gradient: grad times windows, summed over every window of the batch.

``out[m][q] = sum_p grad[m][p] * x[tap q of window p]``: a matrix product again, whose long
side is the sum. So the sum is cut: each block takes a run of the result's rows and writes what it
found to a workspace, and a second kernel adds those up in double precision and in one order.
A step of the sum is TILE_K neighbours of one row of the result.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .gemm import Tile, _multiply, square_of
from .launch import THREADS, kernel
from .target import SIMULATED, cuda, quotient

#: Blocks of filters x taps; see `gemm`.
TILE = Tile(16, 16, 4, 1, 1) if SIMULATED else Tile(64, 64, 8, 1, 2)
#: Products that a block sums in registers, about.
RUN = 16 if SIMULATED else 1024


def _bounds(*_: Any) -> tuple[int, int]:
    return TILE.threads, 4


@kernel(f"T* T* i* T* {'i ' * 17}", bounds=_bounds)
def partial(T: Any) -> Any:
    """One run of rows for a tile of filters and taps, to ``parts[run][filter][tap]``."""
    TILE_M, TILE_P, TILE_K = TILE.m, TILE.p, TILE.k
    THREADS = TILE.threads
    square = square_of(TILE)
    # Rows of the tiles in shared memory, so long that neighbours in k are in other banks.
    A_ROW, B_ROW = TILE_M + 4, TILE_P + 4
    A_SIZE, B_SIZE = TILE_K * A_ROW, TILE_K * B_ROW
    A_MEMORY, B_MEMORY = 2 * A_SIZE, 2 * B_SIZE
    LINES = THREADS // TILE_K  # filters or taps that the block fetches at a time
    A_LOADS, B_LOADS = TILE_M // LINES, TILE_P // LINES
    ACCUMULATORS = 16 * TILE.quads_m * TILE.quads_p
    WIDTH = 4 * TILE.quads_p
    APART_M, APART_P = TILE_M // TILE.quads_m, TILE_P // TILE.quads_p
    NOWHERE = np.int32(-(2**29))
    multiply = _multiply(TILE)
    zero = T(0)

    def run(
        grad, x, taps, parts,
        rows, rows_a_run, runs, filters, columns, out_h, out_w, step_h, step_w, pad_top, pad_left,
        height, width, x_image, x_group, out_image, groups,
    ):  # fmt: skip
        tile_a = cuda.shared.array(A_MEMORY, T, 16)
        tile_b = cuda.shared.array(B_MEMORY, T, 16)
        sums = cuda.local.array(ACCUMULATORS, T)
        kept_a = cuda.local.array(A_LOADS, T)
        kept_b = cuda.local.array(B_LOADS, T)
        offsets = cuda.local.array(B_LOADS, np.int32)
        downs = cuda.local.array(B_LOADS, np.int32)
        rights = cuda.local.array(B_LOADS, np.int32)

        thread = np.int32(cuda.threadIdx.x)
        block = np.int32(cuda.blockIdx.z)
        group = quotient(block, runs)
        part = np.int32(block - group * runs)
        first_m = np.int32(cuda.blockIdx.y * TILE_M)
        first_q = np.int32(cuda.blockIdx.x * TILE_P)
        my_k, my_line = np.int32(thread % TILE_K), np.int32(thread // TILE_K)
        for load in range(B_LOADS):
            q = first_q + my_line + load * LINES
            inside = q < columns
            offsets[load] = taps[4 * q] if inside else np.int32(0)
            downs[load] = taps[4 * q + 1] if inside else NOWHERE
            rights[load] = taps[4 * q + 2] if inside else NOWHERE
        for i in range(ACCUMULATORS):
            sums[i] = zero
        row, column = square(thread)
        out_plane = np.int32(out_h * out_w)

        first = np.int32(part * rows_a_run)
        chunks = quotient(np.int32(out_w + TILE_K - 1), TILE_K)
        steps = np.int32(min(rows_a_run, rows - first) * chunks)
        line, chunk = first, np.int32(0)
        image = quotient(line, out_h)
        i = np.int32(line - image * out_h)
        for step in range(-1, steps):
            ahead = np.int32(step + 1)
            if ahead < steps:
                j = np.int32(chunk * TILE_K + my_k)
                at = np.int32(image * out_image + group * filters * out_plane + i * out_w + j)
                for load in range(A_LOADS):
                    m = np.int32(first_m + my_line + load * LINES)
                    kept_a[load] = (
                        grad[np.int32(at + m * out_plane)] if j < out_w and m < filters else zero
                    )
                top = np.int32(i * step_h - pad_top)
                left = np.int32(j * step_w - pad_left)
                corner = np.int32(image * x_image + group * x_group + top * width + left)
                for load in range(B_LOADS):
                    y, z = np.int32(top + downs[load]), np.int32(left + rights[load])
                    value = zero
                    if j < out_w and y >= 0 and y < height and z >= 0 and z < width:
                        value = x[np.int32(corner + offsets[load])]
                    kept_b[load] = value
                chunk = np.int32(chunk + 1)
                if chunk == chunks:
                    chunk, i = np.int32(0), np.int32(i + 1)
                    if i == out_h:
                        i, image = np.int32(0), np.int32(image + 1)
            if step >= 0:
                a_now = np.int32((step & 1) * A_SIZE + row)
                b_now = np.int32((step & 1) * B_SIZE + column)
                for k in range(0, TILE_K, 2):
                    multiply(tile_a, tile_b, a_now + k * A_ROW, b_now + k * B_ROW, sums)
                    multiply(tile_a, tile_b, a_now + (k + 1) * A_ROW, b_now + (k + 1) * B_ROW, sums)
            if ahead < steps:
                a_next = np.int32((ahead & 1) * A_SIZE + my_k * A_ROW + my_line)
                b_next = np.int32((ahead & 1) * B_SIZE + my_k * B_ROW + my_line)
                for load in range(A_LOADS):
                    tile_a[a_next + load * LINES] = kept_a[load]
                for load in range(B_LOADS):
                    tile_b[b_next + load * LINES] = kept_b[load]
            cuda.syncthreads()

        base = np.int32((part * groups + group) * filters)
        for e in range(ACCUMULATORS):
            m = np.int32(first_m + row + (e // WIDTH // 4) * APART_M + e // WIDTH % 4)
            q = np.int32(first_q + column + (e % WIDTH // 4) * APART_P + e % 4)
            if m < filters and q < columns:
                parts[np.int32((base + m) * columns + q)] = sums[e]

    return run


@kernel("T* T* i i", bounds=(THREADS, 4))
def total(T: Any) -> Any:
    """``out[e] = sum_run parts[run][e]``, in the order of the runs."""

    def run(parts, out, count, runs):
        e = cuda.grid(1)
        if e < count:
            value = 0.0
            for part in range(runs):
                value += parts[part * count + e]
            out[e] = value

    return run
