"""Saving: what stands in the files, which image is written how, and that a failure leaves nothing behind."""

import errno
import io
import json
import os
import struct
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from voxgen.core import Material, Texture, TriMesh
from voxgen.core.errors import DtypeError, FileFormatError, FileWarning, MeshError
from voxgen.core.material import srgb_to_linear
from voxgen.io import load_mesh, save_mesh
from voxgen.testing.shapes import box, wavy_sheet

SUFFIXES = [".glb", ".gltf", ".ply", ".obj", ".stl", ".off"]


def document(path: Path) -> dict:
    content = path.read_bytes()
    (size,) = struct.unpack_from("<I", content, 12)
    return json.loads(content[20 : 20 + size])


def pixels_of(path: Path) -> list[Image.Image]:
    content, found = path.read_bytes(), []
    root = document(path)
    start = 20 + struct.unpack_from("<I", content, 12)[0] + 8
    for image in root.get("images", []):
        view = root["bufferViews"][image["bufferView"]]
        begin = start + view["byteOffset"]
        found.append(Image.open(io.BytesIO(content[begin : begin + view["byteLength"]])))
    return found


def textured(**slots) -> TriMesh:
    return wavy_sheet(4).replace(materials=(Material("m", **slots),))


def byte_image(channels: int, size: tuple[int, int] = (6, 4)) -> torch.Tensor:
    return torch.randint(0, 256, (*size, channels), dtype=torch.uint8)


def test_valid_glb(tmp_path):
    mesh = box().replace(part_names=("a", "b"), face_part=torch.arange(12).div(6, rounding_mode="floor"))
    save_mesh(mesh, tmp_path / "a.glb")
    root, size = document(tmp_path / "a.glb"), (tmp_path / "a.glb").stat().st_size
    assert root["asset"]["version"] == "2.0"
    assert size % 4 == 0
    assert [n["name"] for n in root["nodes"]] == ["a", "b"]
    position = root["accessors"][root["meshes"][0]["primitives"][0]["attributes"]["POSITION"]]
    assert position["min"] == mesh.vertices[mesh.faces[:6].unique().long()].amin(0).tolist()
    for accessor in root["accessors"]:
        view = root["bufferViews"][accessor["bufferView"]]
        assert view["byteOffset"] % 4 == 0
    for view in root["bufferViews"]:
        assert view["byteOffset"] + view["byteLength"] <= root["buffers"][0]["byteLength"]


