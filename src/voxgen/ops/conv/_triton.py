"""Sparse convolution for GPUs: masked implicit GEMM in Triton, for outputs and both gradients.

Rows are sorted by which offsets they have, so that a tile visits few that its rows have not (`_triton_plan`). Where there
are few rows the sum of a tile is split over several programs, which write partial sums that are added in a fixed order: no
atomics, so results repeat. Shapes of tiles follow a rule; nothing is measured unless `tuning.tune_conv` is called.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
from torch import Tensor

from voxgen.ops.neighbors import NeighborTable

from ._op import Tables, needs_back, run
from ._triton_kernels import multiply_kernel, weight_gradient_kernel
from ._triton_plan import Tiles, tiles_of
from ._triton_shapes import TileShape, key_of, parts_for, shape_for


def conv(feats: Tensor, weight: Tensor, bias: Tensor | None, table: NeighborTable) -> Tensor:
    """See `sparse_conv`."""
    volume, channels_in, channels_out = weight.shape
    key = key_of(feats.device, len(table), channels_in, channels_out, volume, feats.dtype)
    plan = tiles_of(table, shape_for(key).rows)
    back_plan = ()
    if needs_back(feats, table):
        key = key_of(feats.device, len(feats), channels_out, channels_in, volume, feats.dtype)
        back_plan = tiles_of(table.transposed(), shape_for(key).rows)
    return run("triton", feats, weight, bias, table, plan, back_plan)


def forward(feats: Tensor, weight: Tensor, bias: Tensor | None, tables: Tables) -> Tensor:
    """(n_out, Co) outputs."""
    return _multiply(feats, weight, bias, tables.table, Tiles(*tables.plan), mirrored=False)


def gradients(
    grad: Tensor, feats: Tensor, weight: Tensor, tables: Tables, need_feats: bool, need_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of feats and weight."""
    for_feats = for_weight = None
    if need_feats:
        symmetric = tables.back is None
        rows, plan = (tables.table, tables.plan) if tables.back is None else (tables.back, tables.back_plan)
        for_feats = _multiply(grad, weight.transpose(1, 2), None, rows, Tiles(*plan), mirrored=symmetric)
    if need_weight:
        for_weight = _weight_gradient(feats, grad, tables.table, Tiles(*tables.plan)).to(weight.dtype)
    return for_feats, for_weight


def _multiply(feats: Tensor, weight: Tensor, bias: Tensor | None, table: Tensor, tiles: Tiles, mirrored: bool) -> Tensor:
    n_out, volume = table.shape
    channels_in, channels_out = weight.shape[1:]
    if n_out == 0:
        return feats.new_empty(0, channels_out)
    shape = _shape(feats, n_out, channels_in, channels_out, volume, tiles)
    grid = (len(tiles.offsets), triton.cdiv(channels_out, shape.columns))
    parts = parts_for(shape, grid[0] * grid[1], volume * triton.cdiv(channels_in, shape.depth), feats.device)
    dtype = feats.dtype if parts == 1 else torch.float32
    adds_bias = bias is not None and parts == 1
    out = torch.empty(parts, n_out, channels_out, dtype=dtype, device=feats.device)
    feats = feats.contiguous()
    with _on(feats):
        multiply_kernel[(*grid, parts)](
            feats,
            weight,
            feats if bias is None else bias,
            table,
            tiles.order,
            tiles.offsets,
            tiles.offset_counts,
            out,
            n_out,
            channels_in,
            channels_out,
            volume,
            weight.stride(0),
            weight.stride(1),
            weight.stride(2),
            **_constants(parts, tiles.rows, shape.columns, shape.depth, shape.warps, shape.stages, MIRRORED=mirrored, HAS_BIAS=adds_bias),
        )
    if parts == 1:
        return out[0]
    total = out.sum(0)
    return (total if bias is None else total + bias.float()).to(feats.dtype)


def _weight_gradient(feats: Tensor, grad: Tensor, table: Tensor, tiles: Tiles) -> Tensor:
    """(K, Ci, Co) in float32."""
    n_out, volume = table.shape
    channels_in, channels_out = feats.shape[1], grad.shape[1]
    if n_out == 0 or len(feats) == 0:
        return torch.zeros(volume, channels_in, channels_out, device=feats.device)
    shape = _shape(feats, n_out, channels_in, channels_out, volume, tiles)
    depth, columns = min(64, max(shape.depth, 16)), min(64, shape.columns)
    grid = (volume, triton.cdiv(channels_in, depth) * triton.cdiv(channels_out, columns))
    parts = parts_for(shape, grid[0] * grid[1], len(tiles.offsets), feats.device)
    out = torch.empty(parts, volume, channels_in, channels_out, dtype=torch.float32, device=feats.device)
    feats, grad = feats.contiguous(), grad.contiguous()
    with _on(feats):
        weight_gradient_kernel[(*grid, parts)](
            feats,
            grad,
            table,
            tiles.order,
            tiles.tiles,
            tiles.tile_counts,
            out,
            len(tiles.offsets),
            channels_in,
            channels_out,
            volume,
            **_constants(parts, tiles.rows, columns, depth, 4, shape.stages),
        )
    return out[0] if parts == 1 else out.sum(0)


def _shape(feats: Tensor, n_out: int, channels_in: int, channels_out: int, volume: int, tiles: Tiles) -> TileShape:
    return shape_for(key_of(feats.device, n_out, channels_in, channels_out, volume, feats.dtype))


def _constants(parts: int, rows: int, columns: int, depth: int, warps: int, stages: int, **more: bool) -> dict[str, Any]:
    return {
        **more,
        "PARTS": parts,
        # products of float32 as torch's own are set: exact, or rounded to TensorFloat32
        "PRECISION": "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32",
        "ROWS": rows,
        "COLUMNS": columns,
        "DEPTH": depth,
        "num_warps": warps,
        "num_stages": stages,
        "enable_fp_fusion": True,  # Triton warns where this is not said, because its default is to change
    }


def _on(tensor: Tensor) -> AbstractContextManager[object]:
    """Launch on the tensor's device, whichever is current."""
    return torch.cuda.device(tensor.device) if tensor.device.type == "cuda" else nullcontext()
