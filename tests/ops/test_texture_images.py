"""Textures read as images, with nvdiffrast's meaning: filters, boundaries, levels, cube maps."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from voxgen.core import Camera
from voxgen.core.errors import DeviceError, DtypeError, RangeError, ShapeError
from voxgen.ops.rasterize import interpolate, interpolate_derivatives, rasterize, screen_derivatives
from voxgen.ops.texture import build_pyramid, sample_texture, texture

BACKENDS = ("numba", "reference")


def places(*shape: int, low: float = -0.4, high: float = 1.4) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64) * (high - low) + low


@pytest.mark.parametrize("backend", BACKENDS)
def test_linear_is_that_of_grid_sample(backend: str) -> None:
    tex, uv = torch.rand(3, 6, 9, 4, dtype=torch.float64), places(3, 5, 7, 2)
    for boundary, padding in (("clamp", "border"), ("zero", "zeros")):
        expected = F.grid_sample(tex.permute(0, 3, 1, 2), 2 * uv - 1, padding_mode=padding, align_corners=False).permute(0, 2, 3, 1)
        assert torch.allclose(texture(tex, uv, boundary=boundary, backend=backend), expected, atol=1e-12)
    tiled = tex.repeat(1, 3, 3, 1)
    expected = F.grid_sample(tiled.permute(0, 3, 1, 2), 2 * (uv + 1) / 3 - 1, align_corners=False).permute(0, 2, 3, 1)
    assert torch.allclose(texture(tex, uv, backend=backend), expected, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nearest_takes_the_texel_around_and_one_texture_serves_all(backend: str) -> None:
    tex, uv = torch.rand(1, 6, 9, 4), places(3, 5, 7, 2).float()
    row, column = (uv[..., 1] * 6).floor().long(), (uv[..., 0] * 9).floor().long()
    wrapped = texture(tex, uv, filter="nearest", backend=backend)
    assert torch.equal(wrapped, tex[0][row % 6, column % 9])
    clamped = texture(tex, uv, filter="nearest", boundary="clamp", backend=backend)
    assert torch.equal(clamped, tex[0][row.clamp(0, 5), column.clamp(0, 8)])
    inside = ((row >= 0) & (row < 6) & (column >= 0) & (column < 9))[..., None]
    assert torch.equal(texture(tex, uv, filter="nearest", boundary="zero", backend=backend), clamped * inside)
    assert torch.equal(texture(tex.expand(3, -1, -1, -1), uv, filter="nearest", backend=backend), wrapped)


def test_rows_count_the_other_way_than_in_sample_texture() -> None:
    image, uv = torch.rand(5, 4, 3), torch.rand(1, 6, 7, 2)
    flipped = torch.stack((uv[..., 0], 1 - uv[..., 1]), -1)
    expected = sample_texture(build_pyramid(image), flipped.view(-1, 2), wrap=("clamp", "clamp"))
    assert torch.allclose(texture(image[None], uv, boundary="clamp").view(-1, 3), expected, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_footprints_choose_levels(backend: str) -> None:
    tex, uv = torch.rand(1, 16, 32, 2, dtype=torch.float64), places(1, 4, 4, 2)
    levels = build_pyramid(tex[0]).levels

    def level(k: int) -> Tensor:
        return texture(levels[k][None], uv, backend=backend)

    def footprint(right: tuple[float, float], down: tuple[float, float]) -> Tensor:
        step = torch.tensor([right, down], dtype=torch.float64).T / torch.tensor([[32.0], [16.0]], dtype=torch.float64)
        return step.expand(1, 4, 4, 2, 2)

    for turn in (0.0, 0.3, 2.0):
        c, s = 4 * math.cos(turn), 4 * math.sin(turn)
        found = texture(tex, uv, footprint((c, s), (-s, c)), backend=backend)  # a circle of four texels
        assert torch.allclose(found, level(2), atol=1e-12)
        found = texture(tex, uv, footprint((c / 2, s / 2), (-s / 8, c / 8)), backend=backend)  # an ellipse, two texels long
        assert torch.allclose(found, level(1), atol=1e-12)
    between = 2**1.25
    found = texture(tex, uv, footprint((between, 0), (0, 0)), backend=backend)
    assert torch.allclose(found, 0.75 * level(1) + 0.25 * level(2), atol=1e-12)
    found = texture(tex, uv, footprint((between, 0), (0, 0)), filter="linear-mipmap-nearest", backend=backend)
    assert torch.allclose(found, level(1), atol=1e-12)
    bias = torch.full((1, 4, 4), 0.75, dtype=torch.float64)
    assert torch.allclose(texture(tex, uv, footprint((between, 0), (0, 0)), level=bias, backend=backend), level(2), atol=1e-12)
    assert torch.allclose(texture(tex, uv, level=bias + 0.25, backend=backend), level(1), atol=1e-12)
    assert torch.allclose(texture(tex, uv, level=bias + 9, backend=backend), tex.mean((1, 2))[:, None, None], atol=1e-12)
    assert torch.allclose(texture(tex, uv, level=bias + 9, max_mip_level=2, backend=backend), level(2), atol=1e-12)
    assert torch.equal(texture(tex, uv, torch.zeros(1, 4, 4, 2, 2), backend=backend), level(0))  # a point
    own = [torch.rand(1, 3, 3, 2, dtype=torch.float64)]
    assert torch.allclose(texture(tex, uv, level=bias + 0.25, mip=own, backend=backend), texture(own[0], uv, backend=backend), atol=1e-12)


def test_the_chain_from_the_rasteriser() -> None:
    """uv_da of a slanted floor is what the coordinates do from pixel to pixel, and the picture does not alias."""
    camera = Camera.look_at(torch.tensor([[0.0, 0.4, 1.0]]).double(), width=40, height=30, fov=60.0)
    corners = torch.tensor([[-9.0, 0, 2], [9, 0, 2], [9, 0, -30], [-9, 0, -30]], dtype=torch.float64)
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    clip = torch.cat((corners, torch.ones(4, 1, dtype=torch.float64)), 1) @ camera.clip_matrices()[0].T
    uv = corners[:, [0, 2]]  # a texture of one unit
    raster = rasterize(clip, faces, 30, 40)
    place = interpolate(uv, faces, raster)
    step = interpolate_derivatives(uv, faces, raster, screen_derivatives(clip, faces, raster))
    fine = rasterize(clip, faces, 3000, 4000, window=(2050, 2050, 2, 2))  # the middle of pixel (20, 20), 100 times enlarged
    place_fine = interpolate(uv, faces, fine)
    assert torch.allclose(step[0, 20, 20, :, 0], 100 * (place_fine[0, 0, 1] - place_fine[0, 0, 0]), rtol=1e-2)
    assert torch.allclose(step[0, 20, 20, :, 1], 100 * (place_fine[0, 1, 0] - place_fine[0, 0, 0]), rtol=1e-2)
    checks = (torch.arange(64)[:, None] // 8 + torch.arange(64)[None] // 8) % 2
    tex = checks.double()[None, :, :, None]
    far = raster.depth[0] > raster.depth[0][raster.face_id[0] >= 0].median()
    far &= raster.face_id[0] >= 0
    sharp, smooth = (texture(tex, place, d)[0, ..., 0][far] for d in (None, step))
    assert float(sharp.std()) > 0.4
    assert float(smooth.std()) < 0.15
    assert float(smooth.mean()) == pytest.approx(0.5, abs=0.05)


# Cube maps.


def cube_of(function: Any, s: int) -> Tensor:
    """(1, 6, s, s, c): a function of unit directions at the texels' centres, by OpenGL's table of faces."""
    t = (torch.arange(s, dtype=torch.float64) + 0.5) / s * 2 - 1
    b, a = torch.meshgrid(t, t, indexing="ij")
    one = torch.ones_like(a)
    faces = [(one, -b, -a), (-one, -b, a), (a, one, b), (a, -one, -b), (a, -b, one), (-a, -b, -one)]
    return torch.stack([function(F.normalize(torch.stack(d, -1), dim=-1)) for d in faces])[None]


def directions(n: int) -> Tensor:
    return torch.randn(1, 1, n, 3, dtype=torch.float64)


def test_a_cube_reads_what_its_faces_were_made_of() -> None:
    tex = cube_of(lambda d: d, 64)
    d = directions(500)
    for length in (1.0, 1e-3, 50.0):
        gap = (texture(tex, d * length, boundary="cube") - F.normalize(d, dim=-1)).abs().amax(-1)
        # texels are 1/32 apart at most: bilinear gives the direction to the square of that, and across a seam, where texels
        # of the two faces do not lie opposite each other, to half of it
        assert float(gap.median()) < 2e-4
        assert float(gap.max()) < 1 / 64
    axes = torch.cat((torch.eye(3), -torch.eye(3))).double().view(1, 1, 6, 3)
    numbered = torch.arange(6.0).double().view(1, 6, 1, 1, 1).expand(1, 6, 4, 4, 1)
    assert texture(numbered, axes, filter="nearest", boundary="cube").flatten().tolist() == [0, 2, 4, 1, 3, 5]


@pytest.mark.parametrize("s", [1, 2, 5])
def test_faces_join_without_a_seam(s: int) -> None:
    tex = torch.rand(1, 6, s, s, 2, dtype=torch.float64)
    for ones in itertools.product((-1.0, 1.0), repeat=3):
        corner = torch.tensor(ones, dtype=torch.float64)
        for free in (*torch.linspace(-0.97, 0.97, 7).tolist(), 1.0):
            for axis in range(3):
                edge = corner.clone()
                edge[axis] *= free  # a point on an edge between two faces, or the corner of three
                around = edge + 1e-9 * torch.randn(1, 1, 12, 3, dtype=torch.float64)
                values = texture(tex, around, boundary="cube")[0, 0]
                # a step of 1e-9 moves by up to s texels' worth of it
                assert float((values - values[:1]).abs().max()) < 1e-7


def test_cube_levels_and_footprints() -> None:
    tex = torch.rand(1, 6, 8, 8, 3, dtype=torch.float64)
    d = directions(20)
    mean = tex.mean((2, 3), keepdim=True)
    level = torch.full((1, 1, 20), 9.0, dtype=torch.float64)
    assert torch.allclose(
        texture(tex, d, level=level, filter="linear-mipmap-nearest", boundary="cube"), texture(mean, d, boundary="cube"), atol=1e-12
    )
    own = [torch.rand(1, 6, 3, 3, 3, dtype=torch.float64)]
    assert torch.allclose(texture(tex, d, level=level, mip=own, boundary="cube"), texture(own[0], d, boundary="cube"), atol=1e-12)
    # straight at a face, a step of 1/2 to the right and down is two of eight texels: level 1
    ahead = torch.tensor([0.0, 0.0, 2.0], dtype=torch.float64).view(1, 1, 1, 3)
    step = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.3, -0.7]], dtype=torch.float64).view(1, 1, 1, 3, 2)
    half = tex.unflatten(2, (4, 2)).unflatten(4, (4, 2)).mean((3, 5))
    assert torch.allclose(texture(tex, ahead, step, boundary="cube"), texture(half, ahead, boundary="cube"), atol=1e-12)
    nowhere = torch.zeros(1, 1, 1, 3, dtype=torch.float64, requires_grad=True)
    value = texture(tex, nowhere, step, boundary="cube")
    assert bool((value == 0).all())
    (gradient,) = torch.autograd.grad(value.sum(), nowhere)
    assert bool((gradient == 0).all())


def test_several_cubes_are_read_each_by_its_image() -> None:
    tex, d = torch.rand(3, 6, 4, 4, 2), torch.randn(3, 5, 6, 3)
    together = texture(tex, d, boundary="cube")
    for i in range(3):
        assert torch.equal(together[i], texture(tex[i : i + 1], d[i : i + 1], boundary="cube")[0])


# Gradients.


@pytest.mark.parametrize("boundary", ["wrap", "clamp", "zero", "cube"])
def test_gradients_against_finite_differences(boundary: str) -> None:
    cube = boundary == "cube"
    tex = torch.rand((2, 6, 3, 3, 2) if cube else (2, 5, 6, 2), dtype=torch.float64, requires_grad=True)
    uv = places(2, 2, 3, 3 if cube else 2).requires_grad_()
    steps = (torch.randn(2, 2, 3, 3 if cube else 2, 2, dtype=torch.float64) * 0.4).requires_grad_()
    level = places(2, 2, 3, low=0.1, high=0.9).requires_grad_()

    def run(*inputs: Tensor) -> Tensor:
        t, place, da, bias = inputs
        return texture(t, place, da, level=bias, boundary=boundary)

    assert torch.autograd.gradcheck(run, (tex, uv, steps, level), eps=1e-7, atol=1e-5)
    assert torch.autograd.gradcheck(lambda t, p: texture(t, p, boundary=boundary), (tex, uv), eps=1e-7, atol=1e-5)
    assert torch.autograd.gradcheck(lambda t: texture(t, uv.detach(), filter="nearest", boundary=boundary), (tex,))


def test_gradients_are_the_same_in_each_run() -> None:
    tex, uv = torch.rand(1, 64, 64, 3, requires_grad=True), torch.rand(1, 200, 200, 2, requires_grad=True)
    level = torch.rand(1, 200, 200)

    def run() -> tuple[Tensor, ...]:
        return torch.autograd.grad(texture(tex, uv, level=level).square().sum(), (tex, uv))

    first = run()
    assert all(torch.equal(a, b) for _ in range(3) for a, b in zip(run(), first, strict=True))


def test_no_pixels() -> None:
    assert texture(torch.rand(1, 3, 3, 2), torch.zeros(0, 4, 4, 2)).shape == (0, 4, 4, 2)
    assert texture(torch.rand(2, 3, 3, 2), torch.zeros(2, 0, 4, 2)).shape == (2, 0, 4, 2)
    assert texture(torch.rand(1, 6, 3, 3, 2), torch.zeros(0, 4, 4, 3), boundary="cube").shape == (0, 4, 4, 2)


TEX, UV = torch.rand(2, 4, 4, 3), torch.rand(2, 5, 5, 2)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ((TEX[0], UV), {}, ShapeError, r"tex must be \(b, h, w, c\)"),
        ((TEX.byte(), UV), {}, DtypeError, "tex"),
        ((TEX[:, :0], UV), {}, RangeError, "at least one texel"),
        ((TEX, UV[..., :1]), {}, ShapeError, r"uv must be \(b, h, w, 2\)"),
        ((TEX, UV[:1]), {}, ShapeError, "one for each of the 1 images of uv; got 2"),
        ((TEX, UV, UV), {}, ShapeError, "uv_da must be .*interpolate_derivatives"),
        ((TEX, UV), {"level": UV}, ShapeError, "level"),
        ((TEX, UV), {"filter": "cubic"}, RangeError, "'linear-mipmap-linear'"),
        ((TEX, UV), {"boundary": "mirror"}, RangeError, "'cube'"),
        ((TEX, UV), {"filter": "linear-mipmap-linear"}, RangeError, "needs uv_da or level"),
        ((TEX, UV, torch.zeros(2, 5, 5, 2, 2)), {"filter": "linear"}, RangeError, "leave uv_da"),
        ((TEX, UV), {"level": UV[..., 0], "max_mip_level": -1}, RangeError, "max_mip_level"),
        ((TEX, UV), {"level": UV[..., 0], "mip": [TEX[:1]]}, ShapeError, r"mip\[0\]"),
        ((TEX, UV), {"level": UV[..., 0], "mip": [TEX.double()]}, ShapeError, r"mip\[0\]"),
        ((TEX, UV), {"boundary": "cube"}, ShapeError, r"tex must be \(b, 6, s, s, c\)"),
        ((torch.rand(1, 6, 4, 3, 2), torch.rand(1, 2, 2, 3)), {"boundary": "cube"}, ShapeError, "square faces"),
        ((TEX, UV.to("meta")), {}, DeviceError, "one device"),
    ],
)
def test_bad_arguments(arguments: tuple[Tensor, ...], options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        texture(*arguments, **options)
