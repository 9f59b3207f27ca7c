"""Passes over one row of elements by vectors, the last one of as many lanes as are left.

A line of the cache that is written whole need not be read first: an output that would push everything
else out of the caches is stored past them, and memory moves a third less.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from llvmlite import ir

from ..table import Array
from .microkernel import below
from .vectors import (
    I32,
    I64,
    alignment,
    data,
    load,
    loop,
    masked_load,
    masked_store,
    vector_at,
    vector_type,
)

#: Vectors of a row that are in registers at once.
_BLOCK = 4
_CACHE_LINE = 64
#: Rows of fewer elements end within lines too often to be stored past the caches.
_SHORTEST_ROW = 128
#: Bytes of the last-level cache, where the system does not say.
_USUAL_CACHE = 32 << 20

Values = list[Any]


@cache
def _last_level_cache() -> int:
    """Bytes, as Linux tells them: "32768K"."""
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text().strip()
        if text.endswith("K"):
            sizes.append(int(text[:-1]) << 10)
    return max(sizes, default=_USUAL_CACHE)


def goes_past(out: Array, row: int) -> bool:
    """Whether rows of so many elements of ``out`` are better stored past the caches."""
    return out.nbytes > _last_level_cache() // 2 and row >= _SHORTEST_ROW


class Row:
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

    def each(self, target: Any, past: Any, compute: Callable[[Any, Any], Any]) -> None:
        """Write ``compute(first element, mask)`` of every vector; with ``past``, whole lines of the
        cache go past it.
        """
        builder, length = self._builder, I64(self.vector.count)
        with builder.if_else(past) as (then, otherwise):
            with then:
                self._each_past(target, compute)
            with otherwise:
                whole = builder.mul(builder.sdiv(self._count, length), length)
                self._whole(target, I64(0), whole, compute, False)
                with builder.if_then(builder.icmp_signed("<", whole, self._count)):
                    self._cut(target, whole, self._count, compute)

    def _each_past(self, target: Any, compute: Callable[[Any, Any], Any]) -> None:
        builder, size = self._builder, I64(alignment(self.vector))
        line = I64(_CACHE_LINE // size.constant)
        missing = builder.and_(builder.neg(builder.ptrtoint(target, I64)), I64(_CACHE_LINE - 1))
        head = builder.udiv(missing, size)
        head = builder.select(builder.icmp_signed("<", head, self._count), head, self._count)
        lines = builder.mul(builder.sdiv(builder.sub(self._count, head), line), line)
        last = builder.add(head, lines)
        self._each_cut(target, I64(0), head, compute)
        self._whole(target, head, lines, compute, True)
        self._each_cut(target, last, self._count, compute)

    def _whole(
        self, target: Any, start: Any, count: Any, compute: Callable[[Any, Any], Any], past: bool
    ) -> None:
        """Whole vectors from ``start`` on, of ``count`` elements."""
        builder, length = self._builder, I64(self.vector.count)
        size = alignment(self.vector)

        def step(index: Any, values: Values) -> Values:
            first = builder.add(start, builder.mul(index, length))
            place = vector_at(builder, target, first, self.vector)
            value = compute(first, None)
            stored = builder.store(value, place, align=size * self.vector.count if past else size)
            if past:
                stored.set_metadata("nontemporal", builder.module.add_metadata([I32(1)]))
            return values

        loop(builder, builder.sdiv(count, length), [], step)

    def _each_cut(
        self, target: Any, start: Any, stop: Any, compute: Callable[[Any, Any], Any]
    ) -> None:
        """Less than a line of elements, a vector under a mask at a time."""
        builder, length = self._builder, I64(self.vector.count)
        missing = builder.add(builder.sub(stop, start), I64(self.vector.count - 1))

        def step(index: Any, values: Values) -> Values:
            self._cut(target, builder.add(start, builder.mul(index, length)), stop, compute)
            return values

        loop(builder, builder.sdiv(missing, length), [], step)

    def _cut(self, target: Any, first: Any, stop: Any, compute: Callable[[Any, Any], Any]) -> None:
        mask = below(self._builder, self.vector, self._builder.sub(stop, first))
        place = vector_at(self._builder, target, first, self.vector)
        masked_store(self._builder, compute(first, mask), place, mask)

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
