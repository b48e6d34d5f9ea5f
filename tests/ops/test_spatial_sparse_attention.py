"""Spatial sparse attention against the original's numbers: branches, choices, gate, gradients."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from golden import recipe, ssa  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from voxgen.core import VoxelGrid
from voxgen.core.errors import DeviceError, DtypeError, RangeError, ShapeError
from voxgen.core.grid import restore
from voxgen.ops._registry import Call
from voxgen.ops.block_attention import compression_attention, selection_attention, window_attention
from voxgen.ops.block_topk import _reference as topk_reference
from voxgen.ops.block_topk import block_topk
from voxgen.ops.block_topk._tables import tables_of
from voxgen.ops.blocks import SSAPlan
from voxgen.ops.spatial_sparse_attention import SPATIAL_SPARSE_ATTENTION, spatial_sparse_attention
from voxgen.ops.spatial_sparse_attention._tables import flatten
from voxgen.testing.compare import difference
from voxgen.testing.grids import random_grid

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = ["released_v11", "released_v10", "multi_query", "one_to_one"]
ENGINES = [
    name
    for name, backend in SPATIAL_SPARSE_ATTENTION.backends.items()
    if name != "triton" and not backend.unsupported(Call(torch.device("cpu"), torch.float32, True))
]
TOLERANCE = 1e-4
"""Of the largest value, as the goldens state for float32."""


class Golden:
    """One golden: its numbers, its parameters, and its tokens in a grid."""

    def __init__(self, name: str, backend: str) -> None:
        self.file = json.loads((GOLDEN / f"direct3d_s2_ssa_{name}.json").read_text())
        with np.load(GOLDEN / f"direct3d_s2_ssa_{name}.npz") as arrays:
            self.arrays = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
        self.config: dict[str, Any] = self.file["configuration"]
        self.seed = self.file["seed"]
        weights = {k: torch.from_numpy(v) for k, v in recipe.state_dict(self.file["learned"], self.seed).items()}
        for key, factor in self.file["scales"].items():
            weights[key] = weights[key] * factor
        self.weights = {k: v.requires_grad_() for k, v in weights.items()}
        coords = self.arrays["in/coords"]
        self.grid, self.order = VoxelGrid.build(coords, resolution=self.config["resolution"], batch_size=3)
        c = self.config
        self.plan = SSAPlan.build(
            self.grid, compression_block=c["compression_block_size"], selection_block=c["selection_block_size"], window=c["window_size"]
        )
        self.x = self.made("x").requires_grad_()
        self.tokens = ssa.operands(self.x[self.order], self.weights, self.plan, c["num_q_heads"], c["head_dim"])
        self.backend = backend

    def made(self, key: str) -> Tensor:
        """An input, by the name that its recipe says."""
        entry = self.file["inputs"][key]
        factor, name = re.fullmatch(r"([\d.]+) \* recipe.normal\('(.+)', shape, seed\)", entry["made"]).groups()  # type: ignore[union-attr]
        return float(factor) * torch.from_numpy(recipe.normal(name, tuple(entry["shape"]), self.seed))

    def check(self, key: str, value: Tensor, rows: str | None = "in/rows") -> None:
        """A tensor in the golden's order: the rows it keeps, and the checksum of all."""
        stored = self.arrays.get(f"out/{key}")
        if stored is not None:
            kept = value if rows is None else value[self.arrays[rows]]
            assert difference(kept, stored) < TOLERANCE, key
        facts = self.file["checkpoints"].get(key, self.file["outputs"].get(key))
        dots = torch.from_numpy(recipe.normal(f"dot/{key}", tuple(value.shape), self.seed)).double()
        dot = float((value.detach().double() * dots).sum()) / value.numel() ** 0.5
        # sums of this many values cancel to about one of their size, so the checksum is as exact as the values
        assert abs(dot - facts["dot"]) < 10 * TOLERANCE * (abs(facts["mean"]) + facts["std"]), key

    def back(self, rows: Tensor) -> Tensor:
        """Rows of the grid in the golden's order."""
        return restore(rows, self.order)


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("name", NAMES)
def test_branches_of_the_original(name: str, backend: str) -> None:
    g = Golden(name, backend)
    q, k, v, k_c, v_c, gate = (t.detach().requires_grad_() for t in g.tokens)
    for key, value in (("q", q), ("k", k), ("v", v), ("gate", gate)):
        g.check(key, g.back(value))
    g.check("k_c", k_c, "in/rows_c")
    g.check("v_c", v_c, "in/rows_c")
    assert torch.equal(g.plan.compressed.coords, g.arrays["out/coords_c"])
    assert torch.equal(g.plan.selection.offsets, g.arrays["out/cu_blocks"].long())
    assert torch.equal(g.plan.selection.starts, g.arrays["out/cu_block_tokens"].int())

    upstream = g.made("do")[g.order]
    compressed, lse = compression_attention(q, k_c, v_c, g.plan, backend=backend)
    g.check("o_cmp", g.back(compressed))
    g.check("lse_cmp", g.back(lse))
    for key, gradient in zip(("dq", "dk_c", "dv_c"), torch.autograd.grad(compressed, (q, k_c, v_c), upstream), strict=True):
        g.check(f"cmp/{key}", g.back(gradient) if key == "dq" else gradient, "in/rows" if key == "dq" else "in/rows_c")

    chosen = block_topk(q, k_c, lse, g.plan, g.config["topk"], backend=backend)
    first = g.plan.sample_blocks[:, :1]
    local = torch.where(chosen < 0, -1, chosen - first)
    assert torch.equal(g.back(local.transpose(0, 1)).transpose(0, 1), g.arrays["out/topk"].int())

    selected, lse = selection_attention(q, k, v, chosen, g.plan.selection, backend=backend)
    g.check("o_slc", g.back(selected))
    g.check("lse_slc", g.back(lse))
    for key, gradient in zip(("dq", "dk", "dv"), torch.autograd.grad(selected, (q, k, v), upstream), strict=True):
        g.check(f"slc/{key}", g.back(gradient))

    windowed = window_attention(q, k, v, g.plan.windows(g.config["shift_window"]), backend=backend).out
    g.check("o_win", g.back(windowed))
    for key, gradient in zip(("dq", "dk", "dv"), torch.autograd.grad(windowed, (q, k, v), upstream), strict=True):
        g.check(f"win/{key}", g.back(gradient))


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("name", NAMES)
def test_whole_attention_of_the_original(name: str, backend: str) -> None:
    g = Golden(name, backend)
    out = spatial_sparse_attention(*g.tokens, g.plan, g.config["topk"], shift=g.config["shift_window"], backend=backend)
    y = g.back(out.flatten(1) @ g.weights["proj_o.weight"].T)
    g.check("y", y)
    names = list(g.weights)
    found = torch.autograd.grad(y, (g.x, *g.weights.values()), g.made("dy"))
    g.check("dx", found[0])
    for name, gradient in zip(names, found[1:], strict=True):
        if name == "compression_key.out_layers.3.conv.bias":  # zero but for rounding: the same shift of all keys cancels
            assert float(gradient.abs().max()) < 1e-4
        elif name != "compression_key.out_layers.0.conv.bias" and name != "compression_value.out_layers.0.conv.bias":
            g.check(f"d {name}", gradient)


