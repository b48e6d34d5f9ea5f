"""What every engine needs: the checked mesh, its boundary, and the weights of the error terms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from voxgen.core import TriMesh
from voxgen.core.checks import describe
from voxgen.core.errors import RangeError
from voxgen.ops.voxelize._prepare import Scene

SHORTEST = 1e-6
"""Boundary edges below this length have no direction and are skipped; in voxels (compat: in world units, as in the original)."""


@dataclass(frozen=True)
class Problem:
    """A mesh-to-dual-grid conversion.

    scene: the checked mesh and grid.
    edges: (e, 2) int64, vertices of the boundary edges, in lexicographic order.
    face_weight, boundary_weight, regularization: weights of the terms.
    """

    scene: Scene
    edges: Tensor
    face_weight: float
    boundary_weight: float
    regularization: float

    def scale(self) -> Tensor:
        """(3,) float64 voxel size as a share of the largest: turns steps in cells into steps of equal length along the axes."""
        size = self.scene.sizes()
        return size / size.max()


FOLD = 0.9
"""Where an edge is crossed twice, in and out, and the squared length of the sum of both unit normals exceeds this (an angle of
up to 123 degrees between them), one sheet is folded around the edge and does not separate its ends; with a larger angle it is
taken for the two sides of a wall."""


def touch_margin(scene: Scene) -> float:
    """By how much, in voxels, a cell is grown to see which triangles touch it: 4 units in the last place of a float32 coordinate.

    A face in a grid plane touches the cells on both sides; without the margin, rounding of its vertices would decide (and,
    with it, move duals by up to 0.4 voxel). 0 stands for the original's test, in float32 on the cells as they are.
    """
    return max(scene.resolution) * 2.0**-22 if scene.closed else 0.0


def nothing(device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The result without cells."""
    flags = torch.zeros((0, 3), dtype=torch.bool, device=device)
    return torch.zeros((0, 3), dtype=torch.int32, device=device), torch.zeros((0, 3), device=device), flags, flags.clone()


def check_weight(where: str, name: str, value: Any) -> float:
    """Return a weight as float, or raise RangeError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (math.isfinite(value) and value >= 0):
        raise RangeError(f"{where}: {name} must be a finite number >= 0; got {describe(value)}.")
    return float(value)


def boundary_edges(scene: Scene) -> Tensor:
    """(e, 2) int64: edges that exactly one triangle uses, lower vertex first, in lexicographic order.

    Vertices at one position count as one, so that a seam of texture coordinates or normals is no boundary. Faces that
    welding makes a line or a point are left out (they would count the edge that they close up twice), and faces with the
    same three corners count once (the two sides of a doubled sheet have the boundary of the sheet). With compat, edges
    are told apart by vertex index only, as in the original.
    """
    faces = scene.faces.long()
    count = len(scene.vertices)
    if scene.closed:
        faces = TriMesh(scene.vertices, scene.faces).weld()[faces]
    lowest, middle, highest = faces.sort(1).values.unbind(1)
    if scene.closed:
        lowest, middle, highest = _unique_faces(lowest, middle, highest, count)
    keys = torch.cat((lowest * count + middle, middle * count + highest, lowest * count + highest)).sort().values
    differs = torch.ones(len(keys) + 1, dtype=torch.bool, device=keys.device)
    differs[1:-1] = keys[1:] != keys[:-1]
    keys = keys[differs[:-1] & differs[1:]]
    edges = torch.stack((keys // count, keys % count), 1)
    ends = scene.vertices[edges].double()
    shortest = SHORTEST * min(scene.voxel_size) if scene.closed else SHORTEST
    return edges[(ends[:, 1] - ends[:, 0]).norm(dim=1) >= shortest]


def _unique_faces(lowest: Tensor, middle: Tensor, highest: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Each triple of different vertices once."""
    proper = (lowest < middle) & (middle < highest)
    first, rank = (lowest[proper] * count + middle[proper]).unique(return_inverse=True)
    both = (rank * count + highest[proper]).unique()
    lower = first[both // count]
    return lower // count, lower % count, both % count
