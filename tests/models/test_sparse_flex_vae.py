"""SparseFlexVAE: selections, structures, pruning, tiles, batches, training, precision, bad input."""

from __future__ import annotations

import doctest
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import voxgen
from voxgen import models
from voxgen.core import Selection, SparseTensor, VoxelGrid
from voxgen.core.errors import DtypeError, EmptyResultWarning, RangeError, ShapeError
from voxgen.models import (
    FlexDecoderConfig,
    FlexEncoderConfig,
    PointEncoderConfig,
    SparseFlexDecoder,
    SparseFlexEncoder,
    SparseFlexVAE,
    build,
    occupied_children,
)
from voxgen.models._tiles import Step
from voxgen.models.sparse_flex_vae._tiles import HALOS
from voxgen.ops.resample import Structure
from voxgen.representations import OrientedPoints, SparseFlex
from voxgen.testing.compare import assert_same
from voxgen.testing.grids import random_grid
from voxgen.testing.shapes import torus

FIELDS: dict[str, Any] = {
    "point_channels": 8,
    "hidden_dim": 8,
    "n_blocks": 2,
    "model_channels": 32,
    "latent_channels": 4,
    "num_heads": 2,
    "num_groups": 2,
    "window_size": 4,
}


def small(seed: int = 0, trained: bool = True, **fields: Any) -> SparseFlexVAE:
    """A tiny autoencoder; weights of a trained size, none zero, and heads that keep about half of all children."""
    torch.manual_seed(seed)
    vae = cast(SparseFlexVAE, build("voxgen/sparse-flex-vae-small", **{**FIELDS, **fields}))
    if trained:
        with torch.no_grad():
            for name, value in vae.named_parameters():
                if value.ndim == 1:
                    value.add_(0.1 * torch.randn(value.shape))
                elif not value.any():
                    value.copy_(torch.randn(value.shape) * (value.numel() / value.shape[-1 if "conv" in name else 0]) ** -0.5)
    return vae


def cloud_and_grid(counts: tuple[int, ...] = (300, 0, 80), resolution: int = 8) -> tuple[OrientedPoints, VoxelGrid]:
    """Random points in a slab, and their voxels."""
    points = (torch.rand(sum(counts), 3) - 0.5) * torch.tensor([1.0, 1.0, 0.4])
    cloud = OrientedPoints(points, F.normalize(torch.randn(len(points), 3), dim=1), torch.tensor([0, *counts]).cumsum(0))
    return cloud, cloud.voxels(resolution)


def latent_of(*counts: int, resolution: int = 8) -> SparseTensor:
    grid = random_grid(counts or (60, 0, 25), resolution)
    return SparseTensor(grid, torch.randn(len(grid), 4))


@pytest.fixture(scope="module")
def vae() -> SparseFlexVAE:
    return small().requires_grad_(False)


def test_forward_gives_what_losses_read():
    vae, (cloud, grid) = small(), cloud_and_grid()
    decoded, latent = vae(cloud, grid)
    n = len(grid)
    assert (len(decoded.features), decoded.features.channels) == (64 * n, 53)
    assert decoded.features.grid.resolution == (32, 32, 32)
    assert [len(logits) for logits in decoded.logits] == [n, 8 * n]
    assert all(logits.channels == 8 for logits in decoded.logits)
    assert latent.z.grid is grid
    assert isinstance(decoded.flex, SparseFlex)
    assert float(decoded.prediction().consistency().detach()) > 0


def test_an_untrained_decoder_keeps_everything_and_gives_zero():
    vae, z = small(trained=False), latent_of()
    decoded = vae.decode(z)
    assert len(decoded.features) == 64 * len(z)
    assert not decoded.features.feats.any()
    with pytest.warns(EmptyResultWarning):
        assert [mesh.num_faces for mesh in vae.decode_mesh(z)] == [0, 0, 0]


