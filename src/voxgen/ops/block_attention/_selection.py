"""Attention of each query to the tokens of its chosen blocks."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int32
from torch import Tensor

from voxgen.core.checks import require_same_device, require_tensor
from voxgen.core.errors import RangeError
from voxgen.ops.blocks import Blocks

from ._lists import lists_of_blocks
from ._run import Attended, check_heads, check_key_mask, check_scale, run


def selection_attention(
    q: Float[Tensor, "n H d"],
    k: Float[Tensor, "n Hk d"],
    v: Float[Tensor, "n Hk d"],
    chosen: Int32[Tensor, "Hk n T"],
    blocks: Blocks,
    *,
    key_mask: Bool[Tensor, " n"] | None = None,
    scale: float | None = None,
    backend: str = "auto",
) -> Attended:
    """Softmax attention of each query to all tokens of the blocks on its list: the selection branch of SSA.

    Args:
        q: (n, H, d) floats, one row a cell of the grid, in the grid's order.
        k, v: (n, Hk, d), Hk divides H; query head h reads key head h // (H / Hk).
        chosen: (Hk, n, T) int32 blocks of `blocks`, shared by the H / Hk query heads of a key head; -1 for none, in any
            order, each block at most once a query (`block_topk`).
        blocks: `SSAPlan.selection`, or any partition of the grid.
        key_mask: (n,) bool, False for tokens that no query may see; they still ask. None lets all be seen.
        scale: of the logits; None is 1/√d.
        backend: see docs/backends.md.
    Returns:
        Attended. `out` is differentiable once in q, k and v (any number of times with the reference); no gradient goes
        through the choice.
    Raises:
        ShapeError, DtypeError, DeviceError: operands that do not fit each other.   RangeError: a block that does not
        exist (looked at on a CPU only), a scale that is not positive.   BackendUnavailable: the backend cannot serve.
    Empty grids, and queries without a block (0), are legal.   Batch: blocks are numbered over the batch, so a list may
        hold blocks of the query's own sample only, or others, if that is meant.
    Memory: out, and a few numbers a token.
    Source: Direct3D-S2, Algorithm 1; differences: the order of tokens does not matter, blocks are numbered over the batch.
    Numerics: logits, softmax and sums in float32 (float64 for float64). Deterministic.
    Example:
        >>> blocks = partition(grid, 8)
        >>> own = blocks.block[None, :, None]
        >>> selection_attention(q, k, v, own, blocks).out.shape == q.shape        # the own block only
        True
    """
    where = "selection_attention"
    n = len(blocks.block)
    q, k, v = check_heads(where, q, k, v, n)
    require_tensor(where, "q", q, (n, "H", "d"), hint="One row for each cell of the grid that was partitioned.")
    require_tensor(where, "chosen", chosen, (k.shape[1], n, "T"), (torch.int32,), hint="Lists of blocks by key head and query.")
    require_same_device(where, q=q, chosen=chosen, blocks=blocks.rows)
    _check_blocks(where, chosen, len(blocks))
    check_key_mask(where, key_mask, q)
    return run(backend, q, k, v, lists_of_blocks(chosen, blocks, key_mask), check_scale(where, scale, q))


def _check_blocks(where: str, chosen: Tensor, count: int) -> None:
    # reads values: free on a CPU, and compiled engines would read past their tables
    if chosen.device.type != "cpu" or chosen.numel() == 0 or torch.compiler.is_compiling():
        return
    low, high = int(chosen.min()), int(chosen.max())
    if low < -1 or high >= count:
        raise RangeError(f"{where}: chosen must hold blocks from 0 to {count - 1}, or -1 for none; got values from {low} to {high}.")