def test_scores_of_the_original() -> None:
    for name in NAMES:
        g = Golden(name, "reference")
        lse = compression_attention(*g.tokens[:1], *g.tokens[3:5], g.plan, backend="reference").lse
        q, k_c = g.tokens.q, g.tokens.k_c
        shares = topk_reference.compression_scores(q, k_c, lse, tables_of(g.plan, False), q.shape[2] ** -0.5)
        expected = g.arrays["out/score_c"]
        tokens = json.loads(re.search(r"\[.*?\]", g.file["outputs"]["score_c"]["meaning"]).group())  # type: ignore[union-attr]
        bounds = g.plan.compressed.offsets.tolist()
        for i, token in enumerate(tokens):
            row = int((g.order == token).nonzero())
            sample = int(g.grid.batch[row])
            own = shares[:, row, bounds[sample] : bounds[sample + 1]]
            assert difference(own, expected[i, :, : own.shape[1]]) < TOLERANCE
        whole = topk_reference.scores(q, k_c, lse, tables_of(g.plan, False), q.shape[2] ** -0.5).sum(2)
        assert difference(whole, torch.full_like(whole, q.shape[1] / k_c.shape[1])) < 1e-5


def operands(plan: SSAPlan, heads: int, key_heads: int, width: int) -> list[Tensor]:
    n, n_c = len(plan.grid), len(plan.compressed)
    shapes = (n, heads, width), *((rows, key_heads, width) for rows in (n, n, n_c, n_c))
    return [*(torch.randn(*shape).requires_grad_() for shape in shapes), torch.rand(n, 3).requires_grad_()]


