"""What a frustum holds, and slices of it by visibility ratio."""

from __future__ import annotations

import pytest
import torch

from focusing_scene import scene  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from voxgen.core import Camera, Selection
from voxgen.core.errors import RangeError
from voxgen.render import in_frustum, section_by_visibility
from voxgen.testing.carving import carving_errors, decoded, depth_maps, outside_views, prepared
from voxgen.testing.grids import full_grid, random_grid


def _tight(camera: Camera, near: float, far: float) -> Camera:
    return Camera(camera.world_to_camera, camera.intrinsics, camera.width, camera.height, near, far, camera.orthographic)


def test_centres_in_the_clip_volume() -> None:
    grid = random_grid([600], 16)
    camera = _tight(outside_views(1, 64), 1.4, 1.7)
    centers = grid.frame.centers(grid.cells, torch.float64)
    clip = torch.cat((centers, torch.ones(len(grid), 1)), 1) @ camera.clip_matrices()[0].T
    expected = (clip[:, :3].abs() <= clip[:, 3:]).all(1) & (clip[:, 3] > 0)
    found = in_frustum(grid, camera, reach=None)
    assert torch.equal(found.mask, expected)
    assert 0 < found.count < len(grid)
    touching = in_frustum(grid, camera, reach=0.0)
    assert bool((found.mask <= touching.mask).all())
    assert touching.count > found.count
    assert in_frustum(grid, camera).count > touching.count


@pytest.mark.parametrize("view", [1, 2, 5])
def test_the_picture_needs_no_other_cells(view: int) -> None:
    """A frame that cuts the object, and planes that cut it too."""
    shape, grid, parent, _ = prepared("bumpy sphere", 16)
    camera = outside_views(6, 96)[view]
    camera = _tight(Camera(camera.world_to_camera, camera.intrinsics * torch.tensor([2.5, 2.5, 1])[:, None], 96, 96), 1.5, 1.9)
    camera.intrinsics[:, :2, 2] = 48
    full = depth_maps(decoded(shape), camera)
    seen = in_frustum(grid, camera)
    assert seen.share < 0.9
    assert int(carving_errors(full, depth_maps(decoded(shape, parent, seen), camera))) == 0
    centres = in_frustum(grid, camera, reach=None)
    assert int(carving_errors(full, depth_maps(decoded(shape, parent, centres), camera))) > 0


@pytest.mark.parametrize("ratio", [0.1, 0.3, 1.0])
def test_section_holds_the_share(ratio: float) -> None:
    grid = random_grid([2000], 32, seed=4)
    camera = outside_views(10, 64)[1:9]  # the first looks along a plane of the lattice, so that centres have equal depths
    generator = torch.Generator().manual_seed(0)
    shown, total = torch.zeros(8, dtype=torch.int64), 0
    for view in range(8):
        total = in_frustum(grid, camera[view], reach=None).count
        section = section_by_visibility(grid, camera[view], ratio, reach=None, generator=generator)
        assert section.count == max(1, round(ratio * total))
        assert torch.equal(section.mask, in_frustum(grid, section.cameras[0], reach=None).mask)
        assert camera.near <= section.near[0] < section.far[0] <= camera.far
    together = section_by_visibility(grid, camera, ratio, sample=shown, reach=None, generator=generator)
    assert len(together.cameras) == 8
    assert together.count >= ratio * total * 0.9


@pytest.mark.parametrize("ratio", [0.1, 0.3])
def test_section_shows_all_that_lies_between_its_planes(ratio: float) -> None:
    shape, grid, parent, _ = prepared("bumpy sphere", 32)
    whole = decoded(shape)
    generator = torch.Generator().manual_seed(1)
    for view in range(4):
        camera = outside_views(4, 96)[view]
        section = section_by_visibility(grid, camera, ratio, generator=generator)
        single = section.cameras[0]
        assert torch.equal(section.mask, in_frustum(grid, single).mask)
        assert int(carving_errors(depth_maps(whole, single), depth_maps(decoded(shape, parent, section), single))) == 0
        # planes that stand so close that a grown cell hardly fits between hold more than asked for
        assert ratio * 0.95 <= section.share <= max(1.1 * ratio, 0.3)


def test_cells_of_equal_depth_stay_together() -> None:
    grid, _, camera = scene()
    section = section_by_visibility(grid, camera, 0.1, reach=None, generator=torch.Generator().manual_seed(3))
    depth = (2 - grid.frame.centers(grid.cells)[:, 2]).double()
    assert set(depth[section.mask].tolist()).isdisjoint(depth[~section.mask].tolist())
    assert section.share >= 0.1
    layer = section_by_visibility(full_grid((8, 8, 1)), camera, 0.5, reach=None)
    assert layer.count == 64


def test_among_and_composition() -> None:
    grid, _, camera = scene()
    front = Selection(grid, grid.cells[:, 2] >= 16)
    section = section_by_visibility(grid, camera, 0.25, among=front, reach=None, generator=torch.Generator().manual_seed(0))
    assert not bool((section.mask & ~front.mask).any())
    left = Selection(grid, grid.cells[:, 0] < 16)
    assert torch.equal((section & left & in_frustum(grid, camera)).mask, section.mask & left.mask)


def test_nothing_in_view() -> None:
    grid, _, camera = scene()
    away = Camera.look_at(camera.positions, (0.0, 0.0, 4.0), width=32, height=32)
    assert in_frustum(grid, away).count == 0
    section = section_by_visibility(grid, away, 0.5)
    assert section.count == 0
    assert (float(section.near), float(section.far)) == (away.near, away.far)
    assert in_frustum(random_grid([0], 8), camera).count == 0
    assert section_by_visibility(random_grid([0], 8), camera, 0.5).count == 0
    assert section_by_visibility(grid, camera[0:0], 0.5).near.shape == (0,)
    assert in_frustum(grid, camera[0:0]).count == 0


def test_camera_inside_sees_the_cells_around_it() -> None:
    grid = full_grid(8)
    inside = Camera.look_at(torch.full((1, 3), 0.01), (0.4, 0.1, 0.0), width=32, height=32, near=0.02, far=5.0)
    seen = in_frustum(grid, inside)
    here = grid.frame.to_cell(torch.full((1, 3), 0.01))[0]
    assert bool(seen.mask[(grid.cells == here).all(1)].all())
    assert 0 < seen.count < len(grid)


def test_bad_input_is_refused() -> None:
    grid, _, camera = scene()
    for ratio in (0, -0.5, 1.5, torch.nan):
        with pytest.raises(RangeError, match="ratio must lie"):
            section_by_visibility(grid, camera, ratio)
    with pytest.raises(RangeError, match="reach"):
        in_frustum(grid, camera, reach=-1)
    with pytest.raises(RangeError, match="reach"):
        section_by_visibility(grid, camera, 0.5, reach=99)
    with pytest.raises(RangeError, match="same cells"):
        section_by_visibility(grid, camera, 0.5, among=Selection.all(full_grid(3)))
    with pytest.raises(RangeError, match="invertible"):
        in_frustum(grid, Camera(torch.zeros(1, 4, 4), camera.intrinsics[:1].float(), 8, 8))
