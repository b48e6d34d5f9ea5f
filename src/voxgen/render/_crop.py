"""Crops of a picture by the cells they hold, and the cameras that show them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from voxgen.core import Camera

from ._cells_in_view import CellsInView

Box = tuple[float, float, float, float]
"""x0, x1, y0, y1 from −1 to 1 across the picture."""
STEPS = 48
"""Halvings of the size of a square: beyond what float64 tells apart in a picture."""


def square_of_count(
    cells: CellsInView, front: Tensor, picture: Tensor, row: int, counts: tuple[int, int, int], scale: float, reach: float
) -> tuple[Box, Tensor]:
    """The square around a cell for which the wanted number of cells is selected, and these, (m,) bool.

    Args:
        front: (m,) bool, the cells that may be selected.   picture: (m,) bool, those of them whose centres the old view shows.
        counts: lowest, wanted, highest.
    """
    low, wanted, high = counts
    point = cells.center[row]

    def crop(half: float) -> tuple[Tensor, Tensor]:
        middle = point.clamp(half - 1, 1 - half)
        return middle, front & (cells.inside(middle, half) | cells.touches(middle, half / scale))

    smallest = min(1.0, _footprint(cells, row, reach))
    largest = max(smallest, min(1.0, float((cells.center[picture] - point).abs().max())))
    half = _halved(lambda h: int(crop(h)[1].sum()), smallest, largest, low, wanted, high)
    middle, chosen = crop(half)
    x, y = middle.tolist()
    return (x - half, x + half, y - half, y + half), chosen


def _halved(count: Callable[[float], int], smallest: float, largest: float, low: int, wanted: int, high: int) -> float:
    """The size whose count is nearest to the wanted one, one within the range if there is any; the smallest if all exceed it."""

    def badness(number: int) -> tuple[bool, int]:
        return not low <= number <= high, abs(number - wanted)

    best, worst = smallest, badness(count(smallest))
    number = count(largest)
    if number <= wanted:
        return largest
    if worst[1] == 0 or count(smallest) >= wanted:
        return smallest
    for _ in range(STEPS):
        half = (smallest + largest) / 2
        number = count(half)
        if badness(number) < worst:
            best, worst = half, badness(number)
        if number == wanted or not smallest < half < largest:
            break
        smallest, largest = (half, largest) if number < wanted else (smallest, half)
    return best


def nearest(cells: CellsInView, picture: Tensor, row: int, wanted: int, metric: str, reach: float) -> tuple[Box, Tensor]:
    """The cells nearest to a cell in the picture, and the box around their centres, at least two cells wide."""
    gap = cells.center - cells.center[row]
    distance = gap.abs().amax(1) if metric == "linf" else gap.norm(dim=1)
    rows = torch.where(picture, distance, math.inf).argsort(stable=True)[: min(wanted, int(picture.sum()))]
    chosen = torch.zeros_like(picture)
    chosen[rows] = True
    low, high = cells.center[rows].amin(0), cells.center[rows].amax(0)
    short = (2 * min(1.0, _footprint(cells, row, reach)) - (high - low)).clamp(min=0) / 2
    (x0, y0), (x1, y1) = (low - short).tolist(), (high + short).tolist()
    return (x0, x1, y0, y1), chosen


def _footprint(cells: CellsInView, row: int, reach: float) -> float:
    """How large a cell that is not grown appears in the picture."""
    return float((cells.high[row] - cells.low[row]).max()) / (1 + 2 * reach)


def zoomed(camera: Camera, box: Tensor, scale: float, formula: str, changed: Tensor) -> Camera:
    """Cameras whose view of a box runs from −scale to scale; those not marked as changed stay.

    Args:
        box: (v, 4) float64 x0, x1, y0, y1.   formula: "printed" as the paper has it: offsets without the scale, and that of x also in y.
    """
    x0, x1, y0, y1 = box.to(camera.intrinsics.device).unbind(1)
    slope = torch.stack((2 * scale / (x1 - x0), 2 * scale / (y1 - y0)), 1)
    shift = -torch.stack(((x0 + x1) / (x1 - x0), (y0 + y1) / (y1 - y0)), 1)
    shift = shift * scale if formula == "corrected" else shift[:, :1].expand(-1, 2)
    half = torch.tensor([camera.width / 2, camera.height / 2], dtype=torch.float64, device=box.device).to(slope)
    # x' = slope x + shift in pixels: column' = slope column + half (1 − slope + shift)
    pixels = torch.zeros(len(box), 3, 3, dtype=torch.float64, device=slope.device)
    pixels[:, 0, 0], pixels[:, 1, 1], pixels[:, 2, 2] = slope[:, 0], slope[:, 1], 1.0
    pixels[:, :2, 2] = half * (1 - slope + shift)
    new = (pixels @ camera.intrinsics.double()).to(camera.intrinsics)
    intrinsics = torch.where(changed.to(new.device)[:, None, None], new, camera.intrinsics)
    return Camera(camera.world_to_camera, intrinsics, camera.width, camera.height, camera.near, camera.far, camera.orthographic)


def covered_pixels(low: Tensor, high: Tensor, width: int, height: int) -> Tensor:
    """(h, w) bool: pixels whose centre lies in none of the boxes (m, 2), given from −1 to 1 across the picture."""
    size = torch.tensor([width, height], device=low.device)
    first = ((low + 1) / 2 * size - 0.5).clamp(min=torch.zeros_like(size), max=size).ceil().long()
    end = (((high + 1) / 2 * size - 0.5).floor() + 1).clamp(min=torch.zeros_like(size), max=size).long()
    some = (first < end).all(1)
    (x0, y0), (x1, y1) = first[some].unbind(1), end[some].unbind(1)
    # +1 and −1 at the corners of each box; sums along both axes count the boxes over a pixel
    steps = torch.zeros((height + 1) * (width + 1), dtype=torch.int32, device=low.device)
    for y, x, sign in ((y0, x0, 1), (y0, x1, -1), (y1, x0, -1), (y1, x1, 1)):
        steps.index_add_(0, y * (width + 1) + x, torch.full_like(y, sign, dtype=torch.int32))
    return steps.reshape(height + 1, width + 1).cumsum(0).cumsum(1)[:height, :width] == 0
