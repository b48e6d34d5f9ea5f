"""Materials of cells: normals, emission, vertex attributes, uv sets, several materials, uneven voxels."""

from __future__ import annotations

import dataclasses
import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from material_volume_inputs import ENGINES, FAST, PBR, colored, convert, joined, noise, quad, smooth_image

from voxgen.core import Material, Texture, TriMesh
from voxgen.core.errors import EmptyResultWarning
from voxgen.core.material import linear_to_srgb, srgb_to_linear
from voxgen.ops.material_volume import CHANNELS, material_volume
from voxgen.testing import shapes
from voxgen.testing.cases.material_volume import painted


@pytest.mark.parametrize("backend", ENGINES)
def test_normals_have_unit_length_and_cancel_to_zero(backend: str) -> None:
    ball = shapes.rotated(shapes.sphere(0.4, 2))
    found = convert(ball, 10, channels=["normal"], backend=backend)
    normal = found.values["normal"]
    assert torch.allclose(normal.norm(dim=1), torch.ones(len(normal)), atol=1e-6)
    outward = (found.cells + 0.5) / 10 - 0.5 - torch.tensor([0.013, -0.007, 0.021])
    assert float((normal * torch.nn.functional.normalize(outward, dim=1)).sum(1).min()) > 0.9
    sheet = quad(0.4)
    double = TriMesh(torch.cat((sheet.vertices, sheet.vertices)), torch.cat((sheet.faces, sheet.faces.flip(1) + 4)))
    assert float(convert(double, 6, channels=["normal"], backend=backend).values["normal"].abs().max()) == 0


@pytest.mark.parametrize("backend", ENGINES)
def test_normal_maps_follow_mirrored_coordinates(backend: str) -> None:
    # A map that leans along +u (and a little along +v): in the world it must lean to where u and v grow.
    image = torch.tensor([[[0.5 + 0.3, 0.5 + 0.1, 0.5 + 0.5 * math.sqrt(1 - 0.36 - 0.04)]]])
    material = Material(normal=Texture(image, (0, 1, 2)))
    plain = quad(0.4, material=material)
    expected = torch.tensor([0.6, 0.2, math.sqrt(0.6)])
    for flip in (torch.tensor([1.0, 1.0]), torch.tensor([-1.0, 1.0]), torch.tensor([1.0, -1.0]), torch.tensor([-1.0, -1.0])):
        mesh = plain.replace(uv=plain.uv * flip)  # pyright: ignore[reportOptionalOperand]
        found = convert(mesh, 6, channels=["normal"], backend=backend).values["normal"]
        wanted = expected * torch.tensor([*flip.tolist(), 1.0])
        assert torch.allclose(found, wanted.expand_as(found), atol=1e-5)
    scaled = plain.replace(materials=(dataclasses.replace(material, normal_scale=0.5),))
    found = convert(scaled, 6, channels=["normal"], backend=backend).values["normal"]
    lean = torch.nn.functional.normalize(expected * torch.tensor([0.5, 0.5, 1.0]), dim=0)
    assert torch.allclose(found, lean.expand_as(found), atol=1e-5)
    # The original keeps its signs.
    mirrored = plain.replace(
        uv=plain.uv * torch.tensor([-1.0, 1.0]),  # pyright: ignore[reportOptionalOperand]
        materials=(Material(normal=Texture((image * 255).byte(), (0, 1, 2))),),
    )
    assert float(convert(mirrored, 6, channels=["normal"], compat="trellis2", backend=backend).values["normal"][:, 0].mean()) < 0.65
    assert float(convert(mirrored, 6, channels=["normal"], backend=backend).values["normal"][:, 0].mean()) < -0.55


def test_normal_maps_without_coordinates_leave_the_surface_normal() -> None:
    material = Material(normal=Texture(noise(4, 4, 3), (0, 1, 2)))
    flat = quad(0.4, material=material).replace(uv=torch.zeros(4, 2))
    normal = convert(flat, 6, channels=["normal"]).values["normal"]
    assert torch.allclose(normal, torch.tensor([0.0, 0.0, 1.0]).expand_as(normal))
    degenerate = flat.replace(normals=torch.zeros(4, 3))
    assert torch.equal(convert(degenerate, 6, channels=["normal"]).values["normal"], normal)


