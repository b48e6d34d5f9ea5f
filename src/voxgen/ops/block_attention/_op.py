"""The engines as two custom operators, so that autograd, `torch.compile`, export and checkpointing know them.

An engine is a private module with two functions:

- `forward(q, k, v, lists, scale) -> (out, lse)`
- `gradients(grad, q, k, v, lse, delta, weight, lists, scale) -> (gradient of q, of k, of v)`, where `delta` (n, H) is the sum
  over channels of `weight · grad · out`, and `weight` (n,) scales the rows of grad (None for 1): the gate of a fused call.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from voxgen.core.errors import BackendUnavailable

from ._lists import Lists

_LISTS = "Tensor chosen, Tensor starts, Tensor keys, Tensor queries, int longest, float scale, str engine"
# not torch.library.custom_op: its operators import torch's compiler at their first call, which takes seconds
_LIBRARY = torch.library.Library("voxgen", "FRAGMENT")
_LIBRARY.define(f"block_attention(Tensor q, Tensor k, Tensor v, {_LISTS}) -> (Tensor, Tensor)")
_LIBRARY.define(
    f"block_attention_gradients(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, {_LISTS}) -> (Tensor, Tensor, Tensor)"
)


def run(engine: str, q: Tensor, k: Tensor, v: Tensor, lists: Lists, scale: float) -> tuple[Tensor, Tensor]:
    """Call an engine through the operator."""
    return torch.ops.voxgen.block_attention(q, k, v, *lists, scale, engine)


def engine(name: str) -> Any:
    """The module of an engine."""
    return importlib.import_module(f"voxgen.ops.block_attention._{name}")


def softmax_delta(grad: Tensor, out: Tensor) -> Tensor:
    """(n, H): the sum of grad · out over channels, in float32 or float64. What the softmax's gradient subtracts."""
    wide = torch.float64 if out.dtype == torch.float64 else torch.float32
    return torch.einsum("nhd,nhd->nh", grad.to(wide), out.to(wide))


def lse_dtype(q: Tensor) -> torch.dtype:
    return torch.float64 if q.dtype == torch.float64 else torch.float32


@torch.library.impl(_LIBRARY, "block_attention", "CompositeExplicitAutograd")
def _attend(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    *lists, scale, name = rest
    return engine(name).forward(q.detach(), k.detach(), v.detach(), Lists(*lists), scale)


@torch.library.register_fake("voxgen::block_attention")
def _(q: Tensor, *_rest: Any) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape[:2], dtype=lse_dtype(q))


@torch.library.impl(_LIBRARY, "block_attention_gradients", "CompositeExplicitAutograd")
def _differentiate(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    *lists, scale, name = rest
    grad, q, k, v, out = (t.detach() for t in (grad, q, k, v, out))
    with torch.autocast(q.device.type, enabled=False):
        return engine(name).gradients(grad, q, k, v, lse, softmax_delta(grad, out), None, Lists(*lists), scale)


@torch.library.register_fake("voxgen::block_attention_gradients")
def _(_grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *_rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, *lists, ctx.longest, ctx.scale, ctx.engine = inputs
    ctx.save_for_backward(q, k, v, *output, *lists)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, _lse_grad: Tensor | None) -> tuple[Any, ...]:
    if grad is None:
        return (None,) * 10
    q, k, v, out, lse, *lists = ctx.saved_tensors
    found = torch.ops.voxgen.block_attention_gradients(grad, q, k, v, out, lse, *lists, ctx.longest, ctx.scale, ctx.engine)
    return *(g if needed else None for g, needed in zip(found, ctx.needs_input_grad, strict=False)), *(None,) * 7


torch.library.register_autograd("voxgen::block_attention", _backward, setup_context=_remember)


def _no_second_derivative(_ctx: Any, *_grads: Tensor) -> None:
    raise BackendUnavailable(
        "block attention: second derivatives are not available from this engine. Use backend='reference', whose derivatives "
        "are torch's own."
    )


torch.library.register_autograd("voxgen::block_attention_gradients", _no_second_derivative)
