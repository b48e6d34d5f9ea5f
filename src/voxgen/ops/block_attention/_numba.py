"""Block attention compiled for the CPU.

Work is cut in pieces of queries that lie together. A piece sorts its pairs of block and query by block, so that a block's keys
stay in the cache while all queries of the piece that see it pass: nothing is gathered, masked or filled up but for the
last vector of a block. Register tiles multiply rows where they lie, with a vector exponential between them.

A piece's sums over its own queries are its own; the sums of keys that a backward pass needs are made apart for a fixed number
of parts and added in order. So results do not depend on the number of threads.
"""

from __future__ import annotations

import torch
from torch import Tensor

from voxgen.ops.conv._tile import LANES

from ._lists import Lists
from ._numba_backward import differentiate_all
from ._numba_forward import attend_all
from ._numba_layout import layout_of, lying, standing
from ._numba_rows import CHUNK, CHUNK_ROWS
from ._op import run

LOG2_E = 1.4426950408889634
PARTS = 8
"""Parts of the queries with sums of keys of their own, at most."""


def attend(q: Tensor, k: Tensor, v: Tensor, lists: Lists, scale: float) -> tuple[Tensor, Tensor]:
    """See `Attended`."""
    return run("numba", q, k, v, lists, scale)


def forward(q: Tensor, k: Tensor, v: Tensor, lists: Lists, scale: float) -> tuple[Tensor, Tensor]:
    """(n, H, d) outputs and (n, H) log-sum-exp."""
    n, heads, width = q.shape
    wide = -(-width // LANES) * LANES
    out, lse = torch.empty(n * heads, wide), torch.empty(n, heads)
    if n:
        layout = layout_of(lists)
        groups = heads // k.shape[1]
        attend_all(
            q.float().reshape(n * heads, width).contiguous().numpy(),
            lists.chosen.contiguous().numpy(),
            lists.queries.contiguous().numpy(),
            layout.starts,
            layout.padded,
            lying(k, layout),
            standing(v, layout),
            groups,
            layout.size,
            _chunk(groups),
            scale * LOG2_E,
            out.numpy(),
            lse.numpy(),
        )
    return out[:, :width].reshape(n, heads, width).to(q.dtype).contiguous(), lse


def gradients(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, lse: Tensor, delta: Tensor, weight: Tensor | None, lists: Lists, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v."""
    n, heads, width = q.shape
    key_heads, groups = k.shape[1], heads // k.shape[1]
    wide = -(-width // LANES) * LANES
    layout, chunk = layout_of(lists), _chunk(heads // k.shape[1])
    # no more parts than pieces, and no more memory for them than four times that of q
    parts = max(1, min(PARTS, -(-n // chunk), 4 * n * heads // max(1, layout.size * key_heads)))
    for_q = torch.zeros(n * heads, wide)
    for_k, for_v = (torch.zeros(parts, key_heads, layout.size, wide) for _ in range(2))
    if n:
        differentiate_all(
            _rows(q, wide),
            _rows(grad, wide),
            (torch.ones(n) if weight is None else weight.float().contiguous()).numpy(),
            delta.float().contiguous().numpy(),
            (lse.float() * LOG2_E).contiguous().numpy(),
            lists.chosen.contiguous().numpy(),
            lists.queries.contiguous().numpy(),
            layout.starts,
            layout.padded,
            lying(k, layout),
            lying(v, layout),
            standing(k, layout),
            width,
            groups,
            layout.size,
            chunk,
            scale * LOG2_E,
            scale,
            for_q.numpy(),
            for_k.numpy(),
            for_v.numpy(),
        )
    listed, place = torch.from_numpy(layout.keys).long(), torch.from_numpy(layout.place)
    by_key = []
    for total, like in ((for_k, k), (for_v, v)):
        summed = total.sum(0)[:, place, :width].transpose(0, 1).to(like.dtype)
        by_key.append(torch.zeros_like(like, memory_format=torch.contiguous_format).index_copy_(0, listed, summed))
    return for_q[:, :width].reshape(q.shape).to(q.dtype).contiguous(), by_key[0], by_key[1]


def _chunk(groups: int) -> int:
    return max(1, min(CHUNK, CHUNK_ROWS // groups))


def _rows(values: Tensor, wide: int):  # pyright: ignore
    """(n · H, padded d) float32, with zeros where filled up."""
    n, heads, width = values.shape
    flat = values.float().reshape(n * heads, width)
    return (torch.nn.functional.pad(flat, (0, wide - width)) if wide > width else flat).contiguous().numpy()
