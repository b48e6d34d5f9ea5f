"""OBJ and MTL: order, splitting, names, indices, materials."""

import numpy as np
import pytest
import torch
from glb_builder import image_bytes

from voxgen.core import Material, Texture, TriMesh
from voxgen.core.errors import FileFormatError, FileWarning, MeshError
from voxgen.core.material import srgb_to_linear
from voxgen.io import load_mesh, save_mesh

SQUARE = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\n"


def load(tmp_path, text: str, **options) -> TriMesh:
    path = tmp_path / "a.obj"
    path.write_bytes(text.encode())
    return load_mesh(path, **options)


def test_polygons_become_fans_in_the_order_of_the_file(tmp_path):
    mesh = load(tmp_path, SQUARE + "v 2 2 0\nv 9 9 9\nf 1 2 3 4 5\nf 3 2 1\nf 1 2 3 4\n")
    assert mesh.faces.tolist() == [[0, 1, 2], [0, 2, 3], [0, 3, 4], [2, 1, 0], [0, 1, 2], [0, 2, 3]]
    assert mesh.num_vertices == 6, "unused vertices stay"
    assert (mesh.up, mesh.part_names, mesh.materials) == ("y", ("",), ())
    assert load(tmp_path, SQUARE + "f 1 2 3\n", up="z").up == "z"


def test_vertices_split_only_where_uv_differ(tmp_path):
    text = SQUARE + "vt 0 0\nvt 1 0\nvt 0.5 0.5\nvt 0.5 0.5\nf 1/1 2/2 3/3\nf 1/1 3/4 4/1\nf 1/2 2/2 4/1\n"
    mesh = load(tmp_path, text)
    assert mesh.num_vertices == 6
    assert mesh.uv is not None
    # vertex 3 has vt 3 and vt 4, vertex 1 has vt 1 and vt 2: the second use is a copy behind the last vertex
    assert mesh.faces.tolist() == [[0, 1, 2], [0, 4, 3], [5, 1, 3]]
    assert mesh.vertices[4:].tolist() == [[1, 1, 0], [0, 0, 0]]
    assert mesh.uv.tolist() == [[0, 0], [1, 0], [0.5, 0.5], [0, 0], [0.5, 0.5], [1, 0]]
    assert torch.equal(mesh.weld()[mesh.faces.long()], torch.tensor([[0, 1, 2], [0, 2, 3], [0, 1, 3]]))


def test_corners_with_and_without_uv(tmp_path):
    mesh = load(tmp_path, SQUARE + "vt 0.25 0.75\nf 1/1 2/1 3/1\nf 1 3 4\n")
    assert mesh.uv is not None
    assert mesh.faces.tolist() == [[0, 1, 2], [4, 5, 3]]
    assert mesh.uv.tolist() == [[0.25, 0.75]] * 3 + [[0, 0]] * 3


def test_normals_come_along_but_never_split(tmp_path):
    text = SQUARE + "vn 0 0 1\nvn 0 1 0\n"
    mesh = load(tmp_path, text + "f 1//1 2//1 3//2\nf 1//1 3//2 4//1\n")
    assert mesh.normals is not None
    assert mesh.normals.tolist() == [[0, 0, 1], [0, 0, 1], [0, 1, 0], [0, 0, 1]]
    with pytest.warns(FileWarning, match="normals are left out"):
        hard = load(tmp_path, text + "f 1//1 2//1 3//1\nf 1//2 3//2 4//2\n")
    assert hard.normals is None
    assert hard.num_vertices == 4


@pytest.mark.parametrize(
    "face", ["f -4 -3 -2", "f -4/1 -3/-1 3/1", "f -4//-1 2//1 -2//1", "f 1/1/1 2/1/1 3/-1/-1", "f 1/1/ 2/1/ 3/1/", "f 1// 2// 3//"]
)
def test_all_spellings_of_a_face(tmp_path, face):
    mesh = load(tmp_path, f"{SQUARE}vt 0 0.5\nvn 0 0 1\n{face} # comment\nv 7 7 7\n")
    assert mesh.faces.tolist() == [[0, 1, 2]]
    assert mesh.vertices[:4].tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
    if mesh.uv is not None:
        assert mesh.uv[0].tolist() == [0, 0.5]


def test_line_ends_continuations_and_comments(tmp_path):
    text = "\ufeff# name\r\nv 0 0 0 # first\r\nv 1 0 \\\r\n0\r\nv\t0 1 0\r\n\r\ns off\r\nf 1 2 \\\r\n 3"
    assert load(tmp_path, text).vertices.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0]]


def test_parts_by_object_or_group(tmp_path):
    faces = "f 1 2 3\n{} b c\nf 1 3 4\n{} a\nf 2 3 4\n{} b c\nf 1 2 4\n"
    for key in "og":
        mesh = load(tmp_path, SQUARE + f"{key} a\n" + faces.format(key, key, key))
        assert mesh.face_part is not None
        assert mesh.part_names == ("a", "b c")
        assert mesh.face_part.tolist() == [0, 1, 0, 1]
    mixed = load(tmp_path, SQUARE + "f 1 2 3\no thing\ng inner\nf 1 3 4\ng other\nf 2 3 4\n")
    assert mixed.part_names == ("", "thing")


