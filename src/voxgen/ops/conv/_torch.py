"""Sparse convolution with plain torch operations, on any device: two ways, chosen by the shape of the work.

Narrow layers and full footprints gather each window whole and multiply once (im2col, in chunks). On a CPU wide layers on
sparse footprints multiply only the pairs that exist (`_pairs`). Half precision is computed in float32 on a CPU, whose
half-precision products are slow, and as it is on other devices, whose products sum in float32.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from voxgen.ops.neighbors import NeighborTable

from . import _pairs
from ._op import Tables, run

NARROW = 32
"""Where the narrower side has no more channels than this, gathering whole windows is faster."""
FULL = 0.8
"""Share of present entries above which it is faster for any width."""
CPU_BYTES = 4 << 20
"""Gathered rows at once on a CPU: they stay in its cache."""
DEVICE_BYTES = 256 << 20


def conv(feats: Tensor, weight: Tensor, bias: Tensor | None, table: NeighborTable) -> Tensor:
    """See `sparse_conv`."""
    if not _by_pairs(feats, weight, table):
        return run("torch", feats, weight, bias, table)
    back = table.transposed()
    needs_back = torch.is_grad_enabled() and (feats.requires_grad or weight.requires_grad)
    return run("torch", feats, weight, bias, table, _pairs.plan_of(table), _pairs.plan_of(back) if needs_back else ())


def _by_pairs(feats: Tensor, weight: Tensor, table: NeighborTable) -> bool:
    # a plan has as many entries as there are pairs, which a compiler cannot know, so compiled code goes without
    if feats.device.type != "cpu" or min(weight.shape[1:]) <= NARROW or torch.compiler.is_compiling():
        return False
    return table.num_pairs() <= FULL * len(table) * table.volume


def forward(feats: Tensor, weight: Tensor, bias: Tensor | None, tables: Tables) -> Tensor:
    """(n_out, Co) outputs."""
    x, w = _wide(feats), _wide(weight)
    out = _pairs.multiply(x, w, len(tables.table), tables.plan) if tables.plan else _multiply(x, w, tables.table)
    if bias is not None:
        out += _wide(bias)
    return out.to(feats.dtype)


def gradients(
    grad: Tensor, feats: Tensor, weight: Tensor, tables: Tables, need_feats: bool, need_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of feats and weight."""
    g, x, w = _wide(grad), _wide(feats), _wide(weight).transpose(1, 2)
    for_feats = for_weight = None
    if tables.back_plan:
        for_feats, for_weight = _pairs.multiply_both(g, x, w, tables.back_plan, need_feats, need_weight)
    elif need_feats:
        back = tables.table if tables.back is None else tables.back
        for_feats, for_weight = _gather_once(g, x, w, back, tables.back is None, need_weight)
    else:
        for_weight = _weight_gradient(x, g, tables.table)
    return (
        for_feats.to(feats.dtype) if for_feats is not None else None,
        for_weight.to(weight.dtype) if for_weight is not None else None,
    )


def _multiply(feats: Tensor, weight: Tensor, table: Tensor) -> Tensor:
    out = feats.new_empty(len(table), weight.shape[2])
    stacked = weight.reshape(-1, weight.shape[2])
    for rows, windows in _windows(feats, table):
        torch.mm(windows, stacked, out=out[rows])
    return out


def _gather_once(
    grad: Tensor, feats: Tensor, turned: Tensor, back: Tensor, mirrored: bool, need_weight: bool
) -> tuple[Tensor, Tensor | None]:
    """Both gradients from one gathering: G[i] holds the outputs' gradients at input i, so dX = G·Wᵀ and dW = Xᵀ·G."""
    for_feats = torch.empty_like(feats)
    for_weight = feats.new_zeros(feats.shape[1], turned.shape[0] * turned.shape[1])
    stacked = turned.reshape(-1, turned.shape[2])
    for rows, windows in _windows(grad, back, mirrored):
        torch.mm(windows, stacked, out=for_feats[rows])
        if need_weight:
            for_weight.addmm_(feats[rows].T, windows)
    folded = for_weight.view(feats.shape[1], *turned.shape[:2]).permute(1, 0, 2)
    return for_feats, folded.contiguous() if need_weight else None


def _weight_gradient(feats: Tensor, grad: Tensor, table: Tensor) -> Tensor:
    total = feats.new_zeros(table.shape[1] * feats.shape[1], grad.shape[1])
    for rows, windows in _windows(feats, table):
        total.addmm_(windows.T, grad[rows])
    return total.view(table.shape[1], feats.shape[1], grad.shape[1])


def _windows(feats: Tensor, table: Tensor, mirrored: bool = False) -> Iterator[tuple[slice, Tensor]]:
    """Chunk by chunk of outputs: which, and their windows (rows, K · C) with zeros where a cell is absent."""
    padded = torch.cat((feats, feats.new_zeros(1, feats.shape[1])))
    volume, width = table.shape[1], feats.shape[1]
    size = CPU_BYTES if feats.device.type == "cpu" else DEVICE_BYTES
    step = max(256, min(1 << 16, size // (volume * width * feats.element_size())))
    for first in range(0, len(table), step):
        part = table[first : first + step]
        if mirrored:
            part = part.flip(1)
        index = torch.where(part >= 0, part, len(feats)).flatten()
        yield slice(first, first + len(part)), padded.index_select(0, index).view(len(part), volume * width)


def _wide(values: Tensor) -> Tensor:
    return values.float() if values.device.type == "cpu" and values.dtype in (torch.float16, torch.bfloat16) else values