@pytest.mark.parametrize("backend", [e for e in ENGINES if e != "reference"])
def test_operator_is_registered_soundly(backend: str) -> None:
    plan = SSAPlan.build(random_grid((12, 0, 9), 6), compression_block=1, selection_block=2, window=3)
    tensors = operands(plan, 2, 1, 8)
    spatial_sparse_attention(*tensors, plan, 2, backend=backend)
    operator = torch.ops.voxgen.spatial_sparse_attention.default
    torch.library.opcheck(operator, (*tensors, *flatten(plan, 1, False), 2, 0.3, backend))


@pytest.mark.parametrize("backend", [e for e in ENGINES if e != "reference"])
def test_compiles_and_checkpoints(backend: str) -> None:
    torch.compiler.reset()
    plan = SSAPlan.build(random_grid((30, 0, 20), 9), compression_block=2, selection_block=4, window=3)
    tensors = operands(plan, 4, 2, 8)

    def layer(*given: Tensor) -> Tensor:
        return spatial_sparse_attention(*given, plan, 2, shift=1, backend=backend) * 2

    expected = layer(*tensors)
    wanted = torch.autograd.grad(expected.square().sum(), tensors)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for actual in (compiled(*tensors), checkpoint(layer, *tensors, use_reentrant=False)):
        assert torch.equal(actual, expected)
        found = torch.autograd.grad(actual.square().sum(), tensors)
        assert all(torch.equal(a, e) for a, e in zip(found, wanted, strict=True))


@pytest.mark.parametrize("backend", ENGINES)
def test_moved_and_batched_tokens_see_the_same(backend: str) -> None:
    """Two samples together are each alone, also when moved by a multiple of every side."""
    first, second = random_grid((60,), 16, seed=1), random_grid((45,), 16, seed=2)
    moved = second.coords + torch.tensor([0, 8, 16, 0], dtype=torch.int32)
    second = VoxelGrid.from_sorted(moved, resolution=32, batch_size=1)
    first = VoxelGrid.from_sorted(first.coords, resolution=32, batch_size=1)
    both = VoxelGrid.batched([first, second])
    alone = VoxelGrid.from_sorted(second.coords - torch.tensor([0, 8, 16, 0], dtype=torch.int32), resolution=32, batch_size=1)
    plans = [SSAPlan.build(g, compression_block=2, selection_block=4, window=4) for g in (both, first, alone)]
    q, k, v, k_c, v_c, gate = (t.detach() for t in operands(plans[0], 4, 2, 16))
    together = spatial_sparse_attention(q, k, v, k_c, v_c, gate, plans[0], 3, shift=2, backend=backend)
    rows, compressed = len(first), len(plans[1].compressed)
    for plan, n, c in ((plans[1], slice(0, rows), slice(0, compressed)), (plans[2], slice(rows, None), slice(compressed, None))):
        out = spatial_sparse_attention(q[n], k[n], v[n], k_c[c], v_c[c], gate[n], plan, 3, shift=2, backend=backend)
        assert difference(out, together[n]) < 2e-6


