"""Load → save → load keeps vertices, faces, uv and attributes bit for bit; hypothesis looks for the mesh that does not."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from voxgen.core import Material, TriMesh
from voxgen.core.errors import FileWarning
from voxgen.io import load_mesh, save_mesh

DTYPES = [torch.float32, torch.float64, torch.float16, torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool]
NAMES = st.one_of(
    st.sampled_from(
        ["color", "base_color", "alpha", "metallic", "Color", "COLOR", "a", "a_0", "a_1", "x", "red", "s", "position", "texcoord_0_v"]
    ),
    st.text(min_size=1, max_size=8),
)


def floats(draw: st.DrawFn, rows: int, columns: int) -> Tensor:
    """Any finite float32, most often ordinary ones; tiny, huge and signed zeros among them."""
    value = st.one_of(
        st.floats(width=32, allow_nan=False, allow_infinity=False),
        st.floats(-2, 2, width=32),
        st.sampled_from([0.0, -0.0, 1.0, 1e-38, 1e-45, 3.0e38, 2.0**24, 1 / 3]),
    )
    flat = draw(st.lists(value, min_size=rows * columns, max_size=rows * columns))
    return torch.from_numpy(np.array(flat, np.float64).astype(np.float32)).reshape(rows, columns)


@st.composite
def meshes(draw: st.DrawFn) -> TriMesh:
    v, f = draw(st.integers(1, 7)), draw(st.integers(1, 8))
    seed = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def some(rows: int, columns: int) -> Tensor | None:
        return floats(draw, rows, columns) if draw(st.booleans()) else None

    attributes: dict[str, Tensor] = {}
    for name in draw(st.lists(NAMES, max_size=3, unique=True)):
        width, dtype = draw(st.integers(1, 9)), draw(st.sampled_from(DTYPES))
        attributes[name] = (torch.randn(v, width, generator=seed) * 5).to(torch.float32).to(dtype)
    materials = tuple(Material(f"m{i}") for i in range(draw(st.integers(0, 2))))
    parts = draw(st.integers(1, 3))
    uv = some(v, 2)
    return TriMesh(
        floats(draw, v, 3),
        torch.randint(0, v, (f, 3), generator=seed),
        normals=some(v, 3),
        uv=uv,
        uv1=some(v, 2) if uv is not None else None,
        attributes=attributes,
        materials=materials,
        face_material=torch.randint(-1, len(materials), (f,), generator=seed) if materials else None,
        part_names=tuple(f"part {i}" for i in range(parts)),
        face_part=torch.randint(0, parts, (f,), generator=seed),
    )


def same_bits(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.shape == b.shape and a.dtype == b.dtype and a.numpy().tobytes() == b.numpy().tobytes()


def there_and_back(mesh: TriMesh, suffix: str) -> TriMesh:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", FileWarning)  # what a format has no place for
        save_mesh(mesh, Path(folder) / f"a{suffix}")
        return load_mesh(Path(folder) / f"a{suffix}")


def face_parts(mesh: TriMesh) -> list[str]:
    return [mesh.part_names[i] for i in ([0] * mesh.num_faces if mesh.face_part is None else mesh.face_part.tolist())]


@settings(max_examples=150, deadline=None)
@given(meshes(), st.sampled_from([".glb", ".gltf", ".ply"]))
def test_everything_survives_in_gltf_and_ply(mesh, suffix):
    again = there_and_back(mesh, suffix)
    for field in ("vertices", "faces", "normals", "uv", "uv1"):
        assert same_bits(getattr(mesh, field), getattr(again, field)), field
    assert set(again.attributes) == set(mesh.attributes)
    for name, values in mesh.attributes.items():
        assert same_bits(values, again.attributes[name]), name
    assert face_parts(again) == face_parts(mesh)
    if suffix != ".ply":
        assert [m.name for m in again.materials] == [m.name for m in mesh.materials]
        if mesh.materials:
            assert same_bits(mesh.face_material, again.face_material)


@settings(max_examples=60, deadline=None)
@given(meshes(), st.sampled_from([".obj", ".off"]))
def test_geometry_survives_in_text_formats(mesh, suffix):
    again = there_and_back(mesh.replace(uv1=None), suffix)
    assert same_bits(mesh.vertices, again.vertices)
    assert same_bits(mesh.faces, again.faces)
    # OBJ: a vertex that no face uses has neither normal nor texture coordinate
    used = mesh.faces.unique().long() if suffix == ".obj" else slice(None)
    for mine, other in ((mesh.normals, again.normals), (mesh.uv, again.uv)):
        assert (mine is None) == (other is None)
        if mine is not None and other is not None:
            assert same_bits(mine[used], other[used])
    if suffix == ".obj":
        assert face_parts(again) == face_parts(mesh)


@settings(max_examples=40, deadline=None)
@given(meshes())
def test_triangles_survive_in_stl(mesh):
    again = there_and_back(mesh, ".stl")
    assert same_bits(mesh.corners(), again.corners())
    twice = there_and_back(again, ".stl")
    assert same_bits(again.vertices, twice.vertices)
    assert same_bits(again.faces, twice.faces)


@pytest.mark.parametrize("suffix", [".glb", ".ply", ".obj", ".off", ".stl"])
def test_a_second_save_writes_the_same_bytes(tmp_path, suffix):
    """After the first load there is nothing left to lose: the files are equal, byte for byte."""
    mesh = TriMesh(torch.randn(20, 3), torch.randint(0, 20, (30, 3)), uv=torch.rand(20, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FileWarning)
        save_mesh(mesh, tmp_path / f"a{suffix}")
        first = load_mesh(tmp_path / f"a{suffix}")
        save_mesh(first, tmp_path / f"b{suffix}")
        save_mesh(load_mesh(tmp_path / f"b{suffix}"), tmp_path / f"c{suffix}")
    assert (tmp_path / f"b{suffix}").read_bytes() == (tmp_path / f"c{suffix}").read_bytes()


def test_exact_uv_costs_nothing_where_the_flip_is_exact(tmp_path):
    """Texture coordinates that came from glTF flip back exactly; only others need the attribute beside them."""
    mesh = TriMesh(torch.rand(9, 3), torch.tensor([[0, 1, 2]]), uv=torch.rand(9, 2) * 4 - 2)
    assert mesh.uv is not None
    tiny = mesh.replace(uv=mesh.uv * 1e-9)
    flipped = mesh.replace(uv=torch.stack((mesh.uv[:, 0], 1 - mesh.uv[:, 1]), 1))
    for name, case, extra in (("flipped", flipped, False), ("tiny", tiny, True)):
        save_mesh(case, tmp_path / f"{name}.glb")
        assert (b"_TEXCOORD_0_V" in (tmp_path / f"{name}.glb").read_bytes()) == extra
        assert same_bits(load_mesh(tmp_path / f"{name}.glb").uv, case.uv)


def test_edited_uv_win_over_the_exact_copy(tmp_path):
    mesh = TriMesh(torch.rand(3, 3), torch.tensor([[0, 1, 2]]), uv=torch.rand(3, 2) * 1e-9)
    save_mesh(mesh, tmp_path / "a.glb")
    content = (tmp_path / "a.glb").read_bytes()
    assert mesh.uv is not None
    stored = torch.stack((mesh.uv[:, 0], 1 - mesh.uv[:, 1]), 1).numpy().tobytes()
    assert content.count(stored) == 1
    (tmp_path / "b.glb").write_bytes(content.replace(stored, np.full((3, 2), 0.25, np.float32).tobytes()))
    assert load_mesh(tmp_path / "b.glb").uv.tolist() == [[0.25, 0.75]] * 3


def test_edited_order_is_noticed(tmp_path):
    """A program that changed shared vertices apart from each other made other vertices of them."""
    mesh = TriMesh(torch.rand(4, 3), torch.tensor([[0, 1, 2], [1, 2, 3]]), part_names=("a", "b"), face_part=torch.tensor([0, 1]))
    save_mesh(mesh, tmp_path / "a.glb")
    assert same_bits(load_mesh(tmp_path / "a.glb").vertices, mesh.vertices)
    content = (tmp_path / "a.glb").read_bytes()
    second = mesh.vertices[1:].numpy().tobytes()
    assert content.count(second) == 1
    (tmp_path / "b.glb").write_bytes(content.replace(second, (mesh.vertices[1:] + 1).numpy().tobytes()))
    with pytest.warns(FileWarning, match="edited after voxgen wrote it"):
        again = load_mesh(tmp_path / "b.glb")
    assert again.num_vertices == 6
    assert same_bits(again.corners()[1], mesh.corners()[1] + 1)
