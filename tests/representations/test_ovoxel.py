"""O-Voxel as a whole: mesh → O-Voxel → mesh, batches, frames, crop, merge, resample, bad input."""

from __future__ import annotations

import warnings

import pytest
import torch

from voxgen.core import Frame, Material, Texture, TriMesh, VoxelGrid
from voxgen.core.errors import (
    CapacityError,
    DtypeError,
    EmptyResultWarning,
    FrameError,
    MeshError,
    RangeError,
    ShapeError,
    VoxgenError,
)
from voxgen.metrics import chamfer_distance, f_score, mesh_report
from voxgen.representations import OVoxel
from voxgen.representations.ovoxel import QEFWeights
from voxgen.testing import shapes


def textured_ball() -> TriMesh:
    """A sphere whose colour follows its position, by vertex attributes, and a constant roughness."""
    ball = shapes.sphere(0.4, 4)
    return ball.replace(attributes={"base_color": ball.vertices + 0.5, "roughness": torch.full((ball.num_vertices, 1), 0.25)})


@pytest.mark.parametrize("name", ["sphere", "torus", "box"])
def test_closed_surfaces_come_back_closed_and_oriented(name: str) -> None:
    source = shapes.rotated({"sphere": shapes.sphere, "torus": shapes.torus, "box": shapes.box}[name]())
    mesh = OVoxel.from_mesh(source, 48, materials=False).to_mesh()
    report = mesh_report(mesh, weld=False)  # dual vertices of two cells may meet in a corner that both touch
    assert report.is_closed
    assert report.is_oriented
    assert report.euler_number == (0 if name == "torus" else 2)
    truth = mesh_report(source)
    assert report.volume == pytest.approx(truth.volume, rel=0.01)


def test_without_crossing_signs_the_winding_is_lost() -> None:
    ovoxel = OVoxel.from_mesh(shapes.rotated(shapes.torus()), 32, materials=False)
    assert mesh_report(ovoxel.to_mesh(), weld=False).inconsistent_edges == 0
    assert mesh_report(ovoxel.replace(crossing_sign=None).to_mesh()).inconsistent_edges > 100


def test_open_surfaces_stay_open() -> None:
    source = shapes.rotated(shapes.bowl())
    report = mesh_report(OVoxel.from_mesh(source, 96, materials=False).to_mesh(), weld=False)
    truth = mesh_report(source)
    assert report.boundary_loops == truth.boundary_loops == 1
    # The border runs along dual vertices that lie on the true border only to the fit of their cells.
    assert report.boundary_length == pytest.approx(truth.boundary_length, rel=0.15)


def test_a_shell_inside_a_shell_and_a_crossing_part_survive() -> None:
    source = shapes.rotated(shapes.merged(shapes.sphere(0.4), shapes.sphere(0.2), shapes.torus(0.4, 0.05)))
    ovoxel = OVoxel.from_mesh(source, 96, materials=False)
    assert f_score(source, ovoxel.to_mesh(), 1 / 96).f > 0.999


def test_error_falls_faster_than_the_voxel_size() -> None:
    source = shapes.rotated(shapes.sphere(0.4, 6))
    errors = [chamfer_distance(source, OVoxel.from_mesh(source, r, materials=False).to_mesh()).l1 for r in (16, 32, 64)]
    assert errors[1] < 0.5 * errors[0]
    assert errors[2] < 0.5 * errors[1]


def test_fit_returns_to_the_world_and_a_frame_is_taken_as_it_is() -> None:
    source = shapes.rotated(shapes.torus())
    far = source.replace(vertices=source.vertices * 30 + torch.tensor([100.0, -50, 7]))
    mesh = OVoxel.from_mesh(far, 64, materials=False).to_mesh()
    assert chamfer_distance(far, mesh).l1 < 0.2 * 30 / 64
    frame = Frame.box((-0.5, -0.6, -0.7), (0.6, 0.5, 0.4), (40, 44, 48), up="y")
    ovoxel = OVoxel.from_mesh(source, (40, 44, 48), frame=frame, materials=False)
    assert ovoxel.resolution == (40, 44, 48)
    assert ovoxel.frame == frame
    assert chamfer_distance(source, ovoxel.to_mesh()).l1 < 0.2 / 40


def test_up_axis_travels() -> None:
    source = shapes.rotated(shapes.torus()).with_up("z")
    assert OVoxel.from_mesh(source, 16, materials=False).to_mesh().up == "z"


