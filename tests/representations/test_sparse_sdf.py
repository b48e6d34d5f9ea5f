"""SparseSDF: conversion and back, signs, far field, resampling, the original's numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sparse_sdf_cases import assert_solid, ball_sdf, report_of

from voxgen.core import Frame, TriMesh, VoxelGrid
from voxgen.core.errors import EmptyResultWarning, FrameError, MeshError, MeshWarning, RangeError
from voxgen.io import load_mesh
from voxgen.metrics import chamfer_distance, compare_surfaces, mesh_report
from voxgen.ops.grid_sets import parents
from voxgen.ops.inside_mesh._reference import solid_angles
from voxgen.representations import SparseSDF
from voxgen.testing import shapes

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def hollow() -> TriMesh:
    inner = shapes.sphere(0.25, 3)
    return shapes.merged(shapes.sphere(0.45, 3), inner.replace(faces=inner.faces.flip(1)))


class TestFromMesh:
    @pytest.mark.parametrize(
        ("mesh", "euler", "components"),
        [(shapes.sphere(0.4, 4), 2, 1), (shapes.rotated(shapes.torus()), 0, 1), (hollow(), 4, 2), (shapes.rotated(shapes.box()), 2, 1)],
        ids=["sphere", "torus", "cavity", "box"],
    )
    def test_closed_in_closed_out(self, mesh: TriMesh, euler: int, components: int) -> None:
        sdf = SparseSDF.from_mesh(mesh, 40)
        assert_solid(report_of(sdf), euler, components)
        assert float(sdf.sdf_cells.abs().max()) < sdf.band
        low, high = sdf.to_mesh().bounds()
        wanted_low, wanted_high = mesh.bounds()
        # world positions come back; corners of the box are cut off by less than a cell
        assert float((low - wanted_low).abs().max()) < sdf.voxel_size
        assert float((high - wanted_high).abs().max()) < sdf.voxel_size

    def test_sphere_is_within_a_twentieth_of_a_cell(self) -> None:
        sdf = SparseSDF.from_mesh(shapes.sphere(0.4, 5), 48)
        off = (sdf.to_mesh().vertices.norm(dim=1) - 0.4).abs() / sdf.voxel_size
        assert float(off.max()) < 0.05

    @pytest.mark.parametrize(("name", "euler"), [("spot/spot.obj", 2), ("fandisk.obj", 2)])
    def test_real_solids(self, data: Path, name: str, euler: int) -> None:
        mesh = load_mesh(data / name)
        sdf = SparseSDF.from_mesh(mesh, 80)
        back = sdf.to_mesh()
        assert_solid(mesh_report(back, weld=False), euler)
        # marching cubes rounds what is sharper than a cell: measured 0.02 for both
        assert chamfer_distance(TriMesh(mesh.vertices, mesh.faces), back, samples=5000).l1 < 0.04 * sdf.voxel_size

    def test_open_scan_is_closed_by_winding_and_by_flood(self, data: Path) -> None:
        mesh = load_mesh(data / "bunny.obj")
        sdf = SparseSDF.from_mesh(mesh, 72)  # the hole in its base is 6 cells wide
        assert_solid(report_of(sdf), 2)
        assert not report_of(SparseSDF.from_mesh(mesh, 72, close=False, band=2.0)).is_closed
        report = report_of(SparseSDF.from_mesh(mesh, 40, sign="flood"))
        assert report.is_closed
        assert report.is_oriented
        assert report.nonmanifold_edges == 0

    @pytest.mark.parametrize("opening", [0.6, 1.5])
    def test_holes_are_closed_where_the_winding_number_is_one_half(self, opening: float) -> None:
        bowl = shapes.rotated(shapes.bowl(opening=opening, rings=12, around=32))
        sdf = SparseSDF.from_mesh(bowl, 40)
        surface = sdf.to_mesh()
        assert_solid(mesh_report(surface, weld=False), 2)
        off = compare_surfaces(surface, bowl, samples=3000).a_to_b
        cap = off.points[off.distances > 2 * sdf.voxel_size]
        assert len(cap) > 100
        corners = bowl.vertices.double()[bowl.faces.long()]
        winding = solid_angles(corners - cap[:, None, None]).sum(1) / (4 * math.pi)
        # within a twentieth of a cell of the cap the number is off by as much as it changes there: 0.3 a hole's width
        assert float((winding - 0.5).abs().max()) < 0.02
        # distances around the cap are distances to it
        values, grid = sdf.sdf_cells[:, 0], sdf.grid
        found = compare_surfaces(surface, sdf.frame.centers(grid.cells), samples=1000).b_to_a.distances / sdf.voxel_size
        gap = (found - values.abs()).abs()
        assert float(gap.quantile(0.9)) < 0.2  # more only at the rim, which marching cubes rounds: at most 0.6
        assert float(gap.max()) < 1

    def test_flood_is_the_hull_moved_outwards(self) -> None:
        """Exact distances on both sides: the same as by winding for one closed body, whatever its winding; no cavity."""
        torus = shapes.rotated(shapes.torus())
        exact = SparseSDF.from_mesh(torus, 40)
        turned = torus.replace(faces=torus.faces.flip(1))
        for mesh in (torus, turned):
            water = SparseSDF.from_mesh(mesh, 40, sign="flood", inflate=0.0)
            assert torch.equal(water.coords, exact.coords)
            torch.testing.assert_close(water.sdf_cells, exact.sdf_cells)
        moved = SparseSDF.from_mesh(torus, 40, sign="flood", frame=exact.frame)
        rows = exact.grid.rows_of(moved.coords)
        both = rows >= 0
        torch.testing.assert_close(moved.sdf_cells[both], exact.sdf_cells[rows[both]] - 1)
        assert report_of(SparseSDF.from_mesh(hollow(), 40, sign="flood")).components == 1

    @pytest.mark.parametrize("mesh", [shapes.wavy_sheet(), shapes.mobius(), shapes.seam(3)], ids=["sheet", "moebius", "seam"])
    def test_sheets_become_closed_plates(self, mesh: TriMesh) -> None:
        for turned in (mesh, shapes.rotated(mesh, 0.9)):
            report = report_of(SparseSDF.from_mesh(turned, 36, sign="flood"))
            assert report.is_closed
            assert report.is_oriented
            assert report.components == 1
            assert report.volume is not None
            assert report.volume > 0

    def test_unsigned_is_a_shell_on_both_sides(self) -> None:
        sdf = SparseSDF.from_mesh(shapes.sphere(0.4, 3), 40, sign="unsigned")
        assert not sdf.signed
        assert float(sdf.sdf_cells.min()) >= 0
        assert report_of(sdf).components == 2

    def test_batch_is_what_each_gives_alone(self) -> None:
        meshes = [shapes.sphere(0.3, 2), shapes.rotated(shapes.torus()).replace(vertices=shapes.torus().vertices * 7)]
        batch = SparseSDF.from_mesh(meshes, 32)
        assert batch.batch_size == 2
        assert batch.frame == Frame.unit(32)
        mesh = batch.to_mesh()
        assert mesh.part_names == ("0", "1")
        for sample, item in enumerate(meshes):
            alone = SparseSDF.from_mesh([item], 32)
            assert torch.equal(batch.sample(sample).coords, alone.coords)
            assert torch.equal(batch.sample(sample).sdf_cells, alone.sdf_cells)
            part = mesh.select_faces(mesh.face_part == sample)  # pyright: ignore[reportArgumentType]
            assert torch.equal(part.vertices, alone.to_mesh().vertices)

    def test_given_frame_and_dtype(self) -> None:
        frame = Frame((-1.0, -1.0, -0.75), (1 / 16, 1 / 16, 1 / 16), "z")
        sdf = SparseSDF.from_mesh(shapes.sphere(0.4, 3), (32, 32, 24), frame=frame, dtype=torch.float16)
        assert sdf.dtype == torch.float16
        assert sdf.frame == frame
        back = sdf.to_mesh()
        assert back.up == "z"
        assert float((back.vertices.norm(dim=1) - 0.4).abs().max()) < 0.05 / 16

    def test_coarse_grids_keep_a_margin(self) -> None:
        for resolution in (5, 8):
            assert_solid(report_of(SparseSDF.from_mesh(shapes.box(), resolution)), 2)

    def test_warnings(self) -> None:
        ball = shapes.sphere(0.4, 2)
        with pytest.warns(MeshWarning, match="may wind inwards"):
            SparseSDF.from_mesh(ball.replace(faces=ball.faces.flip(1)), 16)
        with pytest.warns(EmptyResultWarning, match="no cell is nearer"):
            SparseSDF.from_mesh(shapes.box((-0.25, -0.25, -0.25), (0.25, 0.25, 0.25)), 4, band=0.1, sign="unsigned", frame=Frame.unit(4))

    def test_bad_input(self) -> None:
        ball = shapes.sphere(0.4, 1)
        with pytest.raises(RangeError, match="sign must be one of 'winding', 'flood', 'unsigned'"):
            SparseSDF.from_mesh(ball, 16, sign="parity")  # pyright: ignore[reportArgumentType]
        with pytest.raises(RangeError, match="resolution must exceed 3"):
            SparseSDF.from_mesh(ball, 3)
        with pytest.raises(RangeError, match="band must be a positive number"):
            SparseSDF.from_mesh(ball, 16, band=0.0)
        with pytest.raises(RangeError, match="inflate must be a number of cells"):
            SparseSDF.from_mesh(ball, 16, inflate=-1.0)
        with pytest.raises(RangeError, match="no outside to grow to"):
            SparseSDF.from_mesh(ball, 16, sign="unsigned", inflate=1.0)
        with pytest.raises(RangeError, match="needs one resolution for all axes"):
            SparseSDF.from_mesh(ball, (16, 16, 8))
        with pytest.raises(RangeError, match="cells must be cubes"):
            SparseSDF.from_mesh(ball, 16, frame=Frame((-1, -1, -1), (0.1, 0.1, 0.2)))
        with pytest.raises(FrameError, match="must lie inside the box"):
            SparseSDF.from_mesh(ball, 16, frame=Frame((0, 0, 0), (0.1, 0.1, 0.1)))
        with pytest.raises(MeshError, match="non-empty list"):
            SparseSDF.from_mesh([], 16)


class TestOriginal:
    """Unsigned distances as the original's inference makes them."""

    def test_distances_and_tokens(self) -> None:
        about = json.loads((GOLDEN / "direct3d_s2_conventions.json").read_text())["udf"]
        with np.load(GOLDEN / "direct3d_s2_conventions.npz") as file:
            arrays = {key: torch.from_numpy(file[key]) for key in file}
        mesh = TriMesh(arrays["in/mesh_vertices"], arrays["in/mesh_faces"])
        sdf = SparseSDF.from_mesh([mesh], about["side"], compat="direct3d_s2")
        assert len(sdf) == about["active"]
        side = about["side"]
        flat = (sdf.grid.cells.long() * torch.tensor([side**2, side, 1])).sum(1)
        assert torch.equal(flat[::41].int(), arrays["out/udf_active_every_41"])
        # the original rounds coordinates to float32 before it measures: 1e-7 of the box is its unit
        torch.testing.assert_close(sdf.sdf[::41, 0], arrays["out/udf_values_every_41"], atol=3e-7, rtol=0)
        assert torch.equal(parents(sdf.grid, 8).coords, arrays["out/udf_latent_tokens"])

    def test_nodes_lie_where_the_original_has_them(self) -> None:
        sdf = SparseSDF.from_mesh([shapes.sphere(0.4, 2)], 32, compat="direct3d_s2")
        torch.testing.assert_close(sdf.frame.centers(torch.tensor([[0, 0, 31]])), torch.tensor([[-0.5, -0.5, 0.5]]))
        assert not sdf.signed
        world = SparseSDF.from_mesh(shapes.sphere(0.4, 4), 32, compat="direct3d_s2")
        torch.testing.assert_close((world.frame.centers(world.grid.cells).norm(dim=1) - 0.4).abs(), world.sdf[:, 0], atol=1e-3, rtol=0)