@pytest.mark.parametrize("backend", FAST)
def test_emission_has_its_own_levels(backend: str) -> None:
    image = smooth_image(64)
    lamp = Material(emissive_factor=(1.0, 1.0, 1.0), emissive=Texture(image, (0, 1, 2), srgb=True), roughness=Texture(noise(8, 8, 1), (0,)))
    mesh = shapes.rotated(quad(0.33, material=lamp, cells=4), shift=(0.01, 0.02, -0.01))
    painted_same = mesh.replace(materials=(colored(image),))
    glow = convert(mesh, 8, channels=["emissive"], backend=backend).values["emissive"]
    assert torch.equal(glow, convert(painted_same, 8, channels=["base_color"], backend=backend).values["base_color"])
    strong = mesh.replace(materials=(dataclasses.replace(lamp, emissive_factor=(5.0, 1.0, 0.0)),))
    values = convert(strong, 8, channels=["emissive"], color_space="linear", backend=backend).values["emissive"]
    assert float(values.max()) == 1
    assert float(values[:, 2].max()) == 0


@pytest.mark.parametrize("backend", ENGINES)
def test_vertex_colours_multiply_in_light_and_values_replace(backend: str) -> None:
    image = torch.full((2, 2, 3), 188, dtype=torch.uint8)
    mesh = quad(0.4, material=dataclasses.replace(colored(image), metallic_factor=0.1))
    tint = torch.tensor([[0.5, 1.0, 0.2]]).expand(4, -1)
    value = float(srgb_to_linear(torch.tensor(188 / 255)))
    found = convert(mesh.replace(attributes={"color": tint}), 6, color_space="linear", backend=backend).values["base_color"]
    assert torch.allclose(found, (tint[:1] * value).expand_as(found), atol=1e-6)
    rows = {"base_color": tint, "metallic": torch.full((4, 1), 0.7), "roughness": torch.full((4, 1), 0.3), "emissive": tint.flip(1)}
    replaced = convert(mesh.replace(attributes=rows), 6, channels=tuple(CHANNELS), backend=backend).values
    for name, expected in rows.items():
        assert torch.allclose(replaced[name], expected[:1].expand_as(replaced[name]), atol=1e-6), name
    assert bool((replaced["alpha"] == 1).all())


@pytest.mark.parametrize("backend", ENGINES)
def test_a_linear_gradient_of_encoded_vertex_colours_is_mixed_in_light(backend: str) -> None:
    sheet = quad(0.4)
    ends = (sheet.vertices[:, :1] > 0).float().expand(-1, 3)
    found = convert(sheet.replace(attributes={"base_color": ends}), 8, color_space="linear", backend=backend)
    middle = (found.cells[:, 0] == 4) | (found.cells[:, 0] == 3)
    assert float(found.values["base_color"][middle].mean()) == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize("backend", FAST)
def test_second_uv_set_float_images_and_several_materials(backend: str) -> None:
    image = torch.zeros(2, 2, 3)
    image[0, 1] = 1.0  # top right
    first, second = (Material(base_color=Texture(image, (0, 1, 2), uv_set=k, filter="nearest")) for k in (0, 1))
    corner = {0: torch.tensor([0.75, 0.75]), 1: torch.tensor([0.25, 0.25])}
    sheets = [quad(0.2, material=m).replace(uv=corner[0].expand(4, 2), uv1=corner[1].expand(4, 2)) for m in (first, second)]
    bare = quad(0.2).replace(uv=corner[0].expand(4, 2), uv1=corner[1].expand(4, 2))
    mesh = TriMesh.concatenate(
        [s.replace(vertices=s.vertices + torch.tensor([0.0, 0.0, z])) for s, z in zip([*sheets, bare], (-0.3, 0.0, 0.3), strict=True)]
    )
    volume = convert(mesh, 8, color_space="linear", backend=backend)
    of_layer = {k: volume.values["base_color"][volume.cells[:, 2] == k].unique().tolist() for k in volume.cells[:, 2].unique().tolist()}
    assert list(of_layer.values()) == [[1.0], [0.0], pytest.approx([0.8])]
    rough = volume.values["roughness"][volume.cells[:, 2] == max(of_layer)]
    assert rough.unique().tolist() == [0.5]  # Material.plain


def test_faces_pick_their_material_and_minus_one_has_none() -> None:
    red, blue = Material("red", (1.0, 0.0, 0.0)), Material("blue", (0.0, 0.0, 1.0))
    sheet = quad(0.4, cells=2)
    left = sheet.vertices[sheet.faces.long()].mean(1)[:, 0] < 0
    mesh = sheet.replace(materials=(red, blue), face_material=torch.where(left, 1, -1))
    volume = convert(mesh, 8)
    assert torch.equal(volume.values["base_color"][volume.cells[:, 0] < 3].unique(dim=0), torch.tensor([[0.0, 0.0, 1.0]]))
    plain = volume.values["base_color"][volume.cells[:, 0] > 4]
    assert torch.allclose(plain, linear_to_srgb(torch.tensor(0.8)).expand_as(plain))


