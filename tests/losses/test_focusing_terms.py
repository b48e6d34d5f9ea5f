"""Terms of Focusing and SparseFlex: golden numbers, exact fields cost nothing, gradients, what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from focusing_scene import FACTS, scene  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from golden.reader import Golden  # pyright: ignore[reportMissingImports]
from voxgen.core import Camera, TriMesh, VoxelGrid
from voxgen.core.errors import DtypeError, MeshError, RangeError, ShapeError
from voxgen.losses import (
    flex_consistency,
    flex_deviation,
    flex_weights,
    geometric_tsdf,
    occupancy_bce,
    projective_tsdf,
    sdf_mse,
    sparse_total_variation,
    subdivision_bce,
    tsdf_l1,
)
from voxgen.ops.cube_corners import average_at_corners, corner_neighbors, cube_corners
from voxgen.ops.flexicubes import flexicubes
from voxgen.ops.mesh_distance import OrientedMesh, mesh_distance, oriented_distance
from voxgen.testing import shapes
from voxgen.testing.cases.carve import ball_depth
from voxgen.testing.grids import full_grid, random_grid

GOLDEN = Golden.read("focusing_trellis_losses")


def _ball_shell(resolution: int = 32, radius: float = 0.3) -> VoxelGrid:
    """Known numbers: voxels whose centre is less than 1.5 voxels from the sphere."""
    grid = full_grid(resolution)
    return grid.select((grid.frame.centers(grid.cells, torch.float64).norm(dim=1) - radius).abs() < 1.5 / resolution)


def _distance(grid: VoxelGrid, radius: float) -> Tensor:
    return grid.frame.to_world(cube_corners(grid).coords[:, 1:].double()).norm(dim=1) - radius


# total variation


def test_total_variation_of_the_spec_sheet() -> None:
    grid = _ball_shell()
    neighbors, sdf = corner_neighbors(cube_corners(grid)), _distance(grid, 0.3)
    assert (len(grid), len(sdf), int((neighbors < 0).sum())) == (3560, 5380, 1842)
    tiny = 1e-24  # the known numbers have no eps
    assert float(sparse_total_variation(sdf, neighbors, reduction="sum", eps=tiny)) == pytest.approx(146.43716, abs=5e-6)
    assert float(sparse_total_variation(sdf, neighbors, voxel_size=1 / 32, eps=tiny)) == pytest.approx(0.871002, abs=5e-7)


def test_total_variation_golden() -> None:
    expected = FACTS["total_variation"]
    grid, _, _ = scene()
    neighbors, sdf = corner_neighbors(cube_corners(grid)), _distance(grid, 0.4)
    assert (len(sdf), int((neighbors < 0).sum())) == (expected["corners"], expected["missing"])
    assert float(sparse_total_variation(sdf, neighbors, reduction="sum", eps=1e-24)) == pytest.approx(expected["sum"], rel=1e-9)
    scaled = sparse_total_variation(sdf, neighbors, voxel_size=1 / 32)
    # the default eps takes at most 1e-4 a corner
    assert expected["mean_times_resolution"] - 1e-4 < float(scaled) < expected["mean_times_resolution"]


def test_total_variation_of_a_constant_is_zero_with_a_finite_gradient() -> None:
    neighbors = corner_neighbors(cube_corners(random_grid([40, 0, 7], 6)))
    values = torch.full((len(neighbors), 2), 0.7, requires_grad=True)
    loss = sparse_total_variation(values, neighbors)
    loss.backward()
    assert float(loss.detach()) == 0
    assert values.grad is not None
    assert torch.equal(values.grad, torch.zeros_like(values))
    empty = torch.zeros(0, requires_grad=True)
    sparse_total_variation(empty, neighbors[:0]).backward()
    assert empty.grad is not None


def test_total_variation_channels_and_gradient() -> None:
    neighbors = corner_neighbors(cube_corners(random_grid([12], 4)))
    values = torch.randn(len(neighbors), 3, dtype=torch.float64, requires_grad=True)
    together = sparse_total_variation(values, neighbors)
    torch.testing.assert_close(together, sum(sparse_total_variation(values[:, i], neighbors) for i in range(3)))
    assert torch.autograd.gradcheck(lambda v: sparse_total_variation(v, neighbors, voxel_size=0.3), values)
    half = sparse_total_variation(values.half(), neighbors)
    assert half.dtype == torch.float32


# regularisers


def test_consistency_is_the_mean_square_over_all_entries() -> None:
    grid = random_grid([30, 0, 9], 5)
    corners = cube_corners(grid)
    at_cells = torch.randn(len(grid), 8, 4, dtype=torch.float64, requires_grad=True)
    means = average_at_corners(at_cells, corners)
    expected = ((at_cells - means[corners.index.long()]) ** 2).mean()
    torch.testing.assert_close(flex_consistency(at_cells, corners), expected)
    torch.testing.assert_close(flex_consistency(at_cells, corners, means), expected)
    agreeing = torch.randn(len(corners), 4)[corners.index.long()]
    assert float(flex_consistency(agreeing, corners)) < 1e-13
    nobody = cube_corners(full_grid(2).select(torch.zeros(8, dtype=torch.bool)))
    assert float(flex_consistency(torch.zeros(0, 8, 4), nobody)) == 0


def test_deviation_of_the_spec_sheet() -> None:
    """§7.1: the exact sphere at 32³."""
    grid = _ball_shell()
    sdf = _distance(grid, 0.3).requires_grad_()
    loss = flex_deviation(flexicubes(grid, sdf))
    assert float(loss.detach()) == pytest.approx(1.679e-3, abs=5e-7)
    loss.backward()
    assert sdf.grad is not None
    assert bool(sdf.grad.isfinite().all())


@pytest.mark.filterwarnings("ignore::voxgen.core.errors.EmptyResultWarning")
def test_deviation_without_surface_is_zero_with_a_finite_gradient() -> None:
    grid = full_grid(3)
    sdf = torch.full((64,), -1 / 3, requires_grad=True)  # what a decoder gives that starts at zero
    loss = flex_deviation(flexicubes(grid, sdf))
    loss.backward()
    assert float(loss.detach()) == 0
    assert sdf.grad is not None
    assert torch.equal(sdf.grad, torch.zeros(64))


def test_weights_and_occupancy() -> None:
    assert float(flex_weights(torch.tensor([[1.0, -3.0]]))) == 2
    assert float(flex_weights(torch.zeros(0, 20))) == 0
    logits, targets = [torch.randn(5, 8), torch.randn(9, 8)], [torch.rand(5, 8) < 0.5, torch.rand(9, 8) < 0.5]
    torch.testing.assert_close(occupancy_bce(logits, targets), subdivision_bce(logits, targets).sum())


# TSDF


def _trellis_camera() -> tuple[Camera, Tensor]:
    a = GOLDEN.arrays
    intrinsics = a["in/intrinsics"][None].clone()
    intrinsics[:, :2] *= 48
    return Camera(a["in/extrinsics"][None], intrinsics, 48, 48, 1.0, 3.0), a["in/depth"][None]


def test_projective_tsdf_golden_with_gradient() -> None:
    camera, depth = _trellis_camera()
    facts, corners = GOLDEN.about["facts"], GOLDEN.arrays["in/corners"]
    values = (corners.norm(dim=1) - 0.3 + GOLDEN.normal("value", 0.02)).requires_grad_()
    target = projective_tsdf(corners, depth, camera, facts["truncation"], compat="trellis")
    assert int(target.known.sum()) == facts["used_corners"]
    loss = sdf_mse(values[:, None], target.value[0, :, None], target.known[0])
    assert float(loss.detach()) == pytest.approx(facts["projective_tsdf"], rel=GOLDEN.tolerance)
    (gradient,) = torch.autograd.grad(loss, values)
    expected = GOLDEN.arrays["out/dvalue"]
    assert float((gradient - expected).abs().max()) < GOLDEN.tolerance * float(expected.abs().max())


def test_projective_tsdf_is_the_distance_along_the_axis() -> None:
    _, depth, camera = scene()
    points = torch.tensor([[0.0, 0, 0.45], [0, 0, 0.38], [0, 0, 0.2], [0, 0, 0.9], [0.49, 0.49, 0], [0, 0, 2.5], [5.0, 0, 0]])
    target = projective_tsdf(points, depth, camera, 0.1)
    assert target.known[0].tolist() == [True, True, False, True, False, False, False]
    # the middle of the picture is a pixel's corner: its depth is that of a point 0.006 beside the axis, 0.00004 deeper
    assert target.value[0, :2].tolist() == pytest.approx([0.05, -0.02], abs=2e-4)
    assert float(target.value[0, 3]) == pytest.approx(0.1)
    zero = torch.where(depth.isinf(), 0, depth)
    again = projective_tsdf(points, zero, camera, 0.1, background=0)
    assert torch.equal(again.known, target.known)
    flat = Camera.look_at(camera.positions, width=8, height=8, near=1, far=3, orthographic_height=1.0)
    plane = projective_tsdf(points[:2], torch.full((1, 8, 8), 1.6), flat, 0.1)
    assert plane.value[0].tolist() == pytest.approx([0.05, -0.02], abs=1e-6)
    assert projective_tsdf(points[:0], depth, camera, 0.1).value.shape == (1, 0)


def test_geometric_tsdf_of_closed_shapes_is_the_signed_distance() -> None:
    points = torch.rand(4000, 3, dtype=torch.float64) - 0.5
    for mesh in (shapes.torus(), shapes.rotated(shapes.box()), shapes.split_apart(shapes.sphere())):
        exact = mesh_distance(points, mesh.vertices.double(), mesh.faces, signed=True).distance
        torch.testing.assert_close(geometric_tsdf(points, mesh, 0.1), exact.clamp(-0.1, 0.1))
        torch.testing.assert_close(oriented_distance(points, OrientedMesh.of(mesh)), exact)


def test_geometric_tsdf_has_a_side_at_sharp_edges() -> None:
    """A thin wedge: the nearest face alone would call half of the points before its edge inside."""
    wedge = TriMesh(
        torch.tensor([[0.0, 0, 0], [0, 0, 1], [-1, 0.1, 0], [-1, 0.1, 1], [-1, -0.1, 0], [-1, -0.1, 1]]),
        torch.tensor([[0, 2, 3], [0, 3, 1], [0, 5, 4], [0, 1, 5]]),
    )
    fan = torch.stack((torch.linspace(-1.4, 1.4, 15).cos(), torch.linspace(-1.4, 1.4, 15).sin(), torch.zeros(15)), 1)
    points = fan * 0.2 + torch.tensor([0.0, 0.0, 0.5])
    assert bool((oriented_distance(points, wedge) > 0).all())
    assert torch.allclose(oriented_distance(points, wedge), torch.tensor(0.2))


def test_geometric_tsdf_of_an_open_sheet() -> None:
    sheet = shapes.wavy_sheet()
    height = sheet.vertices.reshape(25, 25, 3)[4:-4, 4:-4].reshape(-1, 3)
    above, below = (geometric_tsdf(height + torch.tensor([0, 0, s]), sheet, 0.05) for s in (0.02, -0.02))
    assert bool((above > 0).all())
    assert bool((below < 0).all())
    torch.testing.assert_close(above.abs().mean(), below.abs().mean(), rtol=0.02, atol=0)
    assert bool((geometric_tsdf(height + torch.tensor([0, 0, 0.3]), sheet, 0.05) == 0.05).all())


def test_exact_field_costs_nothing_and_training_on_tsdf_alone_makes_the_sphere() -> None:
    """§7.6: from the state of a zero-initialised decoder (no sign change, no face) to the counts of §7.1 at 16³."""
    grid = full_grid(16)
    exact = _distance(grid, 0.3)
    target = exact.clamp(-3 / 16, 3 / 16)
    assert float(tsdf_l1(exact, exact)) == 0
    sdf = torch.full_like(exact, -1 / 16, requires_grad=True)
    optimizer = torch.optim.Adam([sdf], lr=0.01)
    for step in range(80):
        optimizer.param_groups[0]["lr"] = 0.04 * 0.9**step
        optimizer.zero_grad()
        tsdf_l1(sdf, target, voxel_size=1 / 16, reduction="sum").backward()
        optimizer.step()
    assert float(tsdf_l1(sdf.detach(), target, voxel_size=1 / 16)) < 0.02
    surface = flexicubes(grid, sdf.detach())
    assert (len(surface.vertices), len(surface.faces)) == (416, 828)


def test_tsdf_l1_units_and_mask() -> None:
    sdf, target = torch.tensor([0.1, 0.2, math.nan]), torch.tensor([0.0, 0.5, 0.0])
    among = torch.tensor([True, True, False])
    assert float(tsdf_l1(sdf, target, among)) == pytest.approx(0.2)
    assert float(tsdf_l1(sdf, target, among, voxel_size=0.1)) == pytest.approx(2)
    assert float(tsdf_l1(sdf, target, among, reduction="sum")) == pytest.approx(0.4)
    assert float(tsdf_l1(sdf, target, torch.zeros(3, dtype=torch.bool))) == 0


def test_bad_input_is_refused() -> None:
    grid, depth, camera = scene()
    points, sheet = torch.zeros(3, 3), shapes.wavy_sheet()
    neighbors = corner_neighbors(cube_corners(grid))
    with pytest.raises(ShapeError, match="one row for each of the 5 values"):
        sparse_total_variation(torch.zeros(5, 1), neighbors)
    with pytest.raises(DtypeError, match="neighbors must be"):
        sparse_total_variation(torch.zeros(len(neighbors)), neighbors.float())
    with pytest.raises(RangeError, match="eps and voxel_size"):
        sparse_total_variation(torch.zeros(len(neighbors)), neighbors, eps=0)
    with pytest.raises(RangeError, match="reduction"):
        sparse_total_variation(torch.zeros(len(neighbors)), neighbors, reduction="none")  # pyright: ignore
    for truncation in (0, -1, math.nan, math.inf):
        with pytest.raises(RangeError, match="truncation must be positive"):
            geometric_tsdf(points, sheet, truncation)
    with pytest.raises(MeshError, match="at least one face"):
        geometric_tsdf(points, sheet.replace(faces=sheet.faces[:0]), 0.1)
    line = TriMesh(torch.rand(3, 3), torch.tensor([[0, 1, 1]]))
    with pytest.raises(MeshError, match="face with an area"):
        oriented_distance(points, line)
    with pytest.raises(RangeError, match="finite"):
        oriented_distance(points * math.nan, sheet)
    with pytest.raises(ShapeError, match="depth must be"):
        projective_tsdf(points, depth[:, :64], camera, 0.1)
    with pytest.raises(RangeError, match="must not be NaN"):
        projective_tsdf(points, depth * math.nan, camera, 0.1)
    with pytest.raises(RangeError, match="compat"):
        projective_tsdf(points, depth, camera, 0.1, compat="triposf")  # pyright: ignore
    with pytest.raises(RangeError, match="voxel_size must be positive"):
        tsdf_l1(points, points, voxel_size=0)
    with pytest.raises(ShapeError, match="must be"):
        tsdf_l1(points, points[:2])
    with pytest.raises(ShapeError, match=r"\(n, 8, c\)"):
        flex_consistency(torch.zeros(4, 32), cube_corners(grid))
    assert ball_depth(camera, torch.float32).shape == depth.shape
