"""Representations of shape and appearance on sparse voxels."""

from .ovoxel import OVoxel as OVoxel
from .sparse_sdf import SparseSDF as SparseSDF

__all__ = ["OVoxel", "SparseSDF"]
