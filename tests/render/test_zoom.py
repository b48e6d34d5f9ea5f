"""Adaptive zooming: the golden numbers, the count in its range, nothing missing in the picture, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from focusing_scene import FACTS, out, scene  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from voxgen.core import Camera, Selection, VoxelGrid
from voxgen.core.errors import DtypeError, EmptyResultWarning, RangeError, ShapeError
from voxgen.ops.carve import carve_by_depth
from voxgen.render import adaptive_zoom
from voxgen.render._crop import covered_pixels
from voxgen.testing.carving import carving_errors, decoded, depth_maps, outside_views, prepared
from voxgen.testing.grids import full_grid, random_grid

CENTRE = torch.tensor([981])


def _kept() -> tuple[VoxelGrid, Camera, Selection]:
    grid, _, camera = scene()
    return grid, camera, Selection(grid, out("carve/keep"))


def _projection(camera: Camera) -> Tensor:
    """Columns and rows of the view as the golden has them: without the pose."""
    return (camera.clip_matrices() @ torch.linalg.inv(camera.world_to_camera))[0, :2]


@pytest.mark.parametrize("metric", ["linf", "l2"])
def test_golden_crops(metric: str) -> None:
    grid, camera, kept = _kept()
    zoom = adaptive_zoom(grid, camera, 422, among=kept, centre=CENTRE, metric=metric, square=False)  # pyright: ignore
    assert torch.equal(zoom.rows, out(f"zoom/crop_{metric}").long().sort().values)
    assert not bool(zoom.coverage.all())  # the paper's crop lacks cells at its rim


def test_golden_projections() -> None:
    grid, camera, kept = _kept()
    right = adaptive_zoom(grid, camera, 422, among=kept, centre=CENTRE, square=False)
    printed = adaptive_zoom(grid, camera, 422, among=kept, centre=CENTRE, square=False, formula="printed")
    torch.testing.assert_close(right.box[0], torch.tensor(FACTS["box"], dtype=torch.float64))
    torch.testing.assert_close(_projection(right.camera), out("zoom/projection_right")[:2])
    torch.testing.assert_close(_projection(printed.camera), out("zoom/projection_printed")[:2])
    assert torch.equal(right.mask, printed.mask)
    # the printed equation shows another part of the picture than the one selected
    assert float(right.coverage.double().mean()) > 0.8
    assert float(printed.coverage.double().mean()) < 0.01


def test_box_goes_to_the_border_and_depth_stays() -> None:
    grid, camera, kept = _kept()
    zoom = adaptive_zoom(grid, camera, 300, among=kept, centre=CENTRE, scale=1.3)
    x0, x1, y0, y1 = zoom.box[0].tolist()
    assert x1 - x0 == pytest.approx(y1 - y0)
    old, new = camera.clip_matrices()[0], zoom.camera.clip_matrices()[0]
    for x, y, sign in ((x0, y0, -1.3), (x1, y1, 1.3)):
        clip = torch.tensor([x * 2, y * 2, 1.5, 2.0], dtype=torch.float64)  # z of the old view, w = depth = 2
        world = torch.linalg.solve(old, clip)
        moved = new @ (world / world[3])
        assert (moved[:2] / moved[3]).tolist() == pytest.approx([sign, sign])
        torch.testing.assert_close(moved[2:], old[2:] @ (world / world[3]))
    assert torch.equal(zoom.camera.world_to_camera, camera.world_to_camera)
    assert (zoom.camera.near, zoom.camera.far) == (camera.near, camera.far)


def test_count_lies_in_the_range_and_nothing_is_missing() -> None:
    """300 draws from all around; 1,000 are in benchmarks/carving.py. The issue asks for 99 % of them."""
    _, grid, _, mesh = prepared("bumpy sphere", 32)
    camera = outside_views(20, 64)
    kept = [carve_by_depth(grid, depth_maps(mesh, camera[i]), camera[i]) for i in range(20)]
    generator = torch.Generator().manual_seed(0)
    inside = 0
    for draw in range(100):
        low = int(torch.randint(150, 900, (), generator=generator))
        zoom = adaptive_zoom(grid, camera[draw % 20], (low, low + low // 8), among=kept[draw % 20], generator=generator)
        inside += low <= zoom.count <= low + low // 8
        assert bool(zoom.coverage.all())
        assert bool((zoom.box.abs() <= 1 + 1e-12).all())
    assert inside >= 99
    views = torch.arange(20).repeat(10)
    zoom = adaptive_zoom(grid, camera[views], (400, 440), sample=torch.zeros_like(views), reach=0.25, generator=generator)
    assert int(((zoom.seen >= 400) & (zoom.seen <= 440)).sum()) >= 198
    assert bool(zoom.coverage.all())


def test_zoomed_render_equals_that_of_the_whole() -> None:
    shape, grid, parent, mesh = prepared("bumpy sphere", 32)
    generator = torch.Generator().manual_seed(0)
    wrong_if_printed = 0
    for view in range(3):
        camera = outside_views(3, 128)[view]
        kept = carve_by_depth(grid, depth_maps(mesh, camera), camera)
        zoom = adaptive_zoom(grid, camera, (150, 300), among=kept, generator=generator)
        assert 150 <= zoom.count <= 300
        part = depth_maps(decoded(shape, parent, zoom), zoom.camera)
        carved = depth_maps(decoded(shape, parent, kept), zoom.camera)
        assert int(carving_errors(carved, part)) == 0
        # against the whole, a handful of pixels may see through gaps that only the finer sampling of the zoomed view finds
        assert int(carving_errors(depth_maps(decoded(shape), zoom.camera), part)) <= 2
        printed = adaptive_zoom(grid, camera, zoom.count, among=kept, centre=zoom.centre, formula="printed")
        whole, part = depth_maps(decoded(shape), printed.camera), depth_maps(decoded(shape, parent, printed), printed.camera)
        assert int((~printed.coverage).sum()) >= int(carving_errors(whole, part))
        wrong_if_printed += int(carving_errors(whole, part))
    assert wrong_if_printed > 1000


def test_coverage_marks_every_pixel_that_lacks_cells() -> None:
    """The disc's corners and the rim of the paper's crop: each pixel that differs is marked."""
    shape, grid, parent, mesh = prepared("bumpy sphere", 32)
    camera = outside_views(1, 128)
    kept = carve_by_depth(grid, depth_maps(mesh, camera), camera)
    generator = torch.Generator().manual_seed(1)
    zoom = adaptive_zoom(grid, camera, 200, among=kept, metric="l2", square=False, scale=1.0, generator=generator)
    assert zoom.count == 200
    carved = depth_maps(decoded(shape, parent, kept), zoom.camera)
    part = depth_maps(decoded(shape, parent, zoom), zoom.camera)
    differs = (carved.isfinite() != part.isfinite()) | (torch.where(carved.isfinite() & part.isfinite(), carved - part, 0).abs() > 1e-6)
    assert int(differs.sum()) > 500
    assert not bool((differs & zoom.coverage).any())
    assert 0.2 < float(zoom.coverage.double().mean()) < 0.95


def test_boxes_cover_the_pixels_whose_centres_they_hold() -> None:
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(12, 2, generator=generator, dtype=torch.float64) * 4 - 2
    high = low + torch.rand(12, 2, generator=generator, dtype=torch.float64) * 0.4
    low[0], high[0] = -torch.inf, torch.tensor([-0.9, torch.inf])
    rows, columns = torch.meshgrid(torch.arange(9) + 0.5, torch.arange(14) + 0.5, indexing="ij")
    place = torch.stack((columns / 14, rows / 9), -1).double() * 2 - 1
    held = ((place[:, :, None] >= low) & (place[:, :, None] <= high)).all(-1).any(-1)
    assert torch.equal(covered_pixels(low, high, 14, 9), ~held)
    assert bool(covered_pixels(low[:0], high[:0], 14, 9).all())


def test_views_of_samples_and_ranges() -> None:
    camera = outside_views(3, 32)
    grid = random_grid([400, 0, 300], 12, seed=3)
    zoom = adaptive_zoom(grid, camera, 20, sample=torch.tensor([2, 0, 2]), generator=torch.Generator().manual_seed(5))
    assert zoom.counts[1] == 0
    assert zoom.centre[1] < 400 <= zoom.centre[0]
    again = adaptive_zoom(grid, camera, 20, sample=torch.tensor([2, 0, 2]), generator=torch.Generator().manual_seed(5))
    assert torch.equal(zoom.mask, again.mask)
    given = adaptive_zoom(grid, camera, 20, sample=torch.tensor([2, 0, 2]), centre=zoom.centre)
    assert torch.equal(zoom.mask, given.mask)
    alone = adaptive_zoom(grid.sample(0), camera[1], 20, centre=zoom.centre[1:2])
    assert torch.equal(zoom.mask[:400], alone.mask)
    assert bool(zoom.mask[zoom.centre].all())


def test_wide_pictures_are_not_stretched() -> None:
    grid, _, camera = scene()
    wide = Camera.look_at(camera.positions, fov=40, width=192, height=96, near=1, far=3)
    zoom = adaptive_zoom(grid, wide, 200, generator=torch.Generator().manual_seed(0))
    k = zoom.camera.intrinsics[0]
    assert float(k[0, 0]) == pytest.approx(float(k[1, 1]))
    paper = adaptive_zoom(grid, wide, 200, square=False, centre=zoom.centre)
    assert float(paper.camera.intrinsics[0, 0, 0]) != pytest.approx(float(paper.camera.intrinsics[0, 1, 1]))


def test_orthographic_and_inside() -> None:
    grid, _, camera = scene()
    flat = Camera.look_at(camera.positions, width=64, height=64, near=1, far=3, orthographic_height=1.0)
    zoom = adaptive_zoom(grid, flat, (100, 140), generator=torch.Generator().manual_seed(2))
    assert 100 <= zoom.count <= 140
    assert bool(zoom.coverage.all())
    assert zoom.camera.orthographic
    inside = Camera.look_at(torch.zeros(1, 3), (0.3, 0.1, 0.2), width=64, height=64, near=0.05, far=3)
    zoom = adaptive_zoom(grid, inside, (90, 120), generator=torch.Generator().manual_seed(2))
    assert 90 <= zoom.count <= 120
    assert bool(zoom.coverage.all())


def test_counts_beyond_the_grid_and_tiny_counts() -> None:
    grid, camera, kept = _kept()
    everything = adaptive_zoom(grid, camera, 10**6, among=kept)
    assert everything.count == kept.count
    assert bool(everything.coverage.all())
    one = adaptive_zoom(grid, camera, 1, among=kept, centre=CENTRE)
    width = float(one.box[0, 1] - one.box[0, 0])
    assert width > 0.05  # two cells of 1/32 in a picture that shows 1.46 at the object: no view of a point
    assert bool(one.mask[981])
    assert bool(torch.isfinite(one.camera.intrinsics).all())
    single = adaptive_zoom(full_grid(1), camera, 5)
    assert single.count == 1


def test_view_without_cells_warns_and_stays() -> None:
    grid, _, camera = scene()
    away = Camera.look_at(camera.positions, (0.0, 0.0, 4.0), width=32, height=32)
    with pytest.warns(EmptyResultWarning, match="view 0 shows the centre of no cell"):
        zoom = adaptive_zoom(grid, away, 10)
    assert zoom.count == 0
    assert zoom.centre.tolist() == [-1]
    assert torch.equal(zoom.camera.intrinsics, away.intrinsics)
    with pytest.warns(EmptyResultWarning):
        assert adaptive_zoom(random_grid([0], 8), camera, 10).count == 0
    assert adaptive_zoom(grid, camera[0:0], 10).coverage.shape == (0, 128, 128)


def test_bad_input_is_refused() -> None:
    grid, camera, kept = _kept()
    with pytest.raises(RangeError, match=r"count must be at least 1|count\[0\] must be at least 1"):
        adaptive_zoom(grid, camera, 0)
    with pytest.raises(RangeError, match=r"count\[1\] must be at least 20"):
        adaptive_zoom(grid, camera, (20, 10))
    with pytest.raises(DtypeError, match="lowest, highest"):
        adaptive_zoom(grid, camera, (1, 2, 3))  # pyright: ignore
    with pytest.raises(RangeError, match="square=False"):
        adaptive_zoom(grid, camera, 10, metric="l2")
    with pytest.raises(RangeError, match="scale must be positive"):
        adaptive_zoom(grid, camera, 10, scale=0)
    with pytest.raises(RangeError, match="reach"):
        adaptive_zoom(grid, camera, 10, reach=-1)
    with pytest.raises(RangeError, match="formula"):
        adaptive_zoom(grid, camera, 10, formula="other")  # pyright: ignore
    with pytest.raises(RangeError, match=r"centre\[0\] must be a row among the cells"):
        adaptive_zoom(grid, camera, 10, centre=torch.tensor([len(grid)]))
    hidden = (~kept.mask).nonzero()[0]
    with pytest.raises(RangeError, match=r"centre\[0\]"):
        adaptive_zoom(grid, camera, 10, among=kept, centre=hidden)
    with pytest.raises(ShapeError, match="centre"):
        adaptive_zoom(grid, camera, 10, centre=torch.tensor([1, 2]))
    with pytest.raises(RangeError, match="same cells"):
        adaptive_zoom(full_grid(3), camera, 10, among=kept)
    broken = Camera(camera.world_to_camera, camera.intrinsics * torch.nan, 128, 128)
    with pytest.raises(RangeError, match="intrinsics must be finite"):
        adaptive_zoom(grid, broken, 10)
