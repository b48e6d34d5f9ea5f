"""Full attention per sample of a ragged batch, to its own tokens or to those of another batch."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from voxgen.core.aliases import Offsets
from voxgen.core.checks import require_same_device, require_tensor
from voxgen.core.errors import RangeError, ShapeError

from ._lists import one_block_each, rows
from ._run import Attended, check_heads, check_scale, run


def ragged_attention(
    q: Float[Tensor, "n H d"],
    k: Float[Tensor, "n_k Hk d"],
    v: Float[Tensor, "n_k Hk d"],
    offsets: Offsets,
    key_offsets: Offsets | None = None,
    *,
    scale: float | None = None,
    backend: str = "auto",
) -> Attended:
    """Full attention in each sample of a ragged batch: self-attention, or cross-attention with `key_offsets`.

    Args:
        q: (n, H, d) floats, samples packed one after another.
        k, v: (n_k, Hk, d), Hk divides H; query head h reads key head h // (H / Hk).
        offsets: (b + 1,) int64 bounds of the samples in q (`VoxelGrid.offsets`).
        key_offsets: (b + 1,) int64 bounds of the samples in k and v; None takes those of q.
        scale, backend: as in `selection_attention`.
    Returns:
        Attended. `out` is differentiable once in q, k and v (any number of times with the reference).
    Raises:
        ShapeError, DtypeError, DeviceError: operands that do not fit each other.   RangeError: offsets that do not begin
        at 0, fall, or do not end at the number of rows (looked at on a CPU only).   BackendUnavailable: the backend
        cannot serve.
    Empty batches and samples are legal; queries of a sample without keys get 0.
    Source: full attention of TRELLIS' sparse transformers; differences: none.
    Numerics: as `selection_attention`.
    Example:
        >>> ragged_attention(q, k, v, grid.offsets).out.shape == q.shape
        True
    """
    where = "ragged_attention"
    q, k, v = check_heads(where, q, k, v)
    require_tensor(where, "offsets", offsets, ("b + 1",), (torch.int64,))
    if key_offsets is None and len(q) != len(k):
        raise ShapeError(f"{where}: without key_offsets q and k must have equal rows; got {len(q)} and {len(k)}. Give key_offsets.")
    ends = offsets if key_offsets is None else require_tensor(where, "key_offsets", key_offsets, tuple(offsets.shape), (torch.int64,))
    require_same_device(where, q=q, offsets=offsets, key_offsets=ends)
    _check_offsets(where, "offsets", offsets, len(q))
    _check_offsets(where, "key_offsets", ends, len(k))
    queries = rows(len(q), q.device)
    sample = torch.searchsorted(offsets, queries.long(), right=True, out_int32=True) - 1  # of a size that a compiler knows
    lists = one_block_each(sample, ends.int(), rows(len(k), k.device), queries, len(k))
    return run(backend, q, k, v, lists, check_scale(where, scale, q))


def _check_offsets(where: str, name: str, offsets: Tensor, count: int) -> None:
    if len(offsets) == 0:
        raise ShapeError(f"{where}: {name} must have at least one entry, 0; got none.")
    if offsets.device.type != "cpu" or torch.compiler.is_compiling():  # reads values
        return
    if int(offsets[0]) != 0 or int(offsets[-1]) != count or bool((offsets.diff() < 0).any()):
        raise RangeError(f"{where}: {name} must rise from 0 to the number of rows, {count}; got {offsets.tolist()[:8]}.")
