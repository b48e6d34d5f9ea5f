"""Data that everything else works on: cells, features, frames, meshes, cameras, errors."""

from .camera import Camera as Camera
from .frame import Frame as Frame
from .gaussians import Gaussians as Gaussians
from .grid import VoxelGrid as VoxelGrid
from .material import Material as Material
from .material import Texture as Texture
from .mesh import TriMesh as TriMesh
from .selection import Selection as Selection
from .sparse_tensor import SparseTensor as SparseTensor

__all__ = ["Camera", "Frame", "Gaussians", "Material", "Selection", "SparseTensor", "Texture", "TriMesh", "VoxelGrid"]
