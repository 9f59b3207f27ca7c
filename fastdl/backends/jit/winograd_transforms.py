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

from .vectors import alignment, data, load, multiply_add, splat, vector_at, vector_type

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
        place = vector_at(self._builder, self._pointer, index, self._vector)
        self._builder.store(value, place, align=alignment(self._vector))

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


def _transform(rows: int, transform: Transform) -> Callable[..., Any]:
    """The intrinsic that transforms square matrices of so many rows into matrices of 6 rows."""

    def typed(
        typing: Any, source: Any, at: Any, stride: Any, out: Any, place: Any, out_stride: Any
    ) -> tuple[Any, Callable[..., Any]]:
        size = types.intp
        signature = types.void(source, size, size, out, size, size)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            source_type, out_type = signature.args[0], signature.args[3]
            v = _Arithmetic(builder, vector_type(out_type.dtype, context))
            matrix = _memory(context, builder, source_type, args[0], args[1]).load_matrix(
                rows, rows, args[2]
            )
            result = _memory(context, builder, out_type, args[3], args[4])
            result.store_matrix(_both_ways(transform, v, matrix), args[5])
            return context.get_dummy_value()

        return signature, generate

    return typed


#: ``(source, at, stride, out, place, out_stride)``: element (i, j) of a matrix of vectors is read at
#: ``at + (i * columns + j) * stride``, and of the result written at ``place + (6 i + j) * out_stride``.
transform_input = intrinsic(_transform(TILE_IN, _input))
transform_filter = intrinsic(_transform(3, _filter))


@intrinsic
def transform_output(
    typing: Any, m: Any, at: Any, stride: Any, bias: Any, stage: Any, place: Any, line: Any,
    unsound: Any, unsound_at: Any,
) -> tuple[Any, Callable[..., Any]]:  # fmt: skip
    """``stage[place + i * line + 4 l + j] = Y[i, j] + bias`` of lane l.

    Element e of M is read at ``at + e * stride``. The vector at ``unsound[unsound_at]`` becomes NaN
    where an output is not finite.
    """
    size = types.intp
    signature = types.void(m, size, size, bias, stage, size, size, unsound, size)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        m_type, stage_type, unsound_type = (signature.args[i] for i in (0, 4, 7))
        vector = vector_type(m_type.dtype, context)
        v = _Arithmetic(builder, vector)
        products = _memory(context, builder, m_type, args[0], args[1])
        y = _both_ways(_output, v, products.load_matrix(TILE_IN, TILE_IN, args[2]))
        # The first and the last together hold every product of the tile.
        corners = v.add(v.add(y[0][0], y[0][3]), v.add(y[3][0], y[3][3]))
        flags = _memory(context, builder, unsound_type, args[7], args[8])
        nothing = ir.Constant(args[8].type, 0)
        flags.store(nothing, v.combine(0.0, corners, flags.load(nothing)))
        added = splat(builder, args[3], vector)
        result = _memory(context, builder, stage_type, args[4], args[5])
        for i, row in enumerate(y):
            to = result.at(builder.mul(args[6], args[6].type(i)))
            for j, values in enumerate(_interleave(builder, [v.add(x, added) for x in row])):
                to.store(args[6].type(j * vector.count), values)
        return context.get_dummy_value()

    return signature, generate


def _shuffle(builder: Any, x: Any, y: Any, lanes: list[int]) -> Any:
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes)
    return builder.shuffle_vector(x, y, mask)


def _interleave(builder: Any, values: Values) -> Values:
    """Four vectors to one run: the first lanes of all four, then the second lanes, and so on."""
    n = values[0].type.count
    pairs = [lane for i in range(n) for lane in (i, n + i)]

    def zipped(x: Any, y: Any) -> tuple[Any, Any]:
        return _shuffle(builder, x, y, pairs[:n]), _shuffle(builder, x, y, pairs[n:])

    even_low, even_high = zipped(values[0], values[2])
    odd_low, odd_high = zipped(values[1], values[3])
    return [*zipped(even_low, odd_low), *zipped(even_high, odd_high)]


def _separate(builder: Any, run: Values) -> Values:
    """The inverse of `_interleave`."""
    n = run[0].type.count
    even, odd = list(range(0, 2 * n, 2)), list(range(1, 2 * n, 2))

    def unzipped(x: Any, y: Any) -> tuple[Any, Any]:
        return _shuffle(builder, x, y, even), _shuffle(builder, x, y, odd)

    even_low, odd_low = unzipped(run[0], run[1])
    even_high, odd_high = unzipped(run[2], run[3])
    first, third = unzipped(even_low, even_high)
    second, fourth = unzipped(odd_low, odd_high)
    return [first, second, third, fourth]


@intrinsic
def split_columns(
    typing: Any, row: Any, at: Any, stage: Any, place: Any, line: Any
) -> tuple[Any, Callable[..., Any]]:
    """``stage[place + j * line + l] = row[at + 4 l + j]`` for the six columns j of a vector of tiles."""
    size = types.intp
    signature = types.void(row, size, stage, size, size)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        row_type, stage_type = signature.args[0], signature.args[2]
        count = vector_type(row_type.dtype, context).count
        source = _memory(context, builder, row_type, args[0], args[1])
        # The last two columns of a tile are the first two of the next.
        columns: Values = []
        for start in (0, TILE_OUT):
            run = [source.load(args[1].type(start + i * count)) for i in range(TILE_OUT)]
            columns += _separate(builder, run)
        result = _memory(context, builder, stage_type, args[2], args[3])
        result.store_matrix([columns[:TILE_IN]], args[4])
        return context.get_dummy_value()

    return signature, generate


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
