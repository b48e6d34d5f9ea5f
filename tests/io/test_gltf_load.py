"""Loading glTF: geometry, scene graph, accessors, attributes."""

import base64
import json
import math

import numpy as np
import pytest
import torch
from glb_builder import TRIANGLE, Builder, image_bytes, pack_glb

from voxgen.core.errors import FileFormatError, FileWarning, MeshError
from voxgen.io import load_mesh

PIXEL = image_bytes(np.full((1, 1, 3), 200, np.uint8))


def load(builder: Builder, tmp_path, **options):
    return load_mesh(builder.save(tmp_path / "a.glb"), **options)


def test_one_triangle(tmp_path):
    b = Builder()
    b.mesh(b.triangle(indices=b.accessor(np.array([2, 0, 1], np.uint8))), name="node")
    mesh = load(b, tmp_path)
    assert torch.equal(mesh.vertices, torch.from_numpy(TRIANGLE))
    assert mesh.vertices.dtype == torch.float32
    assert mesh.faces.tolist() == [[2, 0, 1]]
    assert (mesh.part_names, mesh.up, mesh.materials, mesh.normals, mesh.uv) == (("node",), "y", (), None, None)
    assert load(b, tmp_path, up="z").up == "z"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_index_types_and_primitive_modes(tmp_path, dtype):
    points = np.random.default_rng(0).random((6, 3)).astype(np.float32)
    order = np.array([3, 1, 4, 0, 5, 2], dtype)
    expected = {
        4: [[3, 1, 4], [0, 5, 2]],
        5: [[3, 1, 4], [4, 1, 0], [4, 0, 5], [5, 0, 2]],
        6: [[3, 1, 4], [3, 4, 0], [3, 0, 5], [3, 5, 2]],
    }
    for mode, faces in expected.items():
        b = Builder()
        b.mesh({"attributes": {"POSITION": b.accessor(points)}, "indices": b.accessor(order), "mode": mode})
        assert load(b, tmp_path).faces.tolist() == faces


def test_parts_and_shared_vertices(tmp_path):
    """Primitives on the same accessors share vertices; each node with a mesh is a part, an instanced mesh once a node."""
    b = Builder()
    points = b.accessor(np.concatenate((TRIANGLE, TRIANGLE + 5)))
    first, second = b.accessor(np.array([0, 1, 2], np.uint16)), b.accessor(np.array([3, 4, 5], np.uint16))
    red, blue = b.material(name="red"), b.material(name="blue")
    b.mesh(
        {"attributes": {"POSITION": points}, "indices": first, "material": blue},
        {"attributes": {"POSITION": points}, "indices": second, "material": red},
        name="both",
    )
    b.document["nodes"].append({"mesh": 0, "translation": [0, 0, 2], "name": "again"})
    mesh = load(b, tmp_path)
    assert mesh.num_vertices == 12
    assert mesh.faces.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
    assert mesh.face_material is not None
    assert mesh.face_part is not None
    assert mesh.face_material.tolist() == [1, 0, 1, 0]
    assert mesh.face_part.tolist() == [0, 0, 1, 1]
    assert mesh.part_names == ("both", "again")
    assert [m.name for m in mesh.materials] == ["red", "blue"]
    assert torch.equal(mesh.vertices[6:], mesh.vertices[:6] + torch.tensor([0.0, 0.0, 2.0]))


def test_transforms_nest_and_mirrors_flip_the_winding(tmp_path):
    b = Builder()
    normals = np.tile(np.array([[0, 0, 1]], np.float32), (3, 1))
    primitive = b.triangle()
    primitive["attributes"]["NORMAL"] = b.accessor(normals)
    half = math.sqrt(0.5)
    b.mesh(primitive, name="leaf", scale=[-2, 1, 1])
    b.document["nodes"].append({"children": [0], "rotation": [0, 0, half, half], "translation": [10, 0, 0]})
    b.document["nodes"].append({"children": [1], "matrix": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 7, 1]})
    mesh = load(b, tmp_path)
    # (x, y, z) → scale (-2x, y, z) → quarter turn about z (-y, -2x, z) → shift
    assert torch.allclose(mesh.vertices, torch.tensor([[10.0, 0, 7], [10, -2, 7], [9, 0, 7]]), atol=1e-6)
    assert mesh.faces.tolist() == [[2, 1, 0]]
    assert mesh.normals is not None
    assert torch.allclose(mesh.normals, torch.tensor([[0.0, 0, 1]]).expand(3, 3), atol=1e-6)
    assert (mesh.face_normals() * mesh.normals[:1]).sum() > 0, "the front must stay the front"


