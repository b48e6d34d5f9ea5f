"""sampling_floor: against two samplings of one surface, and bad input."""

from __future__ import annotations

import pytest
import torch

from voxgen.core import TriMesh
from voxgen.core.errors import MeshError, RangeError
from voxgen.metrics import SamplingFloor, chamfer_distance, f_score, sample_surface, sampling_floor
from voxgen.testing.shapes import sphere


@pytest.mark.parametrize("count", [5_000, 40_000])
def test_two_samplings_of_one_surface(count: int) -> None:
    mesh = sphere(0.4, 5)
    first, second = (sample_surface(mesh, count, method="independent", seed=seed).points for seed in (1, 2))
    threshold = 0.7 * (2.01 / count) ** 0.5
    floor = sampling_floor(mesh, count, threshold)
    distance = chamfer_distance(first, second, to="points")
    # standard errors of means over N points with correlated neighbours: about 2 / √N, so 3 % and 1 %
    assert 2 * distance.l2 == pytest.approx(floor.squared, rel=0.06)
    assert 2 * distance.l1 == pytest.approx(floor.l1, rel=0.04)
    assert f_score(first, second, threshold, to="points").f == pytest.approx(floor.f, abs=0.03)


def test_published_numbers() -> None:
    """Area 2.01 gives 1.280e-5 and area 2.6 an F-score of 0.951 at 0.005, with 100,000 samples."""
    side = 2.01**0.5
    square = TriMesh(torch.tensor([[0.0, 0, 0], [side, 0, 0], [side, side, 0], [0, side, 0]]), torch.tensor([[0, 1, 2], [0, 2, 3]]))
    assert sampling_floor(square, 100_000, 0.005).squared == pytest.approx(1.280e-5, abs=1e-8)
    scale = (2.6 / 2.01) ** 0.5
    grown = sampling_floor(square.replace(vertices=square.vertices * scale), 100_000, 0.005)
    assert isinstance(grown, SamplingFloor)
    assert grown.f == pytest.approx(0.951, abs=5e-4)


def test_bad_input() -> None:
    with pytest.raises(MeshError, match="must have an area"):
        sampling_floor(TriMesh(torch.zeros(3, 3), torch.tensor([[0, 1, 2]])), 10, 0.1)
    with pytest.raises(RangeError, match="samples must be at least 1"):
        sampling_floor(sphere(), 0, 0.1)
    with pytest.raises(RangeError, match="threshold must be a positive length"):
        sampling_floor(sphere(), 10, -1.0)
