"""The transforms of Winograd's F(4x4, 3x3), one vector of tiles or filters at a time.

    Y = A^T [ (G g G^T) * (B^T d B) ] A      d: 6x6 inputs, g: 3x3 filter, Y: 4x4 outputs

(Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section 4.)
The polynomials are interpolated at 0, +-a, +-b and infinity, a = 3/4 and b = 3/2, which keep the
error of float32 at half of that of the usual 0, +-1, +-2. The scale of each point is left to A^T.

Written in LLVM's IR: a matrix of vectors is all in one straight line, which Numba's vectoriser
would have to find in loops over 36 places of one array.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .vectors import (
    I32,
    I64,
    alignment,
    data,
    load,
    masked_load,
    multiply_add,
    prefetch,
    splat,
    vector_at,
    vector_type,
)

#: Outputs and inputs of a tile along one axis, and its elements in the transformed domain.
TILE_OUT, TILE_IN, ELEMENTS = 4, 6, 36

_A, _B = 0.75, 1.5
_A2, _B2 = _A * _A, _B * _B
# The scales of 0, +-a and +-b.
_S0, _SA, _SB = 1 / (_A2 * _B2), 1 / (2 * _A2 * (_A2 - _B2)), 1 / (2 * _B2 * (_B2 - _A2))

Values = list[Any]
Transform = Callable[["_Arithmetic", Values], Values]


class _Arithmetic:
    """Vector instructions as formulas need them."""

    def __init__(self, builder: Any, vector: Any) -> None:
        self._builder = builder
        self._vector = vector

    def _constant(self, value: float) -> Any:
        return ir.Constant(self._vector, [value] * self._vector.count)

    def add(self, x: Any, y: Any) -> Any:
        return self._builder.fadd(x, y)

    def subtract(self, x: Any, y: Any) -> Any:
        return self._builder.fsub(x, y)

    def times(self, factor: float, x: Any) -> Any:
        return self._builder.fmul(self._constant(factor), x)

    def combine(self, factor: float, x: Any, y: Any) -> Any:
        """``factor * x + y``."""
        return multiply_add(self._builder, self._constant(factor), x, y)

    def at_least(self, floor: Any, x: Any) -> Any:
        return self._builder.select(self._builder.fcmp_ordered("<", x, floor), floor, x)


def _input(v: _Arithmetic, d: Values) -> Values:
    """B^T d."""
    even_a, odd_a = v.combine(-_B2, d[2], d[4]), v.combine(-_B2, d[1], d[3])
    even_b, odd_b = v.combine(-_A2, d[2], d[4]), v.combine(-_A2, d[1], d[3])
    return [
        v.combine(_A2 * _B2, d[0], v.combine(-_A2 - _B2, d[2], d[4])),
        v.combine(_A, odd_a, even_a),
        v.combine(-_A, odd_a, even_a),
        v.combine(_B, odd_b, even_b),
        v.combine(-_B, odd_b, even_b),
        v.combine(_A2 * _B2, d[1], v.combine(-_A2 - _B2, d[3], d[5])),
    ]


def _filter(v: _Arithmetic, g: Values) -> Values:
    """G g, without the scale."""
    even_a, even_b = v.combine(_A2, g[2], g[0]), v.combine(_B2, g[2], g[0])
    return [
        g[0],
        v.combine(_A, g[1], even_a),
        v.combine(-_A, g[1], even_a),
        v.combine(_B, g[1], even_b),
        v.combine(-_B, g[1], even_b),
        g[2],
    ]


def _output(v: _Arithmetic, m: Values) -> Values:
    """A^T m, with the scale."""
    even_a, odd_a = v.add(m[1], m[2]), v.subtract(m[1], m[2])
    even_b, odd_b = v.add(m[3], m[4]), v.subtract(m[3], m[4])
    return [
        v.combine(_S0, m[0], v.combine(_SA, even_a, v.times(_SB, even_b))),
        v.combine(_SA * _A, odd_a, v.times(_SB * _B, odd_b)),
        v.combine(_SA * _A2, even_a, v.times(_SB * _B2, even_b)),
        v.combine(_SA * _A * _A2, odd_a, v.combine(_SB * _B * _B2, odd_b, m[5])),
    ]


def _grad(v: _Arithmetic, y: Values) -> Values:
    """A y, without the scale: of the gradient, for that of the filter."""
    even_a, even_b = v.combine(_A2, y[2], y[0]), v.combine(_B2, y[2], y[0])
    odd_a = v.combine(_A * _A2, y[3], v.times(_A, y[1]))
    odd_b = v.combine(_B * _B2, y[3], v.times(_B, y[1]))
    return [
        y[0],
        v.add(even_a, odd_a),
        v.subtract(even_a, odd_a),
        v.add(even_b, odd_b),
        v.subtract(even_b, odd_b),
        y[3],
    ]


def _filter_grad(v: _Arithmetic, s: Values) -> Values:
    """G^T s, with the scale."""
    even_a, odd_a = v.add(s[1], s[2]), v.subtract(s[1], s[2])
    even_b, odd_b = v.add(s[3], s[4]), v.subtract(s[3], s[4])
    return [
        v.combine(_S0, s[0], v.combine(_SA, even_a, v.times(_SB, even_b))),
        v.combine(_SA * _A, odd_a, v.times(_SB * _B, odd_b)),
        v.combine(_SA * _A2, even_a, v.combine(_SB * _B2, even_b, s[5])),
    ]


def _both_ways(transform: Transform, v: _Arithmetic, matrix: list[Values]) -> list[Values]:
    """Of the columns, then of the rows."""
    columns = [transform(v, list(column)) for column in zip(*matrix, strict=True)]
    return [transform(v, list(row)) for row in zip(*columns, strict=True)]


class _Memory:
    """Vectors of an array, from an element of it on."""

    def __init__(self, builder: Any, pointer: Any, vector: Any) -> None:
        self._builder = builder
        self._pointer = pointer
        self._vector = vector

    def at(self, index: Any) -> _Memory:
        return _Memory(self._builder, self._builder.gep(self._pointer, [index]), self._vector)

    def load(self, index: Any) -> Any:
        return load(self._builder, self._pointer, index, self._vector)

    def store(self, index: Any, value: Any) -> None:
        self._builder.store(value, self.pointer(index), align=alignment(self._vector))

    def pointer(self, index: Any) -> Any:
        return vector_at(self._builder, self._pointer, index, self._vector)

    def load_four(self, index: Any) -> Any:
        four = ir.VectorType(self._vector.element, TILE_OUT)
        return load(self._builder, self._pointer, index, four)

    def load_some(self, index: Any, mask: Any) -> Any:
        """Of the four, those of a mask; the others are zero."""
        four = ir.VectorType(self._vector.element, TILE_OUT)
        return masked_load(
            self._builder, vector_at(self._builder, self._pointer, index, four), mask, four
        )

    def store_one(self, index: Any, value: Any) -> None:
        place = self._builder.gep(self._pointer, [index])
        self._builder.store(value, place, align=alignment(self._vector))

    def store_four(self, index: Any, value: Any) -> None:
        place = vector_at(self._builder, self._pointer, index, value.type)
        self._builder.store(value, place, align=alignment(value.type))

    def load_matrix(self, rows: int, columns: int, stride: Any) -> list[Values]:
        """``rows * columns`` vectors, ``stride`` elements from one to the next."""
        return [
            [row.load(self._times(j, stride)) for j in range(columns)]
            for row in (self.at(self._times(i * columns, stride)) for i in range(rows))
        ]

    def store_matrix(self, matrix: list[Values], stride: Any) -> None:
        for i, values in enumerate(matrix):
            row = self.at(self._times(i * len(values), stride))
            for j, value in enumerate(values):
                row.store(self._times(j, stride), value)

    def _times(self, factor: int, stride: Any) -> Any:
        return self._builder.mul(stride, stride.type(factor))


def _memory(context: Any, builder: Any, array_type: Any, array: Any, start: Any) -> _Memory:
    vector = vector_type(array_type.dtype, context)
    return _Memory(builder, data(context, builder, array_type, array), vector).at(start)


@intrinsic
def transform_filter(
    typing: Any, weight: Any, at: Any, positions: Any, turned: Any, u: Any, place: Any, stride: Any
) -> tuple[Any, Callable[..., Any]]:
    """``u[place + (6 i + j) * stride + l] = (G g G^T)[i, j]`` of lane l, without the scale.

    The nine taps of g are read from ``weight[at + positions[l]]`` on, backwards if ``turned``.
    """
    size = types.intp
    signature = types.void(weight, size, positions, types.boolean, u, size, size)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        weight_type, positions_type, u_type = (signature.args[i] for i in (0, 2, 4))
        vector = vector_type(u_type.dtype, context)
        filters = _tile_starts(context, builder, positions_type, args[2], I64(0), vector.count)
        source = _memory(context, builder, weight_type, args[0], args[1])

        def four(first: int) -> Values:
            taps = source.at(I64(first))
            return _columns_of(builder, [taps.load_four(start) for start in filters])

        forwards = [*four(0), *four(4), four(5)[3]]
        taps = [
            builder.select(args[3], one, other)
            for one, other in zip(reversed(forwards), forwards, strict=True)
        ]
        matrix = [taps[i : i + 3] for i in range(0, 9, 3)]
        result = _memory(context, builder, u_type, args[4], args[5])
        result.store_matrix(_both_ways(_filter, _Arithmetic(builder, vector), matrix), args[6])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def transform_columns(
    typing: Any, x: Any, at: Any, width: Any, height: Any, column: Any, top: Any, ahead: Any,
    out: Any, place: Any, line: Any,
) -> tuple[Any, Callable[..., Any]]:  # fmt: skip
    """B^T d of a vector of neighbouring pixels: ``out[place + i * line + l]``, six rows i.

    Row j of d is read at ``x[at + j * width + l]``, the pixel of row ``top + j`` and column
    ``column + l`` of an image of ``height`` and ``width``; outside of it d is zero. What is ``ahead``
    of it in x is asked for.
    """
    size = types.intp
    signature = types.void(x, size, size, size, size, size, size, out, size, size)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x_type, out_type = signature.args[0], signature.args[7]
        width, height, column, top = args[2:6]
        vector = vector_type(out_type.dtype, context)
        source = _memory(context, builder, x_type, args[0], args[1])
        starts = [builder.mul(width, width.type(j)) for j in range(TILE_IN)]
        for start in starts:
            prefetch(builder, source.pointer(builder.add(start, args[6])))
        inside = builder.and_(
            _within(builder, top, height, TILE_IN), _within(builder, column, width, vector.count)
        )
        with builder.if_else(inside) as (then, otherwise):
            with then:
                whole = [source.load(start) for start in starts]
                whole_block = builder.block
            with otherwise:
                lane = ir.Constant(ir.VectorType(I32, vector.count), list(range(vector.count)))
                columns = builder.add(lane, splat(builder, _narrow(builder, column), lane.type))
                cut = []
                for j, start in enumerate(starts):
                    row = builder.add(top, top.type(j))
                    exists = builder.icmp_unsigned("<", row, height)
                    limit = builder.select(exists, _narrow(builder, width), I32(0))
                    mask = builder.icmp_unsigned("<", columns, splat(builder, limit, lane.type))
                    cut.append(masked_load(builder, source.pointer(start), mask, vector))
                cut_block = builder.block
        rows = [builder.phi(vector) for _ in whole]
        for row, from_whole, from_cut in zip(rows, whole, cut, strict=True):
            row.add_incoming(from_whole, whole_block)
            row.add_incoming(from_cut, cut_block)
        result = _memory(context, builder, out_type, args[7], args[8])
        result.store_matrix([_input(_Arithmetic(builder, vector), rows)], args[9])
        return context.get_dummy_value()

    return signature, generate


def _within(builder: Any, first: Any, end: Any, count: int) -> Any:
    """Whether all of ``first`` to ``first + count - 1`` are in ``0 .. end - 1``."""
    fits = builder.icmp_signed("<=", builder.add(first, first.type(count)), end)
    return builder.and_(builder.icmp_signed(">=", first, first.type(0)), fits)


def _narrow(builder: Any, value: Any) -> Any:
    return builder.trunc(value, I32)


@intrinsic
def transform_rows(
    typing: Any, rows: Any, positions: Any, first: Any, line: Any, out: Any, place: Any, stride: Any
) -> tuple[Any, Callable[..., Any]]:
    """The other half of B^T d B, for a vector of tiles: ``out[place + (6 i + j) * stride + l]``.

    Row i of tile l is the six elements from ``rows[positions[first + l] + i * line]`` on.
    """
    size = types.intp
    signature = types.void(rows, positions, size, size, out, size, size)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        rows_type, positions_type, out_type = (signature.args[i] for i in (0, 1, 4))
        vector = vector_type(out_type.dtype, context)
        v = _Arithmetic(builder, vector)
        source = _memory(context, builder, rows_type, args[0], I64(0))
        tiles = _tile_starts(context, builder, positions_type, args[1], args[2], vector.count)
        result = _memory(context, builder, out_type, args[4], args[5])
        for i in range(TILE_IN):
            row = source.at(builder.mul(args[3], args[3].type(i)))
            first_four = _columns_of(builder, [row.load_four(tile) for tile in tiles])
            rest = [row.load_four(builder.add(tile, I64(TILE_OUT))) for tile in tiles]
            last_two = _columns_of(builder, rest)[: TILE_IN - TILE_OUT]
            values = _input(v, [*first_four, *last_two])
            to = result.at(builder.mul(args[6], args[6].type(i * TILE_IN)))
            to.store_matrix([values], args[6])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def transform_output(
    typing: Any, m: Any, at: Any, stride: Any, bias: Any, lowest: Any, out: Any, place: Any,
    positions: Any, first: Any, line: Any, ahead: Any, unsound: Any,
) -> tuple[Any, Callable[..., Any]]:  # fmt: skip
    """``out[place + positions[first + l] + i * line + j] = max(Y[i, j] + bias, lowest)`` of lane l.

    Element e of M is read at ``at + e * stride``. The vector at the beginning of ``unsound`` becomes
    NaN where an output is not finite. What is ``ahead`` in out is asked for.
    """
    size = types.intp
    signature = types.void(
        m, size, size, m.dtype, m.dtype, out, size, positions, size, size, size, unsound
    )

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        m_type, out_type, positions_type, unsound_type = (signature.args[i] for i in (0, 5, 7, 11))
        vector = vector_type(m_type.dtype, context)
        v = _Arithmetic(builder, vector)
        products = _memory(context, builder, m_type, args[0], args[1])
        y = _both_ways(_output, v, products.load_matrix(TILE_IN, TILE_IN, args[2]))
        # The first and the last together hold every product of the tile.
        corners = v.add(v.add(y[0][0], y[0][3]), v.add(y[3][0], y[3][3]))
        flags = _memory(context, builder, unsound_type, args[11], I64(0))
        flags.store(I64(0), v.combine(0.0, corners, flags.load(I64(0))))
        added, floor = splat(builder, args[3], vector), splat(builder, args[4], vector)
        tiles = _tile_starts(context, builder, positions_type, args[7], args[8], vector.count)
        result = _memory(context, builder, out_type, args[5], args[6])
        for i, row in enumerate(y):
            to = result.at(builder.mul(args[9], args[9].type(i)))
            for tile in tiles[::TILE_OUT]:
                prefetch(builder, to.pointer(builder.add(tile, args[10])), write=True)
            finished = [v.at_least(floor, v.add(value, added)) for value in row]
            for tile, four in zip(tiles, _tiles_of(builder, finished), strict=True):
                to.store_four(tile, four)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def transform_grad(
    typing: Any, grad: Any, at: Any, positions: Any, line: Any, rows: Any, columns: Any, z: Any,
    place: Any, stride: Any,
) -> tuple[Any, Callable[..., Any]]:  # fmt: skip
    """``z[place + (6 i + j) * stride + l] = (A y A^T)[i, j]`` of lane l, a filter.

    Row i of its tile y is the four elements from ``grad[at + positions[l] + i * line]`` on; the tile
    is zero from row ``rows`` and column ``columns`` on.
    """
    size = types.intp
    signature = types.void(grad, size, positions, size, size, size, z, size, size)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        grad_type, positions_type, z_type = (signature.args[i] for i in (0, 2, 6))
        line, rows, columns = args[3:6]
        vector = vector_type(z_type.dtype, context)
        filters = _tile_starts(context, builder, positions_type, args[2], I64(0), vector.count)
        source = _memory(context, builder, grad_type, args[0], args[1])
        lines = [source.at(builder.mul(line, line.type(i))) for i in range(TILE_OUT)]
        inside = builder.and_(
            builder.icmp_signed(">=", rows, rows.type(TILE_OUT)),
            builder.icmp_signed(">=", columns, columns.type(TILE_OUT)),
        )
        with builder.if_else(inside) as (then, otherwise):
            with then:
                whole = [[row.load_four(start) for start in filters] for row in lines]
                whole = [_columns_of(builder, tiles) for tiles in whole]
                whole_block = builder.block
            with otherwise:
                lane = ir.Constant(ir.VectorType(I32, TILE_OUT), list(range(TILE_OUT)))
                cut = []
                for i, row in enumerate(lines):
                    exists = builder.icmp_signed(">", rows, rows.type(i))
                    limit = builder.select(exists, _narrow(builder, columns), I32(0))
                    mask = builder.icmp_signed("<", lane, splat(builder, limit, lane.type))
                    tiles = [row.load_some(start, mask) for start in filters]
                    cut.append(_columns_of(builder, tiles))
                cut_block = builder.block
        tile = [[builder.phi(vector) for _ in row] for row in whole]
        for values, from_whole, from_cut in zip(tile, whole, cut, strict=True):
            for value, one, other in zip(values, from_whole, from_cut, strict=True):
                value.add_incoming(one, whole_block)
                value.add_incoming(other, cut_block)
        result = _memory(context, builder, z_type, args[6], args[7])
        result.store_matrix(_both_ways(_grad, _Arithmetic(builder, vector), tile), args[8])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def transform_filter_grad(
    typing: Any, s: Any, at: Any, stride: Any, positions: Any, first: Any, out: Any, place: Any,
    unsound: Any,
) -> tuple[Any, Callable[..., Any]]:  # fmt: skip
    """The nine taps of G^T S G of lane l, from ``out[place + positions[first + l]]`` on.

    Element e of S is read at ``at + e * stride``. The vector at the beginning of ``unsound`` becomes
    NaN where a tap is not finite.
    """
    size = types.intp
    signature = types.void(s, size, size, positions, size, out, size, unsound)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        s_type, positions_type, out_type, unsound_type = (signature.args[i] for i in (0, 3, 5, 7))
        vector = vector_type(s_type.dtype, context)
        v = _Arithmetic(builder, vector)
        sums = _memory(context, builder, s_type, args[0], args[1])
        matrix = sums.load_matrix(TILE_IN, TILE_IN, args[2])
        taps = [tap for row in _both_ways(_filter_grad, v, matrix) for tap in row]
        flags = _memory(context, builder, unsound_type, args[7], I64(0))
        flag = flags.load(I64(0))
        for tap in taps:
            flag = v.combine(0.0, tap, flag)
        flags.store(I64(0), flag)
        filters = _tile_starts(context, builder, positions_type, args[3], args[4], vector.count)
        result = _memory(context, builder, out_type, args[5], args[6])
        for begin in (0, TILE_OUT):
            fours = _tiles_of(builder, taps[begin : begin + TILE_OUT])
            for start, four in zip(filters, fours, strict=True):
                result.at(I64(begin)).store_four(start, four)
        for lane, start in enumerate(filters):
            value = builder.extract_element(taps[-1], I32(lane))
            result.at(I64(len(taps) - 1)).store_one(start, value)
        return context.get_dummy_value()

    return signature, generate


def _tile_starts(
    context: Any, builder: Any, array_type: Any, array: Any, first: Any, count: int
) -> Values:
    """Where each of a vector's tiles lies."""
    pointer = builder.gep(data(context, builder, array_type, array), [first])
    return [builder.load(builder.gep(pointer, [I64(tile)])) for tile in range(count)]


