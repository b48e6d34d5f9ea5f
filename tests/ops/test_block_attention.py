"""Attention to blocks of keys: against torch's own attention, properties, gradients, operators, bad input."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from voxgen.core.errors import BackendUnavailable, DtypeError, RangeError, ShapeError
from voxgen.ops._registry import Call
from voxgen.ops.block_attention import (
    BLOCK_ATTENTION,
    compression_attention,
    selection_attention,
    window_attention,
)
from voxgen.ops.blocks import SSAPlan, partition
from voxgen.ops.ragged_attention import ragged_attention
from voxgen.testing.cases.block_attention import chosen_blocks
from voxgen.testing.compare import difference
from voxgen.testing.grids import full_grid, random_grid

ENGINES = [
    name
    for name, backend in BLOCK_ATTENTION.backends.items()
    if name not in ("triton", "reference") and not backend.unsupported(Call(torch.device("cpu"), torch.float32, True))
]
ALL = [*ENGINES, "reference"]


def operands(rows: int, keys: int, heads: int, key_heads: int, width: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    shapes = (rows, heads), (keys, key_heads), (keys, key_heads)
    return [torch.randn(*shape, width).to(dtype).requires_grad_() for shape in shapes]


def dense(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Torch's own attention of one sample."""
    heads_first = (t.transpose(0, 1)[None] for t in (q, k, v))
    return torch.nn.functional.scaled_dot_product_attention(*heads_first, enable_gqa=True)[0].transpose(0, 1)


def assert_equal(actual: Tensor, expected: Tensor, inputs: list[Tensor], allowed: float = 1e-5) -> None:
    """Values and gradients agree."""
    assert difference(actual, expected) < allowed
    upstream = torch.randn_like(expected)
    found = torch.autograd.grad(actual, inputs, upstream)
    wanted = torch.autograd.grad(expected, inputs, upstream, retain_graph=True)
    for a, e in zip(found, wanted, strict=True):
        assert difference(a, e) < allowed


@pytest.mark.parametrize("backend", ALL)
def test_all_blocks_are_full_attention(backend: str) -> None:
    grid = random_grid((130, 0, 60), 12)
    q, k, v = operands(190, 190, 4, 2, 32)
    full = ragged_attention(q, k, v, grid.offsets, backend="reference")
    blocks = partition(grid, 4)
    chosen = chosen_blocks(grid, 4, 2, 40)
    assert int((chosen >= 0).sum(2).min()) > 3
    selected = selection_attention(q, k, v, chosen, blocks, backend=backend)
    assert_equal(selected.out, full, [q, k, v])
    windowed = window_attention(q, k, v, partition(grid, 12), backend=backend)
    assert_equal(windowed.out, full, [q, k, v])
    assert difference(selected.lse, windowed.lse) < 1e-5


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize(("heads", "key_heads", "width", "top_k"), [(16, 1, 64, 3), (3, 3, 96, 1), (2, 1, 128, 32), (8, 2, 33, 8)])
def test_blocks_of_many_sizes(backend: str, heads: int, key_heads: int, width: int, top_k: int) -> None:
    """Blocks from one cell to five hundred, and lists that differ from query to query."""
    dense_corner = full_grid(8).coords
    coords = torch.cat((dense_corner, random_grid((60,), 30).coords)).unique(dim=0)
    grid, _ = type(random_grid((1,), 2)).build(coords, resolution=30)
    n = len(grid)
    q, k, v = operands(n, n, heads, key_heads, width)
    blocks, chosen = partition(grid, 8), chosen_blocks(grid, 8, key_heads, top_k)
    actual = selection_attention(q, k, v, chosen, blocks, backend=backend)
    expected = selection_attention(q, k, v, chosen, blocks, backend="reference")
    assert difference(actual.lse, expected.lse) < 1e-5
    assert_equal(actual.out, expected.out, [q, k, v])