def test_children_that_the_logits_judge_full_stay(vae: SparseFlexVAE):
    z = latent_of()
    every, free = vae.decode(z, prune=False), vae.decode(z)
    mask = every.logits[0].feats >= 0
    assert 0 < int(mask.sum()) < mask.numel()
    assert torch.equal(free.structures[0].mask(), mask)
    assert torch.equal(free.structures[1].mask(), free.logits[1].feats >= 0)
    assert len(free.features) == len(free.structures[1].children)
    given = vae.decode(z, structure=free.structures)
    assert given.features.grid is free.structures[1].children
    assert_same(given.features.feats, free.features.feats, "given")


def test_a_selection_is_a_latent_of_its_own(vae: SparseFlexVAE):
    z = latent_of()
    keep = torch.rand(len(z)) < 0.5
    grid, order = VoxelGrid.build(z.coords[keep].flip(0), resolution=8, batch_size=3)
    alone = SparseTensor(grid, z.feats[keep].flip(0)[order])
    wanted = vae.decode(alone)
    for select in (keep, Selection(z.grid, keep)):
        vae.decode(z)  # what the whole grid keeps of itself must not matter
        chosen = vae.decode(z, select=select)
        assert torch.equal(chosen.features.coords, wanted.features.coords)
        assert torch.equal(chosen.features.feats, wanted.features.feats)
    whole = vae.decode(z)
    part = vae.decode(z, select=keep, structure=whole.structures)
    inside = torch.isin(whole.features.grid.keys, part.features.grid.keys)
    parents = whole.structures[0].parent[whole.structures[1].parent.long()].long()
    assert torch.equal(inside, keep[parents])  # the children under the selected cells, and no others
    nothing = vae.decode(z, select=torch.zeros_like(keep))
    assert nothing.features.feats.shape == (0, 53)


def test_gradients_reach_selected_latents_only():
    vae, z = small(), latent_of()
    feats = z.feats.clone().requires_grad_()
    keep = torch.arange(len(z)) % 3 == 0
    vae.decode(z.with_feats(feats), select=keep, prune=False).features.feats.square().sum().backward()
    assert feats.grad is not None
    assert torch.equal(feats.grad.abs().sum(1) > 0, keep)


@pytest.mark.parametrize("kind", ["all", "pruned", "given"])
@pytest.mark.parametrize("tile", [1, 3, 20])
def test_tiles_give_the_whole(vae: SparseFlexVAE, kind: str, tile: int):
    z = latent_of(150, 0, 40) if tile > 1 else latent_of(40, 0, 12)
    options: dict[str, Any] = {"prune": kind == "pruned"}
    if kind == "given":
        options = {"structure": vae.decode(z, prune=True).structures}
    whole, tiled = vae.decode(z, **options), vae.decode(z, tile=tile, **options)
    assert torch.equal(tiled.features.coords, whole.features.coords)
    assert_same(tiled.features.feats, whole.features.feats, "features", 4e-6)  # float32 products of other sizes round otherwise
    assert tiled.features.grid.batch_size == 3


def test_the_halo_is_the_reach_of_the_steps(vae: SparseFlexVAE):
    """A row of latents of which one changes: what changes at the finest level is what two convolutions a step reach, no more and no
    less. The first level's children change two beyond the latent's own, and the next level's two beyond theirs: six of the finest
    level, in the second cell beyond. So a cube needs two latents around it."""
    grid, _ = VoxelGrid.build(torch.tensor([[0, i, 0, 0] for i in range(9)], dtype=torch.int32), resolution=9)
    h = SparseTensor(grid, torch.randn(9, 32))
    other = h.with_feats(h.feats.index_copy(0, torch.tensor([4]), torch.randn(1, 32)))
    results = []
    for x in (h, other):
        for level in range(2):
            x = cast(Step, vae.decoder.run_step(level, x)).x
        results.append(x)
    changed = results[0].grid.cells[(results[0].feats != results[1].feats).any(1)][:, 0]
    assert (int(changed.min()), int(changed.max())) == (16 - 6, 19 + 6)
    assert HALOS["per_voxel"] == (2, 1, 0)


