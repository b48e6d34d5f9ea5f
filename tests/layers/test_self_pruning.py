"""Self-pruning upsampling: the original's numbers and gradients, who decides, norms, batches, empty results, bad input."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from golden.reader import Golden  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from voxgen.core import SparseTensor, VoxelGrid
from voxgen.core.errors import DtypeError, EmptyResultWarning, RangeError, ShapeError
from voxgen.layers import NearestUpsample, SelfPruningUpsampler
from voxgen.ops.conv import sparse_conv
from voxgen.ops.conv.layouts import from_layout
from voxgen.ops.neighbors import neighbor_table
from voxgen.ops.resample import Structure, subdivide
from voxgen.testing.compare import assert_same
from voxgen.testing.grids import random_grid

NAMES = {
    "upsample.norm1": "act_layers.0",
    "upsample.conv1": "out_layers.0.conv",
    "upsample.norm2": "out_layers.1",
    "upsample.conv2": "out_layers.3.conv",
    "upsample.skip_connection": "skip_connection.conv",
    "predict.0": "pruning_head.mlp.0",
    "predict.2": "pruning_head.mlp.2",
}
PREFIX = "decoder.upsample.0."


def published(name: str) -> str:
    module, kind = name.rsplit(".", 1)
    return f"{PREFIX}{NAMES[module]}.{kind}"


def imported(name: str, value: Tensor) -> Tensor:
    """A published tensor as the layer has it."""
    if value.ndim < 5:
        return value
    weight = from_layout(value, "spconv")  # the layout that knows how kernel 1 lies
    return weight.t().contiguous() if "skip" in name else weight


def exported(name: str, value: Tensor, shape: list[int]) -> Tensor:
    """The inverse, of a gradient."""
    if len(shape) < 5:
        return value
    return value.t().reshape(shape) if "skip" in name else value.permute(2, 0, 1).reshape(shape)


def small(norm: str = "group", dtype: torch.dtype = torch.float32, **options) -> SelfPruningUpsampler:
    layer = SelfPruningUpsampler(8, 4, norm=norm, num_groups=2, **options)  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return layer.to(dtype)


def features(*counts: int, channels: int = 8) -> SparseTensor:
    grid = random_grid(counts or (30, 0, 12), 8)
    return SparseTensor(grid, torch.randn(len(grid), channels))


def test_is_the_original_with_all_gradients():
    golden = Golden.read("triposf_up_block")
    c, weights = golden.configuration, golden.weights()
    layer = SelfPruningUpsampler(c["channels"], c["out_channels"], num_groups=c["groups"])
    layer.load_state_dict({name: imported(name, weights[published(name)]) for name in layer.state_dict()})
    grid, order = VoxelGrid.build(golden.arrays["in/coords"], resolution=16)
    feats = golden.normal("x")[order].requires_grad_()
    every = layer(SparseTensor(grid, feats), prune=False)
    rows = every.x.grid.rows_of(golden.arrays["out/children"].int())  # the grid's row of each child of the original
    wanted, got = golden.expected("y", every.x.feats[rows])
    assert_same(got, wanted, "y", golden.tolerance)
    flat = every.logits.flatten()[(every.structure.parent * 8 + every.structure.slot).long()]
    wanted, got = golden.expected("logits", flat[rows][:, None])
    assert_same(got, wanted, "logits", golden.tolerance)
    loss = (every.x.feats[rows] * golden.normal("dy")).sum() + (flat[rows][:, None] * golden.normal("dlogits")).sum()
    dx, *gradients = torch.autograd.grad(loss, [feats, *layer.parameters()])
    wanted, got = golden.expected("dx", torch.empty_like(dx).index_copy(0, order, dx))
    assert_same(got, wanted, "dx", golden.tolerance)
    for (name, _), gradient in zip(layer.named_parameters(), gradients, strict=True):
        key = f"d/{published(name)}"
        shape = golden.about["checkpoints"][key]["shape"]
        golden.check_statistics(key, exported(name, gradient, shape))
    kept = layer(SparseTensor(grid, feats))
    assert torch.equal(kept.x.coords, VoxelGrid.build(golden.arrays["out/kept"].int(), resolution=32)[0].coords)
    assert_same(kept.x.feats, every.x.feats[every.x.grid.rows_of(kept.x.coords)], "kept")


@pytest.mark.parametrize("norm", ["group", "per_voxel"])
def test_is_the_definition(norm: str):
    """Subdivide, then convolve, in float64, from the parameters."""
    layer, x = small(norm, torch.float64), features().to(torch.float64)
    block, structure = layer.upsample, Structure.of_mask(x.grid)
    table = neighbor_table(structure.children)

    def normed(part, values: Tensor, grid: VoxelGrid) -> Tensor:
        if norm == "per_voxel":
            return F.silu(F.layer_norm(values, values.shape[1:], part.weight, part.bias, 1e-5))
        samples = [
            F.group_norm(v.t()[None], 2, part.weight, part.bias, 1e-5)[0].t()
            for v in torch.split(values, grid.offsets.diff().tolist())
            if len(v)
        ]
        return F.silu(torch.cat(samples))

    h = subdivide(normed(block.norm1, x.feats, x.grid), structure)
    h = normed(block.norm2, sparse_conv(h, block.conv1.weight, block.conv1.bias, table, backend="reference"), structure.children)
    h = sparse_conv(h, block.conv2.weight, block.conv2.bias, table, backend="reference") + block.skip_connection(
        subdivide(x.feats, structure)
    )
    scores = layer.predict(h)[:, 0]
    out = layer(x, prune=False)
    assert_same(out.x.feats, h, "features")
    assert_same(out.logits, scores[out.structure.table.long()], "logits")


def test_who_decides():
    layer, x = small(), features()
    every = layer(x, prune=False)
    assert len(every.x) == 8 * len(x)
    free = layer(x)
    keep = every.logits >= 0
    assert 0 < len(free.x) < len(every.x)
    assert torch.equal(free.structure.mask(), keep)
    structure = Structure.of_mask(x.grid, torch.rand(len(x), 8) < 0.4)
    taught = layer(x, structure=structure)
    assert taught.x.grid is structure.children
    for name, result, mask in (
        ("taught", taught, structure.mask()),
        ("guided by booleans", layer(x, mask=structure.mask()), structure.mask()),
        ("guided by logits", layer(x, mask=-every.logits), -every.logits >= 0),
        ("free", free, keep),
        ("taught all", layer(x, structure=every.structure), torch.ones(len(x), 8, dtype=torch.bool)),
    ):
        wanted = Structure.of_mask(x.grid, mask)
        assert torch.equal(result.x.coords, wanted.children.coords), name
        assert_same(result.x.feats, every.x.feats[every.x.grid.rows_of(wanted.children.coords)], name)
        assert_same(result.logits, every.logits, name)
    assert len(small(threshold=float("inf"))(x, mask=torch.full((len(x), 8), float("inf"))).x) == 8 * len(x)
    fresh = SelfPruningUpsampler(8, 4, num_groups=2)(x)
    assert len(fresh.x) == 8 * len(x)  # a new one keeps all: its logits are 0


def test_group_norm_depends_on_the_other_cells_and_per_voxel_norm_does_not():
    x = features(60)
    near = (x.grid.cells[:, 0] < 6).nonzero().flatten()
    crop = SparseTensor(x.grid.select(near), x.feats[near])
    for norm, same in (("group", False), ("per_voxel", True)):
        layer = small(norm)
        whole, part = layer(x, prune=False).x, layer(crop, prune=False).x
        inner = part.grid.select(part.grid.cells[:, 0] < 10)  # two children from the border of the crop, the layer's reach
        a, b = (t.feats[t.grid.rows_of(inner.coords)] for t in (whole, part))
        assert (float((a - b).detach().abs().max()) < 1e-5) == same, norm


def test_samples_of_a_batch_do_not_meet():
    layer, x = small(), features(30, 0, 12)
    together = layer(x).x.unbind()
    for i, sample in enumerate(x.unbind()):
        if len(sample):
            alone = layer(sample).x
            assert torch.equal(alone.coords, together[i].coords)
            assert_same(alone.feats, together[i].feats, f"sample {i}")
    assert len(together[1]) == 0


def test_one_cell_and_no_cell():
    layer = small()
    one = layer(features(1), prune=False)
    assert len(one.x) == 8
    nothing = layer(features(0, 0))
    assert (len(nothing.x), nothing.logits.shape) == (0, (0, 8))
    x = features(5)
    with pytest.warns(EmptyResultWarning, match="keeps no child"):
        emptied = layer(x, mask=torch.zeros(5, 8, dtype=torch.bool))
    assert len(emptied.x) == 0
    assert len(NearestUpsample(4, 2)(emptied.x, Structure.of_mask(emptied.x.grid))) == 0  # later layers run
    with torch.no_grad():
        layer.predict[2].bias.fill_(float("nan"))  # pyright: ignore[reportCallIssue, reportArgumentType]
    with pytest.warns(EmptyResultWarning):
        assert len(layer(x).x) == 0


def test_checkpoint_gives_the_same_gradients():
    plain, x = small(), features()
    saving = small(checkpoint=True)
    saving.load_state_dict(plain.state_dict())
    for layer in (plain, saving):
        out = layer(x, prune=False)
        (out.x.feats.square().sum() + out.logits.square().sum()).backward()
    for (name, one), other in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert one.grad is not None, name
        assert other.grad is not None, name
        assert_same(other.grad, one.grad, name)


@pytest.mark.parametrize("norm", ["group", "per_voxel"])
def test_gradcheck(norm: str):
    layer, x = small(norm, torch.float64), features(6, 3)
    names = [name for name, _ in layer.named_parameters()]

    def function(feats: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        states = dict(zip(names, weights, strict=True))
        out = torch.func.functional_call(layer, states, (x.with_feats(feats),), {"prune": False})
        return out.x.feats, out.logits

    inputs = [x.feats.double(), *layer.parameters()]
    assert torch.autograd.gradcheck(function, tuple(t.detach().clone().requires_grad_() for t in inputs), fast_mode=True)


def test_bad_input():
    layer, x = small(), features(9)
    structure = Structure.of_mask(x.grid)
    for options, error, match in (
        ({"structure": structure, "mask": structure.mask()}, RangeError, "at most one"),
        ({"structure": Structure.of_mask(features(8).grid)}, RangeError, "parents must be the cells of x"),
        ({"mask": torch.ones(9, 7, dtype=torch.bool)}, ShapeError, "mask must be"),
        ({"mask": torch.ones(9, 8, dtype=torch.int32)}, DtypeError, "mask must be"),
    ):
        with pytest.raises(error, match=match):
            layer(x, **options)
    with pytest.raises(ShapeError, match="8 channels"):
        layer(features(9, channels=4))
    with pytest.raises(RangeError, match="threshold"):
        small(threshold=float("nan"))
    with pytest.raises(RangeError, match="norm"):
        small("batch")
    with pytest.raises(ShapeError, match="divide"):
        SelfPruningUpsampler(8, 4, num_groups=3)
