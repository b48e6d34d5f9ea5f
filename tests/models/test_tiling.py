"""Tiled decoding is the whole decode; the halo is as wide as the theory says, and no narrower one would do."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from models.sc_vae_cases import decoder, latent, vae  # pyright: ignore[reportMissingImports]
from voxgen.core import VoxelGrid
from voxgen.core.errors import EmptyResultWarning, RangeError
from voxgen.models import DecoderConfig, DecoderOutput, SCDecoder, Tiling, build
from voxgen.models.sc_vae import tiling as tiling_module
from voxgen.models.sc_vae.tiling import cubes, halo
from voxgen.ops.resample import Structure
from voxgen.testing.compare import difference
from voxgen.testing.grids import full_grid, random_grid

# All comparisons: products of matrices of other heights may sum in another order, so float32 agrees to some 1e-6.
TOLERANCE = 2e-5


def compare(tiled: DecoderOutput, whole: DecoderOutput) -> None:
    assert tiled.head.grid.same_cells(whole.head.grid)
    assert tiled.head.grid.frame == whole.head.grid.frame
    assert difference(tiled.head.feats, whole.head.feats) < TOLERANCE
    assert len(tiled.logits) == len(whole.logits)
    assert len(tiled.structures) == len(whole.structures)
    for a, b in zip(tiled.logits, whole.logits, strict=True):
        assert a.grid.same_cells(b.grid)
        assert difference(a.feats, b.feats) < TOLERANCE
    for a, b in zip(tiled.structures, whole.structures, strict=True):
        assert torch.equal(a.parent, b.parent)
        assert torch.equal(a.slot, b.slot)


LEVELS: dict[str, Any] = {"model_channels": (32, 16, 16), "num_blocks": (1, 2, 1)}


@pytest.mark.parametrize("up", ["SparseResBlockC2S3d", "SparseResBlockUpsample3d"])
@pytest.mark.parametrize("block", ["SparseConvNeXtBlock3d", "SparseResBlock3d"])
def test_any_size_and_stage(up: str, block: str) -> None:
    model = decoder(**LEVELS, up_block_type=up, block_type=block)
    z = latent(random_grid((40, 0, 25), 12))
    with torch.no_grad():
        whole = model(z)
        for size, stage in ((1, 0), (3, 0), (5, None), (7, 1), (16, 2), (100, 1)):
            compare(model(z, tiling=Tiling(size, stage)), whole)


def test_given_and_guided_structure() -> None:
    model, z = decoder(**LEVELS), latent(random_grid((30, 20), 10))
    with torch.no_grad():
        free = model(z)
        masks = [torch.rand(logits.feats.shape) < 0.5 for logits in free.logits]
        first = Structure.of_mask(z.grid, masks[0])
        masks[1] = torch.rand(len(first.children), 8) < 0.5
        structure = (first, Structure.of_mask(first.children, masks[1]))
        whole = model(z, structure=structure)
        for tiling in (Tiling(3, 0), Tiling(4, 1), Tiling(9, 2)):
            tiled = model(z, structure=structure, tiling=tiling)
            compare(tiled, whole)
            assert tiled.head.grid is structure[1].children
            compare(model(z, guide=masks, tiling=tiling), whole)
            silent = decoder(**LEVELS, pred_subdiv=False)
            compare(silent(z, guide=masks, tiling=tiling), silent(z, guide=masks))


def reach_measured(config: DecoderConfig, level: int) -> int:
    """How far a change at the input of a level spreads: decode a full volume twice, and look where the two differ."""
    model = decoder(**config.to_json()).double()
    fine = 2 ** (config.num_levels - 1 - level)
    side = 2 * halo(config, level) + 5
    middle = side // 2
    grids = [full_grid(side * 2**i) for i in range(config.num_levels - level)]
    structures = [Structure.between(a, b) for a, b in itertools.pairwise(grids)]
    width = config.model_channels[level]
    x = torch.randn(len(grids[0]), width, dtype=torch.float64)
    y = x.clone()
    y[(middle * side + middle) * side + middle] = torch.randn(width, dtype=torch.float64)

    def run(feats: Tensor) -> Tensor:
        h = latent(grids[0], width).with_feats(feats)
        for i in range(level, config.num_levels - 1):
            h, *_ = model.run_step(i, model.run_blocks(i, h), structures[i - level])
        return model.run_head(model.run_blocks(config.num_levels - 1, h)).feats

    with torch.no_grad():
        changed = (run(x) != run(y)).any(1)
    cells = grids[-1].cells[changed].long() // fine
    return int((cells - middle).abs().max())


@pytest.mark.parametrize("up", ["SparseResBlockC2S3d", "SparseResBlockUpsample3d"])
def test_the_halo_is_the_measured_reach(up: str) -> None:
    """Where convolutions at the fine level add up to whole coarse cells, rounding up costs at most one cell in all."""
    for blocks, block in (((1, 1), "SparseConvNeXtBlock3d"), ((0, 1), "SparseResBlock3d"), ((0, 0), "SparseConvNeXtBlock3d")):
        config = DecoderConfig(
            model_channels=(16, 8), num_blocks=blocks, latent_channels=2, block_type=block, up_block_type=up, pred_subdiv=False
        )
        assert halo(config, 1) == reach_measured(config, 1)
        assert halo(config, 0) == reach_measured(config, 0)


def test_a_narrower_halo_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the tests above can fail."""
    import voxgen.models.sc_vae._tiles as tiles

    model, z = decoder(), latent(full_grid(8))
    with torch.no_grad():
        compare(model(z, tiling=Tiling(2, 0)), model(z))
        whole = model(z).head
        monkeypatch.setattr(tiles, "halo", lambda config, level: tiling_module.halo(config, level) - 1)
        tiled = model(z, tiling=Tiling(2, 0)).head
    assert not tiled.grid.same_cells(whole.grid) or difference(tiled.feats, whole.feats) > 10 * TOLERANCE


