"""Materials of an O-Voxel baked onto a mesh: kept and new texture coordinates, holes, and what cannot be."""

from __future__ import annotations

import importlib.util
import math

import pytest
import torch
from torch import Tensor

from voxgen.core import Material, TriMesh
from voxgen.core.errors import DtypeError, MeshError, RangeError
from voxgen.core.material import linear_to_srgb
from voxgen.ops.texture import build_pyramid, sample_texture
from voxgen.representations import OVoxel
from voxgen.testing.shapes import torus

MISSING_XATLAS = pytest.mark.skipif(importlib.util.find_spec("xatlas") is None, reason="the package xatlas is not installed")


def grid_mesh(n: int = 6, width: float = 1.0, wave: float = 0.15) -> TriMesh:
    """A wavy sheet over [0, width]² with the texture coordinates of a chart that covers most of the unit square."""
    line = torch.linspace(0, 1, n + 1)
    u, v = torch.meshgrid(line, line, indexing="ij")
    vertices = torch.stack((u * width, wave * torch.sin(3 * u + 2 * v), v * width), -1).reshape(-1, 3)
    i = torch.arange(n)[:, None] * (n + 1) + torch.arange(n)
    a, b, c, d = i.flatten(), (i + n + 1).flatten(), (i + n + 2).flatten(), (i + 1).flatten()
    faces = torch.cat((torch.stack((a, c, b), 1), torch.stack((a, d, c), 1))).int()
    return TriMesh(vertices, faces, uv=0.05 + 0.9 * torch.stack((u, v), -1).reshape(-1, 2))


def coloured(mesh: TriMesh, resolution: int = 24) -> OVoxel:
    """The mesh's O-Voxel with colours that are linear in space, so that trilinear samples between cells are exact."""
    ovoxel = OVoxel.from_mesh(mesh, resolution=resolution, materials=False)
    centers = ovoxel.frame.centers(ovoxel.grid.cells)
    low, high = mesh.bounds()
    at = ((centers - low) / (high - low).clamp(min=1e-3) * 0.8 + 0.1).clamp(0, 1)
    return ovoxel.replace(materials={"base_color": at, "metallic": at[:, :1], "roughness": at[:, 2:], "alpha": torch.ones(len(at), 1)})


