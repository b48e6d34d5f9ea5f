"""OrientedPoints: sampling, the cells around them, TripoSF's numbers, batches, files, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from voxgen.core import Frame, TriMesh
from voxgen.core.errors import DtypeError, FileFormatError, FrameError, MeshError, RangeError, ShapeError
from voxgen.ops.surface_cells import surface_cells
from voxgen.representations import OrientedPoints, fit_unit_cube
from voxgen.testing import shapes

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


class TestOriginal:
    """TripoSF's preparation: exact."""

    arrays = np.load(GOLDEN / "triposf_load.npz")
    facts = json.loads((GOLDEN / "triposf_load.json").read_text())["facts"]
    mesh = TriMesh(torch.from_numpy(arrays["in/vertices"]), torch.from_numpy(arrays["in/faces"]))

    def test_normalised(self) -> None:
        placed = fit_unit_cube(self.mesh, scale=1.0)
        assert placed.vertices.dtype == torch.float64
        torch.testing.assert_close(placed.vertices, torch.from_numpy(self.arrays["out/normalised"]), atol=1e-12, rtol=0)
        inside = fit_unit_cube(self.mesh, compat="triposf").vertices
        assert float(inside.abs().max()) == 0.5 - 1e-6
        torch.testing.assert_close(inside, placed.vertices, atol=1.01e-6, rtol=0)

    def test_cells_of_triangles_and_skin(self) -> None:
        placed = fit_unit_cube(self.mesh, compat="triposf")
        wanted = torch.from_numpy(self.arrays["out/cells_of_triangles"]).int()
        found = surface_cells(placed.vertices, placed.faces, origin=(-0.5,) * 3, voxel_size=1 / 16, resolution=16)
        assert torch.equal(found, wanted)
        given = torch.from_numpy(self.arrays["out/points"])
        cloud = OrientedPoints(given[:, :3].contiguous(), given[:, 3:].contiguous())
        grid = cloud.voxels(16, placed)
        assert torch.equal(grid.cells, torch.from_numpy(self.arrays["out/voxels"]).int())
        assert len(grid) == self.facts["voxels"]
        assert len(cloud.voxels(16)) < len(grid)

    def test_own_points_in_the_cube(self) -> None:
        cloud = OrientedPoints.from_mesh(self.mesh, 5000, compat="triposf")
        assert cloud.frame == Frame.unit(1)
        assert float(cloud.points.abs().max()) <= 0.5 - 1e-6
        assert len(cloud.voxels(16, fit_unit_cube(self.mesh, compat="triposf"))) > self.facts["voxels"]  # more points, more skin


class TestFromMesh:
    def test_points_lie_on_the_mesh_with_the_normals_of_faces(self) -> None:
        ball = shapes.sphere(0.4, 4, (3.0, -2.0, 10.0))
        cloud = OrientedPoints.from_mesh(ball, 4000)
        away = cloud.points - torch.tensor([3.0, -2.0, 10.0])
        assert float((away.norm(dim=1) - 0.4).abs().max()) < 2e-3  # chords of the icosphere
        assert float((cloud.normals * away).sum(1).min()) > 0.39
        torch.testing.assert_close(cloud.normals.norm(dim=1), torch.ones(4000))
        share = cloud.frame.to_index(cloud.points)
        assert float(share.min()) > 0
        assert float(share.max()) < 1

    def test_same_seed_same_points(self) -> None:
        one, two, other = (OrientedPoints.from_mesh(shapes.torus(), 100, seed=s).points for s in (1, 1, 2))
        assert torch.equal(one, two)
        assert not torch.equal(one, other)

    def test_batch_in_the_unit_cube(self) -> None:
        torus = shapes.torus()
        meshes = [torus.replace(vertices=torus.vertices * 7 + 3), shapes.box(), shapes.wavy_sheet()]
        cloud = OrientedPoints.from_mesh(meshes, 500, progress=True)
        assert cloud.batch_size == 3
        assert cloud.offsets.tolist() == [0, 500, 1000, 1500]
        assert float(cloud.points.abs().max()) <= 0.5
        grid = cloud.voxels(16, [fit_unit_cube(mesh) for mesh in meshes])
        assert grid.batch_size == 3
        for i, mesh in enumerate(meshes):
            alone = cloud.sample(i)
            assert torch.equal(grid.sample(i).coords, alone.voxels(16, fit_unit_cube(mesh)).coords)
        assert torch.equal(OrientedPoints.batched([cloud.sample(i) for i in range(3)]).points, cloud.points)

    def test_given_box(self) -> None:
        box = Frame.box((-1, -1, -1), (1, 1, 1), 1)
        cloud = OrientedPoints.from_mesh([shapes.box(), shapes.torus()], 100, frame=box)
        assert cloud.frame == box
        assert cloud.voxels(8).frame.voxel_size == (0.25, 0.25, 0.25)
        with pytest.raises(FrameError, match="points must lie in the box"):
            OrientedPoints.from_mesh(shapes.torus(), 100, frame=Frame.box((0, 0, 0), (1, 1, 1), 1))

    def test_real_mesh(self, data: Path) -> None:
        from voxgen.io import load_mesh

        mesh = load_mesh(data / "bunny.obj")
        cloud = OrientedPoints.from_mesh(mesh, 50_000)
        grid = cloud.voxels(64, mesh)
        touched = surface_cells(mesh.vertices, mesh.faces, origin=grid.frame.origin, voxel_size=grid.frame.voxel_size, resolution=64)
        assert bool((grid.rows_of(torch.nn.functional.pad(touched, (1, 0))) >= 0).all())
        cells = grid.frame.to_cell(cloud.points).clamp(0, 63)
        assert bool((grid.rows_of(torch.nn.functional.pad(cells, (1, 0))) >= 0).all())

    def test_degenerate_faces_are_no_surface(self) -> None:
        mesh = shapes.box()
        dirty = mesh.replace(faces=torch.cat((mesh.faces, torch.tensor([[0, 0, 1], [2, 2, 2]], dtype=torch.int32))))
        cloud = OrientedPoints.from_mesh(dirty, 1000)
        torch.testing.assert_close(cloud.normals.norm(dim=1), torch.ones(1000))
        assert len(cloud.voxels(16, dirty)) == len(OrientedPoints.from_mesh(mesh, 1000).voxels(16, mesh))


