"""Which cells a view's frustum holds, and slices of it that hold a given share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from voxgen.core import Camera, Selection, VoxelGrid
from voxgen.core.errors import RangeError
from voxgen.ops.carve._views import views_of

from ._cells_in_view import CellsInView

MAX_REACH = 16
"""Cells."""


def in_frustum(grid: VoxelGrid, camera: Camera, *, sample: Tensor | None = None, reach: float | None = 1.0) -> Selection:
    """The cells that views can show: inside the picture and between the near and far planes.

    Args:
        grid: (n cells), at any level.
        camera: v views.
        sample: (v,) int64, the sample that each view shows; None: the only sample, or view i shows sample i. A cell is selected if any
            view of its sample holds it.
        reach: cells: a cell counts if its cube, grown by so much on each side, has a part in the frustum, so that all that the
            picture shows is there. None: a cell counts if its centre is in the frustum, as SparseFlex publishes it.
    Returns:
        Selection. Not differentiable.
    Raises:
        ShapeError, DtypeError, DeviceError: arguments that do not fit.   RangeError: a reach out of [0, 16], a sample that does not
        exist, a camera that is not finite or not invertible.
    Source: SparseFlex (arXiv 2503.21732), frustum-aware sectional voxel training. Differences: `reach`.
    Example:
        >>> seen = in_frustum(latent.grid, camera)
        >>> smaller = (seen & carving).apply(latent)
    """
    where = "in_frustum"
    _require_reach(where, reach)
    views = views_of(where, grid, camera, sample)
    mask = torch.zeros(len(grid), dtype=torch.bool, device=grid.device)
    for view in range(len(camera)):
        cells = CellsInView.of(grid, views, view, reach or 0.0)
        mask[cells.rows] |= _in_picture(cells, reach) & (cells.between_planes if reach is None else cells.overlaps_planes)
    return Selection(grid, mask)


@dataclass(frozen=True, eq=False, repr=False)
class Section(Selection):
    """The cells of a slice of each view's frustum.

    Args:
        near, far: (v,) float64 world units, the planes of each view. Prediction and target are to be rendered between the same.
        camera: the views that were cut, with their own planes.
    """

    near: Float64[Tensor, " v"]
    far: Float64[Tensor, " v"]
    camera: Camera

    @property
    def cameras(self) -> tuple[Camera, ...]:
        """Each view alone, with its new planes."""
        c = self.camera
        return tuple(
            Camera(c.world_to_camera[i : i + 1], c.intrinsics[i : i + 1], c.width, c.height, near, far, c.orthographic)
            for i, (near, far) in enumerate(zip(self.near.tolist(), self.far.tolist(), strict=True))
        )


def section_by_visibility(
    grid: VoxelGrid,
    camera: Camera,
    ratio: float,
    *,
    among: Selection | None = None,
    sample: Tensor | None = None,
    reach: float | None = 1.0,
    generator: torch.Generator | None = None,
) -> Section:
    """Move the near and far planes of each view so that a share of the cells it holds lies between them.

    The depths of the cells in the picture are sorted, and a run of round(ratio · N) of them is drawn; its ends give the planes. The near
    plane may so cut the object and show its inside.

    Args:
        grid, camera, sample: as in `in_frustum`.
        ratio: in (0, 1]; 1 keeps the camera's own planes.
        among: only these cells; None is all.
        reach: as in `in_frustum`: the planes move inwards, so that cells which reach between them belong to the run. None: the cells
            whose centres lie between the planes, which then lie half way to the next centre.
        generator: of the draw, on the CPU; None is torch's own.
    Returns:
        Section, a `Selection` with the planes. Cells of equal depth stay together, so there may be more than asked for; with `reach`,
        the planes are no nearer to each other than half a grown cell, so there are more where the run is thinner. A view that holds no
        cell keeps its planes. Not differentiable.
    Raises:
        As `in_frustum`.   RangeError: a ratio outside (0, 1], or `among` of another grid.
    Source: SparseFlex (arXiv 2503.21732), visibility ratio α, ablated at 0.1 and 0.3. Differences: order statistics instead of moving
        the planes by iteration; `reach`.
    Example:
        >>> section = section_by_visibility(latent.grid, camera, 0.3)
        >>> target = [render_geometry(mesh, view) for view in section.cameras]
    """
    where = "section_by_visibility"
    _require_reach(where, reach)
    if not 0 < ratio <= 1:
        raise RangeError(f"{where}: ratio must lie in (0, 1]; got {ratio}.")
    views = views_of(where, grid, camera, sample)
    allowed = Selection.all(grid).mask if among is None else (Selection.all(grid) & among).mask
    mask = torch.zeros(len(grid), dtype=torch.bool, device=grid.device)
    planes = torch.tensor([[camera.near, camera.far]] * len(camera), dtype=torch.float64).reshape(-1, 2)
    for view in range(len(camera)):
        cells = CellsInView.of(grid, views, view, reach or 0.0)
        within = cells.between_planes if reach is None else cells.overlaps_planes
        candidates = allowed[cells.rows] & _in_picture(cells, reach) & within
        depth = cells.depth[candidates].sort().values
        if len(depth) == 0:
            continue
        run = max(1, round(ratio * len(depth)))
        first = int(torch.randint(len(depth) - run + 1, (), generator=generator))
        near, far = _planes(depth, first, first + run, camera, None if reach is None else cells.thickness)
        planes[view] = torch.tensor([near, far], dtype=torch.float64)
        held = (cells.depth >= near) & (cells.depth <= far) if reach is None else cells.overlaps(near, far)
        mask[cells.rows] |= candidates & held
    return Section(grid, mask, planes[:, 0], planes[:, 1], camera)


def _planes(depth: Tensor, first: int, end: int, camera: Camera, thickness: float | None) -> tuple[float, float]:
    """Planes around the cells first to end − 1 of ascending depths; the camera's own at the ends."""
    nearest, farthest = float(depth[first]), float(depth[end - 1])
    if thickness is None:
        near = (nearest + float(depth[max(0, first - 1)])) / 2
        far = (farthest + float(depth[min(len(depth) - 1, end)])) / 2
        if near == far:  # one layer of cells of the same depth: any two planes around it
            near, far = near - (camera.far - camera.near) * 1e-6, far + (camera.far - camera.near) * 1e-6
    else:
        middle = (nearest + farthest) / 2
        near = min(nearest + thickness, middle - thickness / 4)
        far = max(farthest - thickness, middle + thickness / 4)
    near = camera.near if first == 0 else max(near, camera.near)
    far = camera.far if end == len(depth) else min(far, camera.far)
    return (near, far) if near < far else (camera.near, camera.far)


def _in_picture(cells: CellsInView, reach: float | None) -> Tensor:
    middle = cells.center.new_zeros(2)
    return cells.inside(middle, 1.0) if reach is None else cells.touches(middle, 1.0)


def _require_reach(where: str, reach: float | None) -> None:
    if reach is not None and not 0 <= reach <= MAX_REACH:
        raise RangeError(f"{where}: reach must lie in [0, {MAX_REACH}] cells, or be None; got {reach}.")
