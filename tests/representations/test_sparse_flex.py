"""SparseFlex: conversion from meshes open and closed, from SDFs, to O-Voxel; cells chosen and joined."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import torch

from voxgen.core import Frame, TriMesh, VoxelGrid
from voxgen.core.errors import EmptyResultWarning, FrameError, RangeError, ShapeError
from voxgen.io import load_mesh
from voxgen.metrics import MeshReport, compare_surfaces, mesh_report
from voxgen.ops.cube_corners import cube_corners
from voxgen.ops.surface_cells import surface_cells
from voxgen.representations import SparseFlex, SparseSDF
from voxgen.testing import shapes
from voxgen.testing.grids import full_grid


def report_of(flex: SparseFlex, training: bool = False) -> MeshReport:
    return mesh_report(flex.to_mesh(training=training), weld=False)


def errors(mesh: TriMesh, flex: SparseFlex) -> tuple[float, float, float, float]:
    """Distances in cells: mesh to surface mean and max, surface to mesh mean and max."""
    found = compare_surfaces(mesh, flex.to_mesh(), samples=6000)
    a, b = (d.distances / flex.frame.voxel_size[0] for d in (found.a_to_b, found.b_to_a))
    return float(a.mean()), float(a.max()), float(b.mean()), float(b.max())


def geometry(path: Path) -> TriMesh:
    mesh = load_mesh(path)
    return TriMesh(mesh.vertices, mesh.faces, up=mesh.up)


def plate() -> TriMesh:
    """A tilted square."""
    return shapes.rotated(shapes.wavy_sheet(2, 0.6, 0.0))


class TestClosed:
    @pytest.mark.parametrize(
        ("mesh", "euler", "limits"),
        [
            # mean and largest distance in cells, measured with 6,000 samples: 0.003 / 0.02, 0.006 / 0.03, 0.001 / 0.26, 0.003 / 0.20
            (shapes.sphere(0.4, 5), 2, (0.005, 0.03)),
            (shapes.rotated(shapes.torus(around=128, across=64)), 0, (0.009, 0.06)),
            (shapes.rotated(shapes.box()), 2, (0.003, 0.4)),
            (shapes.box(), 2, (0.006, 0.3)),
        ],
        ids=["sphere", "torus", "box", "box in grid planes"],
    )
    def test_closed_in_closed_out(self, mesh: TriMesh, euler: int, limits: tuple[float, float]) -> None:
        flex = SparseFlex.from_mesh(mesh, 48)
        for training in (False, True):
            report = report_of(flex, training)
            assert report.is_closed
            assert report.is_oriented
            assert report.nonmanifold_edges == 0
            assert report.euler_number == euler
            assert report.volume is not None
            assert report.volume > 0
        mean, most, back, most_back = errors(mesh, flex)
        assert max(mean, back) < limits[0]
        assert max(most, most_back) < limits[1]

    def test_fit_beats_plain_crossings(self) -> None:
        for mesh in (shapes.rotated(shapes.box()), shapes.sphere(0.4, 5)):
            plain, fitted = (SparseFlex.from_mesh(mesh, 32, fit=fit) for fit in (False, True))
            assert set(plain.tensors()) == {"sdf"}
            assert errors(mesh, fitted)[0] < 0.3 * errors(mesh, plain)[0]
            assert float((plain.sdf - fitted.sdf).abs().max()) <= 0.0201 * plain.frame.voxel_size[0]
            assert torch.equal(plain.sdf < 0, fitted.sdf < 0)

    def test_fitted_fields_are_what_a_network_can_give(self) -> None:
        flex = SparseFlex.from_mesh(shapes.rotated(shapes.box()), 24)
        assert flex.alpha is not None
        assert flex.beta is not None
        assert flex.gamma is not None
        assert flex.offsets is not None
        for weight in (flex.alpha, flex.beta):
            assert 0.01 < float(weight.min()) <= float(weight.max()) < 1.99
        assert 0.00499 < float(flex.gamma.min()) <= float(flex.gamma.max()) < 0.99501
        assert float(flex.offsets.abs().max()) < 0.5 * flex.frame.voxel_size[0]

    @pytest.mark.parametrize(("name", "limit"), [("fandisk.obj", 0.005), ("spot/spot.obj", 0.02)])
    def test_real_solids(self, data: Path, name: str, limit: float) -> None:
        mesh = geometry(data / name)
        flex = SparseFlex.from_mesh(mesh, 64)
        report = report_of(flex)
        assert report.is_closed
        assert report.is_oriented
        assert report.euler_number == 2
        mean, most, back, _ = errors(mesh, flex)
        assert max(mean, back) < limit  # measured 0.002 and 0.008
        assert most < 0.8

    def test_values_are_distances(self) -> None:
        ball = shapes.sphere(0.4, 5)
        flex = SparseFlex.from_mesh(ball, 32, fit=False)
        exact = flex.positions.double().norm(dim=1) - 0.4
        assert float((flex.sdf - exact).abs().max()) < 1e-3  # chords of the icosphere
        touched = surface_cells(ball.vertices, ball.faces, origin=flex.frame.origin, voxel_size=flex.frame.voxel_size, resolution=32)
        assert torch.equal(flex.grid.cells, touched)

    def test_inside_corners_of_a_sharp_mesh(self) -> None:
        """A spike: next to it face normals alone give wrong signs, those of edges and vertices do not."""
        tip = torch.tensor([[0.0, 0.0, 0.45], [-0.06, -0.05, -0.4], [0.07, -0.04, -0.4], [0.01, 0.06, -0.4]])
        spike = TriMesh(tip, torch.tensor([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]]))
        from voxgen.ops.mesh_distance import mesh_distance

        flex = SparseFlex.from_mesh(spike, 40, fit=False)
        exact = mesh_distance(flex.positions, spike.vertices, spike.faces, signed=True).distance
        torch.testing.assert_close(flex.sdf, exact, atol=1e-5, rtol=0)


class TestOpen:
    @pytest.mark.parametrize(
        "mesh",
        [shapes.rotated(shapes.bowl(rings=32, around=64)), shapes.rotated(shapes.wavy_sheet()), plate()],
        ids=["bowl", "sheet", "plate"],
    )
    def test_open_surfaces_stay_open(self, mesh: TriMesh) -> None:
        flex = SparseFlex.from_mesh(mesh, 48)
        for training in (False, True):
            report = report_of(flex, training)
            assert not report.is_closed
            assert report.boundary_loops == 1
            assert report.euler_number == 1
            assert report.is_oriented
            assert report.nonmanifold_edges == 0
        mean, most, back, most_back = errors(mesh, flex)
        assert max(mean, back) < 0.008  # measured at most 0.004
        assert max(most, most_back) < 0.5  # at the border's corners

    def test_border_comes_back_within_half_a_cell(self) -> None:
        mesh = shapes.rotated(shapes.bowl(rings=32, around=64))
        for fit, share in ((False, 0.35), (True, 0.06)):  # measured 0.25 and 0.04
            flex = SparseFlex.from_mesh(mesh, 40, fit=fit)
            surface = flex.to_mesh()
            gap = border_gap(mesh, surface) / flex.frame.voxel_size[0]
            assert float(gap.max()) < 0.75  # half a cell along an axis, seen at an angle
            assert float(gap.mean()) < share

    def test_what_an_sdf_does_to_it(self) -> None:
        mesh = plate()
        flex, sdf = SparseFlex.from_mesh(mesh, 32), SparseSDF.from_mesh(mesh, 32, sign="flood")
        assert report_of(flex).euler_number == 1
        thick = mesh_report(sdf.to_mesh(), weld=False)
        assert thick.is_closed
        area = float(mesh.face_areas().sum())
        assert float(flex.to_mesh().face_areas().sum()) == pytest.approx(area, rel=0.03)
        assert float(sdf.to_mesh().face_areas().sum()) > 2 * area

    def test_two_sheets_two_cells_apart(self) -> None:
        one = shapes.wavy_sheet(9, 0.7, 0.0)
        far = one.replace(vertices=one.vertices + torch.tensor([0.0, 0.0, 0.21]))
        flex = SparseFlex.from_mesh(shapes.merged(one, far), 33, frame=Frame.unit(33))
        report = report_of(flex)
        assert report.components == 2
        assert report.boundary_loops == 2

    def test_thin_walls_have_holes_or_vanish(self) -> None:
        """The documented limit: no corner lies inside a wall of a third of a cell."""
        thin = shapes.box((-0.4, -0.4, -0.003), (0.4, 0.4, 0.003))
        with pytest.warns(EmptyResultWarning, match=r"SparseFlex\.from_mesh: the surface of this field is empty"):
            flex = SparseFlex.from_mesh(thin.replace(vertices=thin.vertices + torch.tensor([0, 0, 0.015 / 2])), 33, frame=Frame.unit(33))
        assert len(flex) > 0

    def test_faces_given_twice_count_once(self) -> None:
        mesh = shapes.rotated(shapes.wavy_sheet())
        both = mesh.replace(faces=torch.cat((mesh.faces, mesh.faces.flip(1))))
        one, two = SparseFlex.from_mesh(mesh, 32), SparseFlex.from_mesh(both, 32)
        assert torch.equal(one.to_mesh().vertices, two.to_mesh().vertices)

    def test_moebius_strip_is_cut_once(self) -> None:
        report = report_of(SparseFlex.from_mesh(shapes.rotated(shapes.mobius()), 40))
        assert report.components == 1
        assert report.is_oriented

    def test_unwelded_meshes_are_the_same(self) -> None:
        mesh = shapes.rotated(shapes.bowl())
        one, apart = (SparseFlex.from_mesh(m, 32) for m in (mesh, shapes.split_apart(mesh)))
        torch.testing.assert_close(one.sdf, apart.sdf)
        torch.testing.assert_close(one.to_mesh().vertices, apart.to_mesh().vertices)

    def test_real_scan_with_holes(self, data: Path) -> None:
        mesh = geometry(data / "bunny.obj")
        flex = SparseFlex.from_mesh(mesh, 48)
        report = report_of(flex)
        assert not report.is_closed
        assert report.is_oriented
        assert report.nonmanifold_edges == 0
        assert report.components == 1
        mean, most, back, most_back = errors(mesh, flex)
        assert max(mean, back) < 0.025  # measured 0.015: detail of the scan below a cell
        assert max(most, most_back) < 1.0


def border_gap(mesh: TriMesh, surface: TriMesh) -> torch.Tensor:
    """From points on the border of a surface to the nearest border of the mesh, sampled."""
    from voxgen.ops.mesh_edges import edge_table

    ends = []
    for item in (mesh, surface):
        table = edge_table(item, weld=True)
        lonely = table.half_edges[table.starts[table.counts == 1]]
        a, b = (item.vertices[torch.from_numpy(v)].double() for v in table.ends(lonely))
        ends.append(torch.cat([torch.lerp(a, b, t) for t in torch.arange(0, 1, 0.04).tolist()]))
    return torch.cdist(ends[1], ends[0]).min(1).values


class TestConversions:
    def test_sdf_becomes_the_same_solid(self) -> None:
        for mesh, euler in ((shapes.sphere(0.4, 4), 2), (shapes.rotated(shapes.torus()), 0)):
            sdf = SparseSDF.from_mesh(mesh, 40)
            flex = SparseFlex.from_sparse_sdf(sdf)
            assert flex.resolution == (39, 39, 39)
            report = report_of(flex)
            assert report.is_closed
            assert report.euler_number == euler
            found = compare_surfaces(flex.to_mesh(), sdf.to_mesh(), samples=3000).a_to_b.distances / sdf.voxel_size
            assert float(found.max()) < 0.15  # dual against primal vertices of the same samples
            values = flex.corners.coords[:, 1:].float()
            torch.testing.assert_close(flex.frame.to_world(values), sdf.frame.centers(flex.corners.coords[:, 1:]), atol=1e-6, rtol=0)

    def test_gradient_through_the_sdf(self) -> None:
        sdf = SparseSDF.from_mesh(shapes.sphere(0.4, 3), 24)
        values = sdf.sdf_cells.clone().requires_grad_()
        SparseFlex.from_sparse_sdf(sdf.replace(sdf_cells=values)).to_mesh().vertices.square().sum().backward()
        assert values.grad is not None
        assert float(values.grad.abs().sum()) > 0

    def test_sdf_without_a_side_or_without_room(self) -> None:
        with pytest.raises(RangeError, match="these are unsigned"):
            SparseFlex.from_sparse_sdf(SparseSDF.from_mesh(shapes.box(), 16, sign="unsigned"))
        thin = VoxelGrid.from_sorted(torch.zeros(1, 4, dtype=torch.int32), resolution=(1, 1, 1), batch_size=1)
        with pytest.raises(FrameError, match="two cells thick"):
            SparseFlex.from_sparse_sdf(SparseSDF(thin, torch.zeros(1, 1)))

    @pytest.mark.parametrize("mesh", [shapes.sphere(0.4, 4), shapes.rotated(shapes.bowl())], ids=["sphere", "bowl"])
    def test_ovoxel_has_the_same_triangles(self, mesh: TriMesh) -> None:
        flex = SparseFlex.from_mesh(mesh, 32)
        ovoxel = flex.to_ovoxel()
        assert float(ovoxel.dual_vertices.min()) > -0.5
        assert float(ovoxel.dual_vertices.max()) < 1.5
        ours, theirs = flex.to_mesh(), ovoxel.to_mesh(split="weight")
        assert (theirs.num_vertices, theirs.num_faces) == (ours.num_vertices, ours.num_faces)
        torch.testing.assert_close(theirs.vertices, ours.vertices, atol=1e-6, rtol=0)  # both in the order of the cells
        assert float(theirs.face_areas().sum()) == pytest.approx(float(ours.face_areas().sum()), rel=1e-6)
        one, two = (mesh_report(m, weld=False) for m in (ours, theirs))
        assert (one.boundary_edges, one.euler_number, one.volume) == (
            two.boundary_edges,
            two.euler_number,
            None if one.volume is None else pytest.approx(one.volume, rel=1e-5),
        )

    def test_ovoxel_of_several_objects_and_of_two_sheets_in_a_cell(self) -> None:
        batch = SparseFlex.from_mesh([shapes.torus(), shapes.box()], 24)
        assert batch.to_ovoxel().to_mesh().num_parts == 2
        grid = full_grid(2)
        sdf = torch.ones(27)
        lattice = cube_corners(grid).coords[:, 1:]
        sdf[(lattice == 1).all(1)] = -1
        assert SparseFlex(grid, sdf).to_ovoxel().to_mesh().num_faces == SparseFlex(grid, sdf).to_mesh().num_faces == 12


class TestCells:
    flex = SparseFlex.from_mesh(shapes.rotated(shapes.torus()), 32)

    def test_crops_join_to_the_whole(self) -> None:
        parts = [self.flex.crop((0, 0, 0), (14, 32, 32)), self.flex.crop((14, 0, 0), (32, 32, 32))]
        whole = parts[0].merge(parts[1])
        assert torch.equal(whole.coords, self.flex.coords)
        for name, value in self.flex.tensors().items():
            torch.testing.assert_close(whole.tensors()[name], value)
        assert not report_of(parts[0]).is_closed
        again = self.flex.merge(self.flex)
        torch.testing.assert_close(again.to_mesh().vertices, self.flex.to_mesh().vertices)

    def test_crop_that_moves_the_grid(self) -> None:
        low, high = (3, 4, 5), (20, 25, 22)
        kept, moved = self.flex.crop(low, high), self.flex.crop(low, high, rebase=True)
        assert moved.resolution == (17, 21, 17)
        torch.testing.assert_close(moved.to_mesh().vertices, kept.to_mesh().vertices, atol=1e-6, rtol=0)
        with pytest.raises(RangeError, match=r"SparseFlex\.crop: rebase needs a box inside"):
            self.flex.crop((-1, 0, 0), (5, 5, 5), rebase=True)

    def test_select_is_extraction_of_the_kept_cells(self) -> None:
        keep = self.flex.grid.cells[:, 0] + self.flex.grid.cells[:, 1] > 30
        selected, part = self.flex.select(keep).to_mesh(), self.flex.to_mesh(keep=keep)
        assert selected.num_faces == part.num_faces
        torch.testing.assert_close(selected.vertices, part.vertices, atol=1e-6, rtol=0)
        whole = {tuple(v) for v in self.flex.to_mesh().vertices.tolist()}
        assert {tuple(v) for v in part.vertices.tolist()} <= whole
        with pytest.raises(ShapeError, match=r"SparseFlex\.select: keep must be"):
            self.flex.select(keep[:-1])

    def test_sections_with_a_cell_in_common_cover_the_surface(self) -> None:
        x = self.flex.grid.cells[:, 0]
        faces = 0
        for low in range(0, 32, 8):  # quads join cells of one layer and the next
            lower = self.flex.to_mesh(keep=(x >= low) & (x <= low + 8)).num_faces
            with pytest.warns(EmptyResultWarning) if not bool((x == low + 8).any()) else contextlib.nullcontext():
                faces += lower - self.flex.to_mesh(keep=x == low + 8).num_faces
        assert faces == self.flex.to_mesh().num_faces

    def test_merge_checks(self) -> None:
        other = SparseFlex.from_mesh(shapes.box(), 32, fit=False)
        with pytest.raises(ShapeError, match="same fields"):
            self.flex.merge(other)
        with pytest.raises(RangeError):
            self.flex.merge(SparseFlex.from_mesh(shapes.box(), 16))

    def test_gradients_pass_through(self) -> None:
        sdf = self.flex.sdf.clone().requires_grad_()
        flex = self.flex.replace(sdf=sdf)
        parts = [flex.crop((0, 0, 0), (14, 32, 32)), flex.crop((14, 0, 0), (32, 32, 32))]
        parts[0].merge(parts[1]).to_mesh().vertices.square().sum().backward()
        wanted = self.flex.sdf.clone().requires_grad_()
        self.flex.replace(sdf=wanted).to_mesh().vertices.square().sum().backward()
        assert sdf.grad is not None
        torch.testing.assert_close(sdf.grad, wanted.grad, atol=1e-4, rtol=1e-4)
