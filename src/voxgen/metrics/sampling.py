"""Points on a surface, spread evenly by area."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from voxgen.core import TriMesh
from voxgen.core.checks import require_int
from voxgen.core.errors import MeshError

_PLASTIC = 1.3247179572447460
"""Root of x³ = x + 1: steps of 1/x and 1/x² fill the unit square most evenly (the R₂ sequence)."""


@dataclass(frozen=True, eq=False)
class SurfaceSamples:
    """Points on a mesh, in the order of the faces that they lie on.

    Attributes:
        points: (n, 3) world positions, in the dtype and on the device of the mesh's vertices.
        normals: (n, 3) unit normals of the faces.
        faces: (n,) int64 row of the face of each point.
        barycentric: (n, 3) weights of the face's corners.
    """

    points: Tensor
    normals: Tensor
    faces: Tensor
    barycentric: Tensor

    def __len__(self) -> int:
        return len(self.points)


def sample_surface(mesh: TriMesh, samples: int = 100_000, *, seed: int = 0) -> SurfaceSamples:
    """Spread points over all faces of a mesh, uniformly by area.

    Systematic sampling: the total area, face after face, is cut in `samples` equal parts, and each part gets one point, so
    that a face of area A gets `samples` · A / total points, rounded up or down. Inside the faces the points follow a
    low-discrepancy sequence. Everything is shifted at random by `seed`, so that each point is uniform on its part and
    means over the samples are unbiased; their error is far below that of independent points (1 / √samples).

    Args:
        mesh: any device. All faces count, also inner and hidden ones, both sides as one.
        samples: number of points, at least 1.
        seed: of the shift. The same seed gives the same points on the same mesh.
    Returns:
        SurfaceSamples. `points` is differentiable in the vertices (the choice of faces and weights counts as fixed).
    Raises:
        MeshError: no faces, no area, an index out of range, or a vertex that is not finite.
        RangeError, DtypeError: samples or seed is not a whole number in range.
    Numerics: areas, their sum and the weights in float64.
    Example:
        >>> from voxgen.testing.shapes import sphere
        >>> sample_surface(sphere(), 1000).points.shape
        torch.Size([1000, 3])
    """
    where = "sample_surface"
    require_int(where, "samples", samples, 1)
    require_int(where, "seed", seed, 0)
    mesh.validate(where)
    areas = mesh.replace(vertices=mesh.vertices.detach().double()).face_areas().cpu()
    ends = areas.cumsum(0)
    total = float(ends[-1])
    if not total > 0:
        raise MeshError(f"{where}: mesh must have a face with area; all of its {mesh.num_faces} faces are degenerate.")
    shift = torch.rand(3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    index = torch.arange(samples, dtype=torch.float64)
    last = int(areas.nonzero()[-1])  # rounding must not push the last point beyond the faces that have area
    faces = torch.searchsorted(ends, (index + shift[0]) * (total / samples), right=True).clamp_(max=last)
    u, v = (index / _PLASTIC + shift[1]) % 1, (index / _PLASTIC**2 + shift[2]) % 1
    fold = u + v > 1
    u, v = torch.where(fold, 1 - u, u), torch.where(fold, 1 - v, v)
    weights = torch.stack((1 - u - v, u, v), 1).to(mesh.vertices)
    faces = faces.to(mesh.device)
    chosen = mesh.vertices[mesh.faces[faces].long()]
    points = torch.einsum("nk,nkd->nd", weights, chosen)
    normals = torch.linalg.cross(chosen[:, 1] - chosen[:, 0], chosen[:, 2] - chosen[:, 0])
    return SurfaceSamples(points, torch.nn.functional.normalize(normals, dim=1, eps=1e-30), faces, weights)
