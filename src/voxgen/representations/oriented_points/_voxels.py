"""Oriented points → the cells that an encoder puts their features in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from voxgen.core import TriMesh, VoxelGrid
from voxgen.core.aliases import Int3
from voxgen.core.checks import require_int3
from voxgen.core.coords import MAX_RESOLUTION
from voxgen.core.errors import FrameError, RangeError
from voxgen.ops.grid_sets import union
from voxgen.ops.point_cells import point_cells
from voxgen.ops.surface_cells import surface_cells
from voxgen.representations._placement import require_meshes

if TYPE_CHECKING:
    from ._fields import OrientedPoints

FINER = 4
"""How many times as fine as the encoder's grid the decoder's is; the skin is about one of its cells."""


def voxels(
    cloud: OrientedPoints,
    resolution: int | Int3,
    mesh: TriMesh | Sequence[TriMesh] | None = None,
    *,
    skin: float | None = None,
    backend: str = "auto",
) -> VoxelGrid:
    """The cells around the points, and all that the mesh overlaps.

    Args:
        resolution: cells along the axes of the box, one number or three.
        mesh: the mesh that the points were taken from, where they are; one for each sample of a batch. None takes the points alone.
        skin: how far the cells reach beyond the points, in cells; None is R / (4 R − 1), about a quarter, 0 the points' own cells.
        backend: see docs/backends.md.
    Returns:
        VoxelGrid on the points' device. Every point lies in one of its cells.
    Raises:
        RangeError: another number of meshes than samples; a skin below 0; points that are not finite.   MeshError: no usable mesh.
        FrameError: a mesh that leaves the box, or has another up axis.
    Source: TripoSF, preparation of its encoder's input: cells that a triangle overlaps, and those that hold p + o / (4 R − 1) for
        each of the 27 offsets o in {−1, 0, 1}³.
    """
    where = "OrientedPoints.voxels"
    cells = require_int3(where, "resolution", resolution, 1, MAX_RESOLUTION)
    frame = cloud.frame.refine(cells)
    reach = max(cells) / (FINER * max(cells) - 1) if skin is None else skin
    near = point_cells(cloud.points, cells, offsets=cloud.offsets, frame=frame, skin=reach, backend=backend)
    if mesh is None:
        return near
    meshes = require_meshes(where, mesh)
    if len(meshes) != cloud.batch_size:
        raise RangeError(f"{where}: one mesh a sample is needed; got {len(meshes)} meshes for {cloud.batch_size} samples.")
    parts = []
    for sample, item in enumerate(meshes):
        if item.up != frame.up:
            raise FrameError(f"{where}: the mesh's up axis is {item.up!r}, the box's {frame.up!r}; turn it with `with_up`.")
        touched = surface_cells(
            item.vertices, item.faces, origin=frame.origin, voxel_size=frame.voxel_size, resolution=cells, backend=backend
        )
        parts.append(torch.nn.functional.pad(touched, (1, 0), value=sample))
    covered = VoxelGrid.from_sorted(torch.cat(parts).to(cloud.device), resolution=cells, batch_size=cloud.batch_size, frame=frame)
    return union(near, covered)