@pytest.mark.parametrize("backend", ALL)
def test_order_of_lists_and_batches_does_not_matter(backend: str) -> None:
    grid = random_grid((40, 30), 9)
    q, k, v = (t.detach() for t in operands(70, 70, 2, 1, 16))
    blocks, chosen = partition(grid, 3), chosen_blocks(grid, 3, 1, 6)
    together = selection_attention(q, k, v, chosen, blocks, backend=backend).out
    shuffled = selection_attention(q, k, v, chosen.flip(2).contiguous(), blocks, backend=backend).out
    assert difference(shuffled, together) < 2e-6
    for s in range(2):
        rows = slice(*grid.offsets[s : s + 2].tolist())
        own = torch.where(chosen[:, rows] < 0, -1, chosen[:, rows] - int(blocks.offsets[s]))
        alone = selection_attention(q[rows], k[rows], v[rows], own, partition(grid.sample(s), 3), backend=backend).out
        assert difference(alone, together[rows]) < 2e-6


@pytest.mark.parametrize("backend", ALL)
def test_nothing_chosen_gives_nothing(backend: str) -> None:
    grid = random_grid((30,), 9)
    q, k, v = operands(30, 30, 2, 1, 16)
    blocks = partition(grid, 3)
    chosen = chosen_blocks(grid, 3, 1, 2)
    chosen[:, 5] = -1
    taken = int(chosen[0, 0, 0])
    chosen[chosen == taken] = -1
    out, lse = selection_attention(q, k, v, chosen, blocks, backend=backend)
    assert out[5].eq(0).all()
    assert lse[5].eq(-torch.inf).all()
    for_q, for_k, for_v = torch.autograd.grad(out, [q, k, v], torch.ones_like(out))
    assert for_q[5].eq(0).all()
    unseen = blocks.block == taken
    assert for_k[unseen].eq(0).all()
    assert for_v[unseen].eq(0).all()
    none = selection_attention(q, k, v, chosen[:, :, :0], blocks, backend=backend).out
    assert none.eq(0).all()


@pytest.mark.parametrize("backend", ALL)
def test_large_logits(backend: str) -> None:
    q, k, v = operands(40, 40, 2, 1, 16)
    everything = partition(random_grid((40,), 9), 9)
    out, lse = window_attention(q * 1000, k, v, everything, backend=backend)
    assert bool(out.isfinite().all())
    assert float(lse.abs().max()) > 1000
    expected = dense((q * 1000).double(), k.double(), v.double())
    assert difference(out, expected) < 1e-3  # logits of a thousand are rounded to 1e-4


@pytest.mark.parametrize("backend", ALL)
def test_nan_stays_with_its_query(backend: str) -> None:
    grid = random_grid((40,), 9)
    q, k, v = (t.detach() for t in operands(40, 40, 2, 1, 16))
    clean = window_attention(q, k, v, partition(grid, 4), backend=backend).out
    q[7, 1, 3] = torch.nan
    out = window_attention(q, k, v, partition(grid, 4), backend=backend).out
    assert bool(out[7, 1].isnan().all())
    keep = torch.ones(40, 2, dtype=torch.bool)
    keep[7, 1] = False
    assert torch.equal(out[keep], clean[keep])


def test_gradients_of_the_definition() -> None:
    grid = random_grid((14,), 6)
    q, k, v = operands(14, 14, 2, 1, 3, torch.float64)
    chosen = chosen_blocks(grid, 3, 1, 2)
    call = lambda *t: selection_attention(*t, chosen, partition(grid, 3), backend="reference").out  # noqa: E731
    assert torch.autograd.gradcheck(call, (q, k, v))


@pytest.mark.parametrize("backend", ENGINES)
def test_operator_is_registered_soundly(backend: str) -> None:
    grid = random_grid((12, 0, 9), 5)
    q, k, v = operands(21, 21, 2, 1, 8)
    blocks = partition(grid, 3)
    lists = (chosen_blocks(grid, 3, 1, 2), blocks.starts, blocks.rows, blocks.rows, blocks.longest)
    window_attention(q, k, v, blocks, backend=backend)
    torch.library.opcheck(torch.ops.voxgen.block_attention.default, (q, k, v, *lists, 0.3, backend))


