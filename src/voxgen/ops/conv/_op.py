"""The engines as two custom operators, so that autograd, `torch.compile`, export and checkpointing know them.

Operators take tensors only: the table, its transpose where a gradient needs it, and what an engine has derived from them
(its plan). An engine is a private module with two functions:

- `forward(feats, weight, bias, tables) -> out`
- `gradients(grad, feats, weight, tables, need_feats, need_weight) -> (gradient of feats or None, of weight or None)`
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from voxgen.core.errors import BackendUnavailable
from voxgen.ops.neighbors import NeighborTable


class Tables(NamedTuple):
    """What an engine knows of the neighbours.

    table: (n_out, K) int32 input rows, -1 absent.
    plan: what the engine derived from it.
    back: (n_in, K) int32 output rows; None where the table is its own transpose with the offsets reversed, or where the
        features need no gradient.
    back_plan: what the engine derived from that.
    """

    table: Tensor
    plan: list[Tensor]
    back: Tensor | None
    back_plan: list[Tensor]


_TABLES = "Tensor table, Tensor[] plan, Tensor? back, Tensor[] back_plan, str engine"
# not torch.library.custom_op: its operators import torch's compiler at their first call, which takes seconds
_LIBRARY = torch.library.Library("voxgen", "FRAGMENT")
_LIBRARY.define(f"sparse_conv(Tensor feats, Tensor weight, Tensor? bias, {_TABLES}) -> Tensor")
_LIBRARY.define(
    f"sparse_conv_gradients(Tensor grad, Tensor feats, Tensor weight, {_TABLES}, bool need_feats, bool need_weight) -> (Tensor, Tensor)"
)


def run(
    engine: str,
    feats: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    table: NeighborTable,
    plan: Sequence[Tensor] = (),
    back_plan: Sequence[Tensor] = (),
) -> Tensor:
    """Call an engine through the operator."""
    back = table.transposed().table if needs_back(feats, table) else None
    return torch.ops.voxgen.sparse_conv(feats, weight, bias, table.table, list(plan), back, list(back_plan), engine)


def needs_back(feats: Tensor, table: NeighborTable) -> bool:
    """True if a gradient will go from the outputs to the inputs by another table."""
    return torch.is_grad_enabled() and feats.requires_grad and not table.is_symmetric


def _engine(name: str) -> Any:
    return importlib.import_module(f"voxgen.ops.conv._{name}")


@torch.library.impl(_LIBRARY, "sparse_conv", "CompositeExplicitAutograd")
def _convolve(feats: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
    *tables, engine = rest
    return _engine(engine).forward(feats.detach(), weight.detach(), None if bias is None else bias.detach(), Tables(*tables))


@torch.library.register_fake("voxgen::sparse_conv")
def _(feats: Tensor, weight: Tensor, bias: Tensor | None, table: Tensor, *_rest: Any) -> Tensor:
    return feats.new_empty(table.shape[0], weight.shape[2])


@torch.library.impl(_LIBRARY, "sparse_conv_gradients", "CompositeExplicitAutograd")
def _differentiate(grad: Tensor, feats: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    *tables, engine, need_feats, need_weight = rest
    tensors = (t.detach() for t in (grad, feats, weight))
    for_feats, for_weight = _engine(engine).gradients(*tensors, Tables(*tables), need_feats, need_weight)
    return feats.new_empty(0) if for_feats is None else for_feats, weight.new_empty(0) if for_weight is None else for_weight


@torch.library.register_fake("voxgen::sparse_conv_gradients")
def _(grad: Tensor, feats: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    need_feats, need_weight = rest[-2:]
    return feats.new_empty(feats.shape if need_feats else 0), weight.new_empty(weight.shape if need_weight else 0)


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
        tables = Tables(table, plans[:ahead], back, plans[ahead:])
        for_feats, for_weight = torch.ops.voxgen.sparse_conv_gradients(grad, feats, weight, *tables, ctx.engine, need_feats, need_weight)
    if need_bias:
        wide = torch.float64 if grad.dtype == torch.float64 else torch.float32
        for_bias = grad.sum(0, dtype=wide).to(ctx.bias_dtype)
    nothing = None, [None] * ahead, None, [None] * behind, None
    return for_feats if need_feats else None, for_weight if need_weight else None, for_bias, *nothing


torch.library.register_autograd("voxgen::sparse_conv", _backward, setup_context=_remember)


def _no_second_derivative(_ctx: Any, *_grads: Tensor) -> None:
    raise BackendUnavailable(
        "sparse_conv: second derivatives are not available from this engine. Use backend='reference', whose derivatives are torch's own."
    )


torch.library.register_autograd("voxgen::sparse_conv_gradients", _no_second_derivative)
