"""FlexiCubes on sparse cells: the original's arrays, measured numbers, open surfaces, manifolds, orientation."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from flexicubes_inputs import activated, ball, extract, golden_feats, report_of, shell_of_7_2
from torch import Tensor

from golden.reader import Golden  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from voxgen.core import VoxelGrid
from voxgen.ops.flexicubes import (
    OP,
    FlexSurface,
    corner_deviation,
    cube_corners,
    flexicubes,
)
from voxgen.ops.flexicubes import _reference as reference
from voxgen.testing.grids import full_grid, random_grid

ENGINES = list(OP.backends)


# what the original gives


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("name", ["sphere", "torus", "bowl", "noise", "cases"])
@pytest.mark.filterwarnings("ignore::voxgen.core.errors.EmptyResultWarning")
def test_vertices_and_faces_of_the_original(name: str, backend: str) -> None:
    golden = Golden.read(f"triposf_extract_{name}")
    grid, order = VoxelGrid.build(golden.arrays["in/coords"], resolution=golden.configuration["resolution"])
    inputs, mean = activated(grid, golden_feats(golden, name)[order])
    golden.check_statistics("corner_values", mean, 1e-6)
    for training, faces in ((False, "out/faces"), (True, "out/faces_training")):
        surface = extract(grid, inputs, training=training, compat="triposf", backend=backend)
        expected = torch.cat((golden.arrays["out/vertices"], golden.arrays["out/centres"][: len(surface.quads) if training else 0]))
        torch.testing.assert_close(surface.vertices, expected, atol=1e-6, rtol=0)
        assert torch.equal(surface.faces, golden.arrays[faces].int())
    assert float(surface.deviation().sum()) == pytest.approx(golden.about["facts"]["deviation_sum"], rel=1e-5)
    cleaned = extract(grid, inputs, backend=backend)
    assert len(cleaned.vertices) == golden.about["facts"]["used_vertices"]
    assert len(cleaned.faces) == golden.about["facts"]["faces"]


def test_cells_given_twice() -> None:
    """Means count every copy, the weights are those of the last one; everything else sees the cell once."""
    golden = Golden.read("triposf_extract_duplicates")
    feats = golden_feats(golden, "duplicates")
    cells, which, copies = golden.arrays["in/coords"].unique(dim=0, return_inverse=True, return_counts=True)
    grid, _ = VoxelGrid.build(cells, resolution=golden.configuration["resolution"])
    last = torch.zeros(len(grid), dtype=torch.int64).scatter_reduce(0, which, torch.arange(len(which)), "amax")
    means = torch.zeros(len(grid), 53).index_add_(0, which, feats) / copies[:, None]
    inputs, mean = activated(grid, means, weight=copies.float(), last=feats[last])
    torch.testing.assert_close(mean, golden.arrays["out/corner_values"], atol=1e-6, rtol=0)
    surface = extract(grid, inputs, compat="triposf")
    torch.testing.assert_close(surface.vertices, golden.arrays["out/vertices"], atol=1e-6, rtol=0)
    assert torch.equal(surface.faces, golden.arrays["out/faces"].int())


# measured numbers: plain distance to a sphere; a shell with 53 channels

SPHERES = [
    # resolution, V, F, volume and area ratio, (|v| - r) R least, greatest, mean, mean deviation
    (16, 416, 828, 0.95074, 0.97222, -0.0658, -0.0114, -0.0485, 3.045e-3),
    (32, 1760, 3516, 0.98770, 0.99337, -0.0363, -0.0058, -0.0233, 1.679e-3),
    (64, 6920, 13836, 0.99690, 0.99834, -0.0187, -0.0003, -0.0118, 7.643e-4),
]


@pytest.mark.parametrize("row", SPHERES, ids=lambda row: str(row[0]))
def test_sphere_in_numbers(row: tuple[float, ...]) -> None:
    resolution, vertices, faces, volume, area, least, greatest, middle, deviation = row
    grid = full_grid(int(resolution))
    surface = flexicubes(grid, ball(grid))
    report = report_of(surface)
    assert (len(surface.vertices), len(surface.faces), report.euler_number) == (vertices, faces, 2)
    assert report.is_closed
    assert report.is_oriented
    assert report.volume == pytest.approx(volume * 4 / 3 * math.pi * 0.3**3, rel=1e-5)  # the table has five digits
    assert report.area == pytest.approx(area * 4 * math.pi * 0.3**2, rel=1e-5)
    off = (surface.vertices.norm(dim=1) - 0.3) * resolution
    assert [float(off.min()), float(off.max()), float(off.mean())] == pytest.approx([least, greatest, middle], abs=6e-5)
    # printed to four digits, of a float32 run
    assert float(surface.deviation().mean()) == pytest.approx(deviation, rel=4e-4)
    training = flexicubes(grid, ball(grid), training=True)
    assert (len(training.vertices), len(training.faces)) == (vertices + faces // 2, 2 * faces)
    assert report_of(training).is_closed
    # cells without a change of sign do not matter
    corners = cube_corners(grid)
    mixed = (ball(grid)[corners.index.long()] < 0).any(1) & (ball(grid)[corners.index.long()] >= 0).any(1)
    sparse = grid.select(mixed)
    alone = flexicubes(sparse, ball(sparse))
    assert torch.equal(alone.vertices, surface.vertices)
    assert torch.equal(alone.faces, surface.faces)


@pytest.mark.parametrize(("resolution", "vertices", "faces", "border"), [(16, 208, 378, 36), (32, 880, 1682, 76), (64, 3460, 6762, 156)])
def test_half_of_a_sphere_stays_open(resolution: int, vertices: int, faces: int, border: int) -> None:
    grid = full_grid(resolution)
    grid = grid.select(grid.coords[:, 3] >= resolution // 2)
    for training in (False, True):
        surface = flexicubes(grid, ball(grid), training=training, keep_unused=True)
        report = report_of(surface)
        assert (report.boundary_edges, report.boundary_loops, report.euler_number) == (border, 1, 1)
        if not training:
            assert (len(surface.vertices), len(surface.faces)) == (vertices, faces)
            used = surface.vertices[surface.faces.long()]
            assert float(used[..., 2].min()) * resolution == pytest.approx(0.5)


def test_53_channels_in_numbers() -> None:
    whole, feats = shell_of_7_2()
    half = whole.coords[:, 3] >= 16
    assert len(whole) == 3560
    assert len(cube_corners(whole)) == 5380
    assert cube_corners(whole).counts.bincount(minlength=9)[1:].tolist() == [528, 636, 288, 756, 288, 612, 496, 1776]
    expected = {
        (False, False): (1760, 3516, 799.32882, 1.1334210, 0.1118149),
        (False, True): (3518, 7032, 1594.22918, 1.1308795, 0.1118282),
        (True, False): (880, 1682, 399.73921, 0.5379618, None),
        (True, True): (1721, 3364, 782.66926, 0.5367322, None),
    }
    for (cut, training), (vertices, faces, total, area, volume) in expected.items():
        grid, rows = (whole.select(half), feats[half]) if cut else (whole, feats)
        inputs, mean = activated(grid, rows)
        surface = extract(grid, inputs, training=training, keep_unused=True)
        assert (len(surface.vertices), len(surface.faces)) == (vertices, faces)
        # printed from float32 runs: seven digits of sums of hundreds of numbers
        assert float(surface.vertices.abs().sum()) == pytest.approx(total, rel=1e-6)
        report = report_of(surface)
        assert report.area == pytest.approx(area, rel=1e-6)
        if volume is not None:
            assert report.volume == pytest.approx(volume, rel=1e-6)
        deviation = surface.deviation()
        assert len(deviation) == (3516 if cut else 7032)
        assert float(deviation.mean()) == pytest.approx(2.65885e-3 if cut else 2.73677e-3, rel=1e-5)
        values = torch.cat((rows[:, :8, None] / 8 - 1 / 32, rows[:, 8:32].reshape(-1, 8, 3)), 2)
        consistency = corner_deviation(values, mean, cube_corners(grid)).square().mean()
        assert float(consistency) == pytest.approx(0.0741597 if cut else 0.0754777, rel=1e-6)


# topology


def sides_of_quads(surface: FlexSurface) -> Counter[int]:
    """How many sides of quads have how many quads beside them; sides by their two vertices."""
    turned = surface.quads.roll(-1, 1)
    pairs = torch.stack((surface.quads, turned), 2).reshape(-1, 2).sort(1).values.tolist()
    return Counter(Counter(map(tuple, pairs)).values())


def signs(seed: int, resolution: int = 12) -> tuple[VoxelGrid, Tensor]:
    """Random values of magnitude near 1 in a full grid, positive at its border."""
    grid = full_grid(resolution)
    at = cube_corners(grid).coords[:, 1:]
    generator = torch.Generator().manual_seed(seed)
    sdf = torch.where(torch.rand(len(at), generator=generator) < 0.5, -1.0, 1.0) * (0.9 + 0.2 * torch.rand(len(at), generator=generator))
    border = ((at == 0) | (at == resolution)).any(1)
    return grid, torch.where(border, sdf.abs(), sdf)


@pytest.mark.parametrize("seed", range(4))
def test_random_signs_give_a_manifold_of_quads(seed: int) -> None:
    grid, sdf = signs(seed)
    surface = flexicubes(grid, sdf)
    assert set(sides_of_quads(surface)) == {2}
    assert report_of(surface).is_oriented


def test_without_the_replacement_some_sides_have_four_quads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "problematic_face", lambda case: -1)
    counts = [sides_of_quads(flexicubes(*signs(seed), backend="reference")) for seed in range(3)]
    assert all(set(c) == {2, 4} for c in counts)
    assert 15 <= sum(c[4] for c in counts) <= 60  # about ten each


def test_missing_cells_open_the_surface_and_nothing_else() -> None:
    grid, sdf = signs(7, 9)
    corners = cube_corners(grid)
    keep = torch.rand(len(grid), generator=torch.Generator().manual_seed(0)) < 0.8
    part = grid.select(keep)
    rows = torch.searchsorted(_keys(corners.coords), _keys(cube_corners(part).coords))
    surface = flexicubes(part, sdf[rows])
    assert set(sides_of_quads(surface)) == {1, 2}
    assert report_of(surface).nonmanifold_edges == 0


def _keys(coords: Tensor) -> Tensor:
    return (coords.long() * torch.tensor([1 << 30, 1 << 20, 1 << 10, 1])).sum(1)


@pytest.mark.parametrize(("count", "resolution"), [(300, 8), (900, 12)])
@pytest.mark.parametrize("training", [False, True])
def test_random_fields_of_every_engine_are_those_of_the_loop(count: int, resolution: int, training: bool) -> None:
    """N(0, 1) at all corners, raw weights and deformations."""
    grid = random_grid((count,), resolution, count)
    generator = torch.Generator().manual_seed(1)
    inputs, _ = activated(grid, torch.randn(count, 53, generator=generator) * torch.tensor([float(resolution)] * 8 + [1.0] * 45))
    expected = extract(grid, inputs, training=training, backend="reference")
    for backend in ("torch", "numba"):
        surface = extract(grid, inputs, training=training, backend=backend)
        assert torch.equal(surface.faces, expected.faces)
        assert torch.equal(surface.vertex_edges, expected.vertex_edges)
        torch.testing.assert_close(surface.vertices, expected.vertices, atol=3e-7, rtol=0)
        assert float(surface.deviation().sum()) == pytest.approx(float(expected.deviation().sum()), rel=1e-6)


def test_faces_look_to_positive_values_also_from_a_corner_that_is_0() -> None:
    grid = full_grid(6)
    at = cube_corners(grid).coords[:, 1:]
    sdf = (at - 3).abs().amax(1).float() - 1  # 0 on the surface of a cube of corners, -1 in its middle
    surface = flexicubes(grid, sdf)
    report = report_of(surface)
    assert report.is_oriented
    assert report.is_closed
    assert report.volume is not None
    assert report.volume > 0
    original = flexicubes(grid, sdf, compat="triposf")
    a, b, c, d = original.vertices[original.quads.long()].unbind(1)
    outwards = (torch.linalg.cross(c - a, d - b) * (a + b + c + d)).sum(1) > 0
    assert outwards.sum() == 3  # of six: every second edge begins at a corner that is 0
    assert len(outwards) == 6
