"""Data that everything else works on: cells, features, frames, meshes, cameras, errors."""

from .camera import Camera as Camera
from .frame import Frame as Frame
from .grid import VoxelGrid as VoxelGrid
from .material import Material as Material
from .material import Texture as Texture
from .mesh import TriMesh as TriMesh
from .sparse_tensor import SparseTensor as SparseTensor

__all__ = ["Camera", "Frame", "Material", "SparseTensor", "Texture", "TriMesh", "VoxelGrid"]