def _shuffle(builder: Any, x: Any, y: Any, lanes: list[int]) -> Any:
    return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(I32, len(lanes)), lanes))


def _columns_of(builder: Any, tiles: Values) -> Values:
    """Vectors of four of every tile to four vectors, a lane a tile."""
    count = len(tiles)
    if count < TILE_OUT:
        first, second = tiles
        return [_shuffle(builder, first, second, [j, TILE_OUT + j]) for j in range(TILE_OUT)]
    blocks = count // TILE_OUT
    quarters = [_joined(builder, tiles[j::TILE_OUT]) for j in range(TILE_OUT)]
    return _transpose_blocks(builder, quarters, blocks)


def _tiles_of(builder: Any, columns: Values) -> Values:
    """The inverse of `_columns_of`."""
    count = columns[0].type.count
    if count < TILE_OUT:
        pairs = [
            [_shuffle(builder, columns[j], columns[j + 1], [tile, count + tile]) for j in (0, 2)]
            for tile in range(count)
        ]
        return [_shuffle(builder, x, y, list(range(TILE_OUT))) for x, y in pairs]
    blocks = count // TILE_OUT
    quarters = _transpose_blocks(builder, columns, blocks)
    return [
        _shuffle(builder, quarters[tile % TILE_OUT], quarters[tile % TILE_OUT], run)
        for tile in range(count)
        for run in [list(range(tile // TILE_OUT * TILE_OUT, (tile // TILE_OUT + 1) * TILE_OUT))]
    ]


def _joined(builder: Any, parts: Values) -> Any:
    """One vector of several, in turn."""
    while len(parts) > 1:
        lanes = list(range(2 * parts[0].type.count))
        parts = [
            _shuffle(builder, x, y, lanes) for x, y in zip(parts[::2], parts[1::2], strict=True)
        ]
    return parts[0]


def _transpose_blocks(builder: Any, rows: Values, blocks: int) -> Values:
    """Transpose 4 x 4 in every block of four lanes: its own inverse."""
    count = blocks * TILE_OUT

    def lanes(block: list[int]) -> list[int]:
        return [
            (lane % TILE_OUT) + TILE_OUT * b + (count if lane >= TILE_OUT else 0)
            for b in range(blocks)
            for lane in block
        ]

    low, high = lanes([0, 4, 1, 5]), lanes([2, 6, 3, 7])
    front, back = lanes([0, 1, 4, 5]), lanes([2, 3, 6, 7])
    pairs = [
        (_shuffle(builder, rows[0], rows[1], order), _shuffle(builder, rows[2], rows[3], order))
        for order in (low, high)
    ]
    return [_shuffle(builder, x, y, order) for x, y in pairs for order in (front, back)]


@intrinsic
def copy_vector(
    typing: Any, target: Any, place: Any, source: Any, at: Any
) -> tuple[Any, Callable[..., Any]]:
    """``target[place + l] = source[at + l]`` for every lane l."""
    size = types.intp
    signature = types.void(target, size, source, size)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        nothing = ir.Constant(args[1].type, 0)
        value = _memory(context, builder, signature.args[2], args[2], args[3]).load(nothing)
        _memory(context, builder, signature.args[0], args[0], args[1]).store(nothing, value)
        return context.get_dummy_value()

    return signature, generate
