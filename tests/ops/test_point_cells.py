"""point_cells: known cells, the skin, the border of the box, samples, bad input. Engines are compared by the parity test."""

from __future__ import annotations

import pytest
import torch

from voxgen.core import Frame
from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.ops.point_cells import OP, point_cells

ENGINES = list(OP.backends)


@pytest.mark.parametrize("backend", ENGINES)
def test_own_cells_and_skin(backend: str) -> None:
    points = torch.tensor([[0.05, 0.05, 0.05], [0.06, 0.05, 0.05], [-0.4, 0.4, 0.3]])
    assert point_cells(points, 4, backend=backend).cells.tolist() == [[0, 3, 3], [2, 2, 2]]
    # a cell is 0.25: the first point is 0.2 cells above planes in all directions; the third is 0.4, 0.4 and 0.2 cells from others
    grown = point_cells(points[:1], 4, skin=0.3, backend=backend)
    assert {tuple(c) for c in grown.cells.tolist()} == {(i, j, k) for i in (1, 2) for j in (1, 2) for k in (1, 2)}
    assert point_cells(points[2:], 4, skin=0.3, backend=backend).cells.tolist() == [[0, 3, 2], [0, 3, 3]]


@pytest.mark.parametrize("backend", ENGINES)
def test_points_on_the_border_and_beyond_belong_to_the_last_cells(backend: str) -> None:
    points = torch.tensor([[0.5, -0.5, 0.7], [-9.0, 0.5, 0.5]])
    assert point_cells(points, 8, backend=backend).cells.tolist() == [[0, 7, 7], [7, 0, 7]]


@pytest.mark.parametrize("backend", ENGINES)
def test_samples_and_frames(backend: str) -> None:
    points = torch.rand(60, 3, generator=torch.Generator().manual_seed(2)) * 4 + 1
    frame = Frame.box((1, 1, 1), (5, 5, 5), 16)
    grid = point_cells(points, 16, offsets=torch.tensor([0, 20, 20, 60]), frame=frame, skin=0.2, backend=backend)
    assert grid.batch_size == 3
    assert grid.frame == frame
    for i, part in enumerate((points[:20], points[:0], points[20:])):
        assert torch.equal(grid.sample(i).coords, point_cells(part, 16, frame=frame, skin=0.2, backend=backend).coords)


def test_bad_input() -> None:
    points = torch.zeros(3, 3)
    with pytest.raises(ShapeError, match=r"point_cells: points must be \(p, 3\)"):
        point_cells(torch.zeros(3, 2), 4)
    with pytest.raises(DtypeError, match="points must be"):
        point_cells(points.int(), 4)
    with pytest.raises(RangeError, match="points must be finite"):
        point_cells(points / 0, 4)
    with pytest.raises(RangeError, match="skin must be a number from 0"):
        point_cells(points, 4, skin=-0.1)
    with pytest.raises(RangeError, match=r"inset must be a number from 0 to 0\.5"):
        point_cells(points, 4, inset=0.5)
    for wrong in ([0, 2], [1, 3], [0, 4, 3]):
        with pytest.raises(ShapeError, match="offsets must ascend from 0"):
            point_cells(points, 4, offsets=torch.tensor(wrong))
