"""Spatial sparse attention written out from its parameters, for the goldens: projections, compression, gate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from voxgen.core import VoxelGrid
from voxgen.ops.blocks import SSAPlan
from voxgen.ops.conv import sparse_conv
from voxgen.ops.conv.layouts import from_layout
from voxgen.ops.neighbors import neighbor_table
from voxgen.ops.resample import pool


class Operands(NamedTuple):
    """What `spatial_sparse_attention` takes."""

    q: Tensor
    k: Tensor
    v: Tensor
    k_c: Tensor
    v_c: Tensor
    gate: Tensor


def operands(x: Tensor, weights: Mapping[str, Tensor], plan: SSAPlan, heads: int, width: int) -> Operands:
    """Everything from tokens in the grid's order, by the formulas."""
    q = (x @ weights["proj_q.weight"].T).view(len(x), heads, width)
    k = (x @ weights["proj_k.weight"].T).view(len(x), -1, width)
    v = (x @ weights["proj_v.weight"].T).view(len(x), -1, width)
    table = weights["intra_block_pe"]
    side = table.shape[0]
    a, b, c = (plan.grid.cells.long() % side).unbind(1)
    k_c = _compress(k.flatten(1) + table[a, b, c], weights, "compression_key.", plan)
    v_c = _compress(v.flatten(1), weights, "compression_value.", plan)
    gate = torch.sigmoid(x @ weights["gate.0.weight"].T)
    return Operands(q, k, v, k_c.view(-1, *k.shape[1:]), v_c.view(-1, *v.shape[1:]), gate)


def _compress(u: Tensor, weights: Mapping[str, Tensor], prefix: str, plan: SSAPlan) -> Tensor:
    own = {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}
    if "act_layers.0.conv.kernel" in own:
        hidden = torch.nn.functional.silu(u @ own["act_layers.0.conv.kernel"] + own["act_layers.0.conv.bias"])
        return pool(hidden, plan.compression, "mean_plus_one")
    hidden = torch.nn.functional.silu(_norm(u, own, "act_layers.0", plan.grid))
    hidden = _conv(pool(hidden, plan.compression, "mean_plus_one"), own, "out_layers.0.conv", plan.compressed)
    hidden = torch.nn.functional.silu(_norm(hidden, own, "out_layers.1", plan.compressed))
    return pool(u, plan.compression, "mean_plus_one") + _conv(hidden, own, "out_layers.3.conv", plan.compressed)


def _norm(u: Tensor, own: Mapping[str, Tensor], name: str, grid: VoxelGrid) -> Tensor:
    parts = []
    for rows in torch.split(u, grid.offsets.diff().tolist()):
        if len(rows):
            parts.append(torch.nn.functional.group_norm(rows.T[None], 32, own[f"{name}.weight"], own[f"{name}.bias"])[0].T)
    return torch.cat(parts)


def _conv(u: Tensor, own: Mapping[str, Tensor], name: str, grid: VoxelGrid) -> Tensor:
    kernel = from_layout(own[f"{name}.kernel"], "torchsparse")
    return sparse_conv(u, kernel, own[f"{name}.bias"], neighbor_table(grid), backend="reference")
