"""PLY: three encodings, polygons, colours, attributes, per-corner uv, damaged files."""

import struct

import numpy as np
import pytest
import torch
from glb_builder import image_bytes

from voxgen.core import TriMesh
from voxgen.core.errors import FileFormatError, FileWarning, MeshError
from voxgen.core.material import srgb_to_linear
from voxgen.io import load_mesh, save_mesh

POINTS = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0.5), (0.25, 2, 0)]
POLYGONS = [(0, 1, 2, 3, 4), (2, 1, 0), (0, 1, 2, 3), (0, 2, 3)]
FANS = [[0, 1, 2], [0, 2, 3], [0, 3, 4], [2, 1, 0], [0, 1, 2], [0, 2, 3], [0, 2, 3]]


def header(order: str, *lines: str) -> bytes:
    return "\n".join(["ply", f"format {order} 1.0", *lines, "end_header\n"]).encode()


def load(tmp_path, content: bytes, **options) -> TriMesh:
    path = tmp_path / "a.ply"
    path.write_bytes(content)
    return load_mesh(path, **options)


VERTEX = ("element vertex 5", "property float x", "property float y", "property double z")
FACE = ("element face 4", "property uchar flags", "property list uchar int vertex_indices", "property list ushort float extra")


@pytest.mark.parametrize("order", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_mixed_polygons_in_every_encoding(tmp_path, order):
    head = header(order, "comment by hand", *VERTEX, *FACE, "element edge 1", "property int vertex1")
    if order == "ascii":
        lines = [" ".join(map(str, p)) for p in POINTS]
        lines += [f"7 {len(p)} {' '.join(map(str, p))} {i} {'0.5 ' * i}" for i, p in enumerate(POLYGONS)]
        body = "\r\n".join([*lines, "3"]).encode()
    else:
        mark = "<" if order == "binary_little_endian" else ">"
        body = b"".join(struct.pack(f"{mark}ffd", *p) for p in POINTS)
        for i, p in enumerate(POLYGONS):
            body += struct.pack(f"{mark}BB{len(p)}iH{i}f", 7, len(p), *p, i, *[0.5] * i)
        body += struct.pack(f"{mark}i", 3)
    mesh = load(tmp_path, head + body, up="z")
    assert mesh.vertices.tolist() == [list(map(float, p)) for p in POINTS]
    assert mesh.vertices.dtype == torch.float32
    assert mesh.faces.tolist() == FANS
    assert mesh.up == "z"


def triangle_ply(properties: str, rows: np.ndarray, face: str = "", face_rows: bytes = struct.pack("<B3i", 3, 0, 1, 2)) -> bytes:
    lines = [
        "element vertex 3",
        *(f"property {p}" for p in properties.split(", ")),
        "element face 1",
        "property list uchar int vertex_index",
    ]
    return header("binary_little_endian", *lines, *([face] if face else [])) + rows.tobytes() + face_rows


def test_names_of_uv_colours_and_attributes(tmp_path):
    rows = np.zeros(3, [("xyz", "<f4", 3), ("uv", "<f4", 2), ("rgba", "u1", 4), ("q", "<f4"), ("f", "<i2", 2), ("one", "<f4")])
    rows["xyz"], rows["uv"] = np.eye(3), [[0.1, 0.2], [0.3, 0.4], [-0.0, 7]]
    rows["rgba"], rows["q"], rows["f"], rows["one"] = [[255, 128, 0, 51]] * 3, [1, 2, 3], [[1, -2]] * 3, 4
    kinds = ["float", "float", "uchar", "float", "short", "float"]
    for names in (
        ("s t", "red green blue alpha"),
        ("u v", "diffuse_red diffuse_green diffuse_blue diffuse_alpha"),
        ("texture_u texture_v", "r g b a"),
    ):
        words = ["x y z", *names, "quality", "f_0 f_1", "lone_1"]
        properties = ", ".join(f"{kind} {name}" for kind, group in zip(kinds, words, strict=True) for name in group.split())
        mesh = load(tmp_path, triangle_ply(properties, rows))
        assert mesh.uv is not None
        assert mesh.uv.numpy().tobytes() == rows["uv"].tobytes(), "v points up in PLY already"
        color = torch.tensor([[1, 128 / 255, 0, 0.2]]).expand(3, 4)
        expected = torch.cat((srgb_to_linear(color[:, :3]), color[:, 3:]), 1)
        assert torch.allclose(mesh.attributes["color"], expected, atol=1e-7)
        assert set(mesh.attributes) == {"color", "quality", "f", "lone_1"}
        assert (mesh.attributes["f"].tolist(), mesh.attributes["f"].dtype) == ([[1, -2]] * 3, torch.int16)
        assert mesh.attributes["quality"].tolist() == [[1], [2], [3]]


def test_wide_and_float_colours(tmp_path):
    for kind, code, top in (("ushort", "<u2", 65535), ("float", "<f4", 1.0)):
        rows = np.zeros(3, [("xyz", "<f4", 3), ("rgb", code, 3)])
        rows["xyz"], rows["rgb"] = np.eye(3), [[top, 0, top]] * 3
        mesh = load(tmp_path, triangle_ply(f"float x, float y, float z, {kind} red, {kind} green, {kind} blue", rows))
        assert torch.allclose(mesh.attributes["color"], torch.tensor([[1.0, 0, 1]]).expand(3, 3))


def test_corner_uv_with_a_texture(tmp_path):
    """MeshLab's way: texture coordinates at the corners of faces, the image in a comment."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 3), np.uint8)
    (tmp_path / "my image.png").write_bytes(image_bytes(pixels))
    lines = [
        "comment TextureFile my image.png",
        "element vertex 4",
        "property float x",
        "property float y",
        "property float z",
        "property float q",
    ]
    lines += ["element face 2", "property list uchar int vertex_indices", "property list uchar float texcoord", "property int texnumber"]
    corner = "0 0 0 1\n1 0 0 2\n1 1 0 3\n0 1 0 4\n3 0 1 2 6 0 0 1 0 1 1 0\n3 0 2 3 6 0 0 0.5 0.5 0 1 0\n"
    mesh = load(tmp_path, header("ascii", *lines) + corner.encode())
    assert mesh.uv is not None
    assert mesh.face_material is not None
    assert mesh.faces.tolist() == [[0, 1, 2], [0, 4, 3]]
    assert mesh.vertices[4].tolist() == [1, 1, 0]
    assert mesh.uv.tolist() == [[0, 0], [1, 0], [1, 1], [0, 1], [0.5, 0.5]]
    assert mesh.attributes["q"].flatten().tolist() == [1, 2, 3, 4, 3]
    assert mesh.face_material.tolist() == [0, 0]
    assert mesh.materials[0].base_color is not None
    assert torch.equal(mesh.materials[0].base_color.image, torch.from_numpy(pixels))
    (tmp_path / "my image.png").unlink()
    with pytest.warns(FileWarning, match="'my image.png' is missing"):
        assert load_mesh(tmp_path / "a.ply").materials[0].base_color is None


def test_saved_bytes_are_the_srgb_colour(tmp_path):
    every = (torch.arange(256, dtype=torch.float32) / 255)[:, None].expand(256, 3)
    mesh = TriMesh(torch.randn(256, 3), torch.tensor([[0, 1, 2]]), attributes={"color": srgb_to_linear(every)})
    save_mesh(mesh, tmp_path / "a.ply")
    content = (tmp_path / "a.ply").read_bytes()
    head, _, body = content.partition(b"end_header\n")
    assert b"property uchar red\nproperty uchar green\nproperty uchar blue\nproperty float color_0" in head
    rows = np.frombuffer(body, [("xyz", "<f4", 3), ("rgb", "u1", 3), ("color", "<f4", 3)], 256)
    assert (rows["rgb"] == np.arange(256)[:, None]).all()
    again = load_mesh(tmp_path / "a.ply").attributes
    assert set(again) == {"color"}
    assert torch.equal(again["color"], mesh.attributes["color"])
    # a program that keeps the bytes only keeps the colour: they decode to the same up to rounding
    assert torch.allclose(load_bytes_only(tmp_path, rows), srgb_to_linear(every), atol=1e-6)


def load_bytes_only(tmp_path, rows: np.ndarray) -> torch.Tensor:
    kept = np.zeros(len(rows), [("xyz", "<f4", 3), ("rgb", "u1", 3)])
    kept["xyz"], kept["rgb"] = rows["xyz"], rows["rgb"]
    names = ["element vertex 256", *(f"property float {a}" for a in "xyz"), *(f"property uchar {c}" for c in ("red", "green", "blue"))]
    lines = [*names, "element face 1", "property list uchar int vertex_indices"]
    return load(tmp_path, header("binary_little_endian", *lines) + kept.tobytes() + struct.pack("<B3i", 3, 0, 1, 2)).attributes["color"]


SIMPLE = (
    "element vertex 3",
    "property float x",
    "property float y",
    "property float z",
    "element face 1",
    "property list uchar int vertex_indices",
)
ROWS = b"0 0 0\n1 0 0\n0 1 0\n"


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"solid", FileFormatError, "not a PLY file"),
        (b"ply\nformat ascii 1.0\n", FileFormatError, "not a PLY file"),
        (header("text", *SIMPLE), FileFormatError, "the format must be ascii"),
        (header("ascii", "element vertex -3"), FileFormatError, "'element vertex -3' is not one that PLY knows"),
        (header("ascii", "element vertex 3", "property quad x"), FileFormatError, "not one that PLY knows"),
        (header("ascii", "element vertex 3", "property float x", "property float x"), FileFormatError, "two properties of one name"),
        (header("ascii", "element face 1", "property list uchar int vertex_indices") + b"3 0 1 2\n", FileFormatError, "no vertex element"),
        (header("ascii", *SIMPLE) + ROWS, FileFormatError, "declares 1 lines of element 'face', and 0"),
        (header("ascii", *SIMPLE) + ROWS + b"3 0 1\n", FileFormatError, "must have 4 values; it has 3"),
        (header("ascii", *SIMPLE) + ROWS + b"x 0 1 2\n", FileFormatError, "has 'x' as the length"),
        (header("ascii", *SIMPLE) + ROWS + b"3 0 1 2.5\n", FileFormatError, "no whole numbers"),
        (header("ascii", *SIMPLE) + ROWS.replace(b"1 0 0", b"1 0 z") + b"3 0 1 2\n", FileFormatError, "'z', which is no number"),
        (header("ascii", *SIMPLE) + ROWS.replace(b"1 0 0", b"1 0") + b"3 0 1 2\n", FileFormatError, "must have 3 to 3 values"),
        (header("ascii", *SIMPLE) + ROWS + b"3 0 1 3\n", MeshError, r"must lie in \[0, 3\)"),
        (header("ascii", *SIMPLE) + ROWS + b"3 0 1 -1\n", MeshError, r"must lie in \[0, 3\)"),
        (header("ascii", *SIMPLE) + ROWS.replace(b"1 0 0", b"nan 0 0") + b"3 0 1 2\n", MeshError, "must be finite"),
        (header("ascii", *SIMPLE[:4]) + ROWS, MeshError, "3 vertices and no face"),
        (header("ascii", *SIMPLE[:4], "element face 0", "property list uchar int vertex_indices") + ROWS, MeshError, "no face"),
        (header("binary_little_endian", *SIMPLE) + bytes(35), FileFormatError, "declares 3 rows of element 'vertex', and 2 are there"),
        (header("binary_little_endian", *SIMPLE) + bytes(36), FileFormatError, "truncated inside element 'face'"),
        (header("binary_little_endian", *SIMPLE) + bytes(36) + b"\xff" + bytes(12), FileFormatError, "declares 255 items"),
        (header("binary_little_endian", "element vertex 999999999999999", *SIMPLE[1:]) + bytes(49), FileFormatError, "truncated"),
    ],
)  # fmt: skip
def test_bad_files(tmp_path, content, error, message):
    with pytest.raises(error, match=message) as caught:
        load(tmp_path, content)
    assert "a.ply" in str(caught.value)


def test_what_is_left_over_or_left_out_is_said(tmp_path):
    with pytest.warns(FileWarning, match="1 lines behind the declared ones"):
        load(tmp_path, header("ascii", *SIMPLE) + ROWS + b"3 0 1 2\n3 2 1 0\n")
    with pytest.warns(FileWarning, match="1 polygons with fewer"):
        load(tmp_path, header("ascii", *SIMPLE[:4], "element face 2", SIMPLE[5]) + ROWS + b"3 0 1 2\n2 2 1\n")
    red = ("property uchar red", "property uchar green", "property uchar blue")
    with pytest.warns(FileWarning, match="colours of faces are not read"):
        load(tmp_path, header("ascii", *SIMPLE, *red) + ROWS + b"3 0 1 2 255 0 0\n")
