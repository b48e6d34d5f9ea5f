"""Frame: index ↔ world."""

from __future__ import annotations

import pytest
import torch

from voxgen.core import Frame
from voxgen.core.errors import FrameError, RangeError


def test_unit_frame_covers_the_cube() -> None:
    frame = Frame.unit(4)
    assert frame.bounds((4, 4, 4)) == ((-0.5,) * 3, (0.5,) * 3)
    assert frame.to_cell(torch.tensor([[-0.5, 0.0, 0.49]])).tolist() == [[0, 2, 3]]
    assert frame.centers(torch.tensor([[0, 0, 3]])).tolist() == [[-0.375, -0.375, 0.375]]


def test_round_trip_and_gradient() -> None:
    frame = Frame.box((-1, 2, 3), (1, 5, 9), (4, 3, 12), up="z")
    points = torch.rand(5, 3, dtype=torch.float64, requires_grad=True)
    world = frame.to_world(points)
    assert torch.allclose(frame.to_index(world), points)
    world.sum().backward()
    assert points.grad is not None
    assert points.grad[0].tolist() == [0.5, 1.0, 0.5]


def test_coarsen_refine_shift() -> None:
    frame = Frame.unit(8)
    assert frame.coarsen(2).isclose(Frame.unit(4))
    assert frame.refine((2, 2, 2)).isclose(Frame.unit(16))
    moved = frame.shifted((2, 0, 0))
    assert moved.to_world(torch.tensor([[0.0, 0, 0]])).tolist() == frame.to_world(torch.tensor([[2.0, 0, 0]])).tolist()


def test_fit_centres_the_points() -> None:
    points = torch.tensor([[0.0, 0, 0], [4, 2, 1]])
    frame = Frame.fit(points, 10)
    index = frame.to_index(points)
    assert torch.allclose(index.mean(0), torch.tensor(5.0))
    assert 0 < float(index.min()) < 1e-4
    assert Frame.fit(points[:1], 10).voxel_size == (0.1, 0.1, 0.1)
    assert Frame.fit(points[:0], 10) == Frame.unit(10)


@pytest.mark.parametrize(
    "arguments",
    [((0, 0, 0), (0, 1, 1)), ((0, 0, 0), (1, 1, -1)), ((float("nan"), 0, 0), (1, 1, 1)), ((0, 0), (1, 1, 1)), ((0, 0, 0), (1, 1, 1), "x")],
)
def test_bad_frames_raise(arguments: tuple) -> None:
    with pytest.raises(RangeError, match="Frame"):
        Frame(*arguments)


def test_boxes_must_have_an_extent() -> None:
    with pytest.raises(RangeError, match="exceed"):
        Frame.box((0, 0, 0), (1, 1, 0), 4)


def test_frames_that_differ_are_named() -> None:
    with pytest.raises(FrameError, match="one frame"):
        Frame.unit(4).require_close("here", Frame.unit(4, up="z"))
