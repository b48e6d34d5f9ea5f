"""SparseSDFVAE: gradients, what training does, and the distances that it is trained on."""

from __future__ import annotations

import pytest
import torch

import voxgen
from models.sdf_vae_cases import balls, vae  # pyright: ignore[reportMissingImports]
from voxgen.core import SparseTensor
from voxgen.core.errors import RangeError, ShapeError
from voxgen.losses import LossTerms, SparseSDFLoss
from voxgen.models import (
    SparseSDFVAE,
    sdf_targets,
)
from voxgen.models.sparse_sdf_vae import SDFDownBlock, SDFUpBlock
from voxgen.ops.resample import Structure
from voxgen.representations import SparseSDF
from voxgen.testing.grids import random_grid
from voxgen.testing.shapes import box


def test_gradients_of_the_blocks() -> None:
    x = SparseTensor(random_grid((7, 0, 5), 4), torch.randn(12, 4, dtype=torch.float64, requires_grad=True))
    down = SDFDownBlock(4, 6, num_groups=2, pooling="mean_plus_one").double()
    up = SDFUpBlock(4, 2).double()
    structure = Structure.of_mask(x.grid, torch.rand(12, 8) > 0.3)
    with voxgen.use_backend("reference"):
        assert torch.autograd.gradcheck(lambda f: down(x.with_feats(f))[0].feats, x.feats)
        assert torch.autograd.gradcheck(lambda f: up(x.with_feats(f), structure).feats, x.feats)


def terms_of(module: SparseSDFVAE, sdf: SparseSDF, seed: int) -> LossTerms:
    """The loss of a training pass; of subdivisions where the decoder predicts them."""
    decoded, latent = module(sdf, generator=torch.Generator().manual_seed(seed))
    targets = sdf_targets(sdf, decoded.values.grid)
    return SparseSDFLoss()(
        prediction=decoded.values.feats,
        target=targets.values,
        active=targets.active,
        mean=latent.posterior.mean.feats,
        logvar=latent.posterior.logvar,
        subdivision_logits=[level.feats for level in decoded.logits],
        subdivisions=[s.mask() for s in latent.structures] if module.decoder.config.early_pruning else [],
    )


@pytest.mark.parametrize("early_pruning", [False, True])
def test_every_parameter_learns(early_pruning: bool) -> None:
    module = vae(early_pruning=early_pruning, use_checkpoint=early_pruning)
    sdf = balls((5.0,), resolution=16)
    terms_of(module, sdf, seed=0).total.backward()
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
    sdf = balls((5.0,), resolution=16)
    optimizer = torch.optim.Adam(module.parameters(), 2e-3)
    found: list[float] = []
    for _ in range(30):
        terms = terms_of(module, sdf, seed=1)
        optimizer.zero_grad()
        terms.total.backward()
        optimizer.step()
        found.append(terms.numbers()["total"])
    assert found[-1] < 0.4 * found[0]


def test_targets_of_extra_cells_have_their_side(small_sdf_vae: SparseSDFVAE, no_grad: None) -> None:
    sdf = balls((9.0, 0.0, 6.5))
    grid = small_sdf_vae.decode(small_sdf_vae.encode(sdf)).values.grid
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


def test_targets_near_sharp_edges(small_sdf_vae: SparseSDFVAE, no_grad: None) -> None:
    mesh = box()
    sdf = SparseSDF.from_mesh(mesh, resolution=20, band=2.0)  # no multiple of 8: the decode goes beyond
    near = sdf.sharp_edge_cells(mesh)
    assert 0 < int(near.sum()) < len(near)
    decoded = small_sdf_vae.decode(small_sdf_vae.encode(sdf))
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
