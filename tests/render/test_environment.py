"""Light from pictures of the surroundings: where it comes from, how much, how blurred, and its gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from voxgen.core import Material
from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.render import EnvironmentLight, Lighting, orbit_cameras, render_mesh
from voxgen.testing.shapes import sphere

AXES = {"+x": (1, 0, 0), "-x": (-1, 0, 0), "+y": (0, 1, 0), "-y": (0, -1, 0), "+z": (0, 0, 1), "-z": (0, 0, -1)}


def direction(name: str) -> Tensor:
    return torch.tensor([AXES[name]], dtype=torch.float32)


def lamp(name: str, size: int = 32) -> Tensor:
    """Cube map with one lit face."""
    faces = torch.zeros(6, size, size, 3)
    faces[list(AXES).index(name)] = 1.0
    return faces


@pytest.mark.parametrize("shading", ["pbr", "lambert"])
def test_a_constant_picture_is_an_even_surrounding(shading) -> None:
    color = (0.4, 0.5, 0.6)
    ball = sphere().replace(materials=(Material(base_color_factor=(0.9, 0.5, 0.2), metallic_factor=0.4, roughness_factor=0.37),))
    camera = orbit_cameras(2, width=32, height=32)
    even = Lighting((), color, color)
    for environment in (
        EnvironmentLight.from_equirectangular(torch.tensor(color).expand(90, 170, 3), rotation=33.0),
        EnvironmentLight.from_cube(torch.tensor(color).expand(6, 20, 20, 3)),
    ):
        options = {"shading": shading, "encoding": "linear"}
        found = render_mesh(ball, camera, lighting=Lighting.surrounded(environment), **options).color
        assert torch.allclose(found, render_mesh(ball, camera, lighting=even, **options).color, atol=1e-5)


@pytest.mark.parametrize("name", AXES)
def test_light_comes_from_where_it_is(name: str) -> None:
    light = EnvironmentLight.from_cube(lamp(name))
    for other in AXES:
        here = 1.0 if other == name else 0.0
        mirror = light.specular(direction(other), torch.zeros(1, 1))
        assert torch.allclose(mirror, torch.full((1, 3), here), atol=1e-5), other
    opposite = ("-" if name[0] == "+" else "+") + name[1]
    # a face of the cube lights a surface before it by 0.554 (form factor of a square at half its side), its back not at all
    assert float(light.diffuse(direction(name))[0, 0]) == pytest.approx(0.554, abs=0.02)
    assert float(light.diffuse(direction(opposite))[0, 0]) == pytest.approx(0, abs=1e-3)


def test_hemisphere_of_light() -> None:
    image = torch.zeros(64, 128, 3)
    image[:32] = 1.0
    light = EnvironmentLight.from_equirectangular(image, strength=2.0)
    tilt = torch.tensor([0.0, 30, 60, 90, 120, 180]) * (math.pi / 180)
    normals = torch.stack((tilt.sin(), tilt.cos(), torch.zeros(6)), 1)
    expected = 2 * (1 + tilt.cos()) / 2  # share of the sky that a tilted surface sees, weighted by its cosine
    assert torch.allclose(light.diffuse(normals)[:, 0], expected, atol=0.02)


def test_panorama_and_its_rotation() -> None:
    """The middle of the picture lies along -z, columns to the right follow towards +x; turning moves them counter-clockwise."""
    image = torch.zeros(64, 128, 3)
    image[24:40, 60:68] = 1.0

    def ahead(rotation: float) -> EnvironmentLight:
        return EnvironmentLight.from_equirectangular(image, rotation=rotation)

    smooth = torch.zeros(1, 1)
    assert float(ahead(0).specular(direction("-z"), smooth)[0, 0]) == pytest.approx(1, abs=1e-5)
    assert float(ahead(90).specular(direction("-x"), smooth)[0, 0]) == pytest.approx(1, abs=1e-5)
    assert float(ahead(-90).specular(direction("+x"), smooth)[0, 0]) == pytest.approx(1, abs=1e-5)
    assert float(ahead(180.3).specular(direction("+z"), smooth)[0, 0]) == pytest.approx(1, abs=1e-4)  # across the seam
    assert float(ahead(0).specular(direction("+z"), smooth)[0, 0]) == 0


def test_rough_mirrors_blur_and_keep_the_light() -> None:
    light = EnvironmentLight.from_cube(lamp("+z"))
    steps = torch.tensor([[0.0], [0.1], [0.2], [0.4], [0.6], [0.9], [1.0]])
    center = light.specular(direction("+z").expand(7, 3), steps)[:, 0]
    assert bool((center.diff() <= 1e-6).all())
    behind = light.specular(torch.tensor([[0.8, 0.0, 0.6]]).expand(7, 3), steps)[:, 0]  # beside the lit face
    assert float(behind[0]) < 0.01 < float(behind[-1])
    grid = torch.linspace(0, 1, 41)[:, None]
    values = light.specular(torch.tensor([[0.6, 0.0, 0.8]]).expand(41, 3), grid)[:, 0]
    assert float(values.diff().abs().max()) < 0.15  # no jump from level to level


def test_rough_lobes_are_the_published_integral() -> None:
    """Against the sum over directions, with the halfway vector's distribution as it is written."""
    torch.manual_seed(0)
    image = torch.rand(32, 64, 3, dtype=torch.float64)
    light = EnvironmentLight.from_equirectangular(image)
    polar = (torch.arange(32, dtype=torch.float64) + 0.5) * math.pi / 32
    azimuth = (torch.arange(64, dtype=torch.float64) + 0.5) * 2 * math.pi / 64 - math.pi
    source = torch.stack(
        (polar.sin()[:, None] * azimuth.sin(), polar.cos()[:, None].expand(32, 64), -polar.sin()[:, None] * azimuth.cos()), -1
    ).reshape(-1, 3)
    area = (polar.sin()[:, None] * torch.ones(64, dtype=torch.float64)).flatten()
    row, column = 6, 20  # a pixel of the picture for roughness 1, which has 16 rows
    normal = torch.nn.functional.normalize(
        torch.tensor(
            [
                math.sin((row + 0.5) * math.pi / 16) * math.sin((column + 0.5) * math.pi / 16 - math.pi),
                math.cos((row + 0.5) * math.pi / 16),
                -math.sin((row + 0.5) * math.pi / 16) * math.cos((column + 0.5) * math.pi / 16 - math.pi),
            ],
            dtype=torch.float64,
        ),
        dim=0,
    )
    half = torch.nn.functional.normalize(source + normal, dim=1)
    alpha = 1.0
    density = alpha**2 / (((half @ normal) ** 2) * (alpha**2 - 1) + 1) ** 2
    weight = area * density * (source @ normal).clamp(min=0)
    expected = (weight[:, None] * image.reshape(-1, 3)).sum(0) / weight.sum()
    # solid angles by the mid-point rule here, exactly there
    assert torch.allclose(light.mirror[-1][row, column], expected, rtol=1e-3)


