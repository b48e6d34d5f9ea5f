"""On which side of a mesh a point lies, by the mesh's normals where it is nearest: for open meshes too."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from voxgen.core import TriMesh

from ._closest import FLAT

ON = 1e-9
"""A nearest point with a barycentric weight below this lies on the opposite side of its face."""
CANCELLED = 1e-6
"""Normals around an edge or vertex whose sum is shorter than this say nothing; the face's own normal does."""


class OrientedMesh(NamedTuple):
    """A mesh without double and degenerate faces, and the normals of its faces, edges and vertices.

    An angle-weighted normal of a vertex, and the mean normal of an edge, tell the side of every point that is nearest to it, which the
    normal of one of the faces there does not.

    vertices: (v, 3) float64.   faces: (f, 3) int64, welded.
    face_normal: (f, 3) unit.   side_normal: (f, 3, 3), sum of the normals of the faces around the side opposite each corner.
    corner_normal: (v, 3), sum over the faces around a vertex, weighted by their angle there.

    Source: J. A. Bærentzen and H. Aanæs, Signed distance computation using the angle weighted pseudonormal (2005).
    """

    vertices: Tensor
    faces: Tensor
    face_normal: Tensor
    side_normal: Tensor
    corner_normal: Tensor

    @staticmethod
    def of(mesh: TriMesh) -> OrientedMesh:
        """Prepare a mesh once for many points. Faces given twice count once, with the winding of the first."""
        vertices = mesh.vertices.detach().double()
        faces = mesh.weld()[mesh.faces.long()]
        faces = _without_doubles(faces[_proper(vertices[faces])])
        a, b, c = vertices[faces].unbind(1)
        normal = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=1, eps=1e-300)
        angles = torch.stack([_angle(p, q, r) for p, q, r in ((a, b, c), (b, c, a), (c, a, b))], 1)
        corner = torch.zeros_like(vertices)
        for k in range(3):
            corner.index_add_(0, faces[:, k], normal * angles[:, k, None])
        return OrientedMesh(vertices, faces, normal, _side_normals(faces, normal, len(vertices)), corner)

    def normal_at(self, face: Tensor, nearest: Tensor) -> Tensor:
        """(p, 3) the normal of the face, edge or vertex on which each nearest point lies; not of unit length.

        Args:
            face: (p,) int64 a face it lies on.   nearest: (p, 3) float64.
        """
        ends = self.faces[face]
        zero = (weight := _weights(nearest, self.vertices[ends])) < ON
        count = zero.sum(1)
        own = self.face_normal[face]
        side = self.side_normal[face, zero.int().argmax(1)]
        corner = self.corner_normal[ends.gather(1, weight.argmax(1, keepdim=True))[:, 0]]
        chosen = torch.where((count == 1)[:, None], side, torch.where((count >= 2)[:, None], corner, own))
        return torch.where((chosen.norm(dim=1) > CANCELLED)[:, None], chosen, own)


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
    group = faces.sort(dim=1).values.unique(dim=0, return_inverse=True)[1]
    rows = torch.arange(len(faces), device=faces.device)
    first = torch.full_like(rows, len(faces)).scatter_reduce(0, group, rows, "amin")
    return faces[first[first < len(faces)].sort().values]


def _angle(at: Tensor, one: Tensor, two: Tensor) -> Tensor:
    u, v = one - at, two - at
    return torch.atan2(torch.linalg.cross(u, v).norm(dim=1), (u * v).sum(1))


def _side_normals(faces: Tensor, normal: Tensor, vertices: int) -> Tensor:
    """(f, 3, 3): for the side opposite corner k, the sum of the normals of all faces along it."""
    ends = torch.stack((faces[:, [1, 2]], faces[:, [2, 0]], faces[:, [0, 1]]), 1).sort(dim=2).values
    side = (ends[..., 0] * vertices + ends[..., 1]).flatten().unique(return_inverse=True)[1]
    total = torch.zeros(int(side.max()) + 1 if len(side) else 0, 3, dtype=normal.dtype, device=normal.device)
    total.index_add_(0, side, normal.repeat_interleave(3, 0))
    return total[side].reshape(-1, 3, 3)
