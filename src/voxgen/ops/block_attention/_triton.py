"""Block attention on GPUs: tiles of queries over the union of their blocks; keys' gradients from lists of queries, without atomics."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import triton
from torch import Tensor

from ._lists import Lists
from ._op import run
from ._triton_kernels import forward_kernel, key_gradient_kernel, query_gradient_kernel, sum_parts_kernel
from ._triton_plan import segments_of, unions_of

LOG2_E = 1.4426950408889634
PROGRAMS = 4096
"""Programs of the keys' gradients to aim at: enough for every multiprocessor, with several to choose from."""
SHORTEST = 512
"""Queries of a segment, at least."""
MOST_QUERIES = 64
"""Queries of a tile: one bit each."""


def attend(q: Tensor, k: Tensor, v: Tensor, lists: Lists, scale: float) -> tuple[Tensor, Tensor]:
    """See `Attended`."""
    return run("triton", q, k, v, lists, scale)


def forward(q: Tensor, k: Tensor, v: Tensor, lists: Lists, scale: float) -> tuple[Tensor, Tensor]:
    """(n, H, d) outputs and (n, H) log-sum-exp."""
    n, heads, _ = q.shape
    q = q.contiguous()
    out, lse = torch.empty_like(q), torch.empty(n, heads, dtype=torch.float32, device=q.device)
    if n == 0:
        return out, lse
    if lists.chosen.shape[2] == 0:
        return out.zero_(), lse.fill_(-torch.inf)
    shape = _shape(q, k, lists)
    unions = unions_of(lists, shape["BQ"])
    tiles = unions.blocks.shape[1]
    with on_device(q):
        forward_kernel[(tiles, k.shape[1])](
            q,
            _by_block(k, lists),
            _by_block(v, lists),
            lists.queries,
            *unions,
            lists.starts,
            out,
            lse,
            n,
            tiles,
            scale * LOG2_E,
            **{**shape, "ENTRIES": unions.blocks.shape[2]},
        )
    return out, lse


def gradients(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, lse: Tensor, delta: Tensor, weight: Tensor | None, lists: Lists, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v."""
    n, key_heads = len(q), k.shape[1]
    q, grad, lse, delta = (t.contiguous() for t in (q, grad.to(q.dtype), lse, delta))
    for_q, for_k, for_v = torch.empty_like(q), *(torch.zeros(t.shape, dtype=t.dtype, device=t.device) for t in (k, v))
    if n == 0 or len(lists.keys) == 0 or lists.chosen.shape[2] == 0:
        return for_q.zero_(), for_k, for_v
    shape = _shape(q, k, lists)
    shape["GATED"] = weight is not None
    factors = scale * LOG2_E, scale, 0 if weight is None else weight.stride(0)
    operands = q, _by_block(k, lists), _by_block(v, lists), grad, q if weight is None else weight, delta, lse
    unions = unions_of(lists, shape["BQ"])
    tiles = unions.blocks.shape[1]
    constants: dict[str, Any] = {**shape, "ENTRIES": unions.blocks.shape[2]}
    with on_device(q):
        query_gradient_kernel[(tiles, key_heads)](*operands, lists.queries, *unions, lists.starts, for_q, n, tiles, *factors, **constants)
        slices = triton.cdiv(lists.longest, shape["BN"])
        segments = segments_of(lists, _length(lists, slices * key_heads))
        count = segments.block.shape[1]
        part_k, part_v = (torch.empty(key_heads, segments.rows, q.shape[2], dtype=torch.float32, device=q.device) for _ in range(2))
        # a segment that is not used has block m, and that has no keys
        starts = torch.cat((lists.starts, lists.starts[-1:]))
        key_gradient_kernel[(count, slices, key_heads)](
            *operands,
            segments.members,
            segments.block,
            segments.begin,
            segments.end,
            segments.row,
            starts,
            part_k,
            part_v,
            segments.members.shape[1],
            count,
            segments.rows,
            *factors,
            **shape,
        )
        listed = len(lists.keys)
        block_of = torch.repeat_interleave(lists.starts.diff().long(), output_size=listed)
        own: dict[str, Any] = {key: shape[key] for key in ("KEY_HEADS", "SHARED", "D", "DP", "enable_fp_fusion")} | {"ROWS": 32}
        for part, total in ((part_k, for_k), (part_v, for_v)):
            sum_parts_kernel[(triton.cdiv(listed, 32), key_heads)](
                part,
                lists.keys,
                block_of,
                lists.starts,
                segments.first,
                segments.counts,
                segments.row,
                total,
                listed,
                len(lists.starts) - 1,
                count,
                segments.rows,
                **own,
            )
    return for_q, for_k, for_v


def _shape(q: Tensor, k: Tensor, lists: Lists) -> dict[str, Any]:
    """Sizes of tiles: a few rows where neighbours see different blocks, more where they see the same."""
    heads, width = q.shape[1:]
    group = triton.next_power_of_2(heads // k.shape[1])
    rows = 64 if lists.is_partition else 32
    return {
        "HEADS": heads,
        "KEY_HEADS": k.shape[1],
        "SHARED": len(lists.chosen) == 1,
        "GP": group,
        "BQ": min(MOST_QUERIES, max(1, rows // group)),
        "D": width,
        "DP": max(16, triton.next_power_of_2(width)),
        "BN": 64 if width <= 64 else 32,
        "PRECISION": precision(),
        "num_warps": 4,
        "enable_fp_fusion": True,  # Triton warns where this is not said, because its default is to change
    }


def _length(lists: Lists, programs_a_segment: int) -> int:
    """Queries of a segment, so that there are about PROGRAMS programs; a length of n or more cuts nothing."""
    pairs = lists.chosen.shape[1] * lists.chosen.shape[2]
    return max(SHORTEST, triton.cdiv(pairs * programs_a_segment, PROGRAMS))


def _by_block(rows: Tensor, lists: Lists) -> Tensor:
    """Keys or values in the order of blocks, so that a tile of them is one piece of memory."""
    return rows.index_select(0, lists.keys).contiguous()


def precision() -> str:
    """Products of float32 as torch's own are set: exact, or rounded to TensorFloat32."""
    return "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"


def on_device(tensor: Tensor) -> contextlib.AbstractContextManager[object]:
    """Launch on the tensor's device, whichever is current."""
    return torch.cuda.device(tensor.device) if tensor.device.type == "cuda" else contextlib.nullcontext()