def test_group_norms_in_tiles_give_each_cell_once():
    """With the release's halo, and so its numbers, in all cells that one box alone emits."""
    vae, z = small(norm="group").requires_grad_(False), latent_of(resolution=16)
    tiled = vae.decode(z, prune=False, tile=4).features
    assert torch.equal(tiled.coords, vae.decode(z, prune=False).features.coords)
    emitted = vae.decoder.emit(z, boxes=4, prune=False)
    rows = emitted.grid.rows_of(emitted.coords)
    assert torch.equal(emitted.grid.coords, tiled.coords)
    lone = (rows.bincount(minlength=len(tiled)) == 1)[rows]
    assert 0 < int(lone.sum()) < len(tiled)
    assert_same(emitted.features[lone], tiled.feats[rows[lone]], "features", 4e-6)  # as in test_tiles_give_the_whole
    assert emitted.repeats > 0


def test_samples_do_not_meet():
    for norm in ("group", "per_voxel"):
        vae, (cloud, grid) = small(norm=norm).requires_grad_(False), cloud_and_grid()
        latent = vae.encode(cloud, grid)
        decoded = vae.decode(latent)
        for i, part in enumerate(latent.z.unbind()):
            alone = vae.encode(cloud.sample(i), grid.sample(i))
            assert_same(alone.z.feats, part.feats, f"latent {i}")
            if len(part):
                mine = vae.decode(alone)
                wanted = decoded.features.unbind()[i]
                assert torch.equal(mine.features.coords, wanted.coords)
                assert_same(mine.features.feats, wanted.feats, f"features {i}")
        assert len(decoded.features.unbind()[1]) == 0


def test_nothing_one_cell_and_everything_pruned(vae: SparseFlexVAE):
    cloud, grid = cloud_and_grid((0, 0))
    latent = vae.encode(cloud, grid)
    assert (len(latent.z), latent.z.grid.batch_size) == (0, 2)
    for options in ({}, {"prune": False}, {"tile": 2}):
        decoded = vae.decode(latent, **cast(Any, options))
        assert (decoded.features.feats.shape, decoded.features.grid.resolution) == ((0, 53), (32, 32, 32))
    one = vae.decode(latent_of(1), prune=False)
    assert len(one.features) == 64
    closed = small().requires_grad_(False)
    cast(Any, closed.decoder.upsample[0]).predict[2].bias.fill_(-1e4)
    z = latent_of()
    for options in ({}, {"tile": 3}):
        with pytest.warns(EmptyResultWarning):
            decoded = closed.decode(z, **cast(Any, options))
        assert decoded.features.feats.shape == (0, 53)
    with pytest.warns(EmptyResultWarning):
        assert [mesh.num_faces for mesh in closed.decode_mesh(z)] == [0, 0, 0]
    emitted = closed.decoder.emit(z, boxes=2)
    assert (emitted.features.shape, len(emitted.flex.grid)) == ((0, 53), 0)


def test_sampling_is_the_generators(vae: SparseFlexVAE):
    cloud, grid = cloud_and_grid()
    mode = vae.encode(cloud, grid)
    assert mode.z is mode.posterior.mean
    first, second = (vae.encode(cloud, grid, sample=True, generator=torch.Generator().manual_seed(3)).z.feats for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, mode.z.feats)


def test_per_voxel_and_group_norms_share_weights():
    vae = small(norm="group").requires_grad_(False)
    other = vae.with_norm("per_voxel")
    assert other.decoder.config.norm == "per_voxel"
    assert vae.decoder.config.norm == "group"
    for key, value in other.state_dict().items():
        assert torch.equal(value, vae.state_dict()[key]), key
    z = latent_of()
    assert not torch.allclose(other.decode(z, prune=False).features.feats, vae.decode(z, prune=False).features.feats, atol=1e-3)


