"""The fused call as two custom operators on the engines of its parts.

Forward: compression, choice, selection, window, gated sum. Backward: one pass over the upstream gradient and the branches gives
the gate's gradient and what each branch subtracts; then each branch's gradients, with the gate as a factor of the rows.
"""

from __future__ import annotations

import functools
import importlib
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from voxgen.core.errors import BackendUnavailable
from voxgen.ops.block_attention._op import engine as attention_engine
from voxgen.ops.block_attention._op import lse_dtype
from voxgen.ops.block_topk._tables import all_blocks
from voxgen.ops.blocks import SSAPlan

from ._tables import Branches, flatten, unflatten

_TABLES = "Tensor[] tables, int[] numbers, int top_k, float scale, str engine"
_OPERANDS = "Tensor q, Tensor k, Tensor v, Tensor k_c, Tensor v_c, Tensor gate"
_SAVED = "Tensor out_c, Tensor out_s, Tensor out_w, Tensor lse_c, Tensor lse_s, Tensor lse_w, Tensor chosen"
# not torch.library.custom_op: its operators import torch's compiler at their first call, which takes seconds
_LIBRARY = torch.library.Library("voxgen", "FRAGMENT")
_LIBRARY.define(f"spatial_sparse_attention({_OPERANDS}, {_TABLES}) -> ({', '.join(['Tensor'] * 8)})")
_LIBRARY.define(f"spatial_sparse_attention_gradients(Tensor grad, {_OPERANDS}, {_SAVED}, {_TABLES}) -> ({', '.join(['Tensor'] * 6)})")


class Saved(NamedTuple):
    """What the backward pass reads: outputs and log-sum-exps of the branches, and the choice."""

    out_c: Tensor
    out_s: Tensor
    out_w: Tensor
    lse_c: Tensor
    lse_s: Tensor
    lse_w: Tensor
    chosen: Tensor


def _attend(
    engine: str,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k_c: Tensor,
    v_c: Tensor,
    gate: Tensor,
    plan: SSAPlan,
    top_k: int,
    shift: int,
    own_block: bool,
    key_mask: Tensor | None,
    scale: float,
) -> Tensor:
    """See `spatial_sparse_attention`."""
    tables, numbers = flatten(plan, shift, own_block, key_mask)
    with torch.autocast(q.device.type, enabled=False):  # it has done its work: inside, sums stay wide
        return torch.ops.voxgen.spatial_sparse_attention(q, k, v, k_c, v_c, gate, tables, numbers, top_k, scale, engine)[0]


with_numba = functools.partial(_attend, "numba")
with_triton = functools.partial(_attend, "triton")
with_torch = functools.partial(_attend, "torch")


def _choice_engine(name: str) -> ModuleType:
    return importlib.import_module(f"voxgen.ops.block_topk._{name}")


def _gate_engine(name: str) -> ModuleType:
    return importlib.import_module(f"voxgen.ops.spatial_sparse_attention._gate{'_triton' if name == 'triton' else ''}")