def test_colours_are_decoded(tmp_path):
    text = "v 0 0 0 1 0.5 0\nv 1 0 0 0 0 1\nv 0 1 0 0.25 0.25 0.25\nf 1 2 3\n"
    encoded = torch.tensor([[1, 0.5, 0], [0, 0, 1], [0.25, 0.25, 0.25]])
    assert torch.equal(load(tmp_path, text).attributes["color"], srgb_to_linear(encoded))
    with pytest.warns(FileWarning, match="colours are left out"):
        assert not load(tmp_path, text.replace("0.25 0.25 0.25", "")).attributes


def test_materials(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 4), np.uint8)
    (tmp_path / "tex tures").mkdir()
    (tmp_path / "tex tures" / "a b.png").write_bytes(image_bytes(pixels))
    (tmp_path / "moved.png").write_bytes(image_bytes(pixels[:, :, 0]))
    (tmp_path / "lib one.mtl").write_text(
        "# comment\nnewmtl full\nKd 0.1 0.2 0.3\nKs 1 1 1\nNs 10\nd 0.5\nPr 0.25\nPm 0.75\nKe 2 3 4\n"
        "map_Kd -clamp on -s 1 1 1 -bm 0.5 tex tures\\a b.png\nmap_Pr -imfchan g tex tures/a b.png\n"
        "map_Pm C:\\elsewhere\\moved.png\nmap_d tex tures/a b.png\nnorm moved.png\nmap_Ke moved.png\n"
        "newmtl\tclear\nTr 0.75\nnewmtl plain\nillum 2\n"
    )
    text = (
        "mtllib lib one.mtl\n"
        + SQUARE
        + "f 1 2 3\nusemtl plain\nf 1 2 3\nusemtl full\nf 1 2 3\nusemtl clear\nf 1 3 4\nusemtl full\nf 2 3 4\n"
    )
    mesh = load(tmp_path, text)
    plain, full, clear = mesh.materials
    assert mesh.face_material is not None
    assert mesh.face_material.tolist() == [-1, 0, 1, 2, 1]
    assert (plain.name, plain.base_color_factor, plain.roughness_factor, plain.metallic_factor) == ("plain", (0.8, 0.8, 0.8), 0.5, 0.0)
    assert (clear.alpha_factor, clear.alpha_mode) == (0.25, "BLEND")
    assert (full.base_color_factor, full.alpha_factor, full.alpha_mode) == ((0.1, 0.2, 0.3), 0.5, "BLEND")
    assert (full.roughness_factor, full.metallic_factor, full.emissive_factor) == (0.25, 0.75, (2, 3, 4))
    t = full.textures
    assert {slot: t[slot].channels for slot in t} == {
        "base_color": (0, 1, 2), "alpha": (3,), "roughness": (1,), "metallic": (0,), "normal": (0, 0, 0), "emissive": (0, 0, 0),
    }  # fmt: skip
    assert t["base_color"].wrap == ("clamp", "clamp")
    assert t["base_color"].image is t["roughness"].image
    assert torch.equal(t["base_color"].image, torch.from_numpy(pixels))


def test_missing_files_leave_plain_materials(tmp_path):
    text = "mtllib gone.mtl\n" + SQUARE + "usemtl red\nf 1 2 3\n"
    with pytest.warns(FileWarning, match=r"'gone\.mtl' is missing"):
        (material,) = load(tmp_path, text).materials
    assert (material.name, material.base_color_factor) == ("red", (0.8, 0.8, 0.8))
    (tmp_path / "gone.mtl").write_text("newmtl red\nKd 1 0 0\nmap_Kd gone.png\n")
    with pytest.warns(FileWarning, match=r"'gone\.png' is missing"):
        (material,) = load(tmp_path, text).materials
    assert (material.base_color_factor, material.textures) == ((1, 0, 0), {})
    with pytest.warns(FileWarning, match="names no material file"):
        load(tmp_path, SQUARE + "usemtl red\nf 1 2 3\n")


