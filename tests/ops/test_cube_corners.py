"""Corners of cells: the original's numbering and means, weights for repeated cells, neighbours, caching, gradients, bad input."""

from __future__ import annotations

import pytest
import torch

from golden.reader import Golden  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from voxgen.core import VoxelGrid
from voxgen.core.errors import CapacityError, DeviceError, DtypeError, ShapeError
from voxgen.ops.cube_corners import OP, average_at_corners, corner_deviation, corner_neighbors, cube_corners, values_at_cubes
from voxgen.testing.grids import fresh, full_grid, random_grid

ENGINES = list(OP.backends)


@pytest.mark.parametrize("backend", ENGINES)
def test_numbering_means_and_consistency_of_the_original(backend: str) -> None:
    golden = Golden.read("triposf_corners")
    coords = torch.nn.functional.pad(golden.arrays["in/coords"], (1, 0))
    grid, _ = VoxelGrid.build(coords, resolution=golden.configuration["resolution"])
    corners = cube_corners(grid, backend=backend)
    assert torch.equal(corners.coords[:, 1:], golden.arrays["out/corners"].int())
    assert torch.equal(corners.index, golden.arrays["out/cubes"].int())
    assert corners.counts.bincount(minlength=9)[1:].tolist() == golden.about["facts"]["sharing"]
    values = golden.normal("feats")
    mean = average_at_corners(values, corners, backend=backend)
    torch.testing.assert_close(mean, golden.arrays["out/values"], atol=1e-6, rtol=0)  # other order of at most eight addends
    consistency = corner_deviation(values, mean, corners, backend=backend).square().mean()
    assert float(consistency) == pytest.approx(golden.about["facts"]["consistency"], rel=1e-6)
    # the deformed positions of the golden, by the map of the whole grid's frame
    size = 1 / grid.resolution[0]
    placed = grid.frame.to_world(corners.coords[:, 1:].float()) + size / 2 * mean[:, 1:].tanh()
    torch.testing.assert_close(placed, golden.arrays["out/positions"], atol=2e-7, rtol=0)


@pytest.mark.parametrize("backend", ENGINES)
def test_copies_of_a_cell_count_by_weight(backend: str) -> None:
    """TripoSF's decoder emits cells twice; the mean over all copies is that of means with the number of copies as weight."""
    golden = Golden.read("triposf_extract_duplicates")
    coords = golden.arrays["in/coords"]
    values = torch.cat(
        (golden.arrays["in/duplicates/sdf"].float()[:, :, None], golden.normal("duplicates/rest", 0.75)[:, :24].reshape(-1, 8, 3)), 2
    )
    resolution = golden.configuration["resolution"]
    values[..., 0] = values[..., 0] * 4 / resolution - 1 / resolution
    cells, which, copies = coords.unique(dim=0, return_inverse=True, return_counts=True)
    grid, _ = VoxelGrid.build(cells, resolution=resolution)
    means = torch.zeros(len(grid), 8, 4).index_add_(0, which, values) / copies[:, None, None]
    found = average_at_corners(means, cube_corners(grid), weight=copies.float(), backend=backend)
    torch.testing.assert_close(found, golden.arrays["out/corner_values"], atol=1e-6, rtol=0)


def test_corners_are_kept_on_the_grid_and_serve_training_after_inference() -> None:
    grid = random_grid((50,), 8)
    with torch.inference_mode():
        corners = cube_corners(grid)
        average_at_corners(torch.zeros(50, 8, 1), corners)
        corner_neighbors(corners)
    assert cube_corners(grid, backend="reference") is corners
    assert corner_neighbors(corners) is corner_neighbors(corners)
    values = torch.randn(50, 8, 2, requires_grad=True)
    average_at_corners(values, corners).sum().backward()
    assert values.grad is not None


