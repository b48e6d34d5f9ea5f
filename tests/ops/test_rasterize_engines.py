"""Rasterisation on every engine: windows, sections, packed batches, layers, order and threads change nothing."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from projected import project
from torch import Tensor

from voxgen.core import Camera
from voxgen.core.errors import CapacityError
from voxgen.ops._registry import Call
from voxgen.ops.rasterize import RasterOutput, Window, _numba, _nvdiffrast, interpolate, rasterize, screen_derivatives
from voxgen.ops.rasterize._query import Query
from voxgen.testing.shapes import rotated, sphere, torus

BACKENDS = ("numba", "torch", "reference")


def crowd() -> tuple[Tensor, Tensor]:
    """Triangles of corners anywhere in clip space, w of both signs, on a lattice: many ties, some faces twice."""
    generator = torch.Generator().manual_seed(11)
    positions = (torch.randn(60, 4, generator=generator) * 4).round() / 4
    faces = torch.randint(0, 60, (150, 3), generator=generator)
    return positions, torch.cat((faces, faces[:40].flip(1)))


def same(a: RasterOutput, b: RasterOutput) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a[:3], b[:3], strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_window_has_the_bits_of_the_whole_image(backend: str) -> None:
    positions, faces = crowd()
    whole = rasterize(positions, faces, 27, 45, backend=backend)
    behind = rasterize(positions, faces, 27, 45, behind=whole.face_id, backend=backend)
    slopes, slopes_behind = (screen_derivatives(positions, faces, r) for r in (whole, behind))
    for top, left, rows, columns in ((5, 9, 11, 30), (26, 44, 1, 1)):
        part = (slice(None), slice(top, top + rows), slice(left, left + columns))
        front = rasterize(positions, faces, 27, 45, window=(top, left, rows, columns), backend=backend)
        second = rasterize(positions, faces, 27, 45, window=(top, left, rows, columns), behind=front.face_id, backend=backend)
        for found, expected, slope in ((front, whole, slopes), (second, behind, slopes_behind)):
            assert all(torch.equal(f, e[part]) for f, e in zip(found[:3], expected[:3], strict=True))
            assert torch.equal(screen_derivatives(positions, faces, found), slope[part])
        assert front.pixels == (27, 45, top, left, rows, columns)
    assert whole.window is None
    assert whole.pixels == (27, 45, 0, 0, 27, 45)


@pytest.mark.parametrize("backend", BACKENDS)
def test_sections_change_nothing(backend: str) -> None:
    positions, faces = crowd()
    batch = torch.stack((positions, positions.flip(0), positions * torch.tensor([1.0, 1, -1, 1])))
    choices: tuple[dict[str, Any], ...] = ({}, {"ranges": torch.tensor([[0, 190], [17, 60], [100, 0]])})
    for options in choices:
        whole = rasterize(batch, faces, 20, 24, backend=backend, **options)
        behind = rasterize(batch, faces, 20, 24, behind=whole.face_id, backend=backend, **options)
        for count in (70, 189):
            assert same(rasterize(batch, faces, 20, 24, max_faces=count, backend=backend, **options), whole)
            assert same(rasterize(batch, faces, 20, 24, max_faces=count, behind=whole.face_id, backend=backend, **options), behind)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_packed_batch_equals_its_meshes_alone(backend: str) -> None:
    meshes = [rotated(torus(around=12, across=6)), sphere(0.3, 1), torus(around=5, across=4)]
    camera = Camera.look_at(torch.tensor([[0.9, 0.7, 0.4]]), width=30, height=26)
    parts = [project(camera, mesh.vertices)[0].float() for mesh in meshes]
    starts = torch.tensor([0, *[len(p) for p in parts]]).cumsum(0)
    faces = torch.cat([mesh.faces + int(start) for mesh, start in zip(meshes, starts, strict=False)])
    counts = [mesh.num_faces for mesh in meshes]
    # the second view draws nothing, the last one the first mesh again
    ranges = torch.tensor([[0, counts[0]], [5, 0], [counts[0], counts[1]], [counts[0] + counts[1], counts[2]], [0, counts[0]]])
    packed = rasterize(torch.cat(parts).requires_grad_(), faces, 26, 30, ranges=ranges.int(), backend=backend)
    assert packed.face_id.shape == (5, 26, 30)
    assert int(packed.face_id[1].max()) == -1
    for view, which in ((0, 0), (2, 1), (3, 2), (4, 0)):
        alone = rasterize(parts[which], meshes[which].faces, 26, 30, backend=backend)
        first = int(ranges[view, 0])
        assert torch.equal(packed.face_id[view], torch.where(alone.face_id[0] >= 0, alone.face_id[0] + first, -1))
        assert torch.equal(packed.barycentrics[view], alone.barycentrics[0])
        assert torch.equal(packed.depth[view], alone.depth[0])
        values = interpolate(torch.cat(parts), faces, packed)[view]
        assert torch.equal(values, interpolate(parts[which], meshes[which].faces, alone)[0])
    assert torch.equal(screen_derivatives(torch.cat(parts), faces, packed)[0], screen_derivatives(torch.cat(parts), faces, packed)[4])


@pytest.mark.parametrize("backend", BACKENDS)
def test_peeling_visits_every_face_once(backend: str) -> None:
    """Peeling visits every face that covers a pixel, each once, in order of depth and index."""
    positions, faces = crowd()[0].double(), crowd()[1][120:]
    previous, seen, depths = None, [], []
    while not seen or bool((seen[-1] >= 0).any()):
        raster = rasterize(positions, faces, 9, 10, behind=previous, backend=backend)
        previous = raster.face_id
        seen.append(raster.face_id[0])
        depths.append(torch.where(raster.face_id[0] >= 0, raster.depth[0], torch.inf))
    assert len(seen) > 5
    ids, depth = torch.stack(seen), torch.stack(depths)
    assert bool((depth[1:] >= depth[:-1]).all())
    assert bool((ids[1:] > ids[:-1])[(depth[1:] == depth[:-1]) & (ids[1:] >= 0)].all())
    one_by_one = torch.cat([rasterize(positions, face[None], 9, 10, backend=backend).face_id >= 0 for face in faces])
    found = torch.zeros_like(one_by_one, dtype=torch.int64)
    for layer in seen:
        row, column = (layer >= 0).nonzero(as_tuple=True)
        found[layer[row, column].long(), row, column] += 1
    assert torch.equal(found, one_by_one.long())


def test_order_of_faces_lists_and_threads_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    import numba

    mesh = rotated(torus(around=200, across=100))  # 40,000 faces: three lists a band
    camera = Camera.look_at(torch.tensor([[0.5, 0.6, 0.7]]), width=150, height=170)
    positions = project(camera, mesh.vertices).float()
    expected = rasterize(positions, mesh.faces, 170, 150).face_id
    order = torch.randperm(mesh.num_faces)
    shuffled = rasterize(positions, mesh.faces[order], 170, 150).face_id.long()
    assert torch.equal(torch.where(shuffled >= 0, order[shuffled.clamp(min=0)], -1).int(), expected)
    monkeypatch.setattr(_numba, "_SLAB", 10_000)
    assert torch.equal(rasterize(positions, mesh.faces, 170, 150).face_id, expected)
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        assert torch.equal(rasterize(positions, mesh.faces, 170, 150).face_id, expected)
    finally:
        numba.set_num_threads(threads)


@pytest.mark.parametrize("block", [512, 1 << 14])
def test_triton_under_the_interpreter(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from voxgen.ops.rasterize import _triton

    monkeypatch.setattr(_triton, "INTERPRETED_BLOCK", block)
    monkeypatch.setattr(_triton, "_LAUNCH", 8 * block)  # several launches
    positions, faces = crowd()
    options: dict[str, Any] = {"window": (3, 5, 4, 6), "max_faces": 150}
    first = rasterize(positions, faces, 9, 12, backend="triton", **options)
    assert same(first, rasterize(positions, faces, 9, 12, backend="reference", **options))
    second = rasterize(positions, faces, 9, 12, behind=first.face_id, backend="triton", **options)
    assert same(second, rasterize(positions, faces, 9, 12, behind=first.face_id, backend="reference", **options))
    assert int((second.face_id >= 0).sum()) > 5


def test_nvdiffrast_gets_what_it_takes_and_its_ids_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in that answers as the library does: ids from 1 as floats, in the last channel, for the faces it is given."""
    contexts: list[torch.device] = []

    def stand_in(context: str, pos: Tensor, tri: Tensor, resolution: tuple[int, int], grad_db: bool) -> tuple[Tensor, Tensor]:
        assert context == "context"
        assert not grad_db
        assert (pos.dtype, tri.dtype, pos.is_contiguous(), tri.is_contiguous()) == (torch.float32, torch.int32, True, True)
        ids = rasterize(pos, tri, *resolution).face_id + 1
        return torch.cat((torch.rand(*ids.shape, 3), ids[..., None].float()), -1), torch.zeros(0)

    library = ModuleType("nvdiffrast")
    library.torch = ModuleType("nvdiffrast.torch")  # pyright: ignore[reportAttributeAccessIssue]
    library.torch.rasterize = stand_in  # pyright: ignore[reportAttributeAccessIssue]
    library.torch.RasterizeCudaContext = lambda device: contexts.append(device) or "context"  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "nvdiffrast", library)
    monkeypatch.setitem(sys.modules, "nvdiffrast.torch", library.torch)
    monkeypatch.setattr(_nvdiffrast, "_CONTEXTS", {})
    positions, faces = crowd()
    batch, ranges = torch.stack((positions, positions.flip(0), positions)), ((0, 190), (20, 60), (7, 0))
    query = Query(batch, faces.int(), ranges, Window(27, 45, 4, 3, 20, 30))
    expected = rasterize(batch, faces, 27, 45, ranges=torch.tensor(ranges), window=(4, 3, 20, 30))
    assert torch.equal(_nvdiffrast.visible_faces(query), expected.face_id)
    assert contexts == [torch.device("cpu")]
    monkeypatch.setattr(_nvdiffrast, "MAX_FACES", 100)
    with pytest.raises(CapacityError, match="Lower max_faces"):
        _nvdiffrast.visible_faces(query)
    assert nvdiffrast_reasons("cuda") == ""
    assert "runs on cuda" in nvdiffrast_reasons("cpu")
    assert "behind" in nvdiffrast_reasons("cuda", peels=True)
    assert "not exact" in nvdiffrast_reasons("cuda", exact=True)


def nvdiffrast_reasons(device: str, **facts: Any) -> str:
    return "; ".join(_nvdiffrast.nvdiffrast_serves(Call(torch.device(device), torch.float32, False, facts)))
