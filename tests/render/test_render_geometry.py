"""Maps of geometry against closed forms, gradients against finite differences, batches against single meshes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from voxgen.core import Camera, TriMesh
from voxgen.core.errors import DtypeError, MeshError, RangeError, ShapeError
from voxgen.render import GeometryMaps, orbit_cameras, random_cameras, render_geometry, render_mesh
from voxgen.testing.shapes import bowl, box, rotated, sphere, torus

EMPTY = TriMesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int32))
DOUBLE = EMPTY.replace(vertices=torch.zeros(0, 3).double())
QUAD = torch.tensor([[0, 1, 2], [0, 2, 3]])


def square(z: float = 0.0, half: float = 1.0, **fields: object) -> TriMesh:
    """Two triangles that face +z."""
    corners = torch.tensor([[-half, -half, z], [half, -half, z], [half, half, z], [-half, half, z]])
    return TriMesh(corners, QUAD).replace(**fields)


def around(views: int = 4, size: int = 32, **options) -> Camera:
    return orbit_cameras(views, width=size, height=size, elevation=25.0, **options)


def same(one: GeometryMaps, other: GeometryMaps) -> bool:
    fields = ("mask", "depth", "normal", "face_id")
    return all(torch.equal(getattr(one, f), getattr(other, f)) for f in fields) and all(
        torch.equal(one.attributes[name], other.attributes[name]) for name in one.attributes
    )


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("orthographic", [False, True])
def test_maps_of_a_wall(orthographic: bool, antialias: bool) -> None:
    camera = Camera.look_at(torch.tensor([[0.3, -0.2, 2.0]]), (0.3, -0.2, 0.0), width=8, height=8, fov=40.0)
    if orthographic:
        camera = Camera.look_at(torch.tensor([[0.3, -0.2, 2.0]]), (0.3, -0.2, 0.0), width=8, height=8, orthographic_height=1.0)
    wall = square(half=5.0, attributes={"height": torch.tensor([[-5.0], [-5.0], [5.0], [5.0]])})
    for depth in ("z", "ray"):
        maps = render_geometry(wall, camera, depth=depth, attributes=("position", "height"), antialias=antialias)
        assert bool((maps.mask == 1).all())
        assert torch.allclose(maps.normal, torch.tensor([0.0, 0, 1]).expand(1, 8, 8, 3))
        place = maps.attributes["position"]
        assert torch.allclose(place[..., 1:2], maps.attributes["height"], atol=1e-5)
        assert torch.allclose(place[..., 2], torch.zeros(1, 8, 8), atol=1e-5)
        spread = 1.0 if orthographic else 4 * math.tan(math.radians(20))
        centers = (torch.arange(8) + 0.5) / 8 - 0.5
        assert torch.allclose(place[0, 0, :, 0], 0.3 + centers * spread, atol=1e-5)
        assert torch.allclose(place[0, :, 0, 1], -0.2 - centers * spread, atol=1e-5)  # row 0 is the top
        flat = depth == "z" or orthographic
        expected = torch.full((1, 8, 8), 2.0) if flat else (place - camera.positions[0]).norm(dim=-1)
        assert torch.allclose(maps.depth, expected, atol=1e-5)


def test_normals_by_kind_space_and_side() -> None:
    ball, camera = sphere(0.4, 4), around()
    world = render_geometry(ball, camera, antialias=False, attributes=("position",))
    seen = world.mask == 1
    radial = torch.nn.functional.normalize(world.attributes["position"][seen], dim=1)
    # faces of the third-of-a-degree kind lean 2.3° at most, vertex normals hardly
    assert float((world.normal[seen] - radial).norm(dim=1).max()) < 0.05
    smooth = render_geometry(ball, camera, antialias=False, normals="vertex").normal
    assert float((smooth[seen] - radial).norm(dim=1).max()) < 0.01
    assert torch.allclose(smooth[seen].norm(dim=1), torch.ones(int(seen.sum())), atol=1e-6)
    turned = render_geometry(ball, camera, antialias=False, normal_space="camera").normal
    axes = camera.world_to_camera[:, :3, :3]
    assert torch.allclose(turned, torch.einsum("vij,vhwj->vhwi", axes, world.normal), atol=1e-6)
    assert bool((turned[seen][:, 2] < 0).all())  # towards the camera, which looks along z
    inverted = ball.replace(faces=ball.faces.flip(1))
    assert torch.allclose(render_geometry(inverted, camera, antialias=False).normal, -world.normal, atol=1e-6)
    facing = render_geometry(inverted, camera, antialias=False, face_camera=True).normal
    assert torch.allclose(facing, world.normal, atol=1e-6)


def test_given_vertex_normals_are_used() -> None:
    wall = square(half=5.0, normals=torch.tensor([[0.0, 0.6, 0.8]]).expand(4, 3))
    maps = render_geometry(wall, around(1), normals="vertex", antialias=False)
    assert torch.allclose(maps.normal[maps.mask == 1], torch.tensor([0.0, 0.6, 0.8]), atol=1e-6)
    mixed = render_geometry(wall.replace(vertices=wall.vertices.double()), around(1), normals="vertex", antialias=False).normal
    assert mixed.dtype == torch.float64
    assert torch.allclose(mixed.float(), maps.normal, atol=1e-6)


def test_depth_and_faces_agree_with_pictures() -> None:
    mesh, camera = rotated(torus()), around()
    maps = render_geometry(mesh, camera, antialias=False, depth_background=math.inf)
    picture = render_mesh(mesh, camera, shading="normal")
    assert torch.equal(maps.face_id, picture.face_id)
    assert torch.equal(maps.covered, picture.face_id >= 0)
    assert torch.allclose(maps.depth, picture.depth, rtol=1e-6)


def test_backgrounds() -> None:
    maps = render_geometry(square(half=0.1), around(1), attributes=("position",))
    outside = ~maps.covered & (maps.mask == 0)
    assert bool(outside.any())
    for image in (maps.depth, maps.normal, maps.attributes["position"]):
        assert bool((image[outside] == 0).all())
    assert bool((maps.face_id[outside] == -1).all())


@pytest.mark.parametrize("antialias", [False, True])
def test_supersampling_is_the_mean_over_the_pixel(antialias: bool) -> None:
    mesh, camera = rotated(box()), around(2, 16)
    fine = render_geometry(mesh, around(2, 48), antialias=antialias)
    maps = render_geometry(mesh, camera, supersample=3, antialias=antialias)
    assert maps.face_id.shape == (2, 48, 48)
    assert torch.equal(maps.face_id, fine.face_id)
    assert torch.allclose(maps.mask, fine.mask.reshape(2, 16, 3, 16, 3).mean((2, 4)), atol=1e-6)
    assert torch.allclose(maps.depth, fine.depth.reshape(2, 16, 3, 16, 3).mean((2, 4)), atol=1e-6)
    assert torch.equal(maps.covered, (fine.face_id >= 0).reshape(2, 16, 3, 16, 3).any(4).any(2))


@pytest.mark.parametrize("antialias", [False, True])
def test_batches_of_different_meshes_give_what_each_gives_alone(antialias: bool) -> None:
    meshes = [rotated(torus()), EMPTY, rotated(box())]
    camera = around(5)
    options = {"attributes": ("position",), "normals": "vertex", "antialias": antialias}
    sample = torch.tensor([2, 0, 1, 0, 2])
    maps = render_geometry(meshes, camera, sample=sample, **options)
    for view, index in enumerate(sample.tolist()):
        alone = render_geometry(meshes[index], camera[view], **options)
        for name in ("mask", "depth", "normal", "face_id"):
            assert torch.equal(getattr(maps, name)[view], getattr(alone, name)[0]), name
        assert torch.equal(maps.attributes["position"][view], alone.attributes["position"][0])
    each = render_geometry(meshes, camera[torch.tensor([1, 2, 0])], **options)  # view i shows mesh i
    assert torch.equal(each.mask[0], maps.mask[1])
    assert torch.equal(each.mask[2], maps.mask[0])


def test_views_in_groups_and_faces_in_sections_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from voxgen.render import geometry

    mesh, camera = rotated(torus()), around(5)
    whole = render_geometry(mesh, camera)
    assert same(whole, render_geometry(mesh, camera, max_faces=1000))
    monkeypatch.setattr(geometry, "_PIXELS", 2 * 32 * 32)
    assert same(whole, render_geometry(mesh, camera))


def test_half_precision_regions_and_repeated_runs_change_nothing() -> None:
    mesh, camera = rotated(torus()), around(2)
    vertices = mesh.vertices.clone().requires_grad_()

    def run() -> tuple[GeometryMaps, Tensor]:
        maps = render_geometry(mesh.replace(vertices=vertices), camera, normal_space="camera", normals="vertex")
        return maps, torch.autograd.grad(maps.depth.square().sum() + maps.normal[..., 0].sum() + maps.mask.sum(), vertices)[0]

    maps, gradient = run()
    again, same_gradient = run()
    assert same(maps, again)
    assert torch.equal(gradient, same_gradient)
    with torch.autocast("cpu", torch.bfloat16):
        assert same(maps, run()[0])


def test_nothing_to_see() -> None:
    camera = around(2, 16)
    shape = {"mask": (2, 16, 16), "depth": (2, 16, 16), "normal": (2, 16, 16, 3), "face_id": (2, 32, 32)}
    behind = square(half=0.1, z=50.0)
    for mesh in (EMPTY, behind):
        mesh = mesh.replace(vertices=mesh.vertices.clone().requires_grad_())
        maps = render_geometry(mesh, camera, supersample=2, normals="vertex", normal_space="camera", attributes=("position",))
        assert {name: tuple(getattr(maps, name).shape) for name in shape} == shape
        assert maps.attributes["position"].shape == (2, 16, 16, 3)
        assert not bool(maps.covered.any())
        (maps.mask.sum() + maps.depth.sum() + maps.normal.sum()).backward()
        assert mesh.vertices.grad is not None
        assert bool((mesh.vertices.grad == 0).all())
    none = render_geometry(sphere(), camera[torch.zeros(0, dtype=torch.int64)], supersample=2)
    assert none.mask.shape == (0, 16, 16)
    assert none.face_id.shape == (0, 32, 32)
    assert none.normal.shape == (0, 16, 16, 3)
    assert none.covered.shape == (0, 16, 16)


def test_a_camera_inside_sees_what_a_cut_mesh_shows() -> None:
    """The near plane cuts faces pixel by pixel: the wall before it is gone, the wall behind it stays."""
    camera = Camera.look_at(torch.tensor([[0.0, 0.0, 0.2]]), width=16, height=16, fov=90.0, near=0.05)
    maps = render_geometry(box(), camera, antialias=False)
    assert bool((maps.mask == 1).all())
    assert float(maps.depth[0, 8, 8]) == pytest.approx(0.5, abs=1e-5)
    cut = Camera.look_at(torch.tensor([[0.0, 0.0, 2.0]]), width=16, height=16, fov=10.0, near=1.9)
    assert float(render_geometry(box(), cut, antialias=False).depth[0, 8, 8]) == pytest.approx(2.3, abs=1e-5)


def test_degenerate_faces_are_not_seen_and_give_no_gradient() -> None:
    wall = square(half=0.5)
    line = torch.tensor([[0, 1, 1], [2, 2, 2], [0, 1, 4]])
    vertices = torch.cat((wall.vertices, torch.tensor([[0.0, -0.5, 0.0]]))).requires_grad_()
    mesh = TriMesh(vertices, torch.cat((line, QUAD)))
    for normals in ("face", "vertex"):
        maps = render_geometry(mesh, around(1), normals=normals)
        assert bool(torch.isfinite(maps.normal).all())
        (gradient,) = torch.autograd.grad(maps.normal.square().sum() + maps.depth.sum(), vertices)
        assert bool(torch.isfinite(gradient).all())


def test_normals_of_tiny_faces_do_not_vanish() -> None:
    small = square(half=1e-13)
    camera = Camera.look_at(torch.tensor([[0.0, 0.0, 1.0]]), width=4, height=4, orthographic_height=1e-13)
    maps = render_geometry(small, camera, antialias=False)
    assert torch.allclose(maps.normal, torch.tensor([0.0, 0, 1]).expand(1, 4, 4, 3))


def gradient_and_slope(loss, start: Tensor, direction: Tensor, step: float = 1e-6) -> tuple[float, float]:
    """Along a direction: by the graph, and by central differences."""
    value = start.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(value), value)
    slope = (loss(start + step * direction) - loss(start - step * direction)) / (2 * step)
    return float((gradient * direction).sum()), float(slope)


@pytest.mark.parametrize("options", [{}, {"normals": "vertex", "normal_space": "camera", "depth": "ray"}, {"supersample": 2}])
@pytest.mark.parametrize("orthographic", [False, True])
def test_gradients_inside_faces(options: dict, orthographic: bool) -> None:
    mesh = rotated(bowl(rings=5, around=9))
    mesh = mesh.replace(vertices=mesh.vertices.double(), attributes={"color": torch.rand(mesh.num_vertices, 2).double()})
    camera = around(3, 12, orthographic=orthographic)
    reference = render_geometry(mesh, camera, antialias=False, **options)
    weights = {n: torch.randn(s, dtype=torch.float64) for n, s in (("d", (3, 12, 12)), ("n", (3, 12, 12, 3)), ("c", (3, 12, 12, 2)))}

    def loss(vertices: Tensor, color: Tensor) -> Tensor:
        moved = mesh.replace(vertices=vertices, attributes={"color": color})
        maps = render_geometry(moved, camera, antialias=False, attributes=("position", "color"), **options)
        assert torch.equal(maps.face_id, reference.face_id)  # no pixel changes its face: away from discontinuities
        place = (maps.attributes["position"] * weights["n"].flip(0)).sum()
        return (
            (maps.depth * weights["d"]).sum() + (maps.normal * weights["n"]).sum() + (maps.attributes["color"] * weights["c"]).sum() + place
        )

    color = mesh.attributes["color"]
    for _ in range(3):
        direction = torch.randn_like(mesh.vertices)
        by_graph, slope = gradient_and_slope(lambda v: loss(v, color), mesh.vertices, direction)
        assert by_graph == pytest.approx(slope, rel=1e-6, abs=1e-6)
    by_graph, slope = gradient_and_slope(lambda c: loss(mesh.vertices, c), color, torch.randn_like(color))
    assert by_graph == pytest.approx(slope, rel=1e-6)


def test_gradients_of_the_camera() -> None:
    mesh = rotated(sphere(0.4, 2))
    mesh = mesh.replace(vertices=mesh.vertices.double())
    camera = around(2, 12)
    pose = camera.world_to_camera.double()
    weight = torch.randn(2, 12, 12, dtype=torch.float64)

    def loss(world_to_camera: Tensor) -> Tensor:
        moved = Camera(world_to_camera, camera.intrinsics.double(), 12, 12, camera.near, camera.far)
        return (render_geometry(mesh, moved, antialias=False).depth * weight).sum()

    direction = torch.zeros_like(pose)
    direction[:, :3, 3] = torch.randn(2, 3, dtype=torch.float64)
    by_graph, slope = gradient_and_slope(loss, pose, direction)
    assert by_graph == pytest.approx(slope, rel=1e-5)


def test_area_of_a_square_and_its_growth_by_antialias() -> None:
    """The published square: half side 0.503 of the image, turned by 0.2 rad, 64² pixels; d(sum) / d(scale) = 2 sum."""
    turn = torch.tensor([[math.cos(0.2), -math.sin(0.2)], [math.sin(0.2), math.cos(0.2)]], dtype=torch.float64)
    flat = 0.503 * torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]], dtype=torch.float64) @ turn.T
    camera = Camera.look_at(torch.tensor([[0.0, 0.0, 2.0]]), width=64, height=64, orthographic_height=2.0)
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    vertices = torch.nn.functional.pad(flat * scale, (0, 1))
    mask = render_geometry(TriMesh(vertices, QUAD), camera).mask
    exact = (2 * 0.503 * 32) ** 2
    assert float(mask.detach().sum()) == pytest.approx(exact, rel=5e-4)
    (growth,) = torch.autograd.grad(mask.sum(), scale, retain_graph=True)
    assert float(growth) == pytest.approx(2 * exact, rel=0.02)  # 126.2 rows and columns cross the outline in the mean, here 128
    mask = render_geometry(TriMesh(vertices, QUAD), camera, outline_walk=0).mask
    (growth,) = torch.autograd.grad(mask.sum(), scale)
    assert float(growth) == pytest.approx(2069.4, abs=0.1)  # as published


def test_fitting_a_sphere_to_the_masks_of_a_cube() -> None:
    """Outlines carry the gradient: nothing but masks tells the sphere where the cube ends."""
    camera = random_cameras(6, width=64, height=64, generator=torch.Generator().manual_seed(0))
    target = render_geometry(rotated(box()), camera).mask
    ball = sphere(0.35, 2)
    vertices = ball.vertices.clone().requires_grad_()
    optimizer = torch.optim.Adam([vertices], lr=1e-2)
    errors = []
    for _ in range(60):
        loss = (render_geometry(ball.replace(vertices=vertices), camera).mask - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(float(loss.detach()))
    assert errors[-1] < 0.05 * errors[0]


@pytest.mark.parametrize("field", ["world_to_camera", "intrinsics"])
@pytest.mark.parametrize(("value", "words"), [(math.nan, "must be finite"), (0.0, "must be invertible; that of view 1")])
def test_cameras_that_cannot_see(field: str, value: float, words: str) -> None:
    camera = around(2, 16)
    matrices = {"world_to_camera": camera.world_to_camera.clone(), "intrinsics": camera.intrinsics.clone()}
    matrices[field][1, 0] = value
    with pytest.raises(RangeError, match=words):
        render_geometry(sphere(), Camera(matrices["world_to_camera"], matrices["intrinsics"], 16, 16))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"meshes": []}, MeshError, "at least one mesh"),
        ({"meshes": [sphere(), sphere()]}, ShapeError, "2 meshes and 4 views need sample"),
        ({"meshes": [sphere(), 3]}, DtypeError, r"meshes\[1\] must be a TriMesh"),
        (
            {"meshes": [sphere(), EMPTY.replace(vertices=torch.zeros(0, 3).double())], "sample": torch.zeros(4).long()},
            DtypeError,
            "one dtype",
        ),
        ({"meshes": TriMesh(torch.full((3, 3), math.nan), torch.tensor([[0, 1, 2]]))}, MeshError, "mesh: vertices must be finite"),
        ({"meshes": TriMesh(torch.zeros(3, 3), torch.tensor([[0, 1, 3]]))}, MeshError, "faces must index 3 vertices"),
        ({"sample": torch.tensor([0, 0, 1, 0])}, RangeError, "sample must name some of the 1 meshes"),
        ({"sample": torch.zeros(3).long()}, ShapeError, r"sample must be \(4,\)"),
        ({"depth": "w"}, RangeError, "depth must be one of"),
        ({"normals": "map"}, RangeError, "normals must be one of"),
        ({"normal_space": "eye"}, RangeError, "normal_space must be one of"),
        ({"supersample": 0}, RangeError, "supersample"),
        ({"supersample": 1.5}, DtypeError, "whole number"),
        ({"max_faces": 0}, RangeError, "max_faces"),
        ({"attributes": ("color",)}, MeshError, "no attribute 'color'; it has position"),
        ({"attributes": "color"}, DtypeError, "sequence of names"),
        ({"depth_background": math.inf}, RangeError, "needs antialias=False"),
        ({"depth_background": math.nan}, RangeError, "got NaN"),
    ],
)
def test_bad_requests(options: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        render_geometry(**{"meshes": sphere(), "camera": around(4, 16), **options})  # pyright: ignore[reportArgumentType]
