"""Three custom operators: rows to segments and segments to rows, which are each other's gradients, and softmax from both."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from ._bounds import check_bounds

# not torch.library.custom_op: its operators import torch's compiler at their first call, which takes seconds
_LIBRARY = torch.library.Library("voxgen", "FRAGMENT")
_LIBRARY.define("rows_to_segments(Tensor values, Tensor offsets, str how, str engine) -> Tensor")
_LIBRARY.define("segments_to_rows(Tensor values, Tensor offsets, int rows, str engine) -> Tensor")
_LIBRARY.define("segment_softmax(Tensor values, Tensor offsets, str engine) -> Tensor")


def segment_numba(kind: str, values: Tensor, offsets: Tensor, rows: int) -> Tensor:
    """See `_reference.segment`."""
    return _segment(kind, values, offsets, rows, "numba")


def segment_torch(kind: str, values: Tensor, offsets: Tensor, rows: int) -> Tensor:
    """See `_reference.segment`."""
    return _segment(kind, values, offsets, rows, "torch")


def _segment(kind: str, values: Tensor, offsets: Tensor, rows: int, engine: str) -> Tensor:
    if kind == "broadcast":
        return torch.ops.voxgen.segments_to_rows(values, offsets, rows, engine)
    if kind == "softmax":
        return torch.ops.voxgen.segment_softmax(values, offsets, engine)
    return torch.ops.voxgen.rows_to_segments(values, offsets, kind, engine)


@torch.library.impl(_LIBRARY, "rows_to_segments", "CompositeExplicitAutograd")
def _to_segments(values: Tensor, offsets: Tensor, how: str, engine: str) -> Tensor:
    check_bounds(offsets, len(values))
    if values.numel() == 0 or len(offsets) == 1:
        return values.new_zeros(len(offsets) - 1, values.shape[1])
    return importlib.import_module(f"voxgen.ops.segment._{engine}").reduce(values.detach(), offsets, how)


@torch.library.register_fake("voxgen::rows_to_segments")
def _(values: Tensor, offsets: Tensor, how: str, engine: str) -> Tensor:
    return values.new_empty(offsets.shape[0] - 1, values.shape[1])


@torch.library.impl(_LIBRARY, "segments_to_rows", "CompositeExplicitAutograd")
def _to_rows(values: Tensor, offsets: Tensor, rows: int, engine: str) -> Tensor:
    check_bounds(offsets, rows)
    # this index, unlike that of `repeat_interleave`, never writes out of bounds where offsets are wrong on a GPU
    index = torch.searchsorted(offsets[1:], torch.arange(rows, device=offsets.device), right=True)
    return values.detach().index_select(0, index)


@torch.library.register_fake("voxgen::segments_to_rows")
def _(values: Tensor, offsets: Tensor, rows: int, engine: str) -> Tensor:
    return values.new_empty(rows, values.shape[1])


@torch.library.impl(_LIBRARY, "segment_softmax", "CompositeExplicitAutograd")
def _softmax(values: Tensor, offsets: Tensor, engine: str) -> Tensor:
    """In the memory of the result and one broadcast."""
    values, rows = values.detach(), len(values)
    result = _to_rows(_to_segments(values, offsets, "max", engine), offsets, rows, engine)
    torch.sub(values, result, out=result).exp_()
    return result.div_(_to_rows(_to_segments(result, offsets, "sum", engine), offsets, rows, engine))


@torch.library.register_fake("voxgen::segment_softmax")
def _(values: Tensor, offsets: Tensor, engine: str) -> Tensor:
    return values.new_empty(values.shape)


def _remember_segments(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    values, offsets, ctx.how, ctx.engine = inputs
    ctx.rows = values.shape[0]
    ctx.save_for_backward(offsets, *(() if ctx.how == "sum" else (values, output)))


def _segments_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    offsets, *rest = ctx.saved_tensors
    if ctx.how == "sum":
        return torch.ops.voxgen.segments_to_rows(grad, offsets, ctx.rows, ctx.engine), None, None, None
    values, output = (t.detach() for t in rest)  # equal extremes share the gradient equally
    winners = values == torch.ops.voxgen.segments_to_rows(output, offsets, ctx.rows, ctx.engine)
    shares = torch.ops.voxgen.rows_to_segments(winners.to(grad.dtype), offsets, "sum", ctx.engine).clamp_min(1)
    spread = torch.ops.voxgen.segments_to_rows(grad / shares, offsets, ctx.rows, ctx.engine)
    return torch.where(winners, spread, 0), None, None, None


def _remember_rows(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    values, offsets, _, ctx.engine = inputs
    ctx.dtype = values.dtype
    ctx.save_for_backward(offsets)


def _rows_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    wide = grad if grad.dtype == torch.float64 else grad.float()
    total = torch.ops.voxgen.rows_to_segments(wide, ctx.saved_tensors[0], "sum", ctx.engine)
    return total.to(ctx.dtype), None, None, None


def _remember_softmax(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, offsets, ctx.engine = inputs
    ctx.save_for_backward(output, offsets)


def _softmax_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    result, offsets = ctx.saved_tensors
    product = result * grad
    total = torch.ops.voxgen.rows_to_segments(product, offsets, "sum", ctx.engine)
    return product - result * torch.ops.voxgen.segments_to_rows(total, offsets, result.shape[0], ctx.engine), None, None


torch.library.register_autograd("voxgen::rows_to_segments", _segments_backward, setup_context=_remember_segments)
torch.library.register_autograd("voxgen::segments_to_rows", _rows_backward, setup_context=_remember_rows)
torch.library.register_autograd("voxgen::segment_softmax", _softmax_backward, setup_context=_remember_softmax)
