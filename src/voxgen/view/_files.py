"""What a file holds, told by its suffix and by what it says of itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from voxgen.core import TriMesh
from voxgen.core.errors import FileFormatError
from voxgen.core.frame import UpAxis
from voxgen.io import load_mesh
from voxgen.representations import GaussianSplats, OrientedPoints, OVoxel, SparseFlex, SparseSDF

__all__ = ["Viewable", "open_file"]

Viewable: TypeAlias = TriMesh | OVoxel | SparseSDF | SparseFlex | GaussianSplats | OrientedPoints

READERS: dict[str, tuple[Callable[[Path], Viewable], ...]] = {
    ".vxz": (OVoxel.load,),
    ".npz": (OVoxel.load, SparseSDF.load),
    ".safetensors": (SparseFlex.load, GaussianSplats.load, OrientedPoints.load),
}
"""By suffix, in the order in which they are tried: each reader refuses what is of another kind."""
MESHES = (".glb", ".gltf", ".obj", ".ply", ".stl", ".off")
SPLATS = b"f_dc_0"
"""A property that PLY files of Gaussians have, and those of meshes have not."""


def open_file(path: str | os.PathLike[str], up: UpAxis | None = None) -> Viewable:
    """Read a file of any kind that voxgen writes or imports.

    Args:
        path: glb, gltf, obj, ply (mesh or Gaussians), stl, off, vxz, npz (O-Voxel or sparse SDF), or safetensors (SparseFlex, Gaussians or
            oriented points).
        up: which axis points up in mesh formats that do not say; None is "y".
    Raises:
        FileFormatError: another suffix, or a file that none of the readers takes, with the reason of each.   OSError: cannot read.
    """
    where = Path(os.fspath(path))
    suffix = where.suffix.lower()
    if suffix == ".ply" and _holds_gaussians(where):
        return GaussianSplats.load_ply(where)
    if suffix in MESHES:
        return load_mesh(where, up=up)
    if suffix not in READERS:
        raise FileFormatError(f"{where}: the suffix must be one of {', '.join((*MESHES, *READERS))}; got {suffix!r}.")
    reasons = []
    for read in READERS[suffix]:
        try:
            return read(where)
        except FileFormatError as error:
            reasons.append(str(error))
    raise FileFormatError(f"{where} holds nothing that can be shown: " + " | ".join(reasons))


def _holds_gaussians(path: Path) -> bool:
    with path.open("rb") as file:
        return SPLATS in file.read(4096)
