"""The engines as two custom operators, so that autograd, `torch.compile`, export and checkpointing know them.

Operators take tensors only: the table, its transpose where a gradient needs it, and what an engine has derived from them
(its plan). An engine is a private module with `forward` and `gradients`.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from voxgen.ops.neighbors import NeighborTable

_NAME = "voxgen::sparse_conv"
_TABLES = "Tensor table, Tensor[] plan, Tensor? back, Tensor[] back_plan, str engine"


def run(
    engine: str,
    feats: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    table: NeighborTable,
    plan: Sequence[Tensor] = (),
    back_plan: Sequence[Tensor] = (),
) -> Tensor:
    """Call an engine through the operator; `back_plan` is asked for only where feats needs a gradient."""
    needs_back = torch.is_grad_enabled() and feats.requires_grad and not table.is_symmetric
    back = table.transposed().table if needs_back else None
    return _convolve(feats, weight, bias, table.table, list(plan), back, list(back_plan), engine)


@torch.library.custom_op(_NAME, mutates_args=(), schema=f"(Tensor feats, Tensor weight, Tensor? bias, {_TABLES}) -> Tensor")
def _convolve(
    feats: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    table: Tensor,
    plan: list[Tensor],
    back: Tensor | None,
    back_plan: list[Tensor],
    engine: str,
) -> Tensor:
    bias = None if bias is None else bias.detach()
    return _module(engine).forward(feats.detach(), weight.detach(), bias, table, plan)


@_convolve.register_fake
def _(feats: Tensor, weight: Tensor, bias: Tensor | None, table: Tensor, *_tables: Any) -> Tensor:
    return feats.new_empty(table.shape[0], weight.shape[2])


@torch.library.custom_op(
    f"{_NAME}_gradients",
    mutates_args=(),
    schema=f"(Tensor grad, Tensor feats, Tensor weight, {_TABLES}, bool need_feats, bool need_weight) -> (Tensor, Tensor)",
)
def _differentiate(
    grad: Tensor,
    feats: Tensor,
    weight: Tensor,
    table: Tensor,
    plan: list[Tensor],
    back: Tensor | None,
    back_plan: list[Tensor],
    engine: str,
    need_feats: bool,
    need_weight: bool,
) -> tuple[Tensor, Tensor]:
    tensors = [t.detach() for t in (grad, feats, weight)]
    for_feats, for_weight = _module(engine).gradients(*tensors, table, plan, back, back_plan, need_feats, need_weight)
    return feats.new_empty(0) if for_feats is None else for_feats, weight.new_empty(0) if for_weight is None else for_weight


@_differentiate.register_fake
def _(
    grad: Tensor,
    feats: Tensor,
    weight: Tensor,
    table: Tensor,
    plan: list[Tensor],
    back: Tensor | None,
    back_plan: list[Tensor],
    engine: str,
    need_feats: bool,
    need_weight: bool,
) -> tuple[Tensor, Tensor]:
    for_feats = feats.new_empty(feats.shape if need_feats else 0)
    return for_feats, weight.new_empty(weight.shape if need_weight else 0)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    feats, weight, bias, table, plan, back, back_plan, engine = inputs
    ctx.save_for_backward(feats, weight, table, back, *plan, *back_plan)
    ctx.plans = len(plan), len(back_plan)
    ctx.engine = engine
    ctx.bias_dtype = None if bias is None else bias.dtype


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    feats, weight, table, back, *plans = ctx.saved_tensors
    ahead, behind = ctx.plans
    need_feats, need_weight, need_bias = ctx.needs_input_grad[:3]
    for_feats = for_weight = for_bias = None
    if need_feats or need_weight:
        for_feats, for_weight = _differentiate(
            grad, feats, weight, table, plans[:ahead], back, plans[ahead:], ctx.engine, need_feats, need_weight
        )
    if need_bias:
        wide = torch.float64 if grad.dtype == torch.float64 else torch.float32
        for_bias = grad.sum(0, dtype=wide).to(ctx.bias_dtype)
    nothing = [None] * ahead, None, [None] * behind
    return for_feats if need_feats else None, for_weight if need_weight else None, for_bias, None, *nothing, None


_convolve.register_autograd(_backward, setup_context=_remember)


def _module(engine: str) -> Any:
    return importlib.import_module(f"voxgen.ops.conv._{engine}")