def test_flattened_instance(tmp_path):
    """A singular transform is legal (a decal pressed flat); its normals are those of the plane."""
    b = Builder()
    b.mesh(b.triangle(), scale=[1, 1, 0])
    assert load(b, tmp_path).vertices[:, 2].eq(0).all()


def test_untouched_vertices_keep_their_bits(tmp_path):
    odd = np.array([[1e-40, -0.0, 3.4e38], [1 / 3, 2**-149, 7], [0.1, 0.2, 0.3]], np.float32)
    b = Builder()
    b.mesh({"attributes": {"POSITION": b.accessor(odd)}}, rotation=[0, 0, 0, 1])
    assert load(b, tmp_path).vertices.numpy().tobytes() == odd.tobytes()


def test_scene_choice(tmp_path):
    b = Builder()
    b.mesh(b.triangle(), name="shown")
    b.mesh(b.triangle(), name="hidden")
    b.document["scenes"] = [{"nodes": [1]}, {"nodes": [0]}]
    b.document["scene"] = 1
    with pytest.warns(FileWarning, match="2 scenes; scene 1 is loaded"):
        assert load(b, tmp_path).part_names == ("shown",)


def test_interleaved_sparse_and_quantised_accessors(tmp_path):
    b = Builder()
    rows = np.zeros(3, [("p", "<f4", 3), ("uv", "<u2", 2), ("color", "u1", 4)])
    rows["p"], rows["uv"] = TRIANGLE, [[0, 65535], [13107, 0], [65535, 32768]]
    rows["color"] = [[255, 0, 51, 255], [0, 255, 0, 0], [1, 2, 3, 4]]
    view = b.view(rows.tobytes(), byteStride=rows.itemsize)
    b.document["accessors"] = [
        {"bufferView": view, "componentType": 5126, "count": 3, "type": "VEC3"},
        {"bufferView": view, "byteOffset": 12, "componentType": 5123, "count": 3, "type": "VEC2", "normalized": True},
        {"bufferView": view, "byteOffset": 16, "componentType": 5121, "count": 3, "type": "VEC4", "normalized": True},
    ]
    b.mesh({"attributes": {"POSITION": 0, "TEXCOORD_0": 1, "COLOR_0": 2}})
    moved = b.view(np.array([1], np.uint16).tobytes()), b.view(np.array([9, 8, 7], np.float32).tobytes())
    overlay = {"count": 1, "indices": {"bufferView": moved[0], "componentType": 5123}, "values": {"bufferView": moved[1]}}
    b.document["accessors"][0]["sparse"] = overlay
    mesh = load(b, tmp_path)
    assert mesh.vertices.tolist() == [[0, 0, 0], [9, 8, 7], [0, 1, 0]]
    assert mesh.uv is not None
    assert torch.allclose(mesh.uv, torch.tensor([[0, 0], [0.2, 1.0], [1.0, 1 - 32768 / 65535]]))
    expected = torch.from_numpy(rows["color"].astype(np.float32) / np.float32(255))
    assert torch.equal(mesh.attributes["color"], expected), "COLOR_0 is linear: bytes over 255, no decoding"


def test_accessor_without_a_buffer_view_is_zero(tmp_path):
    b = Builder()
    primitive = b.triangle()
    b.document["accessors"].append({"componentType": 5126, "count": 3, "type": "VEC2"})
    primitive["attributes"]["TEXCOORD_0"] = 1
    b.mesh(primitive)
    assert load(b, tmp_path).uv.tolist() == [[0, 1]] * 3  # v points up


def test_quantised_positions(tmp_path):
    b = Builder()
    points = np.array([[0, 0, 0, 0], [100, 0, 0, 0], [0, -100, 0, 0]], np.int16)
    view = b.view(points.tobytes(), byteStride=8)
    b.document["accessors"].append({"bufferView": view, "componentType": 5122, "count": 3, "type": "VEC3"})
    b.mesh({"attributes": {"POSITION": 0}}, scale=[0.01, 0.01, 0.01])
    b.document["extensionsRequired"] = b.document["extensionsUsed"] = ["KHR_mesh_quantization"]
    assert torch.allclose(load(b, tmp_path).vertices, torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, -1, 0]]))


