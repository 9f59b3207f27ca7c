"""Vectors in LLVM's IR: their width, and the few instructions that the kernels written in it need."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import config
from numba.core.cgutils import get_or_insert_function
from numba.core.codegen import get_host_cpu_features


@cache
def features() -> frozenset[str]:
    """What Numba compiles for: this processor, unless NUMBA_CPU_FEATURES lowers it."""
    flags = get_host_cpu_features() if config.CPU_FEATURES is None else config.CPU_FEATURES
    return frozenset(flag[1:] for flag in flags.split(",") if flag.startswith("+"))


def _vector_bytes() -> int:
    if "avx512f" in features():
        return 64
    return 32 if "avx2" in features() else 16


@cache
def lanes(dtype: str | np.dtype[Any]) -> int:
    """Elements of one vector."""
    return _vector_bytes() // np.dtype(dtype).itemsize


I32, I64 = ir.IntType(32), ir.IntType(64)


def data(context: Any, builder: Any, array_type: Any, array: Any) -> Any:
    return context.make_array(array_type)(context, builder, array).data


def vector_type(element: Any, context: Any) -> Any:
    return ir.VectorType(context.get_value_type(element), lanes(str(element)))


def vector_at(builder: Any, pointer: Any, index: Any, vector: Any) -> Any:
    return builder.bitcast(builder.gep(pointer, [index]), vector.as_pointer())


def splat(builder: Any, scalar: Any, vector: Any) -> Any:
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, scalar, I32(0))
    zeros = ir.Constant(ir.VectorType(I32, vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, undefined, zeros)


def multiply_add(builder: Any, a: Any, b: Any, total: Any) -> Any:
    if "fma" not in features():
        return builder.fadd(builder.fmul(a, b), total)
    name = f"llvm.fma.{mangled(a.type)}"
    function = get_or_insert_function(builder.module, ir.FunctionType(a.type, [a.type] * 3), name)
    return builder.call(function, [a, b, total])


def mangled(vector: Any) -> str:
    names = {ir.FloatType(): "f32", ir.DoubleType(): "f64", I32: "i32", I64: "i64"}
    return f"v{vector.count}{names[vector.element]}"


def alignment(vector: Any) -> int:
    """That of one element: nothing is promised about a vector's address."""
    return 4 if vector.element in (ir.FloatType(), I32) else 8


def load(builder: Any, pointer: Any, index: Any, vector: Any) -> Any:
    return builder.load(vector_at(builder, pointer, index, vector), align=alignment(vector))


def prefetch(builder: Any, pointer: Any, write: bool = False) -> None:
    """Ask for the cache line at ``pointer``, which may be anywhere."""
    byte = builder.bitcast(pointer, ir.IntType(8).as_pointer())
    function_type = ir.FunctionType(ir.VoidType(), [byte.type, I32, I32, I32])
    function = get_or_insert_function(builder.module, function_type, "llvm.prefetch.p0")
    builder.call(function, [byte, I32(int(write)), I32(3), I32(1)])


def masked_load(builder: Any, pointer: Any, mask: Any, vector: Any, outside: Any = None) -> Any:
    """The lanes of ``mask``, the others as in ``outside``, or zero."""
    if outside is None:
        outside = ir.Constant(vector, None)
    return _masked(
        builder, f"load.{mangled(vector)}.p0", vector,
        [pointer, I32(alignment(vector)), mask, outside],
    )  # fmt: skip


def masked_store(builder: Any, value: Any, pointer: Any, mask: Any) -> None:
    _masked(
        builder, f"store.{mangled(value.type)}.p0", ir.VoidType(),
        [value, pointer, I32(alignment(value.type)), mask],
    )  # fmt: skip


def gather(builder: Any, data: Any, indices: Any, mask: Any, vector: Any, outside: Any) -> Any:
    pointers = builder.gep(
        splat(builder, data, ir.VectorType(data.type, vector.count)),
        [indices],
        source_etype=vector.element,
    )
    return _masked(
        builder, f"gather.{mangled(vector)}.v{vector.count}p0", vector,
        [pointers, I32(alignment(vector)), mask, outside],
    )  # fmt: skip


def _masked(builder: Any, name: str, result: Any, args: list[Any]) -> Any:
    function_type = ir.FunctionType(result, [argument.type for argument in args])
    function = get_or_insert_function(builder.module, function_type, f"llvm.masked.{name}")
    return builder.call(function, args)


def loop(
    builder: Any, count: Any, values: list[Any], step: Callable[[Any, list[Any]], list[Any]]
) -> list[Any]:
    """``values = step(index, values)`` for every index below ``count``, in registers."""
    before = builder.block
    head, body, done = (builder.append_basic_block(f"loop.{name}") for name in ("at", "do", "end"))
    builder.branch(head)
    builder.position_at_end(head)
    index = builder.phi(I64)
    index.add_incoming(I64(0), before)
    carried = [builder.phi(value.type) for value in values]
    for phi, value in zip(carried, values, strict=True):
        phi.add_incoming(value, before)
    builder.cbranch(builder.icmp_signed("<", index, count), body, done)
    builder.position_at_end(body)
    for phi, value in zip(carried, step(index, carried), strict=True):
        phi.add_incoming(value, builder.block)
    index.add_incoming(builder.add(index, I64(1)), builder.block)
    builder.branch(head)
    builder.position_at_end(done)
    return carried
