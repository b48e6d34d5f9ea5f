"""SparseFlexVAE: selections, structures, pruning, tiles, batches."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from sparse_flex_vae_cases import cloud_and_grid, latent_of, small

from voxgen.core import Selection, SparseTensor, VoxelGrid
from voxgen.core.errors import EmptyResultWarning
from voxgen.models import (
    SparseFlexVAE,
)
from voxgen.models._tiles import Step
from voxgen.models.sparse_flex_vae._tiles import HALOS
from voxgen.representations import SparseFlex
from voxgen.testing.compare import assert_same


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


def test_children_that_the_logits_judge_full_stay(small_flex_vae: SparseFlexVAE):
    z = latent_of()
    every, free = small_flex_vae.decode(z, prune=False), small_flex_vae.decode(z)
    mask = every.logits[0].feats >= 0
    assert 0 < int(mask.sum()) < mask.numel()
    assert torch.equal(free.structures[0].mask(), mask)
    assert torch.equal(free.structures[1].mask(), free.logits[1].feats >= 0)
    assert len(free.features) == len(free.structures[1].children)
    given = small_flex_vae.decode(z, structure=free.structures)
    assert given.features.grid is free.structures[1].children
    assert_same(given.features.feats, free.features.feats, "given")


def test_a_selection_is_a_latent_of_its_own(small_flex_vae: SparseFlexVAE):
    z = latent_of()
    keep = torch.rand(len(z)) < 0.5
    grid, order = VoxelGrid.build(z.coords[keep].flip(0), resolution=8, batch_size=3)
    alone = SparseTensor(grid, z.feats[keep].flip(0)[order])
    wanted = small_flex_vae.decode(alone)
    for select in (keep, Selection(z.grid, keep)):
        small_flex_vae.decode(z)  # what the whole grid keeps of itself must not matter
        chosen = small_flex_vae.decode(z, select=select)
        assert torch.equal(chosen.features.coords, wanted.features.coords)
        assert torch.equal(chosen.features.feats, wanted.features.feats)
    whole = small_flex_vae.decode(z)
    part = small_flex_vae.decode(z, select=keep, structure=whole.structures)
    inside = torch.isin(whole.features.grid.keys, part.features.grid.keys)
    parents = whole.structures[0].parent[whole.structures[1].parent.long()].long()
    assert torch.equal(inside, keep[parents])  # the children under the selected cells, and no others
    nothing = small_flex_vae.decode(z, select=torch.zeros_like(keep))
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
def test_tiles_give_the_whole(small_flex_vae: SparseFlexVAE, kind: str, tile: int):
    z = latent_of(150, 0, 40) if tile > 1 else latent_of(40, 0, 12)
    options: dict[str, Any] = {"prune": kind == "pruned"}
    if kind == "given":
        options = {"structure": small_flex_vae.decode(z, prune=True).structures}
    whole, tiled = small_flex_vae.decode(z, **options), small_flex_vae.decode(z, tile=tile, **options)
    assert torch.equal(tiled.features.coords, whole.features.coords)
    assert_same(tiled.features.feats, whole.features.feats, "features", 4e-6)  # float32 products of other sizes round otherwise
    assert tiled.features.grid.batch_size == 3


def test_the_halo_is_the_reach_of_the_steps(small_flex_vae: SparseFlexVAE):
    """A row of latents of which one changes: what changes at the finest level is what two convolutions a step reach, no more and no
    less. The first level's children change two beyond the latent's own, and the next level's two beyond theirs: six of the finest
    level, in the second cell beyond. So a cube needs two latents around it."""
    grid, _ = VoxelGrid.build(torch.tensor([[0, i, 0, 0] for i in range(9)], dtype=torch.int32), resolution=9)
    h = SparseTensor(grid, torch.randn(9, 32))
    other = h.with_feats(h.feats.index_copy(0, torch.tensor([4]), torch.randn(1, 32)))
    results = []
    for x in (h, other):
        for level in range(2):
            x = cast(Step, small_flex_vae.decoder.run_step(level, x)).x
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


def test_nothing_one_cell_and_everything_pruned(small_flex_vae: SparseFlexVAE):
    cloud, grid = cloud_and_grid((0, 0))
    latent = small_flex_vae.encode(cloud, grid)
    assert (len(latent.z), latent.z.grid.batch_size) == (0, 2)
    for options in ({}, {"prune": False}, {"tile": 2}):
        decoded = small_flex_vae.decode(latent, **cast(Any, options))
        assert (decoded.features.feats.shape, decoded.features.grid.resolution) == ((0, 53), (32, 32, 32))
    one = small_flex_vae.decode(latent_of(1), prune=False)
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


def test_sampling_is_the_generators(small_flex_vae: SparseFlexVAE):
    cloud, grid = cloud_and_grid()
    mode = small_flex_vae.encode(cloud, grid)
    assert mode.z is mode.posterior.mean
    first, second = (small_flex_vae.encode(cloud, grid, sample=True, generator=torch.Generator().manual_seed(3)).z.feats for _ in range(2))
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
