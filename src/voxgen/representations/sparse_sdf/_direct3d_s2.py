"""The unsigned distances that Direct3D-S2 makes of a mesh at inference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from voxgen.core import Frame, TriMesh, VoxelGrid
from voxgen.core.aliases import Int3
from voxgen.core.errors import RangeError
from voxgen.ops.distance_band import distance_band
from voxgen.representations._placement import place

if TYPE_CHECKING:
    from ._fields import SparseSDF

SCALE = 0.95
NODES = 4
"""Half-width of the band, in units of 1 / n (the nodes are 1 / (n − 1) apart)."""
STEPS = 1e7
"""Distances are stored as whole numbers of 1 / STEPS of the box."""


def unsigned_distances(where: str, mesh: TriMesh, cells: Int3, *, keep_world: bool, progress: bool, backend: str) -> SparseSDF:
    """See `SparseSDF.from_mesh` with compat."""
    from ._fields import SparseSDF

    n = cells[0]
    if len(set(cells)) > 1 or n < 2:
        raise RangeError(f"{where}: compat='direct3d_s2' takes one resolution of at least 2 for all axes; got {cells}.")
    placed, _, world = place(where, mesh, cells, "fit", keep_world, SCALE)
    size = 1 / (n - 1)
    low = -0.5 - size / 2  # so that the centre of cell i is node i
    near = distance_band(
        placed.vertices,
        placed.faces,
        origin=(low, low, low),
        voxel_size=size,
        resolution=n,
        band=NODES * (n - 1) / n + 1e-3,
        backend=backend,
        progress=progress,
    )
    stored = (near.distance.double() * size * STEPS).floor() / STEPS
    keep = stored < NODES / n
    side = world.voxel_size[0] * n * size
    x, y, z = (o - side / 2 for o in world.origin)
    grid = VoxelGrid.from_sorted(
        torch.nn.functional.pad(near.cells[keep], (1, 0)),
        resolution=n,
        batch_size=1,
        frame=Frame((x, y, z), (side, side, side), mesh.up),
    )
    return SparseSDF(grid, (stored[keep] / size).float()[:, None], NODES * (n - 1) / n, signed=False)