@pytest.mark.parametrize("backend", ENGINES)
def test_nan_stays_with_its_query(backend: str) -> None:
    plan = SSAPlan.build(random_grid((60,), 16), compression_block=2, selection_block=4, window=4)
    q, *rest = (t.detach() for t in operands(plan, 4, 2, 16))
    clean = spatial_sparse_attention(q, *rest, plan, 3, backend=backend)  # type: ignore[call-arg]
    q[7, 1, 3] = torch.nan
    out = spatial_sparse_attention(q, *rest, plan, 3, backend=backend)  # type: ignore[call-arg]
    keep = torch.arange(60) != 7
    assert torch.equal(out[keep], clean[keep])
    assert bool(out[7, 1].isnan().all())


@pytest.mark.parametrize("backend", ENGINES)
def test_masked_tokens_are_seen_by_nobody(backend: str) -> None:
    plan = SSAPlan.build(random_grid((60, 0, 30), 16), compression_block=2, selection_block=4, window=4)
    q, k, v, k_c, v_c, gate = operands(plan, 4, 2, 16)
    mask = torch.rand(90) < 0.6
    mask[plan.windows(1).block == 2] = False  # a window of which nothing is left
    wild = [torch.where(mask[:, None, None], t, 99 * torch.randn_like(t)).detach().requires_grad_() for t in (k, v)]
    plain, other = (
        spatial_sparse_attention(q, *keys, k_c, v_c, gate, plan, 3, shift=1, key_mask=mask, backend=backend) for keys in ((k, v), wild)
    )
    assert torch.equal(plain, other)
    for gradient in torch.autograd.grad(plain, (k, v), torch.randn_like(plain)):
        assert gradient[~mask].eq(0).all()
        assert gradient[mask].ne(0).any()
    expected = spatial_sparse_attention(q, k, v, k_c, v_c, gate, plan, 3, shift=1, key_mask=mask, backend="reference")
    assert difference(other, expected) < 1e-5
    full = spatial_sparse_attention(q, k, v, k_c, v_c, gate, plan, 3, shift=1, key_mask=torch.ones_like(mask), backend=backend)
    assert torch.equal(full, spatial_sparse_attention(q, k, v, k_c, v_c, gate, plan, 3, shift=1, backend=backend))


def test_bad_input() -> None:
    plan = SSAPlan.build(random_grid((20,), 8), compression_block=2, selection_block=4, window=4)
    q, k, v, k_c, v_c, gate = operands(plan, 4, 2, 8)
    with pytest.raises(RangeError, match="top_k must be at least 1"):
        spatial_sparse_attention(q, k, v, k_c, v_c, gate, plan, 0)
    with pytest.raises(RangeError, match="shift must be from 0"):
        spatial_sparse_attention(q, k, v, k_c, v_c, gate, plan, 2, shift=-1)
    with pytest.raises(ShapeError, match="Factors of compression, selection and window"):
        spatial_sparse_attention(q, k, v, k_c, v_c, gate[:, :2], plan, 2)
    with pytest.raises(ShapeError, match="heads as in k_c"):
        spatial_sparse_attention(q, k[:, :1], v[:, :1], k_c, v_c, gate, plan, 2)
    with pytest.raises(ShapeError, match=r"One row for each cell of plan\.grid"):
        spatial_sparse_attention(q[:7], k, v, k_c, v_c, gate, plan, 2)
    with pytest.raises(DtypeError, match="one dtype"):
        spatial_sparse_attention(q, k, v, k_c.half(), v_c.half(), gate, plan, 2)
    with pytest.raises(DtypeError, match="True for tokens that may be seen"):
        spatial_sparse_attention(q, k, v, k_c, v_c, gate, plan, 2, key_mask=torch.ones(20))
    with pytest.raises(DeviceError, match="gate on meta"):
        spatial_sparse_attention(q, k, v, k_c, v_c, gate.to("meta"), plan, 2)
