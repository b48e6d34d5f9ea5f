"""Where a mesh lies in the grid of a representation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from voxgen.core import Frame, TriMesh
from voxgen.core.aliases import Float3, Int3
from voxgen.core.checks import describe
from voxgen.core.errors import DtypeError, MeshError, RangeError


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
    v = mesh.vertices.double()
    low, high = (b.double() for b in mesh.bounds())
    middle, extent = (low + high) / 2, (high - low).max()
    if float(extent) == 0:
        raise MeshError(f"{where}: mesh must have an extent to be fitted to a cube; all its vertices are one point.")
    factor = scale / extent
    unit = Frame.unit(cells, mesh.up)
    placed = mesh.replace(vertices=((v - middle) * factor).float())
    if not keep_world:
        return placed, unit, unit
    side = 1 / float(factor)
    origin = tuple(float(m) - side / 2 for m in middle)
    return placed, unit, Frame(cast(Float3, origin), (side / cells[0], side / cells[0], side / cells[0]), mesh.up)
