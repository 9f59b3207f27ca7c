"""The passes of batch normalisation over one row, written in LLVM's IR: short rows fill vectors too.

Sums are taken lane by lane, in the row's precision for up to CHUNK elements, then in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .rows import Row, Values
from .vectors import I64, splat

#: Elements that are summed in their own precision: 32 a lane where a vector has eight.
CHUNK = 1024


@intrinsic
def add_sum(
    typing: Any, x: Any, at: Any, count: Any, totals: Any
) -> tuple[Any, Callable[..., Any]]:
    """``totals[l] += sum of x[at + i]`` over the elements of lane l."""
    size = types.intp

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        row = Row(context, builder, signature.args[0].dtype, args[2])
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
        row = Row(context, builder, signature.args[0].dtype, args[2])
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
        row = Row(context, builder, signature.args[1].dtype, args[3])
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
    out: Any, past: Any,
) -> tuple[Any, Callable[..., Any]]:  # fmt: skip
    """``out[at + i] = max((x[at + i] - mean) * scale + shift, lowest)``, NaN as it is."""
    size = types.intp

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        row = Row(context, builder, signature.args[0].dtype, args[2])
        source = row.at(signature.args[0], args[0], args[1])
        target = row.at(signature.args[7], args[7], args[1])
        middle, factor, added, floor = (splat(builder, value, row.vector) for value in args[3:7])

        def compute(first: Any, mask: Any) -> Any:
            value = builder.fsub(row.read(source, first, mask), middle)
            value = builder.fadd(builder.fmul(value, factor), added)
            return builder.select(builder.fcmp_ordered("<", value, floor), floor, value)

        row.each(target, args[8], compute)
        return context.get_dummy_value()

    return types.void(x, size, size, *[x.dtype] * 4, out, types.boolean), generate


@intrinsic
def grad_row(
    typing: Any, grad: Any, x: Any, at: Any, count: Any, share: Any, center: Any, slope: Any,
    scale: Any, out: Any, past: Any,
) -> tuple[Any, Callable[..., Any]]:  # fmt: skip
    """``out = ((grad - share) - (x - center) * slope) * scale``, of ``count`` elements from at on."""
    size = types.intp

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        row = Row(context, builder, signature.args[1].dtype, args[3])
        slopes = row.at(signature.args[0], args[0], args[2])
        source = row.at(signature.args[1], args[1], args[2])
        target = row.at(signature.args[8], args[8], args[2])
        part, middle, factor, all_by = (splat(builder, value, row.vector) for value in args[4:8])

        def compute(first: Any, mask: Any) -> Any:
            deviation = builder.fsub(row.read(source, first, mask), middle)
            rest = builder.fsub(row.read(slopes, first, mask), part)
            rest = builder.fsub(rest, builder.fmul(deviation, factor))
            return builder.fmul(rest, all_by)

        row.each(target, args[9], compute)
        return context.get_dummy_value()

    return types.void(grad, x, size, size, *[x.dtype] * 4, out, types.boolean), generate
