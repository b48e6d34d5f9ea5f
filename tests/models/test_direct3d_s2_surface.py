"""Cells that a surface passes: extraction from them gives the surface of the dense volume; files of the refiners."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from models.direct3d_s2_pipeline_cases import refiner, sign_refiner  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from voxgen.core import SparseTensor, VoxelGrid
from voxgen.core.errors import DeviceError, DtypeError, ShapeError
from voxgen.models import load_pretrained, save_pretrained
from voxgen.models.direct3d_s2 import crossed_cells, crossed_field, foreground_patches, signed_field, signed_volume, sparse_condition
from voxgen.ops.marching_cubes import marching_cubes
from voxgen.testing.grids import full_grid, random_grid


def faces_of(grid: VoxelGrid, values: Tensor, level: float) -> Tensor:
    """(f, 3, 3) corners of all faces, sorted."""
    surface = marching_cubes(grid, values, level, beyond_grid=False)
    corners = surface.vertices[surface.faces.long()]
    return torch.unique(corners.flatten(1), dim=0)


def dense_faces(volume: Tensor, level: float) -> list[Tensor]:
    """Those of each sample of (b, 1, r, r, r)."""
    return [faces_of(full_grid(volume.shape[-1]), sample.flatten(), level) for sample in volume]


def random_volume(side: int, samples: int, seed: int = 0) -> Tensor:
    """Noise with a wavelength of some cells."""
    coarse = torch.randn(samples, 1, *[side // 2] * 3, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, side, mode="trilinear", align_corners=False).tanh()


@pytest.mark.parametrize("level", [0.0, 0.4])
def test_a_dense_field_on_the_cells_that_its_surface_passes(level: float) -> None:
    volume = random_volume(12, 2)
    volume[1] = volume[1].abs() + level  # no surface
    field = crossed_field(volume, level)
    assert field.grid.batch_size == 2
    assert 0 < len(field) < 12**3
    for i, expected in enumerate(dense_faces(volume, level)):
        part = field.unbind()[i]
        assert torch.equal(faces_of(part.grid, part.feats[:, 0], level), expected)
    assert len(field.grid.sample(1)) == 0
    b, x, y, z = field.coords.long().unbind(1)
    assert torch.equal(field.feats[:, 0], volume[b, 0, x, y, z])


def test_half_precision_rounds_no_level() -> None:
    """0.4 lies between two numbers of half precision: cells of the lower one are inside, in extraction too."""
    volume = torch.full((1, 1, 4, 4, 4), 0.3999, dtype=torch.float16)
    volume[..., 2:] = 0.4004
    assert float(volume.min()) == pytest.approx(0.39990234)
    field = crossed_field(volume, 0.4)
    assert field.grid.cells[:, 2].unique().tolist() == [1, 2]
    assert len(faces_of(field.grid, field.feats[:, 0], 0.4)) == 18


@pytest.mark.parametrize("factor", [1, 2])
def test_a_band_with_signs_around_it_is_the_dense_volume(factor: int) -> None:
    side = 16
    grid = random_grid((200, 0, 60), side, seed=3)
    field = SparseTensor(grid, torch.rand(len(grid), 1, generator=torch.Generator().manual_seed(1)) * 2 - 1)
    outside = random_volume(side // factor, 3, seed=5)[:, 0] > 0
    outside[1, :, :, 3:] = True  # a sign that changes far from any band, which the empty sample has none of
    sparse = signed_field(field, outside)
    dense = signed_volume(field, outside)
    assert len(sparse) < dense.numel()
    for i, expected in enumerate(dense_faces(dense, 0.2)):
        part = sparse.unbind()[i]
        assert torch.equal(faces_of(part.grid, part.feats[:, 0], 0.2), expected)
    nothing = signed_field(SparseTensor(grid.select(torch.zeros(len(grid), dtype=torch.bool)), field.feats[:0]), torch.ones_like(outside))
    assert len(nothing) == 0


def test_gradients_reach_the_values() -> None:
    volume = random_volume(8, 1).requires_grad_()
    crossed_field(volume, 0.0).feats.sum().backward()
    assert volume.grad is not None
    assert torch.equal(volume.grad[:, 0] != 0, crossed_cells((volume < 0)[:, 0]))
    grid = random_grid((40,), 8)
    feats = torch.rand(40, 1, requires_grad=True)
    signed_field(SparseTensor(grid, feats), torch.ones(1, 4, 4, 4, dtype=torch.bool)).feats.sum().backward()
    assert feats.grad is not None
    assert bool((feats.grad == 1).all())


def test_volumes_in_bad_form() -> None:
    with pytest.raises(DtypeError, match="inside"):
        crossed_cells(torch.zeros(1, 4, 4, 4))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ShapeError, match="volume"):
        crossed_field(torch.zeros(1, 2, 4, 4, 4), 0.0)
    assert len(crossed_field(torch.full((1, 1, 4, 4, 4), torch.nan), 0.0)) == 0
    assert crossed_cells(torch.ones(2, 1, 1, 1, dtype=torch.bool)).sum() == 0
    field = SparseTensor(random_grid((9,), 8), torch.zeros(9, 1))
    with pytest.raises(ShapeError, match="must divide its resolution"):
        signed_field(field, torch.ones(1, 3, 4, 4, dtype=torch.bool))
    with pytest.raises(ShapeError, match="outside"):
        signed_field(field, torch.ones(2, 4, 4, 4, dtype=torch.bool))
    with pytest.raises(DeviceError, match="one device"):
        signed_field(field, torch.ones(1, 4, 4, 4, dtype=torch.bool, device="meta"))


@pytest.mark.parametrize("make", [refiner, sign_refiner])
def test_files_of_refiners(make: Any, tmp_path: Path) -> None:
    module = make(use_fp16=None, torso_dtype="bfloat16")
    save_pretrained(module, tmp_path / "net.safetensors")
    back = load_pretrained(tmp_path / "net.safetensors")
    assert type(back) is type(module)
    assert cast(Any, back).description() == module.description()
    for key, value in back.state_dict().items():
        assert value.dtype == module.state_dict()[key].dtype
        assert torch.equal(value, module.state_dict()[key])


def test_patches_and_tokens_of_other_encoders() -> None:
    mask = torch.zeros(2, 32, 48)
    mask[1, 17, 40] = 1.0
    patches = foreground_patches(mask, patch=16)
    assert patches.nonzero().tolist() == [[1, 1, 2]]
    tokens = torch.arange(2 * 8, dtype=torch.float32).view(2, 8, 1)
    condition = sparse_condition(tokens, patches, special=2)
    assert [part[:, 0].tolist() for part in condition.tokens] == [[0, 1], [8, 9, 15]]
    assert condition.positions[1].tolist() == [[0, 0, 1], [0, 0, 1], [2, 1, 0]]
    with pytest.raises(ShapeError, match="multiples of 16"):
        foreground_patches(mask[:, 1:], patch=16)
    with pytest.raises(ShapeError, match="1 special tokens and 2 · 3 patches"):
        sparse_condition(tokens, patches, special=1)
