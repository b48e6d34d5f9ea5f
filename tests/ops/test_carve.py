"""Carving by depth: the golden numbers, its laws, that nothing visible is lost, and what is refused."""

from __future__ import annotations

import dataclasses
import itertools
import math
import warnings

import pytest
import torch
from torch import Tensor

from focusing_scene import FACTS, out, scene  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from voxgen.core import Camera, Selection, SparseTensor, VoxelGrid
from voxgen.core.errors import EmptyResultWarning, RangeError, ShapeError
from voxgen.ops.carve import carve_by_depth
from voxgen.testing.carving import SHAPES, carving_errors, decoded, depth_maps, outside_views, prepared
from voxgen.testing.cases.carve import ball_depth
from voxgen.testing.grids import full_grid, random_grid

ENGINES = ("numba", "reference")


@pytest.mark.parametrize("backend", ENGINES)
def test_golden(backend: str) -> None:
    grid, depth, camera = scene()
    before = carve_by_depth(grid, depth, camera, dilate=0, cover=False, backend=backend)
    kept = carve_by_depth(grid, depth, camera, backend=backend)
    assert torch.equal(before.mask, out("carve/keep0"))
    assert torch.equal(kept.mask, out("carve/keep"))
    assert kept.count == FACTS["kept"]
    assert bool(kept.coverage.all())
    assert not bool(before.coverage.all())
    background_0 = carve_by_depth(grid, torch.where(depth.isinf(), 1e-9, depth), camera, cover=False, backend=backend)
    assert background_0.share == FACTS["background_0_share"]


@pytest.mark.parametrize("backend", ENGINES)
def test_the_printed_rule_keeps_what_is_hidden(backend: str) -> None:
    grid, depth, camera = scene()
    printed = carve_by_depth(grid, depth, camera, rule="paper", dilate=0, backend=backend)
    assert printed.share == FACTS["literal_inequality_keeps"]
    center = grid.frame.centers(grid.cells, torch.float64)
    facing = (center * (camera.positions - center)).sum(1) > 0
    assert float(facing.double().mean()) == FACTS["facing_share"]
    assert float(facing[printed.mask].double().mean()) == FACTS["literal_precision"]
    kept = carve_by_depth(grid, depth, camera, backend=backend)
    assert bool(kept.mask[facing].all())
    assert not bool(printed.coverage.all())  # and yet it loses pixels


@pytest.mark.parametrize("name", SHAPES)
def test_no_pixel_changes(name: str) -> None:
    """The whole table, 19 views of 518² at two resolutions, is in benchmarks/carving.py."""
    shape, grid, parent, mesh = prepared(name, 32)
    camera = outside_views(3, 128)
    depth = depth_maps(mesh, camera)
    full = depth_maps(decoded(shape), camera)
    wrong = {"visible": 0, "not dilated": 0, "background 0": 0, "as printed": 0}
    for view in range(len(camera)):
        single, seen = camera[view], depth[view : view + 1]

        def errors(kept: Selection, single: Camera = single, view: int = view) -> int:
            return int(carving_errors(full[view : view + 1], depth_maps(decoded(shape, parent, kept), single)))

        kept = carve_by_depth(grid, seen, single)
        assert bool(kept.coverage.all())
        assert kept.share < 0.9
        wrong["visible"] += errors(kept)
        wrong["not dilated"] += errors(carve_by_depth(grid, seen, single, dilate=0, cover=False))
        wrong["background 0"] += errors(carve_by_depth(grid, torch.where(seen.isinf(), 1e-9, seen), single, dilate=0, cover=False))
        wrong["as printed"] += errors(carve_by_depth(grid, seen, single, rule="paper", dilate=0))
    assert wrong["visible"] == 0
    assert all(count > 0 for variant, count in wrong.items() if variant != "visible"), wrong