class TestFarField:
    @pytest.mark.parametrize(
        "mesh", [shapes.rotated(shapes.torus()), hollow(), shapes.rotated(shapes.box())], ids=["torus", "cavity", "box"]
    )
    def test_dense_volume_has_every_sign(self, mesh: TriMesh) -> None:
        wide = SparseSDF.from_mesh(mesh, 28, band=40.0)
        narrow = SparseSDF.from_mesh(mesh, 28, band=2.0)
        assert len(wide) == 28**3
        torch.testing.assert_close(narrow.dense(), wide.dense().clamp(-2, 2))

    def test_unsigned_is_far_outside_and_empty_is_far(self) -> None:
        ball = SparseSDF.from_mesh(shapes.sphere(0.4, 2), 24, sign="unsigned", band=2.0)
        assert float(ball.dense()[0, 12, 12, 12]) == 2.0
        none = SparseSDF(VoxelGrid.from_sorted(ball.coords[:0], resolution=3, batch_size=2), ball.sdf_cells[:0], 2.0)
        assert torch.equal(none.dense(), torch.full((2, 3, 3, 3), 2.0))
        assert none.to_mesh().num_faces == 0

    def test_gradient_goes_to_stored_cells(self) -> None:
        sdf = ball_sdf(12)
        values = sdf.sdf_cells.clone().requires_grad_()
        sdf.replace(sdf_cells=values).dense().sum().backward()
        assert values.grad is not None
        assert torch.equal(values.grad, torch.ones_like(values))


