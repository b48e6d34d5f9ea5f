"""trimesh meshes and scenes come in and go out with uv, materials, colours and attributes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from trimesh.visual import ColorVisuals, TextureVisuals
from trimesh.visual.material import PBRMaterial, SimpleMaterial

from voxgen.core import Material, Texture, TriMesh
from voxgen.core.errors import DtypeError, MeshError, MeshWarning
from voxgen.interop import from_trimesh, to_trimesh, to_trimesh_scene
from voxgen.testing.shapes import box, sphere, wavy_sheet


def image(*channels: int, size: int = 4) -> torch.Tensor:
    return torch.randint(0, 256, (size, size, *channels), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)


def textured() -> TriMesh:
    """A material that trimesh can hold without loss."""
    base, rough = image(4), image(3)
    material = Material(
        name="paint",
        base_color_factor=(1.0, 0.2, 0.6),
        base_color=Texture(base, (0, 1, 2), srgb=True),
        alpha_factor=0.4,
        alpha=Texture(base, (3,)),
        metallic_factor=0.25,
        metallic=Texture(rough, (2,)),
        roughness_factor=0.75,
        roughness=Texture(rough, (1,)),
        emissive_factor=(0.5, 0.25, 1.0),
        emissive=Texture(image(3), (0, 1, 2), srgb=True),
        normal=Texture(image(3), (0, 1, 2)),
        occlusion=Texture(image(3), (0,)),
        alpha_mode="MASK",
        alpha_cutoff=0.3,
        double_sided=True,
    )
    return wavy_sheet(5).replace(materials=(material,))


def test_a_textured_mesh_there_and_back() -> None:
    mesh = textured()
    back = from_trimesh(to_trimesh(mesh))
    assert torch.equal(back.vertices, mesh.vertices)
    assert torch.equal(back.faces, mesh.faces)
    assert mesh.uv is not None
    assert back.uv is not None
    assert torch.equal(back.uv, mesh.uv)
    (a,), (e,) = back.materials, mesh.materials
    for name in ("name", "metallic_factor", "roughness_factor", "emissive_factor", "alpha_mode", "alpha_cutoff", "double_sided"):
        assert getattr(a, name) == getattr(e, name), name
    assert np.allclose((*a.base_color_factor, a.alpha_factor), (*e.base_color_factor, e.alpha_factor), atol=0.5 / 255)
    assert a.textures.keys() == e.textures.keys()
    for slot, texture in e.textures.items():
        assert torch.equal(a.textures[slot].values, texture.values), slot
        assert a.textures[slot].srgb == texture.srgb, slot


def test_the_picture_is_the_right_way_up() -> None:
    """trimesh samples its own material: uv (0, 1) is the top left pixel."""
    visual: Any = to_trimesh(textured()).visual
    assert visual.kind == "texture"
    color = visual.material.to_color(np.array([[0.01, 0.99]]))
    assert torch.equal(torch.tensor(color[0][:3]), image(4)[0, 0, :3])


def test_colors_and_attributes() -> None:
    mesh = box().replace(attributes={"color": torch.tensor([[0.0, 0.2, 1.0]]).repeat(8, 1), "heat": torch.rand(8, 2)})
    made = to_trimesh(mesh)
    assert isinstance(made.visual, ColorVisuals)
    back = from_trimesh(made)
    assert torch.allclose(back.attributes["color"][:, :3], mesh.attributes["color"], atol=0.5 / 255)
    assert torch.equal(back.attributes["heat"], mesh.attributes["heat"])
    plain = from_trimesh(to_trimesh(box()))
    assert plain.attributes == {}
    assert plain.materials == ()


def test_one_index_a_vertex_keeps_its_shape() -> None:
    made = trimesh.Trimesh(*trimesh_box(), vertex_attributes={"id": np.arange(8)}, process=False)
    assert torch.equal(from_trimesh(made).attributes["id"], torch.arange(8)[:, None])


def trimesh_box() -> tuple[np.ndarray, np.ndarray]:
    return box().vertices.numpy(), box().faces.numpy()


def test_up_is_converted_on_the_way_out_and_a_label_on_the_way_in() -> None:
    mesh = sphere(subdivisions=1).replace(up="z")
    assert np.allclose(to_trimesh(mesh).vertices, mesh.with_up("y").vertices.numpy())
    assert np.array_equal(to_trimesh(mesh, up="z").vertices.astype(np.float32), mesh.vertices.numpy())
    back = from_trimesh(to_trimesh(mesh, up="z"), up="z")
    assert back.up == "z"
    assert torch.equal(back.vertices, mesh.vertices)


def test_scenes() -> None:
    red, blue = Material(name="red", base_color_factor=(1, 0, 0)), Material(name="blue", base_color_factor=(0, 0, 1))
    mesh = TriMesh.concatenate(
        [sphere(subdivisions=1).replace(materials=(red,), part_names=("ball",)), box().replace(materials=(blue,), part_names=("box",))]
    )
    with pytest.raises(MeshError, match=r"this mesh uses 2\. Use to_trimesh_scene"):
        to_trimesh(mesh)
    scene = to_trimesh_scene(mesh)
    assert sorted(scene.geometry) == ["ball", "box"]
    back = from_trimesh(scene)
    assert back.part_names == ("ball", "box")
    assert [m.name for m in back.materials] == ["red", "blue"]
    assert torch.equal(back.corners(), mesh.corners())


def test_transforms_of_a_scene_are_applied() -> None:
    scene = trimesh.Scene()
    shift = trimesh.transformations.translation_matrix([1, 2, 3])
    scene.add_geometry(trimesh.Trimesh(*trimesh_box(), process=False), transform=shift)
    assert torch.allclose(from_trimesh(scene).vertices, box().vertices + torch.tensor([1.0, 2, 3]))


def test_a_material_of_an_obj_file_is_not_metal() -> None:
    picture = Image.fromarray(image(3).numpy())
    made = trimesh.Trimesh(*trimesh_box(), process=False)
    made.visual = TextureVisuals(uv=np.zeros((8, 2)), material=SimpleMaterial(image=picture, diffuse=[255, 255, 255, 255]))
    (material,) = from_trimesh(made).materials
    assert material.metallic_factor == 0
    assert material.base_color is not None
    assert torch.equal(material.base_color.image[:, :, :3], image(3))


def test_defaults_of_gltf_where_trimesh_has_none() -> None:
    made = trimesh.Trimesh(*trimesh_box(), visual=TextureVisuals(uv=np.zeros((8, 2)), material=PBRMaterial()), process=False)
    (material,) = from_trimesh(made).materials
    assert (material.base_color_factor, material.alpha_factor) == ((1, 1, 1), 1)
    assert (material.metallic_factor, material.roughness_factor, material.emissive_factor) == (1, 1, (0, 0, 0))
    assert material.alpha_mode == "OPAQUE"


def test_what_is_lost_is_said() -> None:
    mesh = textured()
    (material,) = mesh.materials
    assert material.base_color is not None
    clamped = Texture(image(3), (0, 1, 2), wrap=("clamp", "clamp"))
    odd = Material(base_color=clamped, normal_scale=2.0, emissive_factor=(3.0, 0.0, 0.0))
    expected = "second uv set, wrap, filter or uv set of textures, normal scale or occlusion strength, emission above 1"
    with pytest.warns(MeshWarning, match=expected):
        to_trimesh(mesh.replace(uv1=mesh.uv, materials=(odd,)))
    with pytest.warns(MeshWarning, match="single faces"):
        from_trimesh(trimesh.Trimesh(*trimesh_box(), visual=ColorVisuals(face_colors=np.full((12, 4), 9, np.uint8)), process=False))
    scene = trimesh.Scene([trimesh.PointCloud(np.zeros((3, 3)))])
    with pytest.warns(MeshWarning, match="PointCloud and is left out"), pytest.raises(MeshError, match="at least one mesh"):
        from_trimesh(scene)


def test_wrong_input() -> None:
    with pytest.raises(DtypeError, match=r"must be a trimesh\.Trimesh or trimesh\.Scene; got"):
        from_trimesh(box())
    two_sizes = Material(metallic=Texture(image(1), (0,)), roughness=Texture(image(1, size=8), (0,)))
    with pytest.raises(MeshError, match=r"must have one size; got \[\(4, 4\), \(8, 8\)\]"):
        to_trimesh(wavy_sheet(3).replace(materials=(two_sizes,)))


def test_an_empty_mesh() -> None:
    empty = TriMesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int32))
    back = from_trimesh(to_trimesh(empty))
    assert (back.num_vertices, back.num_faces) == (0, 0)
