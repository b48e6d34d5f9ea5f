"""Choice of blocks: properties, ties, NaN, bad input."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.ops._registry import Call
from voxgen.ops.block_attention import compression_attention
from voxgen.ops.block_topk import BLOCK_TOPK, block_topk
from voxgen.ops.block_topk._tables import tables_of
from voxgen.ops.blocks import SSAPlan
from voxgen.testing.grids import full_grid, random_grid

ENGINES = [
    name
    for name, backend in BLOCK_TOPK.backends.items()
    if name != "triton" and not backend.unsupported(Call(torch.device("cpu"), torch.float32, False))
]


def operands(plan: SSAPlan, heads: int, key_heads: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    q, k = torch.randn(len(plan.grid), heads, width), torch.randn(len(plan.compressed), key_heads, width)
    return q, k, compression_attention(q, k, k, plan, backend="reference").lse


@pytest.mark.parametrize("backend", ENGINES)
def test_ties_take_the_lowest_block(backend: str) -> None:
    plan = SSAPlan.build(full_grid(8, 2), compression_block=1, selection_block=2)
    q, k, lse = (torch.zeros_like(t) for t in operands(plan, 4, 2, 16))
    chosen = block_topk(q, k, lse, plan, 5, backend=backend)
    first = plan.sample_blocks[:, :1]
    assert torch.equal(chosen, (first + torch.arange(5, dtype=torch.int32)).expand(2, -1, -1))
    own = block_topk(q, k, lse, plan, 5, own_block=True, backend=backend)
    assert bool((own == plan.selection.block[None, :, None]).any(2).all())
    assert bool((own.diff(dim=2) > 0).all())


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize(("top_k", "small"), [(1, 2), (3, 4), (8, 1), (32, 2)])
def test_engines_agree_on_many_blocks(backend: str, top_k: int, small: int) -> None:
    plan = SSAPlan.build(random_grid((250, 0, 90), 32), compression_block=small, selection_block=4)
    q, k, lse = operands(plan, 6, 2, 24)
    actual = block_topk(q, k, lse, plan, top_k, backend=backend)
    expected = block_topk(q.double(), k.double(), lse.double(), plan, top_k, backend="reference")
    assert float((actual != expected).any(2).float().mean()) < 0.002  # near ties fall either way
    assert actual.dtype == torch.int32


@pytest.mark.parametrize("backend", ENGINES)
def test_nan_touches_no_other_query(backend: str) -> None:
    plan = SSAPlan.build(random_grid((90,), 16), compression_block=2, selection_block=4)
    q, k, lse = operands(plan, 4, 2, 16)
    clean = block_topk(q, k, lse, plan, 3, backend=backend)
    q[11, 1], lse[11, 1] = torch.nan, torch.nan
    chosen = block_topk(q, k, lse, plan, 3, backend=backend)
    keep = torch.arange(90) != 11
    assert torch.equal(chosen[:, keep], clean[:, keep])
    assert torch.equal(chosen[1], clean[1])
    assert chosen[0, 11].tolist() == [0, 1, 2]


def test_all_blocks_where_there_are_no_more() -> None:
    plan = SSAPlan.build(random_grid((20, 0, 3), 8), compression_block=2, selection_block=4)
    q, k, lse = operands(plan, 2, 1, 8)
    chosen = block_topk(q, k, lse, plan, 40)
    for row, (first, last) in zip(chosen[0].tolist(), plan.sample_blocks.tolist(), strict=True):
        assert row == [*range(first, last), *[-1] * (40 - last + first)]


@pytest.mark.parametrize("backend", [e for e in ENGINES if e != "reference"])
def test_operator_is_registered_soundly(backend: str) -> None:
    plan = SSAPlan.build(random_grid((30, 0, 20), 12), compression_block=2, selection_block=4)
    q, k, lse = operands(plan, 4, 2, 8)
    block_topk(q, k, lse, plan, 2, backend=backend)
    torch.library.opcheck(torch.ops.voxgen.block_topk.default, (q, k, lse, *tables_of(plan, False), 2, 0.3, backend))


def test_bad_input() -> None:
    plan = SSAPlan.build(random_grid((20,), 8), compression_block=2, selection_block=4)
    q, k, lse = operands(plan, 4, 2, 8)
    with pytest.raises(RangeError, match="top_k must be at least 1"):
        block_topk(q, k, lse, plan, 0)
    with pytest.raises(ShapeError, match=r"One row for each cell of plan\.compressed"):
        block_topk(q, k[:3], lse, plan, 2)
    with pytest.raises(ShapeError, match="multiple of those of k_c"):
        block_topk(q[:, :3], k, lse[:, :3], plan, 2)
    with pytest.raises(ShapeError, match="lse must be"):
        block_topk(q, k, lse[:, :3], plan, 2)
    with pytest.raises(DtypeError, match="one dtype"):
        block_topk(q, k.double(), lse, plan, 2)
