"""Points on the surface of a triangle mesh, spread by area.

Sums of areas, faces by a compiled look-up on the CPU, the rest in torch; there is one engine, so nothing to choose.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from voxgen.core import TriMesh
from voxgen.core.aliases import Points
from voxgen.core.checks import require_choice, require_int
from voxgen.core.errors import MeshError

from ._draw import independent, systematic

__all__ = ["SurfaceSamples", "sample_surface"]


@dataclass(frozen=True, eq=False)
class SurfaceSamples:
    """Points on a mesh; in the order of the faces that they lie on if systematic, as drawn if independent.

    Attributes:
        points: (n, 3) world positions, in the dtype and on the device of the mesh's vertices.
        normals: (n, 3) unit normals of the faces.
        faces: (n,) int64 row of the face of each point.
        barycentric: (n, 3) weights of the face's corners.
    """

    points: Points
    normals: Float[Tensor, "n 3"]
    faces: Int64[Tensor, " n"]
    barycentric: Float[Tensor, "n 3"]

    def __len__(self) -> int:
        return len(self.points)


def sample_surface(
    mesh: TriMesh, samples: int = 100_000, *, method: Literal["systematic", "independent"] = "systematic", seed: int = 0
) -> SurfaceSamples:
    """Spread points over all faces of a mesh, uniformly by area.

    Args:
        mesh: any device. All faces count, also inner and hidden ones, both sides as one.
        samples: number of points, at least 1.
        method: "systematic": the total area, face after face, is cut in `samples` equal parts, and each part gets one point, so
            that a face of area A gets `samples` · A / total points, rounded up or down. Inside the faces the points follow a
            low-discrepancy sequence. Everything is shifted at random by `seed`, so that each point is uniform on its part and
            means over the samples are unbiased; their error is far below that of independent points.
            "independent": each point is drawn by itself, the face by its share of the area, then two uniform numbers in it,
            reflected where they fall beyond the face. Any part of the points is a uniform sample too; means have an error of
            1 / √samples. This is what networks for point clouds were trained with.
        seed: the same seed gives the same points on the same mesh.
    Returns:
        SurfaceSamples. `points` is differentiable in the vertices (the choice of faces and weights counts as fixed).
    Raises:
        MeshError: no faces, no area, an index out of range, or a vertex that is not finite.
        RangeError, DtypeError: samples or seed is not a whole number in range, an unknown method.
    Source: "independent" is the sampling of TripoSF and of trimesh; "systematic" is the R₂ sequence of M. Roberts on strata of
        equal area.
    Numerics: areas, their sum and the weights in float64.
    Example:
        >>> from voxgen.testing.shapes import sphere
        >>> sample_surface(sphere(), 1000).points.shape
        torch.Size([1000, 3])
    """
    where = "sample_surface"
    require_int(where, "samples", samples, 1)
    require_int(where, "seed", seed, 0)
    require_choice(where, "method", method, ("systematic", "independent"))
    mesh.validate(where)
    areas = mesh.replace(vertices=mesh.vertices.detach().double()).face_areas().cpu()
    ends = areas.cumsum(0)
    if not float(ends[-1]) > 0:
        raise MeshError(f"{where}: mesh must have a face with area; all of its {mesh.num_faces} faces are degenerate.")
    from ._numba import faces_at

    generator = torch.Generator().manual_seed(seed)
    along, u, v = (systematic if method == "systematic" else independent)(samples, generator)
    last = int(areas.nonzero()[-1])  # rounding must not push the last point beyond the faces that have area
    faces = faces_at(ends, along * ends[-1]).clamp_(max=last)
    fold = u + v > 1
    u, v = torch.where(fold, 1 - u, u), torch.where(fold, 1 - v, v)
    weights = torch.stack((1 - u - v, u, v), 1).to(mesh.vertices)
    faces = faces.to(mesh.device)
    corners = mesh.faces.long().index_select(0, faces).flatten()
    chosen = mesh.vertices.index_select(0, corners).reshape(-1, 3, 3)
    points = (weights[:, :, None] * chosen).sum(1)
    normals = torch.linalg.cross(chosen[:, 1] - chosen[:, 0], chosen[:, 2] - chosen[:, 0])
    return SurfaceSamples(points, torch.nn.functional.normalize(normals, dim=1, eps=1e-30), faces, weights)
