"""Runs of neighbours combined tap by tap, written in LLVM's IR: what `windows` is built on.

With v vectors of BLOCK or SMALL_BLOCK in registers, each tap costs v loads and v operations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.cgutils import for_range
from numba.extending import intrinsic

from .vectors import (
    I32,
    I64,
    alignment,
    data,
    load,
    multiply_add,
    splat,
    vector_at,
    vector_type,
)

#: Vectors that are in registers at once; the last ones of a run go by few.
BLOCK, SMALL_BLOCK = 8, 2
#: Taps whose products `dot_taps` sums at once.
TAPS = 9


def _each_block(builder: Any, count: Any, vector: Any, body: Callable[[Any, int], None]) -> None:
    """``body(first element, vectors)`` for blocks that cover ``count`` elements."""
    start = I64(0)
    for vectors in (BLOCK, SMALL_BLOCK):
        length = vectors * vector.count
        left = builder.sub(count, start)
        if vectors == SMALL_BLOCK:
            left = builder.add(left, I64(length - 1))
        blocks = builder.sdiv(left, I64(length))
        with for_range(builder, blocks) as loop:
            body(builder.add(start, builder.mul(loop.index, I64(length))), vectors)
        start = builder.add(start, builder.mul(blocks, I64(length)))


def _each_tap(
    builder: Any, count: Any, values: list[Any], step: Callable[[Any, list[Any]], list[Any]]
) -> list[Any]:
    """``values = step(tap, values)`` for ``count >= 1`` taps, in registers."""
    before = builder.block
    loop, done = builder.append_basic_block("taps"), builder.append_basic_block("taps.done")
    builder.branch(loop)
    builder.position_at_end(loop)
    tap = builder.phi(I64)
    tap.add_incoming(I64(0), before)
    carried = [builder.phi(value.type) for value in values]
    for phi, value in zip(carried, values, strict=True):
        phi.add_incoming(value, before)
    following = step(tap, carried)
    for phi, value in zip(carried, following, strict=True):
        phi.add_incoming(value, builder.block)
    after = builder.add(tap, I64(1))
    tap.add_incoming(after, builder.block)
    builder.cbranch(builder.icmp_signed("<", after, count), loop, done)
    builder.position_at_end(done)
    return following


@intrinsic
def sum_taps(
    typing: Any, frame: Any, offsets: Any, weight: Any, weight_at: Any, places: Any, count: Any,
    bias: Any, more: Any, result: Any,
) -> tuple[Any, Callable[..., Any]]:  # fmt: skip
    """``result[q] = before + sum over taps of weight[weight_at + places[tap]] * frame[offsets[tap] + q]``.

    q runs up to ``count``, and some more to whole blocks; ``before`` is ``bias``, or with ``more``
    what is in result.
    """
    size = types.intp
    signature = types.void(
        frame, offsets, weight, size, places, size, frame.dtype, types.boolean, result
    )

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        frame_type, offsets_type, weight_type, places_type, result_type = (
            signature.args[i] for i in (0, 1, 2, 4, 8)
        )
        vector = vector_type(frame_type.dtype, context)
        source = data(context, builder, frame_type, args[0])
        starts = data(context, builder, offsets_type, args[1])
        weights = builder.gep(data(context, builder, weight_type, args[2]), [args[3]])
        factors = data(context, builder, places_type, args[4])
        target = data(context, builder, result_type, args[8])
        taps = _length(context, builder, offsets_type, args[1])
        fresh = splat(builder, args[6], vector)

        def block(first: Any, vectors: int) -> None:
            to = builder.gep(target, [first])
            at = [I64(v * vector.count) for v in range(vectors)]

            def step(tap: Any, sums: list[Any]) -> list[Any]:
                start = builder.add(first, builder.load(builder.gep(starts, [tap])))
                run = builder.gep(source, [start])
                place = builder.load(builder.gep(factors, [tap]))
                factor = splat(builder, builder.load(builder.gep(weights, [place])), vector)
                return [
                    multiply_add(builder, factor, load(builder, run, v, vector), total)
                    for v, total in zip(at, sums, strict=True)
                ]

            begin = [builder.select(args[7], load(builder, to, v, vector), fresh) for v in at]
            for v, total in zip(at, _each_tap(builder, taps, begin, step), strict=True):
                builder.store(total, vector_at(builder, to, v, vector), align=alignment(vector))

        _each_block(builder, args[5], vector, block)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def dot_taps(
    typing: Any, grad: Any, frame: Any, offsets: Any, tap: Any, first: Any, vectors: Any, sums: Any
) -> tuple[Any, Callable[..., Any]]:
    """``sums[tap + t] += sum of grad[q] * frame[offsets[tap + t] + q]``, t below TAPS.

    q runs over so many ``vectors`` from ``first`` on; offsets and sums have TAPS elements more than
    there are taps.
    """
    size = types.intp
    signature = types.void(grad, frame, offsets, size, size, size, sums)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        grad_type, frame_type, offsets_type, sums_type = (signature.args[i] for i in (0, 1, 2, 6))
        vector = vector_type(frame_type.dtype, context)
        slope = builder.gep(data(context, builder, grad_type, args[0]), [args[4]])
        source = builder.gep(data(context, builder, frame_type, args[1]), [args[4]])
        starts = builder.gep(data(context, builder, offsets_type, args[2]), [args[3]])
        target = builder.gep(data(context, builder, sums_type, args[6]), [args[3]])
        runs = [
            builder.gep(source, [builder.load(builder.gep(starts, [I64(t)]))]) for t in range(TAPS)
        ]

        def step(index: Any, totals: list[Any]) -> list[Any]:
            q = builder.mul(index, I64(vector.count))
            value = load(builder, slope, q, vector)
            return [
                multiply_add(builder, value, load(builder, run, q, vector), total)
                for run, total in zip(runs, totals, strict=True)
            ]

        nothing = [ir.Constant(vector, [0.0] * vector.count)] * TAPS
        for t, total in enumerate(_each_tap(builder, args[5], nothing, step)):
            place = builder.gep(target, [I64(t)])
            summed = _sum_lanes(builder, total)
            if summed.type != ir.DoubleType():
                summed = builder.fpext(summed, ir.DoubleType())
            builder.store(builder.fadd(builder.load(place), summed), place)
        return context.get_dummy_value()

    return signature, generate


def _sum_lanes(builder: Any, vector: Any) -> Any:
    """Halves added until one lane is left."""
    while vector.type.count > 1:
        half = vector.type.count // 2
        low, high = (
            builder.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(I32, half), lanes))
            for lanes in (list(range(half)), list(range(half, 2 * half)))
        )
        vector = builder.fadd(low, high)
    return builder.extract_element(vector, I32(0))


def _length(context: Any, builder: Any, array_type: Any, array: Any) -> Any:
    return context.make_array(array_type)(context, builder, array).nitems
