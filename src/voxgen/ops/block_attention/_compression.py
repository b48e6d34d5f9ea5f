"""Attention of each token to the compression tokens of its sample."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from voxgen.core.checks import require_same_device, require_tensor
from voxgen.ops.blocks import SSAPlan

from ._lists import Lists, one_block_each, rows
from ._run import Attended, check_heads, check_scale, run


def compression_attention(
    q: Float[Tensor, "n H d"],
    k_c: Float[Tensor, "n_c Hk d"],
    v_c: Float[Tensor, "n_c Hk d"],
    plan: SSAPlan,
    *,
    scale: float | None = None,
    backend: str = "auto",
) -> Attended:
    """Full attention of each token to all compression tokens of its sample: the compression branch of SSA.

    Args:
        q: (n, H, d) floats, one row a cell of `plan.grid`.
        k_c, v_c: (n_c, Hk, d), one row a cell of `plan.compressed`, Hk divides H.
        plan: from `SSAPlan.build`.
        scale, backend: as in `selection_attention`.
    Returns:
        Attended. `out` is differentiable once in q, k_c and v_c (any number of times with the reference); `lse` is what
        `block_topk` takes.
    Raises:
        ShapeError, DtypeError, DeviceError: operands that do not fit each other.   BackendUnavailable: the backend cannot serve.
    Empty grids and samples are legal.   Batch: samples do not see each other.
    Source: Direct3D-S2 §3.3 (paper), compression; differences: none.
    Numerics: as `selection_attention`.
    """
    where = "compression_attention"
    q, k_c, v_c = check_heads(where, q, k_c, v_c, len(plan.compressed))
    require_tensor(where, "q", q, (len(plan.grid), "H", "d"), hint="One row for each cell of plan.grid.")
    require_same_device(where, q=q, plan=plan.grid.coords)
    return run(backend, q, k_c, v_c, compression_lists(plan), check_scale(where, scale, q))


def compression_lists(plan: SSAPlan) -> Lists:
    """Each token sees the compression tokens of its sample."""
    compressed, grid = plan.compressed, plan.grid

    def build() -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
        longest = int(compressed.offsets.diff().max()) if compressed.batch_size else 0
        keys, queries = rows(len(compressed), grid.device), rows(len(grid), grid.device)
        return grid.batch.contiguous(), compressed.offsets.int(), keys, queries, longest

    return one_block_each(*grid.cached(("compression lists", plan.compression.factor), build))
