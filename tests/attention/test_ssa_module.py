"""Spatial sparse attention as a layer: the original's numbers and gradients, plans, batches, precision, training, bad input."""

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

from golden import recipe  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from voxgen import attention, use_backend
from voxgen.attention import RaggedAttention, SpatialSparseAttention, SSAPlan
from voxgen.core import SparseTensor, VoxelGrid
from voxgen.core.errors import BackendUnavailable, DtypeError, RangeError, ShapeError
from voxgen.core.grid import restore
from voxgen.layers import set_torso_dtype
from voxgen.ops import spatial_sparse_attention as ops
from voxgen.ops.blocks import _blocks
from voxgen.ops.conv.layouts import from_layout, to_layout
from voxgen.testing.compare import assert_same, difference
from voxgen.testing.grids import random_coords, random_grid

GOLDEN = Path(__file__).parents[1] / "golden"
ENGINES = ["numba", "torch", "reference"]
TOLERANCE = 1e-4
"""Of the largest value, as the goldens state for float32."""


class Golden:
    """One golden: its module with its weights, and its tokens."""

    def __init__(self, name: str, backend: str = "auto") -> None:
        self.file = json.loads((GOLDEN / f"direct3d_s2_ssa_{name}.json").read_text())
        with np.load(GOLDEN / f"direct3d_s2_ssa_{name}.npz") as arrays:
            self.arrays = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
        self.seed: int = self.file["seed"]
        c: dict[str, Any] = self.file["configuration"]
        self.module = SpatialSparseAttention(
            c["hidden_size"],
            c["num_q_heads"],
            c["num_kv_heads"],
            c["compression_block_size"],
            c["selection_block_size"],
            c["window_size"],
            c["topk"],
            head_channels=c["head_dim"],
            shift=c["shift_window"],
            compression=c["compression_version"],
            backend=backend,
        )
        state = {}
        for key, value in recipe.state_dict(self.file["learned"], self.seed).items():
            tensor = torch.from_numpy(value) * self.file["scales"].get(key, 1)
            state[own_name(key)] = from_layout(tensor, "torchsparse") if key.endswith("kernel") else tensor
        self.module.load_state_dict(state)
        self.grid, self.order = VoxelGrid.build(self.arrays["in/coords"], resolution=c["resolution"], batch_size=3)

    def made(self, key: str) -> Tensor:
        entry = self.file["inputs"][key]
        factor, name = re.fullmatch(r"([\d.]+) \* recipe.normal\('(.+)', shape, seed\)", entry["made"]).groups()  # type: ignore[union-attr]
        return float(factor) * torch.from_numpy(recipe.normal(name, tuple(entry["shape"]), self.seed))

    def check(self, key: str, value: Tensor) -> None:
        """The rows that the golden keeps, and the checksum of all."""
        if f"out/{key}" in self.arrays:
            assert difference(value[self.arrays["in/rows"]], self.arrays[f"out/{key}"]) < TOLERANCE, key
        facts = self.file["checkpoints"].get(key, self.file["outputs"].get(key))
        dots = torch.from_numpy(recipe.normal(f"dot/{key}", tuple(value.shape), self.seed)).double()
        dot = float((value.detach().double() * dots).sum()) / value.numel() ** 0.5
        # sums of this many values cancel to about one of their size, so the checksum is as exact as the values
        assert abs(dot - facts["dot"]) < 10 * TOLERANCE * (abs(facts["mean"]) + facts["std"]), key


def own_name(published: str) -> str:
    return published.replace("conv.kernel", "conv.weight")


@pytest.mark.parametrize(
    ("name", "backend"),
    [(name, backend) for name in ("released_v11", "released_v10") for backend in ENGINES]
    + [("multi_query", "numba"), ("one_to_one", "torch")],
)
def test_the_original(name: str, backend: str) -> None:
    g = Golden(name, backend)
    x = g.made("x").requires_grad_()
    y = restore(g.module(SparseTensor(g.grid, x[g.order])).feats, g.order)
    g.check("y", y)
    y.backward(g.made("dy"))
    assert x.grad is not None
    g.check("dx", x.grad)
    own = dict(g.module.named_parameters())
    for published, _ in g.file["learned"]:
        gradient = own[own_name(published)].grad
        assert gradient is not None
        if published == "compression_key.out_layers.3.conv.bias":  # zero but for rounding: the same shift of all keys cancels
            assert float(gradient.abs().max()) < 1e-4
        elif not published.endswith("out_layers.0.conv.bias"):  # the same: a norm of two channels a group follows
            kernel = published.endswith("kernel")
            g.check(f"d {published}", to_layout(gradient, "torchsparse", 3 if gradient.ndim == 3 else 1) if kernel else gradient)


def test_released_names_and_shapes() -> None:
    for name in ("released_v11", "released_v10"):
        g = Golden(name)
        published = [own_name(key) for key, _ in g.file["learned"]]
        assert list(g.module.state_dict()) == published  # in file order, too
    assert SpatialSparseAttention().intra_block_pe.shape == (8, 8, 8, 64)


