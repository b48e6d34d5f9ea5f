"""The surface cut into pieces, one or more for each cell that it passes, and what is read at each piece.

A triangle with corners p0, p1, p2 is the set p0 + b1 (p1 − p0) + b2 (p2 − p0). Its part inside a cell is a convex polygon
in the plane of (b1, b2), cut into a fan of triangles from its first corner; each of these is one piece: a share of the
surface's area, looked up at its centroid over as many texels as it covers (or, where texels are long and thin on the surface,
at several points along the line through its centroid that crosses most of them).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from voxgen.ops.voxelize._prepare import TOLERANCE_CELLS, Scene

SLIVER = 1e-9
"""Area, in cell faces, that a whole triangle counts beside its own: so a cell that only triangles without area touch has a value."""


class Pieces(NamedTuple):
    """(s,) pieces of the surface.

    triangle: int64.   row: int64, of the cell.   corners: (s, 3, 2) float64, in the plane of (b1, b2).
    """

    triangle: Tensor
    row: Tensor
    corners: Tensor

    @property
    def b(self) -> Tensor:
        """(s, 2) centroids."""
        return self.corners.mean(1)

    @property
    def share(self) -> Tensor:
        """(s,) areas in the plane of (b1, b2); the whole triangle has 1/2."""
        first, second = self.corners[:, 1] - self.corners[:, 0], self.corners[:, 2] - self.corners[:, 0]
        return (first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]).abs() / 2


def rescue_margin(scene: Scene) -> float:
    """By how much cells are grown, in cells, where no piece of the surface is found in a touched cell: the mesh may leave the
    box a little, and grid planes are rounded, so that a cell can miss its surface by a hair."""
    return 2 * max(TOLERANCE_CELLS, max(scene.resolution) * 2.0**-23)


def piece_weights(scene: Scene, pieces: Pieces) -> Tensor:
    """(s,) area of each piece in world units squared, see `SLIVER`."""
    corners = scene.vertices[scene.faces.long()].double()
    double_area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=1)
    return pieces.share * (double_area + SLIVER * max(scene.voxel_size) ** 2)[pieces.triangle]
