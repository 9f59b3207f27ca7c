"""The pieces of vector code that Numba's own vectoriser cannot find, written in LLVM's IR.

`multiply_tile` is the product of MR rows of A and NR columns of B, with the whole tile of sums in
vector registers; `copy_window` copies a vector of pixels, those outside of the image as zero;
`add_tile` adds some columns of a tile to the output.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.cgutils import for_range
from numba.extending import intrinsic

from .vectors import (
    I32,
    I64,
    alignment,
    data,
    features,
    gather,
    lanes,
    load,
    masked_load,
    masked_store,
    multiply_add,
    splat,
    vector_at,
    vector_type,
)

# 8 rows of 3 vectors: 24 of AVX-512's 32 registers hold sums, and each pass over k does 24
# multiply-adds for 3 + 8 loads. Where there are 16 registers, 4 rows of 3.
_VECTORS = 3

#: Rows of a tile.
MR = 8 if "avx512f" in features() else 4


def tile_columns(dtype: np.dtype[Any]) -> int:
    """Columns of a tile (NR)."""
    return _VECTORS * lanes(dtype)


@intrinsic
def multiply_tile(
    typing: Any, a: Any, a_start: Any, a_row: Any, rows: Any, a_offsets: Any, k_start: Any,
    k_count: Any, b: Any, b_start: Any, vectors: Any, tile: Any, tile_start: Any,
) -> tuple[Any, Callable[..., Any]]:  # fmt: skip
    """``tile[r, j] = sum_k a[a_start + r * a_row + a_offsets[k_start + k]] * b[b_start + k*NR + j]``.

    k runs over ``k_count >= 1``. Only the first ``vectors`` vectors of j are computed; rows from
    ``rows`` on repeat the last one. ``tile`` is MR rows of NR.
    """
    size = types.intp
    signature = types.void(
        a, size, size, size, a_offsets, size, size, b, size, size, tile, size
    )  # fmt: skip

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        a_type, offsets_type, b_type, tile_type = (signature.args[i] for i in (0, 4, 7, 10))
        vector = vector_type(a_type.dtype, context)
        a_data = builder.gep(data(context, builder, a_type, args[0]), [args[1]])
        offsets = builder.gep(data(context, builder, offsets_type, args[4]), [args[5]])
        b_data = builder.gep(data(context, builder, b_type, args[7]), [args[8]])
        tile_data = builder.gep(data(context, builder, tile_type, args[10]), [args[11]])
        last = builder.sub(args[3], I64(1))
        row_starts = []
        for r in range(MR):
            row = builder.select(builder.icmp_signed("<", I64(r), last), I64(r), last)
            row_starts.append(builder.mul(row, args[2]))
        done = builder.append_basic_block("tile.done")
        narrow = [builder.append_basic_block(f"tile.{v}") for v in range(1, _VECTORS + 1)]
        switch = builder.switch(args[9], narrow[-1])
        for v in range(1, _VECTORS):
            switch.add_case(I64(v), narrow[v - 1])
        for v, block in enumerate(narrow, 1):
            builder.position_at_end(block)
            _tile_loop(
                builder, vector, v, a_data, row_starts, offsets, args[6], b_data, tile_data, done
            )
        builder.position_at_end(done)
        return context.get_dummy_value()

    return signature, generate


def _tile_loop(
    builder: Any, vector: Any, vectors: int, a_data: Any, row_starts: list[Any], offsets: Any,
    k_count: Any, b_data: Any, tile_data: Any, done: Any,
) -> None:  # fmt: skip
    """The loop over k for a tile of MR rows and ``vectors`` vectors."""
    before = builder.block
    loop = builder.append_basic_block("tile.k")
    store = builder.append_basic_block("tile.store")
    columns = _VECTORS * vector.count
    builder.branch(loop)
    builder.position_at_end(loop)
    k = builder.phi(I64)
    k.add_incoming(I64(0), before)
    sums = [[builder.phi(vector) for _ in range(vectors)] for _ in row_starts]
    a_k = builder.gep(a_data, [builder.load(builder.gep(offsets, [k]))])
    b_k = builder.gep(b_data, [builder.mul(k, I64(columns))])
    b_vectors = [load(builder, b_k, I64(v * vector.count), vector) for v in range(vectors)]
    for start, row in zip(row_starts, sums, strict=True):
        a_element = splat(builder, builder.load(builder.gep(a_k, [start])), vector)
        for v, total in enumerate(row):
            total.add_incoming(ir.Constant(vector, [0.0] * vector.count), before)
            row[v] = multiply_add(builder, a_element, b_vectors[v], total)
            total.add_incoming(row[v], loop)
    following = builder.add(k, I64(1))
    k.add_incoming(following, loop)
    builder.cbranch(builder.icmp_signed("<", following, k_count), loop, store)
    builder.position_at_end(store)
    for r, row in enumerate(sums):
        for v, total in enumerate(row):
            place = vector_at(builder, tile_data, I64(r * columns + v * vector.count), vector)
            builder.store(total, place, align=alignment(vector))
    builder.branch(done)


@intrinsic
def copy_window(
    typing: Any, target: Any, target_index: Any, count: Any, room: Any, source: Any,
    source_index: Any, column: Any, width: Any, step: Any, outside: Any,
) -> tuple[Any, Callable[..., Any]]:  # fmt: skip
    """``target[target_index + l] = source[source_index + l * step]`` for l below ``count``.

    ``count`` is at most a vector. ``outside`` is written where ``column + l * step`` is outside of
    ``0 .. width - 1``; there the source is not read. With ``room``, anything may be written to the
    rest of the vector: some processors take many cycles for a store of single lanes.
    """
    size = types.intp
    signature = types.void(
        target, size, size, types.boolean, source, size, size, size, size, target.dtype
    )

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        target_type, source_type = signature.args[0], signature.args[4]
        count, room, column, width, step = args[2], args[3], args[6], args[7], args[8]
        vector = vector_type(target_type.dtype, context)
        source_data = builder.gep(data(context, builder, source_type, args[4]), [args[5]])
        place = vector_at(builder, data(context, builder, target_type, args[0]), args[1], vector)

        nothing = splat(builder, args[9], vector)
        value = read_window(builder, source_data, column, width, step, nothing)
        with builder.if_else(room) as (then, otherwise):
            with then:
                builder.store(value, place, align=alignment(vector))
            with otherwise:
                masked_store(builder, value, place, below(builder, vector, count))
        return context.get_dummy_value()

    return signature, generate


def read_window(
    builder: Any, source: Any, column: Any, width: Any, step: Any, outside: Any
) -> Any:  # fmt: skip
    """A vector of pixels ``source[l * step]``, those of no column as in ``outside``.

    The first is that of ``column``, of ``width``.
    """
    vector = outside.type

    def inside(first: int, factor: Any) -> Any:
        """Of lanes ``first`` and on, those whose column exists."""
        columns = builder.mul(
            lane_numbers(vector, I64, first), splat(builder, factor, many(vector))
        )
        columns = builder.add(columns, splat(builder, column, many(vector)))
        return builder.icmp_unsigned("<", columns, splat(builder, width, many(vector)))

    def window(first: int) -> Any:
        at = vector_at(builder, source, I64(first), vector)
        return masked_load(builder, at, inside(first, I64(1)), vector, outside)

    end = builder.append_basic_block("window.end")
    value_blocks = []
    one, whole, cut, two, whole_pairs, pairs, apart = (
        builder.append_basic_block(f"window.{name}")
        for name in ("one", "whole", "cut", "two", "whole.pairs", "pairs", "apart")
    )

    def fits(length: int) -> Any:
        return builder.and_(
            builder.icmp_signed(">=", column, I64(0)),
            builder.icmp_signed("<=", builder.add(column, I64(length)), width),
        )

    choice = builder.switch(step, apart)
    choice.add_case(I64(1), one)
    choice.add_case(I64(2), two)
    builder.position_at_end(one)
    builder.cbranch(fits(vector.count), whole, cut)
    builder.position_at_end(two)
    builder.cbranch(fits(2 * vector.count), whole_pairs, pairs)
    builder.position_at_end(whole)
    value_blocks.append((load(builder, source, I64(0), vector), whole))
    builder.branch(end)
    builder.position_at_end(cut)
    value_blocks.append((window(0), cut))
    builder.branch(end)
    evens = ir.Constant(ir.VectorType(I32, vector.count), list(range(0, 2 * vector.count, 2)))
    builder.position_at_end(whole_pairs)
    both = [load(builder, source, I64(at), vector) for at in (0, vector.count)]
    value_blocks.append((builder.shuffle_vector(*both, evens), whole_pairs))
    builder.branch(end)
    builder.position_at_end(pairs)
    both = [window(0), window(vector.count)]
    value_blocks.append((builder.shuffle_vector(*both, evens), pairs))
    builder.branch(end)
    builder.position_at_end(apart)
    steps = builder.mul(lane_numbers(vector, I64), splat(builder, step, many(vector)))
    gathered = gather(builder, source, steps, inside(0, step), vector, outside)
    value_blocks.append((gathered, apart))
    builder.branch(end)
    builder.position_at_end(end)
    value = builder.phi(vector)
    for block_value, block in value_blocks:
        value.add_incoming(block_value, block)
    return value


def many(vector: Any) -> Any:
    """As many 64-bit integers as a vector has lanes."""
    return ir.VectorType(I64, vector.count)


def lane_numbers(vector: Any, integer: Any, first: int = 0) -> Any:
    """The numbers of the lanes."""
    return ir.Constant(
        ir.VectorType(integer, vector.count), list(range(first, first + vector.count))
    )


def below(builder: Any, vector: Any, count: Any, first: int = 0) -> Any:
    """Which of the lanes ``first`` and on are below ``count``."""
    return builder.icmp_signed(
        "<", lane_numbers(vector, I64, first), splat(builder, count, many(vector))
    )


@intrinsic
def add_tile(
    typing: Any, tile: Any, first: Any, count: Any, rows: Any, out: Any, place: Any, line: Any,
    begin: Any, start: Any, start_at: Any,
) -> tuple[Any, Callable[..., Any]]:  # fmt: skip
    """``out[place + r * line + j] = tile[r, first + j] + before``, for j below ``count <= NR``.

    r runs over ``rows >= 1``. ``before`` is ``start[start_at + r]`` to ``begin`` with, else what
    out has. ``tile`` is MR rows of NR, and readable for NR elements more.
    """
    size = types.intp
    signature = types.void(
        tile, size, size, size, out, size, size, types.boolean, start, size
    )  # fmt: skip

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        tile_type, out_type, start_type = (signature.args[i] for i in (0, 4, 8))
        count, begin = args[2], args[7]
        vector = vector_type(tile_type.dtype, context)
        tile_data = builder.gep(data(context, builder, tile_type, args[0]), [args[1]])
        out_data = builder.gep(data(context, builder, out_type, args[4]), [args[5]])
        starts = builder.gep(data(context, builder, start_type, args[8]), [args[9]])
        columns = _VECTORS * vector.count
        with for_range(builder, args[3]) as loop:
            tile_row = builder.gep(tile_data, [builder.mul(loop.index, I64(columns))])
            out_row = builder.gep(out_data, [builder.mul(loop.index, args[6])])
            fresh = splat(builder, builder.load(builder.gep(starts, [loop.index])), vector)
            for offset in range(0, columns, vector.count):
                target = vector_at(builder, out_row, I64(offset), vector)
                value = load(builder, tile_row, I64(offset), vector)

                def add(present: Any, value: Any = value, fresh: Any = fresh) -> Any:
                    return builder.fadd(value, builder.select(begin, fresh, present))

                whole = builder.icmp_signed(">=", count, I64(offset + vector.count))
                some = builder.icmp_signed(">", count, I64(offset))
                with builder.if_else(whole) as (then, otherwise):
                    with then:
                        added = add(load(builder, out_row, I64(offset), vector))
                        builder.store(added, target, align=alignment(vector))
                    with otherwise, builder.if_then(some):
                        wanted = below(builder, vector, count, offset)
                        present = masked_load(builder, target, wanted, vector)
                        masked_store(builder, add(present), target, wanted)
        return context.get_dummy_value()

    return signature, generate
