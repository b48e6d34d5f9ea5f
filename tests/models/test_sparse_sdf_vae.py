"""The sparse SDF autoencoder as a whole: which cells come out, tiles, early pruning, batches, precision, gradients, files, bad input."""

from __future__ import annotations

import doctest
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import voxgen
from models.sdf_vae_cases import balls, vae  # pyright: ignore[reportMissingImports]
from voxgen import models
from voxgen.core import SparseTensor, VoxelGrid
from voxgen.core.errors import CheckpointError, DtypeError, EmptyResultWarning, RangeError, ShapeError
from voxgen.layers import EarlyPruningUpsampler
from voxgen.losses import SparseSDFLoss
from voxgen.models import (
    DecodedSDF,
    SDFDecoderConfig,
    SDFEncoderConfig,
    SparseSDFDecoder,
    SparseSDFEncoder,
    SparseSDFVAE,
    build,
    load_pretrained,
    save_pretrained,
    sdf_targets,
    sparse_sdf_vae,
)
from voxgen.models.checkpoints import load_direct3d_s2, to_direct3d_s2
from voxgen.models.sparse_sdf_vae import SDFDownBlock, SDFUpBlock
from voxgen.models.sparse_sdf_vae._tiles import HALOS
from voxgen.ops.resample import Structure
from voxgen.representations import SparseSDF
from voxgen.testing.grids import random_grid
from voxgen.testing.shapes import box, torus

ROUNDING = 2e-5
"""Of values up to 1 after about 15 layers in float32, where matrix products of other heights round differently."""


@pytest.fixture(scope="module")
def plain() -> SparseSDFVAE:
    return vae()


@pytest.fixture(scope="module")
def pruning() -> SparseSDFVAE:
    """Early pruning that keeps about two thirds of the children."""
    module = vae(early_pruning=True)
    for step in module.decoder.upsample:
        assert isinstance(step, EarlyPruningUpsampler)
        nn.init.normal_(step.predict.weight, std=2.0)
        nn.init.constant_(step.predict.bias, 0.2)
    return module


@pytest.fixture
def no_grad() -> Any:
    with torch.no_grad():
        yield


def close(actual: SparseTensor, expected: SparseTensor, tolerance: float = ROUNDING) -> None:
    assert actual.grid.same_cells(expected.grid)
    assert actual.feats.shape == expected.feats.shape
    if len(actual):
        assert float((actual.feats - expected.feats).abs().max()) <= tolerance


# --- which cells ----------------------------------------------------------------------------------------------------


def test_an_untrained_decoder_gives_zero_and_a_standard_posterior() -> None:
    fresh = build("voxgen/sdf-vae-small", model_channels_encoder=32, model_channels_decoder=32, num_groups=2, num_heads_encoder=2)
    assert isinstance(fresh, SparseSDFVAE)
    latent = fresh.encode(balls((9.0,)))
    assert not latent.posterior.mean.feats.any()
    assert not latent.posterior.logvar.any()
    assert not fresh.decode(latent).values.feats.any()


def test_all_children_of_every_cell(plain: SparseSDFVAE, no_grad: None) -> None:
    sdf = balls()
    latent = plain.encode(sdf)
    decoded = plain.decode(latent, features=True)
    assert decoded.values.grid.resolution == sdf.resolution
    assert decoded.values.grid.frame.isclose(sdf.frame)
    assert len(decoded.values) == 512 * len(latent.z)
    assert bool((decoded.values.grid.rows_of(sdf.coords) >= 0).all())
    assert decoded.features is not None
    assert decoded.features.channels == 2
    assert decoded.logits == ()
    assert float(decoded.values.feats.abs().max()) <= 1
    assert decoded.values.feats.std() > 0.01  # the rest of this file compares something


def test_a_given_structure_brings_the_cells_back(plain: SparseSDFVAE, no_grad: None) -> None:
    sdf = balls()
    latent = plain.encode(sdf)
    decoded = plain.decode(latent, structure=latent.structures)
    assert decoded.values.grid is sdf.grid
    assert decoded.band == sdf.band == 2.0
    assert torch.equal(decoded.sdf.sdf_cells, decoded.values.feats * 2)
    wider = plain.decode(latent.z, structure=latent.structures, band=3.0)
    assert torch.equal(wider.values.feats, decoded.values.feats)
    assert wider.sdf.band == 3.0
    unsigned = plain.encode(SparseSDF(sdf.grid, sdf.sdf_cells.abs(), sdf.band, signed=False))
    assert not plain.decode(unsigned, structure=unsigned.structures).sdf.signed


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