def test_both_uv_sets_and_custom_attributes(tmp_path):
    b = Builder()
    primitive = b.triangle()
    names = {"TEXCOORD_0": 2, "TEXCOORD_1": 2, "_LABEL": 1, "_MixedCase": 3, "COLOR_1": 4}
    data = {name: np.random.default_rng(1).random((3, width)).astype(np.float32) for name, width in names.items()}
    data["_LABEL"] = np.array([[7], [8], [65535]], np.uint16)
    primitive["attributes"] |= {name: b.accessor(values) for name, values in data.items()}
    primitive["attributes"]["TANGENT"] = b.accessor(np.zeros((3, 4), np.float32))
    b.mesh(primitive)
    mesh = load(b, tmp_path)
    assert set(mesh.attributes) == {"label", "MixedCase", "color_1"}
    assert mesh.attributes["label"].tolist() == [[7], [8], [65535]]
    assert mesh.attributes["label"].dtype == torch.int32
    assert torch.equal(mesh.attributes["MixedCase"], torch.from_numpy(data["_MixedCase"]))
    for uv, name in ((mesh.uv, "TEXCOORD_0"), (mesh.uv1, "TEXCOORD_1")):
        assert uv is not None
        assert torch.equal(uv[:, 0], torch.from_numpy(data[name][:, 0]))
        assert torch.equal(uv[:, 1], 1 - torch.from_numpy(data[name][:, 1]))


def test_fields_that_only_some_parts_have(tmp_path):
    b = Builder()
    full = b.triangle(shift=3)
    full["attributes"] |= {
        "COLOR_0": b.accessor(np.full((3, 3), 0.25, np.float32)),
        "NORMAL": b.accessor(np.tile(np.array([[1, 0, 0]], np.float32), (3, 1))),
        "TEXCOORD_0": b.accessor(np.full((3, 2), 0.25, np.float32)),
        "_MARK": b.accessor(np.ones(3, np.float32)),
    }
    b.mesh(b.triangle())
    b.mesh(full)
    with pytest.warns(FileWarning, match="'mark' is missing in 1 of 2 parts"):
        mesh = load(b, tmp_path)
    assert mesh.attributes["color"].tolist() == [[1.0] * 3] * 3 + [[0.25] * 3] * 3
    assert mesh.attributes["mark"].flatten().tolist() == [0, 0, 0, 1, 1, 1]
    assert mesh.normals is not None
    assert mesh.uv is not None
    assert mesh.normals.tolist() == [[0, 0, 1]] * 3 + [[1, 0, 0]] * 3
    assert mesh.uv.tolist() == [[0, 0]] * 3 + [[0.25, 0.75]] * 3


def test_texture_transform_moves_uv(tmp_path):
    """The extension's own example: the lower left quadrant of the image, turned by a quarter."""
    b = Builder()
    primitive = {"attributes": {"POSITION": b.accessor(TRIANGLE)}}
    corners = np.array([[0, 0], [1, 0], [0, 1]], np.float32)
    primitive["attributes"]["TEXCOORD_0"] = b.accessor(corners)
    transform = {"offset": [0, 1], "rotation": math.pi / 2, "scale": [0.5, 0.5]}
    info = {"index": b.texture(PIXEL), "extensions": {"KHR_texture_transform": transform}}
    turned = primitive | {"material": b.material(emissiveTexture=info, emissiveFactor=[1, 1, 1])}
    plain = primitive | {"material": b.material(emissiveTexture={"index": 0})}
    b.mesh(turned, plain)
    mesh = load(b, tmp_path)
    assert mesh.uv is not None
    assert mesh.num_vertices == 6, "the same accessors under two transforms are two sets of vertices"
    down = torch.stack((mesh.uv[:, 0], 1 - mesh.uv[:, 1]), 1)
    assert torch.allclose(down[:3], torch.tensor([[0.0, 1.0], [0.0, 0.5], [0.5, 1.0]]), atol=1e-6)
    assert torch.equal(down[3:], torch.from_numpy(corners))


def test_texture_transforms_that_disagree_are_named(tmp_path):
    b = Builder()
    texture = b.texture(PIXEL)
    moved = {"index": texture, "extensions": {"KHR_texture_transform": {"offset": [0.5, 0]}}}
    b.mesh(b.triangle(material=b.material(pbrMetallicRoughness={"baseColorTexture": moved}, normalTexture={"index": texture})))
    with pytest.warns(FileWarning, match=r"another KHR_texture_transform"):
        load(b, tmp_path)