def test_the_op_is_at_hand() -> None:
    assert attention.spatial_sparse_attention is ops.spatial_sparse_attention
    assert attention.SSAPlan is ops.SSAPlan


# --- definitions ----------------------------------------------------------------------------------------------------


def layer(**options: Any) -> SpatialSparseAttention:
    """A small layer with weights that are zero nowhere."""
    module = SpatialSparseAttention(24, 4, 2, 4, 8, 8, **{"top_k": 2, **options})
    with torch.no_grad():
        for name, value in module.named_parameters():
            value.copy_(torch.from_numpy(recipe.weight(name, tuple(value.shape))))
    return module


def tokens(counts: list[int], resolution: int = 32, channels: int = 24, seed: int = 0) -> SparseTensor:
    grid = random_grid(counts, resolution, seed)
    return SparseTensor(grid, torch.randn(len(grid), channels, generator=torch.Generator().manual_seed(seed)))


def test_all_blocks_and_one_window_are_full_attention() -> None:
    module = layer(top_k=64, shift=0).double()
    x = tokens([40, 90], 8).to(torch.float64)  # one window and at most one selection block each
    full = RaggedAttention(24, 4, kv_heads=2, bias=False).double()
    with torch.no_grad():
        full.to_qkv.weight.copy_(torch.cat([module.proj_q.weight, module.proj_k.weight, module.proj_v.weight]))
        full.to_out.weight.copy_(module.proj_o.weight)
        module.gate[0].weight.zero_()  # every gate is 1/2
        # without the compression branch: its values are zero
        module.compression_value.act_layers[0].conv.weight.zero_()
        module.compression_value.act_layers[0].conv.bias.zero_()
    assert_same(module(x).feats, full(x).feats, "selection and window, a half each", 1e-10)


def test_place_code_reaches_keys_of_the_compression_branch_alone() -> None:
    module = layer()
    x = tokens([200])
    before = module(x).feats
    with torch.no_grad():
        module.intra_block_pe += torch.arange(4.0)[:, None, None, None]  # another code by x in the block
    assert difference(module(x).feats, before) > 1e-3
    with torch.no_grad():
        module.proj_o.weight.zero_()
    assert not module(x).feats.any()


def test_order_of_tokens_and_common_moves_do_not_matter() -> None:
    module = layer(shift=4)
    coords = random_coords([150, 60], 24)
    feats = torch.randn(len(coords), 24)
    grid, order = VoxelGrid.build(coords, resolution=64)
    out = restore(module(SparseTensor(grid, feats[order])).feats, order)
    shuffle = torch.randperm(len(coords))
    moved, order = VoxelGrid.build(coords[shuffle] + torch.tensor([0, 8, 32, 16], dtype=torch.int32), resolution=64)
    again = restore(module(SparseTensor(moved, feats[shuffle][order])).feats, order)
    assert_same(again, out[shuffle], "shuffled and moved", 1e-5)


@pytest.mark.parametrize("compression", ["v1", "v2"])
def test_samples_do_not_meet(compression: Any) -> None:
    module = SpatialSparseAttention(64, 4, 2, 4, 8, 8, top_k=3, compression=compression)
    parts = [tokens([n], 24, 64, seed) for seed, n in enumerate([120, 0, 5, 1])]  # one sample has fewer blocks than top_k
    batch = SparseTensor.batched(parts)
    out = module(batch).unbind()
    for i, part in enumerate(parts):
        assert_same(out[i].feats, module(part).feats, f"sample {i}", 1e-5)
    spoiled = batch.feats.clone()
    spoiled[:120] = torch.nan
    _, *others = module(batch.with_feats(spoiled)).unbind()
    for i, other in enumerate(others, 1):
        assert_same(other.feats, out[i].feats, f"sample {i} beside NaN", 1e-6)


def test_empty_and_single() -> None:
    module = layer()
    for counts in ([], [0], [0, 0]):
        assert module(tokens(counts)).feats.shape == (0, 24)
    assert module(tokens([1])).feats.isfinite().all()


def test_own_block_is_seen() -> None:
    x = tokens([400], 32)
    assert difference(layer(top_k=1, own_block=True)(x).feats, layer(top_k=1)(x).feats) > 1e-4


# --- plans ----------------------------------------------------------------------------------------------------------


def test_tables_of_a_grid_are_built_once_for_all_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Any] = []
    build = _blocks._build
    monkeypatch.setattr(_blocks, "_build", lambda grid, key: built.append(key) or build(grid, key))
    layers = [layer(shift=shift) for shift in (0, 4, 0, 4)]
    x = tokens([200, 30])
    for _ in range(2):  # steps
        for module in layers:
            x = module(x)
    # selection blocks and windows without a shift are one table; compression tokens by block; shifted windows
    assert len(built) == 3