def test_mip_offset_blurs_and_sharpens() -> None:
    mesh = quad(0.4, material=colored(noise(64, 64, 3)))
    spread = [float(convert(mesh, 16, mip_offset=o).values["base_color"].std()) for o in (-2.0, 0.0, 2.0, 20.0)]
    assert spread[0] > spread[1] > spread[2] > spread[3]
    assert spread[3] < 0.05


def test_channels_come_in_their_order_and_only_those() -> None:
    mesh = painted(shapes.rotated(quad(0.33)))
    assert list(convert(mesh, 6, channels=["alpha", "normal", "base_color", "alpha"]).values) == ["base_color", "alpha", "normal"]
    assert list(convert(mesh, 6).values) == list(PBR)
    assert convert(mesh, 6, channels=[]).values == {}


@pytest.mark.parametrize("backend", ENGINES)
def test_uneven_voxels_weigh_true_areas(backend: str) -> None:
    # Two walls in one cell, across x and across y; cells are long along x, so equal areas are unequal in cells.
    wall = shapes.box((-0.02, -0.3, -0.3), (0.02, 0.3, 0.3))
    one = wall.replace(faces=wall.faces[[0, 1]], materials=(Material("white"),))
    other = shapes.box((-0.3, -0.01, -0.3), (0.3, 0.01, 0.3))
    other = other.replace(faces=other.faces[[4, 5]], materials=(Material("black", (0.0, 0.0, 0.0)),))
    mesh = TriMesh.concatenate([one, other])
    mesh = mesh.replace(vertices=mesh.vertices + torch.tensor([0.06, 0.03, 0.0]))
    grid = {"origin": (-0.5, -0.5, -0.5), "voxel_size": (0.25, 0.1, 0.125), "resolution": (4, 10, 8)}
    volume = material_volume(mesh, **grid, color_space="linear", backend=backend)  # pyright: ignore[reportArgumentType]
    cell = (volume.cells == torch.tensor([2, 5, 4])).all(1)
    assert float(volume.values["base_color"][cell][0, 0]) == pytest.approx(0.1 / (0.1 + 0.25), abs=1e-5)


@pytest.mark.parametrize("backend", ENGINES)
def test_a_surface_on_the_border_or_in_a_grid_plane_has_values(backend: str) -> None:
    for half in (0.5, 0.5 + 0.9e-3 / 8, 0.25):
        mesh = shapes.box((-half, -half, -half), (half, half, half)).replace(materials=(Material("m", (0.2, 0.4, 0.6)),))
        volume = convert(mesh, 8, color_space="linear", backend=backend)
        found = volume.values["base_color"]
        assert torch.allclose(found, torch.tensor([0.2, 0.4, 0.6]).expand_as(found), atol=1e-6)


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("compat", [None, "trellis2"])
def test_a_mesh_that_crosses_no_edge_gives_nothing_and_says_so(backend: str, compat: str | None) -> None:
    tiny = painted(quad(0.01).replace(vertices=quad(0.01).vertices + 0.06))
    with pytest.warns(EmptyResultWarning, match="crosses an edge"):
        volume = convert(tiny, 4, channels=tuple(CHANNELS), compat=compat, backend=backend)
    assert volume.cells.shape == (0, 3)
    assert {name: (value.shape, value.dtype) for name, value in volume.values.items()} == {
        name: ((0, width), torch.float32) for name, width in CHANNELS.items()
    }


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    points=st.lists(st.tuples(*[st.integers(0, 64)] * 3), min_size=3, max_size=9),
    resolution=st.sampled_from([3, 8, 20]),
    seed=st.integers(0, 1000),
)
def test_lattice_soups_give_finite_values_and_engines_agree(points: list[tuple[int, int, int]], resolution: int, seed: int) -> None:
    # Corners on the planes of the grid and triangles without area: every tie there is.
    vertices = torch.tensor(points).float() / 64 - 0.5
    faces = torch.randint(0, len(points), (6, 3), generator=torch.Generator().manual_seed(seed))
    a, b, c = vertices[faces].unbind(1)
    if float(torch.linalg.cross(b - a, c - a).norm(dim=1).max()) < 1e-6:
        return
    mesh = painted(TriMesh(vertices, faces), seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyResultWarning)
        one, other = (convert(mesh, resolution, channels=tuple(CHANNELS), backend=backend) for backend in FAST)
    assert torch.equal(one.cells, other.cells)
    assert bool(torch.isfinite(joined(one)).all())
    assert torch.allclose(joined(one), joined(other), atol=1e-5)
