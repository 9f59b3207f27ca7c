"""One row of a pool, windows side by side in the lanes of vectors, written in LLVM's IR.

The windows of a row read ``rows`` rows of an image, ``row_step`` elements apart, and ``taps`` columns
of each, ``tap_step`` apart. A maximum and a mean reduce the rows to one, then its columns; where a
maximum stands is found tap by tap. Rows outside of the image are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.cgutils import for_range
from numba.extending import intrinsic

from .microkernel import below, lane_numbers, many, read_window
from .vectors import (
    I32,
    I64,
    alignment,
    data,
    gather,
    load,
    loop,
    masked_load,
    masked_store,
    splat,
    vector_at,
    vector_type,
)

#: Vectors of a row that are in registers at once.
_BLOCK = 4

Values = list[Any]


class _Row:
    """Windows tap by tap: window j begins at ``source[at + j * step]``, in column
    ``column + j * step`` of ``width``. Columns outside of the image are passed over.
    """

    def __init__(self, context: Any, builder: Any, signature: Any, args: Any) -> None:
        self._builder = builder
        (_, at, self._column, self._width, self._step, self._rows, self._row_step, self._taps,
         self._tap_step) = args[:9]  # fmt: skip
        source = signature.args[0]
        self.vector = vector_type(source.dtype, context)
        self._source = builder.gep(data(context, builder, source, args[0]), [at])

    def reduce(
        self, first: Any, outside: float, start: Values,
        step: Callable[[Values, Any, Any], Values],
    ) -> Values:  # fmt: skip
        """``values = step(values, pixels, offset)`` for every tap of the windows from ``first`` on.

        ``offset`` tells elements from the first row and column.
        """
        builder = self._builder
        shift = builder.mul(first, self._step)
        column = builder.add(self._column, shift)
        windows = builder.gep(self._source, [shift])
        nothing = ir.Constant(self.vector, [outside] * self.vector.count)

        def row(index: Any, values: Values) -> Values:
            begin = builder.mul(index, self._row_step)

            def tap(index: Any, values: Values) -> Values:
                along = builder.mul(index, self._tap_step)
                offset = builder.add(begin, along)
                pixels = read_window(
                    builder, builder.gep(windows, [offset]), builder.add(column, along),
                    self._width, self._step, nothing,
                )  # fmt: skip
                return step(values, pixels, offset)

            return loop(builder, self._taps, values, tap)

        return loop(builder, self._rows, start, row)


def _store(builder: Any, value: Any, pointer: Any, first: Any, count: Any, room: Any) -> None:
    """The lanes below ``count - first``; with ``room`` the others too, which is faster."""
    place = vector_at(builder, pointer, first, value.type)
    left = builder.sub(count, first)
    whole = builder.or_(room, builder.icmp_signed(">=", left, I64(value.type.count)))
    with builder.if_else(whole) as (then, otherwise):
        with then:
            builder.store(value, place, align=alignment(value.type))
        with otherwise:
            masked_store(builder, value, place, below(builder, value.type, left))


def _each_vector(builder: Any, count: Any, vector: Any, body: Callable[[Any], None]) -> None:
    length = I64(vector.count)
    vectors = builder.sdiv(builder.add(count, I64(vector.count - 1)), length)
    with for_range(builder, vectors) as turn:
        body(builder.mul(turn.index, length))


def _signature(source: Any, *more: Any) -> Any:
    return types.void(source, *[types.intp] * 8, *more)


class _Separated:
    """Windows whose rows are reduced to one first, in ``buffer`` from ``left`` on.

    The buffer holds ``outside`` before the row and beyond it.
    """

    def __init__(
        self, context: Any, builder: Any, signature: Any, args: Any, outside: float,
        combine: Callable[[Any, Any], Any],
    ) -> None:  # fmt: skip
        self._builder = builder
        self._combine = combine
        source, buffer = signature.args[0], signature.args[5]
        self.vector = vector_type(source.dtype, context)
        self._start = ir.Constant(self.vector, [outside] * self.vector.count)
        self._source = builder.gep(data(context, builder, source, args[0]), [args[1]])
        self._buffer = data(context, builder, buffer, args[5])
        self._width, self._rows, self._row_step, self._left = args[2], args[3], args[4], args[6]
        self._taps, self._tap_step, self._step = args[7:10]

    def reduce_rows(self) -> None:
        builder, length = self._builder, self.vector.count
        target = builder.gep(self._buffer, [self._left])
        done = I64(0)
        for vectors in (_BLOCK, 1):
            size = I64(vectors * length)
            blocks = builder.sdiv(builder.sub(self._width, done), size)
            with for_range(builder, blocks) as turn:
                first = builder.add(done, builder.mul(turn.index, size))
                self._reduce_block(target, first, vectors, None)
            done = builder.add(done, builder.mul(blocks, size))
        left = builder.sub(self._width, done)
        with builder.if_then(builder.icmp_signed(">", left, I64(0))):
            self._reduce_block(target, done, 1, below(builder, self.vector, left))

    def _reduce_block(self, target: Any, first: Any, vectors: int, mask: Any) -> None:
        builder = self._builder
        begin = builder.gep(self._source, [first])
        at = [I64(v * self.vector.count) for v in range(vectors)]

        def row(index: Any, values: Values) -> Values:
            line = builder.gep(begin, [builder.mul(index, self._row_step)])
            return [
                self._combine(value, self._read(line, v, mask))
                for v, value in zip(at, values, strict=True)
            ]

        to = builder.gep(target, [first])
        reduced = loop(builder, self._rows, [self._start] * vectors, row)
        for v, value in zip(at, reduced, strict=True):
            builder.store(
                value, vector_at(builder, to, v, self.vector), align=alignment(self.vector)
            )

    def _read(self, line: Any, at: Any, mask: Any) -> Any:
        if mask is None:
            return load(self._builder, line, at, self.vector)
        place = vector_at(self._builder, line, at, self.vector)
        return masked_load(self._builder, place, mask, self.vector, self._start)

    def reduce_columns(self, count: Any, body: Callable[[Any, Any], None]) -> None:
        """``body(first, values)`` for vectors of windows that cover ``count``."""
        builder, length = self._builder, self.vector.count
        evens = ir.Constant(ir.VectorType(I32, length), list(range(0, 2 * length, 2)))

        def neighbours(line: Any) -> Any:
            return load(builder, line, I64(0), self.vector)

        def every_second(line: Any) -> Any:
            both = [load(builder, line, I64(at), self.vector) for at in (0, length)]
            return builder.shuffle_vector(*both, evens)

        def apart(line: Any) -> Any:
            steps = builder.mul(
                lane_numbers(self.vector, I64), splat(builder, self._step, many(self.vector))
            )
            everywhere = ir.Constant(ir.VectorType(ir.IntType(1), length), [1] * length)
            return gather(builder, line, steps, everywhere, self.vector, self._start)

        end = builder.append_basic_block("pool.columns.end")
        blocks = [builder.append_basic_block(f"pool.step.{name}") for name in ("1", "2", "more")]
        choice = builder.switch(self._step, blocks[-1])
        for step, block in enumerate(blocks[:-1], 1):
            choice.add_case(I64(step), block)
        for block, read in zip(blocks, (neighbours, every_second, apart), strict=True):
            builder.position_at_end(block)

            def windows(first: Any, read: Callable[[Any], Any] = read) -> None:
                begin = builder.gep(self._buffer, [builder.mul(first, self._step)])

                def tap(index: Any, values: Values) -> Values:
                    line = builder.gep(begin, [builder.mul(index, self._tap_step)])
                    return [self._combine(values[0], read(line))]

                body(first, loop(builder, self._taps, [self._start], tap)[0])

            _each_vector(builder, count, self.vector, windows)
            builder.branch(end)
        builder.position_at_end(end)


def _separated_signature(source: Any, buffer: Any, *more: Any) -> Any:
    size = types.intp
    return types.void(source, *[size] * 4, buffer, *[size] * 5, types.boolean, *more)


@intrinsic
def max_row(
    typing: Any, source: Any, at: Any, width: Any, rows: Any, row_step: Any, buffer: Any,
    left: Any, taps: Any, tap_step: Any, step: Any, count: Any, room: Any, out: Any, place: Any,
) -> tuple[Any, Callable[..., Any]]:  # fmt: skip
    """``out[place + j] = max of window j``, NaN if any is, j below ``count``.

    With ``room``, anything may be written to the rest of the last vector.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def larger(best: Any, pixels: Any) -> Any:
            # Of two, the second unless the first is larger: a NaN among pixels, not in best.
            either = builder.select(builder.fcmp_ordered(">", best, pixels), best, pixels)
            return builder.select(builder.fcmp_unordered("uno", best, best), best, either)

        windows = _Separated(context, builder, signature, args, float("-inf"), larger)
        target = builder.gep(data(context, builder, signature.args[12], args[12]), [args[13]])
        windows.reduce_rows()
        windows.reduce_columns(
            args[10],
            lambda first, best: _store(builder, best, target, first, args[10], args[11]),
        )
        return context.get_dummy_value()

    return _separated_signature(source, buffer, out, types.intp), generate


