"""Materials of cells: the original's numbers in compat, and for the default the truth by dense sampling of the surface."""

from __future__ import annotations

import dataclasses
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import voxgen
from voxgen.core import Frame, Material, Texture, TriMesh
from voxgen.core.errors import DtypeError, EmptyResultWarning, FrameError, MeshError, MeshWarning, RangeError, ShapeError
from voxgen.core.material import linear_to_srgb, srgb_to_linear
from voxgen.ops.material_volume import CHANNELS, OP, MaterialVolume, material_volume
from voxgen.ops.texture import build_pyramid, resize_to_power_of_two, sample_texture
from voxgen.ops.voxelize import triangle_cells
from voxgen.testing import shapes
from voxgen.testing.cases.material_volume import painted, with_attributes
from voxgen.testing.cases.voxelize import grid_of

ENGINES = list(OP.backends)
FAST = [name for name in ENGINES if name != "reference"]
GOLDEN = Path(__file__).parents[1] / "golden"
PBR = ("base_color", "metallic", "roughness", "alpha")


def convert(mesh: TriMesh, resolution: int | tuple[int, int, int], **options: Any) -> MaterialVolume:
    return material_volume(mesh, **{**grid_of(resolution), **options})  # pyright: ignore[reportArgumentType]


def joined(volume: MaterialVolume) -> Tensor:
    return torch.cat(list(volume.values.values()), 1)


def rms(error: Tensor) -> float:
    return float(error.double().square().mean().sqrt())


# The original's numbers.


def golden(name: str) -> dict[str, np.ndarray]:
    return dict(np.load(GOLDEN / f"ovoxel_materials_{name}.npz"))


def texture(image: np.ndarray, *channels: int, **options: Any) -> Texture:
    pixels = torch.from_numpy(np.ascontiguousarray(image))
    return Texture(pixels if pixels.ndim == 3 else pixels[:, :, None], channels, **options)


def part(arrays: dict[str, np.ndarray], prefix: str, *materials: Material) -> TriMesh:
    fields: dict[str, Any] = {
        name: torch.from_numpy(arrays[prefix + name]) for name in ("vertices", "faces", "normals", "uv") if prefix + name in arrays
    }
    return TriMesh(**fields, materials=materials)


def assert_original(volume: MaterialVolume, coords: np.ndarray, raw: np.ndarray, tolerance: float) -> None:
    assert np.array_equal(volume.cells.numpy(), coords[:, -3:])
    assert float((joined(volume) - torch.from_numpy(raw)).abs().max()) <= tolerance


def assert_bytes(volume: MaterialVolume, arrays: dict[str, np.ndarray], prefix: str = "", tolerance: float = 5e-3) -> None:
    """Truncated bytes agree, but where the value lies within the tolerance (in bytes) of a whole number."""
    for name, value in volume.values.items():
        exact = ((value * 0.5 + 0.5 if name == "normal" else value) * 255).clamp(0, 255)
        expected = torch.from_numpy(arrays[prefix + name]).int()
        near_whole = (exact - exact.round()).abs() < tolerance
        assert bool(((exact.int() == expected) | near_whole).all()), name
        assert int((exact.int() - expected).abs().max()) <= 1, name


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("kind", ["nearest", "linear"])
@pytest.mark.parametrize("rule", ["repeat", "clamp", "mirror"])
def test_golden_filters_and_wrapping(backend: str, kind: str, rule: str) -> None:
    arrays = golden("wrap")
    options = {"filter": kind, "wrap": (rule, rule)}
    one = texture(arrays["one"], 0, **options)
    material = Material(
        "m", (0.9, 0.8, 0.7), texture(arrays["color"], 0, 1, 2, **options), 0.75, one, 0.6, one, alpha_mode="BLEND"
    )  # fmt: skip
    volume = convert(part(arrays, "", material), 20, channels=("base_color", "metallic", "alpha"), compat="trellis2", backend=backend)
    case = f"f{['nearest', 'linear'].index(kind)}w{['repeat', 'clamp', 'mirror'].index(rule)}"
    assert_original(volume, arrays["coords"], arrays[case], 2e-5)


