"""SparseFlexVAE: targets, gradients, precision, and what training does."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from sparse_flex_vae_cases import cloud_and_grid, small
from torch import Tensor
from torch.nn import functional as F

from voxgen.core import SparseTensor, VoxelGrid
from voxgen.core.errors import DtypeError, RangeError
from voxgen.models import (
    occupied_children,
)
from voxgen.ops.resample import Structure
from voxgen.representations import OrientedPoints
from voxgen.testing.compare import assert_same
from voxgen.testing.shapes import torus


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
