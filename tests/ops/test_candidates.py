"""Candidates of an upsampling step and their targets, against the golden counts and the plane law."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from voxgen.core import SparseTensor, TriMesh, VoxelGrid
from voxgen.core.errors import FrameError, RangeError
from voxgen.ops.candidates import candidate_targets, candidates, level_structures, redundancy
from voxgen.ops.grid_sets import parents
from voxgen.ops.surface_cells import surface_grid
from voxgen.testing import shapes
from voxgen.testing.grids import random_grid

GOLDEN = Path(__file__).parents[1] / "golden"
KINDS = {"children": "children8", "kernel3": "kernel3", "corner": "corner"}


def grid_of(cells: np.ndarray, resolution: int) -> VoxelGrid:
    coords = torch.nn.functional.pad(torch.from_numpy(cells), (1, 0))
    return VoxelGrid.build(coords, resolution=resolution, batch_size=1)[0]


def square(normal: tuple[float, float, float], side: float = 0.6) -> TriMesh:
    """A square about the origin across a direction."""
    n = torch.nn.functional.normalize(torch.tensor(normal, dtype=torch.float64), dim=0)
    other = torch.tensor([0.0, 0.0, 1.0] if abs(n[2]) < 0.9 else [1.0, 0.0, 0.0], dtype=torch.float64)
    u = torch.nn.functional.normalize(torch.linalg.cross(n, other), dim=0)
    v = torch.linalg.cross(n, u)
    corners = torch.stack((-u - v, u - v, u + v, -u + v)) * (side / 2) + torch.tensor([0.003, 0.002, 0.001], dtype=torch.float64)
    return TriMesh(corners, torch.tensor([[0, 1, 2], [0, 2, 3]]))


def test_order_and_targets_are_the_golden_ones() -> None:
    golden = np.load(GOLDEN / "sparse_up_candidates.npz")
    coarse, fine = grid_of(golden["parents"], 8), grid_of(golden["fine"], 16)
    made = candidates(coarse)
    assert torch.equal(made.coords[:, 1:], torch.from_numpy(golden["candidates"]))
    assert torch.equal(candidate_targets(made, fine), torch.from_numpy(golden["target"]))
    assert torch.equal(made.parent, torch.arange(len(coarse), dtype=torch.int32).repeat_interleave(8))
    assert torch.equal(level_structures(fine)[0].mask("x_slowest").flatten(), torch.from_numpy(golden["target"]))


def sphere_cells(resolution: int) -> VoxelGrid:
    """Closed boxes that meet the sphere of radius 0.41 about (0.013, -0.021, 0.008)."""
    axis = torch.arange(resolution, dtype=torch.float64)
    low = torch.cartesian_prod(axis, axis, axis) / resolution - 0.5 - torch.tensor([0.013, -0.021, 0.008], dtype=torch.float64)
    high = low + 1 / resolution
    nearest = torch.maximum(low, -high).clamp_min(0).norm(dim=1)
    farthest = torch.maximum(low.abs(), high.abs()).norm(dim=1)
    cells = torch.cartesian_prod(axis, axis, axis)[(nearest <= 0.41) & (farthest >= 0.41)].int()
    return grid_of(cells.numpy(), resolution)


def test_counts_on_an_exact_sphere() -> None:
    expected = json.loads((GOLDEN / "sparse_up_candidates.json").read_text())["counts"]
    levels = {resolution: sphere_cells(resolution) for resolution in (32, 64, 128)}
    assert torch.equal(parents(levels[128]).coords, levels[64].coords)
    for entry in expected:
        if entry["shape"] != "sphere" or "children" not in entry:
            continue
        coarse, fine = (levels[side] for side in entry["level"])
        assert [len(coarse), len(fine)] == entry["cells"]
        for name, kind in KINDS.items():
            report = redundancy(coarse, fine, kind)
            assert report.candidates == entry[name]["candidates"]
            assert report.contains_all == entry[name]["contains_all"]
            assert report.redundant == pytest.approx(entry[name]["redundant"], abs=5e-5)  # four digits are stored
        survivors = level_structures(fine)[0].mask().sum(1).bincount(minlength=9)
        assert survivors.tolist() == entry["survivors_per_parent"]


@pytest.mark.parametrize("normal", [(1, 0, 0), (1, 1, 0), (0.36, 0.48, 0.8)])
def test_plane_law_holds_for_every_orientation(normal: tuple[float, float, float]) -> None:
    """1 / w of the candidates survive, w fine layers around a coarse one; the rim of the square adds up to 0.005. The shares are those
    measured for a square of side 0.6 from 256 to 512, the same for every normal to 0.002."""
    step = level_structures(surface_grid(square(normal), 512))[0]
    for kind, share in (("children8", 0.503), ("kernel3", 0.671), ("corner", 0.755)):
        report = redundancy(step.parents, step.children, kind)
        assert report.contains_all
        assert report.redundant == pytest.approx(share, abs=0.002)


def test_real_surface_keeps_a_child_of_every_parent() -> None:
    for mesh in (shapes.rotated(shapes.torus()), shapes.merged(shapes.box(), shapes.seam())):
        for step in level_structures(surface_grid(mesh, 64), 3):
            kept = step.mask().sum(1)
            assert 1 <= int(kept.min()) <= int(kept.max()) <= 8
            assert step.children.frame.coarsen(2).isclose(step.parents.frame)


def test_order_of_candidates_does_not_matter_to_their_targets() -> None:
    fine = random_grid((40, 0, 25), 8)
    made = candidates(parents(fine))
    target = candidate_targets(made, fine)
    shuffled = torch.randperm(len(made))
    other = type(made)(made.parents, made.kind, made.coords[shuffled], made.parent[shuffled], made.resolution, made.frame)
    assert torch.equal(candidate_targets(other, fine), target[shuffled])
    assert int(target.sum()) == len(fine)


def test_unique_candidates_know_their_parent_and_stay_inside() -> None:
    coarse = random_grid((7, 0, 5), 4)
    for kind in ("kernel3", "corner"):
        made = candidates(coarse, kind)
        assert bool((made.coords[:, 1:] >= 0).all())
        assert bool((made.coords[:, 1:] < 8).all())
        grid, order = VoxelGrid.build(made.coords, resolution=8, batch_size=3)
        assert torch.equal(order, torch.arange(len(grid)))  # unique, lexicographic
        own = made.parent >= 0
        up = made.coords // torch.tensor([1, 2, 2, 2])
        assert torch.equal(up[own].int(), coarse.coords[made.parent[own].long()])
        assert int(own.sum()) == 8 * len(coarse)


def test_empty_samples_and_grids() -> None:
    for counts in ((0,), (0, 0, 0), (3, 0, 2)):
        fine = random_grid(counts, 8)
        for kind in ("children8", "kernel3", "corner"):
            report = redundancy(parents(fine), fine, kind)
            assert report.contains_all
            assert report.kept == len(fine)
    empty = random_grid((0,), 8)
    assert redundancy(parents(empty), empty).redundant == 0.0


def test_structures_join_their_levels() -> None:
    finest = random_grid((30, 0, 20), 16)
    steps = level_structures(finest, 3)
    assert [s.parents.resolution[0] for s in steps] == [2, 4, 8]
    assert steps[-1].children is finest
    assert all(a.children is b.parents for a, b in itertools.pairwise(steps))
    assert SparseTensor(steps[0].parents, torch.zeros(len(steps[0].parents), 1)).grid.batch_size == 3


def test_bad_input() -> None:
    fine = random_grid((5,), 8)
    with pytest.raises(RangeError, match="kind"):
        candidates(fine, "seven")  # pyright: ignore[reportArgumentType]
    with pytest.raises(RangeError, match="halve"):
        level_structures(fine, 4)
    with pytest.raises(RangeError, match="levels"):
        level_structures(fine, 0)
    with pytest.raises(RangeError, match="resolution"):
        candidate_targets(candidates(fine), fine)
    moved = VoxelGrid.from_sorted(random_grid((5,), 16).coords, resolution=16, batch_size=1, frame=fine.frame)
    with pytest.raises(FrameError):
        candidate_targets(candidates(fine), moved)