def parts_mesh(arrays: dict[str, np.ndarray]) -> TriMesh:
    listing = json.loads((GOLDEN / "ovoxel_materials_parts.json").read_text())["materials"]
    meshes = []
    for name, m in listing.items():
        color = [c / 255 for c in m["baseColorFactor"]]

        def image(slot: str, *channels: int, m: dict[str, Any] = m, **options: Any) -> Texture | None:
            return texture(arrays[f"texture_{m[slot]}"], *channels, **options) if slot in m else None

        with_alpha = "baseColorTexture" in m and arrays[f"texture_{m['baseColorTexture']}"].shape[2] == 4
        material = Material(
            name,
            base_color_factor=(color[0], color[1], color[2]),
            base_color=image("baseColorTexture", 0, 1, 2, srgb=True),
            alpha_factor=color[3],
            alpha=image("baseColorTexture", 3) if with_alpha else None,
            metallic_factor=m.get("metallicFactor", 1.0),
            metallic=image("metallicRoughnessTexture", 2),
            roughness_factor=m.get("roughnessFactor", 1.0),
            roughness=image("metallicRoughnessTexture", 1),
            emissive_factor=tuple(m.get("emissiveFactor", (0.0, 0.0, 0.0))),
            emissive=image("emissiveTexture", 0, 1, 2, srgb=True),
            normal=image("normalTexture", 0, 1, 2),
            alpha_mode=m["alphaMode"],
            alpha_cutoff=m.get("alphaCutoff", 0.5),
        )
        meshes.append(part(arrays, f"{name}_", material))
    return TriMesh.concatenate(meshes)


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize(
    ("case", "resolution", "offset", "channels"),
    [
        ("g32", 32, 0.0, (*PBR, "normal")),
        ("odd", (28, 40, 33), -0.5, (*PBR, "normal")),
        ("base", 20, -30.0, tuple(CHANNELS)),
    ],
)
def test_golden_four_materials(backend: str, case: str, resolution: int, offset: float, channels: tuple[str, ...]) -> None:
    arrays = golden("parts")
    volume = convert(parts_mesh(arrays), resolution, channels=channels, mip_offset=offset, compat="trellis2", backend=backend)
    assert_original(volume, arrays[f"{case}_coords"], arrays[f"{case}_raw"], 5e-5)
    assert_bytes(volume, arrays, f"{case}_")


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("own", [False, True], ids=["their-resizing", "own-resizing"])
def test_golden_blender_form(backend: str, own: bool) -> None:
    arrays = golden("dump")

    def image(name: str, *channels: int, **options: Any) -> Texture:
        resized = arrays[f"resized_{name}"] if not own and f"resized_{name}" in arrays else arrays[f"image_{name}"]
        return resize_to_power_of_two(texture(resized[::-1], *channels, **options))  # row 0 of a dump is the bottom

    painted_one = Material(
        "0",
        base_color_factor=(0.9, 0.7, 1.0),
        base_color=image("color", 0, 1, 2, wrap=("clamp", "clamp")),
        alpha_factor=0.8,
        alpha=image("alpha", 0, wrap=("clamp", "clamp")),
        metallic_factor=0.5,
        metallic=image("metal", 0, filter="nearest", wrap=("mirror", "mirror")),
        roughness_factor=0.4,
        roughness=image("metal", 0),
        alpha_mode="BLEND",
    )
    second = part(arrays, "object1_", painted_one, Material.plain())
    second = second.replace(face_material=torch.from_numpy(arrays["object1_mat_ids"]))
    mesh = TriMesh.concatenate([part(arrays, "object0_", painted_one), second])
    volume = convert(mesh, 24, compat="trellis2", backend=backend)
    assert_original(volume, arrays["coords"], arrays["raw"], 2 / 255 if own else 2e-5)
    if not own:
        assert_bytes(volume, arrays)


def fitted(mesh: TriMesh, dtype: torch.dtype) -> TriMesh:
    """In the unit cube, with the arithmetic of the goldens."""
    low, high = (b.to(dtype) for b in mesh.bounds())
    scale = torch.tensor(0.99999, dtype=dtype) / (high - low).max()
    return mesh.replace(vertices=((mesh.vertices.to(dtype) - (low + high) / 2) * scale).float())


