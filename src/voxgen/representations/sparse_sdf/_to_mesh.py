"""Sparse SDF → mesh."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch

from voxgen.core import TriMesh
from voxgen.core.batching import batch_index
from voxgen.core.errors import EmptyResultWarning, RangeError
from voxgen.ops.marching_cubes import marching_cubes

if TYPE_CHECKING:
    from ._fields import SparseSDF


def to_mesh(
    sdf: SparseSDF,
    level: float | None = None,
    *,
    outside: float | None = None,
    beyond_grid: bool = True,
    backend: str = "auto",
) -> TriMesh:
    """Extract the surface at a distance by marching cubes on the stored cells.

    Args:
        level: distance in cells, within the band; greater ones are farther outside. None is 0, or 1 for an unsigned SDF, which
            gives a shell one cell away on both sides.
        outside: distance in cells to take at cells that are not stored, so that incomplete input (of a network, of a crop) gives
            a closed mesh. None ends the surface where cells are missing; a solid's band is never cut by that.
        beyond_grid: with `outside`, close the surface at the bounds of the grid too.
        backend: see docs/backends.md.
    Returns:
        TriMesh in world units. A batch becomes one mesh with one part for each object, in order ("0", "1", ...).
        Differentiable in the distances.
    Raises:
        RangeError: a level outside the band; distances that are not finite.
    Warns:
        EmptyResultWarning: no stored cell lies at the level (an empty SDF gives an empty mesh without a warning).
    Source: Direct3D-S2 marches at 0.2 of the band with +1 at all other cells: `level=0.2 * sdf.band, outside=sdf.band,
        beyond_grid=False`. Differences: nothing dense; level 0 and no second surface inside, because signs reach everywhere.
    """
    chosen = level if level is not None else (0.0 if sdf.signed else min(1.0, sdf.band / 2))
    if not abs(chosen) < sdf.band:
        raise RangeError(f"SparseSDF.to_mesh: level must lie within the band of {sdf.band:g} cells; got {level}.")
    surface = marching_cubes(sdf.grid, sdf.sdf_cells[:, 0], chosen, outside=outside, beyond_grid=beyond_grid, backend=backend)
    if len(surface.faces) == 0 and len(sdf) > 0:
        warnings.warn(
            f"SparseSDF.to_mesh: no cube of stored cells is passed at the level {chosen:g}, so the mesh is empty ({sdf!r}).",
            EmptyResultWarning,
            stacklevel=2,
        )
    return TriMesh(
        surface.vertices,
        surface.faces,
        part_names=tuple(str(i) for i in range(sdf.batch_size)) or ("",),
        face_part=batch_index(surface.face_offsets, torch.int32) if sdf.batch_size > 1 else None,
        up=sdf.frame.up,
    )
