"""Views that show a part of an object, and the voxels that are needed for it."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from voxgen.core import Camera, Selection, VoxelGrid
from voxgen.core.checks import describe, require_choice, require_int, require_same_device, require_tensor
from voxgen.core.errors import DtypeError, EmptyResultWarning, RangeError
from voxgen.ops.carve._views import Views, views_of

from ._cells_in_view import CellsInView
from ._crop import covered_pixels, nearest, square_of_count, zoomed
from .section import MAX_REACH


@dataclass(frozen=True, eq=False, repr=False)
class Zoom(Selection):
    """The cells of a crop of each view, and the views that show it.

    Args:
        camera: the new views, of the same size, pose and clip planes; only the intrinsics differ.
        coverage: (v, h, w) bool: pixels of the new views to which no cell contributes that was left out.
        box: (v, 4) float64 x0, x1, y0, y1 of the crop in the old view, from −1 to 1 across it, x right and y down.
        centre: (v,) int64 row of the cell that the crop was made around; −1 where the view shows no cell.
        seen: (v,) int64 cells selected by each view.
    """

    camera: Camera
    coverage: Bool[Tensor, "v h w"]
    box: Float64[Tensor, "v 4"]
    centre: Int64[Tensor, " v"]
    seen: Int64[Tensor, " v"]


def adaptive_zoom(
    grid: VoxelGrid,
    camera: Camera,
    count: int | tuple[int, int],
    *,
    among: Selection | None = None,
    sample: Tensor | None = None,
    centre: Int64[Tensor, " v"] | None = None,
    metric: Literal["linf", "l2"] = "linf",
    scale: float = 1.1,
    square: bool = True,
    formula: Literal["corrected", "printed"] = "corrected",
    reach: float = 1.0,
    generator: torch.Generator | None = None,
) -> Zoom:
    """Zoom each view in on a random part of what it shows, so large that a given number of voxels is needed for it.

    A number N is drawn from the range and a cell that is in the picture. Around the cell's place in the picture grows a square, pushed
    back into the picture where it would leave it, until N cells are selected: those whose centre lies in it, and those
    which, grown by `reach`, touch what the new view shows. So the crop has the aspect of the picture, nothing in the new view is missing
    by construction, and the number is the number.

    Args:
        grid: (n cells), at any level.
        camera: v views.
        count: cells for each view, a number or (lowest, highest), at least 1. Where there are fewer, all are taken. A square is
            never smaller than two cells across, even if it holds more.
        among: only these cells, `carve_by_depth(...)` for instance (with the depth of the views before zooming); None is all.
        sample: (v,) int64, the sample that each view shows; None: the only sample, or view i shows sample i. A cell is selected if any
            view of its sample selects it.
        centre: (v,) int64, rows of the grid to zoom in on; None draws them.
        metric: with square=False, what "nearest" means in the picture.
        scale: the crop's border lies at ± scale in the new view; greater than 1 magnifies, which keeps the rim of the selected cells out
            of the picture.
        square: False is the paper's: the N cells nearest in the picture, and their bounding box, stretched to the picture. The
            coverage says which pixels lack cells then.
        formula: "printed" is the paper's Eq. (4), which shows another part than the one selected.
        reach: cells, from 0 to 16: how far around a point of the surface the mesh depends on cells, as in `carve_by_depth`.
        generator: of the draws, on the CPU; None is torch's own.
    Returns:
        Zoom: a `Selection` with the new views and their coverage. Not differentiable.
    Raises:
        ShapeError, DtypeError, DeviceError: arguments that do not fit.   RangeError: a count below 1 or a range that is upside down; a
        scale that is not positive; a centre that is not in the picture, or not among the cells; a reach out of range; metric="l2"
        with square=True, which has no use for it; a sample that does not exist; a camera that is not finite or not invertible.
    Warns:
        EmptyResultWarning: a view has no cell in its picture; it selects nothing and stays as it is.
    Source: Focusing, adaptive zooming (§3.2 of its method). Differences: Eq. (4) applies one scale to slope and offset, and the y
        range to y; squares instead of bounding boxes, so that pixels are not stretched; full coverage.
    Cost: about 25 passes over the sample's cells for each view.
    Example:
        >>> carving = carve_by_depth(latent.grid, depth, camera)
        >>> zoom = adaptive_zoom(latent.grid, camera, (1000, 2000), among=carving)
        >>> crop, target = zoom.apply(latent), render_geometry(mesh, zoom.camera)
    """
    where = "adaptive_zoom"
    low, high = _range(where, count)
    require_choice(where, "metric", metric, ("linf", "l2"))
    require_choice(where, "formula", formula, ("corrected", "printed"))
    if square and metric == "l2":
        raise RangeError(f"{where}: metric='l2' needs square=False: a disc does not fill a square, whose corners would lack cells.")
    if not 0 < scale < math.inf:
        raise RangeError(f"{where}: scale must be positive and finite; got {scale}.")
    if not 0 <= reach <= MAX_REACH:
        raise RangeError(f"{where}: reach must lie in [0, {MAX_REACH}] cells; got {reach}.")
    views = views_of(where, grid, camera, sample)
    allowed = Selection.all(grid).mask if among is None else (Selection.all(grid) & among).mask
    if centre is not None:
        require_tensor(where, "centre", centre, (len(camera),), (torch.int64,), hint="One row of the grid for each view.")
        require_same_device(where, grid=grid.coords, centre=centre)

    mask = torch.zeros(len(grid), dtype=torch.bool, device=grid.device)
    boxes, rows, seen, taken = [], [], [], []
    for view in range(len(camera)):
        cells = CellsInView.of(grid, views, view, reach)
        own = allowed[cells.rows]
        picture = own & cells.between_planes & cells.inside(cells.center.new_zeros(2), 1.0)
        row = _pick(where, cells, picture, None if centre is None else int(centre[view]), view, generator)
        if row is None:
            box, chosen = (-1.0, 1.0, -1.0, 1.0), torch.zeros_like(own)
        else:
            wanted = int(torch.randint(low, high + 1, (), generator=generator))
            if square:
                box, chosen = square_of_count(cells, own & cells.overlaps_planes, picture, row, (low, wanted, high), scale, reach)
            else:
                box, chosen = nearest(cells, picture, row, wanted, metric, reach)
        mask[cells.rows] |= chosen
        boxes.append(box)
        rows.append(-1 if row is None else row + cells.rows.start)
        seen.append(int(chosen.sum()))
        taken.append(chosen)
    box = torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)
    new = zoomed(camera, box, scale, formula, torch.tensor(rows) >= 0)
    coverage = _coverage(where, grid, new, views, allowed, taken, reach)
    return Zoom(grid, mask, new, coverage, box, torch.tensor(rows, dtype=torch.int64), torch.tensor(seen, dtype=torch.int64))


def _coverage(where: str, grid: VoxelGrid, camera: Camera, views: Views, allowed: Tensor, taken: list[Tensor], reach: float) -> Tensor:
    new = views_of(where, grid, camera, views.sample)
    images = []
    for view, chosen in enumerate(taken):
        cells = CellsInView.of(grid, new, view, reach)
        left_out = allowed[cells.rows] & cells.overlaps_planes & ~chosen
        images.append(covered_pixels(cells.low[left_out], cells.high[left_out], camera.width, camera.height))
    return torch.stack(images) if images else torch.zeros(0, camera.height, camera.width, dtype=torch.bool, device=grid.device)


def _range(where: str, count: object) -> tuple[int, int]:
    if isinstance(count, (tuple, list)):
        if len(count) != 2:
            raise DtypeError(f"{where}: count must be a number or (lowest, highest); got {describe(count)}.")
        low = require_int(where, "count[0]", count[0], 1)
        return low, require_int(where, "count[1]", count[1], low)
    number = require_int(where, "count", count, 1)
    return number, number


def _pick(where: str, cells: CellsInView, picture: Tensor, centre: int | None, view: int, generator: torch.Generator | None) -> int | None:
    """Row in the sample of the cell to zoom in on."""
    if centre is not None:
        row = centre - cells.rows.start
        if not 0 <= row < len(picture) or not bool(picture[row]):
            raise RangeError(f"{where}: centre[{view}] must be a row among the cells whose centres view {view} shows; got {centre}.")
        return row
    candidates = picture.nonzero()[:, 0]
    if len(candidates) == 0:
        warnings.warn(
            f"{where}: view {view} shows the centre of no cell, so nothing is selected and the view stays as it is. Does the camera "
            "look at the grid?",
            EmptyResultWarning,
            stacklevel=3,
        )
        return None
    return int(candidates[int(torch.randint(len(candidates), (), generator=generator))])
