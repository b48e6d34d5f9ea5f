"""The gated sum of the branches on GPUs: each branch is read once, forward and backward."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from voxgen.ops.block_attention._triton import on_device

ELEMENTS = 1024
LAUNCH: dict[str, Any] = {"num_warps": 4, "enable_fp_fusion": True}


def combine(gate: Tensor, branches: list[Tensor]) -> Tensor:
    """See `_gate.combine`."""
    first, second, third = branches
    out = torch.empty_like(first)
    n, heads, width = out.shape
    if n:
        columns = heads * width
        with on_device(out):
            combine_kernel[(n, triton.cdiv(columns, ELEMENTS))](
                gate, first, second, third, out, gate.stride(0), gate.stride(1), columns, **{**LAUNCH, "ELEMENTS": ELEMENTS}
            )
    return out


def project(grad: Tensor, branches: list[Tensor]) -> Tensor:
    """See `_gate.project`."""
    first, second, third = branches
    n, heads, width = grad.shape
    shares = torch.empty(3, n, heads, dtype=torch.float32, device=grad.device)
    if n:
        rows = n * heads
        padded = triton.next_power_of_2(width)
        step = max(1, 2 * ELEMENTS // padded)
        with on_device(grad):
            project_kernel[(triton.cdiv(rows, step),)](
                grad.contiguous(), first, second, third, shares, rows, **{**LAUNCH, "D": width, "DP": padded, "ROWS": step}
            )
    return shares


@triton.jit
def combine_kernel(gate, first, second, third, out, token_step, branch_step, columns, ELEMENTS: tl.constexpr):  # pyright: ignore
    """One token × some of its columns."""
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * ELEMENTS + tl.arange(0, ELEMENTS)
    inside = column < columns
    place = token * columns + column
    factors = gate + token * token_step
    total = tl.load(first + place, mask=inside, other=0.0).to(tl.float32) * tl.load(factors).to(tl.float32)
    total += tl.load(second + place, mask=inside, other=0.0).to(tl.float32) * tl.load(factors + branch_step).to(tl.float32)
    total += tl.load(third + place, mask=inside, other=0.0).to(tl.float32) * tl.load(factors + 2 * branch_step).to(tl.float32)
    tl.store(out + place, total.to(out.dtype.element_ty), mask=inside)


@triton.jit
def project_kernel(grad, first, second, third, shares, rows, D: tl.constexpr, DP: tl.constexpr, ROWS: tl.constexpr):  # pyright: ignore
    """Sums over channels of grad · branch for some rows (token and head), for all three branches."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, DP)
    inside = (row < rows)[:, None] & (channel < D)[None, :]
    place = row[:, None] * D + channel[None, :]
    slope = tl.load(grad + place, mask=inside, other=0.0).to(tl.float32)
    target = shares + row
    size = rows.to(tl.int64)
    tl.store(target, tl.sum(slope * tl.load(first + place, mask=inside, other=0.0).to(tl.float32), 1), mask=row < rows)
    tl.store(target + size, tl.sum(slope * tl.load(second + place, mask=inside, other=0.0).to(tl.float32), 1), mask=row < rows)
    tl.store(target + 2 * size, tl.sum(slope * tl.load(third + place, mask=inside, other=0.0).to(tl.float32), 1), mask=row < rows)
