"""Cameras drawn at random: how even, how far, how wide, where, and the same again from the same seed."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from voxgen.core import Camera, TriMesh
from voxgen.core.errors import DtypeError, MeshError, RangeError
from voxgen.render import inside_cameras, quasi_uniform_sphere, random_cameras, render_geometry
from voxgen.testing.shapes import box, sphere

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_hammersley_set_is_the_published_one() -> None:
    found = quasi_uniform_sphere(4)
    u, v = torch.tensor([0, 0.25, 0.5, 0.75]).double(), torch.tensor([0, 0.5, 0.25, 0.75]).double()
    assert torch.allclose(found[:, 2], 1 - 2 * u)
    ring = (1 - found[:, 2] ** 2).sqrt()
    expected = torch.stack((ring * (2 * math.pi * v).cos(), ring * (2 * math.pi * v).sin()), 1)
    assert torch.allclose(found[:, :2], expected)
    assert quasi_uniform_sphere(0).shape == (0, 3)


def test_hammersley_set_covers_the_sphere_more_evenly_than_chance() -> None:
    def largest_hole(points: torch.Tensor) -> float:
        """Angle from any direction to the nearest point."""
        probes = quasi_uniform_sphere(4000, shift=(0.3, 0.7))
        return float((probes @ points.T).amax(1).min().acos())

    even = [largest_hole(quasi_uniform_sphere(100, shift=(s / 7, s / 5))) for s in range(5)]
    chance = [largest_hole(torch.nn.functional.normalize(torch.randn(100, 3, dtype=torch.float64), dim=1)) for _ in range(5)]
    assert max(even) < min(chance)
    # a perfect covering by 100 caps has holes of 0.22, this set stays within twice of it
    assert max(even) < 0.44


@pytest.mark.parametrize("sampling", ["hammersley", "uniform"])
@pytest.mark.parametrize("up", ["y", "z"])
def test_training_views(sampling, up) -> None:
    camera = random_cameras(64, target=(0.1, 0.2, 0.3), sampling=sampling, up=up, width=32, height=32, generator=seeded())
    away = camera.positions - torch.tensor([0.1, 0.2, 0.3])
    assert torch.allclose(away.norm(dim=1), torch.full((64,), 2.0), atol=1e-5)
    assert torch.allclose(camera.forward, -away / 2, atol=1e-5)
    assert (camera.near, camera.far) == (1.0, 3.0)
    assert torch.allclose(camera.intrinsics[:, 1, 1], torch.tensor(16 / math.tan(math.radians(20))))
    assert float(away.mean(0).norm()) < (0.15 if sampling == "hammersley" else 0.7)
    image_up = -camera.world_to_camera[:, 1, :3]  # y points down
    assert bool((image_up[:, 1 if up == "y" else 2] >= -1e-6).all())


def test_condition_views_frame_the_sphere_around_the_unit_cube() -> None:
    camera = random_cameras(50, radius=None, fov=(10.0, 70.0), sampling="uniform", width=100, height=100, generator=seeded())
    half = (50 / camera.intrinsics[:, 1, 1]).atan()
    low, high = math.sin(math.radians(5)) ** 2, math.sin(math.radians(35)) ** 2
    share = (half.sin() ** 2 - low) / (high - low)
    assert -1e-5 < float(share.min()) < 0.1
    assert 0.9 < float(share.max()) < 1 + 1e-5
    assert float(share.mean()) == pytest.approx(0.5, abs=4 * 0.29 / math.sqrt(50))  # four standard deviations of an even draw
    assert torch.allclose(camera.positions.norm(dim=1), math.sqrt(3) / 2 / half.sin(), rtol=1e-5)
    assert camera.near == pytest.approx(float(camera.positions.norm(dim=1).min()) - 1, abs=1e-5)
    assert camera.far == pytest.approx(float(camera.positions.norm(dim=1).max()) + 1, abs=1e-5)
    ball = sphere(math.sqrt(3) / 2, 4)
    # the ball touches the border and leaves the corners of the image free
    mask = render_geometry(ball, camera[:3], antialias=False).mask
    assert float(mask[:, 0].sum(1).max()) < 30
    assert float(mask.sum((1, 2)).min()) > 0.75 * 100**2


@pytest.mark.parametrize("sampling", ["hammersley", "uniform"])
@pytest.mark.parametrize("up", ["y", "z"])
def test_views_from_a_part_of_the_sphere_are_even_by_area(sampling, up) -> None:
    n = 200
    camera = random_cameras(n, azimuth=(-40, 80), elevation=(10, 70), sampling=sampling, up=up, width=2, height=2, generator=seeded(1))
    x, y, z = (camera.positions.double() / 2).unbind(1)
    height, ahead = (y, z) if up == "y" else (z, -y)
    azimuth, low, high = torch.rad2deg(torch.atan2(x, ahead)), math.sin(math.radians(10)), math.sin(math.radians(70))
    for share in ((azimuth + 40) / 120, (height - low) / (high - low)):
        gap = (share.sort().values - (torch.arange(n) + 0.5) / n).abs().max()
        assert float(gap) < (0.02 if sampling == "hammersley" else 1.63 / math.sqrt(n))  # Kolmogorov's bound at 1 %


def test_one_angle_alone_leaves_the_other_free() -> None:
    camera = random_cameras(50, elevation=(0, 0), width=2, height=2, generator=seeded())
    assert float(camera.positions[:, 1].abs().max()) < 1e-6
    assert float(camera.positions[:, 2].min()) < -1.5
    around = random_cameras(50, azimuth=(90, 90), width=2, height=2, generator=seeded())
    assert float(around.positions[:, 2].abs().max()) < 1e-6
    assert float(around.positions[:, 1].min()) < -1.5


def test_same_seed_same_cameras() -> None:
    for draw in (random_cameras, inside_cameras):
        one, two, other = (draw(5, fov=(30.0, 50.0), generator=seeded(s)) for s in (1, 1, 2))
        assert torch.equal(one.world_to_camera, two.world_to_camera)
        assert torch.equal(one.intrinsics, two.intrinsics)
        assert not torch.equal(one.world_to_camera, other.world_to_camera)


def test_eyes_in_a_box() -> None:
    camera = inside_cameras(200, low=(-1, 0, 0), high=(1, 0.5, 0.25), generator=seeded())
    low, high = camera.positions.amin(0), camera.positions.amax(0)
    assert bool((low >= torch.tensor([-1.0, 0, 0]) - 1e-6).all())
    assert bool((high <= torch.tensor([1.0, 0.5, 0.25]) + 1e-6).all())
    assert float(low[0]) < -0.9
    assert float(camera.forward.mean(0).norm()) < 0.2
    assert (camera.near, camera.far) == (0.01, 4.0)


def test_eyes_near_a_surface_see_its_inside() -> None:
    ball = sphere(0.4, 3)
    camera = inside_cameras(20, surface=ball, clearance=(0.02, 0.2), width=8, height=8, generator=seeded())
    distance = 0.4 - camera.positions.norm(dim=1)
    assert float(distance.min()) > 0.8 * 0.02 * 0.8
    assert float(distance.max()) < 0.2 * 0.8 + 0.01
    maps = render_geometry(ball, camera, antialias=False)
    assert bool((maps.mask == 1).all())  # nowhere a way out
    seen = (camera.forward * camera.positions).sum(1)
    assert bool((seen < 0.03).all())  # away from the near wall, whose faces lean up to 4° from the sphere


@pytest.mark.parametrize(
    ("call", "options", "error", "words"),
    [
        (random_cameras, {"n": 0}, RangeError, "n must be at least 1"),
        (random_cameras, {"n": 1.5}, DtypeError, "whole number"),
        (random_cameras, {"radius": -1.0}, RangeError, "radius must be positive"),
        (random_cameras, {"fov": (50.0, 40.0)}, RangeError, "smaller end first"),
        (random_cameras, {"fov": 180.0}, RangeError, "fov must lie"),
        (random_cameras, {"object_radius": 0.0}, RangeError, "object_radius must be positive"),
        (random_cameras, {"sampling": "grid"}, RangeError, "sampling must be one of"),
        (random_cameras, {"azimuth": (30.0, -30.0)}, RangeError, "azimuth must be two finite angles"),
        (random_cameras, {"azimuth": (0.0, math.inf)}, RangeError, "azimuth must be two finite angles"),
        (random_cameras, {"elevation": (-100.0, 0.0)}, RangeError, "elevation must be two angles"),
        (random_cameras, {"target": (math.nan, 0, 0)}, RangeError, "finite"),
        (random_cameras, {"near": 4.0}, RangeError, "near must be less than far"),
        (inside_cameras, {"clearance": (0.3, 0.2)}, RangeError, "clearance"),
        (inside_cameras, {"low": (0, 0, 0), "high": (0, 0, 0)}, RangeError, "not the same point"),
        (inside_cameras, {"surface": TriMesh(torch.zeros(3, 3), torch.tensor([[0, 1, 2]]))}, MeshError, "face with area"),
        (inside_cameras, {"surface": TriMesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int32))}, MeshError, "at least one face"),
        (quasi_uniform_sphere, {"n": -1}, RangeError, "n must be at least 0"),
        (quasi_uniform_sphere, {"n": 2, "shift": (math.inf, 0.0)}, RangeError, "shift must be two finite"),
    ],
)
def test_bad_camera_arguments(call, options: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call(**{"n": 1, **options})


def test_flat_surfaces_can_be_looked_at_from_near() -> None:
    plate = box((-0.3, -0.3, 0.0), (0.3, 0.3, 0.0))
    camera = inside_cameras(4, surface=plate, generator=seeded())
    assert bool(torch.isfinite(camera.world_to_camera).all())


def test_projection_is_that_of_trellis_but_for_its_two_faults() -> None:
    info = json.loads((GOLDEN / "focusing_trellis_losses.json").read_text())
    arrays = {name: torch.from_numpy(array) for name, array in np.load(GOLDEN / "focusing_trellis_losses.npz").items()}
    size = torch.tensor([100.0, 100.0, 1.0])[:, None]
    for name, center in (("projection", (0.5, 0.5)), ("projection_off_centre", (0.4, 0.3))):
        k = arrays["in/intrinsics"].clone()
        k[0, 2], k[1, 2] = center
        ours = Camera(torch.eye(4)[None], (k * size)[None], 100, 100, near=1.0, far=3.0).clip_matrices()[0]
        theirs = arrays[f"out/{name}"].clone()
        theirs[2] = 2 * theirs[2] - theirs[3]  # depths in [0, w] there, in [-w, w] here
        theirs[1, 2] = -theirs[1, 2]  # the sign of a flipped image there, which is not flipped
        assert torch.allclose(ours, theirs, atol=info["tolerance"])
