"""Where a mesh lies in the grid of a representation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

from torch import Tensor

from voxgen.core import Frame, TriMesh
from voxgen.core.aliases import Float3, Int3
from voxgen.core.checks import describe, require_choice
from voxgen.core.errors import DtypeError, MeshError, RangeError
from voxgen.core.frame import FIT_SCALE

INSET = 1e-6
"""How far TripoSF keeps vertices and points from the border of the unit cube."""


def require_meshes(where: str, mesh: TriMesh | Sequence[TriMesh]) -> list[TriMesh]:
    """One mesh or several as a list, each checked.

    Raises:
        MeshError: an empty list, no faces, an index out of range, vertices not finite.   DtypeError: no mesh.
    """
    meshes = [mesh] if isinstance(mesh, TriMesh) else list(mesh)
    if not meshes:
        raise MeshError(f"{where}: mesh must be a TriMesh or a non-empty list of them; got an empty list.")
    for item in meshes:
        if not isinstance(item, TriMesh):
            raise DtypeError(
                f"{where}: mesh must be a TriMesh or a list of them; got {describe(item)}. Load files with voxgen.io.load_mesh."
            )
        item.validate(where)
    return meshes


def place(where: str, mesh: TriMesh, cells: Int3, frame: Frame | str, keep_world: bool, scale: float) -> tuple[TriMesh, Frame, Frame]:
    """The mesh to convert, the frame to do it in, and the frame to store.

    "fit" works in the unit cube, in float64 rounded to float32, where the mesh's bounding box has its longest side `scale`; it
    stores the frame that leads back to the world, or with `keep_world` false the unit cube.

    Raises:
        RangeError: frame is neither, or "fit" with different resolutions.   MeshError: "fit" of a mesh without extent.
    """
    if isinstance(frame, Frame):
        return mesh, frame, frame
    if frame != "fit":
        raise RangeError(f"{where}: frame must be a Frame or 'fit'; got {describe(frame)}.")
    if len(set(cells)) > 1:
        raise RangeError(f"{where}: frame='fit' makes a cube and needs one resolution for all axes; got {cells}. Give a Frame.box.")
    fitted, middle, factor = _fit(where, mesh, scale)
    unit = Frame.unit(cells, mesh.up)
    placed = mesh.replace(vertices=fitted.float())
    if not keep_world:
        return placed, unit, unit
    side = 1 / factor
    origin = tuple(float(m) - side / 2 for m in middle)
    return placed, unit, Frame(cast(Float3, origin), (side / cells[0], side / cells[0], side / cells[0]), mesh.up)


def fit_unit_cube(mesh: TriMesh, *, scale: float = FIT_SCALE, compat: Literal["triposf"] | None = None) -> TriMesh:
    """The mesh moved and scaled to the cube [-0.5, 0.5]³: its bounding box in the middle, its longest side `scale`.

    Args:
        mesh: several meshes that belong together are one mesh for this (`TriMesh.concatenate`).
        scale: positive, at most 1.
        compat: "triposf" makes the longest side exactly 1 and then moves vertices on the border of the cube inside by 1e-6.
    Returns:
        TriMesh, vertices in their dtype (computed in float64). Normals are kept: the scaling is the same along all axes.
    Raises:
        MeshError: no faces, vertices not finite, all at one point.   RangeError: scale out of range.
    """
    where = "fit_unit_cube"
    mesh.validate(where)
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not 0 < scale <= 1:
        raise RangeError(f"{where}: scale must be a number above 0, at most 1; got {describe(scale)}.")
    if compat is not None:
        require_choice(where, "compat", compat, ("triposf",))
    fitted, _, _ = _fit(where, mesh, scale if compat is None else 1.0)
    if compat is not None:
        fitted = fitted.clamp(-0.5 + INSET, 0.5 - INSET)
    return mesh.replace(vertices=fitted.to(mesh.vertices.dtype))


def _fit(where: str, mesh: TriMesh, scale: float) -> tuple[Tensor, Tensor, float]:
    """Vertices in the unit cube, float64, the middle of the mesh's box, and the factor from world to cube."""
    low, high = (b.double() for b in mesh.bounds())
    middle, extent = (low + high) / 2, float((high - low).max())
    if extent == 0:
        raise MeshError(f"{where}: mesh must have an extent to be fitted to a cube; all its vertices are one point.")
    factor = scale / extent
    return (mesh.vertices.double() - middle) * factor, middle, factor
