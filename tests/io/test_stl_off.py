"""STL and OFF."""

import struct

import numpy as np
import pytest
import torch

from voxgen.core import TriMesh
from voxgen.core.errors import FileFormatError, FileWarning, MeshError
from voxgen.core.material import srgb_to_linear
from voxgen.io import load_mesh, save_mesh

ASCII = """solid my part
  facet normal 0 0 1
    outer loop
      vertex 0 0 0
      vertex 1e0 0 0
      vertex 0 1 -0.5
    endloop
  endfacet
endsolid my part
SOLID other
 FACET NORMAL 0 0 1
  OUTER LOOP
   VERTEX 0 0 1
   VERTEX 1 0 1
   VERTEX 0 1 1
  ENDLOOP
 ENDFACET
ENDSOLID
"""


def load(tmp_path, name: str, content: str | bytes) -> TriMesh:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_mesh(path)


def test_ascii_stl(tmp_path):
    mesh = load(tmp_path, "a.stl", ASCII)
    assert mesh.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, -0.5], [0, 0, 1], [1, 0, 1], [0, 1, 1]]
    assert mesh.faces.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert mesh.part_names == ("my part", "other")
    assert mesh.face_part is not None
    assert mesh.face_part.tolist() == [0, 1]


def test_binary_stl_that_starts_with_solid(tmp_path):
    mesh = TriMesh(torch.randn(4, 3), torch.tensor([[0, 1, 2], [3, 2, 1]]))
    save_mesh(mesh, tmp_path / "a.stl")
    content = b"solid facet".ljust(80) + (tmp_path / "a.stl").read_bytes()[80:]
    again = load(tmp_path, "b.stl", content)
    assert torch.equal(again.corners(), mesh.corners())
    with pytest.warns(FileWarning, match="3 bytes behind"):
        assert load(tmp_path, "c.stl", b"x" + content[1:] + b"...").num_faces == 2


def test_saved_normals_of_stl(tmp_path):
    mesh = TriMesh(torch.randn(9, 3), torch.arange(9).reshape(3, 3))
    save_mesh(mesh, tmp_path / "a.stl")
    facets = np.frombuffer((tmp_path / "a.stl").read_bytes()[84:], [("n", "<f4", 3), ("p", "<f4", (3, 3)), ("a", "<u2")])
    assert np.array_equal(facets["n"], mesh.face_normals().numpy())


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"x" * 50, FileFormatError, "truncated"),
        (b" " * 80 + struct.pack("<I", 2) + bytes(99), FileFormatError, "2 triangles has 184 bytes, this one 183"),
        (b" " * 80 + struct.pack("<I", 2**32 - 1) + bytes(99), FileFormatError, "truncated"),
        (b" " * 84, FileFormatError, "truncated"),  # four blanks are a count
        (b" " * 80 + bytes(4), MeshError, "no face"),
        (ASCII[:200], FileFormatError, "its last solid has no end"),
        (ASCII.replace("vertex 1e0 0 0", "vertex 1e0 0"), FileFormatError, "vertex number 2 must have 3"),
        (ASCII.replace("vertex 1e0 0 0", "vertex a 0 0"), FileFormatError, "'a', which is no number"),
        (ASCII.replace("      vertex 1e0 0 0\n", ""), FileFormatError, "line 6: a loop must have three vertices"),
        ("solid\nfacet\nendfacet\nendsolid\n", MeshError, "no face"),
        (ASCII.replace("1e0", "inf"), MeshError, "must be finite"),
    ],
)
def test_bad_stl(tmp_path, content, error, message):
    with pytest.raises(error, match=message) as caught:
        load(tmp_path, "a.stl", content)
    assert "a.stl" in str(caught.value)


FACES = "4 0 1 2 3\n3 2 1 0\n"
POINTS = ["0 0 0", "1 0 0", "1 1 0", "0 1 0.5"]


@pytest.mark.parametrize("start", ["OFF\n4 2 0\n", "# comment\nOFF 4 2 0 # more\n\n", "OFF4 2 0\n", "  OFF\n4 2\n"])
def test_off(tmp_path, start):
    mesh = load(tmp_path, "a.off", start + "\n".join(POINTS) + "\n" + FACES)
    assert mesh.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.5]]
    assert mesh.faces.tolist() == [[0, 1, 2], [0, 2, 3], [2, 1, 0]]
    assert not mesh.attributes


def test_off_with_everything(tmp_path):
    for keyword, rows, top in (
        ("COFF", "255 51 0 255", 255),
        ("COFF", "1.0 0.2 0 1.0", 1),
        ("OFF", "255 51 0", 255),
        ("STCNOFF", None, 255),
    ):
        tail = "0 0 1 255 51 0 0.25 0.75" if rows is None else rows
        mesh = load(tmp_path, "a.off", f"{keyword}\n4 2 0\n" + "".join(f"{p} {tail}\n" for p in POINTS) + FACES)
        color = mesh.attributes["color"]
        assert torch.allclose(color[:, :3], srgb_to_linear(torch.tensor([1, 0.2, 0])).expand(4, 3)), (keyword, top)
        if keyword == "STCNOFF":
            assert mesh.uv is not None
            assert mesh.normals is not None
            assert mesh.uv.tolist() == [[0.25, 0.75]] * 4
            assert mesh.normals.tolist() == [[0, 0, 1]] * 4
    with pytest.warns(FileWarning, match="colours of faces"):
        load(tmp_path, "a.off", "OFF\n4 1 0\n" + "\n".join(POINTS) + "\n3 0 1 2 255 0 0\n")
    with pytest.warns(FileWarning, match="colours are left out"):
        load(tmp_path, "a.off", "OFF\n4 1 0\n" + "\n".join(POINTS) + " 1 2 3\n3 0 1 2\n")


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("PLY", FileFormatError, "not an OFF file"),
        ("4OFF\n4 2 0\n", FileFormatError, "three-dimensional OFF in text form"),
        ("OFF BINARY\n", FileFormatError, "text form"),
        ("OFF\n", FileFormatError, "numbers of vertices and faces"),
        ("OFF\n-4 2 0\n", FileFormatError, "numbers of vertices and faces"),
        ("OFF\nx 2 0\n", FileFormatError, "numbers of vertices and faces"),
        ("OFF\n4 2 0\n0 0 0\n", FileFormatError, "declares 4 vertices and 2 faces, and 1 lines follow"),
        ("OFF\n99999999999 2 0\n0 0 0\n", FileFormatError, "truncated"),
        ("OFF\n4 1 0\n" + "\n".join(POINTS) + "\n3 0 1\n", FileFormatError, "face number 1 declares 3 corners, and 2"),
        ("OFF\n4 1 0\n" + "\n".join(POINTS) + "\n3 0 1 4\n", MeshError, r"must lie in \[0, 4\)"),
        ("OFF\n4 1 0\n" + "\n".join(POINTS) + "\n3 0 1 -1\n", MeshError, r"must lie in \[0, 4\)"),
        ("OFF\n4 0 0\n" + "\n".join(POINTS) + "\n", MeshError, "no face"),
        ("OFF\n4 1 0\n" + "\n".join(POINTS).replace("0.5", "nan") + "\n3 0 1 2\n", MeshError, "finite"),
    ],
)  # fmt: skip
def test_bad_off(tmp_path, content, error, message):
    with pytest.raises(error, match=message) as caught:
        load(tmp_path, "a.off", content)
    assert "a.off" in str(caught.value)
