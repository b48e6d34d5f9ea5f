"""Distance from any points to a triangle mesh, with or without a side."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from voxgen.core import TriMesh
from voxgen.core.aliases import Faces, Points, Vertices
from voxgen.core.checks import require_finite, require_same_device, require_tensor
from voxgen.core.errors import MeshError
from voxgen.ops._registry import Backend, Call, Op, cpu_only, module

from ._closest import closest_points
from ._oriented import OrientedMesh

__all__ = ["OrientedMesh", "PointDistance", "closest_points", "mesh_distance", "oriented_distance"]

OP = Op(
    "mesh_distance",
    [
        Backend("libigl", "voxgen.ops.mesh_distance._libigl:nearest_face", (cpu_only, module("igl"))),
        Backend("reference", "voxgen.ops.mesh_distance._reference:nearest_face"),
    ],
)


class PointDistance(NamedTuple):
    """distance: (p,) world units.   closest: (p, 3) the nearest point of the mesh.   face: (p,) int32, a face it lies on."""

    distance: Float[Tensor, " p"]
    closest: Points
    face: Int32[Tensor, " p"]


def mesh_distance(points: Points, vertices: Vertices, faces: Faces, *, signed: bool = False, backend: str = "auto") -> PointDistance:
    """The nearest point of a mesh to each point, and how far it is.

    For all cells near a surface use `distance_band`, which is several times as fast.

    Args:
        points: (p, 3) float32 or float64, anywhere.
        vertices: (v, 3) of the dtype of points, same units.
        faces: (f, 3) int32 or int64, at least one; faces without area count as the segments or points that they are.
        signed: give a negative distance where the winding number exceeds one half (`inside_mesh`).
        backend: see docs/backends.md.
    Returns:
        PointDistance. Differentiable in points and vertices: the nearest face is taken as it is, so the gradient is the unit
        vector from the nearest point; it is 0 on the surface and jumps where two parts are equally near.
    Raises:
        ShapeError, DtypeError, DeviceError: arguments of a wrong kind.   RangeError: a point that is not finite.
        MeshError: no faces, an index out of range, or a vertex that is not finite.
    Numerics: the face is found in float64, the distance computed in the dtype of the points. Signs of the libigl engine come from its
        fast winding number, which is off by some thousandths: they may be wrong in the middle of a hole, not near a closed surface.
    Example:
        >>> from voxgen.testing.shapes import box
        >>> cube = box()
        >>> mesh_distance(torch.tensor([[0.0, 0.0, 0.5], [0.0, 0.1, 0.0]]), cube.vertices, cube.faces, signed=True).distance
        tensor([ 0.2000, -0.2000])
    """
    where = "mesh_distance"
    require_tensor(where, "points", points, ("p", 3), (torch.float32, torch.float64))
    require_tensor(where, "vertices", vertices, ("v", 3), (points.dtype,), hint="Points and vertices must have one dtype.")
    require_same_device(where, points=points, vertices=vertices, faces=faces)
    require_finite(where, "points", points)
    mesh = TriMesh(vertices.detach(), faces).validate(where)
    engine = OP.choose(backend, Call.of(points, vertices)).load()
    face, inside = engine(points.detach().double(), mesh.vertices.double(), mesh.faces.long(), signed)
    closest = closest_points(points, vertices[mesh.faces[face].long()])
    distance = (points - closest).norm(dim=1)
    return PointDistance(torch.where(inside, -distance, distance) if signed else distance, closest, face.int())


def oriented_distance(points: Points, mesh: TriMesh | OrientedMesh, *, backend: str = "auto") -> Float[Tensor, " p"]:
    """Distance to a mesh, negative behind it: where the mesh is nearest, its normal points away from the point.

    Other than `mesh_distance(signed=True)` it needs no inside, so it has a meaning around open meshes, whose faces must be wound
    consistently. Around closed meshes wound outwards both agree.

    Args:
        points: (p, 3) float32 or float64, anywhere.
        mesh: in the same frame, at least one face with an area; or an `OrientedMesh`, made once for many calls.
        backend: see docs/backends.md.
    Returns:
        (p,) of the dtype of points, world units, on their device. Not differentiable.
    Raises:
        ShapeError, DtypeError, DeviceError, RangeError: points of a wrong kind.   MeshError: as `mesh_distance`, or no face has an area.
    Source: J. A. Bærentzen and H. Aanæs, Signed distance computation using the angle weighted pseudonormal (2005).
    Numerics: float64; faces that are given twice count once.
    Example:
        >>> from voxgen.testing.shapes import wavy_sheet
        >>> oriented_distance(torch.tensor([[0.0, 0.0, 0.4], [0.0, 0.0, -0.4]]), wavy_sheet()).sign()
        tensor([ 1., -1.])
    """
    where = "oriented_distance"
    require_tensor(where, "points", points, ("p", 3), (torch.float32, torch.float64))
    require_finite(where, "points", points)
    prepared = OrientedMesh.of(mesh.validate(where)) if isinstance(mesh, TriMesh) else mesh
    if len(prepared.faces) == 0:
        raise MeshError(f"{where}: mesh must have a face with an area; it has none.")
    if len(points) == 0:
        return points.new_zeros(0)
    place = points.detach().double()
    found = mesh_distance(place, prepared.vertices, prepared.faces, backend=backend)
    side = prepared.normal_at(found.face.long(), found.closest)
    behind = ((place - found.closest) * side).sum(1) < 0
    return torch.where(behind, -found.distance, found.distance).to(points.dtype)
