"""The GPU engines of spatial sparse attention where no GPU is: tables, interpreted kernels, code for a real chip."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="package triton is not installed")

from voxgen.ops.block_attention import _triton, selection_attention
from voxgen.ops.block_attention._lists import Lists
from voxgen.ops.block_attention._triton_plan import segments_of, unions_of
from voxgen.ops.block_topk import _triton as topk_triton
from voxgen.ops.block_topk import block_topk
from voxgen.ops.block_topk._tables import tables_of
from voxgen.ops.blocks import SSAPlan, partition
from voxgen.ops.ragged_attention import ragged_attention
from voxgen.testing.cases.block_attention import chosen_blocks
from voxgen.testing.compare import difference
from voxgen.testing.grids import full_grid, random_grid

interpreted = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="TRITON_INTERPRET=1 is not set")


def lists_of(top_k: int, key_heads: int = 2) -> Lists:
    grid = random_grid((70, 0, 33), 12)
    blocks = partition(grid, 3)
    return Lists(chosen_blocks(grid, 3, key_heads, top_k), blocks.starts, blocks.rows, blocks.rows, blocks.longest)


@pytest.mark.parametrize(("top_k", "queries"), [(1, 64), (3, 4), (40, 16), (2, 1)])
def test_unions_hold_what_their_queries_see(top_k: int, queries: int) -> None:
    lists = lists_of(top_k)
    unions = unions_of(lists, queries)
    for g in range(2):
        for tile in range(unions.blocks.shape[1]):
            own = lists.queries[tile * queries : (tile + 1) * queries].long()
            seen: dict[int, int] = {}
            for i, row in enumerate(lists.chosen[g, own].tolist()):
                for block in row:
                    if block >= 0:
                        seen[block] = seen.get(block, 0) | 1 << i
            count = int(unions.counts[g, tile])
            assert unions.blocks[g, tile, :count].tolist() == sorted(seen)
            bits = [b % 2**64 for b in unions.bits[g, tile, :count].tolist()]  # the 64th is the sign
            assert bits == [seen[b] for b in sorted(seen)]


@pytest.mark.parametrize(("top_k", "length"), [(3, 8), (5, 1000), (40, 7), (1, 1)])
def test_segments_hold_each_pair_once(top_k: int, length: int) -> None:
    lists = lists_of(top_k)
    segments = segments_of(lists, length)
    blocks = len(lists.starts) - 1
    sizes = lists.starts.diff().tolist()
    for g in range(2):
        pairs, rows = [], set()
        for s in range(segments.block.shape[1]):
            block, begin, end = (int(t[g, s]) for t in (segments.block, segments.begin, segments.end))
            if block == blocks:
                assert begin == end == 0
                continue
            assert 0 < end - begin <= length
            first, count = int(segments.first[g, block]), int(segments.counts[g, block])
            assert first <= s < first + count
            pairs += [(block, m) for m in segments.members[g, begin:end].tolist()]
            own = set(range(int(segments.row[g, s]), int(segments.row[g, s]) + sizes[block]))
            assert not own & rows
            rows |= own
        expected = [(int(b), n) for n, row in enumerate(lists.chosen[g].tolist()) for b in row if b >= 0]
        assert sorted(pairs) == sorted(expected)
        assert max(rows) < segments.rows


def test_kinds_and_tiles_cover_everything() -> None:
    plan = SSAPlan.build(random_grid((90, 0, 40), 12), compression_block=1, selection_block=4)
    tables = tables_of(plan, False)
    kinds, bounds = topk_triton.kinds_of(tables)
    assert sorted(kinds.tolist()) == list(range(len(plan.selection)))
    for kind, row in enumerate(bounds.tolist()):
        for s in range(3):
            for block in kinds[row[s] : row[s + 1]].tolist():
                assert int(plan.selection.batch[block]) == s
                assert 2**kind / 2 < int(plan.folding.counts[block]) <= 2**kind or kind == 0
    sample, first, last = (t.tolist() for t in topk_triton.tiles_of(plan.grid.offsets, len(plan.grid), 16))
    covered = [(s, i) for s, a, b in zip(sample, first, last, strict=True) for i in range(a, b)]
    assert covered == [(int(s), i) for i, s in enumerate(plan.grid.batch.tolist())]
    assert max(b - a for a, b in zip(first, last, strict=True)) <= 16


@interpreted
@pytest.mark.parametrize(
    ("dtype", "heads", "key_heads", "width", "top_k"),
    [(torch.float32, 16, 1, 128, 3), (torch.float16, 5, 1, 96, 9), (torch.float16, 2, 2, 64, 1), (torch.float32, 2, 1, 24, 32)],
)
def test_several_tiles_and_segments(
    dtype: torch.dtype, heads: int, key_heads: int, width: int, top_k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists in segments, blocks longer than a tile of keys, groups that are no power of two."""
    monkeypatch.setattr(_triton, "PROGRAMS", 1)
    monkeypatch.setattr(_triton, "SHORTEST", 5)
    monkeypatch.setattr(_triton, "_length", lambda lists, programs: 5)
    grid = random_grid((40, 0, 12), 6) if top_k > 1 else full_grid((4, 4, 5))
    size = 2 if top_k > 1 else 5
    blocks, chosen = partition(grid, size), chosen_blocks(grid, size, key_heads, top_k)
    n = len(grid)
    tensors = [torch.randn(n, h, width).to(dtype).requires_grad_() for h in (heads, key_heads, key_heads)]
    actual = selection_attention(*tensors, chosen, blocks, backend="triton")  # type: ignore[call-arg]
    expected = selection_attention(*tensors, chosen, blocks, backend="reference")  # type: ignore[call-arg]
    allowed = 5e-6 if dtype == torch.float32 else 5e-3
    assert difference(actual.out, expected.out) < allowed
    assert difference(actual.lse, expected.lse) < allowed
    upstream = torch.randn_like(actual.out).transpose(0, 1).contiguous().transpose(0, 1)
    found, wanted = (torch.autograd.grad(a.out, tensors, upstream) for a in (actual, expected))
    assert all(difference(f, w) < allowed for f, w in zip(found, wanted, strict=True))


