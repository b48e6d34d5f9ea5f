"""Vector code for one row of logits: its maximum, its softmax weights, and the slopes of its logits.

Given as vector instructions, like the tiles of sparse convolution that multiply around them, because only so loops with an
exponential in them are certain to be vectors. Addresses are those of float32 rows whose length is a multiple of LANES.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from voxgen.ops.conv._tile import LANES, ROWS, VECTORS, _broadcast, _int, _load, _store, _sum_products

_F32, _I32, _I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_VECTOR, _INTEGERS = ir.VectorType(_F32, LANES), ir.VectorType(_I32, LANES)
_SMALLEST = -126.0
"""Powers of two below this are 0."""
_ROUND = 12582912.0
"""1.5 · 2²³: what is added to it comes out as a whole number in its low bits."""
_POWERS = (1.0, 0.6931472057372617, 0.2402264689062455, 0.05550328776974233, 0.009618488958111418, 0.001339993121654559, 0.00015345811735)
"""2ᶠ for |f| <= 1/2 to a relative error of 2e-9, lowest power first; exact at 0."""


def _constant(value: float) -> ir.Constant:
    return ir.Constant(_VECTOR, [value] * LANES)


def _splat(builder: ir.IRBuilder, value: Any) -> Any:
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    single = builder.insert_element(undefined, value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(single, undefined, ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES))


def _fused(builder: Any, left: Any, right: Any, added: Any) -> Any:
    contract = ("contract",)
    return builder.fadd(builder.fmul(left, right, flags=contract), added, flags=contract)


def _exp2(builder: ir.IRBuilder, x: Any) -> Any:
    """2ˣ to 2 units in the last place; 0 below 2⁻¹²⁶; NaN stays. x must not exceed 127."""
    tiny = builder.fcmp_ordered("<", x, _constant(_SMALLEST))
    x = builder.select(tiny, _constant(_SMALLEST), x)
    shifted = builder.fadd(x, _constant(_ROUND))
    fraction = builder.fsub(x, builder.fsub(shifted, _constant(_ROUND)))
    power: Any = _constant(_POWERS[-1])
    for coefficient in reversed(_POWERS[:-1]):
        power = _fused(builder, power, fraction, _constant(coefficient))
    exponent = builder.shl(builder.bitcast(shifted, _INTEGERS), ir.Constant(_INTEGERS, [23] * LANES))
    scaled = builder.bitcast(builder.add(builder.bitcast(power, _INTEGERS), exponent), _VECTOR)
    return builder.select(tiny, _constant(0.0), scaled)


def _reduce(builder: ir.IRBuilder, vector: Any, how: str) -> Any:
    """One float of a vector's lanes: "fmax", or "fadd" in a fixed order."""
    name = f"llvm.vector.reduce.{how}.v{LANES}f32"
    arguments = [_F32, _VECTOR] if how == "fadd" else [_VECTOR]
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_F32, arguments), name)
    if how == "fadd":
        return builder.call(function, [ir.Constant(_F32, -0.0), vector], fastmath=("reassoc",))
    return builder.call(function, [vector])


def _loop(builder: ir.IRBuilder, count: Any, start: Any, step: Callable[[Any, Any], Any]) -> Any:
    """The loop `for offset in bytes of count vectors: total = step(offset, total)`; returns the total. count > 0."""
    before = builder.block
    body, after = builder.append_basic_block("body"), builder.append_basic_block("after")
    builder.branch(body)
    builder.position_at_end(body)
    offset, total = builder.phi(_I64), builder.phi(_VECTOR)
    offset.add_incoming(ir.Constant(_I64, 0), before)
    total.add_incoming(start, before)
    result = step(offset, total)
    following = builder.add(offset, ir.Constant(_I64, 4 * LANES))
    offset.add_incoming(following, body)
    total.add_incoming(result, body)
    end = builder.mul(count, ir.Constant(_I64, 4 * LANES))
    builder.cbranch(builder.icmp_signed("<", following, end), body, after)
    builder.position_at_end(after)
    return result


def _place(builder: ir.IRBuilder, address: Any, offset: Any) -> Any:
    return builder.inttoptr(builder.add(address, offset), _VECTOR.as_pointer())


