"""Instructions of the GPU that numba.cuda has no word for, written as LLVM.

`simulated` has the same names for Numba's simulator, where no kernel is compiled; kernels take
both from `target`.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import cuda
from numba.cuda import types
from numba.cuda.extending import intrinsic
from numba.cuda.np.numpy_support import from_dtype

exp, log, tanh, sqrt = math.exp, math.log, math.tanh, math.sqrt

_INT32 = ir.IntType(32)


def device(function: Any) -> Any:
    """A function that kernels call."""
    return cuda.jit(function, device=True)


def inlined(function: Any) -> Any:
    """A function whose code goes into the kernel at every call, so that its arrays stay registers."""
    return cuda.jit(function, device=True, forceinline=True)


def _vector_pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    """Where four elements begin, and their type."""
    data = context.make_array(array_type)(context, builder, array).data
    vector = ir.VectorType(context.get_data_type(array_type.dtype), 4)
    place = builder.gep(data, [index])
    return builder.bitcast(place, vector.as_pointer(place.type.addrspace)), vector


@intrinsic
def load4(typing_context: Any, array: Any, index: Any) -> Any:
    """``array[index : index + 4]`` as a tuple, in 16-byte loads: its place must be aligned so."""
    signature = types.UniTuple(array.dtype, 4)(array, types.int64)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place, _ = _vector_pointer(context, builder, signature.args[0], *args)
        vector = builder.load(place)
        vector.align = 16
        lanes = [builder.extract_element(vector, ir.Constant(_INT32, lane)) for lane in range(4)]
        return context.make_tuple(builder, signature.return_type, lanes)

    return signature, generate


@intrinsic
def store4(typing_context: Any, array: Any, index: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """``array[index : index + 4] = a, b, c, d``, in 16-byte stores: its place must be aligned so."""
    kind = array.dtype
    signature = types.void(array, types.int64, kind, kind, kind, kind)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place, kind = _vector_pointer(context, builder, signature.args[0], *args[:2])
        vector = ir.Constant(kind, ir.Undefined)
        for lane, value in enumerate(args[2:]):
            vector = builder.insert_element(vector, value, ir.Constant(_INT32, lane))
        builder.store(vector, place).align = 16
        return context.get_dummy_value()

    return signature, generate


def _addressed(builder: Any, kind: Any, lanes: int, address: Any, index: Any) -> Any:
    """A pointer to that many elements of global memory."""
    begin = builder.inttoptr(address, kind.as_pointer(1))
    place = builder.gep(begin, [index])
    return place if lanes == 1 else builder.bitcast(place, ir.VectorType(kind, 4).as_pointer(1))


@cache
def load4_at(T: Any) -> Any:
    """As `load4`, of memory that an int64 tells the address of."""
    element = from_dtype(np.dtype(T))

    @intrinsic
    def load(typing_context: Any, address: Any, index: Any) -> Any:
        signature = types.UniTuple(element, 4)(types.int64, types.int64)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            vector = builder.load(_addressed(builder, context.get_data_type(element), 4, *args))
            vector.align = 16
            lanes = [
                builder.extract_element(vector, ir.Constant(_INT32, lane)) for lane in range(4)
            ]
            return context.make_tuple(builder, signature.return_type, lanes)

        return signature, generate

    return load


@cache
def store4_at(T: Any) -> Any:
    """As `store4`, to memory that an int64 tells the address of."""
    element = from_dtype(np.dtype(T))

    @intrinsic
    def store(typing_context: Any, address: Any, index: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
        signature = types.void(types.int64, types.int64, *[element] * 4)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kind = context.get_data_type(element)
            vector = ir.Constant(ir.VectorType(kind, 4), ir.Undefined)
            for lane, value in enumerate(args[2:]):
                vector = builder.insert_element(vector, value, ir.Constant(_INT32, lane))
            builder.store(vector, _addressed(builder, kind, 4, *args[:2])).align = 16
            return context.get_dummy_value()

        return signature, generate

    return store


@cache
def load_at(T: Any) -> Any:
    """An element of memory that an int64 tells the address of."""
    element = from_dtype(np.dtype(T))

    @intrinsic
    def load(typing_context: Any, address: Any, index: Any) -> Any:
        signature = element(types.int64, types.int64)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.load(_addressed(builder, context.get_data_type(element), 1, *args))

        return signature, generate

    return load


@cache
def store_at(T: Any) -> Any:
    """Set an element of memory that an int64 tells the address of."""
    element = from_dtype(np.dtype(T))

    @intrinsic
    def store(typing_context: Any, address: Any, index: Any, value: Any) -> Any:
        signature = types.void(types.int64, types.int64, element)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kind = context.get_data_type(element)
            builder.store(args[2], _addressed(builder, kind, 1, *args[:2]))
            return context.get_dummy_value()

        return signature, generate

    return store


@intrinsic
def quotient(typing_context: Any, number: Any, divisor: Any) -> Any:
    """``number // divisor`` of int32 that are not negative, in 32 bits and without a check."""
    signature = types.int32(types.int32, types.int32)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.udiv(*args)

    return signature, generate


