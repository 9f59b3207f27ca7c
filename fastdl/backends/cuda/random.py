"""Dropout's mask: on the GPU the numbers that NumPy's generator would draw on the CPU.

`numpy.random.default_rng` makes a PCG64: ``state = A * state + c`` modulo 2**128, of which the
output is 64 bits, for two numbers, the lower half's first. n steps are ``A**n * state + c_n``,
affine again, so that each thread goes straight to its place: its number's digits to the base 64
tell which of the powers in a table to apply.

M. O'Neill, "PCG: A family of simple fast space-efficient statistically good algorithms for random
number generation", HMC-CS-2014-0905, 2014, sections 4.2.1 (jumps) and 6.3.3 (XSL RR).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from .arrays import DeviceArray, constant, empty, to_device, use_stream
from .launch import THREADS, blocks_for, kernel
from .target import affine128, cuda, inlined, store4

_A = 0x2360ED051FC65DA44385DF649FCCF645
_MODULUS = 2**128
#: Numbers that a thread draws; digits of its own number, and their base.
_EACH, _DIGITS, _BASE = 32, 5, 64


@inlined
def _output(high, low):
    """XSL RR: the halves' exclusive or, turned right by the uppermost six bits."""
    mixed = high ^ low
    turn = high >> np.uint64(58)
    return (mixed >> turn) | (mixed << ((np.uint64(64) - turn) & np.uint64(63)))


@inlined
def _kept(number, least, place):
    """1 in byte ``place`` of 32 bits if the upper 24 bits of ``number`` are ``least`` or more."""
    one = np.uint32(1) if np.uint32(number >> np.uint64(8)) >= least else np.uint32(0)
    return np.uint32(one << np.uint32(8 * place))


@kernel("u* U* U U U U u i i", bounds=(THREADS, 4))
def draw(T: Any) -> Any:
    """A byte for each number, 1 where it is ``least`` or more.

    ``halved``: the upper half of the output of the state that comes in is the first number.
    """
    A_HIGH, A_LOW = np.uint64(_A >> 64), np.uint64(_A % 2**64)
    LOWER = np.uint64(0xFFFFFFFF)
    WORDS = _EACH // 16

    def run(out, jumps, high, low, c_high, c_low, least, halved, threads):
        thread = np.int32(cuda.grid(1))
        if thread < threads:
            rest = thread
            for digit in range(_DIGITS):
                at = 4 * (digit * _BASE + rest % _BASE)
                high, low = affine128(
                    high, low, jumps[at], jumps[at + 1], jumps[at + 2], jumps[at + 3]
                )
                rest = rest // _BASE
            a, b, c = np.uint32(0), np.uint32(0), np.uint32(0)
            waiting = _output(high, low) >> np.uint64(32)
            for words in range(WORDS):
                for word in range(4):
                    bits = np.uint32(0)
                    for pair in range(2):
                        high, low = affine128(high, low, A_HIGH, A_LOW, c_high, c_low)
                        both = _output(high, low)
                        first, second = both & LOWER, both >> np.uint64(32)
                        if halved:
                            first, second, waiting = waiting, first, second
                        bits = np.uint32(
                            bits
                            | _kept(first, least, 2 * pair)
                            | _kept(second, least, 2 * pair + 1)
                        )
                    if word == 0:
                        a = bits
                    elif word == 1:
                        b = bits
                    elif word == 2:
                        c = bits
                    else:
                        store4(out, thread * (_EACH // 4) + 4 * words, a, b, c, bits)

    return run


@kernel("b* i")
def ones(T: Any) -> Any:
    """1 everywhere."""
    one = T(1)

    def run(out, count):
        e = cuda.grid(1)
        if e < count:
            out[e] = one

    return run


def full_mask(like: DeviceArray) -> DeviceArray:
    """What keeps every element."""
    mask = empty(like.shape, np.bool_, like)
    ones(np.uint8)(blocks_for(mask.size), THREADS, mask, mask.size)
    return mask


def drawn_mask(
    shape: tuple[int, ...], p: float, generator: np.random.Generator, like: DeviceArray
) -> DeviceArray:
    """`fastdl.functional.dropout.draw`, on the GPU of ``like``; the generator goes on from there.

    One that is no PCG64 draws on the CPU.
    """
    source = generator.bit_generator
    size = int(np.prod(shape))
    if type(source) is not np.random.PCG64 or not size:
        with use_stream(like.stream):
            return to_device(generator.random(shape, np.float32) >= p, like.device)
    told: Any = source.state
    state, c = told["state"]["state"], told["state"]["inc"]
    threads = -(-size // _EACH)
    words = empty((threads * _EACH // 4,), np.uint32, like)
    draw(np.uint32)(
        blocks_for(threads), THREADS, words, _jumps(c, like.device), *_halves(state), *_halves(c),
        # The number in [0, 1) is its upper 24 bits over 2**24.
        int(np.ceil(np.float64(np.float32(p)) * 2**24)), told["has_uint32"], threads,
    )  # fmt: skip
    source.state = _after(told, size)
    return words._view(words.data.view(np.bool_)[:size].reshape(shape))


def _after(told: Any, count: int) -> Any:
    """The generator's state when so many numbers have been drawn."""
    halves = count - told["has_uint32"]
    times, added = _steps(-(-halves // 2), told["state"]["inc"])
    state = (times * told["state"]["state"] + added) % _MODULUS
    high, low = _halves(state)
    mixed, turn = high ^ low, high >> 58
    output = (mixed >> turn | mixed << (-turn & 63)) % 2**64
    return told | {
        "state": {"state": state, "inc": told["state"]["inc"]},
        "has_uint32": halves % 2,
        "uinteger": output >> 32 if halves else told["uinteger"],
    }


def _halves(number: int) -> tuple[int, int]:
    return number >> 64, number % 2**64


def _steps(count: int, c: int) -> tuple[int, int]:
    """What so many steps are: the factor of the state, and what is added then."""
    times, added = 1, 0
    factor, more = _A, c
    while count:
        if count & 1:
            times, added = times * factor % _MODULUS, (added * factor + more) % _MODULUS
        factor, more = factor * factor % _MODULUS, more * (factor + 1) % _MODULUS
        count >>= 1
    return times, added


@lru_cache(maxsize=64)
def _jumps(c: int, device: int) -> DeviceArray:
    """For each digit of a thread's number the steps that bring it to its place."""
    found = []
    for digit in range(_DIGITS):
        once = _steps(_EACH // 2 * _BASE**digit, c)
        times, added = 1, 0
        for _ in range(_BASE):
            found += [*_halves(times), *_halves(added)]
            times, added = times * once[0] % _MODULUS, (added * once[0] + once[1]) % _MODULUS
    return constant(np.array(found, np.uint64), device)