def test_a_list_becomes_a_batch_of_the_single_results() -> None:
    meshes = [shapes.rotated(shapes.torus()), shapes.bowl(), shapes.rotated(shapes.box())]
    batch = OVoxel.from_mesh(meshes, 32)
    assert batch.batch_size == 3
    for i, mesh in enumerate(meshes):
        alone = OVoxel.from_mesh(mesh, 32)
        item = batch.sample(i)
        assert torch.equal(item.coords, alone.coords)
        assert torch.equal(item.dual_vertices, alone.dual_vertices)
        assert torch.equal(item.intersected, alone.intersected)
        assert all(torch.equal(item.materials[k], v) for k, v in alone.materials.items())
    together = batch.to_mesh()
    assert together.num_parts == 3
    assert together.face_part is not None
    for i in range(3):
        part = together.select_faces(together.face_part == i)
        assert torch.allclose(part.corners(), batch.sample(i).to_mesh().corners())


def test_materials_travel_as_vertex_attributes() -> None:
    ovoxel = OVoxel.from_mesh(textured_ball(), 64)
    assert list(ovoxel.materials) == ["base_color", "metallic", "roughness", "alpha"]
    mesh = ovoxel.to_mesh()
    # Colour was position + 0.5; a cell's colour is an average over about a cell.
    assert float((mesh.attributes["base_color"] - (mesh.vertices + 0.5)).abs().max()) < 2 / 64
    assert torch.allclose(mesh.attributes["roughness"], torch.tensor(0.25), atol=1e-4)
    tensor = ovoxel.material_tensor()
    assert tensor.channels == 6
    assert torch.allclose(tensor.feats[:, 4], torch.tensor(-0.5), atol=1e-3)
    with pytest.raises(RangeError, match="emissive"):
        ovoxel.material_tensor(("emissive",))
    chosen = OVoxel.from_mesh(textured_ball(), 16, materials=("roughness", "normal"))
    assert list(chosen.materials) == ["roughness", "normal"]


@pytest.mark.parametrize("unwrap", ["grid", "xatlas"])
def test_materials_can_be_baked(unwrap: str) -> None:
    if unwrap == "xatlas":
        pytest.importorskip("xatlas", reason="the package xatlas is not installed")
    ovoxel = OVoxel.from_mesh(textured_ball(), 24)
    mesh = ovoxel.to_mesh(materials="texture", texture_size=512, unwrap=unwrap)  # type: ignore[arg-type]
    assert mesh.uv is not None
    texture = mesh.materials[0].base_color
    assert isinstance(texture, Texture)
    # Look the image up at the middle of each face; colour was position + 0.5.
    middle = mesh.uv[mesh.faces.long()].mean(1)
    grid = torch.stack((middle[:, 0] * 2 - 1, 1 - 2 * middle[:, 1]), -1)[None, None]
    image = texture.values.permute(2, 0, 1)[None]
    colors = torch.nn.functional.grid_sample(image, grid, align_corners=False)[0, :, 0].T
    expected = mesh.corners().mean(1) + 0.5
    assert float((colors - expected).abs().max()) < 2 / 24
    assert chamfer_distance(mesh, ovoxel.to_mesh()).l1 < 1e-6


def test_baking_says_when_the_image_is_too_small() -> None:
    ovoxel = OVoxel.from_mesh(textured_ball(), 32)
    with pytest.raises(RangeError, match="texture_size must be at least"):
        ovoxel.to_mesh(materials="texture", texture_size=64)
    with pytest.raises(RangeError, match="one object"):
        OVoxel.batched([ovoxel, ovoxel]).to_mesh(materials="texture")


def test_linear_colours_are_encoded_on_the_way_out() -> None:
    grey = shapes.box().replace(materials=(Material(base_color_factor=(0.2, 0.2, 0.2)),))
    encoded, linear = (OVoxel.from_mesh(grey, 16, color_space=s) for s in ("srgb", "linear"))
    assert torch.allclose(linear.materials["base_color"], torch.tensor(0.2), atol=1e-5)
    assert torch.allclose(encoded.materials["base_color"], torch.tensor(0.4845), atol=1e-3)
    a, b = (o.to_mesh().attributes["base_color"] for o in (encoded, linear))
    assert torch.allclose(a, b, atol=1e-4)


