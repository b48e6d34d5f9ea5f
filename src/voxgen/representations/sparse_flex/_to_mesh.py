"""SparseFlex → mesh."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from voxgen.core import TriMesh, VoxelGrid
from voxgen.core.batching import batch_index
from voxgen.ops.flexicubes import FlexInputs, FlexSurface, flexicubes, flexicubes_in_slabs

from ._features import Compat, check_features, from_features

if TYPE_CHECKING:
    from ._fields import SparseFlex


def surface(
    flex: SparseFlex,
    *,
    training: bool = False,
    keep: Bool[Tensor, " n"] | None = None,
    compat: Literal["triposf"] | None = None,
    backend: str = "auto",
) -> FlexSurface:
    """What `flexicubes` finds in the field: vertices and faces packed by sample, quads, and what regularisers read (`deviation`).

    Arguments, errors and warnings as in `to_mesh`.
    """
    return flexicubes(
        flex.grid,
        flex.sdf,
        None if flex.offsets is None else flex.positions,
        alpha=flex.alpha,
        beta=flex.beta,
        gamma=flex.gamma,
        keep=keep,
        training=training,
        compat=compat,
        backend=backend,
    )


def to_mesh(
    flex: SparseFlex,
    *,
    training: bool = False,
    keep: Bool[Tensor, " n"] | None = None,
    compat: Literal["triposf"] | None = None,
    backend: str = "auto",
) -> TriMesh:
    """Extract the surface.

    Args:
        training: put a vertex into the middle of each quad instead of cutting it in two, so that gamma has a gradient.
        keep: (n,) bool, which cells to extract: a view frustum, a section, what carving left. Vertices are those of the whole surface;
            quads need all of their four cells. None: all.
        compat: "triposf" gives the original's vertices and faces in their order: unused vertices stay, and quads around an edge that
            begins at exactly 0 look backwards.
        backend: see docs/backends.md.
    Returns:
        TriMesh in world units. A batch becomes one mesh with one part for each object, in order ("0", "1", ...).
        Differentiable in all fields (gamma with `training`); signs have no gradient.
    Raises:
        RangeError: fields that are not finite, weights that are not positive.
    Warns:
        EmptyResultWarning: there are cells but no surface; the message says why.
    Source: TripoSF, FlexiCubes on sparse cells. Differences: see `flexicubes`.
    """
    return _as_mesh(surface(flex, training=training, keep=keep, compat=compat, backend=backend), flex.grid)


def to_meshes(
    flex: SparseFlex,
    *,
    training: bool = False,
    keep: Bool[Tensor, " n"] | None = None,
    compat: Literal["triposf"] | None = None,
    backend: str = "auto",
) -> tuple[TriMesh, ...]:
    """One mesh for each object of the batch, empty ones included: what renderers of batches take. Arguments as in `to_mesh`."""
    return surface(flex, training=training, keep=keep, compat=compat, backend=backend).to_meshes()


def mesh_from_features(
    grid: VoxelGrid,
    feats: Float[Tensor, "n 53"],
    *,
    cells: int = 1 << 22,
    training: bool = False,
    compat: Compat | None = None,
    progress: bool = False,
    backend: str = "auto",
) -> TriMesh:
    """`from_features(...).to_mesh(...)`, slab by slab along x, so that the field of the whole grid is never held: for fine grids.

    Args:
        grid, feats, compat: as in `from_features`; the order of the surface is that of `to_mesh` without compat.
        cells: about how many cells to take at a time.
        training, backend: as in `to_mesh`.
        progress: show a bar.
    Returns:
        The same mesh. Differentiable (what is kept for the backward pass is that of the whole grid).
    Raises, Warns:
        as `from_features` and `to_mesh`.
    """
    check_features("SparseFlex.mesh_from_features", grid, feats, compat)

    def field(part: VoxelGrid, rows: slice) -> FlexInputs:
        flex = from_features(part, feats[rows], compat=compat)
        return FlexInputs(flex.sdf, flex.positions, flex.alpha, flex.beta, flex.gamma)

    found = flexicubes_in_slabs(grid, field, cells=cells, training=training, progress=progress, backend=backend)
    return _as_mesh(found, grid)


def _as_mesh(found: FlexSurface, grid: VoxelGrid) -> TriMesh:
    return TriMesh(
        found.vertices,
        found.faces,
        part_names=tuple(str(i) for i in range(grid.batch_size)) or ("",),
        face_part=batch_index(found.face_offsets, torch.int32) if grid.batch_size > 1 else None,
        up=grid.frame.up,
    )
