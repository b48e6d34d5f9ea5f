"""The GPU engine where no GPU is: plans, interpreted kernels beyond the parity cases, tuning, and code for a real chip."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="package triton is not installed")

from voxgen.core import VoxelGrid
from voxgen.core.errors import BackendUnavailable
from voxgen.ops.conv import _triton, sparse_conv, tuning
from voxgen.ops.conv._triton_plan import Tiles, make_tiles, tiles_of
from voxgen.ops.conv._triton_shapes import TUNED, TileShape, key_of, parts_for, rule
from voxgen.ops.neighbors import neighbor_table
from voxgen.testing.compare import difference
from voxgen.testing.grids import random_grid

interpreted = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="TRITON_INTERPRET=1 is not set")


@pytest.fixture
def tuned() -> Any:
    """Lets a test put tile shapes in; forgets them afterwards."""
    TUNED.clear()
    yield TUNED
    TUNED.clear()


def check_tiles(table: torch.Tensor, tiles: Tiles, rows: int) -> None:
    n_out, volume = table.shape
    assert tiles.rows == rows or n_out == 0
    kept = tiles.order[tiles.order >= 0]
    assert sorted(kept.tolist()) == list(range(n_out))
    visits = torch.zeros(len(tiles.offsets), volume, dtype=torch.bool)
    for tile, (row, count) in enumerate(zip(tiles.offsets.tolist(), tiles.offset_counts.tolist(), strict=True)):
        assert row[:count] == sorted(row[:count])
        visits[tile, row[:count]] = True
    for tile, members in enumerate(tiles.order.view(-1, rows)):
        members = members[members >= 0].long()
        assert torch.equal(visits[tile], (table[members] >= 0).any(0))  # all that is needed, and nothing else
    for k, (row, count) in enumerate(zip(tiles.tiles.tolist(), tiles.tile_counts.tolist(), strict=True)):
        assert row[:count] == visits[:, k].nonzero()[:, 0].tolist()


@pytest.mark.parametrize("options", [{}, {"kernel_size": 5}, {"kernel_size": 2, "stride": 2}])
def test_tiles_visit_what_their_rows_need(options: dict[str, Any]) -> None:
    table = neighbor_table(random_grid((150, 0, 90), 12), **options)
    check_tiles(table.table, make_tiles(table.table, 16), 16)
    check_tiles(table.table, make_tiles(table.table, 512), 512)
    assert tiles_of(table, 16) is tiles_of(table, 16)
    empty = neighbor_table(random_grid((0,), 8)).table
    check_tiles(empty, make_tiles(empty, 16), 16)


def test_sorting_saves_visits() -> None:
    """On a curved sheet of cells tiles of like rows visit clearly fewer offsets than tiles of rows in spatial order."""
    cells = torch.cartesian_prod(torch.arange(90), torch.arange(90))
    height = (20 + 12 * torch.sin(cells[:, 0] / 14) + 9 * torch.cos(cells[:, 1] / 11)).long()
    coords = torch.stack((torch.zeros_like(height), cells[:, 0], cells[:, 1], height), 1).int()
    table = neighbor_table(VoxelGrid.build(coords, resolution=90)[0]).table
    spatial = (table[: len(table) // 64 * 64] >= 0).view(-1, 64, 27).any(1).sum(1).float().mean()
    ours = make_tiles(table, 64).offset_counts.float().mean()
    ideal = (table >= 0).sum(1).float().mean()
    assert ideal <= ours < 0.75 * spatial


@interpreted
@pytest.mark.parametrize(
    ("dtype", "parts", "options"), [(torch.float32, 1, {}), (torch.float16, 3, {}), (torch.float32, 3, {"stride": (1, 1, 2)})]
)
def test_several_tiles_blocks_and_parts(dtype: torch.dtype, parts: int, options: dict[str, Any], tuned: Any) -> None:
    table = neighbor_table(random_grid((60, 0, 30), 9), kernel_size=(1, 3, 3), **options)
    feats = torch.randn(len(table.in_grid), 20).to(dtype).requires_grad_()
    weight = (torch.randn(9, 20, 24) / 13).to(dtype).requires_grad_()
    bias = torch.randn(24).to(dtype).requires_grad_()
    shape = TileShape(rows=32, columns=16, depth=16, parts=parts)
    tuned[key_of(feats.device, len(table), 20, 24, 9, dtype)] = shape
    tuned[key_of(feats.device, len(feats), 24, 20, 9, dtype)] = shape
    upstream = torch.randn(len(table), 24).to(dtype)
    out = sparse_conv(feats, weight, bias, table, backend="triton")
    expected = sparse_conv(feats, weight, bias, table, backend="reference")
    assert tiles_of(table, 32).rows == 32
    allowed = 2e-6 if dtype == torch.float32 else 2e-3
    assert difference(out, expected) < allowed
    actual = torch.autograd.grad(out, [feats, weight, bias], upstream)
    wanted = torch.autograd.grad(expected, [feats, weight, bias], upstream)
    assert all(difference(a, w) < allowed for a, w in zip(actual, wanted, strict=True))


@interpreted
def test_tuning_keeps_only_what_is_right(tuned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    table = neighbor_table(random_grid((30,), 8), kernel_size=(1, 1, 3))
    candidates = (TileShape(16, 16, 16), TileShape(64, 16, 16))
    key = key_of(table.device, 30, 8, 8, 3, torch.float32)
    right = _triton._multiply

    def wrong_for_small_tiles(*args: Any, **kwargs: Any) -> torch.Tensor:
        out = right(*args, **kwargs)
        return out + 1 if tuned[key].rows == 16 else out

    monkeypatch.setattr(_triton, "_multiply", wrong_for_small_tiles)
    assert tuning.tune_conv(table, 8, 8, torch.float32, candidates=candidates, repeats=1).rows == 64
    assert tuned[key].rows == 64
    tuned.clear()
    monkeypatch.setattr(_triton, "_multiply", lambda *args, **kwargs: right(*args, **kwargs) * float("nan"))
    with pytest.raises(BackendUnavailable, match=r"(?s)no tile shape is usable.*differs from the reference by inf"):
        tuning.tune_conv(table, 8, 8, torch.float32, candidates=candidates, repeats=1)
    assert not tuned


def test_rule() -> None:
    cpu = torch.device("cpu")
    small = rule(key_of(cpu, 300, 3, 7, 27, torch.float32))
    assert (small.rows, small.columns, small.depth) == (64, 16, 16)
    large = rule(key_of(cpu, 1_000_000, 512, 200, 27, torch.bfloat16))
    assert (large.rows, large.columns, large.depth) == (128, 128, 64)
    assert parts_for(small, 1, 100, cpu) == 1
    assert parts_for(TileShape(16, 16, 16, parts=5), 1, 100, cpu) == 5


def test_refuses_what_it_cannot_do() -> None:
    table = neighbor_table(random_grid((10,), 8))
    tensors = torch.randn(10, 4), torch.randn(27, 4, 4), None
    with pytest.raises(BackendUnavailable, match="triton: takes float32, float16"):
        sparse_conv(tensors[0].double(), tensors[1].double(), None, table, backend="triton")


COMPILE = """
import json, sys
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from voxgen.ops.conv._triton_kernels import multiply_kernel, weight_gradient_kernel