@interpreted
@pytest.mark.parametrize(("top_k", "own_block"), [(12, False), (16, True), (32, True)])
def test_long_lists_are_sorted_in(top_k: int, own_block: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for size in ("QUERIES", "COLUMNS"):
        monkeypatch.setattr(topk_triton, size, 16)
    count = 40 if top_k <= 16 else 120
    plan = SSAPlan.build(random_grid((count,), 20), compression_block=2, selection_block=2)
    assert len(plan.selection) > top_k
    q, k = torch.randn(count, 2, 16), torch.randn(len(plan.compressed), 1, 16)
    lse = torch.randn(count, 2) + 5
    arguments = q, k, lse, plan, top_k
    actual, expected = (block_topk(*arguments, own_block=own_block, backend=b) for b in ("triton", "reference"))
    assert torch.equal(actual, expected)


@interpreted
def test_full_attention_of_half_precision() -> None:
    q, k, v = (torch.randn(50, h, 40, dtype=torch.float16) for h in (3, 3, 3))
    offsets = torch.tensor([0, 20, 50])
    actual, expected = (ragged_attention(q, k, v, offsets, backend=b) for b in ("triton", "reference"))
    assert difference(actual, expected) < 2e-3


COMPILE = """
import json
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from voxgen.ops.block_attention._triton_kernels import forward_kernel, key_gradient_kernel, query_gradient_kernel, sum_parts_kernel
from voxgen.ops.block_topk._triton_kernels import choose_kernel
from voxgen.ops.spatial_sparse_attention._gate_triton import combine_kernel, project_kernel

HALF = {"q", "k", "v", "grad", "gate", "out", "for_q", "first", "second", "third"}
FLOAT = {"lse", "delta", "part", "part_k", "part_v", "shares"}
LONG = {"union_bits", "segment_row", "block_of", "tile_first", "tile_last"}
INT = {
    "queries", "union_blocks", "union_counts", "starts", "members", "segment_block", "segment_begin", "segment_end", "keys",
    "first_segment", "segment_counts", "kinds", "kind_bounds", "tile_sample", "own", "chosen",
}
SHAPE = {"HEADS": 32, "KEY_HEADS": 2, "SHARED": False, "GP": 16, "BQ": 4, "D": 32, "DP": 32, "BN": 64, "PRECISION": "ieee"}
CONSTANTS = {**SHAPE, "ENTRIES": 32, "GATED": True, "ROWS": 32, "ELEMENTS": 1024}
CHOICE = {"BQ": 64, "KINDS": 2, "OWN": False, "NO_BLOCK": 2**31 - 1}
found = {}
for kernel, more in (
    (forward_kernel, {}),
    (query_gradient_kernel, {}),
    (key_gradient_kernel, {}),
    (sum_parts_kernel, {}),
    (choose_kernel, {**CHOICE, "TOP_K": 32, "TP": 32}),
    (combine_kernel, {}),
    (project_kernel, {}),
):
    constants = {name: value for name, value in {**CONSTANTS, **more}.items() if name in kernel.arg_names}
    def kind(name):
        if name in constants:
            return "constexpr"
        for names, text in ((HALF, "*fp16"), (FLOAT, "*fp32"), (LONG, "*i64"), (INT, "*i32")):
            if name in names:
                return text
        return "fp32" if name in ("factor", "scale") else "i32"
    signature = {name: kind(name) for name in kernel.arg_names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(kernel.arg_names) if signature[n][0] == "*"}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
    binary = compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4, "enable_fp_fusion": True})
    code = binary.asm["ptx"]
    found[f"{kernel.__name__}-{constants.get('TOP_K', '')}"] = ["mma" in code, binary.metadata.shared]
print(json.dumps(found))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="triton compiles for NVIDIA chips on Linux only")
def test_kernels_compile_for_hopper() -> None:
    """Machine code for an H100, made without one: tensor-core products, and shared memory that fits."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    for name, (tensor_cores, shared) in found.items():
        assert tensor_cores or name.startswith(("sum", "combine", "project")), name
        assert shared <= 227 * 1024, name
