"""Attention inside windows."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

from voxgen.core.checks import require_same_device, require_tensor
from voxgen.ops.blocks import Blocks

from ._lists import lists_of_blocks
from ._run import Attended, check_heads, check_key_mask, check_scale, run


def window_attention(
    q: Float[Tensor, "n H d"],
    k: Float[Tensor, "n Hk d"],
    v: Float[Tensor, "n Hk d"],
    windows: Blocks,
    *,
    key_mask: Bool[Tensor, " n"] | None = None,
    scale: float | None = None,
    backend: str = "auto",
) -> Attended:
    """Full attention between the tokens of each window.

    Args:
        q: (n, H, d) floats, one row a cell of the grid, in the grid's order.
        k, v: (n, Hk, d), Hk divides H; query head h reads key head h // (H / Hk).
        windows: `partition(grid, size, shift)`, or `SSAPlan.windows(shift)`.
        key_mask: (n,) bool, False for tokens that no query may see; they still ask. None lets all be seen.
        scale, backend: as in `selection_attention`.
    Returns:
        Attended. `out` is differentiable once in q, k and v (any number of times with the reference).
    Raises:
        ShapeError, DtypeError, DeviceError: operands that do not fit each other.   BackendUnavailable: the backend cannot serve.
    Empty grids are legal.   Batch: windows never mix samples.
    Memory: out, and a few numbers a token.
    Source: Direct3D-S2, window branch; TRELLIS, shifted window attention; differences: none. The shift is added and nothing
        wraps round.
    Numerics: as `selection_attention`.
    Example:
        >>> window_attention(q, k, v, partition(grid, 8, shift=4)).out.shape == q.shape
        True
    """
    where = "window_attention"
    n = len(windows.block)
    q, k, v = check_heads(where, q, k, v, n)
    require_tensor(where, "q", q, (n, "H", "d"), hint="One row for each cell of the grid that was partitioned.")
    require_same_device(where, q=q, windows=windows.rows)
    check_key_mask(where, key_mask, q)
    return run(backend, q, k, v, lists_of_blocks(windows.block[None, :, None], windows, key_mask), check_scale(where, scale, q))
