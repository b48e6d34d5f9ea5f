"""Where the cells of one sample lie in one picture."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from voxgen.core import VoxelGrid
from voxgen.ops.carve._views import Views, index_to_pixels

_EDGES = torch.tensor([[a, a + step] for step in (1, 2, 4) for a in range(8) if not a & step]).T
"""(2, 12) both ends of the edges of a box, corners numbered as `itertools.product` gives them."""


@dataclass(frozen=True, eq=False)
class CellsInView:
    """m cells of a sample in one view, float64. Image positions run from −1 to 1 across the picture, x right and y down.

    rows: the sample's slice of the grid.
    center: (m, 2) of each cell's centre; it means nothing where `depth` is not positive in a perspective view.
    depth: (m,) z of the centre, world units.
    low, high: (m, 2) box around the picture of the part of the grown cell that lies behind the near plane; low > high where there is none.
    thickness: half the extent of a grown cell along z.
    """

    rows: slice
    center: Tensor
    depth: Tensor
    low: Tensor
    high: Tensor
    thickness: float
    near: float
    far: float

    @staticmethod
    def of(grid: VoxelGrid, views: Views, view: int, reach: float) -> CellsInView:
        """Look at a view's sample; cells are grown by `reach` cells on each side."""
        sample = int(views.sample[view])
        start, end = grid.offsets[sample : sample + 2].tolist()
        middle = grid.cells[start:end].double() + 0.5
        size = torch.tensor([views.width, views.height], dtype=torch.float64, device=grid.device)

        def in_picture(points: Tensor) -> tuple[Tensor, Tensor]:
            column, row, depth = index_to_pixels(views, view, points)
            return 2 * torch.stack((column, row), 1) / size - 1, depth

        center, depth = in_picture(middle)
        low, high = torch.full_like(center, torch.inf), torch.full_like(center, -torch.inf)
        nearest = torch.full_like(depth, torch.inf)
        sides = middle.new_tensor(list(itertools.product((-0.5 - reach, 0.5 + reach), repeat=3)))
        for side in sides:
            corner, z = in_picture(middle + side)
            low, high = torch.minimum(low, corner), torch.maximum(high, corner)
            nearest = torch.minimum(nearest, z)
        cut = (nearest < views.near).nonzero()[:, 0]
        if len(cut):
            corners, z = (t.reshape(len(cut), 8, -1) for t in in_picture((middle[cut, None] + sides).reshape(-1, 3)))
            low[cut], high[cut] = _behind_plane(corners, z[..., 0], views)
        thickness = float((0.5 + reach) * views.project[view, 2, :3].abs().sum())
        return CellsInView(slice(start, end), center, depth, low, high, thickness, views.near, views.far)

    @property
    def between_planes(self) -> Tensor:
        """(m,) bool: centre between near and far plane."""
        return (self.depth >= self.near) & (self.depth <= self.far)

    @property
    def overlaps_planes(self) -> Tensor:
        """(m,) bool: the grown cell has a part between near and far plane."""
        return self.overlaps(self.near, self.far)

    def overlaps(self, near: float, far: float) -> Tensor:
        """(m,) bool: the grown cell has a part between two depths."""
        return (self.depth + self.thickness >= near) & (self.depth - self.thickness <= far)

    def inside(self, middle: Tensor, half: float) -> Tensor:
        """(m,) bool: centre within a square of the picture."""
        return ((self.center - middle).abs() <= half).all(1)

    def touches(self, middle: Tensor, half: float) -> Tensor:
        """(m,) bool: the box around the grown cell meets a square of the picture."""
        return ((self.low <= middle + half) & (self.high >= middle - half)).all(1)


def _behind_plane(corners: Tensor, depth: Tensor, views: Views) -> tuple[Tensor, Tensor]:
    """Bounds (k, 2) of the picture of the parts of boxes behind the near plane: their corners there, and where edges pass the plane.

    Args:
        corners: (k, 8, 2) in the picture, in the order of `itertools.product`.   depth: (k, 8).
    """
    weight = torch.ones_like(depth) if views.orthographic else depth
    scaled = corners.nan_to_num() * weight[..., None]  # linear in space, unlike the place in the picture
    first, second = _EDGES.to(depth.device)
    a, b = depth[:, first], depth[:, second]
    passes = (a < views.near) != (b < views.near)
    share = torch.where(passes, (views.near - a) / torch.where(passes, b - a, 1), 0)
    point = torch.lerp(scaled[:, first], scaled[:, second], share[..., None])
    point = point if views.orthographic else point / views.near
    points = torch.cat((corners, point), 1)
    seen = torch.cat((depth >= views.near, passes), 1)[..., None]
    return torch.where(seen, points, torch.inf).amin(1), torch.where(seen, points, -torch.inf).amax(1)
