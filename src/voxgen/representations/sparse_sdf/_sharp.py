"""Cells near the sharp edges of a mesh."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool
from torch import Tensor

from voxgen.core import TriMesh
from voxgen.core.errors import FrameError, RangeError
from voxgen.ops.distance_band import require_band, segment_band
from voxgen.ops.mesh_edges import sharp_edges

if TYPE_CHECKING:
    from ._fields import SparseSDF


def sharp_edge_cells(sdf: SparseSDF, mesh: TriMesh | Sequence[TriMesh], *, angle: float = 30.0, radius: float = 1.5) -> Bool[Tensor, " n"]:
    """True for the stored cells whose centre lies near a sharp edge of the mesh: the set of the loss term L_sharp.

    Args:
        mesh: the mesh that the SDF was made from, in its world frame; one for each sample of a batch. (Meshes that `from_mesh`
            took as a list were moved to the unit cube: give them as they lie there.)
        angle: degrees in [0, 180) by which the surface must bend at an edge, 0 where it is flat.
        radius: cells.
    Returns:
        (n,) bool on the SDF's device.
    Raises:
        MeshError, DtypeError: no usable mesh.   RangeError: angle or radius out of range; another number of meshes than samples.
        FrameError: another up axis.
    Source: Direct3D-S2 names "active voxels near sharp edges" without a definition; 30 degrees is that of Dora (arXiv 2412.17808).
    """
    where = "SparseSDF.sharp_edge_cells"
    meshes = [mesh] if isinstance(mesh, TriMesh) else list(mesh)
    reach = require_band(where, "radius", radius)
    if len(meshes) != sdf.batch_size:
        raise RangeError(f"{where}: one mesh a sample is needed; got {len(meshes)} meshes for {sdf.batch_size} samples.")
    near = torch.zeros(len(sdf), dtype=torch.bool, device=sdf.device)
    for sample, item in enumerate(meshes):
        if isinstance(item, TriMesh) and item.up != sdf.frame.up:
            raise FrameError(f"{where}: the mesh's up axis is {item.up!r}, the SDF's {sdf.frame.up!r}; turn it with `with_up`.")
        edges = sharp_edges(item, angle)
        ends = sdf.frame.to_index(item.vertices.detach().double().cpu())[edges]
        close = segment_band(ends, resolution=sdf.resolution, band=reach).cells
        coords = torch.nn.functional.pad(close, (1, 0), value=sample).to(sdf.device)
        rows = sdf.grid.rows_of(coords)
        near[rows[rows >= 0]] = True
    return near