def test_training_mesh_has_gradients() -> None:
    ovoxel = OVoxel.from_mesh(shapes.rotated(shapes.torus()), 24, materials=False)
    dual = ovoxel.dual_vertices.clone().requires_grad_()
    weight = torch.rand(len(ovoxel), 1).requires_grad_()
    mesh = ovoxel.replace(dual_vertices=dual, split_weight=weight).to_mesh(training=True)
    (mesh.vertices**2).sum().backward()
    assert dual.grad is not None
    assert weight.grad is not None
    assert (dual.grad.abs().sum(1) > 0).float().mean() > 0.99, "all but the cells without a quad"
    assert float(weight.grad.abs().max()) > 0


def test_crop_keeps_positions_and_rebases() -> None:
    ovoxel = OVoxel.from_mesh(shapes.rotated(shapes.torus()), 32)
    part = ovoxel.crop((8, 0, 4), (32, 16, 32), rebase=True)
    assert part.resolution == (24, 16, 28)
    whole = {tuple(p) for p in (ovoxel.to_mesh().vertices * 1e4).round().int().tolist()}
    piece = {tuple(p) for p in (part.to_mesh().vertices * 1e4).round().int().tolist()}
    assert len(piece) > 100
    assert len(piece - whole) < 0.02 * len(piece), "positions are those of the whole, up to rounding"
    with pytest.raises(RangeError, match="exceed"):
        ovoxel.crop((8, 8, 8), (8, 9, 9))
    with pytest.raises(RangeError, match="inside"):
        ovoxel.crop((0, 0, 0), (40, 4, 4), rebase=True)
    assert len(ovoxel.crop((-5, -5, -5), (0, 1, 1))) == 0


def test_merge_of_two_halves_is_the_whole() -> None:
    ovoxel = OVoxel.from_mesh(shapes.rotated(shapes.torus()), 32)
    left, right = ovoxel.crop((0, 0, 0), (16, 32, 32)), ovoxel.crop((14, 0, 0), (32, 32, 32))
    both = left.merge(right)
    assert torch.equal(both.coords, ovoxel.coords)
    assert torch.equal(both.intersected, ovoxel.intersected)
    assert torch.equal(both.crossing_sign & both.intersected, ovoxel.crossing_sign & ovoxel.intersected)  # type: ignore[operator]
    assert torch.allclose(both.dual_vertices, ovoxel.dual_vertices)
    with pytest.raises(RangeError, match="one resolution"):
        ovoxel.merge(OVoxel.from_mesh(shapes.torus(), 16))
    with pytest.raises(ShapeError, match="materials"):
        ovoxel.merge(ovoxel.replace(materials={}))
    with pytest.raises(FrameError, match="one frame"):
        ovoxel.merge(OVoxel.from_mesh(shapes.torus(0.2, 0.1), 32))


def test_coarsening_flags_what_a_direct_conversion_flags() -> None:
    source = shapes.rotated(shapes.torus())
    fine, direct = (OVoxel.from_mesh(source, r, compat="trellis2") for r in (64, 32))
    coarse = fine.resample(32)
    assert torch.equal(coarse.coords, direct.coords)
    assert torch.equal(coarse.intersected, direct.intersected)
    assert float((coarse.dual_vertices - direct.dual_vertices).abs().mean()) < 0.25
    assert fine.resample(64) is fine


def test_coarsening_keeps_winding_and_surface() -> None:
    source = shapes.rotated(shapes.torus())
    fine, direct = OVoxel.from_mesh(source, 64), OVoxel.from_mesh(source, 32)
    coarse = fine.resample(32)
    assert chamfer_distance(source, coarse.to_mesh()).l1 < 0.3 / 32
    rows = coarse.grid.rows_of(direct.coords)
    both = (rows >= 0)[:, None] & direct.intersected & coarse.intersected[rows]
    assert int(both.sum()) > 0.99 * int(direct.intersected.sum())
    assert coarse.crossing_sign is not None
    assert direct.crossing_sign is not None
    assert torch.equal(coarse.crossing_sign[rows][both], direct.crossing_sign[both])


def test_resampling_to_any_resolution_keeps_surface_and_colours() -> None:
    source = textured_ball()
    ovoxel = OVoxel.from_mesh(source, 48).resample(40)
    assert ovoxel.resolution == (40, 40, 40)
    mesh = ovoxel.to_mesh()
    assert chamfer_distance(source, mesh).l1 < 0.3 / 40
    assert float((mesh.attributes["base_color"] - (mesh.vertices + 0.5)).abs().max()) < 3 / 40


