"""Edges at which a surface bends."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from voxgen.core import TriMesh
from voxgen.core.checks import describe
from voxgen.core.errors import DtypeError, RangeError

from ._table import edge_table


def sharp_edges(mesh: TriMesh, angle: float = 40.0) -> Int64[Tensor, "e 2"]:
    """The edges at which a surface bends by more than an angle.

    Found after welding, so a seam of texture coordinates or normals is no edge. Only edges of exactly two faces can be
    sharp: borders and seams of three sheets are not counted (`mesh_report` counts them). Consistent winding is not needed.
    Edges of a face without area are left out, for it has no normal.

    Args:
        mesh: any device; computed on the CPU in float64.
        angle: degrees in [0, 180) between the two faces' normals, 0 where they lie in one plane.
    Returns:
        (e, 2) int64 CPU, vertices of `mesh` at the two ends.
    Raises:
        MeshError: no faces, an index out of range, or a vertex that is not finite.   RangeError: angle out of range.
    Example:
        >>> from voxgen.testing.shapes import box
        >>> len(sharp_edges(box()))
        12
    """
    if not 0 <= angle < 180:
        raise RangeError(f"sharp_edges: angle must lie in [0, 180) degrees; got {angle}.")
    if not isinstance(mesh, TriMesh):
        raise DtypeError(f"sharp_edges: mesh must be a TriMesh; got {describe(mesh)}.")
    mesh = mesh.validate("sharp_edges")
    table = edge_table(mesh, weld=True)
    first = table.starts[table.counts == 2]
    points = mesh.replace(vertices=mesh.vertices.detach().double().cpu(), faces=mesh.faces.cpu())
    normals = points.face_normals().numpy()[table.rows]
    one, other = normals[table.half_edges[first] // 3], normals[table.half_edges[first + 1] // 3]
    agree = table.forward[first] != table.forward[first + 1]
    cosine = np.einsum("ij,ij->i", one, other) * np.where(agree, 1, -1)
    sine = np.linalg.norm(np.cross(one, other), axis=1)
    has_normals = (one != 0).any(1) & (other != 0).any(1)
    bend = np.arctan2(sine, cosine)  # exact also near 0, where acos is not
    sharp = first[has_normals & (bend > np.radians(angle))]
    return torch.from_numpy(np.stack(table.ends(table.half_edges[sharp]), 1))
