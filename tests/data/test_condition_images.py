"""Condition images: from the sides asked for, straight alpha, the same again from the same generator."""

from __future__ import annotations

import math

import pytest
import torch

from voxgen.core import Camera, Material, TriMesh
from voxgen.core.errors import DtypeError, MeshError, RangeError, ShapeError
from voxgen.data import ConditionImages, condition_images, procedural_asset
from voxgen.render import Lighting, render_geometry
from voxgen.testing.shapes import box


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def red_box(alpha: float = 1.0) -> TriMesh:
    mode = "OPAQUE" if alpha == 1 else "BLEND"
    material = Material("red", (0.5, 0.01, 0.01), alpha_factor=alpha, metallic_factor=0.0, roughness_factor=1.0, alpha_mode=mode)
    return box().replace(materials=(material,))


def test_images_are_of_the_size_and_cameras_at_the_distance_asked_for() -> None:
    pictures = condition_images(red_box(), 5, size=48, generator=seeded())
    assert pictures.images.shape == (5, 48, 48, 4)
    assert pictures.images.dtype == torch.uint8
    assert len(pictures) == len(pictures.camera) == 5
    fov = 2 * torch.atan(24 / pictures.camera.intrinsics[:, 1, 1])
    assert bool((fov > math.radians(10)).all() and (fov < math.radians(70)).all())
    distance = pictures.camera.positions.norm(dim=1)
    assert torch.allclose(distance, math.sqrt(3) / 2 / (fov / 2).sin(), rtol=1e-5)


def test_eyes_stay_in_the_part_of_the_sphere_asked_for() -> None:
    camera = condition_images(red_box(), 60, size=4, azimuth=(-30, 50), elevation=(10, 40), generator=seeded()).camera
    x, y, z = torch.nn.functional.normalize(camera.positions, dim=1).unbind(1)
    azimuth, elevation = torch.rad2deg(torch.atan2(x, z)), torch.rad2deg(y.asin())
    assert -30 <= float(azimuth.min()) < -20 < 40 < float(azimuth.max()) <= 50
    assert 10 <= float(elevation.min()) < 14 < 36 < float(elevation.max()) <= 40
    upright = red_box().with_up("z")
    turned = condition_images(upright, 20, size=4, azimuth=(0, 0), elevation=(30, 30), generator=seeded()).camera
    assert torch.allclose(
        torch.nn.functional.normalize(turned.positions, dim=1), torch.tensor([0.0, -math.sqrt(0.75), 0.5]).expand(20, 3), atol=1e-6
    )


def test_distances_have_their_share_of_one_over_their_square() -> None:
    camera = condition_images(red_box(), 200, size=2, generator=seeded(3)).camera
    share = camera.positions.norm(dim=1) ** -2
    low, high = ((2 / math.sqrt(3) * math.sin(math.radians(fov) / 2)) ** 2 for fov in (10, 70))
    even = ((share - low) / (high - low)).sort().values
    gap = (even - (torch.arange(200) + 0.5) / 200).abs().max()
    assert float(gap) < 0.115  # Kolmogorov's bound for 200 even draws at 1 %


def test_equal_generators_give_equal_pictures_and_others_do_not() -> None:
    mesh = procedural_asset(2).mesh
    first, same, other = (condition_images(mesh, 2, size=32, generator=seeded(seed)).images for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_alpha_is_what_the_camera_sees_and_colour_is_not_multiplied_by_it() -> None:
    pictures = condition_images(red_box(), 3, size=64, supersample=2, generator=seeded())
    covered = render_geometry(red_box(), pictures.camera, antialias=False, supersample=2).mask
    assert float((pictures.silhouettes - covered).abs().max()) < 1 / 255
    whole, part = pictures.images[..., 3] == 255, (pictures.images[..., 3] > 0) & (pictures.images[..., 3] < 255)
    assert bool(part.any())
    red = pictures.images[..., 0].float()
    assert float(red[part].min()) >= 0.9 * float(red[whole].min())  # a border that was mixed with black would be darker
    assert not pictures.images[pictures.images[..., 3] == 0].any()


def test_glass_keeps_its_colour_and_its_alpha() -> None:
    plain, glass = (
        condition_images(
            red_box(alpha), 1, size=32, azimuth=(0, 0), elevation=(0, 0), fov=20.0, lighting=Lighting.headlight(), generator=seeded()
        )
        for alpha in (1.0, 0.3)
    )
    middle = (0, 16, 16)
    assert int(plain.images[middle][3]) == 255
    # two walls of 0.3, one behind the other
    assert int(glass.images[middle][3]) == pytest.approx(255 * (1 - 0.7**2), abs=1)
    assert (glass.images[middle][:3].int() - plain.images[middle][:3].int()).abs().max() < 12


def test_over_a_background() -> None:
    camera = condition_images(red_box(), 1, size=2, generator=seeded()).camera
    images = torch.tensor([[[[255, 0, 0, 255], [255, 0, 0, 0]], [[0, 255, 0, 51], [0, 0, 0, 255]]]], dtype=torch.uint8)
    pictures = ConditionImages(images, camera)
    assert pictures.over().shape == (1, 3, 2, 2)
    assert torch.allclose(pictures.over()[0, :, 1, 0], torch.tensor([0.0, 0.2, 0.0]))
    assert torch.allclose(pictures.over((1.0, 1.0, 0.5))[0, :, 1, 0], torch.tensor([0.8, 1.0, 0.4]))
    assert torch.allclose(pictures.over((1.0, 1.0, 0.5))[0, :, 0, 1], torch.tensor([1.0, 1.0, 0.5]))
    with pytest.raises(RangeError, match="background"):
        pictures.over((0.0, 2.0, 0.0))


def test_some_of_the_views() -> None:
    pictures = condition_images(red_box(), 4, size=8, generator=seeded())
    last = pictures[-1]
    assert torch.equal(last.images, pictures.images[3:])
    assert torch.equal(last.camera.world_to_camera, pictures.camera.world_to_camera[3:])
    assert len(pictures[1:3]) == len(pictures[torch.tensor([True, False, False, True])]) == 2


def test_bad_input_is_named() -> None:
    mesh = red_box()
    with pytest.raises(RangeError, match="condition_images: count"):
        condition_images(mesh, 0)
    with pytest.raises(DtypeError, match="condition_images: size"):
        condition_images(mesh, 1, size=2.5)  # pyright: ignore[reportArgumentType]
    with pytest.raises(RangeError, match="azimuth must be two finite angles"):
        condition_images(mesh, 1, azimuth=(20, -20))
    with pytest.raises(RangeError, match="elevation must be two angles"):
        condition_images(mesh, 1, elevation=(0, 100))
    with pytest.raises(RangeError, match="fov"):
        condition_images(mesh, 1, fov=(70, 10))
    with pytest.raises(MeshError, match="condition_images"):
        condition_images(TriMesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int32)), 1)
    camera = Camera.look_at(torch.tensor([[0.0, 0.0, 2.0]]), width=8, height=8)
    with pytest.raises(ShapeError, match="One image a view"):
        ConditionImages(torch.zeros(2, 8, 8, 4, dtype=torch.uint8), camera)
    with pytest.raises(DtypeError, match="ConditionImages"):
        ConditionImages(torch.zeros(1, 8, 8, 4), camera)
