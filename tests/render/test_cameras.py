"""Cameras around a box: where they stand, what they see."""

from __future__ import annotations

import math

import pytest
import torch

from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.render import camera_for_bounds, orbit_cameras

LOW, HIGH = (-0.2, 0.1, -1.0), (0.6, 0.4, 0.5)


def project(camera, points):
    """Clip coordinates after division, (v, p, 3)."""
    clip = torch.cat((points, torch.ones(len(points), 1)), 1) @ camera.clip_matrices().transpose(1, 2)
    return clip[..., :3] / clip[..., 3:]


@pytest.mark.parametrize("orthographic", [False, True])
@pytest.mark.parametrize(("width", "height"), [(100, 100), (200, 80), (80, 200)])
def test_box_fills_the_image_up_to_the_margin(orthographic: bool, width: int, height: int) -> None:
    camera = orbit_cameras(
        5, low=LOW, high=HIGH, elevation=[-90.0, -30, 0, 40, 90], margin=1.25, width=width, height=height, orthographic=orthographic
    )
    corners = torch.cartesian_prod(*torch.tensor([LOW, HIGH]).T)
    seen = project(camera, corners)
    assert float(seen[..., :2].abs().max()) == pytest.approx(1 / 1.25, abs=1e-4)
    assert float(seen[..., 2].abs().max()) < 1
    centre = (torch.tensor(LOW) + torch.tensor(HIGH)) / 2
    distances = (camera.positions - centre).norm(dim=1)
    assert torch.allclose(distances, distances[0].expand(5), rtol=1e-5)


def test_points_fit_more_tightly_than_their_box() -> None:
    angle = torch.linspace(0, 2 * math.pi, 50)
    ring = torch.stack((angle.cos(), torch.zeros(50), angle.sin()), 1)
    box = camera_for_bounds((-1, 0, -1), (1, 0, 1), azimuth=45.0)
    tight = orbit_cameras(1, points=ring, azimuth=45.0)
    assert float(tight.positions.norm()) < 0.9 * float(box.positions.norm())
    assert float(project(tight, ring)[..., :2].abs().max()) == pytest.approx(1 / 1.05, abs=1e-4)


@pytest.mark.parametrize(
    ("up", "azimuth", "elevation", "direction"),
    [
        ("y", 0, 0, (0, 0, 1)),
        ("y", 90, 0, (1, 0, 0)),
        ("y", 0, 90, (0, 1, 0)),
        ("y", 180, -90, (0, -1, 0)),
        ("z", 0, 0, (0, -1, 0)),
        ("z", 90, 0, (1, 0, 0)),
        ("z", 0, 90, (0, 0, 1)),
    ],
)
def test_azimuth_elevation_and_up(up, azimuth: float, elevation: float, direction: tuple[float, float, float]) -> None:
    camera = orbit_cameras(1, azimuth=azimuth, elevation=elevation, up=up, distance=3.0)
    assert torch.allclose(camera.positions[0], 3 * torch.tensor(direction, dtype=torch.float32), atol=1e-5)
    assert torch.allclose(camera.forward[0], -torch.tensor(direction, dtype=torch.float32), atol=1e-6)
    above = torch.tensor([[0.0, 0.3, 0.0] if up == "y" else [0.0, 0.0, 0.3]])
    if elevation == 0:
        x, y, _ = project(camera, above)[0, 0].tolist()
        assert y < -0.1
        assert x == pytest.approx(0, abs=1e-5)


def test_views_follow_in_equal_steps_and_bounds_agree_with_orbit() -> None:
    four = orbit_cameras(4, azimuth=10.0, distance=2.0, elevation=0.0)
    ring = four.positions[:, [0, 2]]
    assert torch.allclose((ring * ring.roll(1, 0)).sum(1), torch.zeros(4), atol=1e-4)
    one = camera_for_bounds(LOW, HIGH, azimuth=10.0, fov=50.0)
    assert torch.equal(one.world_to_camera, orbit_cameras(1, low=LOW, high=HIGH, azimuth=10.0, fov=50.0).world_to_camera)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"n": 0}, RangeError, "n must be at least 1"),
        ({"n": 2.5}, DtypeError, "whole number"),
        ({"elevation": 91.0}, RangeError, r"elevation must lie in \[-90, 90\]"),
        ({"elevation": math.nan}, RangeError, "elevation must be finite"),
        ({"azimuth": [1.0, 2.0]}, ShapeError, r"azimuth must be \(1,\)"),
        ({"fov": 180.0}, RangeError, "fov"),
        ({"margin": 0.0}, RangeError, "margin must be positive"),
        ({"distance": -1.0}, RangeError, "distance must be positive"),
        ({"up": "x"}, RangeError, "up must be one of"),
        ({"low": (0, 0, 0), "high": (0, 0, 0)}, RangeError, "not the same point"),
        ({"low": (1, 0, 0), "high": (0, 1, 1)}, RangeError, "low must be below high"),
        ({"low": (math.nan, 0, 0)}, RangeError, "finite"),
        ({"low": (0, 0)}, ShapeError, r"low must be \(3,\)"),
        ({"points": torch.zeros(0, 3)}, RangeError, "must not be empty"),
        ({"points": torch.zeros(5, 3)}, RangeError, "one place"),
        ({"points": torch.zeros(5, 2)}, ShapeError, r"points must be \(p, 3\)"),
        ({"width": 0}, RangeError, "width"),
    ],
)
def test_bad_arguments(options: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        orbit_cameras(**{"n": 1, **options})  # pyright: ignore[reportArgumentType]