@torch.library.impl(_LIBRARY, "spatial_sparse_attention", "CompositeExplicitAutograd")
def _forward(q: Tensor, k: Tensor, v: Tensor, k_c: Tensor, v_c: Tensor, gate: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    tables, numbers, top_k, scale, name = rest
    q, k, v, k_c, v_c, gate = (t.detach() for t in (q, k, v, k_c, v_c, gate))
    plan, engine = unflatten(tables, numbers), attention_engine(name)
    out_c, lse_c = engine.forward(q, k_c, v_c, plan.compression, scale)
    if plan.choice.most_blocks <= top_k:
        chosen = all_blocks(plan.choice, len(q), k.shape[1], top_k)
    else:
        chosen = _choice_engine(name).select(q, k_c, lse_c, plan.choice, top_k, scale)
    out_s, lse_s = engine.forward(q, k, v, plan.selected(chosen), scale)
    out_w, lse_w = engine.forward(q, k, v, plan.window, scale)
    out = _gate_engine(name).combine(gate, [out_c, out_s, out_w])
    return out, *Saved(out_c, out_s, out_w, lse_c, lse_s, lse_w, chosen)


@torch.library.register_fake("voxgen::spatial_sparse_attention")
def _(q: Tensor, k: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    top_k = rest[-3]
    lse = [q.new_empty(q.shape[:2], dtype=lse_dtype(q)) for _ in range(3)]
    return *(q.new_empty(q.shape) for _ in range(4)), *lse, q.new_empty(k.shape[1], q.shape[0], top_k, dtype=torch.int32)


@torch.library.impl(_LIBRARY, "spatial_sparse_attention_gradients", "CompositeExplicitAutograd")
def _differentiate(grad: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    *tensors, tables, numbers, _top_k, scale, name = rest
    grad, q, k, v, k_c, v_c, gate, *kept = (t.detach() for t in (grad, *tensors))
    saved, plan, engine = Saved(*kept), unflatten(tables, numbers), attention_engine(name)
    with torch.autocast(q.device.type, enabled=False):
        return _gradients(grad, q, k, v, k_c, v_c, gate, saved, plan, engine, _gate_engine(name), scale)


def _gradients(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k_c: Tensor,
    v_c: Tensor,
    gate: Tensor,
    saved: Saved,
    plan: Branches,
    engine: ModuleType,
    gates: ModuleType,
    scale: float,
) -> tuple[Tensor, ...]:
    shares = gates.project(grad, [saved.out_c, saved.out_s, saved.out_w])
    deltas = shares * gate.T[..., None].to(shares.dtype)
    branches = [
        (k_c, v_c, saved.lse_c, plan.compression),
        (k, v, saved.lse_s, plan.selected(saved.chosen)),
        (k, v, saved.lse_w, plan.window),
    ]
    wide = lse_dtype(q)
    for_q = torch.zeros(q.shape, dtype=wide, device=q.device)
    by_key: list[tuple[Tensor, Tensor]] = []
    for b, (keys, values, lse, lists) in enumerate(branches):
        part, for_keys, for_values = engine.gradients(grad, q, keys, values, lse, deltas[b], gate[:, b], lists, scale)
        for_q.add_(part)  # one sum and one part at a time
        by_key.append((for_keys, for_values))
    for_k, for_v = (first.to(wide).add(second).to(k.dtype) for first, second in zip(by_key[1], by_key[2], strict=True))
    return for_q.to(q.dtype), for_k, for_v, *by_key[0], shares.sum(2).T.to(gate.dtype).contiguous()


@torch.library.register_fake("voxgen::spatial_sparse_attention_gradients")
def _(_grad: Tensor, *operands: Any) -> tuple[Tensor, ...]:
    return tuple(t.new_empty(t.shape) for t in operands[:6])


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *operands, tables, ctx.numbers, ctx.top_k, ctx.scale, ctx.engine = inputs
    ctx.save_for_backward(*operands, *output[1:], *tables)
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, *_rest: Tensor | None) -> tuple[Any, ...]:
    saved = ctx.saved_tensors
    nothing = [None] * (len(saved) - 13), None, None, None, None
    if grad is None:
        return (*(None,) * 6, *nothing)
    found = torch.ops.voxgen.spatial_sparse_attention_gradients(
        grad, *saved[:13], list(saved[13:]), ctx.numbers, ctx.top_k, ctx.scale, ctx.engine
    )
    return *(g if needed else None for g, needed in zip(found, ctx.needs_input_grad, strict=False)), *nothing


torch.library.register_autograd("voxgen::spatial_sparse_attention", _backward, setup_context=_remember)


def _no_second_derivative(_ctx: Any, *_grads: Tensor) -> None:
    raise BackendUnavailable(
        "spatial_sparse_attention: second derivatives are not available from this engine. Use backend='reference', whose "
        "derivatives are torch's own."
    )


torch.library.register_autograd("voxgen::spatial_sparse_attention_gradients", _no_second_derivative)