def test_a_shared_plan_gives_the_same() -> None:
    module = layer(shift=4)
    x = tokens([200, 30])
    plan = SSAPlan.build(x.grid, compression_block=4, selection_block=8, window=8)
    assert torch.equal(module(x, plan).feats, module(x).feats)
    other = tokens([200, 30], seed=1)
    with pytest.raises(RangeError, match="plan must be of the grid"):
        module(other, plan)
    with pytest.raises(RangeError, match="compression_block, selection_block, window"):
        module(x, SSAPlan.build(x.grid, compression_block=8))
    with pytest.raises(DtypeError, match="SSAPlan"):
        module(x, x.grid)


# --- precision and training -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("compression", ["v1", "v2"])
def test_half_precision(compression: Any, dtype: torch.dtype) -> None:
    full = SpatialSparseAttention(64, 4, 2, 8, 8, 8, top_k=64, compression=compression)  # every block: no choice to differ
    half = set_torso_dtype(SpatialSparseAttention(64, 4, 2, 8, 8, 8, top_k=64, compression=compression), dtype)
    half.load_state_dict(full.state_dict())
    kept = {name for name, value in half.named_parameters() if value.dtype == torch.float32}
    assert "intra_block_pe" in kept
    assert all(name == "intra_block_pe" or (compression == "v2" and re.search(r"act_layers\.0|out_layers\.1", name)) for name in kept)
    x = tokens([200, 50], channels=64)
    with torch.no_grad():
        out, expected = half(x.to(dtype)).feats, full(x).feats
    assert out.dtype == dtype
    # roundings of weights, projections and branches, each half a unit in the last place: 2^-11 or 2^-8
    assert float((out.float() - expected).norm() / expected.norm()) < (4e-3 if dtype == torch.float16 else 3e-2)


def test_autocast() -> None:
    module = layer(top_k=64)
    x = tokens([200])
    with torch.no_grad():
        expected = module(x).feats
        with torch.autocast("cpu", torch.bfloat16):
            out = module(x).feats
    assert float((out.float() - expected).norm() / expected.norm()) < 3e-2


def test_compiles_to_one_graph() -> None:
    torch.compiler.reset()
    module = layer(shift=4)
    x = tokens([60, 0, 10])
    with torch.no_grad():
        expected = module(x).feats  # makes the tables of the grid, whose sizes depend on values
        assert_same(torch.compile(module, backend="eager", fullgraph=True)(x).feats, expected, "compiled", 1e-6)
    torch.compiler.reset()


@pytest.mark.parametrize("backend", ENGINES)
def test_checkpointing_gives_the_same_gradients(backend: str) -> None:
    module = layer(shift=4)
    x = tokens([100, 20])
    with use_backend(spatial_sparse_attention=backend):
        found = []
        for wrap in (lambda f, v: f(v), lambda f, v: checkpoint(f, v, use_reentrant=False)):
            feats = x.feats.clone().requires_grad_()
            out = wrap(lambda value: module(x.with_feats(value)).feats, feats)
            found.append(torch.autograd.grad(out.square().sum(), (feats, *module.parameters())))
    for first, second in zip(*found, strict=True):
        assert first.abs().max() > 0
        assert_same(second, first, "gradient", 1e-6)


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"heads": 5}, RangeError, "multiple of heads"),
        ({"kv_heads": 3}, RangeError, "kv_heads must divide"),
        ({"compression_block": 3}, RangeError, "compression_block must divide selection_block"),
        ({"compression_block": 0}, RangeError, "compression_block must be"),
        ({"top_k": 0}, RangeError, "top_k must be"),
        ({"top_k": 1.5}, DtypeError, "whole number"),
        ({"window": 0}, RangeError, "window must be"),
        ({"shift": -1}, RangeError, "shift must be"),
        ({"compression": "v3"}, RangeError, "'v1', 'v2'"),
        ({"compression": "v2"}, RangeError, "multiple of its 32 groups"),
    ],
)
def test_configurations_that_make_no_layer(options: dict[str, Any], error: type[Exception], message: str) -> None:
    fields = {"channels": 24, "heads": 4, "kv_heads": 2, "compression_block": 4, **options}
    with pytest.raises(error, match=message):
        SpatialSparseAttention(**fields)


def test_tokens_that_do_not_fit() -> None:
    module = layer()
    x = tokens([20])
    with pytest.raises(DtypeError, match="must be a SparseTensor"):
        module(x.feats)
    with pytest.raises(ShapeError, match="24 channels"):
        module(x.with_feats(x.feats[:, :12]))
    with pytest.raises(DtypeError, match="dtype of the weights"):
        module(x.to(torch.float16))
    with pytest.raises(DtypeError, match="float features"):
        module(x.with_feats(x.feats.long()))
    with pytest.raises(BackendUnavailable, match="none"):
        layer(backend="none")(x)


def test_gradients_that_are_not_contiguous() -> None:
    module = layer()
    x = tokens([60])
    feats = x.feats.clone().requires_grad_()
    out = module(x.with_feats(feats)).feats
    upstream = torch.randn(24, 60).t()
    (first,) = torch.autograd.grad(out, feats, upstream, retain_graph=True)
    (second,) = torch.autograd.grad(out, feats, upstream.contiguous())
    assert_same(first, second, "gradient", 1e-6)
