"""The passes of batch normalisation over one row, written in LLVM's IR: short rows fill vectors too.

Sums are taken lane by lane, in the row's precision for up to CHUNK elements, then in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .microkernel import below
from .vectors import (
    I64,
    alignment,
    data,
    load,
    loop,
    masked_load,
    masked_store,
    splat,
    vector_at,
    vector_type,
)

#: Elements that are summed in their own precision: 32 a lane where a vector has eight.
CHUNK = 1024
#: Vectors of a row that are in registers at once.
_BLOCK = 4

Values = list[Any]


class _Row:
    """``count`` elements of several arrays, by vectors."""

    def __init__(self, context: Any, builder: Any, element: Any, count: Any) -> None:
        self._context = context
        self._builder = builder
        self._count = count
        self.vector = vector_type(element, context)

    def at(self, array_type: Any, array: Any, index: Any) -> Any:
        return self._builder.gep(data(self._context, self._builder, array_type, array), [index])

    def read(self, pointer: Any, first: Any, mask: Any) -> Any:
        if mask is None:
            return load(self._builder, pointer, first, self.vector)
        place = vector_at(self._builder, pointer, first, self.vector)
        return masked_load(self._builder, place, mask, self.vector)

    def write(self, value: Any, pointer: Any, first: Any, mask: Any) -> None:
        place = vector_at(self._builder, pointer, first, self.vector)
        if mask is None:
            self._builder.store(value, place, align=alignment(self.vector))
        else:
            masked_store(self._builder, value, place, mask)

    def reduce(self, start: Values, step: Callable[[Values, Any, Any], Values]) -> Values:
        """``values = step(values, first element, mask)`` for every vector, the last one masked.

        Blocks of vectors go on from ``start`` by themselves; then they are added.
        """
        builder, length = self._builder, self.vector.count
        number = len(start)
        values, done = [*start] * _BLOCK, I64(0)
        for vectors in (_BLOCK, 1):
            size = I64(vectors * length)
            blocks = builder.sdiv(builder.sub(self._count, done), size)

            def block(
                index: Any,
                values: Values,
                vectors: int = vectors,
                done: Any = done,
                size: Any = size,
            ) -> Values:
                first = builder.add(done, builder.mul(index, size))
                return [
                    value
                    for v in range(vectors)
                    for value in step(
                        values[v * number : (v + 1) * number],
                        builder.add(first, I64(v * length)),
                        None,
                    )
                ]

            used = vectors * number
            values[:used] = loop(builder, blocks, values[:used], block)
            done = builder.add(done, builder.mul(blocks, size))
        left = builder.sub(self._count, done)
        before = builder.block
        with builder.if_then(builder.icmp_signed(">", left, I64(0))):
            cut = step(values[:number], done, below(builder, self.vector, left))
            cut_block = builder.block
        for index, value in enumerate(cut):
            last = builder.phi(value.type)
            last.add_incoming(values[index], before)
            last.add_incoming(value, cut_block)
            values[index] = last
        return [
            builder.fadd(
                builder.fadd(values[index], values[index + number]),
                builder.fadd(values[index + 2 * number], values[index + 3 * number]),
            )
            for index in range(number)
        ]

    def each(self, body: Callable[[Any, Any], None]) -> None:
        """``body(first element, mask)`` for every vector."""
        builder, length = self._builder, I64(self.vector.count)
        whole = builder.sdiv(self._count, length)

        def step(index: Any, values: Values) -> Values:
            body(builder.mul(index, length), None)
            return values

        loop(builder, whole, [], step)
        done = builder.mul(whole, length)
        left = builder.sub(self._count, done)
        with builder.if_then(builder.icmp_signed(">", left, I64(0))):
            body(done, below(builder, self.vector, left))

    def add_to(self, totals: Any, sums: Values) -> None:
        """Add each of the sums to as many elements of ``totals``, one after another."""
        builder = self._builder
        double = ir.VectorType(ir.DoubleType(), self.vector.count)
        for index, value in enumerate(sums):
            wide = value if value.type == double else builder.fpext(value, double)
            first = I64(index * double.count)
            before = load(builder, totals, first, double)
            place = vector_at(builder, totals, first, double)
            builder.store(builder.fadd(before, wide), place, align=alignment(double))


@intrinsic
def add_sum(
    typing: Any, x: Any, at: Any, count: Any, totals: Any
) -> tuple[Any, Callable[..., Any]]:
    """``totals[l] += sum of x[at + i]`` over the elements of lane l."""
    size = types.intp

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        row = _Row(context, builder, signature.args[0].dtype, args[2])
        source = row.at(signature.args[0], args[0], args[1])

        def step(values: Values, first: Any, mask: Any) -> Values:
            return [builder.fadd(values[0], row.read(source, first, mask))]

        sums = row.reduce([ir.Constant(row.vector, None)], step)
        row.add_to(row.at(signature.args[3], args[3], I64(0)), sums)
        return context.get_dummy_value()

    return types.void(x, size, size, totals), generate


@intrinsic
def add_deviations(
    typing: Any, x: Any, at: Any, count: Any, center: Any, totals: Any
) -> tuple[Any, Callable[..., Any]]:
    """As `add_sum`, of ``x - center``, and one vector on of its squares."""
    size = types.intp

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        row = _Row(context, builder, signature.args[0].dtype, args[2])
        source = row.at(signature.args[0], args[0], args[1])
        middle, zero = splat(builder, args[3], row.vector), ir.Constant(row.vector, None)

        def step(values: Values, first: Any, mask: Any) -> Values:
            deviation = builder.fsub(row.read(source, first, mask), middle)
            if mask is not None:
                deviation = builder.select(mask, deviation, zero)
            square = builder.fmul(deviation, deviation)
            return [builder.fadd(values[0], deviation), builder.fadd(values[1], square)]

        row.add_to(row.at(signature.args[4], args[4], I64(0)), row.reduce([zero, zero], step))
        return context.get_dummy_value()

    return types.void(x, size, size, x.dtype, totals), generate


@intrinsic
def add_products(
    typing: Any, grad: Any, x: Any, at: Any, count: Any, center: Any, totals: Any
) -> tuple[Any, Callable[..., Any]]:
    """As `add_sum`, of ``grad``, and one vector on of ``grad * (x - center)``."""
    size = types.intp

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        row = _Row(context, builder, signature.args[1].dtype, args[3])
        slopes = row.at(signature.args[0], args[0], args[2])
        source = row.at(signature.args[1], args[1], args[2])
        middle, zero = splat(builder, args[4], row.vector), ir.Constant(row.vector, None)

        def step(values: Values, first: Any, mask: Any) -> Values:
            slope = row.read(slopes, first, mask)
            deviation = builder.fsub(row.read(source, first, mask), middle)
            if mask is not None:
                deviation = builder.select(mask, deviation, zero)
            product = builder.fmul(slope, deviation)
            return [builder.fadd(values[0], slope), builder.fadd(values[1], product)]

        row.add_to(row.at(signature.args[5], args[5], I64(0)), row.reduce([zero, zero], step))
        return context.get_dummy_value()

    return types.void(grad, x, size, size, x.dtype, totals), generate


@intrinsic
def scale_row(
    typing: Any, x: Any, at: Any, count: Any, mean: Any, scale: Any, shift: Any, lowest: Any,
    out: Any,
) -> tuple[Any, Callable[..., Any]]:  # fmt: skip
    """``out[at + i] = max((x[at + i] - mean) * scale + shift, lowest)``, NaN as it is."""
    size = types.intp

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        row = _Row(context, builder, signature.args[0].dtype, args[2])
        source = row.at(signature.args[0], args[0], args[1])
        target = row.at(signature.args[7], args[7], args[1])
        middle, factor, added, floor = (splat(builder, value, row.vector) for value in args[3:7])

        def body(first: Any, mask: Any) -> None:
            value = builder.fsub(row.read(source, first, mask), middle)
            value = builder.fadd(builder.fmul(value, factor), added)
            value = builder.select(builder.fcmp_ordered("<", value, floor), floor, value)
            row.write(value, target, first, mask)

        row.each(body)
        return context.get_dummy_value()

    return types.void(x, size, size, *[x.dtype] * 4, out), generate


@intrinsic
def grad_row(
    typing: Any, grad: Any, x: Any, at: Any, count: Any, share: Any, center: Any, slope: Any,
    scale: Any, out: Any,
) -> tuple[Any, Callable[..., Any]]:  # fmt: skip
    """``out = ((grad - share) - (x - center) * slope) * scale``, of ``count`` elements from at on."""
    size = types.intp

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        row = _Row(context, builder, signature.args[1].dtype, args[3])
        slopes = row.at(signature.args[0], args[0], args[2])
        source = row.at(signature.args[1], args[1], args[2])
        target = row.at(signature.args[8], args[8], args[2])
        part, middle, factor, all_by = (splat(builder, value, row.vector) for value in args[4:8])

        def body(first: Any, mask: Any) -> None:
            deviation = builder.fsub(row.read(source, first, mask), middle)
            rest = builder.fsub(row.read(slopes, first, mask), part)
            rest = builder.fsub(rest, builder.fmul(deviation, factor))
            row.write(builder.fmul(rest, all_by), target, first, mask)

        row.each(body)
        return context.get_dummy_value()

    return types.void(grad, x, size, size, *[x.dtype] * 4, out), generate