@pytest.mark.parametrize("backend", ENGINES)
def test_compiles_as_one_graph(backend: str) -> None:
    torch.compiler.reset()
    plans = [SSAPlan.build(random_grid(counts, 7), compression_block=2, selection_block=4) for counts in ((30, 0, 10), (25, 3, 20))]

    def layer(tensors: list[Tensor], plan: SSAPlan) -> Tensor:
        return 2 * window_attention(*tensors, plan.windows(), backend=backend).out

    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for plan in plans:
        plan.windows()
        tensors = operands(len(plan.grid), len(plan.grid), 2, 1, 8)
        assert_equal(compiled(tensors, plan), layer(tensors, plan), tensors)


@pytest.mark.parametrize("backend", ENGINES)
def test_checkpointing_and_second_derivatives(backend: str) -> None:
    grid = random_grid((40, 0, 30), 8)
    blocks = partition(grid, 4)
    tensors = operands(70, 70, 2, 1, 8)

    def layer(*args: Tensor) -> Tensor:
        return window_attention(*args, blocks, backend=backend).out

    expected = torch.autograd.grad(layer(*tensors).square().sum(), tensors)
    actual = torch.autograd.grad(checkpoint(layer, *tensors, use_reentrant=False).square().sum(), tensors)  # type: ignore[union-attr]
    assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))
    first = torch.autograd.grad(layer(*tensors).square().sum(), tensors[0], create_graph=True)[0]
    with pytest.raises(BackendUnavailable, match="second derivatives"):
        torch.autograd.grad(first.sum(), tensors[0])


def test_gradients_may_be_strided() -> None:
    blocks = partition(random_grid((30,), 8), 4)
    tensors = operands(30, 30, 2, 1, 8)
    for backend in ENGINES:
        out = window_attention(*tensors, blocks, backend=backend).out
        assert_equal(out.transpose(0, 2), window_attention(*tensors, blocks, backend="reference").out.transpose(0, 2), tensors)
        torch.autograd.grad(window_attention(*tensors, blocks, backend=backend).out.sum(), tensors)  # an expanded gradient


def test_autocast() -> None:
    blocks = partition(random_grid((30,), 8), 4)
    tensors = operands(30, 30, 2, 1, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert window_attention(*tensors, blocks).out.dtype == torch.bfloat16


BAD: list[tuple[str, type[Exception], str, Any]] = [
    ("heads", ShapeError, "multiple of those of k", lambda q, k, v, g, b: window_attention(q[:, :3], k, v, b)),
    ("dtypes", DtypeError, "one dtype", lambda q, k, v, g, b: window_attention(q.double(), k, v, b)),
    ("window rows", ShapeError, "One row for each cell", lambda q, k, v, g, b: window_attention(q[:7], k, v, b)),
    ("scale", RangeError, "scale must be a finite number", lambda q, k, v, g, b: window_attention(q, k, v, b, scale=float("nan"))),
    ("list heads", ShapeError, "chosen must be", lambda q, k, v, g, b: selection_attention(q, k, v, _lists(q, 1), b)),
    ("list dtype", DtypeError, "chosen must be", lambda q, k, v, g, b: selection_attention(q, k, v, _lists(q, 2).long(), b)),
    ("list values", RangeError, "chosen must hold blocks", lambda q, k, v, g, b: selection_attention(q, k, v, _lists(q, 2) + 99, b)),
    ("plan", ShapeError, r"k must be \(8, Hk, 8\)", lambda q, k, v, g, b: compression_attention(q, k, v, SSAPlan.build(g))),
]


def _lists(q: Tensor, key_heads: int) -> Tensor:
    return torch.zeros(key_heads, len(q), 1, dtype=torch.int32)


@pytest.mark.parametrize(("error", "text", "call"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_bad_input(error: type[Exception], text: str, call: Any) -> None:
    grid = random_grid((20,), 16, seed=1)
    q, k, v = operands(20, 20, 4, 2, 8)
    if "8, Hk" in text:
        text = text.replace("8, Hk", f"{len(SSAPlan.build(grid).compressed)}, Hk")
    with pytest.raises(error, match=text):
        call(q, k, v, grid, partition(grid, 4))
