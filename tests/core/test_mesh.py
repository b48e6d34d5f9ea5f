"""TriMesh, materials, cameras."""

from __future__ import annotations

import math

import pytest
import torch

from voxgen.core import Camera, Material, Texture, TriMesh
from voxgen.core.errors import DtypeError, MeshError, RangeError, ShapeError
from voxgen.core.material import linear_to_srgb, srgb_to_linear
from voxgen.testing import shapes


def test_fields_must_fit() -> None:
    v, f = torch.rand(4, 3), torch.tensor([[0, 1, 2]])
    with pytest.raises(ShapeError, match="uv"):
        TriMesh(v, f, uv=torch.rand(3, 2))
    with pytest.raises(ShapeError, match=r"attributes\['color'\]"):
        TriMesh(v, f, attributes={"color": torch.rand(3, 4)})
    with pytest.raises(DtypeError, match="faces"):
        TriMesh(v, f.float())
    with pytest.raises(DtypeError, match="vertices"):
        TriMesh(v.numpy(), f)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="triangles"):
        TriMesh.from_arrays(v, torch.zeros(1, 4))
    assert TriMesh(v, f).faces.dtype == torch.int32


@pytest.mark.parametrize(
    ("mesh", "words"),
    [
        (TriMesh(torch.rand(3, 3), torch.zeros(0, 3, dtype=torch.int32)), "at least one face"),
        (TriMesh(torch.rand(3, 3), torch.tensor([[0, 1, 2], [0, 1, 3]])), "face 1 = [0, 1, 3]"),
        (TriMesh(torch.rand(3, 3), torch.tensor([[0, 1, -1]])), "index"),
        (TriMesh(torch.tensor([[0.0, 0, 0], [1, 0, float("nan")], [0, 1, 0]]), torch.tensor([[0, 1, 2]])), "row 1"),
        (TriMesh(torch.full((3, 3), float("inf")), torch.tensor([[0, 1, 2]])), "finite"),
        (TriMesh(torch.rand(3, 3), torch.tensor([[0, 1, 2]]), face_material=torch.tensor([2])), "face_material"),
    ],
)
def test_validate_names_what_is_wrong(mesh: TriMesh, words: str) -> None:
    with pytest.raises(MeshError) as caught:
        mesh.validate("here")
    assert words in str(caught.value)


def test_up_axis_turns_exactly_and_back() -> None:
    mesh = shapes.rotated(shapes.box())
    turned = mesh.with_up("z")
    assert turned.up == "z"
    x, y, z = mesh.vertices.unbind(1)
    assert torch.equal(turned.vertices, torch.stack((x, -z, y), 1))
    assert torch.equal(turned.with_up("y").vertices, mesh.vertices)
    assert torch.allclose(turned.face_areas(), mesh.face_areas())


def test_transform_keeps_the_front_outside() -> None:
    ball = shapes.sphere()
    ball = ball.replace(normals=ball.vertices / 0.4)
    mirror = torch.diag(torch.tensor([-1.0, 2, 1, 1]))
    flipped = ball.transformed(mirror)
    centers = flipped.corners().mean(1)
    assert ((flipped.face_normals() * centers).sum(1) > 0).all()
    assert flipped.normals is not None
    face_side = flipped.face_normals() * flipped.normals[flipped.faces[:, 0].long()]
    assert (face_side.sum(1) > 0.8).all()
    with pytest.raises(RangeError, match="singular"):
        ball.transformed(torch.zeros(4, 4))


def test_vertex_normals_of_a_sphere_point_outwards() -> None:
    ball = shapes.sphere(subdivisions=4)
    assert ((ball.vertex_normals() * ball.vertices / 0.4).sum(1) > 0.999).all()


def test_weld_joins_equal_positions_only() -> None:
    v = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [-0.0, 0, 0], [1, 1e-7, 0]])
    mesh = TriMesh(v, torch.tensor([[0, 1, 2]]))
    assert mesh.weld().tolist() == [0, 1, 2, 0, 4]
    assert TriMesh(v[:0], torch.zeros(0, 3, dtype=torch.int32)).weld().tolist() == []