def with_attribute(name, array):
    return lambda b: b.document["meshes"][0]["primitives"][0]["attributes"].update({name: b.accessor(array)})


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda b: b.document["meshes"][0]["primitives"].append({**b.triangle(), "mode": 0}), "points and lines are ignored"),
        (lambda b: b.document["meshes"][0]["primitives"][0].update(targets=[{"POSITION": 0}]), "morph targets are ignored"),
        (lambda b: b.document["nodes"][0].update(skin=0, scale=[9, 9, 9]), "skins are ignored"),
        (lambda b: b.document["nodes"][0].update(extensions={"EXT_mesh_gpu_instancing": {}}), "appear once"),
        (with_attribute("TEXCOORD_2", np.zeros((3, 2), np.float32)), "TEXCOORD_2"),
        (with_attribute("NORMAL", np.full((3, 3), np.nan, np.float32)), "normals are left out"),
        (with_attribute("TEXCOORD_0", np.full((3, 2), np.inf, np.float32)), "uv is set to 0 at 3 vertices"),
    ],
)
def test_what_is_left_out_is_said(tmp_path, edit, message):
    b = Builder()
    b.mesh(b.triangle())
    edit(b)
    with pytest.warns(FileWarning, match=message):
        mesh = load(b, tmp_path)
    assert torch.equal(mesh.vertices, torch.from_numpy(TRIANGLE))
    assert mesh.normals is None


def test_gltf_with_external_and_embedded_buffers(tmp_path):
    b = Builder()
    b.mesh(b.triangle())
    document = b.document | {"buffers": [{"byteLength": len(b.binary), "uri": "data%20of%20it.bin"}]}
    path = tmp_path / "a.gltf"
    path.write_text(json.dumps(document))
    with pytest.raises(FileFormatError, match=r"buffers\[0\]: there is no file 'data%20of%20it.bin'"):
        load_mesh(path)
    (tmp_path / "data of it.bin").write_bytes(b.binary)
    assert load_mesh(path).num_faces == 1
    embedded = "data:application/octet-stream;base64," + base64.b64encode(b.binary).decode()
    path.write_text(json.dumps(document | {"buffers": [{"byteLength": len(b.binary), "uri": embedded}]}), encoding="utf-8-sig")
    assert load_mesh(path).num_faces == 1
    path.write_text(json.dumps(document | {"buffers": [{"byteLength": len(b.binary), "uri": embedded[:-3] + "!!!"}]}))
    with pytest.raises(FileFormatError, match="cannot be decoded"):
        load_mesh(path)


def test_content_decides_between_glb_and_gltf(tmp_path):
    b = Builder()
    b.mesh(b.triangle())
    assert load_mesh(b.save(tmp_path / "really_binary.gltf")).num_faces == 1


@pytest.mark.parametrize("name", ["KHR_draco_mesh_compression", "EXT_meshopt_compression", "VENDOR_geometry"])
def test_required_extensions_are_named(tmp_path, name):
    b = Builder()
    b.mesh(b.triangle())
    b.document["extensionsRequired"] = [name]
    with pytest.raises(FileFormatError, match=f"requires the extension {name}.*export it without"):
        load(b, tmp_path)


def test_compression_that_is_used_but_not_required(tmp_path):
    b = Builder()
    b.mesh(b.triangle(extensions={"KHR_draco_mesh_compression": {}}))
    assert load(b, tmp_path).num_faces == 1, "with uncompressed data beside it"
    del b.document["accessors"][0]["bufferView"]
    with pytest.raises(FileFormatError, match="KHR_draco_mesh_compression"):
        load(b, tmp_path)
    b = Builder()
    b.mesh(b.triangle())
    b.document["bufferViews"][0]["extensions"] = {"EXT_meshopt_compression": {}}
    with pytest.raises(FileFormatError, match="EXT_meshopt_compression"):
        load(b, tmp_path)


def edited(**changes):
    def edit(b: Builder) -> None:
        b.document.update(changes)

    return edit


def at(*path, **changes):
    def edit(b: Builder) -> None:
        here = b.document
        for key in path:
            here = here[key]
        here.update(changes)

    return edit