def test_black_times_texture_and_options_are_said(tmp_path):
    (tmp_path / "t.png").write_bytes(image_bytes(np.zeros((1, 1), np.uint8)))
    (tmp_path / "a.mtl").write_text("newmtl m\nKd 0 0 0\nmap_Kd -o 0.5 0 t.png\nbump t.png\n")
    with pytest.warns(FileWarning) as caught:
        (material,) = load(tmp_path, "mtllib a.mtl\n" + SQUARE + "usemtl m\nf 1 2 3\n").materials
    assert material.base_color_factor == (1, 1, 1)
    said = " ".join(str(w.message) for w in caught)
    assert all(words in said for words in ("option -o is not read", "Kd 0 0 0", "bump and displacement maps are not read"))


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("hello\nworld\n", FileFormatError, "not an OBJ file"),
        (SQUARE, MeshError, "4 vertices and no face"),
        (SQUARE + "l 1 2\np 3\n", MeshError, "no face"),
        ("v\nf 1 1 1\n", FileFormatError, "vertex number 1 must have 3 to 8 values"),
        ("v 0 0\nf 1 1 1\n", FileFormatError, "vertex number 1 must have 3 to 8 values"),
        ("v 0 0 0\nv 0 x 0\nf 1 1 1\n", FileFormatError, "vertex number 2 has 'x'"),
        (SQUARE + "f 1 2 x\n", FileFormatError, "face number 1 has 'x', which is no number"),
        (SQUARE + "f 1/1 2/x 3\n", FileFormatError, "corner number 2 has 'x', which is no number"),
        (SQUARE + "f 1 2 1.5\n", FileFormatError, "face must be whole numbers that fit; one is 1.5"),
        (SQUARE + "f 1 2 99999999999999999999\n", FileFormatError, "whole numbers that fit"),
        (SQUARE + "f 1 2 nan\n", FileFormatError, "whole numbers that fit"),
        (SQUARE + "f 1 2/1/1/1 3\n", FileFormatError, "a corner must be"),
        (SQUARE + "f 1 2 /3\n", FileFormatError, "a corner must be"),
        (SQUARE + "f 1 2 5\n", MeshError, r"must lie in \[0, 4\); 1 do not, the first is 4"),
        (SQUARE + "f 0 1 2\n", MeshError, "start at 1"),
        (SQUARE + "f -1 -2 -5\n", MeshError, "counts back beyond"),
        (SQUARE + "vt 0 0\nf 1/1 2/2 3/1\n", MeshError, "texture indices"),
        (SQUARE + "vn 0 0 1\nf 1//1 2//9 3//1\n", MeshError, "normal indices"),
        (SQUARE + "vt x\nf 1/1 2/1 3/1\n", FileFormatError, "texture coordinate number 1"),
        ("v nan 0 0\nv 0 0 0\nv 1 1 1\nf 1 2 3\n", MeshError, "vertices must be finite"),
        ("v 1e300 0 0\nv 0 0 0\nv 1 1 1\nf 1 2 3\n", MeshError, "vertices must be finite"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*points, lines")
def test_bad_files(tmp_path, text, error, message):
    with pytest.raises(error, match=message) as caught:
        load(tmp_path, text)
    assert "a.obj" in str(caught.value)


@pytest.mark.parametrize("line", ["Kd 1 2", "Kd red green blue", "d", "Pr nan"])
def test_bad_materials(tmp_path, line):
    (tmp_path / "a.mtl").write_text(f"newmtl m\n{line}\n")
    with pytest.raises(FileFormatError, match=r"a\.mtl, line 2"):
        load(tmp_path, "mtllib a.mtl\n" + SQUARE + "usemtl m\nf 1 2 3\n")


def test_polygons_of_two_corners_are_left_out(tmp_path):
    with pytest.warns(FileWarning, match="1 polygons with fewer than three corners"):
        assert load(tmp_path, SQUARE + "f 1 2\nf 1 2 3\n").faces.tolist() == [[0, 1, 2]]


def test_saving_keeps_materials_parts_and_order(tmp_path):
    pixels = torch.randint(0, 256, (4, 6, 4), dtype=torch.uint8)
    textured = Material(
        "red\npaint",
        (0.5, 0.25, 0.125),
        Texture(pixels, (0, 1, 2), wrap=("clamp", "clamp"), srgb=True),
        alpha_factor=0.5,
        alpha=Texture(pixels, (3,)),
        metallic=Texture(pixels, (2,)),
        roughness_factor=0.75,
        emissive_factor=(3.0, 0.0, 1.0),
        alpha_mode="BLEND",
    )
    mesh = TriMesh(
        torch.randn(5, 3),
        torch.tensor([[0, 1, 2], [1, 2, 3], [2, 3, 4], [0, 2, 4]]),
        uv=torch.rand(5, 2),
        materials=(textured, Material("red paint")),
        face_material=torch.tensor([1, -1, 0, 1]),
        part_names=("a", "a"),
        face_part=torch.tensor([0, 1, 1, 0]),
    )
    save_mesh(mesh, tmp_path / "out.obj")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "out.mtl",
        "out.obj",
        "out_texture_0.png",
        "out_texture_1.png",
        "out_texture_2.png",
    ]
    again = load_mesh(tmp_path / "out.obj")
    assert torch.equal(again.vertices, mesh.vertices)
    assert torch.equal(again.faces, mesh.faces)
    assert again.uv is not None
    assert mesh.uv is not None
    assert again.face_material is not None
    assert torch.equal(again.uv, mesh.uv)
    assert again.part_names == ("a", "a_2"), "names are made unique"
    assert again.face_material.tolist() == [0, -1, 1, 0], "materials come in the order of their first face"
    plain, full = again.materials
    assert (plain.name, full.name) == ("red paint_2", "red paint")
    assert (full.base_color_factor, full.alpha_factor, full.roughness_factor) == ((0.5, 0.25, 0.125), 0.5, 0.75)
    assert full.emissive_factor == (3, 0, 1)
    assert full.base_color is not None
    assert full.base_color.wrap == ("clamp", "clamp")
    for slot, texture in textured.textures.items():
        assert torch.equal(full.textures[slot].values, texture.values)