@intrinsic
def max_row_where(
    typing: Any, source: Any, at: Any, column: Any, width: Any, step: Any, rows: Any,
    row_step: Any, taps: Any, tap_step: Any, count: Any, room: Any, out: Any, place: Any,
    position: Any, indices: Any, otherwise: Any, other: Any,
) -> tuple[Any, Callable[..., Any]]:  # fmt: skip
    """As `max_row` of `_Row`'s windows, and ``indices[place + j]`` is where the maximum stands.

    The first row and column of window j is ``position + j * step``. A window of nothing but -inf
    has ``other + otherwise[j]``, which is readable to a whole vector.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        row = _Row(context, builder, signature, args)
        count, room, _, place, position, _, _, other = args[9:]
        target = builder.gep(data(context, builder, signature.args[11], args[11]), [place])
        found = builder.gep(data(context, builder, signature.args[14], args[14]), [place])
        others = data(context, builder, signature.args[15], args[15])
        integer = I32 if row.vector.element == ir.FloatType() else I64
        offsets = ir.VectorType(integer, row.vector.count)
        nowhere = ir.Constant(offsets, [-1] * offsets.count)
        lowest = ir.Constant(row.vector, [float("-inf")] * row.vector.count)
        long = many(row.vector)
        steps = builder.mul(lane_numbers(row.vector, I64), splat(builder, args[4], long))

        def larger(values: Values, pixels: Any, offset: Any) -> Values:
            best, where = values
            better = builder.or_(
                builder.fcmp_ordered(">", pixels, best),
                builder.fcmp_unordered("uno", pixels, pixels),
            )
            offset = builder.trunc(offset, I32) if integer == I32 else offset
            here = splat(builder, offset, offsets)
            return [builder.select(better, pixels, best), builder.select(better, here, where)]

        def body(first: Any) -> None:
            best, where = row.reduce(first, float("-inf"), [lowest, nowhere], larger)
            _store(builder, best, target, first, count, room)
            begin = builder.add(position, builder.mul(first, args[4]))
            wide = builder.sext(where, long) if integer == I32 else where
            taken = builder.add(wide, builder.add(steps, splat(builder, begin, long)))
            none = builder.load(vector_at(builder, others, first, long), align=8)
            none = builder.add(none, splat(builder, other, long))
            missing = builder.icmp_signed("<", wide, ir.Constant(long, [0] * long.count))
            _store(builder, builder.select(missing, none, taken), found, first, count, room)

        _each_vector(builder, count, row.vector, body)
        return context.get_dummy_value()

    return _signature(
        source, types.intp, types.boolean, out, types.intp, types.intp, indices, otherwise,
        types.intp,
    ), generate  # fmt: skip


@intrinsic
def mean_row(
    typing: Any, source: Any, at: Any, width: Any, rows: Any, row_step: Any, buffer: Any,
    left: Any, taps: Any, tap_step: Any, step: Any, count: Any, room: Any, out: Any, place: Any,
    height: Any, widths: Any,
) -> tuple[Any, Callable[..., Any]]:  # fmt: skip
    """``out[place + j] = sum of window j / (height * widths[j])``; else as `max_row`.

    ``widths`` is readable to a whole vector.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        windows = _Separated(context, builder, signature, args, 0.0, builder.fadd)
        target = builder.gep(data(context, builder, signature.args[12], args[12]), [args[13]])
        tall = splat(builder, args[14], windows.vector)
        divisors = data(context, builder, signature.args[15], args[15])

        def divide(first: Any, total: Any) -> None:
            size = builder.fmul(tall, load(builder, divisors, first, windows.vector))
            _store(builder, builder.fdiv(total, size), target, first, args[10], args[11])

        windows.reduce_rows()
        windows.reduce_columns(args[10], divide)
        return context.get_dummy_value()

    return _separated_signature(
        source, buffer, out, types.intp, source.dtype, widths
    ), generate  # fmt: skip