def test_concatenate_keeps_parts_and_materials_apart() -> None:
    a = shapes.box().replace(materials=(Material("a"), Material("b")), face_material=torch.tensor([0] * 6 + [1] * 6), part_names=("box",))
    b = shapes.wavy_sheet(4).replace(materials=(Material("c"),), part_names=("sheet",))
    both = TriMesh.concatenate([a, b, shapes.box()])
    assert both.part_names == ("box", "sheet", "")
    assert both.face_material is not None
    assert both.face_part is not None
    assert both.face_material.tolist() == [0] * 6 + [1] * 6 + [2] * 18 + [-1] * 12
    assert both.face_part.bincount().tolist() == [12, 18, 12]
    assert both.uv is not None
    assert torch.equal(both.uv[8:24], b.uv)
    assert torch.equal(both.select_faces(both.face_part == 1).corners(), b.corners())
    with pytest.raises(MeshError, match="up"):
        TriMesh.concatenate([a, b.with_up("z")])
    with pytest.raises(MeshError, match="attributes"):
        TriMesh.concatenate([a, b.replace(attributes={"color": torch.ones(16, 4)})])
    with pytest.raises(MeshError, match="none"):
        TriMesh.concatenate([])


def test_textures_and_materials_check_their_channels() -> None:
    image = torch.zeros(2, 3, 4, dtype=torch.uint8)
    image[..., 2] = 255
    assert Texture(image, (2, 0)).values[0, 0].tolist() == [1.0, 0.0]
    with pytest.raises(RangeError, match="channels"):
        Texture(image, (4,))
    with pytest.raises(DtypeError, match="image"):
        Texture(image.int(), (0,))
    with pytest.raises(RangeError, match="wrap"):
        Texture(image, (0,), wrap=("repeat", "around"))  # type: ignore[arg-type]
    with pytest.raises(RangeError, match="metallic must read 1"):
        Material(metallic=Texture(image, (0, 1)))
    with pytest.raises(RangeError, match="alpha_mode"):
        Material(alpha_mode="CUT")  # type: ignore[arg-type]


def test_srgb_curve_and_its_inverse() -> None:
    x = torch.linspace(0, 1, 1001, dtype=torch.float64)
    assert torch.allclose(linear_to_srgb(srgb_to_linear(x)), x, atol=1e-7)
    assert float(srgb_to_linear(torch.tensor(0.5))) == pytest.approx(0.214041, abs=1e-6)
    x.requires_grad_()
    (slope,) = torch.autograd.grad(linear_to_srgb(x).sum(), x)
    assert torch.isfinite(slope).all()


@pytest.mark.parametrize("orthographic", [None, 2.0])
def test_camera_projects_like_its_clip_matrix(orthographic: float | None) -> None:
    eyes = torch.tensor([[0.0, 0, 3], [2, 1, 0]], dtype=torch.float64)
    camera = Camera.look_at(eyes, width=200, height=100, near=0.5, far=9, orthographic_height=orthographic)
    points = torch.tensor([[0.0, 0, 0], [0.3, 0.2, -0.1]], dtype=torch.float64)
    local = camera.to_camera(points)
    k = camera.intrinsics
    flat = local[..., :2] if orthographic else local[..., :2] / local[..., 2:]
    pixels = flat * k[:, None, [0, 1], [0, 1]] + k[:, None, :2, 2]
    clip = torch.nn.functional.pad(points, (0, 1), value=1.0) @ camera.clip_matrices().transpose(1, 2)
    ndc = clip[..., :3] / clip[..., 3:]
    expected = (ndc[..., :2] + 1) / 2 * torch.tensor([200, 100])
    assert torch.allclose(pixels, expected)
    assert pixels[0, 0].tolist() == pytest.approx([100, 50])
    assert pixels[0, 1, 1] < 50, "what is higher in the world has a smaller row"
    assert pixels[0, 1, 0] > 100, "seen from +z, +x is to the right"
    assert torch.allclose(camera.positions, eyes)
    ends = camera.positions[0] + camera.forward[0] * torch.tensor([[0.5], [9.0]], dtype=torch.float64)
    depth = torch.nn.functional.pad(ends, (0, 1), value=1.0) @ camera.clip_matrices()[0].T
    assert (depth[:, 2] / depth[:, 3]).tolist() == pytest.approx([-1, 1])


def test_camera_rejects_what_cannot_be() -> None:
    eye = torch.tensor([[0.0, 0, 1]])
    with pytest.raises(RangeError, match="up"):
        Camera.look_at(eye, up=(0.0, 0.0, 1.0))
    with pytest.raises(RangeError, match="up"):
        Camera.look_at(eye * 0)
    with pytest.raises(RangeError, match="fov"):
        Camera.look_at(eye, fov=180)
    with pytest.raises(RangeError, match="near"):
        Camera.look_at(eye, near=0.0)
    with pytest.raises(RangeError, match="less than far"):
        Camera.look_at(eye, near=2.0, far=1.0)
    assert len(Camera.batched([Camera.look_at(eye), Camera.look_at(-eye)])[1]) == 1
    assert math.isclose(float(Camera.look_at(eye, height=100, fov=90).intrinsics[0, 0, 0]), 50, rel_tol=1e-6)