@pytest.mark.parametrize(
    ("edit", "error", "message"),
    [
        (edited(asset={"version": "1.0"}), FileFormatError, "version must be 2.0"),
        (edited(asset=[]), FileFormatError, "asset must be an object"),
        (edited(nodes=7), FileFormatError, "nodes must be a list of objects"),
        (edited(scenes=[{"nodes": [5]}]), FileFormatError, "refers to node 5, and there are 1"),
        (edited(scenes=[{"nodes": [0]}], scene=3), FileFormatError, "scene must be the index of one of 1"),
        (edited(nodes=[{"children": [0], "mesh": 0}], scenes=[{"nodes": [0]}]), FileFormatError, "hangs in the scene twice"),
        (edited(nodes=[{"children": [1, 1]}, {"mesh": 0}]), FileFormatError, "hangs in the scene twice"),
        (edited(nodes=[]), MeshError, "at least one face"),
        (edited(nodes=[{"mesh": 4}]), FileFormatError, r"nodes\[0\].mesh must be the index of one of 1"),
        (edited(nodes=[{"mesh": 0, "matrix": [1, 2]}]), FileFormatError, "list of 16 finite numbers"),
        (edited(nodes=[{"mesh": 0, "scale": [1, 1, 1e999]}]), FileFormatError, "JSON"),
        (edited(nodes=[{"mesh": 0, "scale": [1e300, 1, 1]}]), MeshError, "finite"),
        (at("accessors", 0, count=10**12), FileFormatError, r"declares 1,000,000,000,000 elements"),
        (at("accessors", 0, count=0), FileFormatError, r"accessors\[0\].count must be a whole number from 1"),
        (at("accessors", 0, byteOffset=8), FileFormatError, "buffer view has 36 bytes"),
        (at("accessors", 0, type="MAT4"), FileFormatError, "must be one of SCALAR"),
        (at("accessors", 0, type="VEC2"), FileFormatError, "POSITION must have 3 components"),
        (at("accessors", 0, componentType=5124), FileFormatError, "componentType must be one of"),
        (at("accessors", 0, bufferView=3), FileFormatError, "refers to number 3"),
        (at("accessors", 1, componentType=5126, count=1), FileFormatError, "must be unsigned scalars"),
        (at("accessors", 1, count=2), FileFormatError, "2 corners, which is not a multiple of 3"),
        (at("bufferViews", 0, byteOffset=10**9), FileFormatError, r"bufferViews\[0\] spans bytes 1,000,000,000"),
        (at("bufferViews", 0, byteStride=4), FileFormatError, "an element has 12 bytes, and the stride"),
        (at("bufferViews", 0, byteStride=300), FileFormatError, "from 4 to 252"),
        (at("bufferViews", 0, buffer=2), FileFormatError, "refers to number 2"),
        (at("meshes", 0, "primitives", 0, attributes={}), FileFormatError, "has no POSITION"),
        (at("meshes", 0, "primitives", 0, mode=9), FileFormatError, "mode must be from 0 to 6"),
        (at("meshes", 0, "primitives", 0, material=0), FileFormatError, "material must be the index of one of 0"),
        (at("meshes", 0, "primitives", 0, indices=7), FileFormatError, "refers to number 7"),
        (at("meshes", 0, "primitives", 0, mode=1), MeshError, "at least one face"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*points and lines")
def test_documents_that_do_not_fit(tmp_path, edit, error, message):
    b = Builder()
    b.mesh(b.triangle())
    b.document["meshes"][0]["primitives"][0]["indices"] = b.accessor(np.array([0, 1, 2, 0], np.uint16)[:3].copy())
    edit(b)
    with pytest.raises(error, match=message) as caught:
        load(b, tmp_path)
    assert "a.glb" in str(caught.value)


def test_out_of_range_index_does_not_reach_the_next_part(tmp_path):
    """Index 3 of a part with three vertices would be vertex 0 of the part behind it."""
    b = Builder()
    b.mesh(b.triangle(indices=b.accessor(np.array([0, 1, 3], np.uint16))))
    b.mesh(b.triangle())
    with pytest.raises(MeshError, match=r"indices must lie in \[0, 3\); 1 do not, the first is 3"):
        load(b, tmp_path)


def test_vertices_that_are_not_finite(tmp_path):
    b = Builder()
    b.mesh({"attributes": {"POSITION": b.accessor(np.array([[0, 0, 0], [np.nan, 0, 0], [0, 1, 0]], np.float32))}})
    with pytest.raises(MeshError, match=r"vertices must be finite; 1 of 3"):
        load(b, tmp_path)


def test_not_json(tmp_path):
    path = tmp_path / "a.glb"
    for text, message in (
        (b"[]", "must be an object"),
        (b"{]", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (b"{\xff}", "cannot"),
    ):
        path.write_bytes(pack_glb(text))
        with pytest.raises(FileFormatError, match=message):
            load_mesh(path)
