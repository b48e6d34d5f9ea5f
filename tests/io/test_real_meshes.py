"""Assets that people made, and facts about them that were measured without voxgen."""

import warnings
import zlib

import numpy as np
import pytest
import torch

from voxgen.core.errors import FileWarning
from voxgen.io import load_mesh, save_mesh


def canonical(vertices: np.ndarray) -> np.ndarray:
    """Centred on the bounding box, longest side 0.99999, every step in float32."""
    low, high = vertices.min(0), vertices.max(0)
    return (vertices - (low + high) / np.float32(2)) * (np.float32(0.99999) / (high - low).max())


@pytest.mark.parametrize(
    ("name", "counts", "vertex_sum", "face_sum"),
    [("suzanne", (507, 968), 1018436440, 2023954159), ("bunny", (35947, 69451), 3071909395, 2929402777)],
)
def test_obj_keeps_the_order_of_the_file(data, name, counts, vertex_sum, face_sum):
    """Checksums of the goldens: `v` lines in file order, polygons cut as fans, nothing welded."""
    mesh = load_mesh(data / f"{name}.obj")
    assert (mesh.num_vertices, mesh.num_faces) == counts
    assert zlib.crc32(canonical(mesh.vertices.numpy()).tobytes()) == vertex_sum
    assert zlib.crc32(mesh.faces.numpy().tobytes()) == face_sum


@pytest.mark.parametrize(("name", "faces"), [("teapot", 6320), ("fandisk", 12946), ("beetle", 38656)])
def test_plain_obj(data, name, faces):
    mesh = load_mesh(data / f"{name}.obj")
    assert (mesh.num_faces, mesh.uv, mesh.materials, mesh.part_names) == (faces, None, (), ("",))


def test_spot_has_one_seam(data):
    mesh = load_mesh(data / "spot" / "spot.obj")
    assert (mesh.num_vertices, mesh.num_faces) == (3225, 5856)
    assert len(mesh.weld().unique()) == 2930
    (material,) = mesh.materials
    assert material.base_color is not None
    assert tuple(material.base_color.image.shape[:2]) == (1024, 1024)
    assert material.base_color.srgb
    # every corner has the texture coordinate that its line in the file gives it
    lines = (data / "spot" / "spot.obj").read_text().splitlines()
    table = np.array([line.split()[1:] for line in lines if line.startswith("vt ")], np.float64).astype(np.float32)
    corners = [[int(word.split("/")[1]) - 1 for word in line.split()[1:]] for line in lines if line.startswith("f ")]
    assert mesh.uv is not None
    assert np.array_equal(mesh.uv[mesh.faces.long()].numpy(), table[np.array(corners)])


def test_flight_helmet(data):
    mesh = load_mesh(data / "flight_helmet" / "FlightHelmet.gltf")
    assert (mesh.num_vertices, mesh.num_faces, mesh.num_parts) == (55392, 94722, 6)
    assert mesh.part_names[0] == "Hose_low"
    modes = {m.name: m.alpha_mode for m in mesh.materials}
    assert {name for name, mode in modes.items() if mode == "BLEND"} == {"LensesMat"}
    assert len(modes) == 6
    images = {id(t.image) for m in mesh.materials for t in m.textures.values()}
    assert len(images) == 15, "each image is decoded once, however many materials use it"
    lenses = mesh.materials[-1].textures
    assert lenses["alpha"].image is lenses["base_color"].image
    assert lenses["normal"].image.shape == (32, 32, 3)


def test_alpha_modes(data):
    mesh = load_mesh(data / "alpha_blend.glb")
    assert mesh.num_parts == 9
    found = {m.name: (m.alpha_mode, m.alpha_cutoff) for m in mesh.materials}
    assert found == {
        "MatCutoff25": ("MASK", 0.25),
        "MatCutoff75": ("MASK", 0.75),
        "MatBed": ("OPAQUE", 0.5),
        "MatBlend": ("BLEND", 0.5),
        "MatOpaque": ("OPAQUE", 0.5),
        "MatCutoffDefault": ("MASK", 0.5),
    }


def test_the_same_geometry_as_another_reader(data):
    """trimesh has its own scene graph and its own OBJ and glTF readers."""
    import trimesh

    for name in ("alpha_blend.glb", "spot/spot.obj"):
        scene = trimesh.load_scene(data / name, process=False)
        theirs = np.concatenate([g.triangles for g in scene.dump()]).astype(np.float32)
        ours = load_mesh(data / name).corners().numpy()
        assert ours.shape == theirs.shape
        order = [np.lexsort(np.round(c.reshape(-1, 9).astype(np.float64), 4).T) for c in (ours, theirs)]
        assert np.allclose(ours[order[0]], theirs[order[1]], atol=1e-5), name


@pytest.mark.parametrize("name", ["flight_helmet/FlightHelmet.gltf", "alpha_blend.glb", "spot/spot.obj", "suzanne.obj"])
def test_load_save_load_is_exact(data, tmp_path, name):
    mesh = load_mesh(data / name)
    bare = mesh.replace(materials=(), face_material=None)
    suffixes = [".glb", ".ply"] if mesh.num_faces > 10_000 else [".glb", ".ply", ".obj", ".off"]
    for suffix in suffixes:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FileWarning)
            save_mesh(bare, tmp_path / f"a{suffix}")
        again = load_mesh(tmp_path / f"a{suffix}")
        for field in ("vertices", "faces", "normals", "uv"):
            mine, other = getattr(mesh, field), getattr(again, field)
            assert (mine is None) == (other is None), (suffix, field)
            assert mine is None or torch.equal(mine, other), (suffix, field)
        assert suffix == ".off" or again.part_names == mesh.part_names


@pytest.mark.parametrize("suffix", [".glb", ".obj"])
def test_pictures_survive(data, tmp_path, suffix):
    (before,) = load_mesh(data / "spot" / "spot.obj").materials
    save_mesh(load_mesh(data / "spot" / "spot.obj"), tmp_path / f"a{suffix}")
    (after,) = load_mesh(tmp_path / f"a{suffix}").materials
    assert after.textures.keys() == before.textures.keys()
    for slot, texture in before.textures.items():
        assert torch.equal(after.textures[slot].image, texture.image)
