"""Features of views at points: the original's numbers, visibility, weights, gradients, bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from golden import recipe  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from voxgen.core import Camera
from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.ops.project_features import project_features
from voxgen.ops.project_features._taps import in_picture
from voxgen.ops.surface_cells import surface_grid
from voxgen.render import render_mesh
from voxgen.testing import shapes

GOLDEN = Path(__file__).parents[1] / "golden"


def ring(count: int, distance: float = 2.0, **options: Any) -> Camera:
    angle = torch.arange(count) * (2 * torch.pi / count)
    eyes = torch.stack((angle.cos(), 0.3 * torch.ones_like(angle), angle.sin()), 1) * distance
    return Camera.look_at(eyes, fov=40.0, **{"width": 64, "height": 64, **options})


def test_mean_is_the_originals() -> None:
    """Blender cameras: x right, y up, z backward, so columns 1 and 2 of their pose change sign."""
    about = json.loads((GOLDEN / "trellis_dino_projection.json").read_text())
    arrays = np.load(GOLDEN / "trellis_dino_projection.npz")
    pose = torch.from_numpy(arrays["camera_to_world"]).double()
    pose[:, :3, 1:3] *= -1
    texels = 7
    focal = texels * 0.5 / torch.tan(torch.from_numpy(arrays["fov"]) / 2)
    k = torch.zeros(len(pose), 3, 3, dtype=torch.float64)
    k[:, 0, 0] = k[:, 1, 1] = focal
    k[:, :2, 2], k[:, 2, 2] = texels / 2, 1
    cameras = Camera(torch.linalg.inv(pose), k, texels, texels)
    points = (torch.from_numpy(arrays["coords"]).double() + 0.5) / about["resolution"] - 0.5
    maps = torch.from_numpy(recipe.normal("maps", (4, 8, texels, texels), about["seed"])).double()
    uv = in_picture(cameras.to_camera(points), cameras)
    assert (uv - torch.from_numpy(arrays["uv"])).abs().max() < 1e-5
    share = ((uv < 0) | (uv > 1)).any(-1).double().mean(1)
    assert share.tolist() == pytest.approx(about["outside_share"], abs=1e-6)
    found = project_features(points, maps, cameras)
    assert (found.feats - torch.from_numpy(arrays["mean"])).abs().max() < 1e-5
    for view in range(4):
        one = project_features(points, maps[view : view + 1], cameras[view]).feats
        assert (one - torch.from_numpy(arrays["per_view"][view])).abs().max() < 1e-5


def test_places_are_those_of_grid_sample() -> None:
    cameras, points = ring(3), 1.2 * (torch.rand(200, 3) - 0.5)
    maps = torch.randn(3, 5, 6, 9)
    uv = in_picture(cameras.to_camera(points), cameras)
    expected = F.grid_sample(maps, uv[:, None] * 2 - 1, align_corners=False)[:, :, 0].mean(0).T
    assert torch.allclose(project_features(points, maps, cameras).feats, expected, atol=1e-5)


def test_points_behind_a_camera_are_not_seen() -> None:
    camera = Camera.look_at(torch.tensor([[0.0, 0.0, 2.0]]), width=8, height=8)
    points = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 4.0], [0.0, 0.0, 2.0]])
    found = project_features(points, torch.ones(1, 2, 4, 4), camera)
    assert found.views.tolist() == [1, 0, 0]
    assert found.feats[1:].abs().max() == 0


def test_average_over_the_views_that_see() -> None:
    """Maps of ones: the mean over all views is the share of the views that see a point, over those that see 1."""
    cameras = ring(4, 0.6)
    points = torch.rand(60, 3) - 0.5
    ones = torch.ones(4, 1, 16, 16)
    everywhere, seen = project_features(points, ones, cameras), project_features(points, ones, cameras, average="seen")
    assert torch.allclose(everywhere.feats[:, 0], everywhere.weight / 4, atol=1e-6)
    assert 0 < int((seen.views == 0).sum()) < 60
    assert torch.allclose(seen.feats[:, 0], (seen.views > 0).float(), atol=1e-5)


def views_of_a_ball(resolution: int = 32) -> tuple[Tensor, Tensor, Camera, Tensor]:
    """Cell centres of a ball, their outward normals, cameras, and depth maps."""
    mesh = shapes.sphere(0.4, 4)
    grid = surface_grid(mesh, resolution)
    points = grid.frame.centers(grid.cells)
    cameras = ring(6, 2.0, width=128, height=128)
    depth = render_mesh(mesh, cameras).depth
    return points, F.normalize(points, dim=1), cameras, depth


def test_a_depth_test_hides_the_far_side() -> None:
    points, normals, cameras, depth = views_of_a_ball()
    ones = torch.ones(6, 1, 8, 8)
    without = project_features(points, ones, cameras)
    assert int(without.views.min()) == 6
    found = project_features(points, ones, cameras, depth=depth, depth_tolerance=3**0.5 / 32)
    to_camera = F.normalize(cameras.positions[:, None] - points, dim=-1)
    cosine = (to_camera * normals).sum(-1)
    # Centres lie up to 0.03 inside the ball, which at a cosine of c is 0.03 / c behind the surface: seen for sure above 0.6, hidden for
    # sure on the far side, and in between the tolerance decides.
    assert bool((found.views >= (cosine > 0.6).sum(0)).all())
    assert bool((found.views <= (cosine > -0.5).sum(0)).all())
    assert 1.5 < float(found.views.float().mean()) < 4.5


def test_texture_of_the_front_does_not_reach_the_back() -> None:
    """Two views, one red, one blue, of a ball from opposite sides: with tests each half has its own colour."""
    points, normals, _, _ = views_of_a_ball()
    cameras = Camera.look_at(torch.tensor([[0.0, 0.0, 2.0], [0.0, 0.0, -2.0]]), fov=40.0, width=128, height=128)
    maps = torch.tensor([[1.0, 0.0], [0.0, 1.0]])[:, :, None, None].expand(2, 2, 16, 16)
    depth = render_mesh(shapes.sphere(0.4, 4), cameras).depth
    mixed = project_features(points, maps, cameras).feats
    assert (mixed - 0.5).abs().max() < 1e-4
    clean = project_features(points, maps, cameras, average="seen", depth=depth, depth_tolerance=0.1, normals=normals).feats
    front, back = points[:, 2] > 0.2, points[:, 2] < -0.2
    assert torch.allclose(clean[front], torch.tensor([1.0, 0.0]).expand(int(front.sum()), 2), atol=1e-5)
    assert torch.allclose(clean[back], torch.tensor([0.0, 1.0]).expand(int(back.sum()), 2), atol=1e-5)


def test_weights_are_cosines() -> None:
    camera = Camera.look_at(torch.tensor([[0.0, 0.0, 2.0]]), width=8, height=8)
    normals = torch.tensor([[0.0, 0.0, 1.0], [0.6, 0.0, 0.8], [0.0, 0.0, -1.0]])
    found = project_features(torch.zeros(3, 3), torch.ones(1, 1, 4, 4), camera, normals=normals)
    assert found.weight.tolist() == pytest.approx([1.0, 0.8, 0.0], abs=1e-6)


def test_views_go_in_pieces_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    cameras, points, maps = ring(7), torch.rand(50, 3) - 0.5, torch.randn(7, 4, 5, 5)
    whole = project_features(points, maps, cameras)
    monkeypatch.setattr("voxgen.ops.project_features.TAPS_AT_ONCE", 110)
    pieces = project_features(points, maps, cameras)
    assert torch.allclose(whole.feats, pieces.feats, atol=1e-6)
    assert torch.equal(whole.views, pieces.views)


def test_gradients_are_those_of_finite_differences() -> None:
    cameras = ring(2)
    points = (0.6 * (torch.rand(6, 3, dtype=torch.float64) - 0.5)).requires_grad_()
    maps = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p, m: project_features(p, m, cameras, average="seen").feats, (points, maps), atol=1e-6)


def test_half_features_and_extreme_points() -> None:
    cameras = ring(2)
    points = torch.tensor([[0.0, 0.0, 0.0], [1e30, 0.0, 0.0], [0.1, -1e20, 3.0]])
    found = project_features(points, torch.ones(2, 3, 4, 4, dtype=torch.float16), cameras)
    assert found.feats.dtype == torch.float16
    assert bool(found.feats.isfinite().all())
    assert found.views[0] == 2


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"points": torch.zeros(3, 2)}, ShapeError, "points"),
    ({"features": torch.zeros(3, 2, 4, 4)}, ShapeError, "one map for each"),
    ({"features": torch.zeros(2, 2, 4, 4, dtype=torch.int64)}, DtypeError, "features"),
    ({"depth": torch.zeros(3, 4, 4)}, ShapeError, "depth map for each"),
    ({"normals": torch.zeros(4, 3)}, ShapeError, "normals"),
    ({"average": "some"}, RangeError, "average"),
    ({"depth_tolerance": -1.0}, RangeError, "depth_tolerance"),
    ({"depth_tolerance": float("nan")}, RangeError, "depth_tolerance"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD)
def test_bad_input(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"points": torch.zeros(3, 3), "features": torch.zeros(2, 2, 4, 4), "cameras": ring(2)}
    with pytest.raises(error, match=f"(?i){message}"):
        project_features(**{**arguments, **change})