class TestRecord:
    cloud = OrientedPoints.from_mesh([shapes.torus(), shapes.box()], 60)

    def test_files(self, tmp_path: Path) -> None:
        path = tmp_path / "cloud.safetensors"
        self.cloud.save(path)
        back = OrientedPoints.load(path)
        for name in ("points", "normals", "offsets"):
            assert torch.equal(getattr(back, name), getattr(self.cloud, name))
        assert back.frame == self.cloud.frame

    def test_bad_files(self, tmp_path: Path) -> None:
        path = tmp_path / "cloud.safetensors"
        self.cloud.save(path)
        content = path.read_bytes()
        for broken in (content[:100], content[:-1], b"", b"\xff" * 64):
            path.write_bytes(broken)
            with pytest.raises(FileFormatError, match=r"OrientedPoints\.load"):
                OrientedPoints.load(path)
        path.write_bytes(content.replace(b"oriented-points", b"oriented-paints"))
        with pytest.raises(FileFormatError, match="format must be 'voxgen-oriented-points'"):
            OrientedPoints.load(path)
        with pytest.raises(FileFormatError, match=r"suffix must be \.safetensors"):
            self.cloud.save(tmp_path / "cloud.ply")
        with pytest.raises(RangeError, match="normals must be finite"):
            self.cloud.replace(normals=self.cloud.normals * torch.nan).save(path)
        assert path.read_bytes() != b""

    def test_empty_batches_and_double(self) -> None:
        none = OrientedPoints(torch.zeros(0, 3), torch.zeros(0, 3), torch.tensor([0, 0, 0]))
        assert none.batch_size == 2
        assert len(none.voxels(8)) == 0
        assert self.cloud.to(torch.float64).points.dtype == torch.float64
        assert self.cloud.to("cpu").device.type == "cpu"
        assert repr(self.cloud) == "OrientedPoints(120 points, batch_size=2, device=cpu)"

    def test_fields_are_checked(self) -> None:
        points = torch.zeros(4, 3)
        with pytest.raises(ShapeError, match="normals must be"):
            OrientedPoints(points, torch.zeros(3, 3))
        with pytest.raises(DtypeError, match="normals must be"):
            OrientedPoints(points, points.double())
        for wrong in ([0, 3], [1, 4], [0, 5, 4], []):
            with pytest.raises(ShapeError, match="offsets must ascend from 0"):
                OrientedPoints(points, points, torch.tensor(wrong, dtype=torch.int64))
        with pytest.raises(ShapeError, match="at least one item"):
            OrientedPoints.batched([])


def test_bad_input() -> None:
    box = shapes.box()
    with pytest.raises(MeshError, match=r"OrientedPoints.from_mesh: .*no face"):
        OrientedPoints.from_mesh(TriMesh(torch.rand(3, 3), torch.zeros(0, 3, dtype=torch.int32)))
    with pytest.raises(MeshError, match="must be finite"):
        OrientedPoints.from_mesh(TriMesh(torch.full((3, 3), torch.nan), torch.tensor([[0, 1, 2]])))
    with pytest.raises(MeshError, match="face with area"):
        OrientedPoints.from_mesh(TriMesh(torch.rand(3, 3), torch.tensor([[0, 1, 1]])))
    with pytest.raises(MeshError, match="empty list"):
        OrientedPoints.from_mesh([])
    with pytest.raises(MeshError, match="must have an extent"):
        fit_unit_cube(TriMesh(torch.ones(3, 3), torch.tensor([[0, 1, 2]])))
    with pytest.raises(RangeError, match="count must be at least 1"):
        OrientedPoints.from_mesh(box, 0)
    with pytest.raises(RangeError, match="scale must be a number above 0"):
        fit_unit_cube(box, scale=1.5)
    with pytest.raises(RangeError, match="compat must be one of"):
        OrientedPoints.from_mesh(box, 10, compat="trellis")  # pyright: ignore[reportArgumentType]
    cloud = OrientedPoints.from_mesh(box, 10)
    with pytest.raises(RangeError, match="one mesh a sample"):
        cloud.voxels(8, [box, box])
    with pytest.raises(FrameError, match="must lie inside the box"):
        cloud.voxels(8, shapes.sphere(3.0))
    with pytest.raises(FrameError, match="up axis"):
        cloud.voxels(8, box.replace(up="z"))
    with pytest.raises(RangeError, match="skin must be a number"):
        cloud.voxels(8, skin=-1.0)
    with pytest.raises(RangeError, match="points must be finite"):
        cloud.replace(points=cloud.points * torch.nan).voxels(8)
