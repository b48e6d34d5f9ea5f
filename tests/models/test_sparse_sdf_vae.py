"""The sparse SDF autoencoder as a whole: which cells come out, tiles, early pruning, batches, precision."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from models.sdf_vae_cases import balls, vae  # pyright: ignore[reportMissingImports]
from voxgen.core import SparseTensor, VoxelGrid
from voxgen.core.errors import EmptyResultWarning, RangeError
from voxgen.layers import EarlyPruningUpsampler
from voxgen.models import (
    SparseSDFVAE,
    build,
)
from voxgen.models.sparse_sdf_vae._tiles import HALOS
from voxgen.representations import SparseSDF

ROUNDING = 2e-5
"""Of values up to 1 after about 15 layers in float32, where matrix products of other heights round differently."""


@pytest.fixture(scope="module")
def pruning() -> SparseSDFVAE:
    """Early pruning that keeps about two thirds of the children."""
    module = vae(early_pruning=True)
    for step in module.decoder.upsample:
        assert isinstance(step, EarlyPruningUpsampler)
        nn.init.normal_(step.predict.weight, std=2.0)
        nn.init.constant_(step.predict.bias, 0.2)
    return module


def close(actual: SparseTensor, expected: SparseTensor, tolerance: float = ROUNDING) -> None:
    assert actual.grid.same_cells(expected.grid)
    assert actual.feats.shape == expected.feats.shape
    if len(actual):
        assert float((actual.feats - expected.feats).abs().max()) <= tolerance


def test_an_untrained_decoder_gives_zero_and_a_standard_posterior() -> None:
    fresh = build("voxgen/sdf-vae-small", model_channels_encoder=32, model_channels_decoder=32, num_groups=2, num_heads_encoder=2)
    assert isinstance(fresh, SparseSDFVAE)
    latent = fresh.encode(balls((9.0,)))
    assert not latent.posterior.mean.feats.any()
    assert not latent.posterior.logvar.any()
    assert not fresh.decode(latent).values.feats.any()


def test_all_children_of_every_cell(small_sdf_vae: SparseSDFVAE, no_grad: None) -> None:
    sdf = balls()
    latent = small_sdf_vae.encode(sdf)
    decoded = small_sdf_vae.decode(latent, features=True)
    assert decoded.values.grid.resolution == sdf.resolution
    assert decoded.values.grid.frame.isclose(sdf.frame)
    assert len(decoded.values) == 512 * len(latent.z)
    assert bool((decoded.values.grid.rows_of(sdf.coords) >= 0).all())
    assert decoded.features is not None
    assert decoded.features.channels == 2
    assert decoded.logits == ()
    assert float(decoded.values.feats.abs().max()) <= 1
    assert decoded.values.feats.std() > 0.01  # the rest of this file compares something


def test_a_given_structure_brings_the_cells_back(small_sdf_vae: SparseSDFVAE, no_grad: None) -> None:
    sdf = balls()
    latent = small_sdf_vae.encode(sdf)
    decoded = small_sdf_vae.decode(latent, structure=latent.structures)
    assert decoded.values.grid is sdf.grid
    assert decoded.band == sdf.band == 2.0
    assert torch.equal(decoded.sdf.sdf_cells, decoded.values.feats * 2)
    wider = small_sdf_vae.decode(latent.z, structure=latent.structures, band=3.0)
    assert torch.equal(wider.values.feats, decoded.values.feats)
    assert wider.sdf.band == 3.0
    unsigned = small_sdf_vae.encode(SparseSDF(sdf.grid, sdf.sdf_cells.abs(), sdf.band, signed=False))
    assert not small_sdf_vae.decode(unsigned, structure=unsigned.structures).sdf.signed


def test_early_pruning(pruning: SparseSDFVAE, no_grad: None) -> None:
    sdf = balls()
    latent = pruning.encode(sdf)
    taught = pruning.decode(latent, structure=latent.structures)
    assert taught.values.grid is sdf.grid
    assert [len(level) for level in taught.logits] == [len(s.parents) for s in latent.structures]

    free = pruning.decode(latent)
    assert 0 < len(free.values) < 512 * len(latent.z)
    for logits, structure in zip(free.logits, free.structures, strict=True):
        assert torch.equal(logits.feats > 0, structure.mask())
    again = pruning.decode(latent, structure=free.structures)
    close(again.values, free.values, 0)


def test_early_pruning_of_everything(pruning: SparseSDFVAE, no_grad: None) -> None:
    last = pruning.decoder.upsample[2]
    assert isinstance(last, EarlyPruningUpsampler)
    latent, bias = pruning.encode(balls()), last.predict.bias.clone()
    last.predict.bias.fill_(-1e6)
    try:
        with pytest.warns(EmptyResultWarning):
            assert len(pruning.decode(latent).sdf) == 0
        with pytest.warns(EmptyResultWarning):
            empty = pruning.decode(latent, tile=2, features=True)
        assert len(empty.values) == 0
        assert empty.values.grid.resolution == (32, 32, 32)
        last.predict.bias.fill_(float("nan"))
        with pytest.raises(RangeError, match="logits of step 2 must not be NaN"):
            pruning.decode(latent)
    finally:
        last.predict.bias.copy_(bias)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_early_pruning_of_weights_that_lack_it(dtype: torch.dtype, no_grad: None) -> None:
    module = vae(torso_dtype=dtype).eval()
    latent = module.encode(balls((9.0,)))
    pruned = module.decoder.with_early_pruning()
    assert not pruned.training
    out = pruned(latent.z)
    close(out.values, module.decode(latent).values, 0)
    assert all(bool((level.feats == 1).all()) for level in out.logits)
    last = pruned.upsample[2]
    assert isinstance(last, EarlyPruningUpsampler)
    nn.init.normal_(last.predict.weight)
    again = pruned.with_early_pruning()
    for name, value in pruned.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
        assert again.state_dict()[name].dtype == value.dtype
    again.out_layer.weight.zero_()
    assert pruned.out_layer.weight.any()


@pytest.mark.parametrize("tile", [1, 3])
@pytest.mark.parametrize("kind", ["all", "given", "predicted"])
def test_tiles_give_the_whole(small_sdf_vae: SparseSDFVAE, pruning: SparseSDFVAE, kind: str, tile: int, no_grad: None) -> None:
    module = pruning if kind == "predicted" else small_sdf_vae
    latent = module.encode(balls((6.0, 0.0, 4.5), resolution=64))  # 3 to 4 cells of the latent across, so that tiles have halos
    structure = latent.structures if kind == "given" else None
    whole = module.decode(latent, structure=structure, features=True)
    tiled = module.decode(latent, structure=structure, features=True, tile=tile)
    close(tiled.values, whole.values)
    assert whole.features is not None
    assert tiled.features is not None
    close(tiled.features, whole.features, 1e-4)  # not squashed by tanh
    assert tiled.values.grid.frame.isclose(whole.values.grid.frame)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_the_halo_is_the_reach_of_the_steps(small_sdf_vae: SparseSDFVAE, level: int, no_grad: None) -> None:
    """A cell that is moved is seen as far as the halo says, and no farther."""
    line = torch.tensor([[0, x, 0, 0] for x in range(10)], dtype=torch.int32)
    grid, _ = VoxelGrid.build(line, resolution=10)
    one = SparseTensor(grid, torch.rand(10, (32, 8, 4)[level]))
    moved = one.feats.clone()
    moved[0] += 1
    other = one.with_feats(moved)
    for i in range(level, 3):
        steps = [small_sdf_vae.decoder.run_step(i, x) for x in (one, other)]
        assert steps[0] is not None
        assert steps[1] is not None
        one, other = steps[0].x, steps[1].x
    reached = one.coords[(one.feats != other.feats).any(1), 1]
    assert int(reached.max()) // 2 ** (3 - level) == HALOS[level]


def test_the_configuration_sets_tiles(no_grad: None) -> None:
    tiled = vae(chunk_size=2)
    assert tiled.tile == 2
    latent = tiled.encode(balls((9.0,)))
    close(tiled.decode(latent).values, vae().decode(latent).values)


def test_samples_do_not_meet(small_sdf_vae: SparseSDFVAE, no_grad: None) -> None:
    sdf = balls()
    latent = small_sdf_vae.encode(sdf)
    decoded = small_sdf_vae.decode(latent).values.unbind()
    for i in (0, 2):
        alone = small_sdf_vae.encode(sdf.sample(i))
        close(alone.z, latent.z.unbind()[i])
        close(small_sdf_vae.decode(alone).values, decoded[i])
    assert len(decoded[1]) == 0


@pytest.mark.parametrize("batch", [0, 1, 2])
def test_nothing_in_nothing_out(small_sdf_vae: SparseSDFVAE, pruning: SparseSDFVAE, batch: int) -> None:
    grid = VoxelGrid.from_sorted(torch.zeros(0, 4, dtype=torch.int32), resolution=24, batch_size=batch)
    sdf = SparseSDF(grid, torch.zeros(0, 1))
    for module in (small_sdf_vae, pruning):
        for tile in (None, 2):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                latent = module.encode(sdf)
                decoded = module.decode(latent, tile=tile, features=True)
            assert len(latent.z) == len(decoded.values) == 0
            assert decoded.values.grid.batch_size == batch
            assert decoded.values.grid.resolution == (24, 24, 24)
    decoded, latent = small_sdf_vae(sdf)
    decoded.values.feats.sum().backward()


def test_one_cell(small_sdf_vae: SparseSDFVAE, no_grad: None) -> None:
    """A group norm over one cell, where the original fails."""
    sdf = SparseSDF(VoxelGrid.from_sorted(torch.tensor([[0, 9, 9, 9]], dtype=torch.int32), resolution=16, batch_size=1), torch.zeros(1, 1))
    decoded = small_sdf_vae.decode(small_sdf_vae.encode(sdf))
    assert len(decoded.values) == 512
    assert bool(decoded.values.feats.isfinite().all())


def test_translation_by_a_window_changes_the_position_code_alone(small_sdf_vae: SparseSDFVAE, no_grad: None) -> None:
    sdf = balls((9.0,), resolution=32)
    moved = SparseSDF(
        VoxelGrid.from_sorted(sdf.coords + torch.tensor([0, 32, 64, 0], dtype=torch.int32), resolution=128, batch_size=1),
        sdf.sdf_cells,
        sdf.band,
    )
    tiny = 1e-9  # cells times this: every position code is that of the origin
    one, other = small_sdf_vae.encode(sdf, factor=tiny), small_sdf_vae.encode(moved, factor=tiny)
    assert float((one.z.feats - other.z.feats).abs().max()) < ROUNDING
    assert float((small_sdf_vae.encode(sdf).z.feats - small_sdf_vae.encode(moved).z.feats).abs().max()) > 0.01


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float16, 5e-3), (torch.bfloat16, 4e-2)])
def test_half_precision(dtype: torch.dtype, bound: float, no_grad: None) -> None:
    """By the root mean square; measured 0.0019 and 0.016, as 11 and 8 bits through 15 layers give."""
    full, half = vae(), vae(torso_dtype=dtype)
    assert {p.dtype for p in half.parameters()} == {torch.float32, dtype}
    assert all(p.dtype == torch.float32 for name, p in half.named_parameters() if ".norm" in name)
    sdf = balls((9.0,))
    latent = half.encode(sdf.to(dtype))
    assert latent.z.dtype == latent.posterior.logvar.dtype == dtype
    reference = full.decode(full.encode(sdf)).values.feats
    found = half.decode(latent).values
    assert found.dtype == dtype
    error = (found.feats.float() - reference).square().mean() / reference.square().mean()
    assert float(error.sqrt()) < bound


def test_sampling_is_the_generators(small_sdf_vae: SparseSDFVAE, no_grad: None) -> None:
    sdf = balls((9.0,))
    one, other = (small_sdf_vae.encode(sdf, sample=True, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one.z.feats, other.z.feats)
    assert not torch.equal(one.z.feats, one.posterior.mean.feats)
    assert small_sdf_vae.encode(sdf).normalized.channels == 4


def test_log_variance_is_clamped(no_grad: None) -> None:
    module = vae()
    module.encoder.out_layer.linear.bias[4:] = torch.tensor([1e4, -1e4, 0, 0])
    logvar = module.encode(balls((9.0,))).posterior.logvar
    assert bool((logvar[:, 0] == 20).all())
    assert bool((logvar[:, 1] == -30).all())


def test_compat_is_the_pooling(no_grad: None) -> None:
    published, own = vae(compat="direct3d_s2"), vae()
    assert [block.pooling for block in published.encoder.downsample] == ["mean_plus_one"] * 3
    assert [block.pooling for block in own.encoder.downsample] == ["mean"] * 3
    sdf = balls((9.0,))
    assert not torch.allclose(published.encode(sdf).z.feats, own.encode(sdf).z.feats)
