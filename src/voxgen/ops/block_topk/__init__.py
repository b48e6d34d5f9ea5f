"""Choice of blocks: for each query the blocks of keys that its attention to compression tokens points to."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from voxgen.core.checks import FLOATS, require_int, require_same_device, require_tensor
from voxgen.core.errors import DtypeError, ShapeError
from voxgen.ops._registry import Backend, Op, cpu_only, float_types, triton_device
from voxgen.ops.blocks import SSAPlan

from ._tables import all_blocks, tables_of

BLOCK_TOPK = Op(
    "block_topk",
    [
        Backend("numba", "voxgen.ops.block_topk._numba:choose", (cpu_only, float_types(torch.float32, torch.float16, torch.bfloat16))),
        Backend(
            "triton", "voxgen.ops.block_topk._triton:choose", (triton_device, float_types(torch.float32, torch.float16, torch.bfloat16))
        ),
        Backend("torch", "voxgen.ops.block_topk._torch:choose"),
        Backend("reference", "voxgen.ops.block_topk._reference:choose"),
    ],
)


def block_topk(
    q: Float[Tensor, "n H d"],
    k_c: Float[Tensor, "n_c Hk d"],
    lse: Float[Tensor, "n H"],
    plan: SSAPlan,
    top_k: int,
    *,
    own_block: bool = False,
    scale: float | None = None,
    backend: str = "auto",
) -> Int32[Tensor, "Hk n T"]:
    """For each query and key head, the blocks with the largest share of the compression branch's attention.

    The score of a block is the sum of softmax probabilities over its compression tokens and over the H / Hk query heads of
    the key head: S[g, n, b] = Σ_{h in g} Σ_{c in b} exp(scale · q[n, h]·k_c[c, g] − lse[n, h]). Over the blocks of the
    query's sample it sums to H / Hk.

    Args:
        q: (n, H, d) floats, one row a cell of `plan.grid`.
        k_c: (n_c, Hk, d) of the dtype of q, one row a cell of `plan.compressed`, Hk divides H.
        lse: (n, H) float32 (float64 for float64), from `compression_attention` with the same q, k_c and scale.
        plan: from `SSAPlan.build`.
        top_k: blocks of a query, at least 1.
        own_block: True always chooses the block that the query lies in; the others by score.
        scale: of the logits; None is 1/√d.
        backend: see docs/backends.md.
    Returns:
        (Hk, n, top_k) int32 blocks of `plan.selection`, ascending, -1 behind them where the sample has fewer blocks.
        Not differentiable.
    Raises:
        ShapeError, DtypeError, DeviceError: operands that do not fit each other.   RangeError: top_k below 1.
        BackendUnavailable: the backend cannot serve.
    Empty grids and samples are legal.   Batch: a query chooses from the blocks of its sample.
    Memory: the result; the torch engine holds scores of a part of the queries, the reference those of all.
    Source: Direct3D-S2, block score and top-k; differences: the logarithm of the sum stays one (the original's overflows
        beyond 88), ties are settled, `own_block` is an option of ours.
    Numerics: scores in float32 (float64 for float64). Equal scores: the block with the lower number. Scores nearer to
        each other than rounding may be chosen differently by engines. NaN counts as less than any score, so a query with
        NaN still gets blocks, and no other query is touched.
    """
    where = "block_topk"
    require_tensor(where, "q", q, (len(plan.grid), "H", "d"), FLOATS, hint="One row for each cell of plan.grid.")
    n, heads, width = q.shape
    require_tensor(where, "k_c", k_c, (len(plan.compressed), "Hk", width), FLOATS, hint="One row for each cell of plan.compressed.")
    if k_c.shape[1] == 0 or heads == 0 or heads % k_c.shape[1]:
        raise ShapeError(f"{where}: the heads of q must be a multiple of those of k_c; got {heads} and {k_c.shape[1]}.")
    if width == 0:
        raise ShapeError(f"{where}: there must be at least one channel; got q {tuple(q.shape)}.")
    require_tensor(where, "lse", lse, (n, heads), FLOATS)
    require_same_device(where, q=q, k_c=k_c, lse=lse, plan=plan.grid.coords)
    count = require_int(where, "top_k", top_k, 1)
    if k_c.dtype != q.dtype:
        raise DtypeError(f"{where}: q and k_c must have one dtype; got {q.dtype} and {k_c.dtype}. Convert with .to(dtype).")
    tables = tables_of(plan, own_block)
    if tables.most_blocks <= count:  # each query gets all there are
        return all_blocks(tables, n, k_c.shape[1], count)
    engine = BLOCK_TOPK.engine(backend, q.detach(), k_c.detach())
    with torch.autocast(q.device.type, enabled=False):
        return engine(q.detach(), k_c.detach(), lse.detach(), tables, count, width**-0.5 if scale is None else scale)


__all__ = ["BLOCK_TOPK", "block_topk"]