class TestResample:
    @pytest.mark.parametrize("resolution", [48, 24, 36, 20, 31])
    def test_against_the_exact_distance(self, resolution: int) -> None:
        sdf = ball_sdf(32)
        new = sdf.resample(resolution)
        assert new.resolution == (resolution,) * 3
        assert new.band == pytest.approx(4 * resolution / 32)
        exact = new.frame.centers(new.grid.cells, torch.float64).norm(dim=1) - 0.35
        # curvature 1 / r over an old cell: h² / (8 r) each for two tangential axes; near the band's edge truncation rounds the kink
        clear = exact.abs() < 3 / 32
        assert float((new.sdf[clear, 0] - exact[clear]).abs().max()) < 0.06 / 32
        assert_solid(report_of(new), 2)

    def test_is_interpolation_of_the_dense_volume(self) -> None:
        sdf = SparseSDF.from_mesh(shapes.rotated(shapes.torus()), 24, band=2.5, dtype=torch.float64)
        for resolution in (36, 16, 29):
            new = sdf.resample(resolution)
            axis = (torch.arange(resolution, dtype=torch.float64) + 0.5) * (2 / resolution) - 1
            z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
            points = torch.stack((x, y, z), -1)[None]
            volume = sdf.dense().permute(0, 3, 2, 1)[:, None]
            dense = torch.nn.functional.grid_sample(volume, points, padding_mode="border", align_corners=False)[0, 0].permute(2, 1, 0)
            dense = dense * resolution / 24
            keep = dense.abs() < new.band * (1 - 1e-6)
            torch.testing.assert_close(new.dense()[0][keep], dense[keep])
            assert len(new) == int(keep.sum())

    def test_same_resolution_changes_nothing(self) -> None:
        sdf = ball_sdf(20)
        same = sdf.resample(20)
        assert torch.equal(same.coords, sdf.coords)
        torch.testing.assert_close(same.sdf_cells, sdf.sdf_cells)

    def test_narrower_band_batch_half_and_gradient(self) -> None:
        batch = SparseSDF.batched([ball_sdf(16), ball_sdf(16, 0.2), ball_sdf(16).crop((0, 0, 0), (1, 1, 1))])
        new = batch.resample(24, band=2.0)
        assert new.band == 2.0
        assert float(new.sdf_cells.abs().max()) < 2.0
        assert torch.equal(new.sample(1).coords, ball_sdf(16, 0.2).resample(24, band=2.0).coords)
        assert len(new.sample(2)) == 0
        assert batch.to(torch.float16).resample(24).dtype == torch.float16
        values = batch.sdf_cells.clone().requires_grad_()
        batch.replace(sdf_cells=values).resample(24).sdf_cells.sum().backward()
        assert values.grad is not None
        assert bool((values.grad > 0).all())

    def test_bad_input(self) -> None:
        sdf = ball_sdf(16)
        with pytest.raises(RangeError, match="proportion"):
            sdf.resample((32, 32, 16))
        with pytest.raises(RangeError, match="at most 8 cells"):
            sdf.resample(32, band=9.0)