@pytest.mark.parametrize("backend", FAST)
def test_golden_one_large_texture(backend: str, data: Path) -> None:
    arrays = golden("spot")
    mesh = fitted(voxgen.io.load_mesh(data / "spot" / "spot.obj"), torch.float32)
    mesh = mesh.replace(materials=(Material(base_color=mesh.materials[0].base_color),), face_material=None)
    for case, resolution, offset in (("g32", 32, 0.0), ("g32_offset", 32, -1.5), ("g64", 64, 0.0)):
        volume = convert(mesh, resolution, mip_offset=offset, compat="trellis2", backend=backend)
        for name in ("metallic", "roughness", "alpha"):
            assert bool((volume.values[name] == 1).all())
        color = MaterialVolume(volume.cells, {"base_color": volume.values["base_color"]})
        assert_bytes(color, arrays, f"{case}_")
        if case != "g64":
            assert_original(color, arrays["g32_coords"], arrays[f"{case}_raw"], 5e-5)
        else:
            assert np.array_equal(volume.cells.numpy(), arrays["g64_coords"][:, -3:])


@pytest.mark.parametrize("backend", FAST)
def test_golden_alpha_modes(backend: str, data: Path) -> None:
    arrays = golden("alpha_blend")
    mesh = fitted(voxgen.io.load_mesh(data / "alpha_blend.glb"), torch.float64)
    volume = convert(mesh, 64, compat="trellis2", backend=backend)
    assert_original(volume, arrays["coords"], arrays["raw"], 1e-3)  # float32 uv of the original on textures of 2048 texels
    assert_bytes(volume, arrays, tolerance=0.25)  # the same 1e-3, in bytes


@pytest.mark.parametrize("backend", ENGINES)
def test_original_numbers_of_a_quad_by_hand(backend: str) -> None:
    y, x = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
    color = torch.stack((80 * x, 80 * y, 10 * (4 * y + x), 255 - 20 * x), -1).byte()
    packed = torch.stack((torch.zeros_like(x), 16 * (4 * y + x), torch.full_like(x, 200)), -1).byte()
    material = Material(
        base_color_factor=(1.0, 128 / 255, 1.0),
        base_color=Texture(color, (0, 1, 2), srgb=True),
        alpha=Texture(color, (3,)),
        metallic_factor=0.5,
        metallic=Texture(packed, (2,)),
        roughness=Texture(packed, (1,)),
    )
    mesh = quad(0.4, z=0.01, material=material)

    def rows(resolution: int = 4, mesh: TriMesh = mesh, offset: float = 0.0) -> dict[tuple[int, ...], list[int]]:
        volume = convert(mesh, resolution, compat="trellis2", mip_offset=offset, backend=backend)
        data = (joined(volume) * 255 + 1e-3).clamp(0, 255).int().tolist()  # what is whole stays whole
        return dict(zip(map(tuple, volume.cells.tolist()), data, strict=True))

    assert {c[2] for c in rows()} == {2}
    assert len(rows()) == 16
    assert rows()[0, 0, 2] == [96, 72, 83, 100, 134, 255]
    assert rows()[0, 2, 2][:3] == [96, 35, 47]
    assert rows()[1, 1, 2][:3] == [70, 85, 93]
    assert rows(offset=-1.0)[0, 0, 2][:3] == [90, 75, 86]
    assert rows(8)[0, 0, 4][:3] == [165, 37, 58]  # what lies beyond the border of the texture bleeds in
    blended = rows(mesh=mesh.replace(materials=(dataclasses.replace(material, alpha_mode="BLEND"),)))
    assert (blended[0, 0, 2][5], blended[1, 0, 2][5]) == (230, 237)
    masked = rows(mesh=mesh.replace(materials=(dataclasses.replace(material, alpha_mode="MASK", alpha_cutoff=0.9),)))
    assert [masked[i, 0, 2][5] for i in range(4)] == [255, 255, 0, 0]


# Meshes and truth for the default.


def quad(half: float, z: float = 0.013, material: Material | None = None, cells: int = 1) -> TriMesh:
    """A square sheet across z with uv over [0, 1]², in cells² squares."""
    t = torch.linspace(0, 1, cells + 1)
    v, u = torch.meshgrid(t, t, indexing="ij")
    points = torch.stack(((u * 2 - 1) * half, (v * 2 - 1) * half, torch.full_like(u, z)), -1).reshape(-1, 3)
    faces = shapes.quad_faces(cells + 1, cells + 1).flip(1)
    uv = torch.stack((u, v), -1).reshape(-1, 2)
    return TriMesh(points, faces, uv=uv, materials=() if material is None else (material,))