@intrinsic
def _row_maximum(_context, row, columns):  # pyright: ignore
    """Largest of the row's first columns (> 0); NaN is passed over. The rest of their last vector becomes -inf."""

    def generate(_context: Any, builder: ir.IRBuilder, _signature: Any, arguments: Any) -> Any:
        row, columns = arguments
        whole = builder.lshr(builder.sub(columns, ir.Constant(_I64, 1)), ir.Constant(_I64, LANES.bit_length() - 1))
        offset = builder.mul(whole, ir.Constant(_I64, 4 * LANES))
        remaining = builder.trunc(builder.sub(columns, builder.mul(whole, ir.Constant(_I64, LANES))), _I32)
        undefined = ir.Constant(_INTEGERS, ir.Undefined)
        single = builder.insert_element(undefined, remaining, ir.Constant(_I32, 0))
        counts = builder.shuffle_vector(single, undefined, ir.Constant(_INTEGERS, [0] * LANES))
        inside = builder.icmp_signed("<", ir.Constant(_INTEGERS, list(range(LANES))), counts)
        last_place = _place(builder, row, offset)
        last = builder.select(inside, builder.load(last_place, align=4), _constant(float("-inf")))
        builder.store(last, last_place, align=4)

        def step(offset: Any, total: Any) -> Any:
            value = builder.load(_place(builder, row, offset), align=4)
            return builder.select(builder.fcmp_ordered(">", value, total), value, total)

        vectors = builder.add(whole, ir.Constant(_I64, 1))
        return _reduce(builder, _loop(builder, vectors, _constant(float("-inf")), step), "fmax")

    return types.float32(types.int64, types.int64), generate


@intrinsic
def _row_weights(_context, row, vectors, factor, shift):  # pyright: ignore
    """row = 2^(row · factor − shift), and the sum of that."""

    def generate(_context: Any, builder: ir.IRBuilder, _signature: Any, arguments: Any) -> Any:
        row, vectors, factor, shift = arguments
        factors, shifts = _splat(builder, factor), _splat(builder, shift)

        def step(offset: Any, total: Any) -> Any:
            place = _place(builder, row, offset)
            scaled: Any = builder.fmul(builder.load(place, align=4), factors)
            weight = _exp2(builder, builder.fsub(scaled, shifts))
            builder.store(weight, place, align=4)
            return builder.fadd(total, weight)

        return _reduce(builder, _loop(builder, vectors, _constant(0.0), step), "fadd")

    return types.float32(types.int64, types.int64, types.float32, types.float32), generate


@intrinsic
def _row_slopes(_context, weights, products, vectors, gate, delta, factor):  # pyright: ignore
    """products = weights · (gate · products − delta) · factor, then weights = gate · weights."""

    def generate(context: Any, builder: ir.IRBuilder, _signature: Any, arguments: Any) -> Any:
        weights, products, vectors, gate, delta, factor = arguments
        gates, deltas, factors = (_splat(builder, x) for x in (gate, delta, factor))

        def step(offset: Any, total: Any) -> Any:
            weight_place, product_place = _place(builder, weights, offset), _place(builder, products, offset)
            weight = builder.load(weight_place, align=4)
            slope = builder.fsub(builder.fmul(builder.load(product_place, align=4), gates), deltas)
            builder.store(builder.fmul(builder.fmul(slope, weight), factors), product_place, align=4)
            builder.store(builder.fmul(weight, gates), weight_place, align=4)
            return total

        _loop(builder, vectors, _constant(0.0), step)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.float32, types.float32, types.float32), generate


@intrinsic
def _power_of_two(_context, exponent):  # pyright: ignore
    """2 to a float of at most 127."""

    def generate(_context: Any, builder: ir.IRBuilder, _signature: Any, arguments: Any) -> Any:
        return builder.extract_element(_exp2(builder, _splat(builder, arguments[0])), ir.Constant(_I32, 0))

    return types.float32(types.float32), generate


def _product_tile(vectors: int) -> Any:
    @intrinsic
    def set_rows(_context, sources, targets, target_shift, panel, depth):  # pyright: ignore
        """For ROWS pairs of rows: target[:width] = source[:depth] · panel (depth, width), width = vectors · LANES; depth > 0.

        As sparse convolution's `multiply_rows`, but what was there before is not read.
        """

        def generate(context: Any, builder: ir.IRBuilder, _signature: Any, arguments: Any) -> Any:
            sources, targets, target_shift, panel, depth = arguments
            source_list = builder.inttoptr(sources, _I64.as_pointer())
            target_list = builder.inttoptr(targets, _I64.as_pointer())
            rows = [builder.load(builder.gep(source_list, [_int(r)])) for r in range(ROWS)]

            def operands(i: Any) -> Any:
                line = builder.add(panel, builder.mul(i, _int(4 * LANES * vectors)))
                step = builder.mul(i, _int(4))
                right = [_load(builder, builder.add(line, _int(4 * LANES * v))) for v in range(vectors)]
                return lambda r: _broadcast(builder, builder.add(rows[r], step)), right

            sums = _sum_products(builder, depth, ROWS, vectors, operands)
            for r in range(ROWS):
                target = builder.add(builder.load(builder.gep(target_list, [_int(r)])), target_shift)
                for v in range(vectors):
                    _store(builder, sums[r][v], builder.add(target, _int(4 * LANES * v)))
            return context.get_dummy_value()

        return types.void(*([types.int64] * 5)), generate

    return set_rows


set_rows_wide = _product_tile(VECTORS)
set_rows_narrow = _product_tile(1)
power_of_two: Any = _power_of_two
row_maximum: Any = _row_maximum
row_weights: Any = _row_weights
row_slopes: Any = _row_slopes
