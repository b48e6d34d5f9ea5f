"""Sharp edges of CAD parts: where they are, and how well a reconstruction keeps them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from voxgen.core import TriMesh
from voxgen.core.checks import require_int
from voxgen.core.errors import MeshError
from voxgen.ops.mesh_edges import sharp_edges
from voxgen.ops.mesh_edges._table import Array

from ._inputs import require_length, require_mesh, require_same_up
from ._nearest import SurfaceTree, nearest
from .records import DistanceSummary


@dataclass(frozen=True)
class SharpEdgeDeviation:
    """Result of `sharp_edge_deviation`, world units.

    Attributes:
        edges: number of sharp edges of the reference.   length: their total length.
        from_edges: from samples along the reference's sharp edges to the reconstructed surface. Grows where edges are
            rounded off or filled.
        near_vertices: from the reconstruction's vertices near a sharp edge to the reference surface; None if none is near.
            Grows where vertices at edges overshoot or miss both faces.
    """

    edges: int
    length: float
    from_edges: DistanceSummary
    near_vertices: DistanceSummary | None

    def __str__(self) -> str:
        near = "none" if self.near_vertices is None else str(self.near_vertices)
        return f"{self.edges:,} sharp edges, length {self.length:.6g}\nedge to surface    {self.from_edges}\nvertex to surface  {near}"


def sharp_edge_deviation(
    reference: TriMesh,
    reconstruction: TriMesh,
    *,
    near: float,
    angle: float = 40.0,
    samples: int = 20_000,
    seed: int = 0,
    progress: bool = False,
) -> SharpEdgeDeviation:
    """How far a reconstruction departs from the sharp edges of a reference.

    Two measures: the sharp edges against the reconstructed surface, and the reconstructed vertices around the edges
    against the reference surface. A rounded edge shows in the first, a spike or a bridge between the faces in the second.

    Args:
        reference: the mesh whose edges count, for instance a CAD part.
        reconstruction: the mesh to judge.
        near: a vertex of the reconstruction is near if it lies no farther than this from a sharp edge; world units. Two
            voxels are a good choice for a mesh that came from a grid.
        angle: degrees, see `sharp_edges`.
        samples: points spread evenly along all sharp edges; the ends of each edge are measured besides.
        seed: of the shift of these points.
        progress: show a bar.
    Returns:
        SharpEdgeDeviation. The end points enter `from_edges` like samples, so that its maximum sees the corners.
    Raises:
        MeshError: a bad mesh, or a reference without sharp edges.   FrameError: up axes differ.
        RangeError: near, angle or samples out of range.
    Numerics: float64, exact nearest points. Computed on the CPU, not differentiable.
    """
    where = "sharp_edge_deviation"
    require_length(where, "near", near)
    require_int(where, "samples", samples, 1)
    require_int(where, "seed", seed, 0)
    reference, reconstruction = require_mesh(where, "reference", reference), require_mesh(where, "reconstruction", reconstruction)
    require_same_up(where, reference, reconstruction)
    edges = sharp_edges(reference, angle).numpy()
    if len(edges) == 0:
        raise MeshError(f"{where}: reference has no edge that bends by more than {angle:g} degrees. Lower the angle.")
    points: Array = reference.vertices.numpy()
    length = float(np.linalg.norm(points[edges[:, 1]] - points[edges[:, 0]], axis=1).sum())
    along = _along(points, edges, samples, seed)
    used = np.unique(reconstruction.faces.numpy())
    vertices: Array = reconstruction.vertices.numpy()[used]
    with tqdm(total=len(along) + len(vertices), desc="sharp edges", unit="point", unit_scale=True, disable=not progress) as bar:
        from_edges = nearest(SurfaceTree(reconstruction.vertices.numpy(), reconstruction.faces.numpy()), along, bar).distances
        close = nearest(SurfaceTree(points, edges), vertices, bar).distances <= near
        bar.total += int(close.sum())
        from_vertices = None
        if close.any():
            found = nearest(SurfaceTree(points, reference.faces.numpy()), vertices[close], bar)
            from_vertices = DistanceSummary.of(torch.from_numpy(found.distances))
    return SharpEdgeDeviation(len(edges), length, DistanceSummary.of(torch.from_numpy(from_edges)), from_vertices)


def _along(points: Array, edges: Array, samples: int, seed: int) -> Array:
    """Systematic samples by length along the edges, and the edges' ends."""
    start, end = points[edges[:, 0]], points[edges[:, 1]]
    lengths = np.linalg.norm(end - start, axis=1)
    ends = lengths.cumsum()
    shift = float(torch.rand(1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))
    position = (np.arange(samples) + shift) * (ends[-1] / samples)
    edge = np.minimum(np.searchsorted(ends, position, side="right"), len(edges) - 1)
    share = np.clip(1 - (ends[edge] - position) / lengths[edge], 0, 1)[:, None]
    return np.concatenate(((1 - share) * start[edge] + share * end[edge], points[np.unique(edges)]))
