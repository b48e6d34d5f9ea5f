"""Mesh files: `load_mesh` and `save_mesh`. Formats of voxgen's own representations lie beside them (`OVoxel.save`)."""

from ._mesh_files import load_mesh as load_mesh
from ._mesh_files import save_mesh as save_mesh

__all__ = ["load_mesh", "save_mesh"]
