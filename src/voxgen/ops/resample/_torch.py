"""Two custom operators that are each other's gradients: children to parents, and parents to children.

So no gradient goes through a scattering of many rows to one, which is slow on a CPU and unordered on a GPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _kernels
from ._links import Links

_ROWS = "Tensor parent, Tensor slot, Tensor rows, Tensor starts, int slots"
# not torch.library.custom_op: its operators import torch's compiler at their first call, which takes seconds
_LIBRARY = torch.library.Library("voxgen", "FRAGMENT")
_LIBRARY.define(f"children_to_parents(Tensor feats, {_ROWS}, str kind) -> Tensor")
_LIBRARY.define(f"parents_to_children(Tensor feats, {_ROWS}) -> Tensor")


def resample(kind: str, feats: Tensor, links: Links, slots: int) -> Tensor:
    """See `_reference.resample`."""
    if kind == "take":
        return torch.ops.voxgen.parents_to_children(feats, links.parent, links.slot, *links.groups, slots)
    return torch.ops.voxgen.children_to_parents(feats, links.parent, links.slot, *links.groups, slots, kind)


@torch.library.impl(_LIBRARY, "children_to_parents", "CompositeExplicitAutograd")
def _to_parents(feats: Tensor, parent: Tensor, slot: Tensor, rows: Tensor, starts: Tensor, slots: int, kind: str) -> Tensor:
    feats = feats.detach()
    if kind == "place":
        return _kernels.place(feats, parent, slot, len(starts) - 1, slots)
    return _kernels.add(feats, rows, starts) if kind == "add" else _kernels.maximum(feats, parent, len(starts) - 1)


@torch.library.register_fake("voxgen::children_to_parents")
def _(feats: Tensor, parent: Tensor, slot: Tensor, rows: Tensor, starts: Tensor, slots: int, kind: str) -> Tensor:
    return feats.new_empty(starts.shape[0] - 1, feats.shape[1] * (slots if kind == "place" else 1))


@torch.library.impl(_LIBRARY, "parents_to_children", "CompositeExplicitAutograd")
def _to_children(feats: Tensor, parent: Tensor, slot: Tensor, rows: Tensor, starts: Tensor, slots: int) -> Tensor:
    return _kernels.take(feats.detach(), parent, slot, slots)


@torch.library.register_fake("voxgen::parents_to_children")
def _(feats: Tensor, parent: Tensor, slot: Tensor, rows: Tensor, starts: Tensor, slots: int) -> Tensor:
    return feats.new_empty(parent.shape[0], feats.shape[1] // slots)


def _remember_parents(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    feats, *rows, ctx.slots, ctx.kind = inputs
    ctx.save_for_backward(*rows, *((feats, output) if ctx.kind == "max" else ()))


def _parents_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    saved = ctx.saved_tensors  # asked for once: activation checkpointing makes them at that moment, and only one time
    rows, rest = saved[:4], saved[4:]
    if ctx.kind != "max":
        result = torch.ops.voxgen.parents_to_children(grad, *rows, ctx.slots if ctx.kind == "place" else 1)
    else:  # equal largest children share the gradient equally
        feats, output = rest
        winners = feats == torch.ops.voxgen.parents_to_children(output, *rows, 1)
        shares = torch.ops.voxgen.children_to_parents(winners.to(grad.dtype), *rows, 1, "add").clamp_min(1)
        result = torch.where(winners, torch.ops.voxgen.parents_to_children(grad / shares, *rows, 1), 0)
    return result, *[None] * 6


def _remember_children(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, *rows, slots = inputs
    ctx.save_for_backward(*rows)
    ctx.slots = slots


def _children_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    result = torch.ops.voxgen.children_to_parents(grad, *ctx.saved_tensors, ctx.slots, "place" if ctx.slots > 1 else "add")
    return result, *[None] * 5


torch.library.register_autograd("voxgen::children_to_parents", _parents_backward, setup_context=_remember_parents)
torch.library.register_autograd("voxgen::parents_to_children", _children_backward, setup_context=_remember_children)