def test_targets_of_the_pruning_heads():
    cloud, grid = cloud_and_grid()
    target = occupied_children(grid, cloud)
    batch = torch.arange(3).repeat_interleave(cloud.offsets.diff())
    for row in range(0, len(grid), 7):
        low = grid.frame.to_world(grid.cells[row].float())
        for slot in range(8):
            corner = low + torch.tensor([slot & 1, slot >> 1 & 1, slot >> 2]) / 16
            inside = (batch == grid.batch[row]) & ((cloud.points >= corner) & (cloud.points < corner + 1 / 16)).all(1)
            assert bool(target[row, slot]) == bool(inside.any())
    assert int(Structure.of_mask(grid, target).children.offsets.diff()[1]) == 0
    level = Structure.of_mask(grid)
    finer = occupied_children(level.children, cloud)
    assert torch.equal(finer.any(1), target[level.parent.long(), level.slot.long()])
    missing = grid.select(torch.arange(len(grid)) > 3)
    assert torch.equal(occupied_children(missing, cloud), target[4:])
    with pytest.raises(RangeError, match="one number of samples"):
        occupied_children(grid.sample(0), cloud)
    with pytest.raises(DtypeError, match="OrientedPoints"):
        occupied_children(grid, cloud.points)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("norm", ["group", "per_voxel"])
def test_every_parameter_learns(norm: str):
    vae, (cloud, grid) = small(norm=norm), cloud_and_grid((200,))
    decoded, latent = vae(cloud, grid, generator=torch.Generator().manual_seed(0))
    loss = decoded.features.feats.square().mean() + latent.posterior.logvar.square().mean()
    for logits in decoded.logits:
        loss = loss + F.binary_cross_entropy_with_logits(logits.feats, occupied_children(logits.grid, cloud).float())
    loss.backward()
    for name, value in vae.named_parameters():
        assert value.grad is not None, name
        assert bool(value.grad.isfinite().all()), name
        if not (norm == "group" and name.endswith("conv1.bias")):  # which the norm takes away again, but for other channels of its group
            assert bool(value.grad.any()), name


def test_checkpointing_changes_no_gradient():
    cloud, grid = cloud_and_grid((150,))
    gradients = []
    for use in (False, True):
        vae = small(use_checkpoint=use)
        decoded, _ = vae(cloud, grid, generator=torch.Generator().manual_seed(0))
        (decoded.features.feats.square().sum() + sum(logits.feats.sum() for logits in decoded.logits)).backward()
        gradients.append({name: value.grad for name, value in vae.named_parameters()})
    for name, value in gradients[0].items():
        assert value is not None
        assert_same(cast(Tensor, gradients[1][name]), value, name)


def test_a_few_steps_of_training_bring_the_loss_down():
    """Values of a sphere at the corners, and the true children: from a new network, with carving in every second step."""
    vae = small(trained=False)
    cloud = OrientedPoints.from_mesh(torus(), 400)
    grid = cloud.voxels(4)
    corners = torch.tensor([[k & 1, k >> 1 & 1, k >> 2] for k in range(8)])
    optimizer = torch.optim.Adam(vae.parameters(), lr=3e-3)
    losses = []
    for step in range(12):
        keep = grid.cells[:, 0] < 2 if step % 2 else None
        decoded, latent = vae(cloud, grid, select=keep, generator=torch.Generator().manual_seed(step))
        positions = (decoded.features.grid.cells[:, None] + corners) / 16 - 0.5
        values = (positions.norm(dim=-1) - 0.3) * 4
        loss = F.l1_loss(decoded.features.feats[:, :8], values) + 1e-4 * latent.posterior.mean.feats.square().mean()
        for logits in decoded.logits:
            loss = loss + F.binary_cross_entropy_with_logits(logits.feats, occupied_children(logits.grid, cloud).float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-2] < 0.9 * losses[0]


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float16, 0.02), (torch.bfloat16, 0.15)])
def test_half_precision(dtype: torch.dtype, bound: float):
    """Relative error of features, of a torso that rounds some ten times in a row to half precision."""
    exact, half = small().requires_grad_(False), small(torso_dtype=str(dtype).removeprefix("torch.")).requires_grad_(False)
    half.load_state_dict(exact.state_dict())
    assert half.decoder.blocks[0].attn.to_qkv.weight.dtype == dtype  # pyright: ignore
    cloud, grid = cloud_and_grid()
    z = exact.encode(cloud, grid).z
    latent = half.encode(cloud, grid)
    assert latent.z.dtype == dtype
    assert float((latent.z.feats.float() - z.feats).norm() / z.feats.norm()) < bound
    one, other = exact.decode(z, prune=False).features.feats, half.decode(z, prune=False).features.feats
    assert other.dtype == torch.float32
    assert float((one - other).norm() / one.norm()) < bound


