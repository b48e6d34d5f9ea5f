"""SparseFlex from 53 raw channels: the released TripoSF's corners, vertices, faces, regularisers and gradients."""

from __future__ import annotations

import warnings
from functools import cache

import pytest
import torch
from torch import Tensor

from golden.reader import Golden  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from voxgen.core import TriMesh, VoxelGrid
from voxgen.core.errors import DuplicateError, EmptyResultWarning, ShapeError
from voxgen.metrics import mesh_report
from voxgen.ops.cube_corners import average_at_corners, cube_corners
from voxgen.representations import SparseFlex

CLOSED = ("sphere", "torus", "nested")
OPEN = ("bowl", "plate")
NAMES = (*CLOSED, *OPEN, "noise", "cases")
EXACT = 1e-6
"""Positions: world units, in a cube of side 1."""


@cache
def read(name: str) -> Golden:
    return Golden.read(f"triposf_extract_{name}")


def channels(name: str) -> tuple[Tensor, Tensor]:
    """Cells in the file's order, and their 53 channels."""
    golden = read(name)
    return golden.arrays["in/coords"], torch.cat((golden.arrays[f"in/{name}/sdf"].float(), golden.normal(f"{name}/rest", 0.75)), 1)


def field(name: str) -> tuple[VoxelGrid, Tensor, Tensor]:
    """Grid, channels in its order, and which row of the file each is."""
    coords, feats = channels(name)
    grid, order = VoxelGrid.build(coords, resolution=read(name).configuration["resolution"])
    return grid, feats[order], order


def triangles(vertices: Tensor, faces: Tensor) -> Tensor:
    """Corner positions of all triangles, in an order that depends on nothing but them: each turned to begin at its lowest corner."""
    p = vertices[faces.long()].double()
    key = (p * torch.tensor([1.0, 1e-2, 1e-4], dtype=torch.float64)).sum(2)
    first = key.argmin(1)
    turned = torch.stack([p[torch.arange(len(p)), (first + k) % 3] for k in range(3)], 1)
    weight = torch.tensor([[1.0, 0.7, 0.3], [0.11, 0.05, 0.21], [0.013, 0.041, 0.027]], dtype=torch.float64)
    return turned[(turned * weight).sum((1, 2)).argsort()]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore::voxgen.core.errors.EmptyResultWarning")
