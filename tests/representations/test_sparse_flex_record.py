"""SparseFlex as a record: files, batches, devices, gradients, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from voxgen.core import Frame, TriMesh, VoxelGrid
from voxgen.core.errors import DtypeError, EmptyResultWarning, FileFormatError, FrameError, MeshError, RangeError, ShapeError
from voxgen.ops.cube_corners import cube_corners
from voxgen.representations import SparseFlex
from voxgen.testing import shapes
from voxgen.testing.grids import full_grid


class TestRecord:
    def test_batch_is_what_each_gives_alone(self) -> None:
        meshes = [shapes.sphere(0.3, 2), shapes.rotated(shapes.bowl()), shapes.torus()]
        batch = SparseFlex.from_mesh(meshes, 24, progress=True)
        assert batch.batch_size == 3
        assert batch.frame == Frame.unit(24)
        mesh = batch.to_mesh()
        assert mesh.part_names == ("0", "1", "2")
        together = batch.to_meshes(training=True)
        for i, item in enumerate(meshes):
            alone = SparseFlex.from_mesh([item], 24)
            sample = batch.sample(i)
            for name, value in alone.tensors().items():
                assert torch.equal(sample.tensors()[name], value), name
            torch.testing.assert_close(together[i].vertices, alone.to_mesh(training=True).vertices)
        again = SparseFlex.batched([batch.sample(i) for i in range(3)])
        assert torch.equal(again.sdf, batch.sdf)
        assert torch.equal(again.coords, batch.coords)

    def test_world_positions_come_back(self) -> None:
        ball = shapes.sphere(2.0, 4, (10.0, -3.0, 5.0)).with_up("z")
        flex = SparseFlex.from_mesh(ball, 32)
        mesh = flex.to_mesh()
        assert mesh.up == "z"
        middle = ball.vertices.mean(0)
        assert float(((mesh.vertices - middle).norm(dim=1) - 2).abs().max()) < 0.05 * flex.frame.voxel_size[0] + 0.01
        assert float(flex.sdf.abs().max()) < 1.8 * flex.frame.voxel_size[0]

    def test_files(self, tmp_path: Path) -> None:
        path = tmp_path / "flex.safetensors"
        for flex in (
            SparseFlex.from_mesh(shapes.rotated(shapes.bowl()), 24),
            SparseFlex.from_mesh(shapes.box(), 16, fit=False).to(torch.float64),
        ):
            flex.save(path)
            back = SparseFlex.load(path)
            assert torch.equal(back.coords, flex.coords)
            assert set(back.tensors()) == set(flex.tensors())
            for name, value in flex.tensors().items():
                assert back.tensors()[name].dtype == value.dtype
                assert torch.equal(back.tensors()[name], value)
            assert back.frame == flex.frame
            assert torch.equal(back.to_mesh().vertices, flex.to_mesh().vertices)

    def test_bad_files(self, tmp_path: Path) -> None:
        path = tmp_path / "flex.safetensors"
        flex = SparseFlex.from_mesh(shapes.box(), 8)
        flex.save(path)
        content = path.read_bytes()
        for broken in (content[:50], content[:-3], b""):
            path.write_bytes(broken)
            with pytest.raises(FileFormatError, match=r"SparseFlex\.load"):
                SparseFlex.load(path)
        from safetensors.torch import load as read
        from safetensors.torch import save as write

        tensors = read(content)
        metadata = {"format": "voxgen-sparse-flex", "volume": '{"version": 1}'}
        path.write_bytes(write(tensors, metadata))
        with pytest.raises(FileFormatError, match="missing"):
            SparseFlex.load(path)
        about = {"version": 1, "resolution": [8] * 3, "origin": [0, 0, 0], "voxel_size": [1, 1, 1], "up": "y", "quantizer": "round"}
        whole = {"format": "voxgen-sparse-flex", "volume": json.dumps(about)}
        cases = {
            "unique and in lexicographic order": {**tensors, "cells": tensors["cells"].flip(0)},
            "must lie in": {**tensors, "cells": tensors["cells"] + 5},
            "cells must be": {**tensors, "cells": tensors["cells"].long()},
            "sdf must be": {**tensors, "sdf": tensors["sdf"][:-1]},
            "must hold": {name: value for name, value in tensors.items() if name != "sdf"},
            "sdf must be finite": {**tensors, "sdf": tensors["sdf"] * torch.nan},
        }
        for message, wrong in cases.items():
            path.write_bytes(write({name: value.contiguous() for name, value in wrong.items()}, whole))
            with pytest.raises(FileFormatError, match=message):
                SparseFlex.load(path)
        batch = SparseFlex.batched([flex, flex])
        with pytest.raises(RangeError, match="a file holds one object"):
            batch.save(path)
        with pytest.raises(RangeError, match="sdf must be finite"):
            flex.replace(sdf=flex.sdf * torch.nan).save(path)

    def test_empty_grids_and_dtypes(self) -> None:
        none = VoxelGrid.from_sorted(torch.zeros(0, 4, dtype=torch.int32), resolution=8, batch_size=2)
        flex = SparseFlex.from_features(none, torch.zeros(0, 53))
        assert flex.to_mesh().num_faces == 0
        assert [m.num_faces for m in flex.to_meshes()] == [0, 0]
        assert len(flex.select(torch.zeros(0, dtype=torch.bool))) == 0
        assert float(SparseFlex.predict(none, torch.zeros(0, 53)).consistency()) == 0
        box = SparseFlex.from_mesh(shapes.box(), 16, dtype=torch.float64)
        assert box.dtype == box.to_mesh().vertices.dtype == torch.float64
        assert box.to(torch.float16).to_mesh().vertices.dtype == torch.float32
        assert box.to("cpu").grid is box.grid
        assert "float64, offsets, alpha, beta, gamma)" in repr(box)

    def test_gradcheck_of_all_fields(self) -> None:
        grid = full_grid(2)
        generator = torch.Generator().manual_seed(3)
        m, n = len(cube_corners(grid)), len(grid)

        def uniform(*shape: int) -> torch.Tensor:
            return (0.2 + torch.rand(*shape, generator=generator, dtype=torch.float64)).requires_grad_()

        sdf = uniform(m).detach() * torch.where(torch.rand(m, generator=generator) < 0.4, -1, 1)
        fields = (sdf.requires_grad_(), (uniform(m, 3).detach() * 0.1).requires_grad_(), uniform(n, 8), uniform(n, 12), uniform(n))
        assert torch.autograd.gradcheck(lambda *f: SparseFlex(grid, *f).to_mesh(training=True).vertices, fields, atol=1e-6)

    def test_fields_are_checked(self) -> None:
        grid = full_grid(2)
        with pytest.raises(ShapeError, match=r"SparseFlex: sdf must be \(27,\)"):
            SparseFlex(grid, torch.zeros(8))
        with pytest.raises(ShapeError, match="offsets must be"):
            SparseFlex(grid, torch.zeros(27), torch.zeros(8, 3))
        with pytest.raises(ShapeError, match="beta must be"):
            SparseFlex(grid, torch.zeros(27), beta=torch.zeros(8, 8))
        with pytest.raises(DtypeError, match="sdf must be"):
            SparseFlex(grid, torch.zeros(27, dtype=torch.int32))
        with pytest.raises(ShapeError, match="at least one object"):
            SparseFlex.batched([])


class TestBadInput:
    def test_meshes(self) -> None:
        with pytest.raises(MeshError, match=r"SparseFlex\.from_mesh: .*no face"):
            SparseFlex.from_mesh(TriMesh(torch.rand(3, 3), torch.zeros(0, 3, dtype=torch.int32)), 16)
        with pytest.raises(MeshError, match="must be finite"):
            SparseFlex.from_mesh(TriMesh(torch.full((3, 3), torch.nan), torch.tensor([[0, 1, 2]])), 16)
        with pytest.raises(MeshError, match="degenerate"):
            SparseFlex.from_mesh(TriMesh(torch.rand(3, 3), torch.tensor([[0, 1, 1]])), 16)
        with pytest.raises(MeshError, match="empty list"):
            SparseFlex.from_mesh([], 16)
        with pytest.raises(FrameError, match="inside the box"):
            SparseFlex.from_mesh(shapes.sphere(0.7), 16, frame=Frame.unit(16))
        with pytest.raises(RangeError, match="cells must be cubes"):
            SparseFlex.from_mesh(shapes.box(), (16, 8, 8), frame=Frame.unit((16, 8, 8)))
        with pytest.raises(RangeError, match="resolution must be from 1 to"):
            SparseFlex.from_mesh(shapes.box(), 0)

    def test_degenerate_faces_are_left_out(self) -> None:
        mesh = shapes.rotated(shapes.box())
        dirty = mesh.replace(faces=torch.cat((mesh.faces, torch.tensor([[0, 0, 1], [2, 2, 2], [0, 1, 0]], dtype=torch.int32))))
        assert torch.equal(SparseFlex.from_mesh(dirty, 24).sdf, SparseFlex.from_mesh(mesh, 24).sdf)

    def test_channels(self) -> None:
        grid = full_grid(2)
        with pytest.raises(ShapeError, match=r"feats must be \(n, 53\).*8 values"):
            SparseFlex.from_features(grid, torch.zeros(8, 101))
        with pytest.raises(ShapeError, match="one row for each of the 8 cells"):
            SparseFlex.from_features(grid, torch.zeros(7, 53))
        with pytest.raises(RangeError, match="compat must be one of"):
            SparseFlex.from_features(grid, torch.zeros(8, 53), compat="trellis2")  # pyright: ignore[reportArgumentType]
        with pytest.raises(RangeError, match="cells must be cubes"):
            SparseFlex.from_features(full_grid((2, 3, 4)), torch.zeros(24, 53))

    def test_fields_that_are_not_finite(self) -> None:
        flex = SparseFlex.from_mesh(shapes.box(), 8)
        with pytest.raises(RangeError, match="sdf must be finite"):
            flex.replace(sdf=flex.sdf * torch.nan).to_mesh()
        with pytest.raises(RangeError, match="alpha must be positive"):
            flex.replace(alpha=-torch.ones(len(flex), 8)).to_mesh()

    def test_no_sign_change_says_why(self) -> None:
        flex = SparseFlex(full_grid(2), torch.ones(27))
        with pytest.warns(EmptyResultWarning, match="positive or 0"):
            assert flex.to_mesh().num_faces == 0
