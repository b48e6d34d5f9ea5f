"""Mesh → oriented points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from tqdm import tqdm

from voxgen.core import Frame, TriMesh
from voxgen.core.checks import require_choice, require_int
from voxgen.core.errors import FrameError
from voxgen.core.frame import FIT_SCALE
from voxgen.ops.sample_surface import sample_surface
from voxgen.representations._placement import fit_unit_cube, place, require_meshes

if TYPE_CHECKING:
    from ._fields import OrientedPoints

COUNT = 819_200
"""Points that TripoSF takes of a shape; twice as many of complex ones."""
BEYOND = 1e-5
"""How far points may lie outside a given box, as a share of its side: what rounding does."""


def from_mesh(
    mesh: TriMesh | Sequence[TriMesh],
    count: int = COUNT,
    *,
    frame: Frame | Literal["fit"] = "fit",
    method: Literal["independent", "systematic"] = "independent",
    seed: int = 0,
    compat: Literal["triposf"] | None = None,
    progress: bool = False,
) -> OrientedPoints:
    """Points on a mesh, uniform by area, with the normals of its faces; or on each of a list of meshes as a batch.

    Args:
        mesh: triangles in world units, finite, any number of parts. Normals follow the winding: nothing is flipped or smoothed.
        count: points on each mesh.
        frame: the box of the points. "fit" is a cube around the mesh, of which its longest side takes 0.99999; points stay where the
            mesh lies. Each mesh of a list is brought to the unit cube (`fit_unit_cube`), because a batch has one box. A Frame (of
            one cell, which is the box) takes the meshes as they lie there.
        method: "independent" or "systematic", see `sample_surface`.
        seed: the same seed gives the same points; mesh i of a list is drawn with seed + i.
        compat: "triposf" gives points of `fit_unit_cube(mesh, compat="triposf")` in the unit cube.
        progress: show a bar.
    Returns:
        OrientedPoints on the meshes' device, float32 (float64 for float64 vertices and a given frame). Not differentiable.
    Raises:
        MeshError: no faces, no area, index out of range, vertices not finite, an empty list.   RangeError, DtypeError: arguments
        that make no sense.   FrameError: points outside the given box.
    Source: TripoSF, sampling of its encoder's input: 819,200 points, normals of faces.
    """
    from ._fields import OrientedPoints

    where = "OrientedPoints.from_mesh"
    require_int(where, "count", count, 1)
    require_int(where, "seed", seed, 0)
    if compat is not None:
        require_choice(where, "compat", compat, ("triposf",))
    meshes, single = require_meshes(where, mesh), isinstance(mesh, TriMesh)
    items = []
    for i, item in enumerate(tqdm(meshes, desc="points", unit="mesh", disable=not progress)):
        if compat is not None:
            placed, box = fit_unit_cube(item, compat="triposf"), Frame.unit(1, item.up)
        else:
            placed, _, box = place(where, item, (1, 1, 1), frame, keep_world=single, scale=FIT_SCALE)
            placed = item if single else placed
        found = sample_surface(placed, count, method=method, seed=seed + i)
        if isinstance(frame, Frame):
            share = frame.to_index(found.points)
            if float(share.min()) < -BEYOND or float(share.max()) > 1 + BEYOND:
                raise FrameError(f"{where}: points must lie in the box {frame.bounds((1, 1, 1))}; move and scale the mesh into it.")
        items.append(OrientedPoints(found.points.detach(), found.normals.detach(), frame=box))
    return OrientedPoints.batched(items)