def test_the_released_halos() -> None:
    model = build("trellis2/shape-decoder", device="meta")
    assert isinstance(model, SCDecoder)
    assert [halo(model.config, level) for level in range(5)] == [18, 24, 13, 6, 0]


def test_cubes_cover_every_cell_once() -> None:
    grid = random_grid((50, 0, 30), 12)
    seen = torch.zeros(len(grid), dtype=torch.int64)
    for rows, core in cubes(grid, 5, 2):
        assert torch.equal(rows, rows.sort().values)
        assert len(grid.batch[rows].unique()) == 1
        low = grid.cells[rows[core]].min(0).values // 5 * 5
        assert bool(((grid.cells[rows] >= low - 2) & (grid.cells[rows] < low + 7)).all())
        seen[rows[core]] += 1
    assert bool((seen == 1).all())
    assert len(list(cubes(VoxelGrid.build(grid.coords[:0], resolution=4, batch_size=2)[0], 5, 2))) == 0


def test_empty_and_vanishing() -> None:
    model = vae("shape")
    empty = latent(random_grid((0, 0), 4))
    out = model.decode(empty, tiling=Tiling(2, 0))
    assert out.head.feats.shape == (0, 7)
    assert out.grid.resolution == (16, 16, 16)
    block: Any = model.decoder.blocks[1][-1]  # pyright: ignore[reportIndexIssue]
    block.predict.bias.data.fill_(-1e4)
    z = latent(random_grid((5, 4), 4))
    for stage in (0, 1):
        with torch.no_grad(), pytest.warns(EmptyResultWarning) as caught:
            out = model.decode(z, tiling=Tiling(1, stage))
        assert len(caught) == 1
        assert out.head.feats.shape == (0, 7)
        assert len(out.structures) == len(out.logits) == 2
        assert len(out.logits[1].feats) == len(out.structures[0].children) > 0


def test_gradients_are_the_whole_decodes() -> None:
    model, z = decoder(**LEVELS), latent(random_grid((20,), 8))
    grads = []
    for tiling in (None, Tiling(3, 1)):
        feats = z.feats.clone().requires_grad_()
        model(z.with_feats(feats), tiling=tiling).head.feats.square().sum().backward()
        grads.append(feats.grad)
    assert difference(grads[1], grads[0]) < 1e-4  # sums of gradients over a few hundred rows in another order


def test_progress_shows_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    model, z = decoder(**LEVELS), latent(random_grid((20,), 8))
    model(z, tiling=Tiling(4, 1), progress=True)
    shown = capsys.readouterr().err
    assert "tiles" in shown
    assert "levels" in shown
    model(z)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("arguments", [{"size": 0}, {"size": 2.5}, {"from_stage": -1}])
def test_bad_tilings(arguments: dict[str, Any]) -> None:
    with pytest.raises((RangeError, TypeError), match="Tiling"):
        Tiling(**arguments)
    with pytest.raises(RangeError, match="from_stage must be from 0 to 2"):
        decoder(**LEVELS)(latent(random_grid((4,), 8)), tiling=Tiling(4, 3))
