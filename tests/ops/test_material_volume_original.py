"""Materials of cells in compat: the original's numbers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from material_volume_inputs import ENGINES, FAST, PBR, convert, joined, quad

import voxgen
from voxgen.core import Material, Texture, TriMesh
from voxgen.ops.material_volume import CHANNELS, MaterialVolume
from voxgen.ops.texture import resize_to_power_of_two

GOLDEN = Path(__file__).parents[1] / "golden"


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