@pytest.mark.parametrize("up", ["y", "z"])
def test_the_sky_is_where_up_points(up) -> None:
    image = torch.zeros(64, 128, 3)
    image[:32] = 1.0
    ball = sphere().with_up(up)
    camera = orbit_cameras(1, points=ball.vertices, up=up, elevation=0.0, width=33, height=33)
    options = {"shading": "lambert", "encoding": "linear", "background": (0.0, 0.0, 0.0)}
    found = render_mesh(ball, camera, lighting=Lighting.surrounded(EnvironmentLight.from_equirectangular(image)), **options).color[0, :, 16]
    assert float(found[3].mean()) > 0.6
    assert float(found[29].mean()) < 0.15


def test_gradients_reach_the_picture_and_the_mesh() -> None:
    image = (0.1 + torch.rand(16, 32, 3, dtype=torch.float64)).requires_grad_()
    points = torch.nn.functional.normalize(torch.randn(6, 3, dtype=torch.float64), dim=1).requires_grad_()
    roughness = torch.tensor([[0.05], [0.2], [0.4], [0.6], [0.8], [0.95]], dtype=torch.float64, requires_grad=True)

    def shade(p: Tensor, n: Tensor, r: Tensor) -> Tensor:
        light = EnvironmentLight.from_equirectangular(p)
        return light.diffuse(n) + light.specular(n, r)

    fixed = EnvironmentLight.from_equirectangular(image.detach())
    assert torch.autograd.gradcheck(lambda n, r: fixed.diffuse(n) + fixed.specular(n, r), (points, roughness))
    loss = shade(image, points, roughness).sum()
    (gradient,) = torch.autograd.grad(loss, image)
    step = torch.randn_like(image) * 1e-3
    with torch.no_grad():
        change = (shade(image + step, points, roughness) - shade(image - step, points, roughness)).sum() / 2
    assert float((gradient * step).sum()) == pytest.approx(float(change), rel=1e-9)  # linear in the light
    poles = torch.tensor([[0.0, 1, 0], [0, -1, 0]], dtype=torch.float64, requires_grad=True)
    shade(image.detach(), poles, roughness[:2].detach()).sum().backward()
    assert poles.grad is not None
    assert bool(torch.isfinite(poles.grad).all())


def test_bad_environments() -> None:
    with pytest.raises(ShapeError, match=r"image must be \(h, w, 3\)"):
        EnvironmentLight.from_equirectangular(torch.rand(3, 8, 16))
    with pytest.raises(DtypeError, match="Linear light"):
        EnvironmentLight.from_equirectangular(torch.zeros(8, 16, 3, dtype=torch.uint8))
    with pytest.raises(RangeError, match="0 or more; its least"):
        EnvironmentLight.from_equirectangular(-torch.ones(8, 16, 3))
    with pytest.raises(RangeError, match="finite"):
        EnvironmentLight.from_equirectangular(torch.full((8, 16, 3), math.inf))
    with pytest.raises(RangeError, match="at least one pixel"):
        EnvironmentLight.from_equirectangular(torch.zeros(0, 16, 3))
    with pytest.raises(RangeError, match="strength"):
        EnvironmentLight.from_equirectangular(torch.ones(8, 16, 3), strength=-1.0)
    with pytest.raises(RangeError, match="square"):
        EnvironmentLight.from_cube(torch.ones(6, 4, 5, 3))
    with pytest.raises(ShapeError, match=r"faces must be \(6, n, n, 3\)"):
        EnvironmentLight.from_cube(torch.ones(5, 4, 4, 3))
