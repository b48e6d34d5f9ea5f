"""Materials of cells: what the default promises, against the truth by dense sampling of the surface."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from material_volume_inputs import ENGINES, FAST, colored, convert, joined, quad, smooth_image
from torch import Tensor

from voxgen.core import Material, Texture, TriMesh
from voxgen.core.errors import RangeError
from voxgen.core.material import linear_to_srgb, srgb_to_linear
from voxgen.ops.material_volume import CHANNELS, material_volume
from voxgen.ops.texture import build_pyramid, sample_texture
from voxgen.ops.voxelize import triangle_cells
from voxgen.testing import shapes
from voxgen.testing.cases.material_volume import painted, with_attributes
from voxgen.testing.cases.voxelize import grid_of


def rms(error: Tensor) -> float:
    return float(error.double().square().mean().sqrt())


Shade = Callable[[TriMesh, Tensor, Tensor], Tensor]


def dense_truth(mesh: TriMesh, cells: Tensor, resolution: int, shade: Shade) -> tuple[Tensor, Tensor]:
    """Means of shade(mesh, faces, barycentrics) over the area inside each cell, by a million points on the mesh: (means, hit)."""
    n = math.isqrt(1_000_000 // mesh.num_faces)
    i, j = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    lower = (i + j < n).flatten()
    upper = (i + j < n - 1).flatten()
    i, j = i.flatten().double(), j.flatten().double()
    centroids = torch.cat(
        (torch.stack((i + 1 / 3, j + 1 / 3), 1)[lower], torch.stack((i + 2 / 3, j + 2 / 3), 1)[upper])
    ) / n  # of the n² equal triangles  # fmt: skip
    b = torch.cat((1 - centroids.sum(1, keepdim=True), centroids), 1)
    faces = torch.arange(mesh.num_faces).repeat_interleave(len(b))
    b = b.repeat(mesh.num_faces, 1)
    points = (mesh.vertices.double()[mesh.faces[faces].long()] * b[:, :, None]).sum(1)
    weight = mesh.face_areas().double()[faces]
    place = ((points + 0.5) * resolution).floor().long()
    keys = (cells.long() * torch.tensor([resolution**2, resolution, 1])).sum(1)
    key = (place * torch.tensor([resolution**2, resolution, 1])).sum(1)
    row = torch.searchsorted(keys, key).clamp(max=len(keys) - 1)
    known = keys[row] == key
    row, values, weight = row[known], shade(mesh, faces[known], b[known]), weight[known]
    sums = torch.zeros(len(cells), values.shape[1], dtype=torch.float64).index_add(0, row, values * weight[:, None])
    total = torch.zeros(len(cells), dtype=torch.float64).index_add(0, row, weight)
    many = torch.bincount(row, minlength=len(cells)) >= 50
    return sums / total.clamp(min=1e-30)[:, None], many


def light(mesh: TriMesh, faces: Tensor, b: Tensor) -> Tensor:
    """Base colour in linear light, read from the full image, by uv clamped to it."""
    uv = (mesh.uv[mesh.faces[faces].long()].double() * b[:, :, None]).sum(1)  # pyright: ignore[reportOptionalSubscript]
    material = mesh.materials[0]
    assert material.base_color is not None
    pyramid = build_pyramid(material.base_color.values, srgb=material.base_color.srgb)
    return sample_texture(pyramid, uv, wrap=("clamp", "clamp")) * torch.tensor(material.base_color_factor)


def color_errors(mesh: TriMesh, resolution: int, **options: Any) -> tuple[float, float]:
    """RMS error of the encoded base colour: (default, compat), on the cells that the truth covers well."""
    truth, hit = dense_truth(mesh, convert(mesh, resolution, channels=()).cells, resolution, light)
    errors = []
    for compat in (None, "trellis2"):
        found = convert(mesh, resolution, channels=["base_color"], compat=compat, **options)
        errors.append(rms(found.values["base_color"][hit] - linear_to_srgb(truth)[hit]))
    return errors[0], errors[1]


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("compat", [None, "trellis2"])
def test_cells_are_those_of_the_dual_grid(backend: str, compat: str | None) -> None:
    mesh = painted(shapes.rotated(shapes.torus(around=20, across=10)))
    cells = triangle_cells(mesh.vertices, mesh.faces, **grid_of(11), compat=compat).cells  # pyright: ignore[reportArgumentType]
    volume = convert(mesh, 11, channels=tuple(CHANNELS), compat=compat, backend=backend)
    assert torch.equal(volume.cells, cells)
    assert {name: value.shape for name, value in volume.values.items()} == {n: (len(cells), c) for n, c in CHANNELS.items()}
    assert all(value.dtype == torch.float32 for value in volume.values.values())


@pytest.mark.parametrize("backend", ENGINES)
def test_one_colour_comes_out_exactly(backend: str) -> None:
    image = torch.full((5, 7, 3), 128, dtype=torch.uint8)
    material = Material(base_color=Texture(image, (0, 1, 2), srgb=True), metallic_factor=0.25, roughness_factor=0.75)
    mesh = shapes.rotated(shapes.sphere(0.4, 2))
    mesh = mesh.replace(uv=torch.rand(mesh.num_vertices, 2) * 5, materials=(material,))
    values = convert(mesh, 12, backend=backend).values
    for name, expected in (("base_color", 128 / 255), ("metallic", 0.25), ("roughness", 0.75), ("alpha", 1.0)):
        assert float((values[name] - expected).abs().max()) < 1e-6


@pytest.mark.parametrize("backend", ENGINES)
def test_a_ramp_is_averaged_exactly(backend: str) -> None:
    # Value = position: the mean over a cell is the position of the centroid of the surface in it, also in cells at the rim.
    mesh = shapes.rotated(quad(0.33), axis=(0.0, 0.0, 1.0), shift=(0.003, 0.002, 0.0))
    mesh = mesh.replace(attributes={"metallic": mesh.vertices[:, :1] + 0.5, "roughness": mesh.vertices[:, 1:2] + 0.5})
    volume = convert(mesh, 8, channels=("metallic", "roughness"), backend=backend)

    def position(mesh: TriMesh, faces: Tensor, b: Tensor) -> Tensor:
        return (mesh.vertices.double()[mesh.faces[faces].long()] * b[:, :, None]).sum(1)[:, :2] + 0.5

    truth, hit = dense_truth(mesh, volume.cells, 8, position)
    assert int(hit.sum()) >= 40
    assert float((joined(volume) - truth)[hit].abs().max()) < 2e-3  # the truth is sampled: parts at the rim are coarse in it
    whole = (truth - (volume.cells[:, :2] + 0.5) / 8).abs().amax(1) < 1e-5
    assert int(whole.sum()) >= 8
    assert float((joined(volume) - (volume.cells[:, :2] + 0.5) / 8)[whole].abs().max()) < 1e-6


def test_textures_are_nearer_to_the_truth_than_in_the_original() -> None:
    for side, resolution in ((64, 8), (64, 16), (32, 24)):
        mesh = shapes.rotated(quad(0.33, material=colored(smooth_image(side)), cells=5), shift=(0.01, 0.02, -0.01))
        ours, theirs = color_errors(mesh, resolution)
        assert ours < 0.02
        assert ours < 0.15 * theirs


def test_small_triangles_all_count() -> None:
    # Their texture changes from one to the next, and most of them cross no edge of the grid: the original does not see these.
    mesh = shapes.rotated(quad(0.33, material=colored(smooth_image(64)), cells=60), shift=(0.01, 0.02, -0.01))
    ours, theirs = color_errors(mesh, 8)
    assert ours < 0.003
    assert ours < 0.02 * theirs


@pytest.mark.parametrize("backend", FAST)
def test_borders_of_a_texture_do_not_bleed(backend: str) -> None:
    # Left half black, right half white: at the left rim a repeating texture would mix in white.
    image = torch.zeros(4, 4, 3, dtype=torch.uint8)
    image[:, 2:] = 255
    mesh = quad(0.4, material=colored(image))
    for resolution in (4, 8, 16):
        first = convert(mesh, resolution, channels=["base_color"], backend=backend)
        low = first.cells[:, 0] == first.cells[:, 0].min()
        assert float(first.values["base_color"][low].max()) < 1e-6
    bled = convert(mesh, 16, channels=["base_color"], compat="trellis2", backend=backend)
    low = bled.cells[:, 0] == bled.cells[:, 0].min()
    assert float(bled.values["base_color"][low].max()) > 0.3
    # A triangle over several periods still wraps.
    tiled = mesh.replace(uv=mesh.uv * 3 - 1)  # pyright: ignore[reportOptionalOperand]
    repeated = convert(tiled, 32, channels=["base_color"], backend=backend)
    columns = torch.stack([repeated.values["base_color"][repeated.cells[:, 0] == i].mean() for i in range(4, 28)])
    assert int((columns.diff().abs() > 0.2).sum()) >= 5


def test_any_size_of_texture_is_read_right() -> None:
    for height, width in ((1, 64), (7, 50), (37, 61), (100, 3)):
        y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
        image = (torch.stack((x, y, 0.5 + 0.5 * torch.sin(6 * x + 2 * y)), -1) * 255).byte()
        mesh = shapes.rotated(quad(0.33, material=colored(image), cells=4), shift=(0.01, 0.02, -0.01))
        truth, hit = dense_truth(mesh, convert(mesh, 8, channels=()).cells, 8, light)
        found = convert(mesh, 8, channels=["base_color"]).values["base_color"]
        assert rms(found[hit] - linear_to_srgb(truth)[hit]) < 0.03
        with pytest.raises(RangeError, match="resize_to_power_of_two"):
            convert(mesh, 8, compat="trellis2")


def test_colours_are_mixed_and_multiplied_in_light() -> None:
    checks = (torch.arange(64)[:, None] + torch.arange(64)) % 2 * 255
    material = dataclasses.replace(colored(checks[:, :, None].expand(-1, -1, 3).byte()), base_color_factor=(1.0, 0.5, 0.25))
    mesh = quad(0.4, material=material)
    middle = slice(20, 44)
    linear = convert(mesh, 8, color_space="linear").values["base_color"][middle]
    encoded = convert(mesh, 8).values["base_color"][middle]
    assert torch.allclose(linear, torch.tensor([0.5, 0.25, 0.125]).expand_as(linear), atol=2e-3)
    assert torch.allclose(encoded, linear_to_srgb(linear), atol=1e-6)
    theirs = convert(mesh, 8, compat="trellis2").values["base_color"][middle]
    assert torch.allclose(theirs, torch.tensor([0.5, 0.25, 0.125]).expand_as(theirs), atol=2e-2)  # encoded, and too dark
    ours_error, their_error = color_errors(mesh, 8)
    assert ours_error < 0.03 < 0.2 < their_error


@pytest.mark.parametrize("backend", FAST)
def test_area_weighs_not_side_or_scale(backend: str) -> None:
    # A white sheet fills its cells, a black strip of a tenth of the width lies below it in the same cells.
    white, black = Material("white"), Material("black", (0.0, 0.0, 0.0))
    strip = quad(0.4, z=0.02)
    strip = strip.replace(vertices=strip.vertices * torch.tensor([0.1, 1.0, 1.0]) + torch.tensor([0.06, 0.0, 0.0]))
    both = TriMesh.concatenate([quad(0.4, z=0.05, material=white), strip.replace(materials=(black,))])
    turned = both.replace(faces=torch.where(both.face_material[:, None] == 1, both.faces.flip(1), both.faces))  # pyright: ignore[reportOptionalSubscript]

    def middle(mesh: TriMesh, scale: float = 1.0, compat: str | None = None) -> float:
        grid = {"origin": (-0.5 * scale,) * 3, "voxel_size": 0.125 * scale, "resolution": 8}
        placed = mesh.replace(vertices=mesh.vertices * scale)
        volume = material_volume(placed, **grid, color_space="srgb" if compat else "linear", compat=compat, backend=backend)  # pyright: ignore[reportArgumentType]
        return float(volume.values["base_color"][(volume.cells == torch.tensor([4, 4, 4])).all(1)][0, 0])

    expected = 0.125 / (0.125 + 0.08)
    assert middle(both) == pytest.approx(expected, abs=1e-5)
    assert middle(turned) == middle(both)
    assert middle(both, 40.0) == pytest.approx(expected, abs=1e-5)
    assert middle(both, compat="trellis2") == 1.0  # the strip crosses no edge of this cell, so the original does not see it
    pair = TriMesh.concatenate([quad(0.4, z=0.05, material=white), quad(0.4, z=0.02, material=black)])
    turned = pair.replace(faces=torch.cat((pair.faces[:2], pair.faces[2:].flip(1))))
    assert middle(pair) == pytest.approx(0.5, abs=1e-6)
    assert middle(turned) == pytest.approx(0.5, abs=1e-6)
    assert abs(middle(pair, compat="trellis2") - middle(turned, compat="trellis2")) > 0.02  # hangs on the winding


@pytest.mark.parametrize("backend", ENGINES)
def test_cutting_triangles_smaller_changes_nothing(backend: str) -> None:
    rough = with_attributes(shapes.rotated(quad(0.33)), "base_color", "metallic", "alpha")
    mid = torch.tensor([[0, 1], [1, 2], [2, 0]])
    corners = rough.faces.long()
    v = len(rough.vertices)

    def split(rows: Tensor) -> Tensor:
        return torch.cat((rows, rows[corners[:, mid]].mean(2).reshape(-1, rows.shape[1])))

    m = v + torch.arange(3 * len(corners)).reshape(-1, 3)
    pieces = [m, *(torch.stack((corners[:, k], m[:, k], m[:, k - 1]), 1) for k in range(3))]
    attributes = {name: split(srgb_to_linear(rows) if name == "base_color" else rows) for name, rows in rough.attributes.items()}
    attributes["base_color"] = linear_to_srgb(attributes["base_color"])
    fine = TriMesh(split(rough.vertices), torch.cat(pieces), attributes=attributes)
    one, four = (convert(mesh, 9, channels=("base_color", "metallic", "alpha"), backend=backend) for mesh in (rough, fine))
    assert torch.equal(one.cells, four.cells)
    assert float((joined(one) - joined(four)).abs().max()) < 2e-6


def test_masks_are_the_share_that_passes() -> None:
    image = torch.zeros(64, 64, 1)
    image[:, :40] = 1.0
    image[torch.arange(64) // 16 % 2 == 0] = 0.0
    material = Material(alpha=Texture(image, (0,), wrap=("clamp", "clamp")), alpha_mode="MASK", alpha_cutoff=0.5)
    mesh = quad(0.4, material=material)
    alpha = convert(mesh, 8, channels=["alpha"])

    def passes(mesh: TriMesh, faces: Tensor, b: Tensor) -> Tensor:
        uv = (mesh.uv[mesh.faces[faces].long()].double() * b[:, :, None]).sum(1)  # pyright: ignore[reportOptionalSubscript]
        return sample_texture(build_pyramid(image, cutoff=0.5), uv, wrap=("clamp", "clamp"))

    truth, hit = dense_truth(mesh, alpha.cells, 8, passes)
    theirs = convert(mesh.replace(materials=(_as_bytes(material),)), 8, channels=["alpha"], compat="trellis2").values["alpha"]
    assert rms(alpha.values["alpha"][hit] - truth[hit]) < 0.06
    assert rms(theirs[hit] - truth[hit]) > 0.15  # all or nothing
    assert int(((theirs > 0.01) & (theirs < 0.99)).sum()) == 0 < int(((truth > 0.2) & (truth < 0.8)).sum())


def _as_bytes(material: Material) -> Material:
    assert material.alpha is not None
    return dataclasses.replace(material, alpha=dataclasses.replace(material.alpha, image=(material.alpha.image * 255).byte()))


@pytest.mark.parametrize("backend", ENGINES)
def test_masks_of_factors_and_vertices_are_cut(backend: str) -> None:
    sheet = quad(0.4, cells=4)
    ramp = (sheet.vertices[:, :1] / 0.8 + 0.5).clamp(0, 1)
    cut = Material(alpha_factor=0.4, alpha_mode="MASK", alpha_cutoff=0.5)

    def alpha(material: Material, **attributes: Tensor) -> Tensor:
        mesh = sheet.replace(materials=(material,), attributes=attributes)
        return convert(mesh, 8, channels=["alpha"], backend=backend).values["alpha"]

    assert alpha(cut).unique().tolist() == [0]
    assert alpha(dataclasses.replace(cut, alpha_factor=0.5)).unique().tolist() == [1]
    assert alpha(dataclasses.replace(cut, alpha_factor=0.0, alpha_cutoff=0.0)).unique().tolist() == [1]
    white = torch.ones(len(ramp), 3)
    for attributes in ({"alpha": ramp}, {"color": torch.cat((white, ramp), 1)}):
        share = alpha(dataclasses.replace(cut, alpha_factor=1.0), **attributes)
        assert float(share.mean()) == pytest.approx(0.5, abs=0.05)
        assert {0.0, 1.0} <= set(share.flatten().tolist())
    assert alpha(Material(), color=torch.cat((white, ramp), 1)).unique().tolist() == [1]  # OPAQUE ignores the colour's alpha
    assert float(alpha(Material(), alpha=ramp).mean()) == pytest.approx(0.5, abs=0.02)  # but not an alpha of its own
