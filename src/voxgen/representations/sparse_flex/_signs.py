"""Distances with a side at the corners of cells, by the normals of the nearest face, edge or vertex."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from voxgen.core import VoxelGrid
from voxgen.ops.cube_corners import cube_corners
from voxgen.ops.distance_band import distance_band
from voxgen.ops.lookup import lookup_cells
from voxgen.ops.mesh_distance import OrientedMesh, closest_points

REACH = 1.75
"""No corner of a touched cell is farther from the mesh than a cell's diagonal, 1.732 cells."""
CHUNK = 1 << 18
"""Corners at a time."""


class CornerDistances(NamedTuple):
    """value: (m,) float64 distance in cells, negative inside.   normal: (m, 3) unit, where the distance grows."""

    value: Tensor
    normal: Tensor


def corner_distances(surface: OrientedMesh, grid: VoxelGrid, backend: str, progress: bool) -> CornerDistances:
    """Of the corners of a grid whose cells the surface touches, in the index frame."""
    x, y, z = grid.resolution
    corners = cube_corners(grid)
    near = distance_band(  # corners are the centres of the cells of a grid that lies half a cell lower
        surface.vertices,
        surface.faces,
        origin=(-0.5, -0.5, -0.5),
        voxel_size=1.0,
        resolution=(x + 1, y + 1, z + 1),
        band=REACH,
        backend=backend,
        progress=progress,
    )
    band = VoxelGrid.from_sorted(torch.nn.functional.pad(near.cells, (1, 0)), resolution=(x + 1, y + 1, z + 1), batch_size=1)
    face = near.face[lookup_cells(band, corners.coords).long()].long()
    values, normals = [], []
    parts = zip(corners.coords[:, 1:].double().split(CHUNK), face.split(CHUNK), strict=True)
    for points, faces in tqdm(parts, desc="signs", unit="part", disable=not progress):
        value, normal = _signed(surface, points, faces)
        values.append(value)
        normals.append(normal)
    return CornerDistances(torch.cat(values), torch.cat(normals))


def _signed(surface: OrientedMesh, points: Tensor, face: Tensor) -> tuple[Tensor, Tensor]:
    nearest = closest_points(points, surface.vertices[surface.faces[face]])
    side = surface.normal_at(face, nearest)
    away = points - nearest
    distance = away.norm(dim=1)
    value = torch.where((away * side).sum(1) < 0, -distance, distance)
    tiny = distance < 1e-7  # the direction to a point on the surface is that of its normal
    normal = torch.where(tiny[:, None], side, away * (value.sign() / distance.clamp_min(1e-300))[:, None])
    return value, torch.nn.functional.normalize(normal, dim=1, eps=1e-300)