@pytest.mark.parametrize("backend", ENGINES)
def test_gradients_of_means_and_spreading(backend: str) -> None:
    grid = random_grid((9, 0, 5), 5)
    corners = cube_corners(grid)
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(len(grid), 8, 2, generator=generator, dtype=torch.float64).requires_grad_()
    weight = (torch.rand(len(grid), generator=generator, dtype=torch.float64) + 0.5).requires_grad_()

    def mean(v: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return average_at_corners(v, corners, weight=w, backend=backend)

    at = torch.randn(len(corners), 1, generator=generator, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(mean, (values, weight))
    assert torch.autograd.gradgradcheck(lambda v: average_at_corners(v, corners, backend=backend).square(), (values,))
    assert torch.autograd.gradcheck(lambda v: values_at_cubes(v, corners, backend=backend), (at,))


@pytest.mark.parametrize("backend", ENGINES)
def test_samples_share_no_corner(backend: str) -> None:
    grid = random_grid((40, 0, 70), 6)
    corners = cube_corners(fresh(grid), backend=backend)
    for sample in range(3):
        alone = cube_corners(grid.sample(sample), backend=backend)
        low, high = corners.offsets[sample : sample + 2].tolist()
        rows = slice(*grid.offsets[sample : sample + 2].tolist())
        assert torch.equal(corners.coords[low:high, 1:], alone.coords[:, 1:])
        assert torch.equal(corners.index[rows] - low, alone.index)
    assert bool((corners.coords[:, 0] == torch.arange(3).repeat_interleave(corners.offsets.diff())).all())


@pytest.mark.parametrize("backend", ENGINES)
def test_neighbors_of_a_full_grid(backend: str) -> None:
    corners = cube_corners(full_grid((2, 3, 4), 2))
    number = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    expected = torch.full((2, 3, 4, 5, 3), -1)
    expected[:, :-1, :, :, 0], expected[:, :, :-1, :, 1], expected[:, :, :, :-1, 2] = number[:, 1:], number[:, :, 1:], number[:, :, :, 1:]
    fresh_corners = cube_corners(fresh(full_grid((2, 3, 4), 2)))
    assert torch.equal(corner_neighbors(fresh_corners, backend=backend), expected.reshape(-1, 3))
    assert len(corners) == 120


@pytest.mark.parametrize("backend", ENGINES)
def test_beyond_2_to_the_31_lattice_points(backend: str) -> None:
    """At 1536³ a linear number of a corner needs more than 32 bits, at 65536³ more than the 48 bits that a cell's takes."""
    for resolution in (1536, 65536):
        far = resolution - 1
        cells = torch.tensor([[0, 0, 0, 0], [0, far, far, far - 1], [0, far, far, far], [1, 0, 0, 0]], dtype=torch.int32)
        corners = cube_corners(VoxelGrid.from_sorted(cells, resolution=resolution, batch_size=2), backend=backend)
        assert len(corners) == 8 + 12 + 8
        assert corners.coords[19].tolist() == [0, resolution, resolution, resolution]
        assert corners.index[2, 7] == 19
        assert corner_neighbors(corners, backend=backend)[19].tolist() == [-1, -1, -1]  # not the first corner of the next sample


def test_half_types_and_non_contiguous_input() -> None:
    grid = random_grid((60,), 6)
    corners = cube_corners(grid)
    values = torch.randn(60, 8, 4)
    expected = average_at_corners(values.half().float(), corners).half()
    assert torch.equal(average_at_corners(values.half(), corners), expected)
    assert torch.equal(
        average_at_corners(values.transpose(0, 2).contiguous().transpose(0, 2), corners), average_at_corners(values, corners)
    )


def test_bad_input() -> None:
    grid = full_grid(2)
    corners, values = cube_corners(grid), torch.zeros(8, 8, 1)
    with pytest.raises(ShapeError, match=r"average_at_corners: values must be \(n, 8, c\)"):
        average_at_corners(values[:, :7], corners)
    with pytest.raises(ShapeError, match="one row for each of the 8 cells"):
        average_at_corners(values[:7], corners)
    with pytest.raises(DtypeError, match="values"):
        average_at_corners(values.int(), corners)
    with pytest.raises(ShapeError, match="weight"):
        average_at_corners(values, corners, weight=torch.ones(7))
    with pytest.raises(DeviceError, match="one device"):
        average_at_corners(values.to("meta"), corners)
    with pytest.raises(ShapeError, match=r"values_at_cubes: values must be \(27, c\)"):
        values_at_cubes(torch.zeros(26, 1), corners)
    none = torch.zeros(0, 4, dtype=torch.int32)
    with pytest.raises(CapacityError, match="Split the batch"):
        cube_corners(VoxelGrid.from_sorted(none, resolution=65536, batch_size=32768))