def test_arrays_of_the_original(name: str) -> None:
    golden = read(name)
    facts, arrays = golden.about["facts"], golden.arrays
    grid, feats, _ = field(name)
    prediction = SparseFlex.predict(grid, feats, compat="triposf")
    flex = prediction.flex
    assert torch.equal(flex.corners.coords[:, 1:], arrays["out/corners"].int())
    golden.check_statistics("corner_values", prediction.at_corners, 1e-6)
    assert float(prediction.consistency()) == pytest.approx(facts["consistency"], rel=1e-6, abs=1e-12)
    mesh = flex.to_mesh(compat="triposf")
    torch.testing.assert_close(mesh.vertices, arrays["out/vertices"], atol=EXACT, rtol=0)
    assert torch.equal(mesh.faces, arrays["out/faces"].int())
    surface = flex.surface(training=True, compat="triposf")
    torch.testing.assert_close(surface.vertices, torch.cat((arrays["out/vertices"], arrays["out/centres"])), atol=EXACT, rtol=0)
    assert torch.equal(surface.faces, arrays["out/faces_training"].int())
    assert float(surface.deviation().sum()) == pytest.approx(facts["deviation_sum"], rel=1e-5)
    golden.check_statistics("deviation", surface.deviation(), 1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore::voxgen.core.errors.EmptyResultWarning")
def test_gradient_of_the_53_channels(name: str) -> None:
    golden = read(name)
    grid, feats, order = field(name)
    feats = feats.clone().requires_grad_()
    prediction = SparseFlex.predict(grid, feats, compat="triposf")
    surface = prediction.flex.surface(training=True, compat="triposf")
    loss = (surface.vertices * golden.normal("dy")).sum() + 10 * surface.deviation().sum() + 1000 * prediction.consistency()
    (gradient,) = torch.autograd.grad(loss, feats)
    back = torch.empty_like(gradient).index_copy(0, order, gradient)
    wanted, found = golden.expected("dfeats", back)
    # sums of float32 in another order: the golden's own tolerance, relative to the largest entry
    assert float((found - wanted).abs().max()) <= golden.tolerance * float(wanted.abs().max())
    golden.check_statistics("dfeats", back)


@pytest.mark.parametrize("name", [*CLOSED, *OPEN, "noise"])
def test_default_gives_the_same_surface(name: str) -> None:
    arrays, facts = read(name).arrays, read(name).about["facts"]
    grid, feats, _ = field(name)
    flex = SparseFlex.from_features(grid, feats)
    for training in (False, True):
        mesh = flex.to_mesh(training=training)
        assert mesh.num_vertices == facts["used_vertices"] + (facts["vertices_training"] - facts["vertices"] if training else 0)
        vertices = torch.cat((arrays["out/vertices"], arrays["out/centres"]))
        wanted = triangles(vertices, arrays["out/faces_training" if training else "out/faces"])
        torch.testing.assert_close(triangles(mesh.vertices, mesh.faces), wanted, atol=EXACT, rtol=0)


@pytest.mark.parametrize("name", [*CLOSED, *OPEN])
def test_boundary(name: str) -> None:
    """Closed fields are closed, open ones have the original's border, in training too."""
    grid, feats, _ = field(name)
    for training in (False, True):
        report = mesh_report(SparseFlex.from_features(grid, feats).to_mesh(training=training), weld=False)
        assert report.boundary_edges == read(name).about["facts"]["boundary_edges"]
        assert report.is_oriented
        assert report.nonmanifold_edges == 0


def test_cells_that_come_twice() -> None:
    golden = read("duplicates")
    coords, feats = channels("duplicates")
    resolution = golden.configuration["resolution"]
    flex = SparseFlex.from_rows(coords, feats, resolution=resolution, compat="triposf")
    assert len(flex) < len(coords)
    mesh = flex.to_mesh(compat="triposf")
    torch.testing.assert_close(mesh.vertices, golden.arrays["out/vertices"], atol=EXACT, rtol=0)
    assert torch.equal(mesh.faces, golden.arrays["out/faces"].int())
    torch.testing.assert_close(flex.sdf, golden.arrays["out/corner_values"][:, 0], atol=EXACT, rtol=0)
    feats.requires_grad_()
    twice = SparseFlex.from_rows(coords, feats, resolution=resolution, compat="triposf")
    twice.surface(training=True).vertices.square().sum().backward()
    assert feats.grad is not None
    assert bool(feats.grad.isfinite().all())
    with pytest.raises(DuplicateError, match="cells must be unique"):
        SparseFlex.from_rows(coords, feats, resolution=resolution)


def test_rows_in_any_order() -> None:
    coords, feats = channels("bowl")
    grid, sorted_feats, _ = field("bowl")
    order = torch.randperm(len(coords))
    for compat in (None, "triposf"):
        flex = SparseFlex.from_rows(coords[order], feats[order], resolution=16, compat=compat)
        wanted = SparseFlex.from_features(grid, sorted_feats, compat=compat)
        for name, value in wanted.tensors().items():
            assert torch.equal(flex.tensors()[name], value), name


def formula() -> tuple[VoxelGrid, Tensor]:
    """The field that the specification of the 53 channels is checked with: a ball at 32³ and sines in all other channels."""
    side = 32
    cells = torch.cartesian_prod(*[torch.arange(side)] * 3)
    distance = ((cells + 0.5) / side - 0.5).double().norm(dim=1) - 0.3
    cells = cells[distance.abs() < 1.5 / side].int()
    grid = VoxelGrid.from_sorted(torch.nn.functional.pad(cells, (1, 0)), resolution=side, batch_size=1)
    corners = cube_corners(grid)
    lattice = corners.coords[:, 1:].double() / side - 0.5
    sdf = (lattice.norm(dim=1) - 0.3 + 1 / side) * side / 4
    j = torch.arange(45, dtype=torch.float64)
    x, y, z = cells.double().unbind(1)
    rest = 0.5 * torch.sin(0.1 * (j + 1) * (x + 2 * y + 3 * z)[:, None] + j)
    return grid, torch.cat((sdf[corners.index.long()], rest), 1).float()


def sums(mesh: TriMesh) -> tuple[int, int, float, float]:
    return mesh.num_vertices, mesh.num_faces, float(mesh.vertices.double().abs().sum()), float(mesh.face_areas().double().sum())


def test_numbers_of_the_ball_with_sines() -> None:
    grid, feats = formula()
    assert (len(grid), len(cube_corners(grid))) == (3560, 5380)
    prediction = SparseFlex.predict(grid, feats)
    assert float(prediction.consistency()) == pytest.approx(0.0754777, abs=1e-6)
    flex = prediction.flex
    assert sums(flex.to_mesh()) == (1760, 3516, pytest.approx(799.32882, abs=2e-3), pytest.approx(1.1334210, abs=2e-6))
    assert sums(flex.to_mesh(training=True)) == (3518, 7032, pytest.approx(1594.22918, abs=4e-3), pytest.approx(1.1308795, abs=2e-6))
    deviation = flex.surface(training=True).deviation()
    assert (len(deviation), float(deviation.mean())) == (7032, pytest.approx(2.73677e-3, abs=1e-7))
    half, kept = grid.cells[:, 2] >= 16, feats[grid.cells[:, 2] >= 16]
    flex = SparseFlex.from_features(grid.select(half), kept)
    assert sums(flex.to_mesh()) == (880, 1682, pytest.approx(399.73921, abs=2e-3), pytest.approx(0.5379618, abs=2e-6))
    assert sums(flex.to_mesh(training=True)) == (1721, 3364, pytest.approx(782.66926, abs=4e-3), pytest.approx(0.5367322, abs=2e-6))


def test_scale_of_trellis() -> None:
    grid, feats, _ = field("sphere")
    flex = SparseFlex.from_features(grid, feats, compat="trellis")
    mean = average_at_corners(feats[:, :8, None], flex.corners)[:, 0]
    torch.testing.assert_close(flex.sdf, mean - 1 / 16)


def test_a_network_that_starts_at_zero_has_no_surface_and_finite_gradients() -> None:
    grid, feats, _ = field("sphere")
    zero = torch.zeros_like(feats).requires_grad_()
    flex = SparseFlex.from_features(grid, zero)
    assert float(flex.sdf.detach().max()) == -1 / 16
    with pytest.warns(EmptyResultWarning, match="all corners are negative"):
        surface = flex.surface(training=True)
    assert len(surface.vertices) == 0
    (surface.vertices.sum() + flex.sdf.square().sum()).backward()
    assert zero.grad is not None
    assert bool(zero.grad.isfinite().all())
    assert float(zero.grad[:, :8].abs().min()) > 0


def test_half_and_double_channels() -> None:
    grid, feats, _ = field("plate")
    single = SparseFlex.from_features(grid, feats).to_mesh()
    double = SparseFlex.from_features(grid, feats.double()).to_mesh()
    assert double.vertices.dtype == torch.float64
    torch.testing.assert_close(double.vertices.float(), single.vertices, atol=EXACT, rtol=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert SparseFlex.from_features(grid, feats.half()).to_mesh().vertices.dtype == torch.float32


@pytest.mark.parametrize("training", [False, True])
def test_slabs_give_the_same_mesh(training: bool) -> None:
    grids, channels_of = zip(*[field(name)[:2] for name in ("bowl", "torus")], strict=True)
    grid, feats = VoxelGrid.batched(grids), torch.cat(channels_of)
    whole = SparseFlex.from_features(grid, feats).to_mesh(training=training)
    pieces = SparseFlex.mesh_from_features(grid, feats, cells=100, training=training, progress=True)
    assert torch.equal(pieces.faces, whole.faces)
    assert pieces.num_parts == 2
    torch.testing.assert_close(pieces.vertices, whole.vertices, atol=1e-7, rtol=0)
    with pytest.raises(ShapeError, match=r"mesh_from_features: feats must have one row"):
        SparseFlex.mesh_from_features(grid, feats[:-1])