def test_trimesh_reads_the_same_triangles(tmp_path):
    """Another reader, other code: parts and positions agree."""
    import trimesh

    mesh = TriMesh.concatenate([box(), box((1.0, 1.0, 1.0), (2.0, 2.0, 2.0))]).replace(part_names=("a", "b"))
    for suffix in (".glb", ".gltf", ".ply", ".stl", ".off", ".obj"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            save_mesh(mesh, tmp_path / f"a{suffix}")
            loaded = trimesh.load_scene(tmp_path / f"a{suffix}", process=False)
        corners = np.concatenate([g.triangles for g in loaded.geometry.values()])
        order = lambda c: sorted(map(tuple, np.asarray(c, np.float32).reshape(-1, 9).tolist()))  # noqa: E731
        assert order(corners) == order(mesh.corners().numpy()), suffix


def test_z_up_is_turned_for_gltf_only(tmp_path):
    mesh = TriMesh(torch.tensor([[1.0, 2, 3], [4, 5, 6], [7, 8, 10]]), torch.tensor([[0, 1, 2]]), up="z")
    save_mesh(mesh, tmp_path / "a.glb")
    turned = load_mesh(tmp_path / "a.glb")
    assert (turned.up, turned.vertices[0].tolist()) == ("y", [1, 3, -2])
    save_mesh(mesh, tmp_path / "a.ply")
    assert torch.equal(load_mesh(tmp_path / "a.ply", up="z").vertices, mesh.vertices)


def test_images_in_the_layout_of_gltf_are_written_once_and_unchanged(tmp_path):
    base, packed = byte_image(4), byte_image(3)
    mesh = textured(
        base_color=Texture(base, (0, 1, 2), srgb=True, name="base"),
        alpha=Texture(base, (3,)),
        metallic=Texture(packed, (2,)),
        roughness=Texture(packed, (1,)),
        occlusion=Texture(packed, (0,)),
    )
    save_mesh(mesh, tmp_path / "a.glb")
    first, second = pixels_of(tmp_path / "a.glb")
    assert np.array_equal(np.asarray(first), base.numpy())
    assert np.array_equal(np.asarray(second), packed.numpy())
    root = document(tmp_path / "a.glb")
    assert root["images"][0]["name"] == "base"
    (m,) = load_mesh(tmp_path / "a.glb").materials
    assert {slot: t.channels for slot, t in m.textures.items()} == {s: t.channels for s, t in mesh.materials[0].textures.items()}


@pytest.mark.parametrize(
    ("slots", "expected"),
    [
        ({"base_color": (3, (0, 1, 2))}, "RGB"),
        ({"base_color": (1, (0, 0, 0))}, "L"),
        ({"base_color": (4, (0, 1, 2))}, "RGB"),  # its fourth channel is not alpha: a reader must not find it
        ({"base_color": (3, (2, 1, 0))}, "RGB"),
        ({"base_color": (3, (0, 1, 2)), "alpha": (1, (0,))}, "RGBA"),
        ({"alpha": (3, (1,))}, "RGBA"),
        ({"metallic": (1, (0,)), "roughness": (4, (3,))}, "RGB"),
        ({"metallic": (1, (0,))}, "RGB"),  # a grey one would be roughness too
        ({"roughness": (2, (1,))}, "RGB"),
        ({"occlusion": (3, (2,))}, "L"),
        ({"normal": (4, (0, 1, 2))}, "RGBA"),
        ({"emissive": (5, (4, 2, 0))}, "RGB"),
    ],
    ids=str,
)
def test_packing(tmp_path, slots, expected):
    """Whatever channels a texture reads, after saving and loading it has the same values."""
    made = {slot: Texture(byte_image(channels), picked) for slot, (channels, picked) in slots.items()}
    save_mesh(textured(**made), tmp_path / "a.glb")
    (image,) = pixels_of(tmp_path / "a.glb")
    assert image.mode == expected
    (m,) = load_mesh(tmp_path / "a.glb").materials
    for slot, texture in made.items():
        assert torch.equal(m.textures[slot].values, texture.values), slot
    for slot, texture in m.textures.items():
        assert slot in made or bool((texture.values == 1).all()), f"{slot} was made up"


def test_packing_of_different_sizes_and_depths(tmp_path):
    wide = torch.randint(0, 65536, (6, 4, 1)).float() / 65535
    save_mesh(textured(metallic=Texture(wide, (0,)), roughness=Texture(byte_image(1, (3, 2)), (0,))), tmp_path / "a.glb")
    (m,) = load_mesh(tmp_path / "a.glb").materials
    assert m.metallic is not None
    assert m.roughness is not None
    assert torch.equal(m.metallic.values, wide)
    assert m.roughness.values.shape == (6, 4, 1)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bits_survive(tmp_path, channels):
    image = torch.randint(0, 65536, (5, 7, channels)).float() / 65535
    picked = (0, 1, 2) if channels > 2 else (0, 0, 0)
    alpha = Texture(image, (channels - 1,)) if channels in (2, 4) else None
    mesh = textured(base_color=Texture(image, picked, srgb=True), alpha=alpha)
    save_mesh(mesh, tmp_path / "a.glb")
    (m,) = load_mesh(tmp_path / "a.glb").materials
    assert m.base_color is not None
    assert torch.equal(m.base_color.image, image)


def test_values_and_samplers_that_cannot_be_kept_are_said(tmp_path):
    with pytest.warns(FileWarning, match=r"outside \[0, 1\]"):
        save_mesh(textured(emissive=Texture(torch.full((2, 2, 3), 2.0), (0, 1, 2))), tmp_path / "a.glb")
    clamp = Texture(byte_image(1), (0,), wrap=("clamp", "clamp"))
    with pytest.warns(FileWarning, match="differ in wrap, filter or uv set"):
        save_mesh(textured(metallic=clamp, roughness=Texture(byte_image(1), (0,))), tmp_path / "a.glb")


def test_every_material_property_survives(tmp_path):
    image = byte_image(3)
    material = Material(
        "all", (0.1, 0.2, 0.3), Texture(image, (0, 1, 2), ("mirror", "clamp"), "nearest", 1, True, "picture"), 0.4,
        metallic_factor=0.5, roughness_factor=0.6, emissive_factor=(4.0, 2.0, 0.5), normal=Texture(image, (0, 1, 2), uv_set=1),
        normal_scale=0.7, occlusion=Texture(image, (0,)), occlusion_strength=0.8, alpha_mode="MASK", alpha_cutoff=0.9,
        double_sided=True, extras={"a": [1, {"b": None}], "not json": object()},
    )  # fmt: skip
    sheet = wavy_sheet(4)
    save_mesh(sheet.replace(materials=(material, Material()), uv1=sheet.uv), tmp_path / "a.glb")
    first, second = load_mesh(tmp_path / "a.glb").materials
    for name in ("name", "base_color_factor", "alpha_factor", "metallic_factor", "roughness_factor", "emissive_factor", "normal_scale",
                 "occlusion_strength", "alpha_mode", "alpha_cutoff", "double_sided"):  # fmt: skip
        assert getattr(first, name) == getattr(material, name), name
    assert first.extras == {"a": [1, {"b": None}]}
    for slot, texture in material.textures.items():
        for name in ("channels", "wrap", "filter", "uv_set", "srgb"):
            assert getattr(first.textures[slot], name) == getattr(texture, name), (slot, name)
        assert torch.equal(first.textures[slot].image, image)
    assert second == Material() or second.textures == {}


def attribute_mesh(**attributes) -> TriMesh:
    return TriMesh(torch.randn(4, 3), torch.tensor([[0, 1, 2], [1, 2, 3]]), attributes=attributes)


def stored_color(path: Path) -> np.ndarray:
    root, content = document(path), path.read_bytes()
    accessor = root["accessors"][root["meshes"][0]["primitives"][0]["attributes"]["COLOR_0"]]
    start = 20 + struct.unpack_from("<I", content, 12)[0] + 8 + root["bufferViews"][accessor["bufferView"]]["byteOffset"]
    width = int(accessor["type"][-1])
    return np.frombuffer(content, np.float32, accessor["count"] * width, start).reshape(-1, width)


def test_attributes_are_shown_and_kept(tmp_path):
    base, alpha = torch.rand(4, 3), torch.rand(4, 1)
    mesh = attribute_mesh(base_color=base, alpha=alpha, metallic=torch.full((4, 1), 0.25), roughness=torch.full((4, 1), 0.75))
    save_mesh(mesh, tmp_path / "a.glb")
    shown = stored_color(tmp_path / "a.glb")
    assert np.allclose(shown, torch.cat((srgb_to_linear(base), alpha), 1).numpy(), atol=1e-7)
    (material,) = document(tmp_path / "a.glb")["materials"]
    assert (material["alphaMode"], material["doubleSided"]) == ("BLEND", True)
    assert material["pbrMetallicRoughness"]["metallicFactor"] == 0.25
    assert material["pbrMetallicRoughness"]["roughnessFactor"] == 0.75
    again = load_mesh(tmp_path / "a.glb")
    assert again.materials == ()
    assert set(again.attributes) == set(mesh.attributes), "the shown colour does not count a second time"
    for name, values in mesh.attributes.items():
        assert torch.equal(again.attributes[name], values)
    save_mesh(attribute_mesh(base_color=base, alpha=torch.ones(4, 1)), tmp_path / "b.glb")
    assert document(tmp_path / "b.glb")["materials"][0]["alphaMode"] == "OPAQUE"


def test_shown_colour_does_not_multiply_a_texture(tmp_path):
    sheet = textured(base_color=Texture(byte_image(3), (0, 1, 2)))
    mesh = sheet.replace(attributes={"base_color": torch.rand(sheet.num_vertices, 3)})
    save_mesh(mesh, tmp_path / "a.glb")
    assert "COLOR_0" not in document(tmp_path / "a.glb")["meshes"][0]["primitives"][0]["attributes"]
    assert torch.equal(load_mesh(tmp_path / "a.glb").attributes["base_color"], mesh.attributes["base_color"])
    mesh = sheet.replace(attributes={"color": torch.rand(sheet.num_vertices, 4)})  # this one is meant to multiply
    save_mesh(mesh, tmp_path / "a.glb")
    assert np.array_equal(stored_color(tmp_path / "a.glb"), mesh.attributes["color"].numpy())


def test_bytes_count_as_fractions(tmp_path):
    base = torch.randint(0, 256, (4, 3), dtype=torch.uint8)
    save_mesh(attribute_mesh(base_color=base), tmp_path / "a.glb")
    assert np.allclose(stored_color(tmp_path / "a.glb"), srgb_to_linear(base.float() / 255).numpy(), atol=1e-7)
    assert torch.equal(load_mesh(tmp_path / "a.glb").attributes["base_color"], base)


def test_rounding_is_said(tmp_path):
    with pytest.warns(FileWarning, match="'big' is rounded to float32"):
        save_mesh(attribute_mesh(big=torch.full((4, 1), 2**24 + 1)), tmp_path / "a.glb")
    with pytest.warns(FileWarning, match="'big' is rounded to 53 bits"):
        save_mesh(attribute_mesh(big=torch.full((4, 1), 2**53 + 1)), tmp_path / "a.ply")


def test_what_a_format_has_no_place_for_is_said(tmp_path):
    image = Texture(byte_image(3), (0,))
    mesh = textured(occlusion=image).replace(uv1=wavy_sheet(4).uv, part_names=("a", "b"))
    mesh = mesh.replace(attributes={"custom": torch.rand(mesh.num_vertices, 1)})
    for suffix, words in (
        (".ply", "materials"),
        (".obj", "second uv set, attribute 'custom', occlusion maps"),
        (".stl", "parts"),
        (".off", "parts"),
    ):
        with pytest.warns(FileWarning, match=words):
            save_mesh(mesh, tmp_path / f"a{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_gradients_doubles_and_strides_are_no_obstacle(tmp_path, suffix):
    vertices = torch.rand(3, 8, dtype=torch.float64).T.requires_grad_()
    mesh = TriMesh(vertices, torch.tensor([[0, 3, 5, 9], [1, 4, 6, 9], [2, 5, 7, 9]])[:, :3].T)
    save_mesh(mesh, tmp_path / f"a{suffix}")
    assert torch.equal(load_mesh(tmp_path / f"a{suffix}").corners(), mesh.corners().detach().float())


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("mesh", "error", "message"),
    [
        (TriMesh(torch.rand(3, 3), torch.zeros(0, 3, dtype=torch.int32)), MeshError, "at least one face"),
        (TriMesh(torch.rand(3, 3), torch.tensor([[0, 1, 3]])), MeshError, "faces must index 3 vertices"),
        (TriMesh(torch.full((3, 3), torch.nan), torch.tensor([[0, 1, 2]])), MeshError, "must be finite"),
        (TriMesh(torch.full((3, 3), 1e300, dtype=torch.float64), torch.tensor([[0, 1, 2]])), MeshError, "must fit float32"),
        ("mesh", DtypeError, "must be a TriMesh"),
    ],
)
def test_meshes_that_cannot_be_saved(tmp_path, suffix, mesh, error, message):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"old")
    with pytest.raises(error, match=f"save_mesh: .*{message}"):
        save_mesh(mesh, path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"old"


def test_paths_that_do_not_fit(tmp_path):
    mesh = box()
    for name in ("a", "a.fbx", "a.glb.gz"):
        with pytest.raises(FileFormatError, match=r"must end in one of \.glb, \.gltf, \.obj, \.ply, \.stl, \.off; got 'a"):
            save_mesh(mesh, tmp_path / name)
    with pytest.raises(DtypeError, match="path must be a text or a path"):
        save_mesh(mesh, 7)  # pyright: ignore[reportArgumentType]
    with pytest.raises(FileNotFoundError, match="Create the folder first"):
        save_mesh(mesh, tmp_path / "gone" / "a.glb")
    (tmp_path / "folder.glb").mkdir()
    with pytest.raises(IsADirectoryError, match="add a file name"):
        save_mesh(mesh, tmp_path / "folder.glb")
    save_mesh(mesh, str(tmp_path / "A.GLB"))
    with pytest.raises(FileExistsError, match="overwrite=False"):
        save_mesh(mesh, tmp_path / "A.GLB", overwrite=False)
    assert load_mesh(tmp_path / "A.GLB").num_faces == 12


class FullDisk(io.RawIOBase):
    """A file that takes some bytes and then reports a full disk."""

    def __init__(self, room: int) -> None:
        self.room = room

    def writable(self) -> bool:
        return True

    def write(self, content) -> int:
        self.room -= len(content)
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return len(content)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.filterwarnings("ignore::voxgen.core.errors.FileWarning")
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, suffix):
    mesh = textured(base_color=Texture(byte_image(3), (0, 1, 2)))
    path = tmp_path / f"a{suffix}"
    save_mesh(mesh, path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    real = os.fdopen

    def full(descriptor, mode, *args, **kwargs):
        os.close(descriptor)
        return io.BufferedWriter(FullDisk(50))

    monkeypatch.setattr(os, "fdopen", full)
    other = mesh.replace(vertices=mesh.vertices + 1)
    with pytest.raises(OSError, match=r"cannot write .*No space left on device\. Free some space"):
        save_mesh(other, path)
    monkeypatch.setattr(os, "fdopen", real)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_unwritable_folder():
    with tempfile.TemporaryDirectory() as parent:
        os.chmod(parent, 0o755)
        folder = Path(parent) / "closed"
        folder.mkdir()
        folder.chmod(0o555)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)  # the superuser may write everywhere, so be nobody for a moment
        try:
            with pytest.raises(PermissionError, match=r"cannot write .*a\.glb.*may write to"):
                save_mesh(box(), folder / "a.glb")
        finally:
            if root:
                os.seteuid(0)
        assert list(folder.iterdir()) == []


def test_progress_bar(tmp_path, capsys):
    mesh = textured(base_color=Texture(byte_image(3), (0, 1, 2)))
    save_mesh(mesh, tmp_path / "a.glb", progress=True)
    load_mesh(tmp_path / "a.glb", progress=True)
    shown = capsys.readouterr().err
    assert "save a.glb" in shown
    assert "load a.glb: 100%" in shown
    save_mesh(mesh, tmp_path / "a.glb")
    assert capsys.readouterr().err == ""
