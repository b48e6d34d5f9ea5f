"""Spatial sparse attention in one call: compression, choice of blocks, selection, windows and gate."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from voxgen.core.checks import FLOATS, require_int, require_same_device, require_tensor
from voxgen.core.coords import MAX_RESOLUTION
from voxgen.ops._registry import Backend, Op, cpu_only, float_types, triton_device
from voxgen.ops.block_attention._run import check_heads, check_key_mask, check_scale
from voxgen.ops.blocks import SSAPlan

SPATIAL_SPARSE_ATTENTION = Op(
    "spatial_sparse_attention",
    [
        Backend(
            "numba",
            "voxgen.ops.spatial_sparse_attention._op:with_numba",
            (cpu_only, float_types(torch.float32, torch.float16, torch.bfloat16)),
        ),
        Backend(
            "triton",
            "voxgen.ops.spatial_sparse_attention._op:with_triton",
            (triton_device, float_types(torch.float32, torch.float16, torch.bfloat16)),
        ),
        Backend("torch", "voxgen.ops.spatial_sparse_attention._op:with_torch"),
        Backend("reference", "voxgen.ops.spatial_sparse_attention._reference:attend"),
    ],
)


def spatial_sparse_attention(
    q: Float[Tensor, "n H d"],
    k: Float[Tensor, "n Hk d"],
    v: Float[Tensor, "n Hk d"],
    k_c: Float[Tensor, "n_c Hk d"],
    v_c: Float[Tensor, "n_c Hk d"],
    gate: Float[Tensor, "n 3"],
    plan: SSAPlan,
    top_k: int,
    *,
    shift: int = 0,
    own_block: bool = False,
    key_mask: Bool[Tensor, " n"] | None = None,
    scale: float | None = None,
    backend: str = "auto",
) -> Float[Tensor, "n H d"]:
    """Spatial sparse attention: out = gate₀ · compression + gate₁ · selection + gate₂ · window, token by token.

    Each token sees all compression tokens of its sample, all tokens of the `top_k` blocks that its attention to them points
    to, and all tokens of its window. For long sequences: the work grows with n · (n_c + top_k · block + window).

    Args:
        q: (n, H, d) floats, one row a cell of `plan.grid`, in the grid's order.
        k, v: (n, Hk, d), Hk divides H; query head h reads key head h // (H / Hk).
        k_c, v_c: (n_c, Hk, d) compressed keys and values, one row a cell of `plan.compressed`.
        gate: (n, 3) factors of the branches: compression, selection, window.
        plan: from `SSAPlan.build`, shared by layers and steps.
        top_k: blocks that a query sees; all, where its sample has no more.
        shift: of the windows, in cells.
        own_block: True always chooses the block that the query lies in.
        key_mask: (n,) bool, False for tokens that no query may see in its blocks and window; they still ask. What they give
            to k_c and v_c is the caller's. None lets all be seen.
        scale: of the logits; None is 1/√d.
        backend: see docs/backends.md.
    Returns:
        (n, H, d) of the dtype of q. Differentiable once in q, k, v, k_c, v_c and gate (any number of times with the
        reference); no gradient goes through the choice of blocks.
    Raises:
        ShapeError, DtypeError, DeviceError: operands that do not fit each other.   RangeError: top_k below 1, a negative
        shift, a scale that is not positive.   BackendUnavailable: the backend cannot serve.
    Empty grids and samples are legal.   Batch: samples do not see each other.
    Memory: for a backward pass the outputs of the three branches are kept.
    Source: Direct3D-S2, §3.3 (paper) and Algorithm 1; differences: tokens in any order, any batch, settled ties
        (`block_topk`), `own_block` is an option of ours.
    Numerics: as `selection_attention` and `block_topk`; branches are added in float32 (float64 for float64). Deterministic.
    Example:
        >>> plan = SSAPlan.build(grid, compression_block=4, selection_block=8, window=8)
        >>> k_c = pool(k.flatten(1), plan.compression).view(-1, *k.shape[1:])
        >>> v_c = pool(v.flatten(1), plan.compression).view(-1, *v.shape[1:])
        >>> spatial_sparse_attention(q, k, v, k_c, v_c, gate, plan, top_k=8).shape == q.shape
        True
    """
    where = "spatial_sparse_attention"
    n = len(plan.grid)
    require_tensor(where, "q", q, (n, "H", "d"), FLOATS, hint="One row for each cell of plan.grid.")
    require_tensor(where, "gate", gate, (n, 3), FLOATS, hint="Factors of compression, selection and window.")
    require_tensor(where, "k_c", k_c, (len(plan.compressed), "Hk", "d"), FLOATS, hint="One row for each cell of plan.compressed.")
    require_tensor(where, "k", k, (n, k_c.shape[1], "d"), FLOATS, hint="One row for each cell of plan.grid, heads as in k_c.")
    q, k, v = check_heads(where, q, k, v, n)
    q, k_c, v_c = check_heads(where, q, k_c, v_c, len(plan.compressed))
    require_same_device(where, q=q, gate=gate, plan=plan.grid.coords)
    count = require_int(where, "top_k", top_k, 1)
    move = require_int(where, "shift", shift, 0, MAX_RESOLUTION)
    check_key_mask(where, key_mask, q)
    kind = q.device.type
    if torch.is_autocast_enabled(kind) and q.dtype != torch.float64:
        gate = gate.to(q.dtype)
    attend = SPATIAL_SPARSE_ATTENTION.engine(backend, q, k, v, k_c, v_c, gate)
    return attend(q, k, v, k_c, v_c, gate, plan, count, move, own_block, key_mask, check_scale(where, scale, q))


__all__ = ["SPATIAL_SPARSE_ATTENTION", "SSAPlan", "spatial_sparse_attention"]