def looked_up(mesh: TriMesh, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Positions on each face, and the base colours there by texture lookup."""
    assert mesh.uv is not None
    texture = mesh.materials[0].base_color
    assert texture is not None
    uv = mesh.uv[mesh.faces.flatten().long()].reshape(-1, 3, 2)
    color = sample_texture(build_pyramid(texture.values), (uv * weights[:, None]).sum(1))
    return (mesh.corners() * weights[:, None]).sum(1), color


def check_colours(textured: TriMesh, ovoxel: OVoxel, mesh: TriMesh) -> None:
    low, high = mesh.bounds()
    for weights in ([1 / 3, 1 / 3, 1 / 3], [0.6, 0.2, 0.2], [0.15, 0.05, 0.8]):
        points, color = looked_up(textured, torch.tensor(weights))
        wanted = (points - low) / (high - low).clamp(min=1e-3) * 0.8 + 0.1
        # half a cell of colour where a cell around is missing, and 8 bits
        assert float((color - wanted)[:, [0, 2]].abs().max()) < 0.6 * 0.8 / 24 + 2 / 255
    assert textured.num_faces == mesh.num_faces
    assert torch.allclose(textured.corners(), mesh.corners())
    (material,) = textured.materials
    assert (material.alpha_mode, material.double_sided) == ("OPAQUE", True)
    assert set(material.textures) == {"base_color", "alpha", "metallic", "roughness"}
    assert ovoxel.batch_size == 1


def test_texture_coordinates_are_kept() -> None:
    mesh = grid_mesh()
    ovoxel = coloured(mesh)
    for unwrap in ("auto", "keep"):
        textured = ovoxel.bake(mesh, texture_size=256, unwrap=unwrap)
        assert mesh.uv is not None
        assert textured.uv is not None
        assert torch.equal(textured.uv, mesh.uv)
        assert torch.equal(textured.faces, mesh.faces)
        check_colours(textured, ovoxel, mesh)
        texture = textured.materials[0].base_color
        assert texture is not None
        assert bool((texture.image[..., :3].float().sum(2) > 0).all()), "texels outside the chart have its colours"


@pytest.mark.parametrize("unwrap", ["grid", pytest.param("xatlas", marks=MISSING_XATLAS)])
def test_new_texture_coordinates(unwrap: str) -> None:
    mesh = grid_mesh()
    mesh = mesh.replace(normals=mesh.vertex_normals(), attributes={"color": torch.rand(mesh.num_vertices, 3)}, materials=(Material(),))
    ovoxel = coloured(mesh)
    textured = ovoxel.bake(mesh, texture_size=256, unwrap=unwrap)  # pyright: ignore[reportArgumentType]
    check_colours(textured, ovoxel, mesh)
    assert not textured.attributes
    normals = textured.vertex_normals()[textured.faces.long()]
    assert torch.allclose(normals, mesh.vertex_normals()[mesh.faces.long()])
    bare = ovoxel.bake(mesh.replace(uv=None), texture_size=256)
    assert bare.uv is not None


def test_coordinates_that_cannot_be_kept() -> None:
    mesh = grid_mesh()
    ovoxel = coloured(mesh)
    assert mesh.uv is not None
    half = mesh.uv.clone()
    half[:, 0] = (half[:, 0] - 0.5).abs()  # folded: two halves share texels
    bad = {
        "leave": mesh.uv * 2,
        "overlap": half,
        "no texel": torch.zeros_like(mesh.uv),
        "not finite": mesh.uv.clone().index_fill_(0, torch.tensor([3]), math.nan),
    }
    for words, uv in bad.items():
        spoilt = mesh.replace(uv=uv)
        with pytest.raises(RangeError, match=words):
            ovoxel.bake(spoilt, texture_size=128, unwrap="keep")
        textured = ovoxel.bake(spoilt, texture_size=256)  # auto makes new ones
        check_colours(textured, ovoxel, mesh)
    with pytest.raises(RangeError, match="there are none"):
        ovoxel.bake(mesh.replace(uv=None), unwrap="keep")


def test_holes_take_their_neighbour_s_colour() -> None:
    mesh = grid_mesh()
    ovoxel = coloured(mesh)
    near = ovoxel.frame.centers(ovoxel.grid.cells)[:, 0] < 0.5
    part = ovoxel.rows(ovoxel.grid.select(near), near)
    points, color = looked_up(part.bake(mesh, texture_size=256), torch.full((3,), 1 / 3))
    far = points[:, 0] > 0.6
    assert int(far.sum()) > 10
    assert float(color[far, 0].min()) > 0.4, "the colour at the border, and not black"


def test_linear_colours_are_encoded() -> None:
    mesh = grid_mesh()
    ovoxel = coloured(mesh)
    linear = ovoxel.replace(materials={"base_color": torch.full((len(ovoxel), 3), 0.25)}, color_space="linear")
    _, color = looked_up(linear.bake(mesh, texture_size=64), torch.full((3,), 1 / 3))
    assert torch.allclose(color, linear_to_srgb(torch.tensor(0.25)).expand_as(color), atol=1 / 255)


def test_bad_input() -> None:
    mesh = grid_mesh()
    ovoxel = coloured(mesh)
    with pytest.raises(RangeError, match="no materials"):
        ovoxel.replace(materials={}).bake(mesh)
    with pytest.raises(RangeError, match="one object"):
        OVoxel.batched([ovoxel, ovoxel]).bake(mesh)
    with pytest.raises(RangeError, match="'y' up"):
        ovoxel.bake(mesh.with_up("z"))
    with pytest.raises(RangeError, match="texture_size"):
        ovoxel.bake(mesh, texture_size=1)
    with pytest.raises(RangeError, match="unwrap"):
        ovoxel.bake(mesh, unwrap="smart")  # pyright: ignore[reportArgumentType]
    with pytest.raises(DtypeError, match="TriMesh"):
        ovoxel.bake("mesh.glb")  # pyright: ignore[reportArgumentType]
    with pytest.raises(MeshError, match="at least one face"):
        ovoxel.bake(mesh.replace(faces=mesh.faces[:0]))
    with pytest.raises(RangeError, match="grid atlas"):
        coloured(torus()).bake(torus(), texture_size=32, unwrap="grid")