def colored(image: Tensor, **options: Any) -> Material:
    return Material(base_color=Texture(image, (0, 1, 2), **{"srgb": True, **options}))


def noise(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(11), dtype=torch.uint8)


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


def smooth_image(side: int) -> Tensor:
    """A texture with detail at several scales, different at its four borders."""
    y, x = torch.meshgrid(torch.linspace(0, 1, side), torch.linspace(0, 1, side), indexing="ij")
    bands = [0.5 + 0.3 * torch.sin(9 * x + 4 * y) + 0.2 * x, y, 0.5 + 0.5 * torch.sin(40 * x) * torch.cos(23 * y)]
    return (torch.stack(bands, -1).clamp(0, 1) * 255).byte()


# What the default promises.


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


# Normals.


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


# Everything a mesh may carry.


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


# Wrong input.


def test_wrong_arguments_are_named() -> None:
    mesh = painted(shapes.rotated(quad(0.33)))
    wrong: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"channels": ["colour"]}, RangeError, "channels must be one of 'base_color'"),
        ({"channels": "alpha"}, DtypeError, r"Write \['alpha'\]"),
        ({"resolution": 0}, RangeError, "resolution must be at least 1|resolution must be from 1"),
        ({"resolution": -4}, RangeError, "resolution"),
        ({"resolution": 2.5}, DtypeError, "whole number"),
        ({"resolution": 100_000}, RangeError, "resolution"),
        ({"voxel_size": 0.0}, RangeError, "voxel_size must be positive"),
        ({"origin": (0.0, float("nan"), 0.0)}, RangeError, "origin must be finite"),
        ({"origin": (0.3, 0.3, 0.3)}, FrameError, "inside the box"),
        ({"compat": "trellis"}, RangeError, "'trellis2'"),
        ({"color_space": "sRGB"}, RangeError, "'linear'"),
        ({"color_space": "linear", "compat": "trellis2"}, RangeError, "encoded"),
        ({"mip_offset": float("inf")}, RangeError, "mip_offset"),
        ({"mip_offset": "sharp"}, RangeError, "mip_offset"),
        ({"compat": "trellis2", "voxel_size": 0.6}, RangeError, "unit cube"),
    ]
    for options, error, message in wrong:
        with pytest.raises(error, match=message):
            material_volume(mesh, **{**grid_of(6), **options})  # pyright: ignore[reportArgumentType]
    with pytest.raises(DtypeError, match="load_mesh"):
        convert("asset.glb", 6)  # pyright: ignore[reportArgumentType]


def test_broken_meshes_are_named() -> None:
    mesh = painted(shapes.rotated(quad(0.33)))
    nan = torch.full_like(mesh.vertices, float("nan"))
    bad_uv = mesh.uv.clone()  # pyright: ignore[reportOptionalMemberAccess]
    bad_uv[2, 0] = float("inf")
    wrong: list[tuple[TriMesh, type[Exception], str]] = [
        (mesh.replace(faces=mesh.faces[:0], face_material=None), MeshError, "at least one face"),
        (mesh.replace(vertices=nan), MeshError, "finite"),
        (mesh.replace(faces=mesh.faces + 9), MeshError, "must index"),
        (mesh.replace(faces=torch.zeros_like(mesh.faces)), MeshError, "area"),
        (mesh.replace(face_material=torch.full((mesh.num_faces,), 4)), MeshError, "face_material"),
        (mesh.replace(uv=bad_uv, face_material=None), MeshError, "uv must be finite where faces use it.*vertex 2"),
        (mesh.replace(normals=nan), MeshError, "normals must be finite"),
        (mesh.replace(attributes={"color": torch.ones(4, 2)}), ShapeError, "3 or 4 columns"),
        (mesh.replace(attributes={"metallic": torch.ones(4, 3)}), ShapeError, "1 columns"),
        (mesh.replace(attributes={"color": torch.ones(4, 3, dtype=torch.uint8)}), DtypeError, "Divide bytes by 255"),
        (mesh.replace(attributes={"alpha": torch.full((4, 1), float("nan"))}), MeshError, "attributes"),
        (mesh.replace(materials=(colored(torch.full((2, 2, 3), float("nan"))),), face_material=None), RangeError, "texture.*finite"),
    ]
    for broken, error, message in wrong:
        with pytest.raises(error, match=message):
            convert(broken, 6, channels=tuple(CHANNELS))