# --- tiles ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tile", [1, 3])
@pytest.mark.parametrize("kind", ["all", "given", "predicted"])
def test_tiles_give_the_whole(plain: SparseSDFVAE, pruning: SparseSDFVAE, kind: str, tile: int, no_grad: None) -> None:
    module = pruning if kind == "predicted" else plain
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
def test_the_halo_is_the_reach_of_the_steps(plain: SparseSDFVAE, level: int, no_grad: None) -> None:
    """A cell that is moved is seen as far as the halo says, and no farther."""
    line = torch.tensor([[0, x, 0, 0] for x in range(10)], dtype=torch.int32)
    grid, _ = VoxelGrid.build(line, resolution=10)
    one = SparseTensor(grid, torch.rand(10, (32, 8, 4)[level]))
    moved = one.feats.clone()
    moved[0] += 1
    other = one.with_feats(moved)
    for i in range(level, 3):
        steps = [plain.decoder.run_step(i, x) for x in (one, other)]
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


# --- batches and order ----------------------------------------------------------------------------------------------


def test_samples_do_not_meet(plain: SparseSDFVAE, no_grad: None) -> None:
    sdf = balls()
    latent = plain.encode(sdf)
    decoded = plain.decode(latent).values.unbind()
    for i in (0, 2):
        alone = plain.encode(sdf.sample(i))
        close(alone.z, latent.z.unbind()[i])
        close(plain.decode(alone).values, decoded[i])
    assert len(decoded[1]) == 0


@pytest.mark.parametrize("batch", [0, 1, 2])
def test_nothing_in_nothing_out(plain: SparseSDFVAE, pruning: SparseSDFVAE, batch: int) -> None:
    grid = VoxelGrid.from_sorted(torch.zeros(0, 4, dtype=torch.int32), resolution=24, batch_size=batch)
    sdf = SparseSDF(grid, torch.zeros(0, 1))
    for module in (plain, pruning):
        for tile in (None, 2):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                latent = module.encode(sdf)
                decoded = module.decode(latent, tile=tile, features=True)
            assert len(latent.z) == len(decoded.values) == 0
            assert decoded.values.grid.batch_size == batch
            assert decoded.values.grid.resolution == (24, 24, 24)
    decoded, latent = plain(sdf)
    decoded.values.feats.sum().backward()


def test_one_cell(plain: SparseSDFVAE, no_grad: None) -> None:
    """A group norm over one cell, where the original fails."""
    sdf = SparseSDF(VoxelGrid.from_sorted(torch.tensor([[0, 9, 9, 9]], dtype=torch.int32), resolution=16, batch_size=1), torch.zeros(1, 1))
    decoded = plain.decode(plain.encode(sdf))
    assert len(decoded.values) == 512
    assert bool(decoded.values.feats.isfinite().all())


def test_translation_by_a_window_changes_the_position_code_alone(plain: SparseSDFVAE, no_grad: None) -> None:
    sdf = balls((9.0,), resolution=32)
    moved = SparseSDF(
        VoxelGrid.from_sorted(sdf.coords + torch.tensor([0, 32, 64, 0], dtype=torch.int32), resolution=128, batch_size=1),
        sdf.sdf_cells,
        sdf.band,
    )
    tiny = 1e-9  # cells times this: every position code is that of the origin
    one, other = plain.encode(sdf, factor=tiny), plain.encode(moved, factor=tiny)
    assert float((one.z.feats - other.z.feats).abs().max()) < ROUNDING
    assert float((plain.encode(sdf).z.feats - plain.encode(moved).z.feats).abs().max()) > 0.01


# --- numbers --------------------------------------------------------------------------------------------------------


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