TABLES = {"table", "order", "offsets", "offset_counts", "tiles", "tile_counts"}
FLOATS = {"feats", "weight", "bias", "grad", "out"}
found = {}
for kernel, constants in (
    (multiply_kernel, {"MIRRORED": False, "HAS_BIAS": True, "weight_out": 1}),
    (weight_gradient_kernel, {}),
):
    constants |= {"PARTS": 1, "PRECISION": "ieee", "ROWS": 128, "COLUMNS": 64, "DEPTH": 64}
    signature = {
        name: "constexpr" if name in constants else "*i32" if name in TABLES else "*bf16" if name in FLOATS else "i32"
        for name in kernel.arg_names
    }
    aligned = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(kernel.arg_names) if n in TABLES | FLOATS or "channels" in n}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
    binary = compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4, "num_stages": 3, "enable_fp_fusion": True})
    code = binary.asm["ptx"]
    found[kernel.__name__] = ["wgmma" in code, "cp.async" in code, binary.metadata.shared]
print(json.dumps(found))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="triton compiles for NVIDIA chips on Linux only")
def test_kernels_compile_for_hopper() -> None:
    """Machine code for an H100, made without one: tensor-core products, asynchronous copies, and shared memory that fits."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    for name, (tensor_cores, pipelined, shared) in json.loads(done.stdout.splitlines()[-1]).items():
        assert tensor_cores, name
        assert pipelined, name
        assert shared <= 227 * 1024, name