def test_autocast():
    vae, (cloud, grid) = small(), cloud_and_grid()
    exact, _ = vae(cloud, grid, sample=False)
    with torch.autocast("cpu", torch.bfloat16):
        decoded, latent = vae(cloud, grid, sample=False)
        loss = decoded.features.feats.float().square().mean() + latent.z.feats.float().square().mean()
    loss.backward()
    error = (decoded.features.feats.float() - exact.features.feats).norm() / exact.features.feats.norm()
    assert float(error.detach()) < 0.1


def test_a_mesh_of_each_sample():
    """A last layer that writes one plane into every cell, lower corners inside: a sheet wherever there are cells, open at its rim."""
    vae = small(trained=False).requires_grad_(False)
    cells = [[b, i, j, 1] for b in (0, 2) for i in range(3) for j in range(3 - b // 2)]
    grid = VoxelGrid.from_sorted(torch.tensor(cells, dtype=torch.int32), resolution=4, batch_size=3)
    vae.decoder.out_layer.bias[:8] = torch.tensor([-1.0] * 4 + [1.0] * 4)
    meshes = vae.decode_mesh(SparseTensor(grid, torch.zeros(len(grid), 4)), prune=False)
    assert [mesh.num_faces > 0 for mesh in meshes] == [True, False, True]


@pytest.mark.parametrize(
    ("make", "fields", "words"),
    [
        (FlexDecoderConfig, {"model_channels": 36, "num_heads": 2}, "multiple of 8"),
        (FlexDecoderConfig, {"norm": "batch"}, "norm must be one of"),
        (FlexDecoderConfig, {"norm": "group", "num_groups": 7}, "num_groups must divide"),
        (FlexDecoderConfig, {"out_channels": 0}, "out_channels"),
        (FlexDecoderConfig, {"prune": 1}, "prune must be True or False"),
        (FlexEncoderConfig, {"num_heads": 5}, "num_heads must divide"),
        (FlexEncoderConfig, {"in_channels": 0}, "in_channels"),
        (FlexEncoderConfig, {"torso_dtype": "float8"}, "torso_dtype"),
        (PointEncoderConfig, {"compat": "trellis"}, "compat must be one of"),
        (PointEncoderConfig, {"use_normals": 1}, "use_normals must be"),
    ],
)
def test_configurations_that_make_no_network(make: Any, fields: dict[str, Any], words: str):
    with pytest.raises((RangeError, DtypeError), match=words):
        make(**fields)


def test_parts_that_do_not_fit(vae: SparseFlexVAE):
    encoder = SparseFlexEncoder(FlexEncoderConfig(model_channels=16, num_blocks=1, num_heads=2, in_channels=9, latent_channels=4))
    with pytest.raises(ShapeError, match="width of a voxel's feature, 8; got 9"):
        SparseFlexVAE(vae.points, encoder, vae.decoder)
    decoder = SparseFlexDecoder(FlexDecoderConfig(model_channels=16, num_blocks=1, num_heads=2, latent_channels=5))
    with pytest.raises(ShapeError, match="must be the encoder's, 4; got 5"):
        SparseFlexVAE(vae.points, vae.encoder, decoder)
    with pytest.raises(ShapeError, match="normalisation must have 4 channels"):
        SparseFlexVAE(vae.points, vae.encoder, vae.decoder, models.LatentNormalization((0.0,), (1.0,)))


def test_bad_input(vae: SparseFlexVAE):
    cloud, grid = cloud_and_grid()
    z = vae.encode(cloud, grid).z
    structures = vae.decode(z).structures
    with pytest.raises(DtypeError, match="must be OrientedPoints"):
        vae.encode(cloud.points, grid)  # pyright: ignore[reportArgumentType]
    with pytest.raises(RangeError, match="without sample=True"):
        vae.encode(cloud, grid, generator=torch.Generator())
    with pytest.raises(RangeError, match="each point must lie in a voxel"):
        vae.encode(cloud, grid.select((grid.cells != grid.frame.to_cell(cloud.points[:1])).any(1)))
    with pytest.raises(ShapeError, match="offsets must be"):
        vae.encode(cloud, grid.sample(0))
    with pytest.raises(RangeError, match="points must be finite"):
        vae.encode(cloud.replace(points=cloud.points / 0), grid)
    for factor in (0.0, float("nan")):
        with pytest.raises(RangeError, match="factor must be positive"):
            vae.decode(z, factor=factor)
    with pytest.raises(RangeError, match="latent must be finite"):
        vae.decode(z.with_feats(z.feats / 0))
    with pytest.raises(DtypeError, match="what encode gives"):
        vae.decode(z.feats)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ShapeError, match="4 channels"):
        vae.decode(z.with_feats(z.feats[:, :3]))
    with pytest.raises(ShapeError, match="select must be"):
        vae.decode(z, select=torch.ones(3, dtype=torch.bool))
    with pytest.raises(DtypeError, match="select must be"):
        vae.decode(z, select=torch.arange(len(z)))
    with pytest.raises(DtypeError, match="select must be"):
        vae.decode(z, select=[True])  # pyright: ignore[reportArgumentType]
    with pytest.raises(RangeError, match="same cells"):
        vae.decode(z, select=Selection.all(latent_of(7).grid))
    with pytest.raises(ShapeError, match="2 entries"):
        vae.decode(z, structure=structures[:1])
    with pytest.raises(RangeError, match="coarse to fine"):
        vae.decode(z, structure=structures[::-1])
    with pytest.raises(RangeError, match="tile"):
        vae.decode(z, tile=0)
    broken = small().requires_grad_(False)
    cast(Any, broken.decoder.upsample[0]).predict[2].bias.fill_(float("nan"))
    with pytest.raises(RangeError, match="logits of step 0 must not be NaN"):
        broken.decode(z)


@pytest.mark.parametrize("item", [SparseFlexVAE, SparseFlexEncoder, SparseFlexDecoder, occupied_children])
def test_examples(item: Any):
    names = {"voxgen": voxgen, "torch": torch, "OrientedPoints": OrientedPoints, "mesh": torus(), **vars(models)}
    cloud, grid = cloud_and_grid()
    sparse = random_grid((20,), 8)
    names |= {"x": SparseTensor(sparse, torch.randn(20, 16)), "z": SparseTensor(sparse, torch.randn(20, 4))}
    names |= {"vae": small(), "cloud": cloud, "grid": grid}
    (test,) = doctest.DocTestFinder(recurse=False).find(item, globs=names)
    report: list[str] = []
    result = doctest.DocTestRunner().run(test, out=report.append)
    assert result.attempted > 0
    assert result.failed == 0, "".join(report)