def test_union_of_views_and_batch_equal_views_alone() -> None:
    camera = outside_views(3, 48)
    depth = ball_depth(camera, torch.float32)
    one, other = random_grid([200], 12, seed=1), random_grid([150], 12, seed=2)
    batch = VoxelGrid.batched([one, other])
    both = carve_by_depth(batch, depth, camera, sample=torch.tensor([1, 0, 1]), cover=False)
    alone = carve_by_depth(one, depth[1:2], camera[1], cover=False)
    pair = carve_by_depth(other, depth[[0, 2]], camera[torch.tensor([0, 2])], cover=False)
    assert torch.equal(both.mask, torch.cat((alone.mask, pair.mask)))
    assert torch.equal(both.coverage[1:2], alone.coverage)
    single = [carve_by_depth(other, depth[i : i + 1], camera[i], cover=False).mask for i in (0, 2)]
    assert torch.equal(pair.mask, single[0] | single[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyResultWarning)
        assert carve_by_depth(batch, depth, camera, sample=torch.zeros(3, dtype=torch.int64)).counts[1] == 0


def test_margin_is_monotone_and_all_that_is_in_the_frame_at_infinity() -> None:
    grid, depth, camera = scene()
    masks = [carve_by_depth(grid, depth, camera, margin, dilate=0, cover=False).mask for margin in (0, 0.02, 0.1, 0.5, math.inf)]
    assert all(bool((small <= large).all()) for small, large in itertools.pairwise(masks))
    assert bool(masks[-1].all())
    assert masks[0].sum() < masks[1].sum() < masks[2].sum() < masks[3].sum()


def test_clip_planes_that_enclose_the_object_do_not_matter() -> None:
    grid, depth, camera = scene()
    wide = Camera(camera.world_to_camera, camera.intrinsics, camera.width, camera.height, 0.01, 100.0)
    assert torch.equal(carve_by_depth(grid, depth, wide).mask, out("carve/keep"))


def test_turning_scene_and_camera_changes_nothing() -> None:
    grid, depth, camera = scene()
    x, y, z = grid.cells.unbind(1)  # index (x, y, z) → (31 − y, x, z): a quarter turn about z
    turned, order = VoxelGrid.build(torch.stack((torch.zeros_like(x), 31 - y, x, z), 1), resolution=32)
    turn = torch.tensor([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=torch.float64)
    moved = Camera(camera.world_to_camera @ turn.T, camera.intrinsics, 128, 128, 1, 3)
    assert torch.equal(carve_by_depth(turned, depth, moved).mask, out("carve/keep")[order])


def test_other_frames_and_levels() -> None:
    """At the level of the output, and in a world that is ten times as large."""
    shape, _, _, mesh = prepared("torus", 16)
    camera = outside_views(1, 96)
    depth = depth_maps(mesh, camera)
    kept = carve_by_depth(shape.grid, depth, camera)
    part = decoded(shape, torch.arange(len(shape.grid)), kept)
    assert int(carving_errors(depth_maps(decoded(shape), camera), depth_maps(part, camera))) == 0
    assert kept.share < 0.75
    frame = shape.grid.frame
    large = VoxelGrid.from_sorted(
        shape.grid.coords,
        resolution=64,
        batch_size=1,
        frame=type(frame)((-5, -5, -5), tuple(10 * s for s in frame.voxel_size)),  # pyright: ignore
    )
    pose = camera.world_to_camera.clone()
    pose[:, :3, 3] *= 10
    far = Camera(pose, camera.intrinsics, 96, 96, 5.0, 40.0)
    assert torch.equal(carve_by_depth(large, 10 * depth, far).mask, kept.mask)


def test_a_crop_of_a_latent_has_no_tables_of_the_whole() -> None:
    grid, depth, camera = scene()
    latent = SparseTensor(grid, torch.randn(len(grid), 4, requires_grad=True))
    latent.grid.cached(("window",), lambda: "of all")
    part = carve_by_depth(grid, depth, camera).apply(latent)
    assert part.grid.cached(("window",), lambda: "of the part") == "of the part"
    part.feats.sum().backward()
    assert latent.feats.grad is not None
    assert torch.equal(latent.feats.grad[:, 0] != 0, out("carve/keep"))


@pytest.mark.parametrize("backend", ENGINES)
def test_cells_that_the_depth_does_not_meet_are_not_covered(backend: str) -> None:
    camera = outside_views(1, 32)
    grid = full_grid(4).select(torch.arange(8))
    kept = carve_by_depth(grid, ball_depth(camera, torch.float64), camera, backend=backend)
    seen = ball_depth(camera, torch.float64).isfinite()
    assert bool(kept.coverage[~seen].all())
    assert not bool(kept.coverage[seen].all())


@pytest.mark.parametrize("backend", ENGINES)
def test_nothing_kept_warns(backend: str) -> None:
    grid, depth, camera = scene()
    away = Camera.look_at(camera.positions, (0.0, 0.0, 4.0), width=128, height=128)
    with pytest.warns(EmptyResultWarning, match="nothing is kept of sample 0"):
        kept = carve_by_depth(grid, torch.full_like(depth, math.inf), away, backend=backend)
    assert kept.count == 0
    assert len(kept.apply(SparseTensor(grid, torch.zeros(len(grid), 2)))) == 0
    assert bool(kept.coverage.all())
    assert carve_by_depth(random_grid([0], 8), depth, camera, backend=backend).share == 0  # nothing to lose, nothing to say


def _broken(camera: Camera, **fields: Tensor) -> Camera:
    return dataclasses.replace(camera, **fields)


def test_bad_input_is_refused() -> None:
    grid, depth, camera = scene()
    bad = depth.clone()
    bad[0, 3, 5] = math.nan
    with pytest.raises(RangeError, match="first is view 0, row 3, column 5: nan"):
        carve_by_depth(grid, bad, camera)
    with pytest.raises(RangeError, match="say background=0"):
        carve_by_depth(grid, depth.nan_to_num(posinf=0), camera)
    assert torch.equal(carve_by_depth(grid, depth.nan_to_num(posinf=0), camera, background=0).mask, out("carve/keep"))
    with pytest.raises(ShapeError, match=r"must be \(1, 128, 128\)"):
        carve_by_depth(grid, depth[:, :64], camera)
    with pytest.raises(ShapeError, match=r"\(v, h, w\)"):
        carve_by_depth(grid, depth[0], camera)
    with pytest.raises(RangeError, match="intrinsics must be finite and invertible"):
        carve_by_depth(grid, depth, _broken(camera, intrinsics=torch.zeros(1, 3, 3)))
    with pytest.raises(RangeError, match="world_to_camera must be finite and invertible"):
        carve_by_depth(grid, depth, _broken(camera, world_to_camera=camera.world_to_camera * math.nan))
    with pytest.raises(RangeError, match="world_to_camera must be finite and invertible"):
        carve_by_depth(grid, depth, _broken(camera, world_to_camera=torch.zeros(1, 4, 4)))
    with pytest.raises(RangeError, match="margin must be at least 0"):
        carve_by_depth(grid, depth, camera, -0.1)
    with pytest.raises(RangeError, match="margin must be at least 0"):
        carve_by_depth(grid, depth, camera, math.nan)
    with pytest.raises(RangeError, match="dilate"):
        carve_by_depth(grid, depth, camera, dilate=-1)
    with pytest.raises(RangeError, match="reach"):
        carve_by_depth(grid, depth, camera, reach=9)
    with pytest.raises(RangeError, match="background must be a number"):
        carve_by_depth(grid, depth, camera, background=math.nan)
    with pytest.raises(RangeError, match="rule must be one of"):
        carve_by_depth(grid, depth, camera, rule="both")  # pyright: ignore
    with pytest.raises(RangeError, match="some of the grid's 1 samples"):
        carve_by_depth(grid, depth, camera, sample=torch.tensor([1]))
    with pytest.raises(ShapeError, match="need sample"):
        carve_by_depth(random_grid([3, 4], 8), depth, camera)
