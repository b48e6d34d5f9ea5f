"""Full attention per sample of a ragged batch, to its own tokens or to those of another batch."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from voxgen.core.aliases import Offsets
from voxgen.core.checks import require_same_device, require_tensor
from voxgen.core.errors import RangeError, ShapeError
from voxgen.ops._registry import Backend, Op, module
from voxgen.ops.block_attention import BLOCK_ATTENTION
from voxgen.ops.block_attention._run import check_heads, check_scale

from ._serves import flash_attn_serves, reads_offsets

RAGGED_ATTENTION = Op(
    "ragged_attention",
    [
        Backend("flash-attn", "voxgen.ops.ragged_attention._flash_attn:attend", (module("flash_attn"), flash_attn_serves, reads_offsets)),
        Backend("numba", "voxgen.ops.ragged_attention._blocks:attend_numba", BLOCK_ATTENTION.backends["numba"].checks),
        Backend("sdpa", "voxgen.ops.ragged_attention._sdpa:attend", (reads_offsets,)),
        Backend("triton", "voxgen.ops.ragged_attention._blocks:attend_triton", BLOCK_ATTENTION.backends["triton"].checks),
        Backend("torch", "voxgen.ops.ragged_attention._blocks:attend_torch"),
        Backend("reference", "voxgen.ops.ragged_attention._reference:attend"),
    ],
)


def ragged_attention(
    q: Float[Tensor, "n H d"],
    k: Float[Tensor, "n_k Hk d"],
    v: Float[Tensor, "n_k Hk d"],
    offsets: Offsets,
    key_offsets: Offsets | None = None,
    *,
    scale: float | None = None,
    backend: str = "auto",
) -> Float[Tensor, "n H d"]:
    """Full attention in each sample of a ragged batch: self-attention, or cross-attention with `key_offsets`.

    Args:
        q: (n, H, d) floats, samples packed one after another.
        k, v: (n_k, Hk, d), Hk divides H; query head h reads key head h // (H / Hk).
        offsets: (b + 1,) int64 bounds of the samples in q (`VoxelGrid.offsets`).
        key_offsets: (b + 1,) int64 bounds of the samples in k and v; None takes those of q.
        scale: factor of the logits; None is 1/√d.
        backend: see docs/backends.md. `flash-attn` and `sdpa` call other people's kernels (the library where it is
            installed; torch's `scaled_dot_product_attention`); numba, triton and torch are those of block attention.
    Returns:
        (n, H, d) of the dtype of q. Differentiable once in q, k and v (any number of times with the reference).
    Raises:
        ShapeError, DtypeError, DeviceError: operands that do not fit each other.   RangeError: offsets that do not begin
        at 0, fall, or do not end at the number of rows (looked at on a CPU only); a scale that is not above 0.
        BackendUnavailable: the backend cannot serve. `flash-attn` and `sdpa` read the offsets, so under `torch.compile`
        the others serve.
    Empty batches and samples are legal; queries of a sample without keys get 0.
    Source: full attention of TRELLIS' sparse transformers; differences: none.
    Numerics: logits and sums in float32 at least (float64 for float64), rounded once to the dtype of q; the libraries
        round the weights to it too. Under autocast the operands are converted as for a matrix product. Deterministic,
        except for gradients of `sdpa` on a GPU, where torch's own switch decides.
    Memory: O(n), except where torch has only its plain kernel (`sdpa` in float64 on a GPU), and for the reference.
    Example:
        >>> ragged_attention(q, k, v, grid.offsets).shape == q.shape
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
    factor = check_scale(where, scale, q)
    compiling = torch.compiler.is_compiling()  # where a width may not be a plain number
    attend = RAGGED_ATTENTION.engine(backend, q, k, v, compiling=compiling, width=0 if compiling else q.shape[2])
    with torch.autocast(q.device.type, enabled=False):  # it has done its work: inside, sums stay wide
        return attend(q, k, v, offsets, ends, factor)


def _check_offsets(where: str, name: str, offsets: Tensor, count: int) -> None:
    if len(offsets) == 0:
        raise ShapeError(f"{where}: {name} must have at least one entry, 0; got none.")
    if offsets.device.type != "cpu" or torch.compiler.is_compiling():  # reads values
        return
    if int(offsets[0]) != 0 or int(offsets[-1]) != count or bool((offsets.diff() < 0).any()):
        raise RangeError(f"{where}: {name} must rise from 0 to the number of rows, {count}; got {offsets.tolist()[:8]}.")


__all__ = ["RAGGED_ATTENTION", "ragged_attention"]