@intrinsic
def affine128(
    typing_context: Any, x_high: Any, x_low: Any, a_high: Any, a_low: Any, b_high: Any, b_low: Any
) -> Any:
    """``a * x + b`` modulo 2**128, each number in two uint64: the upper half and the lower."""
    signature = types.UniTuple(types.uint64, 2)(*[types.uint64] * 6)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        half = ir.IntType(64)
        x_high, x_low, a_high, a_low, b_high, b_low = args
        upper = _assembly("mul.hi.u64 $0, $1, $2;", "=l,l,l", half, [half, half])
        low = builder.add(builder.mul(a_low, x_low), b_low)
        carry = builder.zext(builder.icmp_unsigned("<", low, b_low), half)
        high = builder.add(builder.call(upper, [a_low, x_low]), builder.add(b_high, carry))
        across = builder.add(builder.mul(a_high, x_low), builder.mul(a_low, x_high))
        halves = [builder.add(high, across), low]
        return context.make_tuple(builder, signature.return_type, halves)

    return signature, generate


def _assembly(code: str, constraints: str, result: Any, parameters: list[Any]) -> Any:
    """A call of inline PTX."""
    return ir.InlineAsm(ir.FunctionType(result, parameters), code, constraints, side_effect=False)


@intrinsic
def nanosecond(typing_context: Any) -> Any:
    """The GPU's clock, an int64 that goes on in steps of up to a microsecond."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(64), [])
        clock = ir.InlineAsm(kind, "mov.u64 $0, %globaltimer;", "=l", side_effect=True)
        return builder.call(clock, [])

    return types.int64(), generate


@intrinsic
def to_tf32(typing_context: Any, value: Any) -> Any:
    """``value`` rounded to TF32's 10 bits of mantissa, as the 32 bits that `mma_tf32` takes."""
    signature = types.int32(types.float32)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code = _assembly("cvt.rna.tf32.f32 $0, $1;", "=r,f", _INT32, [ir.FloatType()])
        return builder.call(code, args)

    return signature, generate


@intrinsic
def to_bf16x2(typing_context: Any, low: Any, high: Any) -> Any:
    """Two values rounded to bfloat16, ``low`` in the lower half of 32 bits."""
    signature = types.int32(types.float32, types.float32)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        floats = [ir.FloatType()] * 2
        code = _assembly("cvt.rn.bf16x2.f32 $0, $2, $1;", "=r,f,f", _INT32, floats)
        return builder.call(code, args)

    return signature, generate


def _mma(shape_and_types: str) -> Any:
    """``D = A B + C`` of a warp's tensor cores: A in four registers, B in two, C and D in four."""

    @intrinsic
    def mma(
        typing_context: Any,
        c0: Any, c1: Any, c2: Any, c3: Any,
        a0: Any, a1: Any, a2: Any, a3: Any,
        b0: Any, b1: Any,
    ) -> Any:  # fmt: skip
        real, bits = types.float32, types.int32
        signature = types.UniTuple(real, 4)(*[real] * 4, *[bits] * 6)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            real = ir.FloatType()
            code = _assembly(
                f"mma.sync.aligned.{shape_and_types} "
                "{$0,$1,$2,$3}, {$8,$9,$10,$11}, {$12,$13}, {$4,$5,$6,$7};",
                "=f,=f,=f,=f,f,f,f,f,r,r,r,r,r,r",
                ir.LiteralStructType([real] * 4),
                [real] * 4 + [_INT32] * 6,
            )
            result = builder.call(code, args)
            lanes = [builder.extract_value(result, lane) for lane in range(4)]
            return context.make_tuple(builder, signature.return_type, lanes)

        return signature, generate

    return mma


mma_tf32 = _mma("m16n8k8.row.col.f32.tf32.tf32.f32")
mma_bf16 = _mma("m16n8k16.row.col.f32.bf16.bf16.f32")


def _shuffle_xor(value, mask):
    return cuda.shfl_xor_sync(np.uint32(0xFFFFFFFF), value, mask)


shuffle_xor = device(_shuffle_xor)