def test_what_is_not_used_may_be_broken() -> None:
    mesh = painted(shapes.rotated(quad(0.33)))
    nan = torch.full((4, 2), float("nan"))
    plain = mesh.replace(uv=nan, uv1=nan, normals=torch.full((4, 3), float("nan")), materials=(Material(),), face_material=None)
    assert bool(torch.isfinite(joined(convert(plain, 6))).all())
    lonely = mesh.replace(  # a vertex without faces
        vertices=torch.cat((mesh.vertices, torch.zeros(1, 3))),
        uv=torch.cat((mesh.uv, nan[:1])),  # pyright: ignore[reportArgumentType]
        uv1=None,
        materials=(colored(noise(4, 4, 3)),),
        face_material=None,
    )
    assert bool(torch.isfinite(joined(convert(lonely, 6))).all())


@pytest.mark.parametrize("backend", ENGINES)
def test_a_texture_without_coordinates_warns_and_reads_the_origin(backend: str) -> None:
    image = noise(4, 4, 3)
    mesh = quad(0.4, material=colored(image, wrap=("clamp", "clamp"))).replace(uv=None)
    with pytest.warns(MeshWarning, match=r"no uv.*\(0, 0\)"):
        found = convert(mesh, 6, channels=["base_color"], backend=backend).values["base_color"]
    assert torch.allclose(found, (image[3, 0].float() / 255).expand_as(found), atol=1e-6)
    second = mesh.replace(uv=torch.zeros(4, 2), materials=(colored(image, uv_set=1),))
    with pytest.warns(MeshWarning, match="no uv1"):
        convert(second, 6, backend=backend)


def test_compat_warns_that_it_knows_no_vertex_attributes() -> None:
    mesh = with_attributes(quad(0.4, material=Material()), "color", "metallic")
    with pytest.warns(MeshWarning, match="color, metallic"):
        found = convert(mesh, 6, compat="trellis2").values
    assert bool((found["base_color"] == 1).all())
    assert bool((found["metallic"] == 1).all())


def test_a_bar_is_shown_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    mesh = painted(shapes.rotated(quad(0.33)))
    for backend in FAST:
        for compat in (None, "trellis2"):
            shown = convert(mesh, 12, progress=True, compat=compat, backend=backend)
            assert "materials" in capsys.readouterr().err
            assert torch.equal(joined(shown), joined(convert(mesh, 12, compat=compat, backend=backend)))
            assert capsys.readouterr().err == ""


def test_results_do_not_hang_on_the_number_of_threads() -> None:
    import numba

    mesh = painted(shapes.rotated(shapes.torus(around=20, across=10)))
    threads = numba.get_num_threads()
    results = []
    try:
        for count in (1, threads):
            numba.set_num_threads(count)
            results.append(joined(convert(mesh, 24, channels=tuple(CHANNELS), backend="numba")))
    finally:
        numba.set_num_threads(threads)
    assert torch.equal(results[0], results[1])


def test_rows_do_not_hang_on_the_order_of_the_faces() -> None:
    mesh = painted(shapes.rotated(shapes.torus(around=20, across=10)))
    order = torch.randperm(mesh.num_faces)
    shuffled = mesh.replace(faces=mesh.faces[order], face_material=mesh.face_material[order])  # pyright: ignore[reportOptionalSubscript]
    one, other = convert(mesh, 16), convert(shuffled, 16)
    assert torch.equal(one.cells, other.cells)
    assert float((joined(one) - joined(other)).abs().max()) < 1e-6


def test_a_frame_gives_the_arguments_of_the_grid() -> None:
    mesh = painted(shapes.rotated(quad(0.33)))
    moved = mesh.replace(vertices=mesh.vertices * 30 + torch.tensor([100.0, -50.0, 7.0]))
    frame = Frame.box((85.0, -65.0, -8.0), (115.0, -35.0, 22.0), 10)
    far = material_volume(moved, origin=frame.origin, voxel_size=frame.voxel_size, resolution=10)
    near = convert(mesh, 10)
    assert torch.equal(far.cells, near.cells)
    assert float((joined(far) - joined(near)).abs().max()) < 1e-3  # vertices are float32: 1e-5 voxel here