@intrinsic
def spread_row(
    typing: Any, grad: Any, at: Any, width: Any, rows: Any, heights: Any, first_height: Any,
    widths: Any, buffer: Any, left: Any, taps: Any, step: Any, pad: Any, count: Any, room: Any,
    out: Any, place: Any,
) -> tuple[Any, Callable[..., Any]]:  # fmt: skip
    """Of ``rows`` rows of windows, ``width`` each, the shares that one row of the image gets.

    ``out[place + x] = sum of shares[j] over the windows j whose taps b reach x = j * step - pad + b``
    for x below ``count``; ``shares[j] = widths[j] * sum of heights[first_height + r] * grad[at +
    r * width + j]``. ``step`` is 1 or 2, and ``taps`` at most ``left``. The buffer is zero outside of
    the row of shares. With ``room``, anything may be written to the rest of two vectors.
    """
    size = types.intp
    signature = types.void(
        grad, size, size, size, heights, size, widths, buffer, size, size, size, size, size,
        types.boolean, out, size,
    )  # fmt: skip

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        width, rows, left, taps, step, pad, count, room = (
            args[i] for i in (2, 3, 8, 9, 10, 11, 12, 13)
        )
        vector = vector_type(signature.args[0].dtype, context)
        zero = ir.Constant(vector, None)

        def begin(argument: int, index: Any) -> Any:
            array = data(context, builder, signature.args[argument], args[argument])
            return builder.gep(array, [index])

        source, target = begin(0, args[1]), begin(14, args[15])
        tall, wide, shares = begin(4, args[5]), begin(6, I64(0)), begin(7, left)

        def reduce_rows(first: Any, mask: Any) -> None:
            def row(index: Any, values: Values) -> Values:
                line = builder.gep(source, [builder.add(first, builder.mul(index, width))])
                pixels = (
                    load(builder, line, I64(0), vector)
                    if mask is None
                    else masked_load(
                        builder, vector_at(builder, line, I64(0), vector), mask, vector
                    )
                )
                factor = splat(builder, builder.load(builder.gep(tall, [index])), vector)
                return [builder.fadd(values[0], builder.fmul(factor, pixels))]

            (total,) = loop(builder, rows, [zero], row)
            total = builder.fmul(total, load(builder, wide, first, vector))
            if mask is not None:
                total = builder.select(mask, total, zero)
            place = vector_at(builder, shares, first, vector)
            builder.store(total, place, align=alignment(vector))

        def phase(number: int) -> tuple[Any, Any]:
            """Of the pixels ``step * t + number``: the last window's start, and how many windows."""
            shifted = builder.add(pad, I64(number))
            beyond = builder.sub(taps, builder.srem(shifted, step))
            count = builder.sdiv(builder.add(beyond, builder.sub(step, I64(1))), step)
            return builder.gep(shares, [builder.sdiv(shifted, step)]), count

        phases = [phase(0), phase(1)]

        def windows(first: Any, number: int) -> Any:
            """The sum of the windows that hold the pixels ``step * (first + l) + number``."""
            start, windows = phases[number]
            last = builder.gep(start, [first])

            def window(index: Any, values: Values) -> Values:
                line = builder.gep(last, [builder.neg(index)])
                return [builder.fadd(values[0], load(builder, line, I64(0), vector))]

            return loop(builder, windows, [zero], window)[0]

        whole = builder.mul(builder.sdiv(width, I64(vector.count)), I64(vector.count))
        _each_vector(builder, whole, vector, lambda first: reduce_rows(first, None))
        left_over = builder.sub(width, whole)
        with builder.if_then(builder.icmp_signed(">", left_over, I64(0))):
            reduce_rows(whole, below(builder, vector, left_over))
        single = builder.icmp_signed("==", step, I64(1))
        with builder.if_else(single) as (then, otherwise):
            with then:
                _each_vector(
                    builder, count, vector,
                    lambda x: _store(builder, windows(x, 0), target, x, count, room),
                )  # fmt: skip
            with otherwise:
                length = vector.count

                def pairs(first: Any) -> None:
                    both = windows(first, 0), windows(first, 1)
                    for part in range(2):
                        half = range(part * length // 2, (part + 1) * length // 2)
                        order = [lane for t in half for lane in (t, length + t)]
                        mixed = builder.shuffle_vector(
                            *both, ir.Constant(ir.VectorType(I32, length), order)
                        )
                        x = builder.add(builder.mul(first, I64(2)), I64(part * length))
                        _store(builder, mixed, target, x, count, room)

                half_count = builder.sdiv(builder.add(count, I64(1)), I64(2))
                _each_vector(builder, half_count, vector, pairs)
        return context.get_dummy_value()

    return signature, generate