def test_sampling_is_the_generators(plain: SparseSDFVAE, no_grad: None) -> None:
    sdf = balls((9.0,))
    one, other = (plain.encode(sdf, sample=True, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one.z.feats, other.z.feats)
    assert not torch.equal(one.z.feats, one.posterior.mean.feats)
    assert plain.encode(sdf).normalized.channels == 4


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


def test_gradients_of_the_blocks() -> None:
    x = SparseTensor(random_grid((7, 0, 5), 4), torch.randn(12, 4, dtype=torch.float64, requires_grad=True))
    down = SDFDownBlock(4, 6, num_groups=2, pooling="mean_plus_one").double()
    up = SDFUpBlock(4, 2).double()
    structure = Structure.of_mask(x.grid, torch.rand(12, 8) > 0.3)
    with voxgen.use_backend("reference"):
        assert torch.autograd.gradcheck(lambda f: down(x.with_feats(f))[0].feats, x.feats)
        assert torch.autograd.gradcheck(lambda f: up(x.with_feats(f), structure).feats, x.feats)


@pytest.mark.parametrize("early_pruning", [False, True])
def test_every_parameter_learns(early_pruning: bool) -> None:
    module = vae(early_pruning=early_pruning, use_checkpoint=early_pruning)
    sdf = balls((5.0,), resolution=16)
    decoded, latent = module(sdf, generator=torch.Generator().manual_seed(0))
    targets = sdf_targets(sdf, decoded.values.grid)
    loss = SparseSDFLoss()(
        prediction=decoded.values.feats,
        target=targets.values,
        active=targets.active,
        mean=latent.posterior.mean.feats,
        logvar=latent.posterior.logvar,
        subdivision_logits=[level.feats for level in decoded.logits],
        subdivisions=[s.mask() for s in latent.structures] if early_pruning else [],
    )
    loss.total.backward()
    assert [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_checkpointing_changes_no_gradient() -> None:
    sdf, grads = balls((5.0,), resolution=16), []
    for flag in (False, True):
        module = vae(use_checkpoint=flag)
        module(sdf, sample=False)[0].values.feats.square().sum().backward()
        grads.append([p.grad for p in module.parameters()])
    for one, other in zip(*grads, strict=True):
        assert torch.equal(one, other)


def test_a_few_steps_of_training_bring_the_loss_down() -> None:
    module = vae(model_channels_encoder=64, model_channels_decoder=64, num_groups=4, early_pruning=True)
    sdf, loss = balls((5.0,), resolution=16), SparseSDFLoss()
    optimizer = torch.optim.Adam(module.parameters(), 2e-3)
    found: list[float] = []
    for _ in range(30):
        decoded, latent = module(sdf, generator=torch.Generator().manual_seed(1))
        targets = sdf_targets(sdf, decoded.values.grid)
        terms = loss(
            prediction=decoded.values.feats,
            target=targets.values,
            active=targets.active,
            mean=latent.posterior.mean.feats,
            logvar=latent.posterior.logvar,
            subdivision_logits=[level.feats for level in decoded.logits],
            subdivisions=[s.mask() for s in latent.structures],
        )
        optimizer.zero_grad()
        terms.total.backward()
        optimizer.step()
        found.append(terms.numbers()["total"])
    assert found[-1] < 0.4 * found[0]


# --- targets --------------------------------------------------------------------------------------------------------


def test_targets_of_extra_cells_have_their_side(plain: SparseSDFVAE, no_grad: None) -> None:
    sdf = balls((9.0, 0.0, 6.5))
    grid = plain.decode(plain.encode(sdf)).values.grid
    targets = sdf_targets(sdf, grid)
    assert torch.equal(grid.coords[targets.active], sdf.coords)
    assert torch.equal(targets.values[targets.active], sdf.normalized().feats)
    centres = grid.cells + 0.5 - torch.tensor([14.3, 16.1, 15.2])
    radii = torch.tensor([9.0, 0.0, 6.5])[grid.batch.long()]
    distance = (centres.norm(dim=1) - radii) / 2
    assert torch.allclose(targets.values[:, 0], distance.clamp(-1, 1), atol=1e-5)
    assert bool((targets.values[~targets.active] == -1).any())
    outside = sdf_targets(sdf, grid, far="outside")
    assert torch.equal(outside.values[targets.active], targets.values[targets.active])
    assert bool((outside.values[~targets.active] == 1).all())
    assert targets.sharp is None


def test_targets_near_sharp_edges(plain: SparseSDFVAE, no_grad: None) -> None:
    mesh = box()
    sdf = SparseSDF.from_mesh(mesh, resolution=20, band=2.0)  # no multiple of 8: the decode goes beyond
    near = sdf.sharp_edge_cells(mesh)
    assert 0 < int(near.sum()) < len(near)
    decoded = plain.decode(plain.encode(sdf))
    assert decoded.values.grid.resolution == (24, 24, 24)
    targets = sdf_targets(sdf, decoded.values.grid, near)
    assert targets.sharp is not None
    assert torch.equal(decoded.values.coords[targets.sharp], sdf.coords[near])
    beyond = (decoded.values.grid.cells >= 20).any(1)
    assert bool((targets.values[beyond] == 1).all())
    assert not targets.active[beyond].any()
    with pytest.raises(ShapeError, match="sharp"):
        sdf_targets(sdf, decoded.values.grid, near[:3])
    with pytest.raises(RangeError, match="far must be one of"):
        sdf_targets(sdf, decoded.values.grid, far="inside")  # pyright: ignore[reportArgumentType]
    with pytest.raises(RangeError, match="one batch size"):
        sdf_targets(sdf, random_grid((3, 3), 20))
    with pytest.raises(RangeError, match="resolution"):
        sdf_targets(sdf, random_grid((3,), 40))


# --- files and configurations ---------------------------------------------------------------------------------------


def test_own_files(tmp_path: Path, no_grad: None) -> None:
    module = vae(early_pruning=True, chunk_size=2, latents_scale=0.5)
    save_pretrained(module, tmp_path / "vae.safetensors")
    again = load_pretrained(tmp_path / "vae.safetensors")
    assert isinstance(again, SparseSDFVAE)
    assert again.description() == module.description()
    assert again.tile == 2
    latent = module.encode(balls((9.0,)))
    assert torch.equal(again.encode(balls((9.0,))).z.feats, latent.z.feats)


def test_published_names_both_ways(tmp_path: Path) -> None:
    module = vae()
    state = to_direct3d_s2(module)
    path = tmp_path / "model.ckpt"
    torch.save({"vae": {name: value.half() for name, value in state.items()}, "dit": {"x": torch.zeros(1)}}, path)
    other = vae(seed=1)
    load_direct3d_s2(other, path)
    for name, value in to_direct3d_s2(other).items():
        assert torch.equal(value, state[name].half().float())
    kernel = "encoder.downsample.1.out_layers.3.conv.kernel"
    own = module.state_dict()["encoder.downsample.1.conv2.weight"]
    assert torch.equal(state[kernel].view(3, 3, 3, 8, 8).transpose(0, 2).flatten(0, 2), own)
    with pytest.raises(CheckpointError, match=rf"(?s)1 missing.*{kernel}"):
        load_direct3d_s2(other, {name: value for name, value in state.items() if name != kernel})
    with pytest.raises(CheckpointError, match=r"(?s)1 left over.*stranger"):
        load_direct3d_s2(other, {**state, "stranger": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"(?s)6 missing.*upsample.0.predict"):
        load_direct3d_s2(vae(early_pruning=True), state)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model_channels_encoder": 40}, "multiple of 16"),
        ({"num_groups": 32}, "num_groups must divide the narrowest level's 2 channels"),
        ({"num_heads_decoder": 5}, "num_heads must divide model_channels"),
        ({"num_heads_encoder": None, "num_head_channels_encoder": 0}, "num_head_channels must be at least 1"),
        ({"window_size": 0}, "window must be at least 1"),
        ({"compat": "trellis"}, "compat must be one of 'direct3d_s2'"),
        ({"chunk_size": 3}, "must divide the resolution"),
        ({"latents_scale": 0.0}, "latents_scale must not be 0"),
        ({"torso_dtype": "float8"}, "torso_dtype must be one of"),
    ],
)
def test_configurations_that_make_no_network(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(RangeError, match=words):
        vae(**fields)


def test_parts_that_do_not_fit(plain: SparseSDFVAE) -> None:
    other = SparseSDFDecoder(SDFDecoderConfig(model_channels=32, num_blocks=0, num_heads=2, latent_channels=5))
    with pytest.raises(ShapeError, match="latent_channels must be the encoder's, 4; got 5"):
        SparseSDFVAE(plain.encoder, other)
    with pytest.raises(ShapeError, match="normalisation must have 4 channels"):
        SparseSDFVAE(plain.encoder, plain.decoder, models.SHAPE_LATENTS)
    with pytest.raises(RangeError, match="tile"):
        SparseSDFVAE(plain.encoder, plain.decoder, tile=0)
    config = SDFEncoderConfig(model_channels=32, num_heads=2, num_groups=2)
    assert SDFEncoderConfig(**config.to_json()) == config
    with pytest.raises(ShapeError, match="num_groups"):
        SDFDownBlock(6, 8, num_groups=4)


def test_bad_input(plain: SparseSDFVAE) -> None:
    sdf = balls((9.0,))
    latent = plain.encode(sdf)
    bad = sdf.sdf_cells.clone()
    bad[5] = float("nan")
    with pytest.raises(RangeError, match="sdf must be finite; 1 of"):
        plain.encode(sdf.replace(sdf_cells=bad))
    with pytest.raises(DtypeError, match="must be a SparseSDF"):
        plain.encode(sdf.normalized())  # pyright: ignore[reportArgumentType]
    with pytest.raises(RangeError, match="without sample=True"):
        plain.encode(sdf, generator=torch.Generator())
    for factor in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(RangeError, match="factor must be positive"):
            plain.encode(sdf, factor=factor)
    with pytest.raises(RangeError, match="latent must be finite"):
        plain.decode(latent.z.with_feats(latent.z.feats.detach() / 0))
    with pytest.raises(DtypeError, match="what encode gives"):
        plain.decode(latent.z.feats)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ShapeError, match="4 channels"):
        plain.decode(latent.z.with_feats(latent.z.feats[:, :3]))
    with pytest.raises(ShapeError, match="3 entries"):
        plain.decode(latent, structure=latent.structures[:2])
    with pytest.raises(RangeError, match="coarse to fine"):
        plain.decode(latent, structure=latent.structures[::-1])
    with pytest.raises(RangeError, match="tile"):
        plain.decode(latent, tile=0)
    with pytest.raises(RangeError, match="band"):
        plain.decode(latent, band=-1.0)
    with pytest.raises(RangeError, match=r"parents must be the cells of x"):
        SDFUpBlock(4, 2)(latent.z.with_feats(latent.z.feats.detach()), latent.structures[1])


def test_a_mesh_comes_out_of_true_values(plain: SparseSDFVAE, no_grad: None) -> None:
    """What extraction reads if the network is right: the far field has its side, so there is no second surface within."""
    sdf = SparseSDF.from_mesh(torus(), resolution=32, band=2.0)
    grid = plain.decode(plain.encode(sdf)).values.grid
    perfect = DecodedSDF(SparseTensor(grid, sdf_targets(sdf, grid).values), (), band=2.0)
    one, other = perfect.sdf.to_mesh(), sdf.to_mesh()
    assert one.num_faces == other.num_faces
    assert torch.allclose(one.vertices, other.vertices, atol=1e-5)


OBJECTS = [SparseSDFVAE, SparseSDFEncoder, SparseSDFDecoder, SDFDownBlock, SDFUpBlock, sdf_targets]


@pytest.mark.parametrize("item", OBJECTS, ids=lambda item: item.__name__)
def test_examples(item: Any, plain: SparseSDFVAE) -> None:
    sdf = balls((9.0,))
    x = SparseTensor(random_grid((30,), 8), torch.randn(30, 16))
    names = {"voxgen": voxgen, "torch": torch, "mesh": torus(), "sdf": sdf, "x": x, "vae": plain, "latent": plain.encode(sdf)}
    names |= {"latent_grid": random_grid((5,), 4), "SparseTensor": SparseTensor, "SparseSDF": SparseSDF, "Structure": Structure}
    (test,) = doctest.DocTestFinder(recurse=False).find(item, globs={**vars(sparse_sdf_vae), **names})
    report: list[str] = []
    result = doctest.DocTestRunner().run(test, out=report.append)
    assert result.attempted > 0
    assert result.failed == 0, "".join(report)
