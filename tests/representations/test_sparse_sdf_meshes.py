"""SparseSDF: sharp edges, motions, gradients, and files."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse_sdf_cases import assert_solid, ball_sdf, report_of
from torch import Tensor

from voxgen.core import Frame, SparseTensor, TriMesh, VoxelGrid
from voxgen.core.errors import EmptyResultWarning, FileFormatError, FrameError, RangeError, ShapeError
from voxgen.metrics import mesh_report
from voxgen.representations import OVoxel, SparseSDF
from voxgen.testing import shapes
from voxgen.testing.grids import full_grid


class TestSharpEdges:
    def test_cells_near_the_edges_of_a_box(self) -> None:
        mesh = shapes.rotated(shapes.box())
        sdf = SparseSDF.from_mesh(mesh, 32)
        near = sdf.sharp_edge_cells(mesh, radius=1.5)
        centers = sdf.frame.centers(sdf.grid.cells, torch.float64)
        # back to the axes of the box: two of three coordinates are on the sides
        corner, x, y, z = mesh.vertices[[0, 4, 2, 1]].double()
        axes = torch.stack((x - corner, y - corner, z - corner)) / 0.6
        local = ((centers - corner) @ axes.T).clamp(0, 0.6)
        gap = (local - torch.where(local > 0.3, 0.6, 0.0)).abs().sort(dim=1).values
        on_edge = (
            corner
            + torch.where(
                (local - torch.where(local > 0.3, 0.6, 0.0)).abs() == gap[:, 2:], local, torch.where(local > 0.3, 0.6, 0.0).double()
            )
            @ axes
        )
        apart = (centers - on_edge).norm(dim=1) / sdf.voxel_size
        clear = (apart - 1.5).abs() > 1e-3
        assert torch.equal(near[clear], (apart < 1.5)[clear])
        assert 0.02 < float(near.float().mean()) < 0.5

    def test_smooth_shapes_have_none_and_batches_are_apart(self) -> None:
        ball, box = shapes.sphere(0.4, 4), shapes.box()
        batch = SparseSDF.from_mesh([ball, box], 24)
        near = batch.sharp_edge_cells([ball, TriMesh(box.vertices * (0.875 / 0.6), box.faces)])
        middle = int(batch.grid.offsets[1])
        assert not bool(near[:middle].any())
        assert bool(near[middle:].any())
        with pytest.raises(RangeError, match="one mesh a sample"):
            batch.sharp_edge_cells(ball)
        with pytest.raises(FrameError, match="up axis"):
            batch.sample(0).sharp_edge_cells(ball.with_up("z"))


class TestTransform:
    def test_merge_is_boolean(self) -> None:
        frame = Frame.unit(32)
        one = SparseSDF.from_mesh(shapes.sphere(0.25, 4, (-0.1, 0, 0)), 32, frame=frame, band=3.0)
        other = SparseSDF.from_mesh(shapes.sphere(0.25, 4, (0.1, 0.02, 0)), 32, frame=frame, band=3.0)
        a, b = one.dense(), other.dense()
        for how, expected in (("union", torch.minimum(a, b)), ("intersection", torch.maximum(a, b)), ("difference", torch.maximum(a, -b))):
            merged = one.merge(other, how)  # pyright: ignore[reportArgumentType]
            torch.testing.assert_close(merged.dense(), expected)
            assert_solid(report_of(merged), 2)
        with pytest.raises(RangeError, match="one band"):
            one.merge(other.replace(band=2.0))
        with pytest.raises(FrameError, match="one frame"):
            one.merge(other.replace(grid=VoxelGrid(other.coords, other.resolution, 1, frame.shifted((1, 0, 0)))))
        with pytest.raises(RangeError, match="needs signed"):
            one.replace(signed=False).merge(other.replace(signed=False), "difference")

    def test_crop_keeps_world_positions_and_outside_closes_the_cut(self) -> None:
        sdf = SparseSDF.from_mesh(shapes.sphere(0.4, 3), 32)
        half = sdf.crop((0, 0, 0), (16, 32, 32), rebase=True)
        assert half.resolution == (16, 32, 32)
        mesh = half.to_mesh()
        assert float(mesh.vertices[:, 0].max()) <= sdf.frame.centers(torch.tensor([15, 0, 0]))[0] + 1e-6
        assert not mesh_report(mesh, weld=False).is_closed
        closed = half.to_mesh(outside=1.0)
        assert mesh_report(closed, weld=False).is_closed
        same = sdf.crop((0, 0, 0), (16, 32, 32))
        assert same.resolution == sdf.resolution
        assert len(same) == len(half)
        with pytest.raises(RangeError, match="high must exceed low"):
            sdf.crop((4, 4, 4), (4, 8, 8))

    def test_normalized_and_back(self) -> None:
        sdf = ball_sdf(16)
        features = sdf.normalized()
        assert float(features.feats.abs().max()) <= 1
        back = SparseSDF.from_normalized(features, sdf.band)
        torch.testing.assert_close(back.sdf_cells, sdf.sdf_cells)
        assert isinstance(features, SparseTensor)
        torch.testing.assert_close(sdf.sdf, sdf.sdf_cells / 16)

    def test_batched_checks(self) -> None:
        with pytest.raises(ShapeError, match="at least one"):
            SparseSDF.batched([])
        with pytest.raises(RangeError, match="one band"):
            SparseSDF.batched([ball_sdf(16), ball_sdf(16, band=2.0)])

    def test_fields_are_checked(self) -> None:
        sdf = ball_sdf(8)
        with pytest.raises(ShapeError, match="sdf_cells"):
            SparseSDF(sdf.grid, sdf.sdf_cells[:, 0])
        with pytest.raises(RangeError, match="band must be a positive number"):
            SparseSDF(sdf.grid, sdf.sdf_cells, math.inf)
        with pytest.raises(RangeError, match="level must lie within the band"):
            sdf.to_mesh(4.0)
        with pytest.warns(EmptyResultWarning, match="mesh is empty"):
            sdf.replace(sdf_cells=torch.ones_like(sdf.sdf_cells)).to_mesh()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0.2, 1.0))
def test_any_network_output_gives_a_closed_mesh(seed: int, share: float) -> None:
    """Noise on random cells, as an untrained decoder gives."""
    generator = torch.Generator().manual_seed(seed)
    grid = full_grid(6, 2)
    grid = grid.select(torch.rand(len(grid), generator=generator) < share)
    values = torch.randn(len(grid), 1, generator=generator).clamp(-0.99, 0.99)
    sdf = SparseSDF.from_normalized(SparseTensor(grid, values), 4.0)
    mesh = sdf.to_mesh(outside=4.0)
    if mesh.num_faces:
        report = mesh_report(mesh, weld=False)
        assert report.is_closed
        assert report.is_oriented
        assert report.nonmanifold_edges == report.nonmanifold_vertices == 0


def test_gradient_from_vertices_to_distances() -> None:
    sdf = ball_sdf(8, 0.3)

    def vertices(values: Tensor) -> Tensor:
        return sdf.replace(sdf_cells=values).to_mesh().vertices

    assert torch.autograd.gradcheck(vertices, sdf.sdf_cells.clone().requires_grad_())


class TestFiles:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
    @pytest.mark.parametrize("signed", [True, False])
    def test_round_trip(self, tmp_path: Path, dtype: torch.dtype, signed: bool) -> None:
        sdf = SparseSDF.from_mesh(shapes.torus(), 24, band=3.5, sign="winding" if signed else "unsigned", dtype=dtype)
        sdf.save(tmp_path / "a.npz")
        back = SparseSDF.load(tmp_path / "a.npz")
        assert torch.equal(back.coords, sdf.coords)
        assert torch.equal(back.sdf_cells, sdf.sdf_cells)
        assert back.dtype == dtype
        assert (back.resolution, back.frame, back.band, back.signed) == (sdf.resolution, sdf.frame, sdf.band, sdf.signed)

    def test_empty(self, tmp_path: Path) -> None:
        sdf = ball_sdf(24).crop((0, 0, 0), (1, 1, 1)).to(torch.float32)
        sdf.save(tmp_path / "a.npz")
        assert len(SparseSDF.load(tmp_path / "a.npz")) == 0

    def test_foreign_and_damaged_files(self, tmp_path: Path) -> None:
        sdf = ball_sdf(8)
        with pytest.raises(FileFormatError, match=r"suffix must be \.npz"):
            sdf.save(tmp_path / "a.vxz")
        with pytest.raises(RangeError, match="one object"):
            SparseSDF.batched([sdf, sdf]).save(tmp_path / "a.npz")
        with pytest.raises(RangeError, match="must be finite"):
            sdf.replace(sdf_cells=sdf.sdf_cells * torch.nan).save(tmp_path / "a.npz")
        assert not (tmp_path / "a.npz").exists()
        OVoxel.from_mesh(shapes.torus(), 16, materials=False).save(tmp_path / "o.npz")
        with pytest.raises(FileFormatError, match="format must be 'voxgen-sparse-sdf'"):
            SparseSDF.load(tmp_path / "o.npz")
        sdf.save(tmp_path / "s.npz")
        with pytest.raises(FileFormatError, match="format must be 'voxgen-ovoxel'"):
            OVoxel.load(tmp_path / "s.npz")
        (tmp_path / "s.npz").write_bytes((tmp_path / "s.npz").read_bytes()[:-40])
        with pytest.raises(FileFormatError, match="damaged"):
            SparseSDF.load(tmp_path / "s.npz")
        with pytest.raises(FileNotFoundError):
            SparseSDF.load(tmp_path / "missing.npz")