def test_empty_and_tiny() -> None:
    dot = TriMesh.from_arrays([[0.1, 0.1, 0.1], [0.11, 0.1, 0.1], [0.1, 0.11, 0.1]], [[0, 1, 2]])
    with pytest.warns(EmptyResultWarning, match="resolution"):
        ovoxel = OVoxel.from_mesh(dot, 4, frame=Frame.unit(4))
    assert len(ovoxel) == 0
    assert ovoxel.materials["base_color"].shape == (0, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ovoxel.to_mesh().num_faces == 0
    assert len(ovoxel.resample(8)) == 0
    assert len(ovoxel.merge(ovoxel)) == 0
    lonely = VoxelGrid.build(torch.zeros(1, 4, dtype=torch.int32), resolution=4)[0]
    one = OVoxel(lonely, torch.full((1, 3), 0.5), torch.ones(1, 3, dtype=torch.bool))
    with pytest.warns(EmptyResultWarning, match="none of the 3 flagged"):
        assert one.to_mesh().num_faces == 0


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"mesh": TriMesh(torch.rand(3, 3), torch.zeros(0, 3, dtype=torch.int32))}, MeshError, "at least one face"),
        ({"mesh": TriMesh(torch.full((3, 3), float("nan")), torch.tensor([[0, 1, 2]]))}, MeshError, "finite"),
        ({"mesh": TriMesh(torch.rand(3, 3), torch.tensor([[0, 1, 7]]))}, MeshError, "index"),
        ({"mesh": TriMesh(torch.ones(3, 3), torch.tensor([[0, 1, 2]]))}, MeshError, "extent"),
        ({"mesh": []}, MeshError, "empty list"),
        ({"mesh": "asset.glb"}, DtypeError, "load_mesh"),
        ({"resolution": 0}, RangeError, "resolution"),
        ({"resolution": -3}, RangeError, "resolution"),
        ({"resolution": 12.5}, DtypeError, "whole number"),
        ({"resolution": 100_000}, RangeError, "65536"),
        ({"resolution": (8, 9, 10)}, RangeError, "Frame.box"),
        ({"resolution": 40_000}, CapacityError, "resolution"),
        ({"frame": Frame.box((0, 0, 0), (1, 1, 1), 16)}, FrameError, "box"),
        ({"frame": "centre"}, RangeError, "frame"),
        ({"weights": QEFWeights(face=-1)}, RangeError, "weights.face"),
        ({"weights": QEFWeights(boundary=float("nan"))}, RangeError, "weights.boundary"),
        ({"weights": 3}, DtypeError, "QEFWeights"),
        ({"materials": ("colour",)}, RangeError, "base_color"),
        ({"compat": "trellis"}, RangeError, "trellis2"),
        ({"color_space": "rec709"}, RangeError, "color_space"),
        ({"backend": "abacus"}, VoxgenError, "abacus"),
    ],
)
def test_bad_input_is_named(change: dict, error: type[Exception], words: str) -> None:
    arguments = {"mesh": shapes.sphere(), "resolution": 16, **change}
    with pytest.raises(error) as caught:
        OVoxel.from_mesh(**arguments)
    assert words in str(caught.value)


def test_fields_must_fit_the_grid() -> None:
    ovoxel = OVoxel.from_mesh(shapes.sphere(), 16)
    with pytest.raises(ShapeError, match="dual_vertices"):
        ovoxel.replace(dual_vertices=ovoxel.dual_vertices[1:])
    with pytest.raises(DtypeError, match="intersected"):
        ovoxel.replace(intersected=ovoxel.intersected.int())
    with pytest.raises(RangeError, match="shininess"):
        ovoxel.replace(materials={"shininess": torch.zeros(len(ovoxel), 1)})
    with pytest.raises(ShapeError, match="metallic"):
        ovoxel.replace(materials={"metallic": torch.zeros(len(ovoxel), 3)})
    with pytest.raises(ShapeError, match="lack it"):
        OVoxel.batched([ovoxel, ovoxel.replace(crossing_sign=None)])
    with pytest.raises(RangeError, match="split"):
        ovoxel.to_mesh(split="weight")
