"""Distances with a side at the corners of cells, by the normals of the nearest face, edge or vertex."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from voxgen.core import Frame, TriMesh, VoxelGrid
from voxgen.ops.cube_corners import cube_corners
from voxgen.ops.distance_band import distance_band
from voxgen.ops.lookup import lookup_cells
from voxgen.ops.mesh_distance import closest_points
from voxgen.ops.mesh_distance._closest import FLAT

REACH = 1.75
"""No corner of a touched cell is farther from the mesh than a cell's diagonal, 1.732 cells."""
CHUNK = 1 << 18
"""Corners at a time."""
ON = 1e-9
"""A nearest point with a barycentric weight below this lies on the opposite side of its face."""


class Surface(NamedTuple):
    """A mesh in cells, without double and degenerate faces, and its normals.

    vertices: (v, 3) float64, welded.   faces: (f, 3) int64.
    face_normal: (f, 3) unit.   side_normal: (f, 3, 3), sum of the normals of the faces around the side opposite each corner.
    corner_normal: (v, 3), sum over the faces around a vertex, weighted by their angle there.
    """

    vertices: Tensor
    faces: Tensor
    face_normal: Tensor
    side_normal: Tensor
    corner_normal: Tensor

    @staticmethod
    def of(mesh: TriMesh, box: Frame) -> Surface:
        """The mesh as it lies in a box."""
        vertices = box.to_index(mesh.vertices.detach().double())
        faces = mesh.weld()[mesh.faces.long()]
        faces = _without_doubles(faces[_proper(vertices[faces])])
        a, b, c = vertices[faces].unbind(1)
        normal = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=1, eps=1e-300)
        angles = torch.stack([_angle(p, q, r) for p, q, r in ((a, b, c), (b, c, a), (c, a, b))], 1)
        corner = torch.zeros_like(vertices)
        for k in range(3):
            corner.index_add_(0, faces[:, k], normal * angles[:, k, None])
        return Surface(vertices, faces, normal, _side_normals(faces, normal, len(vertices)), corner)


class CornerDistances(NamedTuple):
    """value: (m,) float64 distance in cells, negative inside.   normal: (m, 3) unit, where the distance grows."""

    value: Tensor
    normal: Tensor


def corner_distances(surface: Surface, grid: VoxelGrid, backend: str, progress: bool) -> CornerDistances:
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


def _signed(surface: Surface, points: Tensor, face: Tensor) -> tuple[Tensor, Tensor]:
    ends = surface.faces[face]
    corners = surface.vertices[ends]
    nearest = closest_points(points, corners)
    side = _normal_at(surface, face, ends, _weights(nearest, corners))
    away = points - nearest
    distance = away.norm(dim=1)
    value = torch.where((away * side).sum(1) < 0, -distance, distance)
    tiny = distance < 1e-7  # the direction to a point on the surface is that of its normal
    normal = torch.where(tiny[:, None], side, away * (value.sign() / distance.clamp_min(1e-300))[:, None])
    return value, torch.nn.functional.normalize(normal, dim=1, eps=1e-300)


def _normal_at(surface: Surface, face: Tensor, ends: Tensor, weight: Tensor) -> Tensor:
    """The normal of the face, side or vertex on which a nearest point lies; the face's where those around cancel."""
    own = surface.face_normal[face]
    zero = weight < ON
    count = zero.sum(1)
    side = surface.side_normal[face, zero.int().argmax(1)]
    corner = surface.corner_normal[ends.gather(1, weight.argmax(1, keepdim=True))[:, 0]]
    chosen = torch.where((count == 1)[:, None], side, torch.where((count >= 2)[:, None], corner, own))
    return torch.where((chosen.norm(dim=1) > 1e-6)[:, None], chosen, own)


def _weights(points: Tensor, corners: Tensor) -> Tensor:
    """Barycentric weights (n, 3) of points on triangles (n, 3, 3)."""
    a, b, c = corners.unbind(1)
    u, v, w = b - a, c - a, points - a
    uu, uv, vv, wu, wv = (u * u).sum(1), (u * v).sum(1), (v * v).sum(1), (w * u).sum(1), (w * v).sum(1)
    area = (uu * vv - uv * uv).clamp_min(1e-300)
    second, third = (vv * wu - uv * wv) / area, (uu * wv - uv * wu) / area
    return torch.stack((1 - second - third, second, third), 1)


def _proper(corners: Tensor) -> Tensor:
    """(f,) bool: faces with an area."""
    u, v = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return (torch.linalg.cross(u, v) ** 2).sum(1) > FLAT * (u * u).sum(1) * (v * v).sum(1)


def _without_doubles(faces: Tensor) -> Tensor:
    """The first of the faces with the same three vertices."""
    a, b, c = faces.sort(dim=1).values.unbind(1)
    size = int(faces.max()) + 1 if len(faces) else 0
    side = (a * size + b).unique(return_inverse=True)[1]
    group = (side * size + c).unique(return_inverse=True)[1]
    first = torch.full((len(faces),), len(faces)).scatter_reduce(0, group, torch.arange(len(faces)), "amin")
    return faces[first[first < len(faces)].sort().values]


def _angle(at: Tensor, one: Tensor, two: Tensor) -> Tensor:
    u, v = one - at, two - at
    return torch.atan2(torch.linalg.cross(u, v).norm(dim=1), (u * v).sum(1))


def _side_normals(faces: Tensor, normal: Tensor, vertices: int) -> Tensor:
    """(f, 3, 3): for the side opposite corner k, the sum of the normals of all faces along it."""
    ends = torch.stack((faces[:, [1, 2]], faces[:, [2, 0]], faces[:, [0, 1]]), 1).sort(dim=2).values
    side = (ends[..., 0] * vertices + ends[..., 1]).flatten().unique(return_inverse=True)[1]
    total = torch.zeros(int(side.max()) + 1 if len(side) else 0, 3, dtype=normal.dtype)
    total.index_add_(0, side, normal.repeat_interleave(3, 0))
    return total[side].reshape(-1, 3, 3)
